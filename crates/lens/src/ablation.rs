//! Ablation sweeps: what is lost without each head, MLP or neuron.

use ironlens_autograd::Var;
use ironlens_tensor::Tensor;
use ironlens_transformer::names::act;
use ironlens_transformer::{ActivationCache, Change, HookedTransformer, Hooks, LogitsAt, Rerun, Sequences, Site};

use crate::components::refuse_post_norms;
use crate::error::LensError;
use crate::metric::Metric;
use crate::patching::{Axis, Cells, PatchOptions, PatchResult, Patching, only_whole};
use crate::weights::widened;

/// What an activation is replaced by.
#[derive(Clone, Debug)]
pub enum Ablation {
    /// Zeros.
    Zero,
    /// Its mean over these tokens `[batch, pos]`, per position and without padding: what is the same for all
    /// of them stays. 0 where all of them are padding.
    Mean(Sequences),
    /// What it is on these other tokens, of the same shape as those of the sweep.
    Resample(Sequences),
}

/// The parts that are ablated one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Each head's output (z): `[layer, head]`.
    Heads,
    /// Each MLP's output: `[layer]`.
    Mlps,
    /// Each attention's output: `[layer]`.
    Attns,
    /// Each head's attention pattern, where it looks: `[layer, head]`.
    Patterns,
}

impl Parts {
    /// The activation that is replaced, and the axis of its heads, if it has them.
    fn site(self) -> (Site, Option<usize>) {
        match self {
            Parts::Heads => (Site::Z, Some(2)),
            Parts::Mlps => (Site::MlpOut, None),
            Parts::Attns => (Site::AttnOut, None),
            Parts::Patterns => (Site::Pattern, Some(1)),
        }
    }
}

/// The metric with each part ablated, by a run on `tokens` `[batch, pos]`.
///
/// # Errors
/// If tokens do not fit, or the model has no such parts.
pub fn ablate(
    model: &HookedTransformer,
    sequences: impl Into<Sequences>,
    metric: &Metric<'_>,
    parts: Parts,
    by: &Ablation,
    options: PatchOptions<'_>,
) -> Result<PatchResult, LensError> {
    let (site, axis) = parts.site();
    let axes = if axis.is_some() { vec![Axis::Layer, Axis::Head] } else { vec![Axis::Layer] };
    let sequences = sequences.into();
    let source = source_of(model, &sequences, by, site)?;
    let setter = |index: &[usize], x: &mut Tensor, source: &Tensor| {
        replace(x, source, by, axis.map(|axis| (axis, index[1])));
    };
    Patching::new(model, &sequences, &source, metric)?.generic(site.name(), &Cells::Axes(axes), &setter, options)
}

