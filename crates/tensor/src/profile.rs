//! Where the time goes: every op that a device computes, timed one by one.
//!
//! ```
//! use ironlens_tensor::{Device, Tensor, profile};
//! let x = Tensor::from_vec(vec![1.0; 64 * 64], &[64, 64], &Device::Cpu);
//! let (_, kernels) = profile::record(|| x.matmul(&x).softmax());
//! let names: Vec<&str> = kernels.iter().map(|k| k.name).collect();
//! assert_eq!(names, ["matmul", "softmax"]);
//! assert_eq!(kernels[0].flops, 2.0 * 64.0 * 64.0 * 64.0);
//! ```

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::backend::{AdamWStep, AttentionSpec, Backend, BinaryOp, ReduceOp, RotarySpec, UnaryOp};
use crate::{DType, IndexTensor, Layout, Tensor};

/// All calls of one op on operands of the same shapes.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The op.
    pub name: &'static str,
    /// Shapes of its operands.
    pub shapes: String,
    /// How often it ran.
    pub calls: u64,
    /// Time in it, without ops that it called.
    pub time: Duration,
    /// Floating-point operations of its matrix products (a multiply-add counts two), all calls.
    pub flops: f64,
    /// Bytes of its operands and results, all calls.
    pub bytes: f64,
}

/// Threads that record: ops look here first, so that nobody pays while nobody records.
static RECORDING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Record {
    kernels: Vec<Kernel>,
    /// Time spent in ops that the running ones called, innermost last.
    inner: Vec<Duration>,
}

/// Runs `f` and gives, with its result, the ops that this thread asked for meanwhile, longest
/// first. A GPU is waited for after each op, which it is not otherwise.
///
/// # Panics
/// If this thread records already.
pub fn record<R>(f: impl FnOnce() -> R) -> (R, Vec<Kernel>) {
    /// Ends the recording also if `f` panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            RECORDING.fetch_sub(1, Ordering::Relaxed);
            RECORD.take();
        }
    }
    let before = RECORD.replace(Some(Record::default()));
    assert!(before.is_none(), "profile::record within profile::record");
    RECORDING.fetch_add(1, Ordering::Relaxed);
    let end = End;
    let result = f();
    let mut kernels = RECORD.take().map(|r| r.kernels).unwrap_or_default();
    drop(end);
    kernels.sort_by_key(|k| std::cmp::Reverse(k.time));
    (result, kernels)
}

/// `backend`, with its ops timed if somebody records.
#[inline]
pub(crate) fn timed<'a>(backend: &'a dyn Backend, timed: &'a dyn Backend) -> &'a dyn Backend {
    if RECORDING.load(Ordering::Relaxed) == 0 { backend } else { timed }
}

/// A device whose ops are timed.
#[derive(Clone)]
pub(crate) struct Timed<B>(pub B);

/// What an op works on, for its entry in the record.
trait Operand {
    fn describe(&self, shapes: &mut String, bytes: &mut f64);
}

impl Operand for Tensor {
    fn describe(&self, shapes: &mut String, bytes: &mut f64) {
        shapes.push_str(&format!("{:?}", self.shape()));
        let repeats = |a: usize| self.layout().strides()[a] == 0;
        let stored: usize = (0..self.ndim()).filter(|&a| !repeats(a)).map(|a| self.shape()[a]).product();
        *bytes += (stored * self.dtype().size()) as f64;
    }
}

impl Operand for IndexTensor {
    fn describe(&self, _: &mut String, bytes: &mut f64) {
        *bytes += (self.numel() * size_of::<u32>()) as f64;
    }
}

impl<T: Operand> Operand for Option<T> {
    fn describe(&self, shapes: &mut String, bytes: &mut f64) {
        if let Some(x) = self {
            x.describe(shapes, bytes);
        }
    }
}

impl<T: Operand> Operand for &T {
    fn describe(&self, shapes: &mut String, bytes: &mut f64) {
        (**self).describe(shapes, bytes);
    }
}

impl<A: Operand, B: Operand> Operand for (A, B) {
    fn describe(&self, shapes: &mut String, bytes: &mut f64) {
        self.0.describe(shapes, bytes);
        self.1.describe(shapes, bytes);
    }
}

impl<A: Operand, B: Operand, C: Operand> Operand for (A, B, C) {
    fn describe(&self, shapes: &mut String, bytes: &mut f64) {
        (&self.0, &self.1).describe(shapes, bytes);
        self.2.describe(shapes, bytes);
    }
}

impl Operand for () {
    fn describe(&self, _: &mut String, _: &mut f64) {}
}

impl Operand for f64 {
    fn describe(&self, _: &mut String, _: &mut f64) {}
}

impl Operand for bool {
    fn describe(&self, _: &mut String, _: &mut f64) {}
}

