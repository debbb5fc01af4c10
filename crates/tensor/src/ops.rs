//! The operations of [`Tensor`]: shapes are checked here, devices compute.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::backend::{AdamWStep, AttentionSpec, BinaryOp, ReduceOp, RotarySpec, UnaryOp};
use crate::check;
use crate::{DType, IndexTensor, Tensor};

impl Tensor {
    // ---- elementwise --------------------------------------------------------------------

    /// `op` of every element.
    pub fn unary(&self, op: UnaryOp) -> Tensor {
        self.device().backend().unary(op, self.clone())
    }

    /// `op` of every element, in this tensor's own memory if nobody else holds it.
    pub fn into_unary(self, op: UnaryOp) -> Tensor {
        self.device().backend().unary(op, self)
    }

    /// `dy * op'(self)`, in the memory of `dy` if nobody else holds it.
    #[track_caller]
    pub fn unary_grad(&self, op: UnaryOp, dy: Tensor) -> Tensor {
        check::same_shape("unary_grad", self.shape(), dy.shape());
        self.device().backend().unary_grad(op, self, dy)
    }

    /// `op` of two tensors, which broadcast by numpy's rules.
    #[track_caller]
    pub fn binary(&self, op: BinaryOp, other: &Tensor) -> Tensor {
        check::same_place("binary", self, other);
        let shape = check::broadcast("binary", self.shape(), other.shape());
        self.device().backend().binary(op, self, other, &shape)
    }

    /// Adds `other`, of the same shape, in place (copies first if the memory is shared).
    #[track_caller]
    pub fn add_assign(&mut self, other: &Tensor) {
        check::same_place("add_assign", self, other);
        check::same_shape("add_assign", self.shape(), other.shape());
        self.make_writable();
        self.device().backend().add_assign(self, other);
    }

    /// `self + other`, of the same shape, in the memory of whichever nobody else holds.
    #[track_caller]
    pub fn into_sum(mut self, mut other: Tensor) -> Tensor {
        if self.is_reusable() {
            self.add_assign(&other);
            self
        } else if other.is_reusable() {
            other.add_assign(&self);
            other
        } else {
            self + other
        }
    }

    /// e^x
    pub fn exp(&self) -> Tensor {
        self.unary(UnaryOp::Exp)
    }

    /// Natural logarithm.
    pub fn log(&self) -> Tensor {
        self.unary(UnaryOp::Log)
    }

    /// Square root.
    pub fn sqrt(&self) -> Tensor {
        self.unary(UnaryOp::Sqrt)
    }

    /// Square.
    pub fn square(&self) -> Tensor {
        self.unary(UnaryOp::Square)
    }

    /// Absolute value.
    pub fn abs(&self) -> Tensor {
        self.unary(UnaryOp::Abs)
    }

    /// `scale * x + shift`
    pub fn affine(&self, scale: f64, shift: f64) -> Tensor {
        self.unary(UnaryOp::Affine { scale, shift })
    }

    // ---- reductions ---------------------------------------------------------------------

    #[track_caller]
    fn reduce(&self, op: ReduceOp, axes: &[usize], keepdim: bool) -> Tensor {
        for &a in axes {
            check::axis(self.shape(), a);
        }
        let out = self.device().backend().reduce(op, self, axes);
        if keepdim {
            return out;
        }
        let shape: Vec<usize> = (0..self.ndim()).filter(|a| !axes.contains(a)).map(|a| self.shape()[a]).collect();
        out.reshape(&shape)
    }

    /// Sum over `axes`, which go.
    #[track_caller]
    pub fn sum(&self, axes: &[usize]) -> Tensor {
        self.reduce(ReduceOp::Sum, axes, false)
    }

    /// Sum over `axes`, which stay with length 1.
    #[track_caller]
    pub fn sum_keepdim(&self, axes: &[usize]) -> Tensor {
        self.reduce(ReduceOp::Sum, axes, true)
    }

    /// Mean over `axes`, which go.
    #[track_caller]
    pub fn mean(&self, axes: &[usize]) -> Tensor {
        let n: usize = axes.iter().map(|&a| self.dim(a)).product();
        self.sum(axes).into_unary(UnaryOp::Affine { scale: 1.0 / n as f64, shift: 0.0 })
    }

    /// Largest element over `axes`, which go.
    #[track_caller]
    pub fn max(&self, axes: &[usize]) -> Tensor {
        self.reduce(ReduceOp::Max, axes, false)
    }

    /// Sum of all elements, shape `[]`.
    pub fn sum_all(&self) -> Tensor {
        self.sum(&(0..self.ndim()).collect::<Vec<_>>())
    }

