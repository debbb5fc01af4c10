//! Direct path patching: one edge of the residual stream at a time.
//!
//! The receiver reads the corrupted stream with one sender's part replaced by that of the clean run;
//! all other paths from the sender are left as they are (Wang et al. 2022, "Interpretability in the
//! Wild"; Goldowsky-Dill et al. 2023). What comes after the receiver runs on.

use ironlens_autograd::Var;
use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{HookedTransformer, Hooks, Rerun, Site};

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

impl Sender {
    fn label(self) -> String {
        match self {
            Sender::Embed => "embed".into(),
            Sender::Head(l, h) => format!("L{l}H{h}"),
            Sender::Mlp(l) => format!("mlp{l}"),
        }
    }
}

/// The metric after patching the direct path from `sender` to each of `receivers`; that of the
/// corrupted run where the sender does not come before the receiver.
///
/// # Errors
/// If the tokens do not fit or differ in shape, a part does not exist, or norms stand between heads
/// and the stream.
pub fn direct_path_patch(
    model: &HookedTransformer,
    clean: &IndexTensor,
    corrupted: &IndexTensor,
    metric: &Metric<'_>,
    sender: Sender,
    receivers: &[Receiver],
    mut options: PatchOptions<'_>,
) -> Result<Vec<f64>, LensError> {
    refuse_post_norms(model, "path patching")?;
    if clean.shape() != corrupted.shape() {
        return Err(LensError::argument(
            "corrupted tokens of shape",
            format!("{:?}", corrupted.shape()),
            format!("{:?}, as the clean ones", clean.shape()),
        ));
    }
    let mut split = model.clone();
    split.set_use_attn_in(false)?;
    split.set_use_split_qkv_input(true)?;
    if !model.config().attn_only {
        split.set_use_hook_mlp_in(true)?;
    }
    let difference = Components::of(model, clean)?.minus(&Components::of(model, corrupted)?);
    let label = sender.label();
    let part = difference.parts.iter().find(|p| p.label == label);
    let part = part.ok_or_else(|| LensError::argument("the sender", label, "a part of the model"))?;
    let rerun = Rerun::new(&split, corrupted)?;
    let unchanged = metric.of(rerun.logits());
    let mut values = Vec::with_capacity(receivers.len());
    for (done, &receiver) in receivers.iter().enumerate() {
        values.push(one(&split, &rerun, part, receiver, metric)?.unwrap_or(unchanged));
        options.tell(done + 1, receivers.len());
    }
    Ok(values)
}

/// One edge; `None` if the sender does not come before the receiver.
fn one(
    split: &HookedTransformer,
    rerun: &Rerun<'_>,
    part: &Component,
    receiver: Receiver,
    metric: &Metric<'_>,
) -> Result<Option<f64>, LensError> {
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
    if receiver == Receiver::Logits {
        let stream = rerun.activation(Site::ResidPost, n - 1)? + &difference;
        return Ok(Some(metric.of(&split.unembed(&split.ln_final(&stream)))));
    }
    let name = match input {
        Some((x, _)) => format!("blocks.{layer}.hook_{x}_input"),
        None => format!("blocks.{layer}.hook_mlp_in"),
    };
    let mut bad_head = None;
    let logits = {
        let mut hooks = Hooks::new().fwd(name, |x, _| {
            *x = match input {
                None => &*x + &Var::from(difference.clone()),
                Some((_, head)) if head >= x.dim(2) => {
                    bad_head = Some(x.dim(2));
                    return Ok(());
                }
                Some((_, head)) => {
                    let mut value = x.value().clone();
                    let new = &value.select(2, head) + &difference;
                    value.assign(|v: &Tensor| v.select(2, head), &new);
                    Var::from(value)
                }
            };
            Ok(())
        });
        // Nothing before the receiver's layer changes.
        let resid = rerun.activation(Site::ResidPre, layer)?;
        let call = split.call(resid).start_at_layer(layer).hooks(&mut hooks);
        call.output()?.logits().value().clone()
    };
    match bad_head {
        Some(heads) => {
            Err(LensError::argument("the receiver", format!("{receiver:?}"), format!("one of {heads} heads")))
        }
        None => Ok(Some(metric.of(&logits))),
    }
}
