//! The operations of [`Tensor`]: shapes are checked here, devices compute.

mod both;
pub(crate) mod create;
pub mod einops;
pub(crate) mod index;
mod linalg;
pub(crate) mod operators;
mod order;

use crate::backend::{AdamWStep, AttentionSpec, Backend, BinaryOp, ReduceOp, RotarySpec, UnaryOp};
use crate::check;
use crate::profile::{Bytes, Op};
use crate::{Axes, Axis, DType, Device, IndexTensor, Tensor};

impl Tensor {
    /// Asks this tensor's device for the op `name` on these operands, which were checked.
    pub(crate) fn on<'a, R: Bytes>(
        &self,
        name: &'static str,
        operands: impl IntoIterator<Item = &'a Tensor>,
        ask: impl FnOnce(&dyn Backend) -> R,
    ) -> R {
        Op::new(name, operands).on(&self.device(), ask)
    }

    // ---- elementwise --------------------------------------------------------------------

    /// `op` of every element.
    #[track_caller]
    pub fn unary(&self, op: UnaryOp) -> Tensor {
        self.clone().into_unary(op)
    }

    /// `op` of every element, in this tensor's own memory if nobody else holds it.
    #[track_caller]
    pub fn into_unary(self, op: UnaryOp) -> Tensor {
        check::computes(op.name(), &self);
        Op::new(op.name(), [&self]).on(&self.device(), |b| b.unary(op, self))
    }

    /// `dy * op'(self)`, in the memory of `dy` if nobody else holds it.
    #[track_caller]
    pub fn unary_grad(&self, op: UnaryOp, dy: Tensor) -> Tensor {
        let name = op.grad_name();
        check::alike(name, self, "dy", &dy);
        Op::new(name, [self, &dy]).on(&self.device(), |b| b.unary_grad(op, self, dy))
    }

    /// `op` of two tensors, which broadcast by numpy's rules.
    #[track_caller]
    pub fn binary(&self, op: BinaryOp, other: &Tensor) -> Tensor {
        let name = op.name();
        check::same_place(name, self, other);
        let shape = check::broadcast(name, self.shape(), other.shape());
        self.on(name, [self, other], |b| b.binary(op, self, other, &shape))
    }

    /// Adds `other`, of the same shape, in place (copies first if the memory is shared).
    #[track_caller]
    pub fn add_assign(&mut self, other: &Tensor) {
        let op = "add_assign";
        check::alike(op, self, "other", other);
        self.make_writable();
        Op::new(op, [&*self, other]).moves(self).on(&self.device(), |b| b.add_assign(self, other));
    }

    /// `self + other`, of the same shape, in the memory of whichever nobody else holds.
    #[track_caller]
    pub fn into_sum(mut self, mut other: Tensor) -> Tensor {
        check::alike("into_sum", &self, "other", &other);
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

    // ---- reductions ---------------------------------------------------------------------

    /// Over `axes` that were checked.
    #[track_caller]
    fn reduce(&self, op: ReduceOp, axes: &[usize], keepdim: bool) -> Tensor {
        check::computes(op.name(), self);
        let shape = self.kept_shape(axes);
        let out = if self.numel() > 0 {
            self.on(op.name(), [self], |b| b.reduce(op, self, axes))
        } else {
            match op {
                ReduceOp::Sum => {}
                ReduceOp::Max => check::not_of_nothing(op.name(), self.shape(), &shape),
            }
            self.zeros_of(&shape)
        };
        if keepdim {
            return out;
        }
        let shape: Vec<usize> = (0..self.ndim()).filter(|a| !axes.contains(a)).map(|a| self.shape()[a]).collect();
        out.reshape(&shape)
    }

    /// 0s beside this tensor: what an op gives that has nothing to work on.
    fn zeros_of(&self, shape: &[usize]) -> Tensor {
        Tensor::zeros(shape, self.dtype(), &self.device())
    }

    /// Sum over `axes`, which go.
    #[track_caller]
    pub fn sum(&self, axes: impl Axes) -> Tensor {
        self.reduce(ReduceOp::Sum, &axes.of(self.shape()), false)
    }

    /// Sum over `axes`, which stay with length 1.
    #[track_caller]
    pub fn sum_keepdim(&self, axes: impl Axes) -> Tensor {
        self.reduce(ReduceOp::Sum, &axes.of(self.shape()), true)
    }

    /// Mean over `axes`, which go; NaN where there is nothing.
    #[track_caller]
    pub fn mean(&self, axes: impl Axes) -> Tensor {
        let axes = axes.of(self.shape());
        let n: usize = axes.iter().map(|&a| self.shape()[a]).product();
        self.sum(&axes).into_unary(UnaryOp::Affine { scale: 1.0 / n as f64, shift: 0.0 })
    }

    /// Largest element over `axes`, which go.
    ///
    /// # Panics
    /// If there is nothing to be the largest.
    #[track_caller]
    pub fn max(&self, axes: impl Axes) -> Tensor {
        self.reduce(ReduceOp::Max, &axes.of(self.shape()), false)
    }

    /// Sum of all elements, shape `[]`.
    #[track_caller]
    pub fn sum_all(&self) -> Tensor {
        self.sum(&(0..self.ndim()).collect::<Vec<_>>())
    }

    /// Mean of all elements, shape `[]`.
    #[track_caller]
    pub fn mean_all(&self) -> Tensor {
        self.mean(&(0..self.ndim()).collect::<Vec<_>>())
    }

    /// Sum of the squares of all elements.
    #[track_caller]
    pub fn sum_squares(&self) -> f64 {
        self.sum_squares_on_device().item()
    }

    /// Sum of the squares of all elements, one number that stays on the device (`f64` on the CPU).
    #[track_caller]
    pub fn sum_squares_on_device(&self) -> Tensor {
        let op = "sum_squares";
        check::computes(op, self);
        if self.numel() == 0 {
            let dtype = if self.device() == Device::Cpu { DType::F64 } else { self.dtype() };
            return Tensor::scalar(0.0, dtype, &self.device());
        }
        self.on(op, [self], |b| b.sum_squares(self))
    }

    /// Euclidean norm of all elements.
    #[track_caller]
    pub fn norm(&self) -> f64 {
        self.sum_squares().sqrt()
    }

    /// Whether no element is infinite or NaN.
    #[track_caller]
    pub fn all_finite(&self) -> bool {
        let op = "all_finite";
        check::computes(op, self);
        self.numel() == 0 || self.on(op, [self], |b| b.all_finite(self))
    }

    /// Summed down to `shape`, from which this tensor was broadcast.
    #[track_caller]
    pub fn sum_to(&self, shape: &[usize]) -> Tensor {
        if self.shape() == shape {
            return self.clone();
        }
        check::sum_to(self.shape(), shape);
        let extra = self.ndim() - shape.len();
        let axes: Vec<usize> =
            (0..self.ndim()).filter(|&a| a < extra || (shape[a - extra] == 1 && self.shape()[a] != 1)).collect();
        self.sum_keepdim(&axes).reshape(shape)
    }

    // ---- products -----------------------------------------------------------------------

    /// [`Tensor::matmul`] of what has two axes at least.
    #[track_caller]
    pub(crate) fn product(&self, other: &Tensor) -> Tensor {
        let op = "matmul";
        check::factors(op, self, other);
        let shape = check::product(op, self.shape(), other.shape());
        if self.numel() == 0 || other.numel() == 0 {
            return self.zeros_of(&shape);
        }
        let flops = 2.0 * (shape.iter().product::<usize>() * self.dim(-1)) as f64;
        Op::new(op, [self, other]).flops(flops).on(&self.device(), |b| b.matmul(self, other, &shape))
    }

    /// `self @ w + bias + residual`: `self` is `[.., in]`, `w` `[in, out]`, `bias` `[out]`,
    /// `residual` and the result `[.., out]`. The sums are taken in this order. `w` may be stored in 16 bits
    /// ([`DType`]) beside `f32`.
    #[track_caller]
    pub fn linear(&self, w: &Tensor, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Tensor {
        let op = "linear";
        check::factors(op, self, w);
        let (x, n) = (self.shape(), self.ndim());
        let fits = n >= 1 && w.ndim() == 2 && x[n - 1] == w.dim(0);
        check::requires(fits, op, x, w.shape(), "the input's last axis must equal the weight's first");
        let mut shape = x.to_vec();
        shape[n - 1] = w.dim(1);
        check::result(op, x, w.shape(), &shape);
        if let Some(b) = bias {
            check::operand(op, &[self, w], "bias", b, &[w.dim(1)]);
        }
        if let Some(r) = residual {
            check::operand(op, &[self, w], "residual", r, &shape);
        }
        if self.numel() == 0 || w.numel() == 0 {
            let product = self.zeros_of(&shape);
            let biased = bias.map_or(product.clone(), |b| product + b);
            return residual.map_or(biased.clone(), |r| r + &biased);
        }
        let rows: usize = x[..n - 1].iter().product();
        let residual = residual.map(|r| r.reshape(&[rows, w.dim(1)]));
        let x = self.reshape(&[rows, w.dim(0)]);
        let residual = residual.as_ref();
        let operands = [Some(&x), Some(w), bias, residual].into_iter().flatten();
        let asked = Op::new(op, operands).flops(2.0 * (x.numel() * w.dim(1)) as f64);
        asked.on(&self.device(), |b| b.linear(&x, w, bias, residual)).reshape(&shape)
    }

    // ---- rows: over the last axis -------------------------------------------------------

    /// Softmax over the last axis; a row of negative infinities gives 0 (as TransformerLens's
    /// attention does), not NaN.
    #[track_caller]
    pub fn softmax(&self) -> Tensor {
        let op = "softmax";
        check::row(op, self);
        self.on(op, [self], |b| b.softmax(self))
    }

    /// Gradient of [`Tensor::softmax`], of which `self` is the result.
    #[track_caller]
    pub fn softmax_grad(&self, dy: &Tensor) -> Tensor {
        let op = "softmax_grad";
        check::row(op, self);
        check::alike(op, self, "dy", dy);
        self.on(op, [self, dy], |b| b.softmax_grad(self, dy))
    }

    /// Logarithm of the softmax over the last axis.
    #[track_caller]
    pub fn log_softmax(&self) -> Tensor {
        let op = "log_softmax";
        check::row(op, self);
        self.on(op, [self], |b| b.log_softmax(self))
    }

    /// Gradient of [`Tensor::log_softmax`], of which `self` is the result.
    #[track_caller]
    pub fn log_softmax_grad(&self, dy: &Tensor) -> Tensor {
        let op = "log_softmax_grad";
        check::row(op, self);
        check::alike(op, self, "dy", dy);
        self.on(op, [self, dy], |b| b.log_softmax_grad(self, dy))
    }

    /// Minus the mean over the last axis.
    #[track_caller]
    pub fn center(&self) -> Tensor {
        let op = "center";
        check::row(op, self);
        self.on(op, [self], |b| b.center(self))
    }

    /// `sqrt(mean(x^2) + eps)` over the last axis, which stays with length 1.
    #[track_caller]
    pub fn rms(&self, eps: f64) -> Tensor {
        let op = "rms";
        check::row(op, self);
        if self.numel() == 0 {
            return self.scale_of_nothing();
        }
        self.on(op, [self], |b| b.rms(self, eps))
    }

    /// What [`Tensor::rms`] is of rows without elements, or of no rows: the root of a mean of nothing.
    fn scale_of_nothing(&self) -> Tensor {
        let mut shape = self.shape().to_vec();
        shape[self.ndim() - 1] = 1;
        Tensor::full(&shape, f64::NAN, self.dtype(), &self.device())
    }

    /// Gradient of [`Tensor::rms`] at `self`, of which `scale` is the result.
    #[track_caller]
    pub fn rms_grad(&self, scale: &Tensor, dscale: &Tensor) -> Tensor {
        let op = "rms_grad";
        check::row(op, self);
        check::per_row(op, self, "scale", scale);
        check::per_row(op, self, "dscale", dscale);
        self.on(op, [self], |b| b.rms_grad(self, scale, dscale))
    }

    /// `self / scale * w + b`: `scale` `[.., 1]`, `w` and `b` along the last axis.
    #[track_caller]
    pub fn scale_and_shift(&self, scale: &Tensor, w: Option<&Tensor>, b: Option<&Tensor>) -> Tensor {
        let op = "scale_and_shift";
        check::row(op, self);
        check::per_row(op, self, "scale", scale);
        for (name, vector) in [("w", w), ("b", b)] {
            if let Some(vector) = vector {
                check::vector(op, self, name, vector);
            }
        }
        self.on(op, [self], |device| device.scale_and_shift(self, scale, w, b))
    }

    /// Layer norm over the last axis, and the scale that it divided by: [`Tensor::center`], [`Tensor::rms`] and
    /// [`Tensor::scale_and_shift`] in one pass, bit for bit.
    #[track_caller]
    pub fn layer_norm(&self, eps: f64, w: Option<&Tensor>, b: Option<&Tensor>) -> (Tensor, Tensor) {
        self.normalised("layer_norm", true, eps, w, b)
    }

    /// RMS norm over the last axis, and the scale that it divided by: [`Tensor::layer_norm`] without its centring.
    #[track_caller]
    pub fn rms_norm(&self, eps: f64, w: Option<&Tensor>) -> (Tensor, Tensor) {
        self.normalised("rms_norm", false, eps, w, None)
    }

    #[track_caller]
    fn normalised(
        &self,
        op: &'static str,
        center: bool,
        eps: f64,
        w: Option<&Tensor>,
        b: Option<&Tensor>,
    ) -> (Tensor, Tensor) {
        check::row(op, self);
        for (name, vector) in [("w", w), ("b", b)] {
            if let Some(vector) = vector {
                check::vector(op, self, name, vector);
            }
        }
        if self.numel() == 0 {
            return (self.zeros_like(), self.scale_of_nothing());
        }
        self.on(op, [self], |device| device.norm(self, center, eps, w, b))
    }

    /// Gradients of [`Tensor::layer_norm`] at `self`: of the input, and of `w` and `b` if they are wanted.
    #[track_caller]
    pub fn layer_norm_grad(
        &self,
        scale: &Tensor,
        w: Option<&Tensor>,
        dy: &Tensor,
        want_affine: bool,
    ) -> (Tensor, Option<(Tensor, Tensor)>) {
        self.normalised_grad("layer_norm_grad", true, scale, w, dy, want_affine)
    }

    /// Gradients of [`Tensor::rms_norm`] at `self`: of the input, and of `w` if it is wanted.
    #[track_caller]
    pub fn rms_norm_grad(
        &self,
        scale: &Tensor,
        w: Option<&Tensor>,
        dy: &Tensor,
        want_w: bool,
    ) -> (Tensor, Option<Tensor>) {
        let (dx, affine) = self.normalised_grad("rms_norm_grad", false, scale, w, dy, want_w);
        (dx, affine.map(|(dw, _)| dw))
    }

    #[track_caller]
    fn normalised_grad(
        &self,
        op: &'static str,
        center: bool,
        scale: &Tensor,
        w: Option<&Tensor>,
        dy: &Tensor,
        want_affine: bool,
    ) -> (Tensor, Option<(Tensor, Tensor)>) {
        check::row(op, self);
        check::per_row(op, self, "scale", scale);
        check::alike(op, self, "dy", dy);
        if let Some(w) = w {
            check::vector(op, self, "w", w);
        }
        if self.numel() == 0 {
            let vector = || self.zeros_of(&self.shape()[self.ndim() - 1..]);
            return (self.zeros_like(), want_affine.then(|| (vector(), vector())));
        }
        self.on(op, [self, dy], |b| b.norm_grad(self, center, scale, w, dy, want_affine))
    }

    // ---- attention ----------------------------------------------------------------------

    /// Attention scores `[batch, head, query, key]` of queries `self` `[batch, query, head,
    /// d_head]` and `keys` `[batch, key, kv_head, d_head]`, negative infinity where hidden. With
    /// fewer key heads than query heads, neighbouring query heads share one.
    #[track_caller]
    pub fn attention_scores(&self, keys: &Tensor, spec: &AttentionSpec) -> Tensor {
        let op = "attention_scores";
        check::attention(op, self, keys, spec);
        let shape = [self.dim(0), self.dim(2), self.dim(1), keys.dim(1)];
        if shape.contains(&0) {
            return self.zeros_of(&shape);
        }
        let flops = attention_flops(self, keys.dim(1), 1);
        Op::new(op, [self, keys]).flops(flops).on(&self.device(), |b| b.attention_scores(self, keys, spec))
    }

    /// Gradients of [`Tensor::attention_scores`] for queries and keys.
    #[track_caller]
    pub fn attention_scores_grad(&self, keys: &Tensor, spec: &AttentionSpec, dscores: &Tensor) -> (Tensor, Tensor) {
        let op = "attention_scores_grad";
        check::attention(op, self, keys, spec);
        check::pattern(op, self, keys, "dscores", dscores);
        if dscores.numel() == 0 {
            return (self.zeros_like(), keys.zeros_like());
        }
        let flops = attention_flops(self, keys.dim(1), 2);
        Op::new(op, [self, keys, dscores])
            .flops(flops)
            .on(&self.device(), |b| b.attention_scores_grad(self, keys, spec, dscores))
    }

    /// Values `[batch, key, kv_head, d_head]` mixed by the pattern `self` `[batch, head, query,
    /// key]` to `[batch, query, head, d_head]`.
    #[track_caller]
    pub fn attention_values(&self, values: &Tensor) -> Tensor {
        let op = "attention_values";
        check::mix(op, self, values);
        if self.numel() == 0 {
            let [p, v] = [self.shape(), values.shape()];
            return self.zeros_of(&[p[0], p[2], p[1], v[3]]);
        }
        let flops = attention_flops(self, values.dim(3), 1);
        Op::new(op, [self, values]).flops(flops).on(&self.device(), |b| b.attention_values(self, values))
    }

    /// Gradients of [`Tensor::attention_values`] for pattern and values.
    #[track_caller]
    pub fn attention_values_grad(&self, values: &Tensor, dz: &Tensor) -> (Tensor, Tensor) {
        let op = "attention_values_grad";
        check::mix(op, self, values);
        let [p, v] = [self.shape(), values.shape()];
        check::operand(op, &[self, values], "dz", dz, &[p[0], p[2], p[1], v[3]]);
        if self.numel() == 0 {
            return (self.zeros_like(), values.zeros_like());
        }
        let flops = attention_flops(self, values.dim(3), 2);
        Op::new(op, [self, values, dz]).flops(flops).on(&self.device(), |b| b.attention_values_grad(self, values, dz))
    }

    /// Scores, softmax and mix in one kernel, bit for bit: z `[batch, query, head, d_head]`. On the CPU nothing of
    /// the pattern's size is kept.
    #[track_caller]
    pub fn attention(&self, keys: &Tensor, values: &Tensor, spec: &AttentionSpec) -> Tensor {
        self.attention_kept(keys, values, spec, false).0
    }

    /// As [`Tensor::attention`], with the pattern: `(z [batch, query, head, d_head], pattern [batch, head, query,
    /// key])`.
    #[track_caller]
    pub fn attention_with_pattern(&self, keys: &Tensor, values: &Tensor, spec: &AttentionSpec) -> (Tensor, Tensor) {
        let (z, pattern) = self.attention_kept(keys, values, spec, true);
        (z, pattern.expect("it was asked for"))
    }

    #[track_caller]
    fn attention_kept(
        &self,
        keys: &Tensor,
        values: &Tensor,
        spec: &AttentionSpec,
        with_pattern: bool,
    ) -> (Tensor, Option<Tensor>) {
        let op = "attention";
        check::attention(op, self, keys, spec);
        check::alike(op, keys, "values", values);
        let [q, k] = [self.shape(), keys.shape()];
        let pattern = [q[0], q[2], q[1], k[1]];
        if pattern.contains(&0) {
            return (self.zeros_like(), with_pattern.then(|| self.zeros_of(&pattern)));
        }
        let flops = attention_flops(self, keys.dim(1), 2);
        Op::new(op, [self, keys, values])
            .flops(flops)
            .on(&self.device(), |b| b.attention(self, keys, values, spec, with_pattern))
    }

    /// Gradients of [`Tensor::attention_with_pattern`]'s `z` for queries, keys and values, which lie side by
    /// side in one memory when they have one layout to share.
    #[track_caller]
    pub fn attention_grad(
        &self,
        keys: &Tensor,
        values: &Tensor,
        spec: &AttentionSpec,
        pattern: &Tensor,
        dz: &Tensor,
    ) -> (Tensor, Tensor, Tensor) {
        let op = "attention_grad";
        check::attention(op, self, keys, spec);
        check::alike(op, keys, "values", values);
        check::pattern(op, self, keys, "pattern", pattern);
        check::alike(op, self, "dz", dz);
        if pattern.numel() == 0 {
            return (self.zeros_like(), keys.zeros_like(), values.zeros_like());
        }
        let flops = attention_flops(self, keys.dim(1), 4);
        Op::new(op, [self, keys, values, pattern, dz])
            .flops(flops)
            .on(&self.device(), |b| b.attention_grad(self, keys, values, spec, pattern, dz))
    }

    /// Rotary embedding of `[batch, pos, head, d_head]`; `inverse` rotates back.
    #[track_caller]
    pub fn rotary(&self, spec: &RotarySpec, inverse: bool) -> Tensor {
        check::rotary(self, spec);
        if self.numel() == 0 {
            return self.zeros_like();
        }
        self.on("rotary", [self], |b| b.rotary(self, spec, inverse))
    }

    // ---- indices ------------------------------------------------------------------------

    /// Rows `ids` of the table `self` `[row, width]`: `[ids.., width]`; of a table in 16 bits ([`DType`]), in `f32`.
    ///
    /// # Panics
    /// If an id is not a row.
    #[track_caller]
    pub fn embed(&self, ids: &IndexTensor) -> Tensor {
        let op = "embed";
        check::table(op, self, ids);
        let mut shape = ids.shape().to_vec();
        shape.push(self.dim(1));
        check::result(op, self.shape(), ids.shape(), &shape);
        if shape.contains(&0) {
            let dtype = self.dtype().computed();
            return Tensor::zeros(&shape, dtype, &self.device());
        }
        Op::new(op, []).moves(ids).on(&self.device(), |b| b.embed(self, ids)).reshape(&shape)
    }

    /// Gradient of [`Tensor::embed`] for a table of `rows` rows: `self` `[ids.., width]` summed
    /// by id, in the order of the ids.
    #[track_caller]
    pub fn embed_grad(&self, ids: &IndexTensor, rows: usize) -> Tensor {
        let op = "embed_grad";
        check::row_per_id(op, self, ids, rows);
        if self.numel() == 0 {
            return self.zeros_of(&[rows, self.dim(self.ndim() - 1)]);
        }
        Op::new(op, [self]).moves(ids).on(&self.device(), |b| b.embed_grad(self, ids, rows))
    }

    /// Minus the log-probability of `targets [..]` under logits `self` `[.., vocab]`: `[..]`.
    #[track_caller]
    pub fn cross_entropy(&self, targets: &IndexTensor) -> Tensor {
        let op = "cross_entropy";
        check::id_per_row(op, self, targets);
        if self.numel() == 0 {
            return self.zeros_of(targets.shape());
        }
        Op::new(op, [self]).moves(targets).on(&self.device(), |b| b.cross_entropy(self, targets))
    }

    /// Gradient of [`Tensor::cross_entropy`] at logits `self`, given the gradient of each row.
    #[track_caller]
    pub fn cross_entropy_grad(&self, targets: &IndexTensor, drow: &Tensor) -> Tensor {
        let op = "cross_entropy_grad";
        check::id_per_row(op, self, targets);
        check::operand(op, &[self], "drow", drow, targets.shape());
        if self.numel() == 0 {
            return self.zeros_like();
        }
        Op::new(op, [self]).moves(targets).on(&self.device(), |b| b.cross_entropy_grad(self, targets, drow))
    }

    // ---- joining ------------------------------------------------------------------------

    /// Tensors side by side along `axis`; no copy if they already lie so in one memory.
    ///
    /// # Panics
    /// If there are none, or they differ on another axis.
    #[track_caller]
    pub fn cat(parts: &[Tensor], axis: impl Axis) -> Tensor {
        let (first, axis) = check::joinable(parts, axis);
        if let Some(whole) = adjacent(parts, axis) {
            return whole;
        }
        first.on("cat", parts, |b| b.cat(parts, axis))
    }

    /// Tensors of one shape along a new axis `axis`.
    #[track_caller]
    pub fn stack(parts: &[Tensor], axis: impl Axis) -> Tensor {
        let axis = check::stackable(parts, axis);
        let parts: Vec<Tensor> = parts.iter().map(|p| p.unsqueeze(axis)).collect();
        Tensor::cat(&parts, axis)
    }

    // ---- training -----------------------------------------------------------------------

    /// One AdamW step on this parameter, in place; `m` and `v` are its moments. The gradient is
    /// multiplied by `grad_scale`, one number on the same device, first (clipping); if that is not finite, nothing
    /// changes.
    #[track_caller]
    pub fn adamw(&mut self, grad: &Tensor, grad_scale: &Tensor, m: &mut Tensor, v: &mut Tensor, step: &AdamWStep) {
        let op = "adamw";
        check::alike(op, self, "grad", grad);
        check::alike(op, self, "m", m);
        check::alike(op, self, "v", v);
        check::same_device(op, self, grad_scale);
        check::shape(op, &[self], "grad_scale", grad_scale.shape(), &[]);
        for t in [&mut *self, &mut *m, &mut *v] {
            t.make_writable();
        }
        // It reads all four and writes all but the gradient, each of one shape.
        let asked = Op::new(op, [grad]).moves(&[&*self, m, v, self, m, v]);
        asked.on(&self.device(), |b| b.adamw(self, grad, grad_scale, m, v, step));
    }
}

/// Multiply-adds of `products` products of queries and keys (or of a pattern and values), times two.
fn attention_flops(x: &Tensor, width: usize, products: usize) -> f64 {
    2.0 * (x.numel() * width * products) as f64
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
}