/// What `measure` gives for every sequence and position, with each part ablated by itself: of logits
/// `[batch, pos, d_vocab_out]` it gives `[batch, pos]`, such as the loss of each token, and the result is
/// `[layer, head, batch, pos]`, or `[layer, batch, pos]` of parts without heads.
///
/// Patching at every position is this, too: `sequences` are the corrupted ones, and what replaces their activations
/// is [`Ablation::Resample`] of the clean ones.
///
/// ```
/// use ironlens_lens::ablation::{Ablation, Parts, ablate_by_position};
/// # use ironlens_tensor::{Device, IndexTensor};
/// # use ironlens_transformer::{ActFn, Config, HookedTransformer};
/// # let cfg = Config { d_model: 16, d_head: 4, n_layers: 2, n_ctx: 8, d_vocab: 10, act_fn: ActFn::Gelu, ..Config::default() };
/// # let model = HookedTransformer::new(cfg, &Device::Cpu, 42)?;
/// let tokens = IndexTensor::from([[0, 3, 1, 4], [0, 2, 2, 5]]);
/// let loss = |logits: &ironlens_tensor::Tensor| logits.cross_entropy(&tokens);
/// let losses = ablate_by_position(&model, &tokens, &loss, Parts::Heads, &Ablation::Zero)?;
/// assert_eq!(losses.shape(), [2, 4, 2, 4]);     // [layer, head, batch, pos]
/// # Ok::<(), ironlens_lens::LensError>(())
/// ```
///
/// # Errors
/// If tokens do not fit, or the model has no such parts.
///
/// # Panics
/// If `measure` gives another shape than `[batch, pos]`.
pub fn ablate_by_position(
    model: &HookedTransformer,
    sequences: impl Into<Sequences>,
    measure: &dyn Fn(&Tensor) -> Tensor,
    parts: Parts,
    by: &Ablation,
) -> Result<Tensor, LensError> {
    let (site, axis) = parts.site();
    let (name, heads) = (site.name(), axis.map_or(1, |_| model.config().n_heads()));
    let (sequences, layers) = (sequences.into(), model.config().n_layers);
    let source = source_of(model, &sequences, by, site)?;
    let [batch, pos] = *sequences.tokens.shape() else {
        let given = format!("{:?}", sequences.tokens.shape());
        return Err(LensError::argument("the tokens' shape", given, "[batch, pos]"));
    };
    let rerun = match only_whole(model, &sequences) {
        None => Some(Rerun::new(model, &sequences.tokens)?),
        Some(_) => None,
    };
    let mut values = Vec::with_capacity(layers * heads);
    for layer in 0..layers {
        let source = source.get((name, layer))?;
        for head in 0..heads {
            let edit = |x: &mut Tensor| replace(x, source, by, axis.map(|axis| (axis, head)));
            let logits = match &rerun {
                // Only what lies behind the part is run again.
                Some(rerun) => {
                    let mut x = rerun.activation(site, layer)?.clone();
                    edit(&mut x);
                    // Rows first: [pos, ..].
                    let rows = |x: Tensor| if site.row_axis() == 2 { x.permute(&[1, 0, 2]) } else { x };
                    let change = |item| Change { item, start: 0, rows: rows(x.select(0, item)) };
                    let changes: Vec<Change> = (0..batch).map(change).collect();
                    let reached = rerun.run(site, layer, &changes, LogitsAt::All)?;
                    Tensor::stack(&reached.into_iter().map(|r| r.logits).collect::<Vec<_>>(), 0)
                }
                None => {
                    let mut hooks = Hooks::new().fwd(act(name, layer), |x, _| {
                        let mut value = x.value().clone();
                        edit(&mut value);
                        *x = Var::from(value);
                        Ok(())
                    });
                    sequences.call(model).hooks(&mut hooks).output()?.logits().value().clone()
                }
            };
            let measured = measure(&logits);
            assert!(
                measured.shape() == [batch, pos],
                "what is measured by position has shape {:?}, not [{batch}, {pos}]",
                measured.shape()
            );
            values.push(measured);
        }
    }
    let shape: &[usize] = if axis.is_some() { &[layers, heads, batch, pos] } else { &[layers, batch, pos] };
    Ok(Tensor::stack(&values, 0).reshape(shape))
}

/// The activations `name` of what replaces parts: of the sweep's own sequences, or of others that fit them.
fn source_of(
    model: &HookedTransformer,
    sequences: &Sequences,
    by: &Ablation,
    site: Site,
) -> Result<ActivationCache, LensError> {
    let shape = |of: &Sequences| of.tokens.shape().to_vec();
    let other = match by {
        Ablation::Zero => sequences,
        Ablation::Mean(other) | Ablation::Resample(other) => other,
    };
    if shape(other).get(1) != shape(sequences).get(1) {
        return Err(LensError::argument(
            "ablation by tokens of shape",
            format!("{:?}", shape(other)),
            format!("sequences as long as {:?}", shape(sequences)),
        ));
    }
    let hook = format!("hook_{}", site.name());
    let (_, cache) = other.call(model).names(move |n: &str| n.rsplit('.').next() == Some(hook.as_str())).cached()?;
    if matches!(by, Ablation::Resample(other) if shape(other) != shape(sequences)) {
        return Err(LensError::argument(
            "resampling from tokens of shape",
            format!("{:?}", shape(other)),
            format!("{:?}, as those of the sweep", shape(sequences)),
        ));
    }
    Ok(cache)
}

/// Ablates an activation `[batch, ..]`; of one head if it has an axis of heads.
fn replace(x: &mut Tensor, source: &Tensor, by: &Ablation, head: Option<(usize, usize)>) {
    let part = |t: &Tensor| head.map_or_else(|| t.clone(), |(axis, h)| t.select(axis, h));
    let value = match by {
        Ablation::Zero => part(x).zeros_like(),
        Ablation::Mean(of) => {
            // Patterns have their positions behind the heads.
            let positions = if head.is_some_and(|(axis, _)| axis == 1) { 2 } else { 1 };
            part(&mean_of_tokens(source, of, positions).expand(x.shape()))
        }
        Ablation::Resample(_) => part(source),
    };
    x.assign(part, &value);
}

