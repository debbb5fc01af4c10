//! Text in and out of a model, by TransformerLens's names.

use ironlens_tensor::IndexTensor;
use ironlens_tokenizer::{HookedTokenizer, Occurrence, Prompt, Single, Texts, TokenOptions, Tokenize};

use crate::error::ModelError;
use crate::model::HookedTransformer;

/// Texts as a model reads them.
#[derive(Clone, Debug)]
pub struct TextTokens {
    /// Ids `[batch, pos]`, shorter texts padded.
    pub tokens: IndexTensor,
    /// `[batch, pos]`, 0 at padding; `None` if there is none.
    pub attention_mask: Option<IndexTensor>,
}

impl HookedTransformer {
    /// The tokenizer, if the model has one.
    pub fn tokenizer(&self) -> Option<&HookedTokenizer> {
        self.tokenizer.as_deref()
    }

    /// Gives the model a tokenizer, which takes up the model's context length, size of the vocabulary and habit
    /// of putting a beginning-of-sequence token before texts.
    ///
    /// # Errors
    /// If the tokenizer has more tokens than the model.
    pub fn set_tokenizer(&mut self, tokenizer: HookedTokenizer) -> Result<(), ModelError> {
        let d_vocab = self.config().d_vocab;
        self.set_tokenizer_of_any_size(tokenizer.with_d_vocab(d_vocab)?);
        Ok(())
    }

    /// The same with a tokenizer that may have more tokens than the model, as that in a model's folder may: a text with
    /// one that the model lacks is an error when it is tokenized.
    pub fn set_tokenizer_of_any_size(&mut self, tokenizer: HookedTokenizer) {
        let cfg = self.config();
        let tokenizer = tokenizer
            .with_default_prepend_bos(cfg.default_prepend_bos)
            .with_n_ctx(cfg.n_ctx)
            .with_any_d_vocab(cfg.d_vocab);
        self.tokenizer = Some(tokenizer.into());
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn needs_tokenizer(&self) -> Result<&HookedTokenizer, ModelError> {
        self.tokenizer().ok_or(ModelError::NoTokenizer)
    }

    /// Ids `[batch, pos]` of one text or several, padded and cut to `n_ctx`, with a beginning-of-sequence token
    /// where the model is used to one.
    ///
    /// # Errors
    /// If the model has no tokenizer, or it lacks a token that is needed.
    pub fn to_tokens(&self, texts: impl Texts) -> Result<IndexTensor, ModelError> {
        Ok(self.to_tokens_with(texts, &TokenOptions::default())?.tokens)
    }

    /// The same with options, and with the mask of padding.
    ///
    /// # Errors
    /// As [`HookedTransformer::to_tokens`].
    pub fn to_tokens_with(&self, texts: impl Texts, options: &TokenOptions) -> Result<TextTokens, ModelError> {
        let tokens = self.needs_tokenizer()?.to_tokens(texts, options)?;
        let shape = [tokens.rows, tokens.columns];
        let mask: Vec<u32> = tokens.attention_mask.iter().map(|&m| m.into()).collect();
        let padded = mask.contains(&0);
        Ok(TextTokens {
            tokens: IndexTensor::new(tokens.ids, &shape),
            attention_mask: padded.then(|| IndexTensor::new(mask, &shape)),
        })
    }

    /// Ids `[1, pos]` of a conversation of messages `(role, content)`, by the model's chat template, up to where the
    /// model answers.
    ///
    /// # Errors
    /// If the model has no tokenizer, that has no template, or the template refuses the messages.
    pub fn chat_tokens(&self, messages: &[(&str, &str)]) -> Result<IndexTensor, ModelError> {
        let text = self.needs_tokenizer()?.chat_text(messages, true)?;
        let ids = self.needs_tokenizer()?.encode(&text, false)?;
        let pos = ids.len();
        Ok(IndexTensor::new(ids, &[1, pos]))
    }

    /// The text of ids, special tokens included.
    ///
    /// # Errors
    /// If the model has no tokenizer, or an id is beyond the vocabulary.
    pub fn to_string(&self, tokens: &IndexTensor) -> Result<String, ModelError> {
        Ok(self.needs_tokenizer()?.to_string(tokens.as_slice())?)
    }

    /// The text of each token of a prompt.
    ///
    /// # Errors
    /// As [`HookedTransformer::to_tokens`] and [`HookedTransformer::to_string`].
    pub fn to_str_tokens<'p>(&self, prompt: impl Into<Prompt<'p>>) -> Result<Vec<String>, ModelError> {
        Ok(self.needs_tokenizer()?.to_str_tokens(prompt, &TokenOptions::default())?)
    }

    /// The id of a text that is one token.
    ///
    /// # Errors
    /// If the model has no tokenizer, or the text is none or several.
    pub fn to_single_token(&self, text: &str) -> Result<u32, ModelError> {
        Ok(self.needs_tokenizer()?.to_single_token(text)?)
    }

    /// The text of one token.
    ///
    /// # Errors
    /// If the model has no tokenizer, or the id is beyond the vocabulary.
    pub fn to_single_str_token(&self, token: u32) -> Result<String, ModelError> {
        Ok(self.needs_tokenizer()?.to_single_str_token(token)?)
    }

    /// The position of a token in a prompt.
    ///
    /// # Errors
    /// If the model has no tokenizer, or the token is not there.
    pub fn get_token_position<'a>(
        &self,
        token: impl Into<Single<'a>>,
        prompt: impl Into<Prompt<'a>>,
        mode: Occurrence,
    ) -> Result<usize, ModelError> {
        Ok(self.needs_tokenizer()?.get_token_position(token, prompt, mode, &TokenOptions::default())?)
    }
}
