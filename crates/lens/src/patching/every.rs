//! Several sweeps at once.

use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{ActivationCache, HookedTransformer};

use super::{PatchOptions, PatchResult, Patching, function_of_method};
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

type Sweep = fn(&Patching<'_>, PatchOptions<'_>) -> Result<PatchResult, LensError>;

/// Sweeps one after another, as a method of [`Patching`] and as TransformerLens's function.
macro_rules! every {
    ($($(#[$doc:meta])* $function:ident, $method:ident: $($part:literal $sweep:ident),+;)+) => {
        impl Patching<'_> {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// As [`Patching::generic`]; and if the clean run is of other sizes.
            pub fn $method(&self, options: PatchOptions<'_>) -> Result<Every, LensError> {
                self.stacked(&[$(($part, |p, options| p.$sweep(options))),+], options)
            }
        )+}
        $(function_of_method!($(#[$doc])* $function, $method, Every);)+
    };
}

every! {
    /// Output, queries, keys, values and pattern of each head, all positions at once:
    /// `[5, layer, head]`.
    get_act_patch_attn_head_all_pos_every, attn_head_all_pos_every:
        "z" attn_head_out_all_pos,
        "q" attn_head_q_all_pos,
        "k" attn_head_k_all_pos,
        "v" attn_head_v_all_pos,
        "pattern" attn_head_pattern_all_pos;

    /// Output, queries, keys, values and pattern of each head, by position (of the query, for patterns):
    /// `[5, layer, pos, head]`.
    get_act_patch_attn_head_by_pos_every, attn_head_by_pos_every:
        "z" attn_head_out_by_pos,
        "q" attn_head_q_by_pos,
        "k" attn_head_k_by_pos,
        "v" attn_head_v_by_pos,
        "pattern" attn_head_pattern_by_pos;

    /// The stream before each block and what its attention and its MLP write: `[3, layer, pos]`.
    get_act_patch_block_every, block_every:
        "resid_pre" resid_pre,
        "attn_out" attn_out,
        "mlp_out" mlp_out;
}

impl Patching<'_> {
    fn stacked(&self, sweeps: &[(&'static str, Sweep)], mut options: PatchOptions<'_>) -> Result<Every, LensError> {
        let heads = self.model.config().n_heads();
        let mut parts = Vec::new();
        for (i, (name, sweep)) in sweeps.iter().enumerate() {
            let quiet = PatchOptions { max_rows: options.max_rows, plain: options.plain, progress: None };
            let mut values = sweep(self, quiet)?.values;
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
}