/// The mean over the batch of `x` `[batch, pos, ..]` (of patterns, `[batch, head, pos, ..]`), `[1, ..]`, without
/// padding.
fn mean_of_tokens(x: &Tensor, of: &Sequences, axis: usize) -> Tensor {
    let Some(mask) = &of.mask else { return x.mean(&[0]).unsqueeze(0) };
    let mut shape = vec![1; x.ndim()];
    (shape[0], shape[axis]) = (mask.shape()[0], mask.shape()[1]);
    let real = mask.to_tensor(x.dtype(), &x.device()).reshape(&shape);
    (x * &real).sum_keepdim(&[0]) / real.sum_keepdim(&[0]).maximum(1.0)
}

/// The metric with each neuron of one MLP set to 0, `[d_mlp]`. What a neuron writes is taken out of the
/// stream, so no MLP is run again.
///
/// # Errors
/// If tokens do not fit, the metric does not fit them, the layer has no MLP but experts or nothing, or norms stand
/// after MLPs.
pub fn ablate_neurons(
    model: &HookedTransformer,
    sequences: impl Into<Sequences>,
    metric: &Metric<'_>,
    layer: usize,
    mut options: PatchOptions<'_>,
) -> Result<Tensor, LensError> {
    LensError::unless_mlp(model.config(), layer, "its neurons")?;
    refuse_post_norms(model, "the ablation of neurons")?;
    let sequences = sequences.into();
    metric.check(model, &sequences)?;
    let name = format!("blocks.{layer}.mlp.hook_post");
    if only_whole(model, &sequences).is_some() {
        return ablate_neurons_by_whole_passes(model, &sequences, metric, &name, options);
    }
    let rerun = Rerun::new(model, &sequences.tokens)?;
    let (batch, pos) = rerun.sizes();
    let (_, cache) = sequences.call(model).names(name.clone()).cached()?;
    let post = cache.get(name.as_str())?;
    let w_out = widened(model.param(&format!("blocks.{layer}.mlp.W_out"))?);
    let out = rerun.activation(Site::ResidPost, layer)?;
    let neurons = w_out.dim(0);
    let at_a_time = (options.max_rows / (batch * pos).max(1)).max(1);
    let mut values = Vec::with_capacity(neurons);
    while values.len() < neurons {
        let some = values.len()..(values.len() + at_a_time).min(neurons);
        let mut changes = Vec::new();
        for n in some.clone() {
            let written = &post.narrow(2, n, 1) * &w_out.select(0, n);
            let without = out - &written;
            changes.extend((0..batch).map(|item| Change { item, start: 0, rows: without.select(0, item) }));
        }
        let mut reached = rerun.run(Site::ResidPost, layer, &changes, metric.positions())?.into_iter();
        for _ in some {
            let items: Vec<Tensor> = reached.by_ref().take(batch).map(|r| r.logits).collect();
            values.push(metric.of(&Tensor::stack(&items, 0)));
        }
        options.tell(values.len(), neurons);
    }
    Ok(Tensor::from_vec_f64(values, &[neurons]).to_dtype(model.params().dtype()))
}

/// [`ablate_neurons`] where a model cannot be run in part.
fn ablate_neurons_by_whole_passes(
    model: &HookedTransformer,
    sequences: &Sequences,
    metric: &Metric<'_>,
    name: &str,
    mut options: PatchOptions<'_>,
) -> Result<Tensor, LensError> {
    let neurons = model.param(&name.replace("hook_post", "W_out"))?.dim(0);
    let mut values = Vec::with_capacity(neurons);
    for neuron in 0..neurons {
        let mut hooks = Hooks::new().fwd(name, |post, _| post.zero_at(2, neuron));
        let output = sequences.call(model).hooks(&mut hooks).output()?;
        values.push(metric.of_sequences(output.logits().value(), sequences));
        options.tell(neuron + 1, neurons);
    }
    Ok(Tensor::from_vec_f64(values, &[neurons]).to_dtype(model.params().dtype()))
}
