//! What is trained.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use ironlens_autograd::Var;
use ironlens_nn::Params;
use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{HookedTransformer, Sequences, load_params};
use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::loss::{Task, name_of};

/// Weights and the loss that they are trained on. [`LanguageModel`] is one; this is another:
///
/// ```
/// use ironlens_autograd::{Tape, Var};
/// use ironlens_nn::{Ctx, Hooks, Linear, Params, Registry};
/// use ironlens_tensor::{Device, Rng, Tensor};
/// use ironlens_train::{Learner, LearnerRecord, TrainError};
///
/// /// Codes of 2 numbers for points of 5.
/// struct Autoencoder {
///     params: Params,
///     encoder: Linear,
///     decoder: Linear,
/// }
///
/// impl Autoencoder {
///     fn new(seed: u64) -> Autoencoder {
///         let mut registry = Registry::new("Autoencoder");
///         let mut scope = registry.root();
///         let encoder = Linear::new(&mut scope.child("encoder", "Linear"), 5, 2, 0.3);
///         let decoder = Linear::new(&mut scope.child("decoder", "Linear"), 2, 5, 0.3);
///         Autoencoder { params: Params::initialised(registry, seed, &Device::Cpu), encoder, decoder }
///     }
///
///     fn error(&self, ctx: &Ctx, points: &Tensor) -> Var {
///         let points = Var::from(points.clone());
///         (self.decoder.forward(ctx, &self.encoder.forward(ctx, &points)) - &points).square().mean_all()
///     }
/// }
///
/// impl Learner for Autoencoder {
///     type Batch = Tensor;
///
///     fn params(&self) -> &Params {
///         &self.params
///     }
///
///     fn params_mut(&mut self) -> &mut Params {
///         &mut self.params
///     }
///
///     fn gradients(&self, points: &Tensor) -> Result<(Tensor, Vec<Option<Tensor>>), TrainError> {
///         let (tape, mut hooks) = (Tape::new(), Hooks::new());
///         let mut ctx = Ctx::record(&self.params, &tape, &mut hooks)?;
///         let loss = self.error(&ctx, points);
///         let gradients = ctx.backward(&loss)?;
///         Ok((loss.into_value(), gradients))
///     }
///
///     fn loss(&self, points: &Tensor) -> Result<Tensor, TrainError> {
///         Ok(self.error(&Ctx::evaluate(&self.params, &mut Hooks::new())?, points).into_value())
///     }
///
///     fn describe(&self) -> LearnerRecord {
///         LearnerRecord { kind: "an autoencoder, 5 to 2".into(), loss: "mean squared error".into() }
///     }
/// }
/// # let points = Rng::new(0, 0).normal(&[3, 5], 0.0, 1.0, &Device::Cpu);
/// # let (value, gradients) = Autoencoder::new(0).gradients(&points)?;
/// # assert!(value.item() > 0.0 && gradients.iter().all(Option::is_some));
/// # Ok::<(), TrainError>(())
/// ```
pub trait Learner {
    /// What it learns from.
    type Batch;

    /// The weights.
    fn params(&self) -> &Params;

    /// The weights, for the optimiser.
    fn params_mut(&mut self) -> &mut Params;

    /// The loss of a batch, one number that may still be on the device, and the gradient by each of
    /// [`Params::slots`] (`None` where the loss does not depend on one).
    ///
    /// # Errors
    /// If the batch does not fit.
    fn gradients(&self, batch: &Self::Batch) -> Result<(Tensor, Vec<Option<Tensor>>), TrainError>;

    /// The loss of a batch, one number that may still be on the device.
    ///
    /// # Errors
    /// If the batch does not fit.
    fn loss(&self, batch: &Self::Batch) -> Result<Tensor, TrainError>;

    /// What this is, for the record of a run; a run is only resumed by a learner of the same description.
    fn describe(&self) -> LearnerRecord;

    /// The transformer that is trained, if one is.
    fn transformer(&self) -> Option<&HookedTransformer> {
        None
    }

    /// The sequences of a batch that the transformer runs on; attention is looked at on those of the
    /// held-out batch.
    fn sequences(&self, batch: &Self::Batch) -> Option<Sequences> {
        let _ = batch;
        None
    }