    /// Mean of all elements, shape `[]`.
    pub fn mean_all(&self) -> Tensor {
        self.mean(&(0..self.ndim()).collect::<Vec<_>>())
    }

    /// Index of the largest element along the last axis (the first of equals), which goes.
    #[track_caller]
    pub fn argmax(&self) -> IndexTensor {
        assert!(self.ndim() > 0 && self.dim(self.ndim() - 1) > 0, "argmax of shape {:?}", self.shape());
        self.device().backend().argmax(self)
    }

    /// Sum of the squares of all elements.
    pub fn sum_squares(&self) -> f64 {
        self.sum_squares_on_device().item()
    }

    /// Sum of the squares of all elements, one number that stays on the device (`f64` on the CPU).
    pub fn sum_squares_on_device(&self) -> Tensor {
        self.device().backend().sum_squares(self)
    }

    /// Euclidean norm of all elements.
    pub fn norm(&self) -> f64 {
        self.sum_squares().sqrt()
    }

    /// Whether no element is infinite or NaN.
    pub fn all_finite(&self) -> bool {
        self.device().backend().all_finite(self)
    }

    /// Summed down to `shape`, from which this tensor was broadcast.
    #[track_caller]
    pub fn sum_to(&self, shape: &[usize]) -> Tensor {
        if self.shape() == shape {
            return self.clone();
        }
        let extra = self.ndim() - shape.len();
        let axes: Vec<usize> =
            (0..self.ndim()).filter(|&a| a < extra || (shape[a - extra] == 1 && self.shape()[a] != 1)).collect();
        self.sum_keepdim(&axes).reshape(shape)
    }

    // ---- products -----------------------------------------------------------------------

