//! [`Sequences`]: tokens, and where they are padding.

use ironlens_tensor::IndexTensor;

use crate::call::Call;
use crate::model::HookedTransformer;
use crate::text::TextTokens;

/// Sequences of tokens, with padding or without: what analyses and losses are of. Made from tokens, from tokens
/// and a mask, and from what [`HookedTransformer::to_tokens_with`] gives.
///
/// ```
/// # use ironlens_tensor::IndexTensor;
/// # use ironlens_transformer::Sequences;
/// let tokens = IndexTensor::from([[3, 1, 4], [5, 9, 0]]);
/// let mask = IndexTensor::from([[1, 1, 1], [1, 1, 0]]);
/// let padded = Sequences::from((&tokens, &mask));
/// assert_eq!((padded.real(0), padded.real(1)), (vec![0, 1, 2], vec![0, 1]));
/// assert!(Sequences::from(&tokens).mask.is_none());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sequences {
    /// `[batch, pos]`.
    pub tokens: IndexTensor,
    /// `[batch, pos]`, 0 at padding.
    pub mask: Option<IndexTensor>,
}

impl Sequences {
    /// The first `size` of them, or as many as there are.
    #[must_use]
    pub fn first(&self, size: usize) -> Sequences {
        let narrow = |t: &IndexTensor| t.narrow(0, 0, size.min(t.shape()[0]));
        Sequences { tokens: narrow(&self.tokens), mask: self.mask.as_ref().map(narrow) }
    }

    /// A call of `model` on them.
    pub fn call<'m>(&self, model: &'m HookedTransformer) -> Call<'m, 'static> {
        let call = model.call(&self.tokens);
        match &self.mask {
            Some(mask) => call.attention_mask(mask),
            None => call,
        }
    }

    /// The positions of sequence `item` that are no padding.
    ///
    /// # Panics
    /// If there is no such sequence.
    pub fn real(&self, item: usize) -> Vec<usize> {
        let pos = self.tokens.shape()[1];
        let counts = |p: &usize| self.mask.as_ref().is_none_or(|m| m.as_slice()[item * pos + p] != 0);
        (0..pos).filter(counts).collect()
    }
}

impl From<IndexTensor> for Sequences {
    fn from(tokens: IndexTensor) -> Sequences {
        Sequences { tokens, mask: None }
    }
}

impl From<&IndexTensor> for Sequences {
    fn from(tokens: &IndexTensor) -> Sequences {
        tokens.clone().into()
    }
}

impl From<(&IndexTensor, &IndexTensor)> for Sequences {
    /// Tokens, and their mask.
    fn from((tokens, mask): (&IndexTensor, &IndexTensor)) -> Sequences {
        Sequences { tokens: tokens.clone(), mask: Some(mask.clone()) }
    }
}

impl From<TextTokens> for Sequences {
    fn from(read: TextTokens) -> Sequences {
        Sequences { tokens: read.tokens, mask: read.attention_mask }
    }
}

impl From<&TextTokens> for Sequences {
    fn from(read: &TextTokens) -> Sequences {
        read.clone().into()
    }
}

impl From<&Sequences> for Sequences {
    fn from(sequences: &Sequences) -> Sequences {
        sequences.clone()
    }
}