    /// Refuses settings that cannot be for this learner, before anything is written. `held_out` is a
    /// batch of `config.eval_batch_size`.
    ///
    /// # Errors
    /// Names the setting.
    fn check(&self, config: &TrainConfig, held_out: &Self::Batch) -> Result<(), TrainError> {
        let _ = (config, held_out);
        Ok(())
    }

    /// Writes the weights to a safetensors file, by name.
    ///
    /// # Errors
    /// If it cannot be written.
    fn save_weights(&self, path: &Path) -> Result<(), TrainError> {
        Ok(self.params().save(path)?)
    }

    /// Reads what [`Learner::save_weights`] wrote. On an error the weights stay as they were.
    ///
    /// # Errors
    /// If the file cannot be read, or a weight is missing, unknown or of another shape.
    fn load_weights(&mut self, path: &Path) -> Result<(), TrainError> {
        Ok(load_params(self.params_mut(), path)?)
    }
}

/// What a learner says of itself, as a run directory keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnerRecord {
    /// What is trained, such as `HookedTransformer`.
    pub kind: String,
    /// The loss: the name of a [`Task`], or any other.
    pub loss: String,
}

/// A batch that a language model can run on: tokens, and whatever its loss wants beside them.
pub trait TokenBatch {
    /// The tokens, and where they are padding.
    fn sequences(&self) -> Sequences;
}

impl TokenBatch for IndexTensor {
    fn sequences(&self) -> Sequences {
        self.clone().into()
    }
}

impl TokenBatch for Sequences {
    fn sequences(&self) -> Sequences {
        self.clone()
    }
}

/// A transformer that learns by a loss of its logits `[batch, pos, d_vocab_out]` and the batch they
/// are of.
pub struct LanguageModel<'m, F, B = IndexTensor> {
    model: &'m mut HookedTransformer,
    loss: F,
    name: String,
    batch: PhantomData<fn(&B)>,
}

impl<F, B> fmt::Debug for LanguageModel<'_, F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LanguageModel that learns by {}: {:?}", self.name, self.model)
    }
}

impl<'m, B: TokenBatch, F: Fn(&Var, &B) -> Var> LanguageModel<'m, F, B> {
    /// `model`, which learns by `loss`. A record calls a [`Task`]'s loss by the task's name, another
    /// function by its path, and a closure "custom".
    pub fn new(model: &'m mut HookedTransformer, loss: F) -> Self {
        let name = name_of(&loss);
        LanguageModel { model, loss, name, batch: PhantomData }
    }

    /// The same, with a loss that a record calls `name`.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        LanguageModel { name: name.into(), ..self }
    }
}

impl<'m> LanguageModel<'m, crate::loss::LossFn> {
    /// `model`, which learns a task.
    pub fn of_task(model: &'m mut HookedTransformer, task: Task) -> Self {
        LanguageModel::new(model, task.loss()).named(task.name())
    }
}

impl<B: TokenBatch, F: Fn(&Var, &B) -> Var> Learner for LanguageModel<'_, F, B> {
    type Batch = B;

    fn params(&self) -> &Params {
        self.model.params()
    }

    fn params_mut(&mut self) -> &mut Params {
        self.model.params_mut()
    }

    fn gradients(&self, batch: &B) -> Result<(Tensor, Vec<Option<Tensor>>), TrainError> {
        let call = batch.sequences().call(self.model);
        let (loss, gradients) = call.gradients_on_device(|out| (self.loss)(out.logits(), batch))?;
        Ok((loss, gradients.into_slots()))
    }

    fn loss(&self, batch: &B) -> Result<Tensor, TrainError> {
        let output = batch.sequences().call(self.model).output()?;
        Ok((self.loss)(output.logits(), batch).into_value())
    }

    fn describe(&self) -> LearnerRecord {
        LearnerRecord { kind: "HookedTransformer".into(), loss: self.name.clone() }
    }

    fn transformer(&self) -> Option<&HookedTransformer> {
        Some(self.model)
    }

    fn sequences(&self, batch: &B) -> Option<Sequences> {
        Some(batch.sequences())
    }

    fn check(&self, config: &TrainConfig, held_out: &B) -> Result<(), TrainError> {
        let tokens = held_out.sequences().tokens;
        let (held_out, pos) = (tokens.shape()[0], tokens.shape().get(1).copied().unwrap_or(1));
        config.check_memory(self.model.config(), pos)?;
        Ok(self.model.check_fits(config.batch_size.max(held_out), pos)?)
    }
}
