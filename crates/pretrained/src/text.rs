//! The tokenizer that belongs to a checkpoint.

use std::path::Path;

use ironlens_files::{GgufFile, GgufMetadata};
use ironlens_tokenizer::{EncoderTokenizer, GgufVocabulary, HookedTokenizer, Tokenizer, TokenizerError};
use ironlens_transformer::{HookedEncoder, HookedTransformer};

use crate::error::PretrainedError;

/// Gives a model the tokenizer of its folder, if there is one.
pub(crate) fn of_folder(model: &mut HookedTransformer, folder: &Path) -> Result<(), PretrainedError> {
    match HookedTokenizer::from_folder(folder) {
        Ok(tokenizer) => {
            model.set_tokenizer_of_any_size(tokenizer);
            Ok(())
        }
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

/// Gives a model the tokenizer that a GGUF file holds, if it holds one; of one that is not read, that of the folder
/// `beside` it.
pub(crate) fn of_gguf(model: &mut HookedTransformer, file: &GgufFile, beside: &Path) -> Result<(), PretrainedError> {
    let Some(vocabulary) = vocabulary(file)? else { return Ok(()) };
    let tokenizer = match Tokenizer::from_gguf_parts(vocabulary) {
        Ok(tokenizer) => HookedTokenizer::new(tokenizer)?,
        Err(error) => match HookedTokenizer::from_folder(beside) {
            Ok(tokenizer) => tokenizer,
            Err(TokenizerError::NoTokenizer { .. }) => return Err(error.into()),
            Err(other) => return Err(other.into()),
        },
    };
    model.set_tokenizer_of_any_size(tokenizer);
    Ok(())
}

/// The vocabulary in a file's metadata, if there is one.
fn vocabulary(file: &GgufFile) -> Result<Option<GgufVocabulary>, PretrainedError> {
    let metadata = file.metadata();
    let Some(kind) = metadata.optional::<&str>("tokenizer.ggml.model")? else { return Ok(None) };
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let list = |key: &str| -> Result<Vec<String>, PretrainedError> {
        Ok(metadata.optional::<&[String]>(key)?.map(<[String]>::to_vec).unwrap_or_default())
    };
    let named = |name: String| -> Result<Option<(String, String)>, PretrainedError> {
        let source = metadata.optional::<&str>(&format!("tokenizer.chat_template.{name}"))?;
        Ok(source.map(|source| (name, source.into())))
    };
    Ok(Some(GgufVocabulary {
        model: kind.into(),
        pre: metadata.optional::<&str>(&key("pre"))?.map(String::from),
        tokens: list(&key("tokens"))?,
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
        merges: list(&key("merges"))?,
        bos_id: id(metadata, &key("bos_token_id"))?,
        eos_id: id(metadata, &key("eos_token_id"))?,
        eot_id: id(metadata, &key("eot_token_id"))?,
        eom_id: id(metadata, &key("eom_token_id"))?,
        unk_id: id(metadata, &key("unknown_token_id"))?,
        pad_id: id(metadata, &key("padding_token_id"))?,
        add_bos: metadata.optional::<bool>(&key("add_bos_token"))?,
        add_eos: metadata.optional::<bool>(&key("add_eos_token"))?,
        add_space_prefix: metadata.optional::<bool>(&key("add_space_prefix"))?,
        chat_template: metadata.optional::<&str>("tokenizer.chat_template")?.map(String::from),
        named_chat_templates: list("tokenizer.chat_templates")?
            .into_iter()
            .filter_map(|name| named(name).transpose())
            .collect::<Result<_, _>>()?,
    }))
}

fn id(metadata: &GgufMetadata, key: &str) -> Result<Option<u32>, PretrainedError> {
    Ok(metadata.optional::<u64>(key)?.and_then(|id| u32::try_from(id).ok()))
}
