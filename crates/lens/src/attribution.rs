//! Attribution patching: what patching would do, estimated from gradients.
//!
//! A patch that moves an activation from its corrupted to its clean value changes a metric by about
//! `(clean - corrupted) . gradient` (Nanda 2023, "Attribution Patching"): two forward passes and one
//! backward pass for all activations at once. An edge of the residual stream, from what one component
//! writes to what another reads, has the same estimate with the gradient at the reader (Syed et al.
//! 2023, "Attribution Patching Outperforms Automated Circuit Discovery"). With `steps` above 1, the
//! gradient is averaged along the straight line from the corrupted to the clean embeddings: EAP-IG
//! (Hanna et al. 2024, "Have Faith in Faithfulness"), here by the midpoint rule.

use ironlens_autograd::Var;
use ironlens_nn::Target;
use ironlens_tensor::Tensor;
use ironlens_transformer::{ActivationCache, HookedTransformer, Hooks, Sequences};

use crate::components::{Components, refuse_post_norms};
use crate::error::LensError;
use crate::metric::Metric;
use crate::patching::path::Sender;

/// Estimated effects of patching each element of activations.
#[derive(Clone, Debug)]
pub struct NodeAttribution {
    /// By full hook name: `(clean - corrupted) * gradient`, in the activation's shape. Sum over axes to
    /// judge coarser parts.
    pub scores: Vec<(String, Tensor)>,
}

impl NodeAttribution {
    /// The scores of one activation.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.scores.iter().find(|(n, _)| n == name).map(|(_, s)| s)
    }

    /// The estimated effect of patching each whole activation.
    pub fn totals(&self) -> Vec<(&str, f64)> {
        self.scores.iter().map(|(n, s)| (n.as_str(), s.sum_all().item())).collect()
    }
}

/// Estimated effects of patching each edge of the residual stream.
#[derive(Clone, Debug)]
pub struct EdgeAttribution {
    /// What writes: `embed`, `L0H0`, .., `mlp0`, ..
    pub senders: Vec<String>,
    /// What reads: `L0H0.q`, .., `mlp0`, .., `logits`.
    pub receivers: Vec<String>,
    /// `[sender, receiver]`; 0 where the sender does not come before the receiver.
    pub scores: Tensor,
}

impl EdgeAttribution {
    /// The `n` edges with the largest absolute effect: sender, receiver, effect.
    pub fn top(&self, n: usize) -> Vec<(&str, &str, f64)> {
        let values = self.scores.to_vec_f64();
        let columns = self.receivers.len();
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()));
        let edge = |i: usize| (self.senders[i / columns].as_str(), self.receivers[i % columns].as_str(), values[i]);
        order.into_iter().take(n).filter(|i| values[*i] != 0.0).map(edge).collect()
    }
}

/// Estimates for the activations `names`, from clean and corrupted tokens of one shape. `steps` is 1
/// for gradients of the corrupted run, more for integrated gradients.
///
/// Where both runs have the same value, such as the negative infinity of hidden attention scores, the estimate is 0.
///
/// # Errors
/// If the tokens differ in shape, the metric does not fit them, steps are 0, a name is of no hook or of one without a
/// gradient (ids), or an activation has other rows in each run, as those of experts.
pub fn attribution_patch<'t>(
    model: &HookedTransformer,
    clean: impl Into<Sequences>,
    corrupted: impl Into<Sequences>,
    metric: &Metric<'_>,
    names: impl Into<Target<'t>>,
    steps: usize,
) -> Result<NodeAttribution, LensError> {
    let (clean, corrupted) = (&clean.into(), &corrupted.into());
    let names = names.into().names(model.registry())?;
    let clean_cache = clean.call(model).names(names.clone()).cached()?.1;
    let corrupted_cache = corrupted.call(model).names(names.clone()).cached()?.1;
    let gradients = mean_gradients(model, clean, corrupted, metric, &names, steps)?;
    let mut scores = Vec::new();
    for (name, gradient) in names.into_iter().zip(gradients) {
        let (to, from) = (clean_cache.get(name.as_str())?, corrupted_cache.get(name.as_str())?);
        if to.shape() != from.shape() || to.shape() != gradient.shape() {
            return Err(LensError::argument(
                "an activation to attribute",
                format!(
                    "`{name}`, of shape {:?} in the clean run and {:?} in the corrupted one",
                    to.shape(),
                    from.shape()
                ),
                "one that has the same rows in every run",
            ));
        }
        let difference = (to - from).masked_fill(to.eq(from), 0.0);
        scores.push((name, &difference * &gradient));
    }
    Ok(NodeAttribution { scores })
}

