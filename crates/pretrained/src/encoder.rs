//! Encoders, from a name or folder and back.

use std::path::Path;

use ironlens_files::{Checkpoint, TensorFile};
use ironlens_tensor::DType;
use ironlens_transformer::{Config, Heads, HookedEncoder, Sentences};
use serde_json::{Map, Value, json};

use crate::conversion::Conversion;
use crate::encoder_check::checked;
use crate::error::PretrainedError;
use crate::families::{self, bert, encoder_of};
use crate::hf::HfConfig;
use crate::load::{Found, LoadOptions, apply, beside, configuration, fetched, find};
use crate::state_dict::{self, Renamed};
use crate::{save, sentences, text};

/// What the `config.json` of a saved encoder has beside the fields of its configuration: the list of its heads, and
/// how it makes vectors of texts.
pub(crate) const HEADS: &str = "heads";
const SENTENCES: &str = "sentences";

/// Whether the model at a path, or in the Hugging Face cache by a name, is an encoder: whether
/// `HookedEncoder::from_pretrained` reads it.
///
/// # Errors
/// If there is no model.
pub fn is_encoder(source: impl AsRef<str>, options: &LoadOptions) -> Result<bool, PretrainedError> {
    Ok(match find(&fetched(source.as_ref(), options)?)? {
        Found::HuggingFace { hf, .. } => families::is_encoder(&hf),
        Found::OwnEncoder { .. } => true,
        Found::Own { .. } | Found::Single(_) => false,
    })
}

/// Loads the encoder that `source` is.
///
/// # Errors
/// See [`Pretrained::from_pretrained`](crate::Pretrained::from_pretrained).
pub(crate) fn load(source: &str, options: &LoadOptions) -> Result<HookedEncoder, PretrainedError> {
    options.check_types()?;
    let unfit = [
        (
            options.refactor_factored_attn_matrices,
            "refactor_factored_attn_matrices: weights of an encoder stay as they are",
        ),
        (options.default_prepend_bos.is_some(), "default_prepend_bos: an encoder's texts begin with its own token"),
        (options.default_padding_side.is_some(), "default_padding_side: an encoder's texts are padded on the right"),
        (options.storage.is_storage(), "storage: matrices of an encoder are f32"),
    ];
    if let Some((_, what)) = unfit.iter().find(|(given, _)| *given) {
        return Err(PretrainedError::Options(format!("{what}; leave the option out")));
    }
    let folder = fetched(source, options)?;
    let mut model = match find(&folder)? {
        Found::HuggingFace { hf, weights } => convert(&hf, &weights, options)?,
        Found::OwnEncoder { text, weights } => read_own(&text, &weights, options)?,
        Found::Own { .. } => {
            let hint = "it is a decoder, which HookedTransformer::from_pretrained reads".into();
            return Err(PretrainedError::Family { architecture: "HookedTransformer".into(), hint });
        }
        Found::Single(file) => {
            let reason = "an encoder is a folder with a config.json, or weights with one beside them".into();
            return Err(PretrainedError::NotAModel { path: file, reason });
        }
    };
    text::of_encoder_folder(&mut model, beside(&folder))?;
    let model = if options.dtype == DType::F32 { model } else { model.to_dtype(options.dtype) };
    checked(model)
}

/// The model of a checkpoint of Hugging Face's.
fn convert(hf: &HfConfig, weights: &Path, options: &LoadOptions) -> Result<HookedEncoder, PretrainedError> {
    let family = encoder_of(hf)?;
    let hf = &hf.completed(family.names, family.defaults);
    let checkpoint = Checkpoint::open(weights)?;
    let heads = bert::heads(hf, checkpoint.tensors().iter().map(|t| t.name.as_str()));
    let cfg = configuration(family, hf, options)?;
    let mut model = HookedEncoder::with_heads(cfg, heads, &options.device, 0)?;
    let source = Renamed::new(&checkpoint, |name| Some(bert::newer_name(name)));
    let mut conversion = Conversion::new(hf, &source, family.prefix, &mut model, None);
    (family.tensors)(&mut conversion)?;
    conversion.finish(weights, options)?;
    if let Some(how) = sentences::of_folder(beside(weights))? {
        model.set_sentences(how)?;
    }
    Ok(model)
}

/// The model of a folder that [`save`] wrote.
fn read_own(text: &str, weights: &Path, options: &LoadOptions) -> Result<HookedEncoder, PretrainedError> {
    let wrong = |what: &str| PretrainedError::Config(format!("`{what}` is not what save_pretrained writes there"));
    let mut fields: Map<String, Value> = serde_json::from_str(text).map_err(|_| wrong("config.json"))?;
    let heads = fields.remove(HEADS).and_then(|names| heads_of(&names)).ok_or_else(|| wrong(HEADS))?;
    let how = match fields.remove(SENTENCES) {
        Some(how) => sentences::from_json(&how).ok_or_else(|| wrong(SENTENCES))?,
        None => Sentences::default(),
    };
    let mut cfg = Config::from_json(&Value::Object(fields).to_string())?;
    apply(options, &mut cfg)?;
    let cfg = Config { init_weights: false, ..cfg };
    let mut model = HookedEncoder::with_heads(cfg, heads, &options.device, 0)?;
    state_dict::fill(&mut model, None, &Checkpoint::open(weights)?, options)?;
    model.set_sentences(how)?;
    Ok(model)
}

/// Writes an encoder into a folder.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn save(model: &HookedEncoder, folder: &Path) -> Result<(), PretrainedError> {
    let mut fields: Map<String, Value> = serde_json::from_str(&model.config().to_json()).unwrap_or_default();
    fields.insert(HEADS.into(), names_of(model.heads()));
    fields.insert(SENTENCES.into(), sentences::to_json(model.sentences()));
    let config = format!("{:#}", Value::Object(fields));
    save::write(model, &config, model.tokenizer().map(|tokenizer| tokenizer.tokenizer()), folder)
}

fn names_of(heads: Heads) -> Value {
    let all = [("mlm_head", heads.masked_language), ("pooler", heads.pooler), ("nsp_head", heads.next_sentence)];
    json!(all.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect::<Vec<_>>())
}

fn heads_of(names: &Value) -> Option<Heads> {
    let mut heads = Heads::NONE;
    for name in names.as_array()? {
        match name.as_str()? {
            "mlm_head" => heads.masked_language = true,
            "pooler" => heads.pooler = true,
            "nsp_head" => heads.next_sentence = true,
            _ => return None,
        }
    }
    Some(heads)
}
