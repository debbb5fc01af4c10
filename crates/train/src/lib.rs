//! Training: data, learners, losses, schedules, the [`Trainer`] and the run directory.
//!
//! ```
//! use ironlens_tensor::Device;
//! use ironlens_train::{RandomTokens, TrainConfig, Trainer, previous_token_loss};
//! use ironlens_transformer::{ActFn, Config, HookedTransformer};
//!
//! let cfg = Config { d_model: 16, d_head: 8, n_layers: 1, n_ctx: 6, d_vocab: 5, act_fn: ActFn::Gelu, ..Config::default() };
//! let mut model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
//! let mut data = RandomTokens::new(model.config(), 137)?;
//! let config = TrainConfig { steps: 20, lr: 1e-2, ..TrainConfig::notebook() };
//! let run = Trainer::new(config).fit_model(&mut model, &mut data, previous_token_loss)?;
//! assert_eq!(run.metrics.len(), 20);
//! assert!(run.metrics[19].loss < run.metrics[0].loss);
//! # Ok::<(), ironlens_train::TrainError>(())
//! ```
//!
//! The trainer takes any [`Learner`] and any [`Data`] with batches for it; a transformer with a loss is
//! one, [`LanguageModel`].

mod config;
mod data;
mod error;
mod learner;
mod loss;
mod memory;
mod rundir;
mod tasks;
mod trainer;

pub use config::{OptimizerName, Preset, Schedule, TrainConfig};
pub use data::{Data, DataRecord, RandomTokens, Reference};
pub use error::TrainError;
pub use ironlens_nn::optim::{Optimizer, clip_coefficient};
pub use ironlens_transformer::Sequences;
pub use learner::{LanguageModel, Learner, LearnerRecord, TokenBatch};
pub use loss::{LossFn, Task, next_token_loss, previous_token_loss};
pub use rundir::{Checkpoint, Eval, Own, RunConfig, RunDir, Snapshot, StepRecord};
pub use tasks::{
    Chains, Drawn, Experiment, Induction, Labelled, Markov, ModularAddition, Repeated, Source, TaskData, Text, Windows,
    labelled_loss,
};
pub use trainer::{Observer, Progress, Run, Step, Trained, Trainer, train_step, train_step_of};
