//! Layer norm and RMS norm, with or without weights.

use ironlens_autograd::Var;

use crate::ctx::Ctx;
use crate::error::HookError;
use crate::registry::{HookPoint, Init, Param, Scope};

/// Which norm; named as TransformerLens's classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `(x - mean) / sqrt(var + eps) * w + b`
    LayerNorm,
    /// Without `w` and `b`.
    LayerNormPre,
    /// `x / sqrt(mean(x^2) + eps) * w`
    RmsNorm,
    /// Without `w`.
    RmsNormPre,
}

impl NormKind {
    fn type_name(self) -> &'static str {
        match self {
            NormKind::LayerNorm => "LayerNorm",
            NormKind::LayerNormPre => "LayerNormPre",
            NormKind::RmsNorm => "RMSNorm",
            NormKind::RmsNormPre => "RMSNormPre",
        }
    }

    fn centers(self) -> bool {
        match self {
            NormKind::LayerNorm | NormKind::LayerNormPre => true,
            NormKind::RmsNorm | NormKind::RmsNormPre => false,
        }
    }

    fn has_weights(self) -> bool {
        match self {
            NormKind::LayerNorm | NormKind::RmsNorm => true,
            NormKind::LayerNormPre | NormKind::RmsNormPre => false,
        }
    }
}

/// A norm over the last axis, with `hook_scale` (what it divides by, `[.., 1]`) and
/// `hook_normalized`: after `w` and `b` in a layer norm, before `w` in an RMS norm.
#[derive(Debug)]
pub struct Norm {
    kind: NormKind,
    eps: f64,
    w: Option<Param>,
    b: Option<Param>,
    hook_scale: HookPoint,
    hook_normalized: HookPoint,
}

impl Norm {
    /// A norm of vectors of `width`, as child `name` of `scope`. `axes` are those of its input.
    pub fn new(scope: &mut Scope<'_>, name: &str, kind: NormKind, width: usize, eps: f64, axes: NormAxes) -> Norm {
        let mut s = scope.child(name, kind.type_name());
        let weights = kind.has_weights();
        Norm {
            kind,
            eps,
            w: weights.then(|| s.param("w", &[width], Init::Ones)),
            b: (kind == NormKind::LayerNorm).then(|| s.param("b", &[width], Init::Zeros)),
            hook_scale: s.hook("hook_scale", axes.scale),
            hook_normalized: s.hook("hook_normalized", axes.normalized),
        }
    }

    /// `[.., width] -> [.., width]`
    ///
    /// # Errors
    /// If a hook fails.
    pub fn forward(&self, ctx: &mut Ctx<'_, '_>, x: &Var) -> Result<Var, HookError> {
        let w = self.weights(ctx);
        self.forward_with(ctx, x, w)
    }

    /// What it multiplies by, `[width]`, if it has weights.
    pub(crate) fn weights(&self, ctx: &Ctx<'_, '_>) -> Option<Var> {
        self.w.map(|p| ctx.param(p).clone())
    }

    /// With `w` in the place of its own weights.
    pub(crate) fn forward_with(&self, ctx: &mut Ctx<'_, '_>, x: &Var, w: Option<Var>) -> Result<Var, HookError> {
        let b = self.b.map(|p| ctx.param(p).clone());
        // An RMS norm's hook looks between the division and the weights.
        let inside = self.kind == NormKind::RmsNorm && self.hook_normalized.is_live(ctx);
        if !self.hook_scale.is_live(ctx) && !inside {
            let y = match self.kind.centers() {
                true => x.layer_norm(self.eps, w.as_ref(), b.as_ref()),
                false => x.rms_norm(self.eps, w.as_ref()),
            };
            return if self.kind == NormKind::RmsNorm { Ok(y) } else { self.hook_normalized.apply(ctx, y) };
        }
        let x = if self.kind.centers() { x.center() } else { x.clone() };
        let scale = self.hook_scale.apply(ctx, x.rms(self.eps))?;
        if self.kind == NormKind::RmsNorm {
            let normalized = self.hook_normalized.apply(ctx, x.scale_and_shift(&scale, None, None))?;
            return Ok(w.map_or(normalized.clone(), |w| &normalized * &w));
        }
        self.hook_normalized.apply(ctx, x.scale_and_shift(&scale, w.as_ref(), b.as_ref()))
    }
}

/// The axes of a norm's two hooks.
#[derive(Clone, Copy, Debug)]
pub struct NormAxes {
    pub(crate) scale: &'static str,
    pub(crate) normalized: &'static str,
}

impl NormAxes {
    /// Of the residual stream, `[batch, pos, d_model]`.
    pub const RESIDUAL: NormAxes = NormAxes { scale: "batch pos 1", normalized: "batch pos d_model" };
    /// Of the residual stream once per head, `[batch, pos, head, d_model]`.
    pub const PER_HEAD: NormAxes = NormAxes { scale: "batch pos head 1", normalized: "batch pos head d_model" };
    /// Of MLP activations, `[batch, pos, d_mlp]`.
    pub const MLP: NormAxes = NormAxes { scale: "batch pos 1", normalized: "batch pos d_mlp" };
    /// Of the queries or keys of all heads joined, `[batch, pos, head * d_head]`.
    pub const ALL_HEADS: NormAxes = NormAxes { scale: "batch pos 1", normalized: "batch pos width" };
    /// Of queries or keys with all leading axes joined.
    pub const VECTORS: NormAxes = NormAxes { scale: "vector 1", normalized: "vector d_head" };
}
