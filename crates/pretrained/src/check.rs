//! What every loaded model must do, seen on a few tokens.

use ironlens_tensor::{DType, IndexTensor, Tensor};
use ironlens_tokenizer::Tokenize;
use ironlens_transformer::{HookedModel, HookedTransformer, ModelError};

use crate::error::PretrainedError;

/// How many tokens a model is tried on.
pub(crate) const TOKENS: usize = 4;

/// Something that a model was found to do, or not to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// Whether it is as it should be.
    pub passed: bool,
}

/// Runs a model on a few tokens: every hook point that can fire does, with finite values; the residual stream is
/// the sum of what is written to it; its tokenizer has no tokens that the model lacks.
///
/// # Errors
/// If the model does not run.
pub fn check(model: &HookedTransformer) -> Result<Vec<Check>, ModelError> {
    let mut checks = of_weights(model)?;
    checks.extend(model.tokenizer().map(|tokenizer| vocabulary(model, tokenizer)));
    Ok(checks)
}

/// The checks without that of the tokenizer.
fn of_weights(model: &HookedTransformer) -> Result<Vec<Check>, ModelError> {
    let cfg = model.config();
    let pos = TOKENS.min(cfg.n_ctx);
    let ids: Vec<u32> = (0..pos).map(|i| (i % cfg.d_vocab) as u32).collect();
    let (logits, cache) = model.run_with_cache(&IndexTensor::new(ids, &[1, pos]))?;
    let mut checks = vec![hook_points(model, cache.len()), finite(cache.first_not_finite(), logits.all_finite())];
    let mut worst = Worst::default();
    for l in 0..cfg.n_layers {
        let get = |name: &str| cache.get((name, l)).cloned();
        let mut sum = get("resid_pre")? + &get("attn_out")?;
        if cfg.has_resid_mid() {
            worst.compare(&sum, &get("resid_mid")?, format!("resid_mid of layer {l}"));
        }
        if !cfg.attn_only {
            sum += get("mlp_out")?;
        }
        worst.compare(&sum, &get("resid_post")?, format!("resid_post of layer {l}"));
    }
    checks.push(worst.check(model));
    Ok(checks)
}

/// Whether `fired` hook points are all that can.
pub(crate) fn hook_points(model: &impl HookedModel, fired: usize) -> Check {
    let expected = model.params().registry().hooks().filter(|h| h.2).count();
    Check { what: "hook points", found: format!("{fired} of {expected} fired"), passed: fired == expected }
}

/// Whether activations are finite, given the first that is not, and results are.
pub(crate) fn finite(first_not: Option<&str>, results: bool) -> Check {
    let broken = match first_not {
        None if !results => Some("the logits are not finite".to_string()),
        found => found.map(|name| format!("{name} is the first that is not finite")),
    };
    Check { what: "activations", passed: broken.is_none(), found: broken.unwrap_or_else(|| "all finite".into()) }
}

/// Whether a model has all ids that a tokenizer divides texts into.
pub(crate) fn vocabulary(model: &impl HookedModel, tokenizer: &dyn Tokenize) -> Check {
    let (divided, d_vocab) = (tokenizer.divided_vocab_size(), model.config().d_vocab);
    let tokens = tokenizer.vocab_size().max(divided);
    Check {
        what: "vocabulary",
        found: format!("the tokenizer has {tokens} ids, the model {d_vocab}"),
        passed: divided <= d_vocab,
    }
}

/// The same, as an error of what failed. A larger tokenizer is none: texts with what the model lacks are refused.
pub(crate) fn checked(model: HookedTransformer) -> Result<HookedTransformer, PretrainedError> {
    let checks = of_weights(&model)?;
    passed(model, checks)
}

/// The model, or an error of the checks that failed.
pub(crate) fn passed<M>(model: M, checks: Vec<Check>) -> Result<M, PretrainedError> {
    let failed: Vec<String> =
        checks.into_iter().filter(|c| !c.passed).map(|c| format!("{}: {}", c.what, c.found)).collect();
    match failed.is_empty() {
        true => Ok(model),
        false => Err(PretrainedError::Check { problems: failed }),
    }
}

/// The sum of parts of the stream that is farthest from the stream.
#[derive(Default)]
pub(crate) struct Worst {
    distance: f64,
    place: Option<String>,
}

impl Worst {
    /// Takes note of how far `sum` is from `stream`.
    pub fn compare(&mut self, sum: &Tensor, stream: &Tensor, place: String) {
        let distance = distance(sum, stream);
        if distance > self.distance || distance.is_nan() {
            *self = Worst { distance, place: Some(place) };
        }
    }

    pub fn check(self, model: &impl HookedModel) -> Check {
        let limit = if model.params().dtype() == DType::F64 { 1e-10 } else { 1e-4 };
        let (distance, place) = (self.distance, self.place.as_deref().unwrap_or("none"));
        Check {
            what: "residual stream",
            found: format!("off the sum of its parts by {distance:.1e} of its size at most ({place})"),
            passed: distance <= limit,
        }
    }
}

/// The largest difference, over the largest value.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let largest = |t: &Tensor| t.abs().to_vec_f64().into_iter().fold(0.0, f64::max);
    largest(&(a - b)) / largest(b).max(f64::MIN_POSITIVE)
}
