//! The CPU: ndarray layouts, rayon threads, faer products, loops that vectorise.
//!
//! Work is cut into pieces whose size depends on the data alone, and sums run in a fixed order,
//! so results are the same bits for any number of threads (on macOS where Apple's products are not used).

#[cfg(target_os = "macos")]
mod accelerate;
mod attention;
pub(crate) mod elem;
mod elementwise;
mod few_rows;
mod index;
pub(crate) mod library;
mod matmul;
mod optim;
pub(crate) mod order;
mod parallel;
mod reduce;
mod rows;
mod simd;
pub(crate) mod storage;
pub(crate) mod stored;
mod team;

use crate::backend::{AdamWStep, AttentionSpec, Backend, BinaryOp, ReduceOp, RotarySpec, UnaryOp};
use crate::{DType, IndexTensor, Layout, Tensor};
use half::{bf16, f16};
use parallel::par_zip;
use storage::Buffer;
use stored::Stored;

/// The width of the last axis (1 for a scalar).
fn width_of(x: &Tensor) -> usize {
    x.shape().last().copied().unwrap_or(1).max(1)
}

fn gather<E: Stored>(x: &Tensor) -> Tensor {
    let mut out = Buffer::<E>::scratch(x.shape());
    elementwise::copy(&mut out, x);
    Tensor::from_buffer(out, x.shape())
}

/// The CPU device.
pub(crate) struct Cpu;

/// Public methods refuse types that are only stored.
const NOT_COMPUTED_IN: &str = "a kernel was given a type that is only stored";

/// Evaluates an expression with `$E` bound to the element type of a tensor, one that is computed in.
macro_rules! with_elem {
    ($tensor:expr, $E:ident => $body:expr) => {
        match $tensor.dtype() {
            DType::F32 => {
                type $E = f32;
                $body
            }
            DType::F64 => {
                type $E = f64;
                $body
            }
            DType::Bf16 | DType::F16 => unreachable!("{NOT_COMPUTED_IN}"),
        }
    };
}

/// Evaluates an expression with `$S` bound to an element type, any that memory holds.
macro_rules! with_stored {
    ($dtype:expr, $S:ident => $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $S = f32;
                $body
            }
            DType::F64 => {
                type $S = f64;
                $body
            }
            DType::Bf16 => {
                type $S = bf16;
                $body
            }
            DType::F16 => {
                type $S = f16;
                $body
            }
        }
    };
}

/// Evaluates an expression with `$W` bound to the element type of a tensor, and `$E` to the one that it is widened to.
macro_rules! with_widened {
    ($tensor:expr, $E:ident, $W:ident => $body:expr) => {
        match $tensor.dtype() {
            DType::F64 => {
                type $E = f64;
                type $W = f64;
                $body
            }
            DType::F32 => {
                type $E = f32;
                type $W = f32;
                $body
            }
            DType::Bf16 => {
                type $E = f32;
                type $W = bf16;
                $body
            }
            DType::F16 => {
                type $E = f32;
                type $W = f16;
                $body
            }
        }
    };
}

/// Each element rounded to another type.
fn converted<From: Stored, To: Stored>(x: &Tensor) -> Tensor {
    let mut out = Buffer::<To>::scratch(x.shape());
    par_zip(&mut out, x.slice::<From>(), |to, from| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = To::from_f64(from.to_f64()));
    });
    Tensor::from_buffer(out, x.shape())
}

/// Ops that are one call: `op(operands) -> result { of: module::kernel }` is that kernel for elements of `of`'s type.
macro_rules! by_element {
    ($($name:ident($($arg:ident: $kind:ty),*) $(-> $out:ty)? { $of:ident: $module:ident::$kernel:ident })*) => {$(
        fn $name(&self, $($arg: $kind),*) $(-> $out)? {
            with_elem!($of, E => $module::$kernel::<E>($($arg),*))
        }
    )*};
}

impl Backend for Cpu {
    fn from_host(&self, values: Vec<f32>, shape: &[usize]) -> Tensor {
        Tensor::from_buffer(Buffer::from(values), shape)
    }

    fn to_host(&self, x: &Tensor) -> Vec<f32> {
        x.contiguous().slice().to_vec()
    }

    fn full(&self, shape: &[usize], value: f64, dtype: DType) -> Tensor {
        with_stored!(dtype, S => Tensor::from_buffer(Buffer::full(shape, S::from_f64(value)), shape))
    }

    fn contiguous(&self, x: &Tensor) -> Tensor {
        with_stored!(x.dtype(), S => gather::<S>(x))
    }

    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor {
        let x = x.contiguous();
        with_stored!(x.dtype(), From => with_stored!(dtype, To => converted::<From, To>(&x)))
    }

    fn assign(&self, dst: &mut Tensor, region: &Layout, src: &Tensor) {
        with_stored!(dst.dtype(), S => elementwise::assign::<S>(dst, region, src))
    }

