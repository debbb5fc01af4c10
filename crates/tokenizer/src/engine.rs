//! Hugging Face's `tokenizers`, behind a door through which no panic passes.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::utils::truncation::truncate_encodings;
use tokenizers::{
    AddedToken, Encoding, ModelWrapper, NormalizerWrapper, PostProcessor, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer as Backend, TruncationParams,
};

use crate::error::{Result, TokenizerError};
use crate::tokenize::Parts;
use crate::wordpiece::Cleaning;

/// The tokenizer proper: a pipeline of normaliser, pre-tokenizer, model, template and decoder.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    backend: Backend,
    /// One more than the largest id.
    vocab_size: usize,
    /// The same of the model's own tokens, without added ones.
    divided_vocab_size: usize,
}

impl Engine {
    /// The pipeline that the text of a `tokenizer.json` describes.
    pub(crate) fn from_json(json: &[u8]) -> Result<Engine> {
        let mut backend = guarded("reading the tokenizer", || Backend::from_bytes(json))
            .map_err(|e| TokenizerError::vocabulary(format!("this is no whole tokenizer.json: {e}")))?;
        // A file may ask for every text to be cut or filled; that is the caller's choice here.
        backend.with_padding(None);
        backend.with_truncation(None).map_err(|e| TokenizerError::vocabulary(e.to_string()))?;
        let mut engine = Engine { backend, vocab_size: 0, divided_vocab_size: 0 };
        engine.measure()?;
        Ok(engine)
    }

    /// As `tokenizer.json` has it.
    ///
    /// # Errors
    /// If two tokens have one id: the library would write only one of them, and merges of the other.
    pub(crate) fn to_json(&self) -> Result<String> {
        let mut tokens: Vec<(u32, String)> = self.backend.get_vocab(false).into_iter().map(|(t, id)| (id, t)).collect();
        tokens.sort_unstable();
        if let Some([(id, first), (_, second)]) = tokens.windows(2).find(|two| two[0].0 == two[1].0) {
            let reason = format!("{first:?} and {second:?} have the same id {id}, and a file can hold one of them");
            return Err(TokenizerError::vocabulary(reason));
        }
        guarded("writing the tokenizer", || self.backend.to_string(true))
    }

    /// Puts tokens around every text (see [`crate::pipeline::template`]), instead of what was put there before.
    pub(crate) fn set_template(&mut self, template: serde_json::Value) -> Result<()> {
        let template: PostProcessorWrapper =
            serde_json::from_value(template).map_err(|e| TokenizerError::vocabulary(e.to_string()))?;
        self.backend.with_post_processor(Some(template));
        Ok(())
    }

    /// Whether a word at the start of a text is taken as one after a space; where the first step of the pipeline
    /// knows no such choice, nothing changes.
    pub(crate) fn set_add_prefix_space(&mut self, add: bool) {
        if let Some(PreTokenizerWrapper::ByteLevel(step)) = self.backend.get_pre_tokenizer() {
            let step = step.add_prefix_space(add);
            self.backend.with_pre_tokenizer(Some(step));
        }
    }

    /// Cleans texts otherwise than the file says; only where BERT's way of cleaning them is in it.
    pub(crate) fn adjust_bert_normalizer(&mut self, cleaning: &Cleaning) {
        if let Some(NormalizerWrapper::BertNormalizer(step)) = self.backend.get_normalizer() {
            let step = cleaning.normalizer(step.clean_text);
            self.backend.with_normalizer(Some(step));
        }
    }

    /// Whether a word at the start of a text is taken as one after a space, where the first step of the pipeline
    /// knows such a choice.
    pub(crate) fn add_prefix_space(&self) -> Option<bool> {
        match self.backend.get_pre_tokenizer() {
            Some(PreTokenizerWrapper::ByteLevel(step)) => Some(step.add_prefix_space),
            _ => None,
        }
    }

