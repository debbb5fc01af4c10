//! What a model reads.

use ironlens_tensor::{IndexTensor, Tensor};

/// What a model reads.
#[derive(Clone, Debug)]
pub enum Input {
    /// Tokens `[batch, pos]`.
    Tokens(IndexTensor),
    /// Texts, which the model's tokenizer turns into tokens; shorter ones are padded, and the padding is hidden.
    Texts(Vec<String>),
    /// The residual stream `[batch, pos, d_model]`, for [`Call::start_at_layer`].
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
            &[pos] => Input::Tokens(IndexTensor::new(tokens.as_slice(), &[1, pos])),
            _ => Input::Tokens(tokens.clone()),
        }
    }
}

impl From<&Tensor> for Input {
    fn from(residual: &Tensor) -> Input {
        Input::Residual(residual.clone())
    }
}
