//! Several sweeps at once.

use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{ActivationCache, HookedTransformer};

use super::{PatchOptions, PatchResult};
use crate::error::LensError;
use crate::metric::Metric;

/// Sweeps of several activations over the same axes.
#[derive(Clone, Debug)]
pub struct Every {
    /// What each is of, such as `z` or `pattern`.
    pub activations: Vec<&'static str>,
    /// `[activation, ..]`; where keys and values have fewer heads, zeros follow theirs.
    pub values: Tensor,
}

type Sweep = fn(
    &HookedTransformer,
    &IndexTensor,
    &ActivationCache,
    &Metric<'_>,
    PatchOptions<'_>,
) -> Result<PatchResult, LensError>;

/// Sweeps one after another, under the signature that they share.
macro_rules! every {
    ($($(#[$doc:meta])* $name:ident: $($part:literal $sweep:ident),+;)+) => {
        $(
            $(#[$doc])*
            pub fn $name(
                model: &HookedTransformer,
                corrupted: &IndexTensor,
                clean: &ActivationCache,
                metric: &Metric<'_>,
                options: PatchOptions<'_>,
            ) -> Result<Every, LensError> {
                stacked(&[$(($part, super::$sweep as Sweep)),+], model, corrupted, clean, metric, options)
            }
        )+
    };
}

every! {
    /// Output, queries, keys, values and pattern of each head, all positions at once:
    /// `[5, layer, head]`.
    ///
    /// # Errors
    /// As [`super::generic_activation_patch`].
    get_act_patch_attn_head_all_pos_every:
        "z" get_act_patch_attn_head_out_all_pos,
        "q" get_act_patch_attn_head_q_all_pos,
        "k" get_act_patch_attn_head_k_all_pos,
        "v" get_act_patch_attn_head_v_all_pos,
        "pattern" get_act_patch_attn_head_pattern_all_pos;

    /// Output, queries, keys, values and pattern of each head, by position (of the query, for patterns):
    /// `[5, layer, pos, head]`.
    ///
    /// # Errors
    /// As [`super::generic_activation_patch`].
    get_act_patch_attn_head_by_pos_every:
        "z" get_act_patch_attn_head_out_by_pos,
        "q" get_act_patch_attn_head_q_by_pos,
        "k" get_act_patch_attn_head_k_by_pos,
        "v" get_act_patch_attn_head_v_by_pos,
        "pattern" get_act_patch_attn_head_pattern_by_pos;

    /// The stream before each block and what its attention and its MLP write: `[3, layer, pos]`.
    ///
    /// # Errors
    /// As [`super::generic_activation_patch`].
    get_act_patch_block_every:
        "resid_pre" get_act_patch_resid_pre,
        "attn_out" get_act_patch_attn_out,
        "mlp_out" get_act_patch_mlp_out;
}

fn stacked(
    sweeps: &[(&'static str, Sweep)],
    model: &HookedTransformer,
    corrupted: &IndexTensor,
    clean: &ActivationCache,
    metric: &Metric<'_>,
    mut options: PatchOptions<'_>,
) -> Result<Every, LensError> {
    let heads = model.config().n_heads();
    let mut parts = Vec::new();
    for (i, (name, sweep)) in sweeps.iter().enumerate() {
        let quiet = PatchOptions { max_rows: options.max_rows, plain: options.plain, progress: None };
        let mut values = sweep(model, corrupted, clean, metric, quiet)?.values;
        if *name == "pattern" && values.ndim() == 3 {
            // [layer, head, dest_pos], as the others.
            values = values.transpose(1, 2);
        }
        let last = values.ndim() - 1;
        if ["k", "v"].contains(name) && values.dim(last) < heads {
            let mut shape = values.shape().to_vec();
            shape[last] = heads - values.dim(last);
            let nothing = Tensor::zeros(&shape, values.dtype(), &values.device());
            values = Tensor::cat(&[values, nothing], last);
        }
        parts.push(values);
        options.tell(i + 1, sweeps.len());
    }
    Ok(Every { activations: sweeps.iter().map(|s| s.0).collect(), values: Tensor::stack(&parts, 0) })
}
