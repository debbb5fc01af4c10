//! Embedding of tokens and positions, and back to logits.

use std::ops::Range;

use ironlens_autograd::Var;
use ironlens_tensor::IndexTensor;

use crate::ctx::Ctx;
use crate::registry::{Init, Param, Scope};

/// Token embedding `W_E [d_vocab, d_model]`.
#[derive(Debug)]
pub struct Embed {
    w: Param,
}

impl Embed {
    /// In `scope`.
    pub fn new(scope: &mut Scope<'_>, d_vocab: usize, d_model: usize, init: Init) -> Embed {
        Embed { w: scope.param("W_E", &[d_vocab, d_model], init) }
    }

    /// `[batch, pos] -> [batch, pos, d_model]`
    pub fn forward(&self, ctx: &Ctx<'_, '_>, tokens: &IndexTensor) -> Var {
        ctx.param(self.w).embed(tokens)
    }
}

/// Embedding of the part of a text that a token is of: `W_token_type [2, d_model]`.
#[derive(Debug)]
pub struct TokenTypeEmbed {
    w: Param,
}

impl TokenTypeEmbed {
    /// How many parts there may be: a text and another after it.
    pub const TYPES: usize = 2;

    /// In `scope`.
    pub fn new(scope: &mut Scope<'_>, d_model: usize, init: Init) -> TokenTypeEmbed {
        TokenTypeEmbed { w: scope.param("W_token_type", &[Self::TYPES, d_model], init) }
    }

    /// `[batch, pos]` of 0 and 1 to `[batch, pos, d_model]`
    pub fn forward(&self, ctx: &Ctx<'_, '_>, types: &IndexTensor) -> Var {
        ctx.param(self.w).embed(types)
    }
}

/// Learned position embedding `W_pos [n_ctx, d_model]`.
#[derive(Debug)]
pub struct PosEmbed {
    w: Param,
}

impl PosEmbed {
    /// In `scope`.
    pub fn new(scope: &mut Scope<'_>, n_ctx: usize, d_model: usize, init: Init) -> PosEmbed {
        PosEmbed { w: scope.param("W_pos", &[n_ctx, d_model], init) }
    }

    /// Embeddings of consecutive positions of `batch` sequences, `[batch, pos, d_model]`.
    pub fn forward(&self, ctx: &Ctx<'_, '_>, batch: usize, positions: Range<usize>) -> Var {
        let rows = ctx.param(self.w).narrow(0, positions.start, positions.len());
        // What is stored in 16 bits is read as what is computed in; it has no gradient.
        let stored = rows.value().dtype().is_storage();
        let rows = if stored { Var::from(rows.value().to_dtype(ctx.dtype())) } else { rows };
        rows.unsqueeze(0).expand(&[batch, positions.len(), rows.dim(1)])
    }

    /// Embeddings of the positions given, `[batch, pos]`; 0 where `mask` is 0.
    pub fn forward_at(&self, ctx: &Ctx<'_, '_>, positions: &IndexTensor, mask: &Var) -> Var {
        ctx.param(self.w).embed(positions) * &mask.unsqueeze(2)
    }
}

/// `W_U [d_model, d_vocab_out]` and `b_U [d_vocab_out]`.
#[derive(Debug)]
pub struct Unembed {
    w: Param,
    b: Param,
}

impl Unembed {
    /// In `scope`.
    pub fn new(scope: &mut Scope<'_>, d_model: usize, d_vocab_out: usize, init: Init) -> Unembed {
        Unembed {
            w: scope.param("W_U", &[d_model, d_vocab_out], init),
            b: scope.param("b_U", &[d_vocab_out], Init::Zeros),
        }
    }

    /// `[.., d_model] -> [.., d_vocab_out]`
    pub fn forward(&self, ctx: &Ctx<'_, '_>, residual: &Var) -> Var {
        residual.linear(ctx.param(self.w), Some(ctx.param(self.b)), None)
    }
}
