//! Ablation sweeps: what is lost without each head, MLP or neuron.

use ironlens_tensor::Tensor;
use ironlens_transformer::{Change, HookedTransformer, Hooks, Rerun, Sequences, Site};

use crate::components::refuse_post_norms;
use crate::error::LensError;
use crate::metric::Metric;
use crate::patching::{Axis, Cells, PatchOptions, PatchResult, Patching, only_whole};

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
    let (name, axes) = match parts {
        Parts::Heads => ("z", vec![Axis::Layer, Axis::Head]),
        Parts::Mlps => ("mlp_out", vec![Axis::Layer]),
        Parts::Attns => ("attn_out", vec![Axis::Layer]),
    };
    let sequences = sequences.into();
    let shape = |of: &Sequences| of.tokens.shape().to_vec();
    let other = match by {
        Ablation::Zero => &sequences,
        Ablation::Mean(other) | Ablation::Resample(other) => other,
    };
    if shape(other).get(1) != shape(&sequences).get(1) {
        return Err(LensError::argument(
            "ablation by tokens of shape",
            format!("{:?}", shape(other)),
            format!("sequences as long as {:?}", shape(&sequences)),
        ));
    }
    let hook = format!("hook_{name}");
    let (_, cache) = other.call(model).names(move |n: &str| n.rsplit('.').next() == Some(hook.as_str())).cached()?;
    if matches!(by, Ablation::Resample(other) if shape(other) != shape(&sequences)) {
        return Err(LensError::argument(
            "resampling from tokens of shape",
            format!("{:?}", shape(other)),
            format!("{:?}, as those of the sweep", shape(&sequences)),
        ));
    }
    let setter = |index: &[usize], x: &mut Tensor, source: &Tensor| {
        let part = |t: &Tensor| if parts == Parts::Heads { t.select(2, index[1]) } else { t.clone() };
        let value = match by {
            Ablation::Zero => part(x).zeros_like(),
            Ablation::Mean(of) => part(&mean_of_tokens(source, of).expand(x.shape())),
            Ablation::Resample(_) => part(source),
        };
        x.assign(part, &value);
    };
    Patching::new(model, &sequences, &cache, metric)?.generic(name, &Cells::Axes(axes), &setter, options)
}

/// The mean over the batch of `x` `[batch, pos, ..]`, `[1, pos, ..]`, without padding.
fn mean_of_tokens(x: &Tensor, of: &Sequences) -> Tensor {
    let Some(mask) = &of.mask else { return x.mean(&[0]).unsqueeze(0) };
    let mut shape = mask.shape().to_vec();
    shape.resize(x.ndim(), 1);
    let real = mask.to_tensor(x.dtype(), &x.device()).reshape(&shape);
    (x * &real).sum_keepdim(&[0]) / real.sum_keepdim(&[0]).maximum(1.0)
}

/// The metric with each neuron of one MLP set to 0, `[d_mlp]`. What a neuron writes is taken out of the
/// stream, so no MLP is run again.
///
/// # Errors
/// If tokens do not fit, the layer has no MLP but experts or nothing, or norms stand after MLPs.
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
    let name = format!("blocks.{layer}.mlp.hook_post");
    if only_whole(model, &sequences).is_some() {
        return ablate_neurons_by_whole_passes(model, &sequences, metric, &name, options);
    }
    let rerun = Rerun::new(model, &sequences.tokens)?;
    let (batch, pos) = rerun.sizes();
    let (_, cache) = sequences.call(model).names(name.clone()).cached()?;
    let post = cache.get(name.as_str())?;
    let w_out = model.param(&format!("blocks.{layer}.mlp.W_out"))?;
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
