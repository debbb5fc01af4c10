//! Text in and out of a model, by TransformerLens's names.

use ironlens_tensor::IndexTensor;
use ironlens_tokenizer::{HookedTokenizer, Occurrence, PaddingSide, Prompt, Single, Texts, TokenOptions, Tokenize};

use crate::error::ModelError;
use crate::model::HookedTransformer;

/// One prompt: a text, ids, or tokens `[pos]` or `[1, pos]`.
pub trait IntoPrompt<'p> {
    /// As the tokenizer takes it.
    ///
    /// # Errors
    /// If tokens are of more than one row.
    fn into_prompt(self) -> Result<Prompt<'p>, ModelError>;
}

impl<'p> IntoPrompt<'p> for Prompt<'p> {
    fn into_prompt(self) -> Result<Prompt<'p>, ModelError> {
        Ok(self)
    }
}

impl<'p> IntoPrompt<'p> for &'p IndexTensor {
    fn into_prompt(self) -> Result<Prompt<'p>, ModelError> {
        Ok(Prompt::Ids(one_row(self, "take one with tokens.select(0, row)")?))
    }
}

macro_rules! prompts {
    ($($kind:ty)*) => {$(
        impl<'p> IntoPrompt<'p> for &'p $kind {
            fn into_prompt(self) -> Result<Prompt<'p>, ModelError> {
                Ok(self.into())
            }
        }
    )*};
}
prompts!(str String [u32] Vec<u32>);

/// The ids of tokens `[pos]` or `[1, pos]`; of several rows `advice` says what to do.
pub(crate) fn one_row<'t>(tokens: &'t IndexTensor, advice: &str) -> Result<&'t [u32], ModelError> {
    match tokens.shape() {
        [] | [_] | [1, _] => Ok(tokens.as_slice()),
        shape => Err(ModelError::Options(format!(
            "tokens of shape {shape:?} are several texts, and one was expected: {advice}"
        ))),
    }
}

/// The rows of tokens `[batch, pos]`, of which there is one if they are `[pos]`.
pub(crate) fn rows_of(tokens: &IndexTensor) -> Result<impl Iterator<Item = &[u32]>, ModelError> {
    let (rows, pos) = match *tokens.shape() {
        [pos] => (1, pos),
        [batch, pos] => (batch, pos),
        _ => {
            let (given, expected) = (tokens.shape().to_vec(), "[batch, pos] or [pos]".into());
            return Err(ModelError::Shape { what: "the tokens", given, expected });
        }
    };
    Ok((0..rows).map(move |row| &tokens.as_slice()[row * pos..][..pos]))
}

/// What to do with several rows where one text is wanted.
pub(crate) const ALL_ROWS: &str = "to_strings gives the text of each row";

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

    /// Where shorter texts of a batch are padded if a call does not say.
    ///
    /// # Errors
    /// If the model has no tokenizer.
    pub fn set_default_padding_side(&mut self, side: PaddingSide) -> Result<(), ModelError> {
        self.tokenizer = Some(self.needs_tokenizer()?.clone().with_padding_side(side).into());
        Ok(())
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

    /// The text of ids `[pos]` or `[1, pos]`, special tokens included.
    ///
    /// # Errors
    /// If the model has no tokenizer, an id is beyond the vocabulary, or there is more than one row: see
    /// [`HookedTransformer::to_strings`].
    pub fn to_string(&self, tokens: &IndexTensor) -> Result<String, ModelError> {
        Ok(self.needs_tokenizer()?.to_string(one_row(tokens, ALL_ROWS)?)?)
    }

    /// The text of each row of ids `[batch, pos]`, special tokens (padding, too) included.
    ///
    /// # Errors
    /// If the model has no tokenizer, or an id is beyond the vocabulary.
    pub fn to_strings(&self, tokens: &IndexTensor) -> Result<Vec<String>, ModelError> {
        let tokenizer = self.needs_tokenizer()?;
        rows_of(tokens)?.map(|row| Ok(tokenizer.to_string(row)?)).collect()
    }

    /// The text of each token of a prompt.
    ///
    /// # Errors
    /// As [`HookedTransformer::to_tokens`] and [`HookedTransformer::to_string`].
    pub fn to_str_tokens<'p>(&self, prompt: impl IntoPrompt<'p>) -> Result<Vec<String>, ModelError> {
        self.to_str_tokens_with(prompt, &TokenOptions::default())
    }

    /// The same with options, of a prompt that is text: with or without a beginning-of-sequence token, whole or cut.
    ///
    /// # Errors
    /// As [`HookedTransformer::to_str_tokens`].
    pub fn to_str_tokens_with<'p>(
        &self,
        prompt: impl IntoPrompt<'p>,
        options: &TokenOptions,
    ) -> Result<Vec<String>, ModelError> {
        Ok(self.needs_tokenizer()?.to_str_tokens(prompt.into_prompt()?, options)?)
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
        prompt: impl IntoPrompt<'a>,
        mode: Occurrence,
    ) -> Result<usize, ModelError> {
        self.get_token_position_with(token, prompt, mode, &TokenOptions::default())
    }

    /// The same with options, of a prompt that is text.
    ///
    /// # Errors
    /// As [`HookedTransformer::get_token_position`].
    pub fn get_token_position_with<'a>(
        &self,
        token: impl Into<Single<'a>>,
        prompt: impl IntoPrompt<'a>,
        mode: Occurrence,
        options: &TokenOptions,
    ) -> Result<usize, ModelError> {
        Ok(self.needs_tokenizer()?.get_token_position(token, prompt.into_prompt()?, mode, options)?)
    }
}
