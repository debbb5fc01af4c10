//! Direct path patching: one edge of the residual stream at a time.
//!
//! The receiver reads the corrupted stream with one sender's part replaced by that of the clean run;
//! all other paths from the sender are left as they are (Wang et al. 2022, "Interpretability in the
//! Wild"; Goldowsky-Dill et al. 2023). What comes after the receiver runs on.

use std::fmt;

use ironlens_transformer::{ActivationCache, HookedTransformer, Hooks, Sequences};

use super::PatchOptions;
use crate::components::{Component, Components, refuse_post_norms};
use crate::error::LensError;
use crate::metric::Metric;

/// A part of the model that writes to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The token embedding.
    Embed,
    /// A head: layer and number.
    Head(usize, usize),
    /// The MLP of a layer.
    Mlp(usize),
}

/// A part of the model that reads the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The queries of a head: layer and number.
    Query(usize, usize),
    /// The keys of a head, or of a group that shares them.
    Key(usize, usize),
    /// The values of a head, or of a group that shares them.
    Value(usize, usize),
    /// The MLP of a layer.
    Mlp(usize),
    /// The final norm and the unembedding.
    Logits,
}

/// `embed`, `L0H1`, `mlp0`.
impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sender::Embed => f.write_str("embed"),
            Sender::Head(layer, head) => write!(f, "L{layer}H{head}"),
            Sender::Mlp(layer) => write!(f, "mlp{layer}"),
        }
    }
}

/// The metric after patching the direct path from `sender` to each of `receivers`; that of the
/// corrupted run where the sender does not come before the receiver.
///
/// # Errors
/// If the tokens do not fit or differ in shape, the metric does not fit them, a part does not exist, or norms stand
/// between heads and the stream.
pub fn direct_path_patch(
    model: &HookedTransformer,
    clean: impl Into<Sequences>,
    corrupted: impl Into<Sequences>,
    metric: &Metric<'_>,
    sender: Sender,
    receivers: &[Receiver],
    mut options: PatchOptions<'_>,
) -> Result<Vec<f64>, LensError> {
    refuse_post_norms(model, "path patching")?;
    let (clean, corrupted) = (&clean.into(), &corrupted.into());
    if clean.tokens.shape() != corrupted.tokens.shape() {
        return Err(LensError::argument(
            "corrupted tokens of shape",
            format!("{:?}", corrupted.tokens.shape()),
            format!("{:?}, as the clean ones", clean.tokens.shape()),
        ));
    }
    metric.check(model, corrupted)?;
    let mut split = model.clone();
    split.set_use_attn_in(false)?;
    split.set_use_split_qkv_input(true)?;
    if !model.config().attn_only {
        split.set_use_hook_mlp_in(true)?;
    }
    let difference = Components::of(model, clean)?.minus(&Components::of(model, corrupted)?);
    let part = difference.parts.iter().find(|p| p.part == sender);
    let part = part.ok_or_else(|| LensError::argument("the sender", sender.to_string(), "a part of the model"))?;
    let (out, cache) = corrupted.call(&split).names_where(|n| n.contains("hook_resid_p")).cached()?;
    let unchanged = metric.of_sequences(out.logits().value(), corrupted);
    let run = Run { split: &split, corrupted, cache, metric };
    let mut values = Vec::with_capacity(receivers.len());
    for (done, &receiver) in receivers.iter().enumerate() {
        values.push(run.one(part, receiver)?.unwrap_or(unchanged));
        options.tell(done + 1, receivers.len());
    }
    Ok(values)
}

/// The corrupted run, with an input of its own for every reader.
struct Run<'r> {
    split: &'r HookedTransformer,
    corrupted: &'r Sequences,
    /// The stream before and after every block.
    cache: ActivationCache,
    metric: &'r Metric<'r>,
}

impl Run<'_> {
    /// One edge; `None` if the sender does not come before the receiver.
    fn one(&self, part: &Component, receiver: Receiver) -> Result<Option<f64>, LensError> {
        let Run { split, corrupted, .. } = *self;
        let n = split.config().n_layers;
        let (layer, mlp, input) = match receiver {
            Receiver::Query(l, h) => (l, false, Some(("q", h))),
            Receiver::Key(l, h) => (l, false, Some(("k", h))),
            Receiver::Value(l, h) => (l, false, Some(("v", h))),
            Receiver::Mlp(l) => (l, true, None),
            Receiver::Logits => (n, false, None),
        };
        if receiver != Receiver::Logits && layer >= n {
            return Err(LensError::argument("the receiver", format!("{receiver:?}"), format!("in a layer below {n}")));
        }
        if !part.comes_before(layer, mlp, split.config().parallel_attn_mlp) {
            return Ok(None);
        }
        let difference = part.value.clone();
        if receiver == Receiver::Logits && split.params().perma_hooks().next().is_none() {
            let stream = self.cache.get(("resid_post", n - 1))? + &difference;
            return Ok(Some(self.metric.of_sequences(&split.unembed(&split.ln_final(&stream)), corrupted)));
        }
        let name = match (receiver, input) {
            (Receiver::Logits, _) => format!("blocks.{}.hook_resid_post", n - 1),
            (_, Some((x, _))) => format!("blocks.{layer}.hook_{x}_input"),
            (_, None) => format!("blocks.{layer}.hook_mlp_in"),
        };
        let mut bad_head = None;
        let logits = {
            let mut hooks = Hooks::new().fwd(name, |x, _| match input {
                None => *x += &difference,
                Some((_, head)) if head >= x.dim(2) => bad_head = Some(x.dim(2)),
                Some((_, head)) => {
                    let new = x.value().select(2, head) + &difference;
                    x.set_at(2, head, &new);
                }
            });
            // Nothing before the receiver's layer changes. Permanent hooks would run a second time on what
            // was kept, so that with them the whole is run.
            let call = match split.params().perma_hooks().next() {
                None => {
                    let resid = self.cache.get(("resid_pre", layer))?;
                    let call = split.call(resid).start_at_layer(layer);
                    match &corrupted.mask {
                        Some(mask) => call.attention_mask(mask),
                        None => call,
                    }
                }
                Some(_) => corrupted.call(split),
            };
            call.hooks(&mut hooks).output()?.logits().value().clone()
        };
        match bad_head {
            Some(heads) => {
                Err(LensError::argument("the receiver", format!("{receiver:?}"), format!("one of {heads} heads")))
            }
            None => Ok(Some(self.metric.of_sequences(&logits, corrupted))),
        }
    }
}