    /// Puts another model into the pipeline; only for one without added tokens, whose ids would stay.
    pub(crate) fn set_model(&mut self, model: ModelWrapper) -> Result<()> {
        self.backend.with_model(model);
        self.measure()
    }

    pub(crate) fn add_tokens(&mut self, tokens: &[AddedToken]) -> Result<()> {
        guarded("adding tokens", || Ok::<_, TokenizerError>(self.backend.add_tokens(tokens)))?;
        self.measure()
    }

    fn measure(&mut self) -> Result<()> {
        let divided = self.backend.get_vocab(false).into_values().max();
        let added = self.backend.get_added_vocabulary().get_vocab().values().copied().max();
        let largest = divided.max(added).ok_or_else(|| TokenizerError::vocabulary("it has no tokens"))?;
        // An id of u32::MAX would make tables of its size elsewhere; no vocabulary comes near.
        if largest >= MAX_ID {
            return Err(TokenizerError::vocabulary(format!("its largest id is {largest}; at most {MAX_ID} is taken")));
        }
        self.vocab_size = largest as usize + 1;
        self.divided_vocab_size = divided.map_or(0, |id| id as usize + 1);
        Ok(())
    }

    pub(crate) fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = guarded("tokenizing", || self.backend.encode_fast(text, add_special))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// One text or two with what is put around them, cut to `max_length` ids as transformers cuts them: ids of the
    /// longer text go first.
    pub(crate) fn encode_parts(&self, first: &str, second: Option<&str>, max_length: Option<usize>) -> Result<Parts> {
        let encoding = guarded("tokenizing", || -> tokenizers::Result<Encoding> {
            let mut first = self.backend.encode_fast(first, false)?;
            let mut second = second.map(|text| self.backend.encode_fast(text, false)).transpose()?;
            // BERT's own way of putting texts together looks at this; templates say it themselves.
            if let Some(second) = &mut second {
                second.set_type_ids(vec![1; second.get_ids().len()]);
            }
            if let Some(max_length) = max_length {
                let around = self.backend.get_post_processor().map_or(0, |step| step.added_tokens(second.is_some()));
                let limit = TruncationParams { max_length: max_length.saturating_sub(around), ..Default::default() };
                (first, second) = truncate_encodings(first, second, &limit)?;
            }
            self.backend.post_process(first, second, true)
        })?;
        Ok(Parts { ids: encoding.get_ids().to_vec(), types: encoding.get_type_ids().to_vec() })
    }

    pub(crate) fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            return Err(TokenizerError::UnknownId { id, vocab_size: self.vocab_size });
        }
        guarded("decoding", || self.backend.decode(ids, skip_special))
    }

    pub(crate) fn token_to_id(&self, token: &str) -> Option<u32> {
        self.backend.token_to_id(token)
    }

    pub(crate) fn id_to_token(&self, id: u32) -> Option<String> {
        self.backend.id_to_token(id)
    }

    pub(crate) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub(crate) fn divided_vocab_size(&self) -> usize {
        self.divided_vocab_size
    }

    /// The tokens that are found in a text before everything else, by their text.
    pub(crate) fn added(&self) -> HashMap<&str, &AddedToken> {
        let decoder = self.backend.get_added_vocabulary().get_added_tokens_decoder();
        decoder.values().map(|token| (token.content.as_str(), token)).collect()
    }
}

/// Ids from here on are refused.
pub(crate) const MAX_ID: u32 = 1 << 28;

/// Runs a call into a library that may panic on what a file says, and makes an error of it.
pub(crate) fn guarded<T, E: ToString>(action: &'static str, call: impl FnOnce() -> Result<T, E>) -> Result<T> {
    let reason = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(message) => message.clone(),
            None => panic.downcast_ref::<&str>().map_or_else(|| "it panicked".to_owned(), |m| m.to_string()),
        },
    };
    Err(TokenizerError::Engine { action, reason })
}
