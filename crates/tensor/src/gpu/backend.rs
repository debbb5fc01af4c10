//! [`Backend`] on a GPU: each op as one or a few dispatches.
//!
//! Operands that are not dense from the start of their memory are copied first, but for products
//! and broadcasting, which read any strides.

use std::sync::Arc;

use super::context::{Context, grid};
use super::kernels::{self, Kernel, Rows};
use super::matmul::{Epilogue, Product};
use super::memory::Memory;
use super::words::{AxisList, Words};
use crate::backend::{AdamWStep, AttentionSpec, Backend, BinaryOp, ReduceOp, RotarySpec, UnaryOp};
use crate::storage::Storage;
use crate::{DType, IndexTensor, Layout, Tensor};

/// A GPU's ops.
#[derive(Clone)]
pub(crate) struct Ops(pub Arc<Context>);

/// The memory of a GPU tensor.
///
/// # Panics
/// If it is not on a GPU.
pub(super) fn memory(x: &Tensor) -> &Arc<Memory> {
    match &x.storage {
        Storage::Gpu(m) => m,
        Storage::Cpu(_) => panic!("a tensor on the CPU among operands on the GPU"),
    }
}

/// Threads of kernels that run over elements, and of those that run over rows.
const PER_GROUP: usize = 256;
/// Elements that one thread reduces before another pass goes on.
const PIECE: usize = 256;
/// Elements that one thread sums at most.
const LONGEST_CHAIN: usize = 1024;

fn width_of(x: &Tensor) -> usize {
    x.shape().last().copied().unwrap_or(1)
}

/// The rows of a dense tensor.
fn rows_of(x: &Tensor) -> Rows {
    let width = width_of(x);
    Rows { rows: x.numel() / width.max(1), width }
}

impl Ops {
    pub(super) fn empty(&self, shape: &[usize]) -> Tensor {
        self.tensor(Memory::new(&self.0, shape, false), shape)
    }

    fn tensor(&self, memory: Memory, shape: &[usize]) -> Tensor {
        Tensor { storage: Storage::Gpu(Arc::new(memory)), layout: Layout::contiguous(shape) }
    }

    /// The same elements, densely from the start of their memory.
    pub(super) fn dense(&self, x: &Tensor) -> Tensor {
        if x.is_contiguous() && x.layout().offset() == 0 { x.clone() } else { self.contiguous(x) }
    }

    /// `a b`; `bias` is added to every row, the result to `residual`.
    fn product(
        &self,
        a: &Tensor,
        b: &Tensor,
        shape: &[usize],
        bias: Option<&Tensor>,
        residual: Option<&Tensor>,
    ) -> Tensor {
        let d = shape.len() - 2;
        // Three axes of the batch: more are joined (which may copy), fewer get ones before them.
        let joined = d.saturating_sub(2);
        let five = |x: &Tensor| {
            let matrix = [x.shape()[x.ndim() - 2], x.shape()[x.ndim() - 1]];
            let x = x.expand(&[&shape[..d], &matrix].concat());
            let mut batch = vec![shape[..joined].iter().product()];
            batch.extend([1, 1][..2 - (d - joined)].iter().chain(&shape[joined..d]));
            let all = [&batch[..], &matrix].concat();
            match x.layout().reshape(&all) {
                Some(layout) => x.with_layout(layout),
                None => self.contiguous(&x).reshape(&all),
            }
        };
        let out = self.empty(shape);
        let epilogue = match (bias, residual) {
            (None, None) => Epilogue::None,
            (Some(_), None) => Epilogue::Bias,
            (None, Some(_)) => Epilogue::Residual,
            (Some(_), Some(_)) => Epilogue::BiasResidual,
        };
        let extras = [bias, residual].into_iter().flatten().map(|x| self.dense(x)).collect();
        Product { a: five(a), b: five(b), out: five(&out), epilogue, extras, spec: None }.run(self);
        out
    }

    /// One kernel over `n` threads.
    fn each<W: Words>(&self, kernel: &Kernel<W>, op: &str, n: usize, reads: &[&Tensor], writes: &[&Tensor], words: &W) {
        let reads: Vec<&Memory> = reads.iter().map(|t| &**memory(t)).collect();
        let writes: Vec<&Memory> = writes.iter().map(|t| &**memory(t)).collect();
        self.0.dispatch(kernel, op, &reads, &writes, words, grid(n, PER_GROUP));
    }