    /// Matrix product over the last two axes, `[.., m, k] x [.., k, n] -> [.., m, n]`; leading
    /// axes broadcast.
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        check::same_place("matmul", self, other);
        let (a, b) = (self.shape(), other.shape());
        let fits = a.len() >= 2 && b.len() >= 2 && a[a.len() - 1] == b[b.len() - 2];
        check::requires(fits, "matmul", a, b, "the left's last axis must equal the right's last but one");
        let mut shape = check::broadcast("matmul", &a[..a.len() - 2], &b[..b.len() - 2]);
        shape.extend([a[a.len() - 2], b[b.len() - 1]]);
        check::result("matmul", a, b, &shape);
        self.device().backend().matmul(self, other, &shape)
    }

    /// `self @ w + bias + residual`: `self` is `[.., in]`, `w` `[in, out]`, `bias` `[out]`,
    /// `residual` and the result `[.., out]`. The sums are taken in this order.
    #[track_caller]
    pub fn linear(&self, w: &Tensor, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Tensor {
        check::same_place("linear", self, w);
        let (x, n) = (self.shape(), self.ndim());
        let fits = n >= 1 && w.ndim() == 2 && x[n - 1] == w.dim(0);
        check::requires(fits, "linear", x, w.shape(), "the input's last axis must equal the weight's first");
        let mut shape = x.to_vec();
        shape[n - 1] = w.dim(1);
        check::result("linear", x, w.shape(), &shape);
        if let Some(b) = bias {
            check::requires(b.shape() == [w.dim(1)], "linear bias", w.shape(), b.shape(), "one per output");
        }
        if let Some(r) = residual {
            check::same_shape("linear residual", &shape, r.shape());
        }
        let flat = |t: &Tensor| {
            let width = t.shape()[t.ndim() - 1];
            t.reshape(&[t.numel() / width.max(1), width])
        };
        let residual = residual.map(flat);
        self.device().backend().linear(&flat(self), w, bias, residual.as_ref()).reshape(&shape)
    }

    // ---- rows: over the last axis -------------------------------------------------------

    /// Softmax over the last axis; a row that is nowhere finite gives 0 (as TransformerLens's
    /// attention does), not NaN.
    pub fn softmax(&self) -> Tensor {
        self.device().backend().softmax(self)
    }

    /// Gradient of [`Tensor::softmax`], of which `self` is the result.
    #[track_caller]
    pub fn softmax_grad(&self, dy: &Tensor) -> Tensor {
        check::same_shape("softmax_grad", self.shape(), dy.shape());
        self.device().backend().softmax_grad(self, dy)
    }

    /// Logarithm of the softmax over the last axis.
    pub fn log_softmax(&self) -> Tensor {
        self.device().backend().log_softmax(self)
    }

    /// Gradient of [`Tensor::log_softmax`], of which `self` is the result.
    #[track_caller]
    pub fn log_softmax_grad(&self, dy: &Tensor) -> Tensor {
        check::same_shape("log_softmax_grad", self.shape(), dy.shape());
        self.device().backend().log_softmax_grad(self, dy)
    }

    /// Minus the mean over the last axis.
    pub fn center(&self) -> Tensor {
        self.device().backend().center(self)
    }

    /// `sqrt(mean(x^2) + eps)` over the last axis, which stays with length 1.
    pub fn rms(&self, eps: f64) -> Tensor {
        self.device().backend().rms(self, eps)
    }

    /// Gradient of [`Tensor::rms`] at `self`, of which `scale` is the result.
    pub fn rms_grad(&self, scale: &Tensor, dscale: &Tensor) -> Tensor {
        self.device().backend().rms_grad(self, scale, dscale)
    }

    /// `self / scale * w + b`: `scale` `[.., 1]`, `w` and `b` along the last axis.
    #[track_caller]
    pub fn scale_shift(&self, scale: &Tensor, w: Option<&Tensor>, b: Option<&Tensor>) -> Tensor {
        check::requires(
            scale.numel() * self.shape()[self.ndim() - 1] == self.numel(),
            "scale_shift",
            self.shape(),
            scale.shape(),
            "one scale per row",
        );
        self.device().backend().scale_shift(self, scale, w, b)
    }

    /// Layer norm (`center`) or RMS norm over the last axis, and the scale that it divided by:
    /// [`Tensor::center`], [`Tensor::rms`] and [`Tensor::scale_shift`] in one pass, bit for bit.
    pub fn norm_rows(&self, center: bool, eps: f64, w: Option<&Tensor>, b: Option<&Tensor>) -> (Tensor, Tensor) {
        self.device().backend().norm(self, center, eps, w, b)
    }

    /// Gradients of [`Tensor::norm_rows`] at `self`: of the input, and of `w` and `b`.
    pub fn norm_rows_grad(
        &self,
        center: bool,
        scale: &Tensor,
        w: Option<&Tensor>,
        dy: &Tensor,
        want_affine: bool,
    ) -> (Tensor, Option<(Tensor, Tensor)>) {
        self.device().backend().norm_grad(self, center, scale, w, dy, want_affine)
    }

    // ---- attention ----------------------------------------------------------------------

    /// Attention scores `[batch, head, query, key]` of queries `self` `[batch, query, head,
    /// d_head]` and `keys` `[batch, key, kv_head, d_head]`, negative infinity where hidden. With
    /// fewer key heads than query heads, neighbouring query heads share one.
    #[track_caller]
    pub fn attention_scores(&self, keys: &Tensor, spec: &AttentionSpec) -> Tensor {
        check_heads("attention_scores", self, keys);
        self.device().backend().attention_scores(self, keys, spec)
    }

    /// Gradients of [`Tensor::attention_scores`] for queries and keys.
    pub fn attention_scores_grad(&self, keys: &Tensor, spec: &AttentionSpec, dscores: &Tensor) -> (Tensor, Tensor) {
        self.device().backend().attention_scores_grad(self, keys, spec, dscores)
    }

    /// Values `[batch, key, kv_head, d_head]` mixed by the pattern `self` `[batch, head, query,
    /// key]` to `[batch, query, head, d_head]`.
    #[track_caller]
    pub fn attention_mix(&self, values: &Tensor) -> Tensor {
        let (p, v) = (self.shape(), values.shape());
        let fits = p.len() == 4 && v.len() == 4 && p[0] == v[0] && p[3] == v[1] && p[1] % v[2].max(1) == 0;
        check::requires(fits, "attention_mix", p, v, "[batch, head, query, key] and [batch, key, kv_head, d_head]");
        self.device().backend().attention_mix(self, values)
    }

    /// Gradients of [`Tensor::attention_mix`] for pattern and values.
    pub fn attention_mix_grad(&self, values: &Tensor, dz: &Tensor) -> (Tensor, Tensor) {
        self.device().backend().attention_mix_grad(self, values, dz)
    }

    /// Scores, softmax and mix in one kernel, bit for bit: `(z [batch, query, head, d_head],
    /// pattern [batch, head, query, key])`.
    #[track_caller]
    pub fn attention(&self, keys: &Tensor, values: &Tensor, spec: &AttentionSpec) -> (Tensor, Tensor) {
        check_heads("attention", self, keys);
        check::same_shape("attention keys and values", keys.shape(), values.shape());
        self.device().backend().attention(self, keys, values, spec)
    }

    /// Gradients of [`Tensor::attention`]'s `z` for queries, keys and values, which lie side by
    /// side in one memory when they have one layout to share.
    pub fn attention_grad(
        &self,
        keys: &Tensor,
        values: &Tensor,
        spec: &AttentionSpec,
        pattern: &Tensor,
        dz: &Tensor,
    ) -> (Tensor, Tensor, Tensor) {
        self.device().backend().attention_grad(self, keys, values, spec, pattern, dz)
    }

    /// Rotary embedding of `[batch, pos, head, d_head]`; `inverse` rotates back.
    #[track_caller]
    pub fn rotary(&self, spec: &RotarySpec, inverse: bool) -> Tensor {
        let (x, c) = (self.shape(), spec.cos.shape());
        let fits = x.len() == 4
            && c.len() == 3
            && c == spec.sin.shape()
            && (c[0] == 1 || c[0] == x[0])
            && c[1] == x[1]
            && 2 * c[2] <= x[3];
        check::requires(fits, "rotary", x, c, "[batch, pos, head, d_head] and [batch or 1, pos, rotary_dim / 2]");
        self.device().backend().rotary(self, spec, inverse)
    }

    // ---- indices ------------------------------------------------------------------------

    /// Rows `ids` of the table `self` `[row, width]`: `[ids.., width]`.
    ///
    /// # Panics
    /// If an id is not a row.
    #[track_caller]
    pub fn embed(&self, ids: &IndexTensor) -> Tensor {
        assert!(self.ndim() == 2, "embed: the table must be [row, width], not {:?}", self.shape());
        check_ids("embed", ids, self.dim(0));
        let mut shape = ids.shape().to_vec();
        shape.push(self.dim(1));
        check::result("embed", self.shape(), ids.shape(), &shape);
        self.device().backend().embed(self, ids).reshape(&shape)
    }

    /// Gradient of [`Tensor::embed`] for a table of `rows` rows: `self` `[ids.., width]` summed
    /// by id, in the order of the ids.
    #[track_caller]
    pub fn embed_grad(&self, ids: &IndexTensor, rows: usize) -> Tensor {
        check_ids("embed_grad", ids, rows);
        self.device().backend().embed_grad(self, ids, rows)
    }

    /// Minus the log-probability of `targets [..]` under logits `self` `[.., vocab]`: `[..]`.
    #[track_caller]
    pub fn cross_entropy(&self, targets: &IndexTensor) -> Tensor {
        let n = self.ndim();
        check::requires(
            n >= 1 && self.shape()[..n - 1] == *targets.shape(),
            "cross_entropy",
            self.shape(),
            targets.shape(),
            "one target per row of logits",
        );
        check_ids("cross_entropy", targets, self.shape()[n - 1]);
        self.device().backend().cross_entropy(self, targets)
    }

    /// Gradient of [`Tensor::cross_entropy`] at logits `self`, given the gradient of each row.
    pub fn cross_entropy_grad(&self, targets: &IndexTensor, drow: &Tensor) -> Tensor {
        self.device().backend().cross_entropy_grad(self, targets, drow)
    }

    // ---- joining ------------------------------------------------------------------------

    /// Tensors side by side along `axis`; no copy if they already lie so in one memory.
    ///
    /// # Panics
    /// If there are none, or they differ on another axis.
    #[track_caller]
    pub fn cat(parts: &[Tensor], axis: usize) -> Tensor {
        let first = parts.first().expect("cat needs at least one tensor");
        check::axis(first.shape(), axis);
        for p in &parts[1..] {
            check::same_place("cat", first, p);
            let fits = p.ndim() == first.ndim() && (0..p.ndim()).all(|a| a == axis || p.shape()[a] == first.shape()[a]);
            check::requires(fits, "cat", first.shape(), p.shape(), "all other axes must be equal");
        }
        if let Some(whole) = adjacent(parts, axis) {
            return whole;
        }
        first.device().backend().cat(parts, axis)
    }

    /// Tensors of one shape along a new axis `axis`.
    #[track_caller]
    pub fn stack(parts: &[Tensor], axis: usize) -> Tensor {
        let parts: Vec<Tensor> = parts.iter().map(|p| p.unsqueeze(axis)).collect();
        Tensor::cat(&parts, axis)
    }

    // ---- training -----------------------------------------------------------------------

    /// One AdamW step on this parameter, in place; `m` and `v` are its moments. The gradient is
    /// multiplied by `grad_scale`, one number on the same device, first (clipping).
    #[track_caller]
    pub fn adamw(&mut self, grad: &Tensor, grad_scale: &Tensor, m: &mut Tensor, v: &mut Tensor, step: &AdamWStep) {
        check::same_place("adamw", self, grad);
        for t in [grad, m, v] {
            check::same_shape("adamw", self.shape(), t.shape());
        }
        for t in [&mut *self, &mut *m, &mut *v] {
            t.make_writable();
        }
        self.device().backend().adamw(self, grad, grad_scale, m, v, step);
    }
}

