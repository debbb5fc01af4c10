//! What can go wrong when a pretrained model is read or written.

use std::path::PathBuf;

use ironlens_files::FileError;
use ironlens_lens::LensError;
use ironlens_transformer::{ConfigError, ModelError};

/// A pretrained model that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainedError {
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A `config.json` (or a GGUF file's metadata) that says something that cannot be.
    #[error("the model's configuration: {0}")]
    Config(String),
    /// A family that is not read here.
    #[error("{architecture} is not read here: {hint}")]
    Family {
        /// The class that the checkpoint was made for.
        architecture: String,
        /// What there is instead.
        hint: String,
    },
    /// Weights that are not those of the configuration.
    #[error("{path} does not fit its configuration:\n  {}\ncheck that both are of the same model", problems.join("\n  "))]
    Mismatch {
        /// The checkpoint.
        path: PathBuf,
        /// One line for each tensor that is missing, unknown, of another shape or not finite.
        problems: Vec<String>,
    },
    /// A folder or file that is no model.
    #[error("{path}: {reason}")]
    NotAModel {
        /// What was given.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// A model that does not do what every model does.
    #[error("the model was read, and does not work as it should:\n  {}\nthe checkpoint may be damaged", problems.join("\n  "))]
    Check {
        /// One line for each check that failed.
        problems: Vec<String>,
    },
    /// Options that do not go together, or that the model has no use for.
    #[error("{0}")]
    Options(String),
    /// A name that nothing is known by, or a model that cannot be fetched.
    #[error(transparent)]
    Hub(#[from] ironlens_hub::HubError),
    /// A name that is neither a path nor known.
    #[error("there is no file or folder {given:?}, and no model of this name{}", suggestion(nearest))]
    Unknown {
        /// What was given.
        given: String,
        /// Names that look like it, best first.
        nearest: Vec<&'static str>,
    },
    /// A tokenizer that cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] ironlens_tokenizer::TokenizerError),
    /// A model that cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Weights that cannot be processed.
    #[error(transparent)]
    Processing(#[from] LensError),
}

impl From<ConfigError> for PretrainedError {
    fn from(error: ConfigError) -> Self {
        PretrainedError::Model(error.into())
    }
}

fn suggestion(nearest: &[&str]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("; the nearest names are {}", names.join(", ")),
    }
}