/// Estimates for every edge from the embedding, a head or an MLP to the queries, keys or values of a
/// head, to an MLP, or to the logits. `steps` as in [`attribution_patch`].
///
/// # Errors
/// As [`attribution_patch`]; and in models with norms after attention and MLP, where the parts of
/// attention do not add up.
pub fn edge_attribution(
    model: &HookedTransformer,
    clean: impl Into<Sequences>,
    corrupted: impl Into<Sequences>,
    metric: &Metric<'_>,
    steps: usize,
) -> Result<EdgeAttribution, LensError> {
    refuse_post_norms(model, "edge attribution")?;
    let (clean, corrupted) = (&clean.into(), &corrupted.into());
    // A model that gives every reader an input of its own.
    let mut split = model.clone();
    split.set_use_attn_in(false)?;
    split.set_use_split_qkv_input(true)?;
    if !model.config().attn_only {
        split.set_use_hook_mlp_in(true)?;
    }
    let readers = readers(&split);
    let names: Vec<String> = readers.iter().map(|(name, ..)| name.clone()).collect();
    let gradients = mean_gradients(&split, clean, corrupted, metric, &names, steps)?;

    let writers = Components::of(model, clean)?.minus(&Components::of(model, corrupted)?);
    let mut receivers = Vec::new();
    let mut columns: Vec<(usize, bool, Tensor)> = Vec::new();
    for ((_, layer, kind), gradient) in readers.into_iter().zip(gradients) {
        match kind {
            Reader::Heads(input) => {
                for head in 0..gradient.dim(2) {
                    receivers.push(format!("{}.{input}", Sender::Head(layer, head)));
                    columns.push((layer, false, gradient.select(2, head)));
                }
            }
            Reader::Mlp => {
                receivers.push(Sender::Mlp(layer).to_string());
                columns.push((layer, true, gradient));
            }
            Reader::Logits => {
                receivers.push("logits".into());
                columns.push((layer, false, gradient));
            }
        }
    }
    let mut scores = Vec::with_capacity(writers.parts.len() * columns.len());
    for part in &writers.parts {
        for (layer, mlp, gradient) in &columns {
            let comes_before = part.comes_before(*layer, *mlp, model.config().parallel_attn_mlp);
            scores.push(if comes_before { (&part.value * gradient).sum_all().item() } else { 0.0 });
        }
    }
    let scores = Tensor::from_vec_f64(scores, &[writers.parts.len(), columns.len()]);
    let senders = writers.parts.into_iter().map(|p| p.part.to_string()).collect();
    Ok(EdgeAttribution { senders, receivers, scores: scores.to_dtype(model.params().dtype()) })
}

enum Reader {
    Heads(char),
    Mlp,
    Logits,
}

/// All readers of the stream, in order: hook point, layer and kind. The logits come after all layers.
fn readers(split: &HookedTransformer) -> Vec<(String, usize, Reader)> {
    let cfg = split.config();
    let mut readers = Vec::new();
    for l in 0..cfg.n_layers {
        readers.extend(['q', 'k', 'v'].map(|x| (format!("blocks.{l}.hook_{x}_input"), l, Reader::Heads(x))));
        if !cfg.attn_only {
            readers.push((format!("blocks.{l}.hook_mlp_in"), l, Reader::Mlp));
        }
    }
    readers.push((format!("blocks.{}.hook_resid_post", cfg.n_layers - 1), cfg.n_layers, Reader::Logits));
    readers
}

/// Gradients of the metric at `names`, averaged over `steps` points of the line from the corrupted
/// embeddings to the clean ones; at the corrupted ones alone for one step.
fn mean_gradients(
    model: &HookedTransformer,
    clean: &Sequences,
    corrupted: &Sequences,
    metric: &Metric<'_>,
    names: &[String],
    steps: usize,
) -> Result<Vec<Tensor>, LensError> {
    if clean.tokens.shape() != corrupted.tokens.shape() {
        return Err(LensError::argument(
            "corrupted tokens of shape",
            format!("{:?}", corrupted.tokens.shape()),
            format!("{:?}, as the clean ones", clean.tokens.shape()),
        ));
    }
    metric.check(model, corrupted)?;
    if steps == 0 {
        return Err(LensError::argument("steps", "0", "at least 1"));
    }
    let embed = |sequences: &Sequences| -> Result<ActivationCache, LensError> {
        Ok(sequences.call(model).names("hook_embed").stop_at_layer(0).cached()?.1)
    };
    let (from, to) = (embed(corrupted)?.get("embed")?.clone(), embed(clean)?.get("embed")?.clone());
    let mut sums: Vec<Tensor> = Vec::new();
    for step in 0..steps {
        let along = if steps == 1 { 0.0 } else { (step as f64 + 0.5) / steps as f64 };
        let point = &from + &(&(&to - &from) * along);
        let mut hooks = Hooks::new().fwd("hook_embed", move |x, _| {
            // The difference is a constant: gradients still reach what comes before.
            *x = &*x + &Var::from(&point - x.value());
            Ok(())
        });
        let call = corrupted.call(model).hooks(&mut hooks).names(names.to_vec());
        let (_, cache) = call.cached_gradients(|out| metric.apply_to_sequences(out.logits(), corrupted))?;
        let found = names.iter().map(|n| cache.grad(n.as_str()).cloned()).collect::<Result<Vec<_>, _>>()?;
        sums = match sums.is_empty() {
            true => found,
            false => sums.into_iter().zip(found).map(|(s, g)| s.into_sum(g)).collect(),
        };
    }
    Ok(sums.into_iter().map(|s| &s * (1.0 / steps as f64)).collect())
}
