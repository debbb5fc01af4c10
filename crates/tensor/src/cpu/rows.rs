//! Functions of the last axis: softmax and the norms, whole and in parts.

use rayon::prelude::*;

use super::elem::Elem;
use super::parallel::{par_chunks, par_rows, rows_per_task};
use super::reduce::sum_in_order;
use super::simd::{map_lanes, max_of, simd, sum_map, sum_map2};
use super::storage::Buffer;
use super::width_of;
use crate::Tensor;

/// Rows whose gradients of weights and biases are summed by one task.
const ROW_BLOCK: usize = 64;

/// Maps rows of the tensor `$x` to rows of a new tensor of the same shape: `$body` is given the
/// number of the row, the row, and where to write. A macro, so that the body is compiled within
/// [`simd!`].
macro_rules! map_rows {
    ($E:ident, $x:expr, |$i:pat_param, $row:ident, $out:ident| $body:expr) => {{
        let x = $x.contiguous();
        let width = width_of(&x);
        let data = x.slice::<$E>();
        let mut result = Buffer::<$E>::scratch(x.shape());
        par_rows(&mut result, width, |first, rows| {
            simd!({
                for (i, $out) in rows.chunks_mut(width).enumerate() {
                    let ($i, $row) = (first + i, &data[(first + i) * width..][..width]);
                    $body
                }
            })
        });
        Tensor::from_buffer(result, x.shape())
    }};
}

/// Softmax of a row, in place; all zeros if it is nowhere finite.
#[inline(always)]
pub(super) fn softmax_row<E: Elem>(row: &mut [E]) {
    let max = max_of(row);
    if max == E::NEG_INFINITY {
        return row.fill(E::ZERO);
    }
    map_lanes(row, |v| (v - max).exp());
    let sum = sum_map(row, |v| v);
    row.iter_mut().for_each(|v| *v /= sum);
}

/// `dy <- y (dy - sum(dy y))`, the softmax's gradient.
#[inline(always)]
pub(super) fn softmax_grad_row<E: Elem>(y: &[E], dy: &mut [E]) {
    let dot = sum_map2(y, dy, |a, b| a * b);
    dy.iter_mut().zip(y).for_each(|(d, &y)| *d = y * (*d - dot));
}

pub(super) fn softmax<E: Elem>(x: &Tensor) -> Tensor {
    map_rows!(E, x, |_, x, out| {
        out.copy_from_slice(x);
        softmax_row(out);
    })
}

pub(super) fn softmax_grad<E: Elem>(y: &Tensor, dy: &Tensor) -> Tensor {
    let (y, width) = (y.contiguous(), width_of(y));
    let ys = y.slice::<E>();
    map_rows!(E, dy, |i, dy, out| {
        out.copy_from_slice(dy);
        softmax_grad_row(&ys[i * width..][..width], out);
    })
}

/// The logarithm of the sum of the exponentials of a row, as the row's maximum and the rest.
/// Logits are subtracted from the maximum first: near a loss of 0 their sum would round away
/// all of the rest, and with it the gradient.
#[inline(always)]
pub(super) fn log_sum_exp<E: Elem>(row: &[E]) -> (E, E) {
    let max = max_of(row);
    if max == E::NEG_INFINITY {
        return (max, E::ZERO);
    }
    (max, sum_map(row, |v| (v - max).exp()).ln())
}

pub(super) fn log_softmax<E: Elem>(x: &Tensor) -> Tensor {
    map_rows!(E, x, |_, x, out| {
        let (max, rest) = log_sum_exp(x);
        out.iter_mut().zip(x).for_each(|(o, &v)| *o = (v - max) - rest);
    })
}

pub(super) fn log_softmax_grad<E: Elem>(y: &Tensor, dy: &Tensor) -> Tensor {
    let (y, width) = (y.contiguous(), width_of(y));
    let ys = y.slice::<E>();
    map_rows!(E, dy, |i, dy, out| {
        let sum = sum_map(dy, |v| v);
        let y = &ys[i * width..][..width];
        out.iter_mut().zip(dy).zip(y).for_each(|((o, &d), &y)| *o = d - y.exp() * sum);
    })
}

