//! A small trained model, for examples and for trying things out.

use ironlens_lens::Metric;
use ironlens_tensor::{Device, IndexTensor};
use ironlens_train::{Data, Preset, RandomTokens, TrainConfig, Trainer, previous_token_loss};
use ironlens_transformer::HookedTransformer;

use crate::Result;

/// [`Preset::Tiny`], trained to say the previous token, and the random tokens that it was trained on: some
/// seconds in a release build.
///
/// # Errors
/// If the device fails.
pub fn trained_tiny() -> Result<(HookedTransformer, RandomTokens)> {
    trained_tiny_for(Preset::Tiny.train().steps, &Device::best())
}

/// As [`trained_tiny`], after fewer or more steps, on a device.
///
/// ```
/// # use ironlens::prelude::*;
/// let (model, _) = ironlens::demo::trained_tiny_for(2, &Device::Cpu)?;
/// assert_eq!(model.config().n_layers, 2);
/// # Ok::<(), ironlens::Error>(())
/// ```
///
/// # Errors
/// If the device fails, or there are no steps.
pub fn trained_tiny_for(steps: u64, device: &Device) -> Result<(HookedTransformer, RandomTokens)> {
    let mut model = HookedTransformer::new(Preset::Tiny.model(), device, 42)?;
    let mut data = RandomTokens::new(model.config(), 137)?;
    let config = TrainConfig { steps, ..Preset::Tiny.train() };
    Trainer::new(config).fit_model(&mut model, &mut data, previous_token_loss)?;
    Ok((model, data))
}

/// A question that a previous-token model answers at its last position, and the same with another answer.
#[derive(Debug)]
pub struct Question {
    /// `[1, pos]`.
    pub clean: IndexTensor,
    /// `[1, pos]`, with another token before the last.
    pub corrupted: IndexTensor,
    /// The clean answer's logit less the corrupted one's.
    pub metric: Metric<'static>,
}

/// One sequence of `data`, twice: but for the token that the answer at the end depends on.
///
/// # Errors
/// If no batch can be made.
pub fn question(model: &HookedTransformer, data: &mut RandomTokens) -> Result<Question> {
    let clean = data.batch(1)?;
    let mut ids = clean.as_slice().to_vec();
    let asked = ids.len() - 2;
    let (right, wrong) = (ids[asked], ids[asked] % (model.config().d_vocab as u32 - 1) + 1);
    ids[asked] = wrong;
    let corrupted = IndexTensor::new(ids, clean.shape());
    Ok(Question { clean, corrupted, metric: Metric::logit_diff(&[right], &[wrong])? })
}
