//! From the residual stream to logits: the logit lens, and direct logit attribution.

use ironlens_tensor::{IndexTensor, Tensor, UnaryOp};
use ironlens_transformer::{ActivationCache, HookedTransformer, NormalizationType, Slice};

use crate::error::LensError;
use crate::residual::{CacheExt, Stack, StackOptions, Sublayers};
use crate::weights::WeightsExt;

/// Logits `[.., d_vocab_out]` that the model would give from each stream of `stack`
/// `[.., d_model]`, put through its final norm: the logit lens (nostalgebraist 2020). `columns` limits
/// how many tokens are unembedded at a time (all if 0), which bounds the memory beside the result.
///
/// # Errors
/// Never, for a model.
///
/// # Panics
/// If the last axis is not d_model.
#[track_caller]
pub fn logit_lens(model: &HookedTransformer, stack: &Tensor, columns: usize) -> Result<Tensor, LensError> {
    let normalized = model.ln_final(stack);
    let (vocab, cap) = (model.config().d_vocab_out, model.config().output_logits_soft_cap);
    if columns == 0 || columns >= vocab {
        return Ok(model.unembed(&normalized));
    }
    let (w, b) = (model.w_u()?, model.b_u()?);
    let last = normalized.ndim() - 1;
    let parts: Vec<Tensor> = (0..vocab)
        .step_by(columns)
        .map(|at| {
            let n = columns.min(vocab - at);
            let logits = normalized.linear(&w.narrow(1, at, n), Some(&b.narrow(0, at, n)), None);
            if cap > 0.0 { logits.unary(UnaryOp::SoftCap(cap)) } else { logits }
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
    let batch = if cache.has_batch_dim() { cache.get(("resid_post", -1))?.dim(0) } else { 1 };
    if tokens.shape() != [batch] {
        let expected = format!("[{batch}], one per item");
        return Err(LensError::argument("tokens of shape", format!("{:?}", tokens.shape()), expected));
    }
    let Divided { mut labels, parts, whole, constants } = divided(cache, tokens, incorrect, Slice::At(pos), units)?;
    let mut values = parts.mean(&[1]).to_vec_f64();
    let mut total = whole.mean_all().item();
    let unexplained = total - values.iter().sum::<f64>();
    for (label, of_item) in constants {
        let value = of_item.mean_all().item();
        labels.push(label.into());
        values.push(value);
        total += value;
    }
    labels.push("remainder".into());
    values.push(unexplained);
    Ok(LogitAttribution { labels, values, total })
}

/// What each part of the model adds to the logit of `tokens` at every position, by one product over all of them: the
/// values of [`direct_logit_attribution`] but for the remainder, `[part, batch, pos]`. `tokens` is `[batch, pos]`; of
/// a cache without a batch, `[pos]`, and the values are `[part, pos]`.
///
/// Each part's stream at all positions is in memory at once.
///
/// # Errors
/// As [`direct_logit_attribution`].
pub fn direct_logit_attribution_by_position(
    cache: &ActivationCache,
    tokens: &IndexTensor,
    incorrect: Option<&IndexTensor>,
    units: Units,
) -> Result<Stack, LensError> {
    let stream = cache.get(("resid_post", -1))?;
    let places = &stream.shape()[..stream.ndim() - 1];
    if tokens.shape() != places {
        let expected = format!("{places:?}, one per position");
        return Err(LensError::argument("tokens of shape", format!("{:?}", tokens.shape()), expected));
    }
    let flat = |ids: &IndexTensor| ids.reshape(&[ids.numel()]);
    let (tokens, wrong) = (flat(tokens), incorrect.map(flat));
    let Divided { mut labels, parts, constants, .. } = divided(cache, &tokens, wrong.as_ref(), Slice::All, units)?;
    let mut rows = vec![parts];
    for (label, of_item) in constants {
        labels.push(label.into());
        rows.push(of_item.reshape(&[1, tokens.numel()]));
    }
    let shape: Vec<usize> = [labels.len()].into_iter().chain(places.iter().copied()).collect();
    Ok(Stack { values: Tensor::cat(&rows, 0).reshape(&shape), labels })
}

/// A logit of each of some items, positions of sequences, and what it is a sum of.
struct Divided {
    labels: Vec<String>,
    /// What each part of the stream adds, `[part, item]`.
    parts: Tensor,
    /// What the stream as it is adds, `[item]`.
    whole: Tensor,
    /// What does not depend on the stream, with its name, `[item]`.
    constants: Vec<(&'static str, Tensor)>,
}

/// `tokens` and `incorrect` are `[item]`.
fn divided(
    cache: &ActivationCache,
    tokens: &IndexTensor,
    incorrect: Option<&IndexTensor>,
    pos_slice: Slice,
    units: Units,
) -> Result<Divided, LensError> {
    let model = cache.model();
    if let Some(wrong) = incorrect.filter(|wrong| wrong.shape() != tokens.shape()) {
        return Err(LensError::argument(
            "incorrect tokens",
            wrong.numel().to_string(),
            format!("{}, one beside each of the tokens", tokens.numel()),
        ));
    }
    let options = StackOptions { pos_slice, ..Default::default() };
    let Stack { values, labels } = match units {
        Units::Sublayers => cache.decompose_resid(&options, Sublayers::All, true)?,
        Units::Heads => cache.get_full_resid_decomposition(&options, false)?,
    };
    let (items, d) = (tokens.numel(), model.config().d_model);
    let values = values.reshape(&[labels.len(), items, d]);
    let stream = cache.get(("resid_post", -1))?;
    let stream = options.pos_slice.apply(stream, stream.ndim() - 2)?.reshape(&[1, items, d]);

    let mut directions = model.tokens_to_residual_directions(tokens)?;
    let b_u = model.b_u()?.reshape(&[model.config().d_vocab_out, 1]);
    let mut bias = b_u.embed(tokens);
    if let Some(wrong) = incorrect {
        directions -= model.tokens_to_residual_directions(wrong)?;
        bias -= b_u.embed(wrong);
    }
    // The norm is linear once its scale is known: (x - mean) / scale * w + b.
    let norm = FinalNorm::of(cache, &options)?;
    let apply = |stack: &Tensor| (&norm.scaled(stack, items) * &directions).sum(&[2]);
    let (parts, whole) = (apply(&values), apply(&stream).reshape(&[items]));
    let mut constants = Vec::new();
    if let Some(b) = &norm.b {
        constants.push(("ln_final.b", (&directions * b).sum(&[1])));
    }
    constants.push(("b_U", bias.reshape(&[items])));
    Ok(Divided { labels, parts, whole, constants })
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

    /// `[part, item, d_model]` scaled as the whole was, without the bias.
    fn scaled(&self, stack: &Tensor, items: usize) -> Tensor {
        let mut x = if self.centres { stack.center() } else { stack.clone() };
        if let Some(scale) = &self.scale {
            x = &x / &scale.reshape(&[items, 1]);
        }
        match &self.w {
            Some(w) => &x * w,
            None => x,
        }
    }
}