#[inline(always)]
fn mean<E: Elem>(row: &[E]) -> E {
    sum_map(row, |v| v) / E::from_f64(row.len() as f64)
}

#[inline(always)]
fn center_row<E: Elem>(x: &[E], out: &mut [E]) {
    let mean = mean(x);
    out.iter_mut().zip(x).for_each(|(o, &v)| *o = v - mean);
}

#[inline(always)]
fn rms_row<E: Elem>(x: &[E], eps: E) -> E {
    (sum_map(x, |v| v * v) / E::from_f64(x.len() as f64) + eps).sqrt()
}

/// `row / scale * w + b` in place.
#[inline(always)]
fn scale_shift_row<E: Elem>(row: &mut [E], scale: E, w: Option<&[E]>, b: Option<&[E]>) {
    row.iter_mut().for_each(|v| *v /= scale);
    if let Some(w) = w {
        row.iter_mut().zip(w).for_each(|(v, &w)| *v *= w);
    }
    if let Some(b) = b {
        row.iter_mut().zip(b).for_each(|(v, &b)| *v += b);
    }
}

pub(super) fn center<E: Elem>(x: &Tensor) -> Tensor {
    map_rows!(E, x, |_, x, out| center_row(x, out))
}

/// The shape of one number per row.
fn scale_shape(x: &Tensor) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = 1;
    }
    shape
}

pub(super) fn rms<E: Elem>(x: &Tensor, eps: f64) -> Tensor {
    let shape = scale_shape(x);
    let x = x.contiguous();
    let width = width_of(&x);
    let data = x.slice::<E>();
    let mut out = Buffer::<E>::scratch(&[x.numel() / width]);
    let per_task = rows_per_task(width);
    par_chunks(&mut out, per_task, |task, out| {
        let x = &data[task * per_task * width..];
        simd!(out.iter_mut().zip(x.chunks(width)).for_each(|(o, x)| *o = rms_row(x, E::from_f64(eps))))
    });
    Tensor::from_buffer(out, &shape)
}

pub(super) fn rms_grad<E: Elem>(x: &Tensor, scale: &Tensor, dscale: &Tensor) -> Tensor {
    let (scale, dscale) = (scale.contiguous(), dscale.contiguous());
    let (s, ds) = (scale.slice::<E>(), dscale.slice::<E>());
    let n = E::from_f64(width_of(x) as f64);
    map_rows!(E, x, |i, x, out| {
        let factor = ds[i] / (n * s[i]);
        out.iter_mut().zip(x).for_each(|(o, &v)| *o = v * factor);
    })
}

pub(super) fn scale_and_shift<E: Elem>(x: &Tensor, scale: &Tensor, w: Option<&Tensor>, b: Option<&Tensor>) -> Tensor {
    let scale = scale.contiguous();
    let (w, b) = (w.map(Tensor::contiguous), b.map(Tensor::contiguous));
    let (s, w, b) = (scale.slice::<E>(), w.as_ref().map(|t| t.slice::<E>()), b.as_ref().map(|t| t.slice::<E>()));
    map_rows!(E, x, |i, x, out| {
        out.copy_from_slice(x);
        scale_shift_row(out, s[i], w, b);
    })
}

