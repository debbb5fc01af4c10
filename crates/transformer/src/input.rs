//! What a model reads.

use ironlens_tensor::{IndexTensor, Tensor};

use crate::error::ModelError;
use crate::sequences::Sequences;
use crate::text::TextTokens;

/// What a model reads.
#[derive(Clone, Debug)]
pub enum Input {
    /// Tokens `[batch, pos]`, and maybe a mask of padding, which is hidden.
    Sequences(Sequences),
    /// Texts, which the model's tokenizer turns into tokens; shorter ones are padded, and the padding is hidden. What has
    /// more tokens than the model positions is cut to these, as in TransformerLens; the tokens of
    /// [`to_tokens_with`](crate::HookedTransformer::to_tokens_with) without
    /// [`truncate`](crate::TokenOptions::truncate) are refused instead.
    Texts(Vec<String>),
    /// The residual stream `[batch, pos, d_model]`, for [`Call::start_at_layer`](crate::Call::start_at_layer).
    Residual(Tensor),
}

impl From<&str> for Input {
    fn from(text: &str) -> Input {
        Input::Texts(vec![text.into()])
    }
}

impl From<&String> for Input {
    fn from(text: &String) -> Input {
        text.as_str().into()
    }
}

impl<S: AsRef<str>> From<&[S]> for Input {
    fn from(texts: &[S]) -> Input {
        Input::Texts(texts.iter().map(|t| t.as_ref().to_string()).collect())
    }
}

impl<S: AsRef<str>> From<&Vec<S>> for Input {
    fn from(texts: &Vec<S>) -> Input {
        texts.as_slice().into()
    }
}

impl<S: AsRef<str>, const N: usize> From<&[S; N]> for Input {
    fn from(texts: &[S; N]) -> Input {
        texts.as_slice().into()
    }
}

impl<S: AsRef<str>, const N: usize> From<[S; N]> for Input {
    fn from(texts: [S; N]) -> Input {
        texts.as_slice().into()
    }
}

impl From<&IndexTensor> for Input {
    /// Tokens `[batch, pos]`, or `[pos]` for a batch of one.
    fn from(tokens: &IndexTensor) -> Input {
        match tokens.shape() {
            [_] => Input::Sequences(tokens.unsqueeze(0).into()),
            _ => Input::Sequences(tokens.into()),
        }
    }
}

impl From<&Sequences> for Input {
    fn from(sequences: &Sequences) -> Input {
        Input::Sequences(sequences.clone())
    }
}

impl From<&TextTokens> for Input {
    /// What [`HookedTransformer::to_tokens_with`](crate::HookedTransformer::to_tokens_with) gives.
    fn from(read: &TextTokens) -> Input {
        Input::Sequences(read.into())
    }
}

impl From<&Tensor> for Input {
    fn from(residual: &Tensor) -> Input {
        Input::Residual(residual.clone())
    }
}

/// Refuses what lies beside an input of `[batch, pos]` and has another shape.
pub(crate) fn check_beside(
    what: &'static str,
    given: Option<&IndexTensor>,
    [batch, pos]: [usize; 2],
) -> Result<(), ModelError> {
    match given.filter(|t| t.shape() != [batch, pos]) {
        None => Ok(()),
        Some(t) => {
            let expected = format!("[{batch}, {pos}], as the input");
            Err(ModelError::Shape { what, given: t.shape().to_vec(), expected })
        }
    }
}

/// Refuses tokens `[batch, pos]` outside of the vocabulary.
pub(crate) fn check_tokens(tokens: &IndexTensor, d_vocab: usize) -> Result<(), ModelError> {
    let ids = tokens.as_slice();
    match ids.iter().position(|&t| t as usize >= d_vocab) {
        None => Ok(()),
        Some(i) => {
            let pos = tokens.shape()[1];
            Err(ModelError::Token { token: ids[i], batch: i / pos, pos: i % pos, d_vocab })
        }
    }
}