    /// One kernel with a workgroup per row; `reads` are dense.
    fn rows<W: Words>(&self, kernel: &Kernel<W>, rows: usize, reads: &[&Memory], writes: &[&Tensor], words: &W) {
        let writes: Vec<&Memory> = writes.iter().map(|t| &**memory(t)).collect();
        self.0.dispatch(kernel, "", reads, &writes, words, grid(rows, 1));
    }

    /// A kernel from rows of `x` (and more that it reads) to rows of a tensor of the same shape.
    fn map_rows(&self, kernel: &Kernel<Rows>, x: &Tensor, more: &[&Tensor]) -> Tensor {
        let x = self.dense(x);
        let more: Vec<Tensor> = more.iter().map(|t| self.dense(t)).collect();
        let out = self.empty(x.shape());
        if x.numel() > 0 {
            let mut reads: Vec<&Memory> = vec![memory(&x)];
            reads.extend(more.iter().map(|t| &**memory(t)));
            let words = rows_of(&x);
            self.rows(kernel, words.rows, &reads, &[&out], &words);
        }
        out
    }

    fn ids(&self, ids: &[u32]) -> Memory {
        self.0.upload(ids, &[ids.len()])
    }
}

/// The value and the slope of an op at `x`, in WGSL, with parameters `p()` and `q()`.
fn unary_text(op: UnaryOp) -> (&'static str, &'static str) {
    match op {
        UnaryOp::Neg => ("-x", "-1.0"),
        UnaryOp::Abs => ("abs(x)", "select(sign(x), -1.0, is_nan(x))"),
        UnaryOp::Sign => ("select(sign(x), x, is_nan(x))", "0.0"),
        UnaryOp::Exp => ("exp_(x)", "exp_(x)"),
        UnaryOp::Log => ("log_(x)", "1.0 / x"),
        UnaryOp::Sqrt => ("sqrt(x)", "0.5 / sqrt(x)"),
        UnaryOp::Recip => ("1.0 / x", "-1.0 / (x * x)"),
        UnaryOp::Square => ("x * x", "x + x"),
        UnaryOp::Pow(_) => ("pow_(x, p())", "select(p() * pow_(x, p() - 1.0), 0.0, p() == 0.0)"),
        UnaryOp::Affine { .. } => ("x * p() + q()", "p()"),
        UnaryOp::Clamp { .. } => {
            // The upper limit goes last, as on the CPU: it holds where it is below the lower one.
            ("select(min(max(x, p()), q()), x, is_nan(x))", "select(1.0, 0.0, (x < p() || x > q()) && !is_nan(x))")
        }
        UnaryOp::Sin => ("sin_(x)", "cos_(x)"),
        UnaryOp::Cos => ("cos_(x)", "-sin_(x)"),
        UnaryOp::Tanh => ("tanh_(x)", "1.0 - tanh_(x) * tanh_(x)"),
        UnaryOp::Sigmoid => ("sigmoid_(x)", "sigmoid_(x) * (1.0 - sigmoid_(x))"),
        UnaryOp::Relu => ("select(0.0, x, x > 0.0 || is_nan(x))", "select(0.0, 1.0, x > 0.0 || is_nan(x))"),
        UnaryOp::Gelu => (
            "x * (0.5 * (1.0 + erf_(x * 0.70710678)))",
            "0.5 * (1.0 + erf_(x * 0.70710678)) + x * 0.39894228 * exp_(-0.5 * x * x)",
        ),
        UnaryOp::GeluNew => (
            "0.5 * x * (1.0 + tanh_(0.79788456 * (x + 0.044715 * x * x * x)))",
            "0.5 * (1.0 + tanh_(0.79788456 * (x + 0.044715 * x * x * x))) + 0.5 * x * (1.0 - \
             tanh_(0.79788456 * (x + 0.044715 * x * x * x)) * tanh_(0.79788456 * (x + 0.044715 * x * x * x))) * \
             0.79788456 * (1.0 + 0.134145 * x * x)",
        ),
        UnaryOp::Silu => ("x * sigmoid_(x)", "sigmoid_(x) * (1.0 + x * (1.0 - sigmoid_(x)))"),
        UnaryOp::SoftCap(_) => ("p() * tanh_(x / p())", "1.0 - tanh_(x / p()) * tanh_(x / p())"),
    }
}

