//! Text in and out of an encoder.

use std::sync::Arc;

use ironlens_tensor::IndexTensor;
use ironlens_tokenizer::{EncoderTokenizer, EncoderTokens, Texts};

use super::HookedEncoder;
use crate::error::ModelError;
use crate::input::Input;
use crate::text::{ALL_ROWS, one_row, rows_of};

/// Texts as an encoder reads them: what TransformerLens's `HookedEncoder.to_tokens` gives.
#[derive(Clone, Debug)]
pub struct EncoderInputs {
    /// Ids `[batch, pos]`, shorter texts padded.
    pub tokens: IndexTensor,
    /// `[batch, pos]`, 1 at tokens of the second text of a pair, else 0.
    pub token_type_ids: IndexTensor,
    /// `[batch, pos]`, 0 at padding; `None` if there is none.
    pub attention_mask: Option<IndexTensor>,
}

impl EncoderInputs {
    fn new(read: EncoderTokens) -> EncoderInputs {
        let shape = [read.tokens.rows, read.tokens.columns];
        let mask: Vec<u32> = read.tokens.attention_mask.iter().map(|&m| m.into()).collect();
        EncoderInputs {
            tokens: IndexTensor::new(read.tokens.ids, &shape),
            token_type_ids: IndexTensor::new(read.token_type_ids, &shape),
            attention_mask: mask.contains(&0).then(|| IndexTensor::new(mask, &shape)),
        }
    }

    pub(super) fn into_parts(self) -> (IndexTensor, Option<IndexTensor>, Option<IndexTensor>) {
        (self.tokens, Some(self.token_type_ids), self.attention_mask)
    }
}

/// What may stand at a masked place of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Guesses {
    /// Which text of the batch.
    pub batch: usize,
    /// The place in it, in tokens.
    pub position: usize,
    /// Tokens and their probabilities, the likeliest first.
    pub tokens: Vec<(String, f64)>,
}

impl HookedEncoder {
    /// The tokenizer, if the model has one.
    pub fn tokenizer(&self) -> Option<&EncoderTokenizer> {
        self.tokenizer.as_deref()
    }

    /// Gives the model a tokenizer, which cuts texts at the model's context length.
    ///
    /// # Errors
    /// If the tokenizer has more tokens than the model.
    pub fn set_tokenizer(&mut self, tokenizer: EncoderTokenizer) -> Result<(), ModelError> {
        let tokenizer = tokenizer.with_n_ctx(self.config().n_ctx).with_d_vocab(self.config().d_vocab)?;
        self.tokenizer = Some(Arc::new(tokenizer));
        Ok(())
    }

    fn needs_tokenizer(&self) -> Result<&EncoderTokenizer, ModelError> {
        self.tokenizer().ok_or(ModelError::NoTokenizer)
    }

    /// Ids of one text or several, as the model reads them: `[CLS] text [SEP]`, padded, and cut at `n_ctx`.
    ///
    /// # Errors
    /// If the model has no tokenizer, or it lacks a token that is needed.
    pub fn to_tokens(&self, texts: impl Texts) -> Result<EncoderInputs, ModelError> {
        Ok(EncoderInputs::new(self.needs_tokenizer()?.to_tokens(texts)?))
    }

    /// Ids of pairs of texts, `[CLS] first [SEP] second [SEP]`.
    ///
    /// # Errors
    /// As [`HookedEncoder::to_tokens`].
    pub fn pairs_to_tokens<A: AsRef<str>, B: AsRef<str>>(&self, pairs: &[(A, B)]) -> Result<EncoderInputs, ModelError> {
        Ok(EncoderInputs::new(self.needs_tokenizer()?.pairs_to_tokens(pairs)?))
    }

    /// The text of ids `[pos]` or `[1, pos]`, special tokens included.
    ///
    /// # Errors
    /// If the model has no tokenizer, an id is beyond the vocabulary, or there is more than one row: see
    /// [`HookedEncoder::to_strings`].
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

    /// The text of each token that a text becomes.
    ///
    /// # Errors
    /// As [`HookedEncoder::to_tokens`].
    pub fn to_str_tokens(&self, text: &str) -> Result<Vec<String>, ModelError> {
        let tokenizer = self.needs_tokenizer()?;
        Ok(tokenizer.to_str_tokens(&tokenizer.to_tokens(text)?.tokens.ids)?)
    }

    /// The likeliest token at each masked place, in order: TransformerLens's `return_type="predictions"`, as a list.
    ///
    /// # Errors
    /// As [`HookedEncoder::forward`], and if nothing is masked.
    pub fn predict(&self, input: impl Into<Input>) -> Result<Vec<String>, ModelError> {
        let all = self.fill_mask(input, 1)?;
        Ok(all.into_iter().flat_map(|guesses| guesses.tokens).map(|(token, _)| token).collect())
    }

    /// The `top` likeliest tokens at each masked place, with their probabilities.
    ///
    /// # Errors
    /// As [`HookedEncoder::predict`].
    pub fn fill_mask(&self, input: impl Into<Input>, top: usize) -> Result<Vec<Guesses>, ModelError> {
        let tokenizer = self.needs_tokenizer()?;
        let (mask, id) = tokenizer.mask()?;
        let (tokens, logits) = self.call(input).tokens_and_logits()?;
        let pos = tokens.shape()[1];
        let places: Vec<usize> = (0..tokens.numel()).filter(|&i| tokens.as_slice()[i] == id).collect();
        if places.is_empty() {
            return Err(ModelError::Options(format!(
                "the input has no {mask}: write it where a word is to be guessed"
            )));
        }
        let guesses = |i: usize| {
            let chances = logits.select(0, i / pos).select(0, i % pos).softmax();
            let (chances, best) = chances.topk(top.min(chances.numel()), 0);
            let tokens = best.as_slice().iter().zip(chances.to_vec_f64());
            let tokens = tokens.map(|(&id, chance)| Ok((tokenizer.to_string(&[id])?, chance)));
            Ok(Guesses { batch: i / pos, position: i % pos, tokens: tokens.collect::<Result<_, ModelError>>()? })
        };
        places.into_iter().map(guesses).collect()
    }
}
