//! From the residual stream to logits: the logit lens, and direct logit attribution.

use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{ActivationCache, HookedTransformer, NormalizationType, Slice};

use crate::error::LensError;
use crate::residual::{CacheExt, Stack, StackOptions, Sublayers};
use crate::weights::WeightsExt;

/// Logits `[.., d_vocab_out]` that the model would give from each stream of `stack`
/// `[.., d_model]`, put through its final norm: the logit lens (nostalgebraist 2020). `columns` limits
/// how many tokens are unembedded at a time (all if 0), which bounds the memory beside the result.
///
/// # Panics
/// If the last axis is not d_model.
#[track_caller]
pub fn logit_lens(model: &HookedTransformer, stack: &Tensor, columns: usize) -> Result<Tensor, LensError> {
    let normalized = model.ln_final(stack);
    let vocab = model.config().d_vocab_out;
    if columns == 0 || columns >= vocab || model.config().output_logits_soft_cap > 0.0 {
        return Ok(model.unembed(&normalized));
    }
    let (w, b) = (model.w_u()?, model.b_u()?);
    let last = normalized.ndim() - 1;
    let parts: Vec<Tensor> = (0..vocab)
        .step_by(columns)
        .map(|at| {
            let n = columns.min(vocab - at);
            normalized.linear(&w.narrow(1, at, n), Some(&b.narrow(0, at, n)), None)
        })
        .collect();
    Ok(Tensor::cat(&parts, last))
}

/// The tokens that each stream predicts most, with their logits: `k` for each row of `logits`
/// `[.., d_vocab]`, in row-major order.
pub fn top_tokens(logits: &Tensor, k: usize) -> Vec<Vec<(u32, f64)>> {
    let vocab = logits.dim(logits.ndim() - 1);
    let values = logits.to_vec_f64();
    values
        .chunks(vocab.max(1))
        .map(|row| {
            let mut order: Vec<usize> = (0..vocab).collect();
            order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
            order.into_iter().take(k).map(|i| (i as u32, row[i])).collect()
        })
        .collect()
}

/// How finely a logit is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// Embeddings, attentions and MLPs.
    Sublayers,
    /// Embeddings, heads, MLPs and biases.
    Heads,
}

/// A logit (or a difference of two) as a sum over the parts of the model.
#[derive(Clone, Debug)]
pub struct LogitAttribution {
    /// One per part: those of the stream, then `ln_final.b`, `b_U` and `remainder`.
    pub labels: Vec<String>,
    /// What each adds, `[part]`, averaged over the batch.
    pub values: Vec<f64>,
    /// The logit itself, as the model computes it (before a soft cap); the sum of the values.
    pub total: f64,
}

impl LogitAttribution {
    /// The `n` parts that add most, in absolute terms.
    pub fn top(&self, n: usize) -> Vec<(&str, f64)> {
        let mut order: Vec<usize> = (0..self.values.len()).collect();
        order.sort_by(|a, b| self.values[*b].abs().total_cmp(&self.values[*a].abs()));
        order.into_iter().take(n).map(|i| (self.labels[i].as_str(), self.values[i])).collect()
    }
}

/// What each part of the model adds to the logit of `tokens` `[batch]` at position `pos` (negative
/// counts from the end), or to its difference from that of `incorrect`. Unlike
/// [`CacheExt::logit_attrs`], the final norm's weights and biases and `b_U` are counted, so the values
/// add up to the logit; what is left over (rounding, or streams with parts of their own) is shown as
/// `remainder`.
///
/// # Errors
/// If an activation is not cached, or tokens do not fit the batch.
pub fn direct_logit_attribution(
    cache: &ActivationCache,
    tokens: &IndexTensor,
    incorrect: Option<&IndexTensor>,
    pos: isize,
    units: Units,
) -> Result<LogitAttribution, LensError> {
    let model = cache.model();
    let options = StackOptions { pos_slice: Slice::At(pos), ..Default::default() };
    let Stack { values, mut labels } = match units {
        Units::Sublayers => cache.decompose_resid(&options, Sublayers::All, true)?,
        Units::Heads => cache.get_full_resid_decomposition(&options, false)?,
    };
    let batch = if cache.has_batch_dim() { values.dim(1) } else { 1 };
    if tokens.shape() != [batch] {
        return Err(LensError::argument(
            "tokens of shape",
            format!("{:?}", tokens.shape()),
            format!("[{batch}], one per item"),
        ));
    }
    let d = model.config().d_model;
    let values = values.reshape(&[labels.len(), batch, d]);
    let stream = cache.get(("resid_post", -1))?;
    let stream = options.pos_slice.apply(stream, stream.ndim() - 2)?.reshape(&[1, batch, d]);

    let mut directions = model.tokens_to_residual_directions(tokens)?;
    let b_u = model.b_u()?.reshape(&[model.config().d_vocab_out, 1]);
    let mut bias = b_u.embed(tokens);
    if let Some(wrong) = incorrect {
        directions -= model.tokens_to_residual_directions(wrong)?;
        bias -= b_u.embed(wrong);
    }
    // The norm is linear once its scale is known: (x - mean) / scale * w + b.
    let norm = FinalNorm::of(cache, &options)?;
    let mean = |t: &Tensor| t.mean_all().item();
    let apply = |stack: &Tensor| (&norm.scaled(stack, batch) * &directions).sum(&[2]).mean(&[1]).to_vec_f64();
    let mut parts = apply(&values);
    let whole = apply(&stream)[0];
    let unexplained = whole - parts.iter().sum::<f64>();
    let mut total = whole;
    if let Some(b) = &norm.b {
        let value = mean(&(&directions * b).sum(&[1]));
        labels.push("ln_final.b".into());
        parts.push(value);
        total += value;
    }
    let value = mean(&bias);
    labels.push("b_U".into());
    parts.push(value);
    total += value;
    labels.push("remainder".into());
    parts.push(unexplained);
    Ok(LogitAttribution { labels, values: parts, total })
}

/// The final norm of a run, with its scale held fixed.
struct FinalNorm {
    centres: bool,
    scale: Option<Tensor>,
    w: Option<Tensor>,
    b: Option<Tensor>,
}

impl FinalNorm {
    fn of(cache: &ActivationCache, options: &StackOptions) -> Result<FinalNorm, LensError> {
        let (model, cfg) = (cache.model(), cache.model().config());
        if cfg.normalization_type == NormalizationType::None {
            return Ok(FinalNorm { centres: false, scale: None, w: None, b: None });
        }
        let scale = cache.get("ln_final.hook_scale")?;
        Ok(FinalNorm {
            centres: cfg.normalization_type.centers() && !cfg.final_rms,
            scale: Some(options.pos_slice.apply(scale, scale.ndim() - 2)?),
            w: model.param("ln_final.w").ok(),
            b: model.param("ln_final.b").ok(),
        })
    }

    /// `[part, batch, d_model]` scaled as the whole was, without the bias.
    fn scaled(&self, stack: &Tensor, batch: usize) -> Tensor {
        let mut x = if self.centres { stack.center() } else { stack.clone() };
        if let Some(scale) = &self.scale {
            x = &x / &scale.reshape(&[batch, 1]);
        }
        match &self.w {
            Some(w) => &x * w,
            None => x,
        }
    }
}