fn unary_words(op: UnaryOp, count: usize) -> kernels::Unary {
    let (p, q) = match op {
        UnaryOp::Pow(p) | UnaryOp::SoftCap(p) => (p, 0.0),
        UnaryOp::Affine { scale, shift } => (scale, shift),
        UnaryOp::Clamp { min, max } => (min, max),
        UnaryOp::Neg
        | UnaryOp::Abs
        | UnaryOp::Sign
        | UnaryOp::Exp
        | UnaryOp::Log
        | UnaryOp::Sqrt
        | UnaryOp::Recip
        | UnaryOp::Square
        | UnaryOp::Sin
        | UnaryOp::Cos
        | UnaryOp::Tanh
        | UnaryOp::Sigmoid
        | UnaryOp::Relu
        | UnaryOp::Gelu
        | UnaryOp::GeluNew
        | UnaryOp::Silu => (0.0, 0.0),
    };
    kernels::Unary { count, p, q }
}

fn binary_text(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "a + b",
        BinaryOp::Sub => "a - b",
        BinaryOp::Mul => "a * b",
        BinaryOp::Div => "a / b",
        BinaryOp::Maximum => "select(select(select(b, a, a > b), b, is_nan(b)), a, is_nan(a))",
        BinaryOp::Minimum => "select(select(select(b, a, a < b), b, is_nan(b)), a, is_nan(a))",
        BinaryOp::Gt => "select(0.0, 1.0, a > b && ordered(a, b))",
        BinaryOp::Ge => "select(0.0, 1.0, a >= b && ordered(a, b))",
        BinaryOp::Eq => "select(0.0, 1.0, a == b && ordered(a, b))",
        BinaryOp::Keep => "select(0.0, a, bits_of(b) != 0u)",
    }
}

/// The next of a reduction, from the one so far and an element; NaN stays.
fn reduce_text(op: ReduceOp) -> &'static str {
    match op {
        ReduceOp::Sum => "acc + v",
        ReduceOp::Max => "select(select(max(acc, v), v, is_nan(v)), acc, is_nan(acc))",
    }
}

/// 1 for an element that is infinite or NaN.
const NOT_FINITE: &str = "select(0.0, 1.0, not_finite(x))";

/// `[outer, length, inner]` pieces of a reduction that wrote `[outer, pieces, inner]`.
pub(super) struct Reduction {
    pub outer: usize,
    pub length: usize,
    pub inner: usize,
}

impl Ops {
    /// Sums or maxima over the middle axis, in as many passes as it takes.
    pub(super) fn reduce_middle(&self, op: ReduceOp, x: Tensor, mut r: Reduction) -> Tensor {
        let text = reduce_text(op);
        let mut x = x;
        loop {
            // Few results of long sums leave most of the device idle; many are quick as they are, but for the rounding
            // of a long chain.
            let most = if r.outer * r.inner >= 4096 { LONGEST_CHAIN } else { PIECE };
            let piece = most.min(r.length);
            let pieces = r.length.div_ceil(piece);
            let out = self.empty(&[r.outer, pieces, r.inner]);
            let words = kernels::Reduce { outer: r.outer, along: r.length, inner: r.inner, piece, pieces };
            self.each(&kernels::REDUCE, text, out.numel(), &[&x], &[&out], &words);
            if pieces == 1 {
                return out;
            }
            (x, r.length) = (out, pieces);
        }
    }

    /// One kernel with a thread per element of `out`; `reads` are dense.
    pub(super) fn fill_by<W: Words>(&self, kernel: &Kernel<W>, reads: &[&Memory], out: &Tensor, words: &W) {
        self.0.dispatch(kernel, "", reads, &[memory(out)], words, grid(out.numel(), PER_GROUP));
    }
}

impl Backend for Ops {
    fn from_host(&self, values: Vec<f32>, shape: &[usize]) -> Tensor {
        self.tensor(self.0.upload(bytemuck::cast_slice(&values), shape), shape)
    }