/// Runs an op and adds it to the record.
fn span<R: Operand>(name: &'static str, flops: f64, operands: &[&dyn Operand], op: impl FnOnce() -> R) -> R {
    let (mut shapes, mut bytes) = (String::new(), 0.0);
    operands.iter().for_each(|x| x.describe(&mut shapes, &mut bytes));
    let with = |f: &mut dyn FnMut(&mut Record)| RECORD.with_borrow_mut(|r| r.as_mut().map(f));
    with(&mut |r| r.inner.push(Duration::ZERO));
    let start = Instant::now();
    let result = op();
    let whole = start.elapsed();
    result.describe(&mut String::new(), &mut bytes);
    with(&mut |r| {
        let inner = r.inner.pop().unwrap_or_default();
        if let Some(outer) = r.inner.last_mut() {
            *outer += whole;
        }
        let at = r.kernels.iter().position(|k| k.name == name && k.shapes == shapes).unwrap_or_else(|| {
            let (calls, time) = (0, Duration::ZERO);
            r.kernels.push(Kernel { name, shapes: std::mem::take(&mut shapes), calls, time, flops: 0.0, bytes: 0.0 });
            r.kernels.len() - 1
        });
        let kernel = &mut r.kernels[at];
        kernel.calls += 1;
        kernel.time += whole.saturating_sub(inner);
        kernel.flops += flops;
        kernel.bytes += bytes;
    });
    result
}

/// Multiply-adds of `products` products of queries and keys (or values), times two.
fn attention_flops(q: &Tensor, keys: usize, products: usize) -> f64 {
    2.0 * (q.numel() * keys * products) as f64
}

impl<B: Backend> Timed<B> {
    /// Runs an op to its end and adds it to the record.
    fn span<R: Operand>(&self, name: &'static str, flops: f64, operands: &[&dyn Operand], op: impl FnOnce() -> R) -> R {
        self.0.finish();
        span(name, flops, operands, || {
            let result = op();
            self.0.finish();
            result
        })
    }
}

