//! Elementwise ops, value and derivative side by side; copies and joins.

use std::marker::PhantomData;

use ndarray::{ArrayViewMutD, Axis, IxDyn, ShapeBuilder, Zip};

use super::elem::Elem;
use super::gather;
use super::parallel::{CHUNK, par_chunks, par_rows, par_zip};
use super::simd::simd;
use super::storage::Buffer;
use super::stored::Stored;
use crate::backend::{BinaryOp, UnaryOp};
use crate::{Layout, Tensor};

#[inline(always)]
fn constant<E: Elem>(x: f64) -> E {
    E::from_f64(x)
}

#[inline(always)]
fn sigmoid<E: Elem>(x: E) -> E {
    E::ONE / (E::ONE + (-x).exp())
}

/// Phi(x), the normal distribution function.
#[inline(always)]
fn normal_cdf<E: Elem>(x: E) -> E {
    constant::<E>(0.5) * (E::ONE + (x * constant::<E>(std::f64::consts::FRAC_1_SQRT_2)).erf())
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044_715;

#[inline(always)]
fn gelu_new_tanh<E: Elem>(x: E) -> E {
    let inner = (constant::<E>(GELU_CUBIC) * x * x).mul_add(x, x);
    (constant::<E>(SQRT_2_OVER_PI) * inner).tanh()
}

/// A function of one element.
trait Function<E>: Copy + Sync {
    /// Its value and its derivative at `x`. Callers use one of the two; the other is dead code
    /// that the compiler drops.
    fn at(self, x: E) -> (E, E);
}

/// A type for each function, with its parameters as fields. (Types and not closures: only a
/// method can be made to be inlined, without which [`simd!`] does not reach it.)
macro_rules! functions {
    ($($name:ident { $($parameter:ident),* } |$x:ident| $body:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $name<E> {
            $($parameter: E,)*
            element: PhantomData<E>,
        }
        impl<E: Elem> Function<E> for $name<E> {
            #[inline(always)]
            fn at(self, $x: E) -> (E, E) {
                let $name { $($parameter,)* element: PhantomData } = self;
                $body
            }
        }
    )*};
}

functions! {
    Neg {} |x| (-x, -E::ONE);
    Abs {} |x| {
        let sign = if x > E::ZERO { E::ONE } else { -E::ONE };
        (x.abs(), if x == E::ZERO { E::ZERO } else { sign })
    };
    Sign {} |x| {
        let sign = if x > E::ZERO { E::ONE } else { -E::ONE };
        // 0 and NaN are their own signs.
        (if x == E::ZERO || x.is_nan() { x } else { sign }, E::ZERO)
    };
    Exp {} |x| {
        let y = x.exp();
        (y, y)
    };
    Log {} |x| (x.ln(), E::ONE / x);
    Sqrt {} |x| {
        let y = x.sqrt();
        (y, constant::<E>(0.5) / y)
    };
    Recip {} |x| {
        let y = E::ONE / x;
        (y, -y * y)
    };
    Square {} |x| (x * x, x + x);
    Pow { p } |x| (x.powf(p), if p == E::ZERO { E::ZERO } else { p * x.powf(p - E::ONE) });
    Affine { scale, shift } |x| (x * scale + shift, scale);
    Clamp { min, max } |x| {
        // Comparisons that let NaN through.
        let y = if x < min { min } else { x };
        let y = if y > max { max } else { y };
        (y, if x < min || x > max { E::ZERO } else { E::ONE })
    };
    Sin {} |x| (x.sin(), x.cos());
    Cos {} |x| (x.cos(), -x.sin());
    Tanh {} |x| {
        let y = x.tanh();
        (y, E::ONE - y * y)
    };
    Sigmoid {} |x| {
        let y = sigmoid(x);
        (y, y * (E::ONE - y))
    };
    Relu {} |x| {
        // A comparison that lets NaN through.
        let on = x > E::ZERO || x.is_nan();
        (if on { x } else { E::ZERO }, if on { E::ONE } else { E::ZERO })
    };
    Gelu {} |x| {
        let cdf = normal_cdf(x);
        let pdf = constant::<E>(0.398_942_280_401_432_7) * (constant::<E>(-0.5) * x * x).exp();
        (x * cdf, x.mul_add(pdf, cdf))
    };
    GeluNew {} |x| {
        let t = gelu_new_tanh(x);
        let half = constant::<E>(0.5);
        let value = half * x * (E::ONE + t);
        let slope = constant::<E>(SQRT_2_OVER_PI) * (constant::<E>(3.0 * GELU_CUBIC) * x).mul_add(x, E::ONE);
        (value, half * (E::ONE + t) + half * x * (E::ONE - t * t) * slope)
    };
    Silu {} |x| {
        let s = sigmoid(x);
        (x * s, s * x.mul_add(E::ONE - s, E::ONE))
    };
    SoftCap { cap } |x| soft_cap(x, cap);
}

/// Evaluates `$body` with `$f` bound to the [`Function`] that `$op` names.
macro_rules! with_function {
    ($op:expr, $f:ident => $body:expr) => {
        with_function!(@ $op, $f, $body, [
            Neg, Abs, Sign, Exp, Log, Sqrt, Recip, Square, Sin, Cos, Tanh, Sigmoid, Relu, Gelu, GeluNew, Silu
        ])
    };
    (@ $op:expr, $f:ident, $body:expr, [$($plain:ident),*]) => {
        match $op {
            $(UnaryOp::$plain => {
                let $f = $plain { element: PhantomData };
                $body
            })*
            UnaryOp::Pow(p) => {
                let $f = Pow { p: constant(p), element: PhantomData };
                $body
            }
            UnaryOp::Affine { scale, shift } => {
                let $f = Affine { scale: constant(scale), shift: constant(shift), element: PhantomData };
                $body
            }
            UnaryOp::Clamp { min, max } => {
                let $f = Clamp { min: constant(min), max: constant(max), element: PhantomData };
                $body
            }
            UnaryOp::SoftCap(cap) => {
                let $f = SoftCap { cap: constant(cap), element: PhantomData };
                $body
            }
        }
    };
}

/// `cap tanh(x / cap)` and its derivative.
#[inline(always)]
pub(super) fn soft_cap<E: Elem>(x: E, cap: E) -> (E, E) {
    let t = (x / cap).tanh();
    (cap * t, E::ONE - t * t)
}

fn apply<E: Elem>(op: UnaryOp, x: &mut [E]) {
    with_function!(op, f => simd!(x.iter_mut().for_each(|v| *v = f.at(*v).0)))
}

fn apply_to<E: Elem>(op: UnaryOp, out: &mut [E], x: &[E]) {
    with_function!(op, f => simd!(out.iter_mut().zip(x).for_each(|(o, &v)| *o = f.at(v).0)))
}

fn apply_slope<E: Elem>(op: UnaryOp, dy: &mut [E], x: &[E]) {
    with_function!(op, f => simd!(dy.iter_mut().zip(x).for_each(|(d, &v)| *d *= f.at(v).1)))
}

pub(super) fn unary<E: Elem>(op: UnaryOp, mut x: Tensor) -> Tensor {
    if x.is_reusable() {
        par_chunks(x.slice_mut::<E>(), CHUNK, |_, chunk| apply(op, chunk));
        return x;
    }
    let x = x.contiguous();
    let mut out = Buffer::<E>::scratch(x.shape());
    par_zip(&mut out, x.slice::<E>(), |out, x| apply_to(op, out, x));
    Tensor::from_buffer(out, x.shape())
}

pub(super) fn unary_grad<E: Elem>(op: UnaryOp, x: &Tensor, mut dy: Tensor) -> Tensor {
    if !dy.is_reusable() {
        dy = gather::<E>(&dy);
    }
    let x = x.contiguous();
    par_zip(dy.slice_mut::<E>(), x.slice::<E>(), |dy, x| apply_slope(op, dy, x));
    dy
}

macro_rules! with_binary {
    ($op:expr, $E:ident, $f:ident => $body:expr) => {
        match $op {
            BinaryOp::Add => {
                let $f = |a: $E, b: $E| a + b;
                $body
            }
            BinaryOp::Sub => {
                let $f = |a: $E, b: $E| a - b;
                $body
            }
            BinaryOp::Mul => {
                let $f = |a: $E, b: $E| a * b;
                $body
            }
            BinaryOp::Div => {
                let $f = |a: $E, b: $E| a / b;
                $body
            }
            BinaryOp::Maximum | BinaryOp::Minimum | BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq | BinaryOp::Keep => {
                unreachable!("`choose` takes these")
            }
        }
    };
}

/// An operand without the axes along which it only repeats (stride 0).
fn unrepeated(x: &Tensor) -> Tensor {
    let repeated = |a: &usize| x.layout().strides()[*a] == 0 && x.shape()[*a] > 1;
    (0..x.ndim()).filter(repeated).fold(x.clone(), |x, a| x.narrow(a, 0, 1))
}

/// How an operand repeats over a contiguous result.
enum Repeat {
    /// The whole operand, over and over (an operand that lacks leading axes).
    Cycle(usize),
    /// Each element this many times in a row (an operand whose last axes have length 1).
    Each(usize),
}

fn repeat_of(x: &Tensor, shape: &[usize]) -> Option<Repeat> {
    if !x.is_contiguous() {
        return None;
    }
    let extra = shape.len() - x.ndim();
    let at = |i: usize| if i < extra { 1 } else { x.shape()[i - extra] };
    let same_from = (0..shape.len()).rev().take_while(|&i| at(i) == shape[i]).last().unwrap_or(shape.len());
    if (0..same_from).all(|i| at(i) == 1) {
        return Some(Repeat::Cycle(x.numel()));
    }
    let same_to = (0..shape.len()).take_while(|&i| at(i) == shape[i]).count();
    if (same_to..shape.len()).all(|i| at(i) == 1) {
        return Some(Repeat::Each(shape[same_to..].iter().product()));
    }
    None
}

/// The ops that choose or compare; `None` for arithmetic. They are no part of a training step, so one
/// loop each has to do, over operands that are copied if they repeat.
fn choose<E: Elem>(op: BinaryOp, a: &Tensor, b: &Tensor, shape: &[usize]) -> Option<Tensor> {
    let truth = |holds: bool| if holds { E::ONE } else { E::ZERO };
    Some(match op {
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div => return None,
        BinaryOp::Maximum => zip_with(a, b, shape, |a: E, b| if a > b || a.is_nan() { a } else { b }),
        BinaryOp::Minimum => zip_with(a, b, shape, |a: E, b| if a < b || a.is_nan() { a } else { b }),
        BinaryOp::Gt => zip_with(a, b, shape, |a, b| truth(a > b)),
        BinaryOp::Ge => zip_with(a, b, shape, |a, b| truth(a >= b)),
        BinaryOp::Eq => zip_with(a, b, shape, |a, b| truth(a == b)),
        BinaryOp::Keep => zip_with(a, b, shape, |a, b| if b != E::ZERO { a } else { E::ZERO }),
    })
}

fn zip_with<E: Elem>(a: &Tensor, b: &Tensor, shape: &[usize], f: impl Fn(E, E) -> E + Sync) -> Tensor {
    let [a, b] = [a, b].map(|x| x.expand(shape).contiguous());
    let mut out = Buffer::<E>::scratch(a.shape());
    let (a, b) = (a.slice::<E>(), b.slice::<E>());
    par_rows(&mut out, 1, |at, out| {
        out.iter_mut().zip(&a[at..]).zip(&b[at..]).for_each(|((o, &a), &b)| *o = f(a, b));
    });
    Tensor::from_buffer(out, shape)
}

pub(super) fn binary<E: Elem>(op: BinaryOp, a: &Tensor, b: &Tensor, shape: &[usize]) -> Tensor {
    if let Some(chosen) = choose::<E>(op, a, b, shape) {
        return chosen;
    }
    let mut out = Buffer::<E>::scratch(shape);
    if out.is_empty() {
        return Tensor::from_buffer(out, shape);
    }
    let (a, b) = (&unrepeated(a), &unrepeated(b));
    if a.shape() == shape
        && a.is_contiguous()
        && let Some(repeat) = repeat_of(b, shape)
    {
        binary_fast::<E>(op, &mut out, a.slice(), b.slice(), &repeat, false);
        return Tensor::from_buffer(out, shape);
    }
    if b.shape() == shape
        && b.is_contiguous()
        && let Some(repeat) = repeat_of(a, shape)
    {
        binary_fast::<E>(op, &mut out, b.slice(), a.slice(), &repeat, true);
        return Tensor::from_buffer(out, shape);
    }
    let (a, b) = (a.expand(shape), b.expand(shape));
    let mut view = ArrayViewMutD::from_shape(IxDyn(shape), &mut out).expect("the buffer has the shape's size");
    with_binary!(op, E, f => Zip::from(&mut view)
        .and(&a.array_view::<E>())
        .and(&b.array_view::<E>())
        .for_each(|o, &x, &y| *o = f(x, y)));
    Tensor::from_buffer(out, shape)
}

/// `out[i] = op(x[i], y[..])` where `y` repeats; `op(y, x)` if `swapped`.
fn binary_fast<E: Elem>(op: BinaryOp, out: &mut [E], x: &[E], y: &[E], repeat: &Repeat, swapped: bool) {
    macro_rules! run {
        ($f:ident) => {
            match *repeat {
                Repeat::Cycle(len) if len == out.len() => par_rows(out, 1, |at, o| {
                    let (x, y) = (&x[at..][..o.len()], &y[at..][..o.len()]);
                    simd!(o.iter_mut().zip(x).zip(y).for_each(|((o, &x), &y)| *o = $f(x, y)))
                }),
                Repeat::Cycle(1) => {
                    let y = y[0];
                    par_zip(out, x, |o, x| simd!(o.iter_mut().zip(x).for_each(|(o, &x)| *o = $f(x, y))))
                }
                Repeat::Cycle(len) => par_rows(out, len, |first, o| {
                    let x = &x[first * len..][..o.len()];
                    simd!({
                        for (o, x) in o.chunks_mut(len).zip(x.chunks(len)) {
                            o.iter_mut().zip(x).zip(y).for_each(|((o, &x), &y)| *o = $f(x, y));
                        }
                    })
                }),
                Repeat::Each(len) => par_rows(out, len, |first, o| {
                    let (x, y) = (&x[first * len..][..o.len()], &y[first..]);
                    simd!({
                        for ((o, x), &y) in o.chunks_mut(len).zip(x.chunks(len)).zip(y) {
                            o.iter_mut().zip(x).for_each(|(o, &x)| *o = $f(x, y));
                        }
                    })
                }),
            }
        };
    }
    with_binary!(op, E, f => if swapped {
        let g = |x: E, y: E| f(y, x);
        run!(g)
    } else {
        run!(f)
    })
}

pub(super) fn add_assign<E: Elem>(a: &mut Tensor, b: &Tensor) {
    if a.is_contiguous() && b.is_contiguous() {
        par_zip(a.slice_mut::<E>(), b.slice::<E>(), |a, b| simd!(a.iter_mut().zip(b).for_each(|(a, &b)| *a += b)));
        return;
    }
    let layout = a.layout().clone();
    view_mut::<E>(a.memory_mut(), &layout).zip_mut_with(&b.array_view::<E>(), |a, &b| *a += b);
}

pub(super) fn assign<E: Stored>(dst: &mut Tensor, region: &Layout, src: &Tensor) {
    let src = src.expand(region.shape());
    view_mut::<E>(dst.memory_mut(), region).assign(&src.array_view());
}

fn view_mut<'a, E: Stored>(memory: &'a mut [E], layout: &Layout) -> ArrayViewMutD<'a, E> {
    let shape = IxDyn(layout.shape()).strides(IxDyn(layout.strides()));
    ArrayViewMutD::from_shape(shape, &mut memory[layout.offset()..])
        .expect("what is written to was made to hold every element once")
}