    fn to_host(&self, x: &Tensor) -> Vec<f32> {
        let x = self.dense(x);
        self.0.read(memory(&x), x.numel()).into_iter().map(f32::from_bits).collect()
    }

    fn full(&self, shape: &[usize], value: f64, dtype: DType) -> Tensor {
        debug_assert!(dtype == DType::F32, "a GPU's tensors are f32");
        let out = self.empty(shape);
        self.fill_by(&kernels::FILL, &[], &out, &kernels::Fill { count: out.numel(), value });
        out
    }

    fn contiguous(&self, x: &Tensor) -> Tensor {
        let out = self.empty(x.shape());
        let l = x.layout();
        let (shape, [strides]) = AxisList::merged(l.shape(), [l.strides()]);
        let words = kernels::Contiguous { count: x.numel(), offset: l.offset(), shape, strides };
        self.fill_by(&kernels::CONTIGUOUS, &[memory(x)], &out, &words);
        out
    }

    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor {
        debug_assert!(dtype == DType::F32, "a GPU's tensors are f32");
        x.clone()
    }

    fn assign(&self, dst: &mut Tensor, region: &Layout, src: &Tensor) {
        let src = src.expand(region.shape());
        let (shape, [region_strides, src_strides]) =
            AxisList::merged(region.shape(), [region.strides(), src.layout().strides()]);
        let words = kernels::Assign {
            count: region.numel(),
            region_offset: region.offset(),
            src_offset: src.layout().offset(),
            shape,
            region_strides,
            src_strides,
        };
        self.each(&kernels::ASSIGN, "", words.count, &[&src], &[dst], &words);
    }

    fn cat(&self, parts: &[Tensor], axis: usize) -> Tensor {
        let mut shape = parts[0].shape().to_vec();
        shape[axis] = parts.iter().map(|p| p.shape()[axis]).sum();
        let mut out = self.empty(&shape);
        let mut start = 0;
        for p in parts {
            let len = p.shape()[axis];
            let region = out.layout().narrow(axis, start, len);
            self.assign(&mut out, &region, p);
            start += len;
        }
        out
    }

    fn unary(&self, op: UnaryOp, x: Tensor) -> Tensor {
        let x = self.dense(&x);
        let out = self.empty(x.shape());
        let words = unary_words(op, x.numel());
        self.each(&kernels::UNARY, unary_text(op).0, words.count, &[&x], &[&out], &words);
        out
    }

    fn unary_grad(&self, op: UnaryOp, x: &Tensor, dy: Tensor) -> Tensor {
        let (x, dy) = (self.dense(x), self.dense(&dy));
        let out = self.empty(x.shape());
        let words = unary_words(op, x.numel());
        self.each(&kernels::UNARY_GRAD, unary_text(op).1, words.count, &[&x, &dy], &[&out], &words);
        out
    }

    fn binary(&self, op: BinaryOp, a: &Tensor, b: &Tensor, shape: &[usize]) -> Tensor {
        let out = self.empty(shape);
        let (a, b) = (a.expand(shape), b.expand(shape));
        let (merged, [a_strides, b_strides]) = AxisList::merged(shape, [a.layout().strides(), b.layout().strides()]);
        let words = kernels::Binary {
            count: out.numel(),
            dense: kernels::DenseOperands { a_dense: a.is_contiguous(), b_dense: b.is_contiguous() },
            a_offset: a.layout().offset(),
            b_offset: b.layout().offset(),
            shape: merged,
            a_strides,
            b_strides,
        };
        self.each(&kernels::BINARY, binary_text(op), words.count, &[&a, &b], &[&out], &words);
        out
    }

    fn add_assign(&self, a: &mut Tensor, b: &Tensor) {
        *a = self.binary(BinaryOp::Add, a, b, a.shape());
    }

