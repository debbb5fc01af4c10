//! Ablation sweeps: what is lost without each head, MLP or neuron.

use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{Change, HookedTransformer, Rerun, Site};

use crate::components::refuse_post_norms;
use crate::error::LensError;
use crate::metric::Metric;
use crate::patching::{Axis, Cells, PatchOptions, PatchResult, generic_activation_patch};

/// What an activation is replaced by.
#[derive(Clone, Debug)]
pub enum Ablation {
    /// Zeros.
    Zero,
    /// Its mean over these tokens `[batch, pos]`, per position: what is the same for all of them stays.
    Mean(IndexTensor),
    /// What it is on these other tokens, of the same shape as those of the sweep.
    Resample(IndexTensor),
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
    tokens: &IndexTensor,
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
    let other = match by {
        Ablation::Zero => tokens,
        Ablation::Mean(other) | Ablation::Resample(other) => other,
    };
    if other.shape().get(1) != tokens.shape().get(1) {
        return Err(LensError::argument(
            "ablation by tokens of shape",
            format!("{:?}", other.shape()),
            format!("sequences as long as {:?}", tokens.shape()),
        ));
    }
    let hook = format!("hook_{name}");
    let (_, cache) = model.call(other).names(move |n: &str| n.rsplit('.').next() == Some(hook.as_str())).cached()?;
    if matches!(by, Ablation::Resample(other) if other.shape() != tokens.shape()) {
        return Err(LensError::argument(
            "resampling from tokens of shape",
            format!("{:?}", other.shape()),
            format!("{:?}, as those of the sweep", tokens.shape()),
        ));
    }
    let setter = |index: &[usize], x: &mut Tensor, source: &Tensor| {
        let part = |t: &Tensor| if parts == Parts::Heads { t.select(2, index[1]) } else { t.clone() };
        let value = match by {
            Ablation::Zero => part(x).zeros_like(),
            Ablation::Mean(_) => part(&source.mean(&[0]).unsqueeze(0).expand(x.shape())),
            Ablation::Resample(_) => part(source),
        };
        x.assign(part, &value);
    };
    generic_activation_patch(model, tokens, &cache, metric, name, &Cells::Axes(axes), &setter, options)
}

/// The metric with each neuron of one MLP set to 0, `[d_mlp]`. What a neuron writes is taken out of the
/// stream, so no MLP is run again.
///
/// # Errors
/// If tokens do not fit, the layer has no MLP but experts or nothing, or norms stand after MLPs.
pub fn ablate_neurons(
    model: &HookedTransformer,
    tokens: &IndexTensor,
    metric: &Metric<'_>,
    layer: usize,
    mut options: PatchOptions<'_>,
) -> Result<Tensor, LensError> {
    LensError::unless_mlp(model.config(), layer, "its neurons")?;
    refuse_post_norms(model, "the ablation of neurons")?;
    let rerun = Rerun::new(model, tokens)?;
    let (batch, pos) = rerun.sizes();
    let name = format!("blocks.{layer}.mlp.hook_post");
    let (_, cache) = model.call(tokens).names(name.clone()).cached()?;
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