pub(super) fn norm<E: Elem>(
    x: &Tensor,
    center: bool,
    eps: f64,
    w: Option<&Tensor>,
    b: Option<&Tensor>,
) -> (Tensor, Tensor) {
    let shape = scale_shape(x);
    let x = x.contiguous();
    let width = width_of(&x);
    let (w, b) = (w.map(Tensor::contiguous), b.map(Tensor::contiguous));
    let (w, b) = (w.as_ref().map(|t| t.slice::<E>()), b.as_ref().map(|t| t.slice::<E>()));
    let mut out = Buffer::<E>::scratch(x.shape());
    let mut scale = Buffer::<E>::scratch(&[x.numel() / width]);
    let per_task = rows_per_task(width);
    out.par_chunks_mut(per_task * width)
        .zip(scale.par_chunks_mut(per_task))
        .zip(x.slice::<E>().par_chunks(per_task * width))
        .for_each(|((out, scale), x)| {
            simd!({
                for ((out, s), x) in out.chunks_mut(width).zip(scale).zip(x.chunks(width)) {
                    if center {
                        center_row(x, out);
                    } else {
                        out.copy_from_slice(x);
                    }
                    *s = rms_row(out, E::from_f64(eps));
                    scale_shift_row(out, *s, w, b);
                }
            })
        });
    let out = Tensor::from_buffer(out, x.shape());
    (out, Tensor::from_buffer(scale, &shape))
}

/// With n = (x - mean) / scale and g = dy w: dx = (g - mean(g) - n mean(g n)) / scale (no mean(g)
/// for RMS norm), dw = sum(dy n), db = sum(dy).
pub(super) fn norm_grad<E: Elem>(
    x: &Tensor,
    center: bool,
    scale: &Tensor,
    w: Option<&Tensor>,
    dy: &Tensor,
    want_affine: bool,
) -> (Tensor, Option<(Tensor, Tensor)>) {
    let (x, scale, dy) = (x.contiguous(), scale.contiguous(), dy.contiguous());
    let width = width_of(&x);
    let w = w.map(Tensor::contiguous);
    let w = w.as_ref().map(|t| t.slice::<E>());
    let mut dx = Buffer::<E>::scratch(x.shape());
    let sums: Vec<Option<(Buffer<E>, Buffer<E>)>> = dx
        .par_chunks_mut(ROW_BLOCK * width)
        .zip(x.slice::<E>().par_chunks(ROW_BLOCK * width))
        .zip(dy.slice::<E>().par_chunks(ROW_BLOCK * width))
        .zip(scale.slice::<E>().par_chunks(ROW_BLOCK))
        .map(|(((dx, x), dy), scale)| {
            let mut sums = want_affine.then(|| (Buffer::full(&[width], E::ZERO), Buffer::full(&[width], E::ZERO)));
            let mut normalized = Buffer::<E>::scratch(&[width]);
            simd!({
                for (((dx, x), dy), &s) in dx.chunks_mut(width).zip(x.chunks(width)).zip(dy.chunks(width)).zip(scale) {
                    norm_grad_row(dx, x, dy, s, w, center, &mut normalized);
                    if let Some((dw, db)) = &mut sums {
                        dw.iter_mut().zip(dy).zip(&normalized[..]).for_each(|((a, &d), &n)| *a += d * n);
                        db.iter_mut().zip(dy).for_each(|(a, &d)| *a += d);
                    }
                }
            });
            sums
        })
        .collect();
    let affine = want_affine.then(|| {
        let (dw, db): (Vec<_>, Vec<_>) = sums.into_iter().flatten().unzip();
        let vector = |parts| Tensor::from_buffer(sum_in_order(parts, width), &[width]);
        (vector(dw), vector(db))
    });
    (Tensor::from_buffer(dx, x.shape()), affine)
}

#[inline(always)]
fn norm_grad_row<E: Elem>(dx: &mut [E], x: &[E], dy: &[E], s: E, w: Option<&[E]>, center: bool, normalized: &mut [E]) {
    if center {
        center_row(x, normalized);
    } else {
        normalized.copy_from_slice(x);
    }
    normalized.iter_mut().for_each(|v| *v /= s);
    dx.copy_from_slice(dy);
    if let Some(w) = w {
        dx.iter_mut().zip(w).for_each(|(g, &w)| *g *= w);
    }
    let n = E::from_f64(dx.len() as f64);
    let shift = if center { sum_map(dx, |v| v) / n } else { E::ZERO };
    let along = sum_map2(dx, normalized, |a, b| a * b) / n;
    dx.iter_mut().zip(&*normalized).for_each(|(g, &v)| *g = (*g - shift - v * along) / s);
}