    fn reduce(&self, op: ReduceOp, x: &Tensor, axes: &[usize]) -> Tensor {
        let mut shape = x.shape().to_vec();
        axes.iter().for_each(|&a| shape[a] = 1);
        let length: usize = axes.iter().map(|&a| x.shape()[a]).product();
        // The reduced axes side by side: first of all, last of all, or moved to the end.
        let kept: Vec<usize> = (0..x.ndim()).filter(|a| !axes.contains(a)).collect();
        let leading = axes.iter().all(|a| *a < axes.len());
        let (x, outer, inner) = match leading && !kept.is_empty() {
            true => (x.clone(), 1, x.numel() / length),
            false => {
                let mut order = kept.clone();
                let mut sorted = axes.to_vec();
                sorted.sort_unstable();
                sorted.dedup();
                order.extend(sorted);
                (x.permute(&order), x.numel() / length, 1)
            }
        };
        self.reduce_middle(op, self.dense(&x), Reduction { outer, length, inner }).reshape(&shape)
    }

    fn argmax(&self, x: &Tensor) -> IndexTensor {
        let x = self.dense(x);
        let words = rows_of(&x);
        let out = self.empty(&[words.rows]);
        self.rows(&kernels::ARGMAX, words.rows, &[memory(&x)], &[&out], &words);
        IndexTensor::new(self.0.read(memory(&out), words.rows), &x.shape()[..x.ndim() - 1])
    }

    fn sum_squares(&self, x: &Tensor) -> Tensor {
        let squares = self.unary(UnaryOp::Square, x.clone());
        let all: Vec<usize> = (0..x.ndim()).collect();
        self.reduce(ReduceOp::Sum, &squares, &all).reshape(&[])
    }

    fn all_finite(&self, x: &Tensor) -> bool {
        let x = self.dense(x);
        let bad = self.empty(x.shape());
        let words = kernels::Unary { count: x.numel(), p: 0.0, q: 0.0 };
        self.each(&kernels::UNARY, NOT_FINITE, words.count, &[&x], &[&bad], &words);
        let all: Vec<usize> = (0..x.ndim()).collect();
        self.to_host(&self.reduce(ReduceOp::Sum, &bad, &all))[0] == 0.0
    }

    fn matmul(&self, a: &Tensor, b: &Tensor, shape: &[usize]) -> Tensor {
        self.product(a, b, shape, None, None)
    }

