//! Norms of queries and keys.

use ironlens_autograd::Var;

use super::project::repeat_heads;
use crate::ctx::Ctx;
use crate::error::HookError;
use crate::norm::{Norm, NormAxes, NormKind};
use crate::registry::{Init, Param, Scope};

/// How queries and keys are normalised before they are rotated and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Each vector by its root mean square; one weight `[d_head]` for all heads (Gemma 3, Qwen 3).
    Rms,
    /// The vectors of all heads as one, by its root mean square; weights `[head * d_head]` (OLMo 2).
    RmsOfAllHeads,
    /// Each vector by a layer norm without bias, with weights of its head's own, `[head, d_head]`
    /// (Command R, StableLM 2).
    LayerNormPerHead,
}

/// A norm of the queries or of the keys.
#[derive(Debug)]
pub(super) struct VectorNorm {
    kind: QkNorm,
    /// With weights of their own: those of the keys are the groups.
    heads: usize,
    norm: Norm,
    /// `[head, d_head]`, of [`QkNorm::LayerNormPerHead`].
    per_head: Option<Param>,
}

impl VectorNorm {
    /// As child `name` of `s`, of `heads` vectors of `d_head`.
    pub fn new(s: &mut Scope<'_>, name: &str, kind: QkNorm, heads: usize, d_head: usize, eps: f64) -> VectorNorm {
        let (norm, width, axes) = match kind {
            QkNorm::Rms => (NormKind::RmsNorm, d_head, NormAxes::VECTORS),
            QkNorm::RmsOfAllHeads => (NormKind::RmsNorm, heads * d_head, NormAxes::ALL_HEADS),
            QkNorm::LayerNormPerHead => (NormKind::LayerNormPre, d_head, NormAxes::VECTORS),
        };
        let norm = Norm::new(s, name, norm, width, eps, axes);
        let per_head =
            (kind == QkNorm::LayerNormPerHead).then(|| s.param(&format!("{name}.w"), &[heads, d_head], Init::Ones));
        VectorNorm { kind, heads, norm, per_head }
    }

    /// `[batch, pos, head, d_head]` to the same shape.
    pub fn forward(&self, ctx: &mut Ctx<'_, '_>, x: &Var) -> Result<Var, HookError> {
        let [batch, pos, heads, d_head] = *x.shape() else { unreachable!("vectors are [batch, pos, head, d_head]") };
        // Keys that are ungrouped have the weights of their group.
        let by_head = |w: &Var| match heads / self.heads {
            1 => w.reshape(&[heads, d_head]),
            times => repeat_heads(&w.reshape(&[1, 1, self.heads, d_head]), times).reshape(&[heads, d_head]),
        };
        // TransformerLens shows the norm's hooks `[batch * pos * head, d_head]`.
        let rows = match self.kind {
            QkNorm::Rms | QkNorm::LayerNormPerHead => x.reshape(&[batch * pos * heads, d_head]),
            QkNorm::RmsOfAllHeads => x.reshape(&[batch, pos, heads * d_head]),
        };
        let weights = self.norm.weights(ctx).map(|w| match self.kind {
            QkNorm::Rms | QkNorm::LayerNormPerHead => w,
            QkNorm::RmsOfAllHeads => by_head(&w).reshape(&[heads * d_head]),
        });
        let y = self.norm.forward_with(ctx, &rows, weights)?.reshape(&[batch, pos, heads, d_head]);
        Ok(match self.per_head {
            Some(w) => &y * &by_head(ctx.param(w)),
            None => y,
        })
    }
}
