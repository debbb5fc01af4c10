//! What can go wrong when a model is built or run.

use ironlens_nn::{HookError, ParamError};
use ironlens_tokenizer::TokenizerError;

use crate::cache::CacheError;
use crate::config::ConfigError;
use crate::names::LayerOutOfRange;
use crate::slice::SliceError;
use crate::weights::WeightsError;

/// An error of building or running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A configuration that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A hook that cannot run.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A parameter that cannot be read or written.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// A layer that the model does not have.
    #[error(transparent)]
    Layer(#[from] LayerOutOfRange),
    /// Positions or items that are not there.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// An activation that is not there.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A weights file that does not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Text that cannot be turned into tokens, or tokens into text.
    #[error(transparent)]
    Text(#[from] TokenizerError),
    /// A text is to end where the model ends it, and nothing says which token does.
    #[error("the model does not know which token ends a text: {why}; give eos_token_id, or set stop_at_eos = false")]
    NoEnd {
        /// What is missing.
        why: &'static str,
    },
    /// Text for a model that reads tokens only.
    #[error("the model has no tokenizer; give tokens [batch, pos], or a tokenizer with set_tokenizer")]
    NoTokenizer,
    /// A token that the model does not know.
    #[error(
        "token {token} at batch {batch}, position {pos} is outside of the vocabulary: d_vocab is {d_vocab}, so ids are 0 to {}",
        d_vocab - 1
    )]
    Token {
        /// The id.
        token: u32,
        /// Its sequence.
        batch: usize,
        /// Its position.
        pos: usize,
        /// Size of the vocabulary.
        d_vocab: usize,
    },
    /// More positions than the model has.
    #[error(
        "the input has {pos} positions, the model at most {n_ctx} (n_ctx); shorten the input or build the model with a larger n_ctx"
    )]
    TooLong {
        /// Positions given.
        pos: usize,
        /// The most there may be.
        n_ctx: usize,
    },
    /// A tensor that the device does not take in one piece.
    #[error(
        "{what} would be a tensor of shape {shape:?}: {} MiB in one piece, and {device} takes at most {} MiB; {advice}",
        bytes.div_ceil(1 << 20),
        limit >> 20
    )]
    TooLarge {
        /// The weight or activation.
        what: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its bytes.
        bytes: u64,
        /// The device.
        device: String,
        /// The most bytes that there may be.
        limit: u64,
        /// What would fit, or what to do.
        advice: String,
    },
    /// An input of the wrong shape or kind.
    #[error("{what} has shape {given:?}, expected {expected}")]
    Shape {
        /// Which input.
        what: &'static str,
        /// Its shape.
        given: Vec<usize>,
        /// What it should be.
        expected: String,
    },
    /// Options that do not go together.
    #[error("{0}")]
    Options(String),
}
