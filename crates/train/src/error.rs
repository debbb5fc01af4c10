//! What can go wrong in training.

use std::path::PathBuf;

use ironlens_files::FileError;
use ironlens_nn::{HookError, ParamError};
use ironlens_transformer::{ModelError, WeightsError};

/// An error of training or of a run directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The model refused.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A hook of a learner that is no transformer.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A parameter of a learner that is no transformer.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// What data or learners of your own say.
    #[error(transparent)]
    Own(Box<dyn std::error::Error + Send + Sync>),
    /// A weights or optimiser file.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A setting that cannot be.
    #[error("{name} = {given} cannot be: expected {expected}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// The value given.
        given: String,
        /// What it should be.
        expected: String,
    },
    /// A schedule that gives no rate.
    #[error("the schedule gives a learning rate of {given} at step {step}: expected a finite number from 0")]
    LearningRate {
        /// The step, from 0.
        step: u64,
        /// What it gives.
        given: f64,
    },
    /// A run that would go on as another.
    #[error("{path} cannot go on with {given}: its {what} is {recorded}")]
    OtherRun {
        /// The run.
        path: PathBuf,
        /// What is another: the data, the learner, the loss, the model or what else the run goes by.
        what: &'static str,
        /// What the run's record says.
        recorded: String,
        /// What it was to go on with.
        given: String,
    },
    /// The file system said no.
    #[error("{path}: {action} failed: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A folder that is not a run, or not a whole one.
    #[error("{path} is not a usable run directory: {reason}")]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// What is missing or wrong, and what to do.
        reason: String,
    },
    /// A run directory that would be overwritten.
    #[error("{path} is not empty; choose another folder, or resume the run in it")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A run that another process trains.
    #[error("{path} is being trained by another process; wait for its end, or stop it")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// An update made a weight infinite or no number. Such weights are not kept.
    #[error(
        "training stopped after {steps} steps: `{name}` has elements that are not finite; {checkpoint}; a lower learning rate may help"
    )]
    WeightsNotFinite {
        /// Steps trained.
        steps: u64,
        /// The first such parameter, or moment of the optimiser.
        name: String,
        /// Where the last good checkpoint is.
        checkpoint: String,
    },
    /// The loss or a gradient stopped being a number.
    #[error(
        "training stopped at step {step}: the {what} is {value}; the first activation that is not finite is {hook}; {checkpoint}"
    )]
    NotFinite {
        /// The step, whose update was not applied.
        step: u64,
        /// Loss or gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The first hook point with a non-finite activation.
        hook: String,
        /// Where the last good checkpoint is.
        checkpoint: String,
    },
}

impl TrainError {
    pub(crate) fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> TrainError {
        let path = path.into();
        move |source| TrainError::Io { path, action, source }
    }
}
