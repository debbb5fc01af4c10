//! Sums and maxima.

use rayon::prelude::*;

use super::elem::Elem;
use super::parallel::{CHUNK, par_chunks, par_rows};
use super::simd::{max_of, simd, sum_map};
use super::storage::Buffer;
use crate::backend::ReduceOp;
use crate::{IndexTensor, Tensor};

/// Elements whose sum is taken in the element type; sums of such sums are taken in `f64`.
const BLOCK: usize = 4096;
/// Rows whose column sums are taken by one task.
const ROW_BLOCK: usize = 64;

pub(super) fn reduce<E: Elem>(op: ReduceOp, x: &Tensor, axes: &[usize]) -> Tensor {
    let keep: Vec<usize> = (0..x.ndim()).filter(|a| !axes.contains(a)).collect();
    let shape: Vec<usize> = (0..x.ndim()).map(|a| if axes.contains(&a) { 1 } else { x.shape()[a] }).collect();
    let rows: usize = keep.iter().map(|&a| x.shape()[a]).product();
    let length: usize = axes.iter().map(|&a| x.shape()[a]).product();

    let leading = !keep.is_empty() && axes.iter().all(|a| keep.iter().all(|k| a < k));
    if op == ReduceOp::Sum && leading && length > 1 && x.is_contiguous() {
        return Tensor::from_buffer(column_sums::<E>(x.slice(), rows), &shape);
    }
    let mut order = keep;
    order.extend(axes);
    let x = x.permute(&order).contiguous();
    let data = x.slice::<E>();
    let mut out = Buffer::<E>::scratch(&[rows]);
    // `par_rows` cuts by the width of its output, which is 1 here, so weigh a row by its length.
    let per_task = (CHUNK / length).max(1);
    par_chunks(&mut out, per_task, |task, out| {
        simd!({
            for (i, o) in out.iter_mut().enumerate() {
                let row = &data[(task * per_task + i) * length..][..length];
                *o = match op {
                    ReduceOp::Sum => sum(row),
                    ReduceOp::Max => max_of(row),
                };
            }
        })
    });
    Tensor::from_buffer(out, &shape)
}

#[inline(always)]
fn sum<E: Elem>(row: &[E]) -> E {
    if row.len() <= BLOCK {
        return sum_map(row, |v| v);
    }
    E::from_f64(row.chunks(BLOCK).map(|c| sum_map(c, |v| v).to_f64()).sum())
}

/// Sums of the columns of `x [rows, width]`.
pub(super) fn column_sums<E: Elem>(x: &[E], width: usize) -> Buffer<E> {
    let blocks: Vec<Buffer<E>> = x
        .par_chunks(ROW_BLOCK * width)
        .map(|block| {
            let mut acc = Buffer::full(&[width], E::ZERO);
            simd!({
                for row in block.chunks_exact(width) {
                    acc.iter_mut().zip(row).for_each(|(a, &v)| *a += v);
                }
            });
            acc
        })
        .collect();
    sum_in_order(blocks, width)
}

/// The sum of partial results, in their order and in `f64`.
pub(super) fn sum_in_order<E: Elem>(partial: Vec<Buffer<E>>, width: usize) -> Buffer<E> {
    let mut partial = partial.into_iter();
    let mut total = partial.next().unwrap_or_else(|| Buffer::full(&[width], E::ZERO));
    let rest: Vec<Buffer<E>> = partial.collect();
    if rest.is_empty() {
        return total;
    }
    par_rows(&mut total, 1, |start, total| {
        let mut wide: Vec<f64> = total.iter().map(|t| t.to_f64()).collect();
        for p in &rest {
            let p = &p[start..start + total.len()];
            simd!(wide.iter_mut().zip(p).for_each(|(t, &v)| *t += v.to_f64()));
        }
        total.iter_mut().zip(wide).for_each(|(t, sum)| *t = E::from_f64(sum));
    });
    total
}

pub(super) fn argmax<E: Elem>(x: &Tensor) -> IndexTensor {
    let x = x.contiguous();
    let width = *x.shape().last().expect("argmax checks that there is an axis");
    let best = |row: &[E]| {
        let mut at = 0;
        for (i, v) in row.iter().enumerate() {
            if *v > row[at] || (Elem::is_nan(*v) && !Elem::is_nan(row[at])) {
                at = i;
            }
        }
        at as u32
    };
    let found: Vec<u32> = x.slice::<E>().chunks(width).map(best).collect();
    IndexTensor::new(found, &x.shape()[..x.ndim() - 1])
}

pub(super) fn sum_squares<E: Elem>(x: &Tensor) -> f64 {
    let x = x.contiguous();
    let parts: Vec<f64> = x.slice::<E>().par_chunks(BLOCK).map(|c| simd!(sum_map(c, |v| v * v)).to_f64()).collect();
    parts.iter().sum()
}

pub(super) fn all_finite<E: Elem>(x: &Tensor) -> bool {
    let x = x.contiguous();
    x.slice::<E>().par_chunks(CHUNK).all(|c| c.iter().all(|v| Elem::is_finite(*v)))
}
