//! A model as a folder that is read back to the same bits.

use std::fs;
use std::path::Path;

use ironlens_files::{FileError, write_atomically};
use ironlens_tokenizer::Tokenize;
use ironlens_transformer::HookedTransformer;

use crate::error::PretrainedError;

/// Writes `config.json` (in TransformerLens's names), `model.safetensors` and the tokenizer into a folder, which is made if it
/// is not there. Each file appears whole or not at all, the configuration last.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn save(model: &HookedTransformer, folder: &Path) -> Result<(), PretrainedError> {
    fs::create_dir_all(folder).map_err(FileError::io(folder, "making"))?;
    model.save_weights(folder.join("model.safetensors"))?;
    if let Some(tokenizer) = model.tokenizer() {
        Tokenize::save_into(tokenizer, folder)?;
    }
    let config = folder.join("config.json");
    Ok(write_atomically(&config, model.config().to_json().as_bytes())?)
}
