//! What is analysed.

use ironlens_tensor::{Device, IndexTensor};
use ironlens_train::RunDir;
use ironlens_transformer::HookedTransformer;

use crate::error::StudyError;

/// A model, and sequences to run it on.
#[derive(Debug)]
pub struct Subject {
    /// The model.
    pub model: HookedTransformer,
    /// The sequences, `[batch, pos]`.
    pub tokens: IndexTensor,
    /// Steps that the model was trained for, if a run tells.
    pub step: Option<u64>,
}

impl Subject {
    /// A model and sequences `[batch, pos]`.
    ///
    /// # Errors
    /// [`StudyError::Unfit`] if weights are not finite.
    pub fn new(model: HookedTransformer, tokens: IndexTensor) -> Result<Subject, StudyError> {
        if let Some(reason) = not_finite(&model) {
            return Err(StudyError::Unfit { reason });
        }
        Ok(Subject { model, tokens, step: None })
    }

    /// The model of a run's last checkpoint, on the held-out sequences that the run keeps.
    ///
    /// # Errors
    /// If the run cannot be read, has no transformer, or as [`Subject::new`].
    pub fn of_run(run: &RunDir, device: &Device) -> Result<Subject, StudyError> {
        let last = run.last_checkpoint()?;
        let model = run.model_at(&last, device)?;
        Ok(Subject { step: Some(last.step), ..Subject::new(model, run.sequences()?.tokens)? })
    }
}

/// Which weights are not finite, if some are.
fn not_finite(model: &HookedTransformer) -> Option<String> {
    model.params().iter().find_map(|(name, value)| {
        let values = value.to_vec_f64();
        let bad = values.iter().filter(|v| !v.is_finite()).count();
        (bad > 0).then(|| format!("{bad} of the {} weights of {name} are not finite", values.len()))
    })
}
