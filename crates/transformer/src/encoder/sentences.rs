//! One vector for a text, out of those of its tokens.

use ironlens_tensor::{IndexTensor, Tensor};

use super::HookedEncoder;
use super::call::EncoderOutput;
use crate::error::ModelError;
use crate::input::Input;

/// How the vectors of a text's tokens become one; the names are sentence-transformers'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pooling {
    /// Their mean, padding aside.
    #[default]
    Mean,
    /// That of the first token, `[CLS]`.
    Cls,
    /// The largest value of each component, padding aside.
    Max,
    /// What the pooler makes of that of the first token.
    Pooler,
}

/// How a text becomes a vector. By default as sentence-transformers does with a model that does not say: the mean,
/// not normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sentences {
    /// How the vectors of tokens become one.
    pub pooling: Pooling,
    /// Whether it is divided by its length.
    pub normalize: bool,
}

impl HookedEncoder {
    /// How the model makes vectors of texts.
    pub fn sentences(&self) -> Sentences {
        self.sentences
    }

    /// Sets how the model makes vectors of texts. Models of sentence-transformers' are read with what their folder
    /// says.
    ///
    /// # Errors
    /// If that is the pooler's and there is none.
    pub fn set_sentences(&mut self, how: Sentences) -> Result<(), ModelError> {
        if how.pooling == Pooling::Pooler && !self.heads().pooler {
            return Err(ModelError::Options("the model has no pooler; choose another pooling".into()));
        }
        self.sentences = how;
        Ok(())
    }

    /// One vector for each text, `[batch, d_model]`, made as the model is used to ([`HookedEncoder::sentences`]). Of
    /// tokens with padding: `model.call(&tokens).attention_mask(&mask).sentence_embeddings(model.sentences())`.
    ///
    /// # Errors
    /// As [`HookedEncoder::encoder_output`].
    pub fn sentence_embeddings(&self, input: impl Into<Input>) -> Result<Tensor, ModelError> {
        self.call(input).sentence_embeddings(self.sentences)
    }
}

/// One vector for each text, `[batch, d_model]`. `mask` `[batch, pos]` is 0 at padding.
pub(super) fn pool(output: &EncoderOutput, mask: Option<&IndexTensor>, how: Sentences) -> Tensor {
    let tokens = output.residual.value();
    let like = |values: Vec<f32>, mask: &IndexTensor| {
        Tensor::from_vec(values, mask.shape(), &tokens.device()).to_dtype(tokens.dtype()).unsqueeze(2)
    };
    let vectors = match (how.pooling, mask) {
        (Pooling::Pooler, _) => output.pooled().value().clone(),
        (Pooling::Cls, _) => tokens.select(1, 0),
        (Pooling::Mean, None) => tokens.mean(1),
        (Pooling::Max, None) => tokens.max(1),
        (Pooling::Mean, Some(mask)) => {
            let seen = like(mask.as_slice().iter().map(|&m| f32::from(m != 0)).collect(), mask);
            let count = seen.sum(1).clamp(1e-9, f64::INFINITY);
            (tokens * &seen).sum(1) / &count
        }
        (Pooling::Max, Some(mask)) => {
            let hidden = mask.as_slice().iter().map(|&m| if m == 0 { f32::NEG_INFINITY } else { 0.0 });
            (tokens + &like(hidden.collect(), mask)).max(1)
        }
    };
    if !how.normalize {
        return vectors;
    }
    // As PyTorch's `normalize`: a vector of zeros stays one.
    let length = (&vectors * &vectors).sum_keepdim(1).sqrt().clamp(1e-12, f64::INFINITY);
    vectors / &length
}
