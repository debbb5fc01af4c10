//! Attention on a GPU: products over views of queries, keys and values, head by head. Nothing is
//! copied to bring heads together; heads that share a key and a value read the same one.

use super::backend::{Ops, Reduction, memory};
use super::kernels;
use super::matmul::{Epilogue, Product};
use crate::Tensor;
use crate::backend::{AttentionSpec, Backend, ReduceOp, counted};

/// `[batch, pos, head, d]` as `[batch, kv_head, group, pos, d]`.
fn heads(x: &Tensor, kv_heads: usize) -> Tensor {
    let [batch, pos, heads, d] = *x.shape() else { panic!("heads have four axes, not {:?}", x.shape()) };
    x.reshape(&[batch, pos, kv_heads, heads / kv_heads, d]).permute(&[0, 2, 3, 1, 4])
}

/// The same of keys or values, as often as heads share them.
fn shared(x: &Tensor, group: usize) -> Tensor {
    let x = heads(x, x.shape()[2]);
    let mut shape = x.shape().to_vec();
    shape[2] = group;
    x.expand(&shape)
}

/// `[batch, head, query, key]` as `[batch, kv_head, group, query, key]`.
fn patterns(x: &Tensor, kv_heads: usize) -> Tensor {
    let [batch, heads, queries, keys] = *x.shape() else { panic!("patterns have four axes, not {:?}", x.shape()) };
    x.reshape(&[batch, kv_heads, heads / kv_heads, queries, keys])
}

impl Ops {
    fn products(&self, a: Tensor, b: Tensor, out: Tensor) {
        Product { a, b, out, epilogue: Epilogue::None, extras: Vec::new(), spec: None }.run(self);
    }

    /// `[batch, head, query, key]`: `x` `[batch, query, head, d]` times `y` `[batch, key, kv_head, d]`.
    fn products_of_heads(&self, x: &Tensor, y: &Tensor, spec: Option<&AttentionSpec>) -> Tensor {
        let (kv_heads, head_count) = (y.shape()[2], x.shape()[2]);
        let out = self.empty(&[x.shape()[0], head_count, x.shape()[1], y.shape()[1]]);
        let (epilogue, extras) = match spec {
            Some(spec) => (Epilogue::Scores, vec![self.slopes(spec, x), self.key_mask(spec, x)]),
            None => (Epilogue::None, Vec::new()),
        };
        let (a, b) = (heads(x, kv_heads), shared(y, head_count / kv_heads).transpose(3, 4));
        Product { a, b, out: patterns(&out, kv_heads), epilogue, extras, spec }.run(self);
        out
    }

    /// ALiBi's slopes by head; `other` in their place, which nobody reads, where there are none.
    fn slopes(&self, spec: &AttentionSpec, other: &Tensor) -> Tensor {
        spec.alibi.as_ref().map_or(other.clone(), |alibi| {
            let slopes: Vec<f32> = (0..alibi.slopes.len()).map(|h| alibi.slope(h) as f32).collect();
            let shape = [slopes.len()];
            self.from_host(slopes, &shape)
        })
    }

    /// How keys that may be seen count, from 1, and 0 for others; `other` in its place where all may.
    fn key_mask(&self, spec: &AttentionSpec, other: &Tensor) -> Tensor {
        spec.key_mask.as_ref().map_or(other.clone(), |mask| {
            let rows = mask.as_slice().chunks(mask.shape()[1].max(1));
            let mask: Vec<f32> = rows.flat_map(counted).map(|count| count as f32).collect();
            let shape = [mask.len()];
            self.from_host(mask, &shape)
        })
    }

    pub(super) fn scores(&self, q: &Tensor, k: &Tensor, spec: &AttentionSpec) -> Tensor {
        self.products_of_heads(q, k, Some(spec))
    }

    pub(super) fn scores_grad(
        &self,
        q: &Tensor,
        k: &Tensor,
        spec: &AttentionSpec,
        dscores: &Tensor,
    ) -> (Tensor, Tensor) {
        let dscores = self.dense(dscores);
        // A capped score's slope depends on the product; others' does not.
        let product = match spec.soft_cap {
            Some(_) => self.products_of_heads(q, k, None),
            None => dscores.clone(),
        };
        let d = self.empty(dscores.shape());
        let [_, heads, queries, keys] = *dscores.shape() else { unreachable!("patterns have four axes") };
        let words = kernels::ScoresGrad { count: d.numel(), heads, queries, keys, scores: spec.into() };
        let mask = self.key_mask(spec, &dscores);
        let reads = [memory(&dscores), memory(&product), memory(&mask)].map(|m| &**m);
        self.fill_by(&kernels::SCORES_GRAD, &reads, &d, &words);
        (self.mix(&d, k), self.mix_back(&d, q, k.shape()))
    }

    /// `[batch, query, head, d]`: patterns over values.
    pub(super) fn mix(&self, pattern: &Tensor, v: &Tensor) -> Tensor {
        let (p, kv_heads) = (pattern.shape(), v.shape()[2]);
        let out = self.empty(&[p[0], p[2], p[1], v.shape()[3]]);
        self.products(patterns(pattern, kv_heads), shared(v, p[1] / kv_heads), heads(&out, kv_heads));
        out
    }

    pub(super) fn mix_grad(&self, pattern: &Tensor, v: &Tensor, dz: &Tensor) -> (Tensor, Tensor) {
        (self.products_of_heads(dz, v, None), self.mix_back(pattern, dz, v.shape()))
    }

    /// `[batch, key, kv_head, d]`: what queries give back to the keys they looked at, summed over the
    /// heads that share them; from `[batch, head, query, key]` and `[batch, query, head, d]`.
    fn mix_back(&self, pattern: &Tensor, x: &Tensor, like: &[usize]) -> Tensor {
        let [batch, keys, kv_heads, d] = *like else { panic!("keys and values have four axes, not {like:?}") };
        let head_count = x.shape()[2];
        let out = self.empty(&[batch, keys, head_count, d]);
        self.products(patterns(pattern, kv_heads).transpose(3, 4), heads(x, kv_heads), heads(&out, kv_heads));
        let (outer, length) = (batch * keys * kv_heads, head_count / kv_heads);
        match length {
            1 => out,
            _ => self.reduce_middle(ReduceOp::Sum, out, Reduction { outer, length, inner: d }).reshape(like),
        }
    }

    pub(super) fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, spec: &AttentionSpec) -> (Tensor, Tensor) {
        let pattern = self.softmax(&self.scores(q, k, spec));
        (self.mix(&pattern, v), pattern)
    }
}
