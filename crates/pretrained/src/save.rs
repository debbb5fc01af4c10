//! A model as a folder that is read back to the same bits.

use std::fs;
use std::path::Path;

use ironlens_files::{FileError, write_atomically};
use ironlens_tokenizer::Tokenize;
use ironlens_transformer::{HookedModel, HookedTransformer, ModelError, save_params};

use crate::error::PretrainedError;

/// Writes `config.json` (in TransformerLens's names), `model.safetensors` and the tokenizer into a folder, which is made if it
/// is not there. Each file appears whole or not at all, the configuration last.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn save(model: &HookedTransformer, folder: &Path) -> Result<(), PretrainedError> {
    let tokenizer = model.tokenizer().map(|tokenizer| tokenizer as &dyn Tokenize);
    write(model, &model.config().to_json(), tokenizer, folder)
}

/// The same for a model of any kind, with the text of its configuration.
pub(crate) fn write(
    model: &impl HookedModel,
    config: &str,
    tokenizer: Option<&dyn Tokenize>,
    folder: &Path,
) -> Result<(), PretrainedError> {
    fs::create_dir_all(folder).map_err(FileError::io(folder, "making"))?;
    save_params(model.params(), &folder.join("model.safetensors")).map_err(ModelError::from)?;
    if let Some(tokenizer) = tokenizer {
        tokenizer.save_into(folder)?;
    }
    Ok(write_atomically(folder.join("config.json"), config.as_bytes())?)
}
