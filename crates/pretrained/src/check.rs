//! What every loaded model must do, seen on a few tokens.

use ironlens_tensor::{DType, IndexTensor, Tensor};
use ironlens_tokenizer::Tokenize;
use ironlens_transformer::{HookedTransformer, ModelError};

use crate::error::PretrainedError;

/// How many tokens a model is tried on.
const TOKENS: usize = 4;

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
    let cfg = model.config();
    let pos = TOKENS.min(cfg.n_ctx);
    let ids: Vec<u32> = (0..pos).map(|i| (i % cfg.d_vocab) as u32).collect();
    let (logits, cache) = model.run_with_cache(&IndexTensor::new(ids, &[1, pos]))?;
    let expected = model.registry().hooks().filter(|h| h.2).count();
    let broken = match cache.first_not_finite() {
        None if !logits.all_finite() => Some("the logits are not finite".to_string()),
        found => found.map(|name| format!("{name} is the first that is not finite")),
    };
    let mut checks = vec![
        Check {
            what: "hook points",
            found: format!("{} of {expected} fired", cache.len()),
            passed: cache.len() == expected,
        },
        Check { what: "activations", passed: broken.is_none(), found: broken.unwrap_or_else(|| "all finite".into()) },
    ];
    let mut worst = (0.0, String::from("none"));
    for l in 0..cfg.n_layers {
        let get = |name: &str| cache.get((name, l)).cloned();
        let mut sum = get("resid_pre")? + &get("attn_out")?;
        if cfg.has_resid_mid() {
            worst = larger(worst, distance(&sum, &get("resid_mid")?), format!("resid_mid of layer {l}"));
        }
        if !cfg.attn_only {
            sum += get("mlp_out")?;
        }
        worst = larger(worst, distance(&sum, &get("resid_post")?), format!("resid_post of layer {l}"));
    }
    let limit = if model.params().dtype() == DType::F64 { 1e-10 } else { 1e-4 };
    checks.push(Check {
        what: "residual stream",
        found: format!("off the sum of its parts by {:.1e} of its size at most ({})", worst.0, worst.1),
        passed: worst.0 <= limit,
    });
    if let Some(tokenizer) = model.tokenizer() {
        let tokens = tokenizer.vocab_size();
        checks.push(Check {
            what: "vocabulary",
            found: format!("the tokenizer has {tokens} ids, the model {}", cfg.d_vocab),
            passed: tokens <= cfg.d_vocab,
        });
    }
    Ok(checks)
}

/// The same, as an error of what failed.
pub(crate) fn checked(model: HookedTransformer) -> Result<HookedTransformer, PretrainedError> {
    let failed: Vec<String> =
        check(&model)?.into_iter().filter(|c| !c.passed).map(|c| format!("{}: {}", c.what, c.found)).collect();
    match failed.is_empty() {
        true => Ok(model),
        false => Err(PretrainedError::Check { problems: failed }),
    }
}

fn larger(worst: (f64, String), distance: f64, place: String) -> (f64, String) {
    if distance > worst.0 || distance.is_nan() { (distance, place) } else { worst }
}

/// The largest difference, over the largest value.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let largest = |t: &Tensor| t.abs().to_vec_f64().into_iter().fold(0.0, f64::max);
    largest(&(a - b)) / largest(b).max(f64::MIN_POSITIVE)
}
