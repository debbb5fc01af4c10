//! What can go wrong in an analysis.

use ironlens_files::FileError;
use ironlens_transformer::{CacheError, Config, HookError, ModelError, SliceError};

/// An error of an analysis.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LensError {
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An activation is not cached.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Positions, neurons or items of a batch are not there.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// A name is of no hook that fires.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// An argument that cannot be.
    #[error("{what} cannot be {given}: expected {expected}")]
    Argument {
        /// Which argument.
        what: &'static str,
        /// The value given.
        given: String,
        /// What it should be.
        expected: String,
    },
}

impl LensError {
    pub(crate) fn argument(what: &'static str, given: impl Into<String>, expected: impl Into<String>) -> LensError {
        LensError::Argument { what, given: given.into(), expected: expected.into() }
    }

    /// Refuses a layer that has experts where `wanted`, of one MLP, is asked for.
    pub(crate) fn unless_mlp(cfg: &Config, layer: usize, wanted: &str) -> Result<(), LensError> {
        match layer < cfg.n_layers && cfg.has_experts(layer) {
            true => Err(LensError::argument(
                "what is asked of an MLP",
                wanted,
                format!(
                    "a layer without experts: layer {layer} has {}, whose weights are \
                     `blocks.{layer}.mlp.experts.0.W_in.weight` and so on, and neurons that only some tokens reach",
                    cfg.num_experts
                ),
            )),
            false => Ok(()),
        }
    }
}
