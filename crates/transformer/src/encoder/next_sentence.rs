//! [`BertNextSentencePrediction`]: whether a text follows another.

use std::fmt;

use ironlens_tensor::Tensor;

use super::HookedEncoder;
use super::call::{EncoderCall, Head};
use crate::cache::ActivationCache;
use crate::error::ModelError;

/// An encoder that says of two texts whether the second follows the first: TransformerLens's class of this name.
#[derive(Clone, Copy, Debug)]
pub struct BertNextSentencePrediction<'m> {
    model: &'m HookedEncoder,
}

/// What it says of two texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextSentence {
    /// The second follows the first.
    Sequential,
    /// It does not.
    NotSequential,
}

impl fmt::Display for NextSentence {
    /// In TransformerLens's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NextSentence::Sequential => "The sentences are sequential",
            NextSentence::NotSequential => "The sentences are NOT sequential",
        })
    }
}

impl<'m> BertNextSentencePrediction<'m> {
    /// Of an encoder with that head.
    ///
    /// # Errors
    /// If it has none.
    pub fn new(model: &'m HookedEncoder) -> Result<Self, ModelError> {
        match model.heads().next_sentence {
            true => Ok(BertNextSentencePrediction { model }),
            false => Err(ModelError::Options("the model has no next-sentence head (nsp_head)".into())),
        }
    }

    /// A call of pairs of texts with options. Tokens go through [`HookedEncoder::call`] with [`Head::NextSentence`].
    pub fn call<'h, A: AsRef<str>, B: AsRef<str>>(&self, pairs: &[(A, B)]) -> EncoderCall<'m, 'h> {
        self.model.call_pairs(pairs).head(Head::NextSentence)
    }

    /// Logits `[batch, 2]` of "it follows" and "it does not".
    ///
    /// # Errors
    /// As [`HookedEncoder::forward`].
    pub fn forward<A: AsRef<str>, B: AsRef<str>>(&self, pairs: &[(A, B)]) -> Result<Tensor, ModelError> {
        Ok(self.call(pairs).output()?.next_sentence().value().clone())
    }

    /// The same, and every activation.
    ///
    /// # Errors
    /// As [`HookedEncoder::forward`].
    pub fn run_with_cache<A: AsRef<str>, B: AsRef<str>>(
        &self,
        pairs: &[(A, B)],
    ) -> Result<(Tensor, ActivationCache<HookedEncoder>), ModelError> {
        let (output, cache) = self.call(pairs).cached()?;
        Ok((output.next_sentence().value().clone(), cache))
    }

    /// What is likelier.
    ///
    /// # Errors
    /// As [`HookedEncoder::forward`].
    pub fn predict(&self, first: &str, second: &str) -> Result<NextSentence, ModelError> {
        let logits = self.forward(&[(first, second)])?.to_vec_f64();
        Ok(if logits[0] >= logits[1] { NextSentence::Sequential } else { NextSentence::NotSequential })
    }
}
