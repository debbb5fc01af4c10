//! What the parts of a model write into the residual stream.

use ironlens_tensor::Tensor;
use ironlens_transformer::{HookedTransformer, Sequences};

use crate::error::LensError;
use crate::patching::path::Sender;
use crate::residual::{CacheExt, StackOptions};

/// What one part writes, `[batch, pos, d_model]`.
pub(crate) struct Component {
    pub part: Sender,
    pub value: Tensor,
}

impl Component {
    /// Whether attention (or the MLP) of `layer` reads what this writes.
    pub fn comes_before(&self, layer: usize, mlp: bool, parallel: bool) -> bool {
        match self.part {
            Sender::Embed => true,
            Sender::Head(own, _) => own < layer || (own == layer && mlp && !parallel),
            Sender::Mlp(own) => own < layer,
        }
    }
}

/// The embedding, every head and every MLP, for one run. Biases are in none of them.
pub(crate) struct Components {
    pub parts: Vec<Component>,
}

impl Components {
    pub fn of(model: &HookedTransformer, sequences: &Sequences) -> Result<Components, LensError> {
        let cfg = model.config();
        let wanted = |n: &str| n == "hook_embed" || n.ends_with("attn.hook_z") || n.ends_with("hook_mlp_out");
        let (_, cache) = sequences.call(model).names(wanted).cached()?;
        let embed = cache.get("embed")?.clone();
        let mut parts = vec![Component { part: Sender::Embed, value: embed }];
        let heads = cache.stack_head_results(&StackOptions::default(), false)?;
        for l in 0..cfg.n_layers {
            for h in 0..cfg.n_heads() {
                let value = heads.values.select(0, l * cfg.n_heads() + h);
                parts.push(Component { part: Sender::Head(l, h), value });
            }
            if !cfg.attn_only {
                let value = cache.get(("mlp_out", l))?.clone();
                parts.push(Component { part: Sender::Mlp(l), value });
            }
        }
        Ok(Components { parts })
    }

    /// The differences to another run of the same model.
    pub fn minus(self, other: &Components) -> Components {
        let minus = |(a, b): (Component, &Component)| Component { value: &a.value - &b.value, ..a };
        Components { parts: self.parts.into_iter().zip(&other.parts).map(minus).collect() }
    }
}

/// Refuses models whose sublayers are normalised before they are added: their heads and neurons do not add up.
pub(crate) fn refuse_post_norms(model: &HookedTransformer, what: &'static str) -> Result<(), LensError> {
    match model.config().normalizes_outputs() {
        true => Err(LensError::argument(
            "the model",
            format!("one with use_normalization_before_and_after or use_normalization_after_only for {what}"),
            "heads and neurons that add up: there a norm stands between them and the stream",
        )),
        false => Ok(()),
    }
}
