//! Queries, keys and values of the inputs.

use ironlens_autograd::Var;

use super::{Attention, AttentionInput};
use crate::ctx::Ctx;

impl Attention {
    /// Heads of queries, keys and values: how many, and where they start in the packed matrix.
    pub(super) fn parts(&self) -> [(usize, usize); 3] {
        let h = self.cfg.n_heads;
        let kv = self.cfg.n_key_value_heads.unwrap_or(h);
        [(h, 0), (kv, h), (kv, h + kv)]
    }

    /// Queries, keys and values, `[batch, pos, head, d_head]`.
    pub fn project(&self, ctx: &Ctx<'_, '_>, input: &AttentionInput) -> [Var; 3] {
        let e = self.cfg.d_head;
        let (w, b) = (ctx.param(self.w_qkv), ctx.param(self.b_qkv));
        let heads = |x: &Var, n: usize| x.reshape(&[x.dim(0), x.dim(1), n, e]);
        let projected = match input {
            AttentionInput::Shared(x) if x.shape().len() == 3 => {
                let packed = x.linear(w, Some(b), None);
                self.parts().map(|(n, first)| heads(&packed.narrow(2, first * e, n * e), n))
            }
            AttentionInput::Shared(x) => self.parts().map(|part| self.per_head(w, b, x, part)),
            AttentionInput::Split(inputs) => {
                let parts = self.parts();
                std::array::from_fn(|i| self.project_part(ctx, &inputs[i], parts[i]))
            }
        };
        let [q, k, v] = match self.cfg.clip_qkv {
            Some(at) => projected.map(|x| x.clamp(-at, at)),
            None => projected,
        };
        if !self.cfg.ungroup {
            return [q, k, v];
        }
        let repeat = |x: Var| match self.cfg.n_heads / x.dim(2) {
            1 => x,
            times => repeat_heads(&x, times),
        };
        [q, repeat(k), repeat(v)]
    }

    /// Queries, keys or values of an input of their own.
    pub(super) fn project_part(&self, ctx: &Ctx<'_, '_>, x: &Var, (n, first): (usize, usize)) -> Var {
        let e = self.cfg.d_head;
        let (w, b) = (ctx.param(self.w_qkv), ctx.param(self.b_qkv));
        if x.shape().len() == 4 {
            return self.per_head(w, b, x, (n, first));
        }
        let columns = w.narrow(1, first * e, n * e);
        x.linear(&columns, Some(&b.narrow(0, first * e, n * e)), None).reshape(&[x.dim(0), x.dim(1), n, e])
    }

    /// A product of each head's own input `[batch, pos, head, d_model]` with its own matrix.
    fn per_head(&self, w: &Var, b: &Var, x: &Var, (n, first): (usize, usize)) -> Var {
        let (e, heads) = (self.cfg.d_head, x.dim(2));
        let b = b.narrow(0, first * e, n * e).reshape(&[n, e]);
        let b = match heads / n {
            1 => b,
            times => b.unsqueeze(1).expand(&[n, times, e]).reshape(&[heads, e]),
        };
        head_products(x, &self.matrices(w, (n, first), heads)) + &b
    }

    /// The matrices `[head, d_model, d_head]` of `heads` heads, which may share `n`.
    pub(super) fn matrices(&self, w: &Var, (n, first): (usize, usize), heads: usize) -> Var {
        let (d, e) = (self.cfg.d_model, self.cfg.d_head);
        let w = w.narrow(1, first * e, n * e).reshape(&[d, n, e]).permute(&[1, 0, 2]);
        match heads / n {
            1 => w,
            times => w.unsqueeze(1).expand(&[n, times, d, e]).reshape(&[heads, d, e]),
        }
    }
}

/// `[batch, pos, head, inner]` times `[head, inner, outer]`, head by head.
pub(super) fn head_products(x: &Var, w: &Var) -> Var {
    let [batch, pos, heads, inner] = *x.shape() else { unreachable!("heads are [batch, pos, head, width]") };
    let x = x.permute(&[2, 0, 1, 3]).reshape(&[heads, batch * pos, inner]);
    x.matmul(w).reshape(&[heads, batch, pos, w.dim(2)]).permute(&[1, 2, 0, 3])
}

/// `[batch, pos, head, d_head]` with every head `times` in a row.
pub(super) fn repeat_heads(x: &Var, times: usize) -> Var {
    let [batch, pos, n, e] = *x.shape() else { unreachable!("heads are [batch, pos, head, d_head]") };
    x.unsqueeze(3).expand(&[batch, pos, n, times, e]).reshape(&[batch, pos, n * times, e])
}
