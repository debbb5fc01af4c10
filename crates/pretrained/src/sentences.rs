//! How a model of sentence-transformers' makes a vector of a text: its `modules.json`.

use std::path::Path;

use ironlens_transformer::{Pooling, Sentences};
use serde_json::{Value, json};

use crate::error::PretrainedError;
use crate::load::{read_text, text_of};

/// What a folder says; `None` if it says nothing.
///
/// # Errors
/// If that cannot be read, or is something that is not computed here.
pub(crate) fn of_folder(folder: &Path) -> Result<Option<Sentences>, PretrainedError> {
    let path = folder.join("modules.json");
    if !path.is_file() {
        return Ok(None);
    }
    let modules = read_json(&path)?;
    let mut how = Sentences::default();
    for module in modules.as_array().into_iter().flatten() {
        let kind = text_of(module, "type").unwrap_or_default();
        // Modules are Python classes by their full names, which have moved.
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Pooling" => how.pooling = pooling(folder, text_of(module, "path").unwrap_or_default())?,
            "Normalize" => how.normalize = true,
            _ => {
                let text = format!(
                    "modules.json has {kind:?}, and of sentence-transformers' modules those are read that pool and \
                     normalise; without the file the model is read without them"
                );
                return Err(PretrainedError::Config(text));
            }
        }
    }
    Ok(Some(how))
}

/// The pooling that a module's folder says, in one of two spellings.
fn pooling(folder: &Path, module: &str) -> Result<Pooling, PretrainedError> {
    let config = read_json(&folder.join(module).join("config.json"))?;
    let mut modes: Vec<String> = match config.get("pooling_mode") {
        Some(Value::String(mode)) => vec![mode.clone()],
        Some(several) => vec![several.to_string()],
        None => Vec::new(),
    };
    for (key, value) in config.as_object().into_iter().flatten() {
        if let (Some(mode), Some(true)) = (key.strip_prefix("pooling_mode_"), value.as_bool()) {
            modes.push(mode.trim_end_matches("_tokens").trim_end_matches("_token").into());
        }
    }
    match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["mean"] => Ok(Pooling::Mean),
        ["cls"] => Ok(Pooling::Cls),
        ["max"] => Ok(Pooling::Max),
        _ => Err(PretrainedError::Config(format!(
            "{module}/config.json pools by {}, expected one of mean, cls and max; without modules.json the model is \
             read without it",
            modes.join(" and ")
        ))),
    }
}

fn read_json(path: &Path) -> Result<Value, PretrainedError> {
    let text = read_text(path)?;
    serde_json::from_str(&text)
        .map_err(|e| PretrainedError::NotAModel { path: path.into(), reason: format!("it is no JSON: {e}") })
}

const NAMES: [(&str, Pooling); 4] =
    [("mean", Pooling::Mean), ("cls", Pooling::Cls), ("max", Pooling::Max), ("pooler", Pooling::Pooler)];

pub(crate) fn to_json(how: Sentences) -> Value {
    let name = NAMES.iter().find(|(_, pooling)| *pooling == how.pooling).map(|(name, _)| *name);
    json!({ "pooling": name, "normalize": how.normalize })
}

pub(crate) fn from_json(value: &Value) -> Option<Sentences> {
    let name = text_of(value, "pooling")?;
    let pooling = NAMES.iter().find(|(known, _)| *known == name)?.1;
    Some(Sentences { pooling, normalize: value.get("normalize")?.as_bool()? })
}