    fn cat(&self, parts: &[Tensor], axis: usize) -> Tensor {
        with_stored!(parts[0].dtype(), S => elementwise::cat::<S>(parts, axis))
    }

    fn sum_squares(&self, x: &Tensor) -> Tensor {
        Tensor::from_vec_f64(vec![with_elem!(x, E => reduce::sum_squares::<E>(x))], &[])
    }

    fn matmul(&self, a: &Tensor, b: &Tensor, shape: &[usize]) -> Tensor {
        with_widened!(b, E, W => matmul::matmul::<E, W>(a, b, shape))
    }

    fn linear(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Tensor {
        with_widened!(w, E, W => matmul::linear::<E, W>(x, w, bias, residual))
    }

    fn embed(&self, table: &Tensor, ids: &IndexTensor) -> Tensor {
        with_widened!(table, E, W => index::embed::<E, W>(table, ids))
    }

    by_element! {
        unary(op: UnaryOp, x: Tensor) -> Tensor { x: elementwise::unary }
        unary_grad(op: UnaryOp, x: &Tensor, dy: Tensor) -> Tensor { x: elementwise::unary_grad }
        binary(op: BinaryOp, a: &Tensor, b: &Tensor, shape: &[usize]) -> Tensor { a: elementwise::binary }
        add_assign(a: &mut Tensor, b: &Tensor) { a: elementwise::add_assign }
        reduce(op: ReduceOp, x: &Tensor, axes: &[usize]) -> Tensor { x: reduce::reduce }
        argmax(x: &Tensor) -> IndexTensor { x: reduce::argmax }
        all_finite(x: &Tensor) -> bool { x: reduce::all_finite }
        softmax(x: &Tensor) -> Tensor { x: rows::softmax }
        softmax_grad(y: &Tensor, dy: &Tensor) -> Tensor { y: rows::softmax_grad }
        log_softmax(x: &Tensor) -> Tensor { x: rows::log_softmax }
        log_softmax_grad(y: &Tensor, dy: &Tensor) -> Tensor { y: rows::log_softmax_grad }
        center(x: &Tensor) -> Tensor { x: rows::center }
        rms(x: &Tensor, eps: f64) -> Tensor { x: rows::rms }
        rms_grad(x: &Tensor, scale: &Tensor, dscale: &Tensor) -> Tensor { x: rows::rms_grad }
        scale_and_shift(x: &Tensor, scale: &Tensor, w: Option<&Tensor>, b: Option<&Tensor>) -> Tensor {
            x: rows::scale_and_shift
        }
        norm(x: &Tensor, center: bool, eps: f64, w: Option<&Tensor>, b: Option<&Tensor>) -> (Tensor, Tensor) {
            x: rows::norm
        }
        norm_grad(x: &Tensor, center: bool, scale: &Tensor, w: Option<&Tensor>, dy: &Tensor, want_affine: bool)
            -> (Tensor, Option<(Tensor, Tensor)>) { x: rows::norm_grad }
        attention_scores(q: &Tensor, k: &Tensor, spec: &AttentionSpec) -> Tensor { q: attention::scores }
        attention_scores_grad(q: &Tensor, k: &Tensor, spec: &AttentionSpec, dscores: &Tensor) -> (Tensor, Tensor) {
            q: attention::scores_grad
        }
        attention_values(pattern: &Tensor, v: &Tensor) -> Tensor { v: attention::mix }
        attention_values_grad(pattern: &Tensor, v: &Tensor, dz: &Tensor) -> (Tensor, Tensor) { v: attention::mix_grad }
        attention(q: &Tensor, k: &Tensor, v: &Tensor, spec: &AttentionSpec, with_pattern: bool)
            -> (Tensor, Option<Tensor>) {
            q: attention::attention
        }
        attention_grad(
            q: &Tensor, k: &Tensor, v: &Tensor, spec: &AttentionSpec, pattern: &Tensor, dz: &Tensor
        ) -> (Tensor, Tensor, Tensor) { q: attention::attention_grad }
        rotary(x: &Tensor, spec: &RotarySpec, inverse: bool) -> Tensor { x: index::rotary }
        embed_grad(dy: &Tensor, ids: &IndexTensor, rows: usize) -> Tensor { dy: index::embed_grad }
        cross_entropy(logits: &Tensor, targets: &IndexTensor) -> Tensor { logits: index::cross_entropy }
        cross_entropy_grad(logits: &Tensor, targets: &IndexTensor, drow: &Tensor) -> Tensor {
            logits: index::cross_entropy_grad
        }
        adamw(
            param: &mut Tensor, grad: &Tensor, grad_scale: &Tensor, m: &mut Tensor, v: &mut Tensor, step: &AdamWStep
        ) { grad: optim::adamw }
    }

    /// Ops are done when they return.
    fn finish(&self) {}
}