/// Queries and keys whose scores make a tensor.
#[track_caller]
fn check_heads(op: &str, q: &Tensor, k: &Tensor) {
    let (a, b) = (q.shape(), k.shape());
    let fits = a.len() == 4 && b.len() == 4 && a[0] == b[0] && a[3] == b[3] && a[2] % b[2].max(1) == 0;
    check::requires(fits, op, a, b, "[batch, query, head, d_head] and [batch, key, kv_head, d_head]");
    check::result(op, a, b, &[a[0], a[2], a[1], b[1]]);
}

#[track_caller]
fn check_ids(op: &str, ids: &IndexTensor, rows: usize) {
    if let Some(bad) = ids.as_slice().iter().find(|&&i| i as usize >= rows) {
        panic!("{op}: index {bad} does not exist in a table of {rows} rows");
    }
}

/// The tensor of which `parts` are the consecutive pieces along `axis`, if they are.
fn adjacent(parts: &[Tensor], axis: usize) -> Option<Tensor> {
    let first = &parts[0];
    let mut len = 0;
    for p in parts {
        let follows = p.shares_memory(first)
            && p.layout().strides() == first.layout().strides()
            && p.layout().offset() == first.layout().offset() + len * first.layout().strides()[axis];
        if !follows {
            return None;
        }
        len += p.shape()[axis];
    }
    let mut shape = first.shape().to_vec();
    shape[axis] = len;
    let layout = crate::Layout::strided(shape, first.layout().strides().to_vec(), first.layout().offset());
    Some(first.with_layout(layout))
}