    fn linear(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Tensor {
        self.product(x, w, &[x.shape()[0], w.shape()[1]], bias, residual)
    }

    fn softmax(&self, x: &Tensor) -> Tensor {
        self.map_rows(&kernels::SOFTMAX, x, &[])
    }

    fn softmax_grad(&self, y: &Tensor, dy: &Tensor) -> Tensor {
        self.map_rows(&kernels::SOFTMAX_GRAD, y, &[dy])
    }

    fn log_softmax(&self, x: &Tensor) -> Tensor {
        self.map_rows(&kernels::LOG_SOFTMAX, x, &[])
    }

    fn log_softmax_grad(&self, y: &Tensor, dy: &Tensor) -> Tensor {
        self.map_rows(&kernels::LOG_SOFTMAX_GRAD, y, &[dy])
    }

    fn center(&self, x: &Tensor) -> Tensor {
        self.map_rows(&kernels::CENTER, x, &[])
    }

    fn rms(&self, x: &Tensor, eps: f64) -> Tensor {
        let x = self.dense(x);
        let (each, out) = (rows_of(&x), self.empty(&scale_shape(&x)));
        self.rows(&kernels::RMS, each.rows, &[memory(&x)], &[&out], &kernels::Rms { each, eps });
        out
    }

    fn rms_grad(&self, x: &Tensor, scale: &Tensor, dscale: &Tensor) -> Tensor {
        self.map_rows(&kernels::RMS_GRAD, x, &[scale, dscale])
    }

    fn scale_and_shift(&self, x: &Tensor, scale: &Tensor, w: Option<&Tensor>, b: Option<&Tensor>) -> Tensor {
        let (x, scale) = (self.dense(x), self.dense(scale));
        let [w_dense, b_dense] = [w, b].map(|t| t.map_or(scale.clone(), |t| self.dense(t)));
        let (each, out) = (rows_of(&x), self.empty(x.shape()));
        let reads = [memory(&x), memory(&scale), memory(&w_dense), memory(&b_dense)].map(|m| &**m);
        let words = kernels::ScaleAndShift { each, has_w: w.is_some(), has_b: b.is_some() };
        self.rows(&kernels::SCALE_AND_SHIFT, words.each.rows, &reads, &[&out], &words);
        out
    }

    fn norm(&self, x: &Tensor, center: bool, eps: f64, w: Option<&Tensor>, b: Option<&Tensor>) -> (Tensor, Tensor) {
        let x = self.dense(x);
        let [w_dense, b_dense] = [w, b].map(|t| t.map_or(x.clone(), |t| self.dense(t)));
        let (each, out, scale) = (rows_of(&x), self.empty(x.shape()), self.empty(&scale_shape(&x)));
        let reads = [memory(&x), memory(&w_dense), memory(&b_dense)].map(|m| &**m);
        let words = kernels::Norm { each, centred: center, eps, has_w: w.is_some(), has_b: b.is_some() };
        self.rows(&kernels::NORM, words.each.rows, &reads, &[&out, &scale], &words);
        (out, scale)
    }

    fn norm_grad(
        &self,
        x: &Tensor,
        center: bool,
        scale: &Tensor,
        w: Option<&Tensor>,
        dy: &Tensor,
        want_affine: bool,
    ) -> (Tensor, Option<(Tensor, Tensor)>) {
        let (x, scale, dy) = (self.dense(x), self.dense(scale), self.dense(dy));
        let w_dense = w.map_or(scale.clone(), |t| self.dense(t));
        let (dx, products) = (self.empty(x.shape()), self.empty(x.shape()));
        let reads = [memory(&x), memory(&scale), memory(&w_dense), memory(&dy)].map(|m| &**m);
        let words = kernels::NormGrad { each: rows_of(&x), centred: center, has_w: w.is_some() };
        let Rows { rows, width } = words.each;
        self.rows(&kernels::NORM_GRAD, rows, &reads, &[&dx, &products], &words);
        let columns = |t: Tensor| {
            let r = Reduction { outer: 1, length: rows, inner: width };
            self.reduce_middle(ReduceOp::Sum, t, r).reshape(&[width])
        };
        let affine = want_affine.then(|| (columns(products), columns(dy)));
        (dx, affine)
    }

    fn attention_scores(&self, q: &Tensor, k: &Tensor, spec: &AttentionSpec) -> Tensor {
        self.scores(q, k, spec)
    }

    fn attention_scores_grad(
        &self,
        q: &Tensor,
        k: &Tensor,
        spec: &AttentionSpec,
        dscores: &Tensor,
    ) -> (Tensor, Tensor) {
        self.scores_grad(q, k, spec, dscores)
    }

    fn attention_values(&self, pattern: &Tensor, v: &Tensor) -> Tensor {
        self.mix(pattern, v)
    }

    fn attention_values_grad(&self, pattern: &Tensor, v: &Tensor, dz: &Tensor) -> (Tensor, Tensor) {
        self.mix_grad(pattern, v, dz)
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        spec: &AttentionSpec,
        with_pattern: bool,
    ) -> (Tensor, Option<Tensor>) {
        let (z, pattern) = self.attend(q, k, v, spec);
        (z, with_pattern.then_some(pattern))
    }

    fn attention_grad(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        spec: &AttentionSpec,
        pattern: &Tensor,
        dz: &Tensor,
    ) -> (Tensor, Tensor, Tensor) {
        let (dp, dv) = self.mix_grad(pattern, v, dz);
        let ds = self.softmax_grad(pattern, &dp);
        let (dq, dk) = self.scores_grad(q, k, spec, &ds);
        (dq, dk, dv)
    }

    fn rotary(&self, x: &Tensor, spec: &RotarySpec, inverse: bool) -> Tensor {
        let (x, cos, sin) = (self.dense(x), self.dense(&spec.cos), self.dense(&spec.sin));
        let out = self.empty(x.shape());
        let s = x.shape();
        let words = kernels::Rotary {
            count: x.numel(),
            positions: s[1],
            heads: s[2],
            d_head: s[3],
            pairs: cos.shape()[2],
            interleaved: spec.interleaved,
            per_item: cos.shape()[0] > 1,
            inverse,
        };
        self.each(&kernels::ROTARY, "", words.count, &[&x, &cos, &sin], &[&out], &words);
        out
    }

    fn embed(&self, table: &Tensor, ids: &IndexTensor) -> Tensor {
        let table = self.dense(table);
        let width = width_of(&table);
        let out = self.empty(&[ids.numel(), width]);
        let ids = self.ids(ids.as_slice());
        self.fill_by(&kernels::EMBED, &[memory(&table), &ids], &out, &kernels::Embed { count: out.numel(), width });
        out
    }

    fn embed_grad(&self, dy: &Tensor, ids: &IndexTensor, rows: usize) -> Tensor {
        let dy = self.dense(dy);
        let width = width_of(&dy);
        // Positions by row, in order: the sum of a row is one thread's, and always the same.
        let mut start = vec![0u32; rows + 1];
        ids.as_slice().iter().for_each(|&id| start[id as usize + 1] += 1);
        for i in 0..rows {
            start[i + 1] += start[i];
        }
        let mut next = start.clone();
        let mut positions = vec![0u32; ids.numel().max(1)];
        for (position, &id) in ids.as_slice().iter().enumerate() {
            positions[next[id as usize] as usize] = position as u32;
            next[id as usize] += 1;
        }
        let out = self.empty(&[rows, width]);
        let (start, positions) = (self.ids(&start), self.ids(&positions));
        let words = kernels::Embed { count: out.numel(), width };
        self.fill_by(&kernels::EMBED_GRAD, &[memory(&dy), &start, &positions], &out, &words);
        out
    }

    fn cross_entropy(&self, logits: &Tensor, targets: &IndexTensor) -> Tensor {
        let logits = self.dense(logits);
        let (words, out) = (rows_of(&logits), self.empty(targets.shape()));
        let ids = self.ids(targets.as_slice());
        self.rows(&kernels::CROSS_ENTROPY, words.rows, &[memory(&logits), &ids], &[&out], &words);
        out
    }

    fn cross_entropy_grad(&self, logits: &Tensor, targets: &IndexTensor, drow: &Tensor) -> Tensor {
        let (logits, drow) = (self.dense(logits), self.dense(drow));
        let (words, out) = (rows_of(&logits), self.empty(logits.shape()));
        let ids = self.ids(targets.as_slice());
        let reads = [memory(&logits), &ids, memory(&drow)].map(|m| m as &Memory);
        self.rows(&kernels::CROSS_ENTROPY_GRAD, words.rows, &reads, &[&out], &words);
        out
    }

    fn adamw(
        &self,
        param: &mut Tensor,
        grad: &Tensor,
        grad_scale: &Tensor,
        m: &mut Tensor,
        v: &mut Tensor,
        step: &AdamWStep,
    ) {
        let (grad, grad_scale) = (self.dense(grad), self.dense(grad_scale));
        for t in [&mut *param, &mut *m, &mut *v] {
            *t = self.dense(t);
        }
        let (correction1, correction2) = step.corrections();
        let words = kernels::AdamW {
            count: grad.numel(),
            one_minus_beta1: 1.0 - step.beta1,
            beta2: step.beta2,
            one_minus_beta2: 1.0 - step.beta2,
            correction2_root: correction2.sqrt(),
            eps: step.eps,
            keep: 1.0 - step.lr * step.weight_decay,
            step_size: step.lr / correction1,
        };
        self.each(&kernels::ADAMW, "", words.count, &[&grad, &grad_scale], &[param, m, v], &words);
    }

    fn finish(&self) {
        self.0.finish();
    }
}

/// The shape of one number per row.
fn scale_shape(x: &Tensor) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = 1;
    }
    shape
}

/// Every op that is put into the kernel `name`; none if it has no place for one.
#[cfg(test)]
pub(super) fn ops_of(name: &str) -> Vec<&'static str> {
    match name {
        "unary" => UnaryOp::ALL.into_iter().map(|op| unary_text(op).0).chain([NOT_FINITE]).collect(),
        "unary_grad" => UnaryOp::ALL.into_iter().map(|op| unary_text(op).1).collect(),
        "binary" => BinaryOp::ALL.into_iter().map(binary_text).collect(),
        "reduce" => ReduceOp::ALL.into_iter().map(reduce_text).collect(),
        _ => Vec::new(),
    }
}
