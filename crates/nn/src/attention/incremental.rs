//! Attention of some rows of a sequence, to others that were computed before.
//!
//! Rows that follow are one case ([`super::Past`]); changed rows among those of a finished run are another, whose
//! queries and keys are made ready here, or are not made at all: with few queries, `W_K` is multiplied into these
//! (weight absorption), which then read the inputs of keys.

use ironlens_autograd::Var;
use ironlens_tensor::IndexTensor;

use super::project::head_products;
use super::qk_norm::VectorNorm;
use super::{Attention, PositionScheme, rotary_spec};
use crate::ctx::Ctx;
use crate::error::HookError;

impl Attention {
    /// Queries as attention reads them, of queries `[batch, pos, head, d_head]` as projected:
    /// normalised and rotated to `positions` `[batch, pos]` of sequences that are `len` long, where the
    /// model does so.
    ///
    /// # Errors
    /// If a hook fails.
    pub fn rotated_queries(
        &self,
        ctx: &mut Ctx<'_, '_>,
        q: &Var,
        positions: &IndexTensor,
        len: usize,
    ) -> Result<Var, HookError> {
        self.rotated(ctx, self.norms.as_ref().map(|[q_norm, _]| q_norm), q, positions, len)
    }

    /// As [`Attention::rotated_queries`], for keys `[batch, pos, kv_head, d_head]`.
    ///
    /// # Errors
    /// If a hook fails.
    pub fn rotated_keys(
        &self,
        ctx: &mut Ctx<'_, '_>,
        k: &Var,
        positions: &IndexTensor,
        len: usize,
    ) -> Result<Var, HookError> {
        self.rotated(ctx, self.norms.as_ref().map(|[_, k_norm]| k_norm), k, positions, len)
    }

    fn rotated(
        &self,
        ctx: &mut Ctx<'_, '_>,
        norm: Option<&VectorNorm>,
        x: &Var,
        positions: &IndexTensor,
        len: usize,
    ) -> Result<Var, HookError> {
        let x = norm.map_or(Ok(x.clone()), |norm| norm.forward(ctx, x))?;
        Ok(match &self.cfg.positions {
            PositionScheme::Rotary(table) => x.rotary(&rotary_spec(ctx, table, len, |t| t.embed(positions))),
            PositionScheme::None | PositionScheme::Alibi(_) => x,
        })
    }

    /// Whether scores are products of queries with a linear map of the input, and nothing after,
    /// as [`Attention::queries_of_inputs`] needs.
    pub fn is_linear_in_keys(&self) -> bool {
        let cfg = &self.cfg;
        let plain_scores = cfg.soft_cap.is_none() && cfg.clip_qkv.is_none() && self.sinks.is_none();
        plain_scores && self.norms.is_none() && self.hook_rot.is_none()
    }

    /// Queries `[batch, pos, head, d_model]` that read the inputs of keys where others read keys,
    /// from the inputs `[batch, pos, d_model]` of queries: `W_K (W_Q^T x + b_Q)`. (What `b_K` adds to
    /// all scores of a query changes no pattern.)
    pub fn queries_of_inputs(&self, ctx: &Ctx<'_, '_>, x: &Var) -> Var {
        let [queries, keys, _] = self.parts();
        let q = self.project_part(ctx, x, queries);
        let w = self.matrices(ctx.param(self.w_qkv), keys, self.cfg.n_heads);
        head_products(&q, &w.permute(&[0, 2, 1]))
    }

    /// z `[batch, pos, head, d_head]` from what each head reads of the inputs, mixed by its pattern,
    /// `[batch, pos, head, d_model]`: values are linear in inputs, so mixing may come first.
    pub fn values_of_mixed(&self, ctx: &Ctx<'_, '_>, mixed: &Var) -> Var {
        self.project_part(ctx, mixed, self.parts()[2])
    }
}
