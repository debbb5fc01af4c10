//! The tokenizer that belongs to a checkpoint.

use std::path::Path;

use ironlens_files::{GgufFile, GgufMetadata};
use ironlens_tokenizer::{EncoderTokenizer, GgufVocabulary, HookedTokenizer, Tokenizer, TokenizerError};
use ironlens_transformer::{HookedEncoder, HookedTransformer};

use crate::error::PretrainedError;

/// Gives a model the tokenizer of its folder, if there is one.
pub(crate) fn of_folder(model: &mut HookedTransformer, folder: &Path) -> Result<(), PretrainedError> {
    match HookedTokenizer::from_folder(folder) {
        Ok(tokenizer) => Ok(model.set_tokenizer(tokenizer)?),
        Err(TokenizerError::NoTokenizer { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives an encoder the tokenizer of its folder, if there is one.
pub(crate) fn of_encoder_folder(model: &mut HookedEncoder, folder: &Path) -> Result<(), PretrainedError> {
    match EncoderTokenizer::from_folder(folder) {
        Ok(tokenizer) => Ok(model.set_tokenizer(tokenizer)?),
        Err(TokenizerError::NoTokenizer { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives a model the tokenizer that a GGUF file holds, if it holds one.
pub(crate) fn of_gguf(model: &mut HookedTransformer, file: &GgufFile) -> Result<(), PretrainedError> {
    let metadata = file.metadata();
    let Some(kind) = metadata.optional::<&str>("tokenizer.ggml.model")? else { return Ok(()) };
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let texts = |name: &str| -> Result<Vec<String>, PretrainedError> {
        Ok(metadata.optional::<&[String]>(&key(name))?.map(<[String]>::to_vec).unwrap_or_default())
    };
    let vocabulary = GgufVocabulary {
        model: kind.into(),
        pre: metadata.optional::<&str>(&key("pre"))?.map(String::from),
        tokens: texts("tokens")?,
        scores: metadata
            .optional::<Vec<f64>>(&key("scores"))?
            .unwrap_or_default()
            .into_iter()
            .map(|x| x as f32)
            .collect(),
        token_types: metadata
            .optional::<Vec<i64>>(&key("token_type"))?
            .unwrap_or_default()
            .into_iter()
            .map(|x| i32::try_from(x).unwrap_or_default())
            .collect(),
        merges: texts("merges")?,
        bos_id: id(metadata, &key("bos_token_id"))?,
        eos_id: id(metadata, &key("eos_token_id"))?,
        eot_id: id(metadata, &key("eot_token_id"))?,
        unk_id: id(metadata, &key("unknown_token_id"))?,
        pad_id: id(metadata, &key("padding_token_id"))?,
        add_bos: metadata.optional::<bool>(&key("add_bos_token"))?,
        add_eos: metadata.optional::<bool>(&key("add_eos_token"))?,
        add_space_prefix: metadata.optional::<bool>(&key("add_space_prefix"))?,
        chat_template: metadata.optional::<&str>("tokenizer.chat_template")?.map(String::from),
    };
    let tokenizer = HookedTokenizer::new(Tokenizer::from_gguf_parts(vocabulary)?)?;
    Ok(model.set_tokenizer(tokenizer)?)
}

fn id(metadata: &GgufMetadata, key: &str) -> Result<Option<u32>, PretrainedError> {
    Ok(metadata.optional::<u64>(key)?.and_then(|id| u32::try_from(id).ok()))
}
