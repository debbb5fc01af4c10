//! What can go wrong.

use std::path::PathBuf;

use ironlens_files::FileError;
use ironlens_lens::LensError;
use ironlens_report::ReportError;
use ironlens_train::TrainError;
use ironlens_transformer::{CacheError, ModelError, WeightsError};
use thiserror::Error;

/// Why a report or an analysis could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StudyError {
    /// The run cannot be read.
    #[error(transparent)]
    Run(#[from] TrainError),
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Weights cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An activation is not there.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// An analysis refused.
    #[error(transparent)]
    Lens(#[from] LensError),
    /// A figure cannot be drawn, or a page not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file cannot be read.
    #[error("cannot read the analysis {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that is no analysis.
    #[error("{} is not an analysis; analyse the run anew", path.display())]
    NotAnAnalysis {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A model that cannot be analysed.
    #[error("{reason}: such a model cannot be analysed; take an earlier checkpoint or other weights")]
    Unfit {
        /// Why not.
        reason: String,
    },
    /// A prompt, or its answer, that does not fit the model or the analysis.
    #[error("{reason}")]
    Prompt {
        /// What was given, and what is expected.
        reason: String,
    },
}

impl StudyError {
    pub(crate) fn prompt(reason: impl Into<String>) -> StudyError {
        StudyError::Prompt { reason: reason.into() }
    }
}