/// Copies `x` in row-major order.
pub(super) fn copy<E: Stored>(out: &mut [E], x: &Tensor) {
    if x.is_contiguous() {
        return par_zip(out, x.slice(), |o, x| o.copy_from_slice(x));
    }
    // Runs of the last axis, if they are dense, are copied whole.
    let width = x.shape().last().copied().unwrap_or(1);
    let dense = x.layout().strides().last() == Some(&1);
    if dense && width >= 8 {
        let memory = x.memory::<E>();
        let rows = (CHUNK / width).max(1);
        let outer = Layout::strided(
            x.shape()[..x.ndim() - 1].to_vec(),
            x.layout().strides()[..x.ndim() - 1].to_vec(),
            x.layout().offset(),
        );
        par_chunks(out, rows * width, |task, chunk| {
            let mut at = Cursor::new(&outer, task * rows);
            for row in chunk.chunks_mut(width) {
                row.copy_from_slice(&memory[at.offset..at.offset + width]);
                at.advance();
            }
        });
        return;
    }
    ArrayViewMutD::from_shape(IxDyn(x.shape()), out).expect("the buffer has the tensor's size").assign(&x.array_view());
}

/// Walks the elements of a layout in row-major order.
struct Cursor<'a> {
    layout: &'a Layout,
    index: Vec<usize>,
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn new(layout: &'a Layout, start: usize) -> Self {
        let mut left = start;
        let mut index = vec![0; layout.ndim()];
        let mut offset = layout.offset();
        for a in (0..layout.ndim()).rev() {
            index[a] = left % layout.shape()[a];
            left /= layout.shape()[a];
            offset += index[a] * layout.strides()[a];
        }
        Cursor { layout, index, offset }
    }

    fn advance(&mut self) {
        for a in (0..self.index.len()).rev() {
            let (n, s) = (self.layout.shape()[a], self.layout.strides()[a]);
            self.index[a] += 1;
            self.offset += s;
            if self.index[a] < n {
                return;
            }
            self.offset -= n * s;
            self.index[a] = 0;
        }
    }
}

pub(super) fn cat<E: Stored>(parts: &[Tensor], axis: usize) -> Tensor {
    let mut shape = parts[0].shape().to_vec();
    shape[axis] = parts.iter().map(|p| p.shape()[axis]).sum();
    let mut out = Buffer::<E>::scratch(&shape);
    let mut view = ArrayViewMutD::from_shape(IxDyn(&shape), &mut out).expect("the buffer has the shape's size");
    let mut start = 0;
    for p in parts {
        let end = start + p.shape()[axis];
        view.slice_axis_mut(Axis(axis), (start..end).into()).assign(&p.array_view());
        start = end;
    }
    Tensor::from_buffer(out, &shape)
}