impl<B: Backend> Backend for Timed<B> {
    fn full(&self, shape: &[usize], value: f64, dtype: DType) -> Tensor {
        self.span("full", 0.0, &[], || self.0.full(shape, value, dtype))
    }
    fn contiguous(&self, x: &Tensor) -> Tensor {
        self.span("copy", 0.0, &[x], || self.0.contiguous(x))
    }
    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor {
        self.span("cast", 0.0, &[x], || self.0.cast(x, dtype))
    }
    fn assign(&self, dst: &mut Tensor, region: &Layout, src: &Tensor) {
        self.span("assign", 0.0, &[src], || self.0.assign(dst, region, src))
    }
    fn cat(&self, parts: &[Tensor], axis: usize) -> Tensor {
        self.span("cat", 0.0, &parts.iter().map(|p| p as &dyn Operand).collect::<Vec<_>>(), || self.0.cat(parts, axis))
    }
    fn unary(&self, op: UnaryOp, x: Tensor) -> Tensor {
        self.span(op.name(), 0.0, &[&x.clone()], || self.0.unary(op, x))
    }
    fn unary_grad(&self, op: UnaryOp, x: &Tensor, dy: Tensor) -> Tensor {
        self.span(op.grad_name(), 0.0, &[x, x], || self.0.unary_grad(op, x, dy))
    }
    fn binary(&self, op: BinaryOp, a: &Tensor, b: &Tensor, shape: &[usize]) -> Tensor {
        self.span(op.name(), 0.0, &[a, b], || self.0.binary(op, a, b, shape))
    }
    fn add_assign(&self, a: &mut Tensor, b: &Tensor) {
        self.span("add_assign", 0.0, &[b, b, b], || self.0.add_assign(a, b))
    }
    fn reduce(&self, op: ReduceOp, x: &Tensor, axes: &[usize]) -> Tensor {
        self.span("reduce", 0.0, &[x], || self.0.reduce(op, x, axes))
    }
    fn argmax(&self, x: &Tensor) -> IndexTensor {
        self.span("argmax", 0.0, &[x], || self.0.argmax(x))
    }
    fn sum_squares(&self, x: &Tensor) -> Tensor {
        self.span("sum_squares", 0.0, &[x], || self.0.sum_squares(x))
    }
    fn all_finite(&self, x: &Tensor) -> bool {
        self.span("all_finite", 0.0, &[x], || self.0.all_finite(x))
    }
    fn matmul(&self, a: &Tensor, b: &Tensor, shape: &[usize]) -> Tensor {
        let flops = 2.0 * shape.iter().product::<usize>() as f64 * a.shape()[a.ndim() - 1] as f64;
        self.span("matmul", flops, &[a, b], || self.0.matmul(a, b, shape))
    }
    fn linear(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Tensor {
        let flops = 2.0 * (x.numel() * w.shape()[1]) as f64;
        self.span("linear", flops, &[x, w, &bias, &residual], || self.0.linear(x, w, bias, residual))
    }
    fn softmax(&self, x: &Tensor) -> Tensor {
        self.span("softmax", 0.0, &[x], || self.0.softmax(x))
    }
    fn softmax_grad(&self, y: &Tensor, dy: &Tensor) -> Tensor {
        self.span("softmax_grad", 0.0, &[y, dy], || self.0.softmax_grad(y, dy))
    }
    fn log_softmax(&self, x: &Tensor) -> Tensor {
        self.span("log_softmax", 0.0, &[x], || self.0.log_softmax(x))
    }
    fn log_softmax_grad(&self, y: &Tensor, dy: &Tensor) -> Tensor {
        self.span("log_softmax_grad", 0.0, &[y, dy], || self.0.log_softmax_grad(y, dy))
    }
    fn center(&self, x: &Tensor) -> Tensor {
        self.span("center", 0.0, &[x], || self.0.center(x))
    }
    fn rms(&self, x: &Tensor, eps: f64) -> Tensor {
        self.span("rms", 0.0, &[x], || self.0.rms(x, eps))
    }
    fn rms_grad(&self, x: &Tensor, scale: &Tensor, dscale: &Tensor) -> Tensor {
        self.span("rms_grad", 0.0, &[x], || self.0.rms_grad(x, scale, dscale))
    }
    fn scale_shift(&self, x: &Tensor, scale: &Tensor, w: Option<&Tensor>, b: Option<&Tensor>) -> Tensor {
        self.span("scale_shift", 0.0, &[x], || self.0.scale_shift(x, scale, w, b))
    }
    fn norm(&self, x: &Tensor, center: bool, eps: f64, w: Option<&Tensor>, b: Option<&Tensor>) -> (Tensor, Tensor) {
        self.span("norm", 0.0, &[x], || self.0.norm(x, center, eps, w, b))
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
        self.span("norm_grad", 0.0, &[x, dy], || self.0.norm_grad(x, center, scale, w, dy, want_affine))
    }
    fn attention_scores(&self, q: &Tensor, k: &Tensor, spec: &AttentionSpec) -> Tensor {
        let flops = attention_flops(q, k.shape()[1], 1);
        self.span("attention_scores", flops, &[q, k], || self.0.attention_scores(q, k, spec))
    }
    fn attention_scores_grad(
        &self,
        q: &Tensor,
        k: &Tensor,
        spec: &AttentionSpec,
        dscores: &Tensor,
    ) -> (Tensor, Tensor) {
        let flops = attention_flops(q, k.shape()[1], 2);
        self.span("attention_scores_grad", flops, &[q, k, dscores], || {
            self.0.attention_scores_grad(q, k, spec, dscores)
        })
    }
    fn attention_mix(&self, pattern: &Tensor, v: &Tensor) -> Tensor {
        let flops = attention_flops(pattern, v.shape()[3], 1);
        self.span("attention_mix", flops, &[pattern, v], || self.0.attention_mix(pattern, v))
    }
    fn attention_mix_grad(&self, pattern: &Tensor, v: &Tensor, dz: &Tensor) -> (Tensor, Tensor) {
        let flops = attention_flops(pattern, v.shape()[3], 2);
        self.span("attention_mix_grad", flops, &[pattern, v, dz], || self.0.attention_mix_grad(pattern, v, dz))
    }
    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, spec: &AttentionSpec) -> (Tensor, Tensor) {
        let flops = attention_flops(q, k.shape()[1], 2);
        self.span("attention", flops, &[q, k, v], || self.0.attention(q, k, v, spec))
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
        let flops = attention_flops(q, k.shape()[1], 4);
        self.span("attention_grad", flops, &[q, k, v, pattern, dz], || {
            self.0.attention_grad(q, k, v, spec, pattern, dz)
        })
    }
    fn rotary(&self, x: &Tensor, spec: &RotarySpec, inverse: bool) -> Tensor {
        self.span("rotary", 0.0, &[x], || self.0.rotary(x, spec, inverse))
    }
    fn embed(&self, table: &Tensor, ids: &IndexTensor) -> Tensor {
        self.span("embed", 0.0, &[ids], || self.0.embed(table, ids))
    }
    fn embed_grad(&self, dy: &Tensor, ids: &IndexTensor, rows: usize) -> Tensor {
        self.span("embed_grad", 0.0, &[dy, ids], || self.0.embed_grad(dy, ids, rows))
    }
    fn cross_entropy(&self, logits: &Tensor, targets: &IndexTensor) -> Tensor {
        self.span("cross_entropy", 0.0, &[logits, targets], || self.0.cross_entropy(logits, targets))
    }
    fn cross_entropy_grad(&self, logits: &Tensor, targets: &IndexTensor, drow: &Tensor) -> Tensor {
        self.span("cross_entropy_grad", 0.0, &[logits, targets], || self.0.cross_entropy_grad(logits, targets, drow))
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
        // Reads four tensors and writes three.
        let operands: [&dyn Operand; 7] = [grad, grad, grad, grad, grad, grad, grad];
        self.span("adamw", 0.0, &operands, || self.0.adamw(param, grad, grad_scale, m, v, step))
    }
    fn finish(&self) {
        self.0.finish();
    }
}