macro_rules! operator {
    ($trait:ident, $method:ident, $op:expr, |$x:ident| $scalar:expr) => {
        impl $trait<&Tensor> for &Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                self.binary($op, other)
            }
        }
        impl $trait<Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: Tensor) -> Tensor {
                self.binary($op, &other)
            }
        }
        impl $trait<&Tensor> for Tensor {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, other: &Tensor) -> Tensor {
                self.binary($op, other)
            }
        }
        impl $trait<f64> for &Tensor {
            type Output = Tensor;
            fn $method(self, $x: f64) -> Tensor {
                self.unary($scalar)
            }
        }
        impl $trait<f64> for Tensor {
            type Output = Tensor;
            fn $method(self, $x: f64) -> Tensor {
                self.into_unary($scalar)
            }
        }
    };
}
operator!(Add, add, BinaryOp::Add, |x| UnaryOp::Affine { scale: 1.0, shift: x });
operator!(Sub, sub, BinaryOp::Sub, |x| UnaryOp::Affine { scale: 1.0, shift: -x });
operator!(Mul, mul, BinaryOp::Mul, |x| UnaryOp::Affine { scale: x, shift: 0.0 });
operator!(Div, div, BinaryOp::Div, |x| UnaryOp::Affine { scale: 1.0 / x, shift: 0.0 });

impl Neg for &Tensor {
    type Output = Tensor;
    fn neg(self) -> Tensor {
        self.unary(UnaryOp::Neg)
    }
}

impl Tensor {
    /// The largest absolute difference to `other`, and whether non-finite elements are of the
    /// same kind at the same places.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn max_abs_diff(&self, other: &Tensor) -> (f64, bool) {
        check::same_shape("max_abs_diff", self.shape(), other.shape());
        let (a, b) = (self.to_vec_f64(), other.to_vec_f64());
        let mut worst = 0f64;
        let mut alike = true;
        for (x, y) in a.into_iter().zip(b) {
            if x.is_finite() && y.is_finite() {
                worst = worst.max((x - y).abs());
            } else {
                alike &= x == y || (x.is_nan() && y.is_nan());
            }
        }
        (worst, alike)
    }

    /// The identity matrix `[n, n]`.
    #[track_caller]
    pub fn eye(n: usize, dtype: DType, device: &crate::Device) -> Tensor {
        let mut values = vec![0.0; check::numel(&[n, n])];
        values.iter_mut().step_by(n + 1).for_each(|v| *v = 1.0);
        Tensor::from_vec(values, &[n, n], device).to_dtype(dtype)
    }
}
