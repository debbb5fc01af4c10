//! Ops with indices (embedding, cross-entropy) and the rotary embedding.

use super::elem::Elem;
use super::parallel::{par_chunks, par_rows, rows_per_task};
use super::rows::log_sum_exp;
use super::simd::simd;
use super::storage::Buffer;
use super::stored::Widen;
use super::width_of;
use crate::backend::RotarySpec;
use crate::{IndexTensor, Tensor};

pub(super) fn embed<E: Elem, W: Widen<E>>(table: &Tensor, ids: &IndexTensor) -> Tensor {
    let table = table.contiguous();
    let width = width_of(&table);
    let (data, ids) = (table.slice::<W>(), ids.as_slice());
    let mut out = Buffer::<E>::scratch(&[ids.len(), width]);
    par_rows(&mut out, width, |first, rows| {
        for (row, &id) in rows.chunks_mut(width).zip(&ids[first..]) {
            row.iter_mut().zip(&data[id as usize * width..][..width]).for_each(|(to, from)| *to = from.widen());
        }
    });
    Tensor::from_buffer(out, &[ids.len(), width])
}

pub(super) fn embed_grad<E: Elem>(dy: &Tensor, ids: &IndexTensor, rows: usize) -> Tensor {
    let dy = dy.contiguous();
    let width = width_of(&dy);
    let data = dy.slice::<E>();
    // Positions of every id, in order, so that each row of the table is summed by one task.
    let mut start = vec![0usize; rows + 1];
    ids.as_slice().iter().for_each(|&id| start[id as usize + 1] += 1);
    for i in 0..rows {
        start[i + 1] += start[i];
    }
    let mut next = start.clone();
    let mut positions = vec![0usize; ids.numel()];
    for (position, &id) in ids.as_slice().iter().enumerate() {
        positions[next[id as usize]] = position;
        next[id as usize] += 1;
    }
    let mut out = Buffer::<E>::full(&[rows, width], E::ZERO);
    par_rows(&mut out, width, |first, chunk| {
        simd!({
            for (i, row) in chunk.chunks_mut(width).enumerate() {
                for &p in &positions[start[first + i]..start[first + i + 1]] {
                    row.iter_mut().zip(&data[p * width..]).for_each(|(o, &v)| *o += v);
                }
            }
        })
    });
    Tensor::from_buffer(out, &[rows, width])
}

pub(super) fn cross_entropy<E: Elem>(logits: &Tensor, targets: &IndexTensor) -> Tensor {
    let logits = logits.contiguous();
    let width = width_of(&logits);
    let (data, ids) = (logits.slice::<E>(), targets.as_slice());
    let mut out = Buffer::<E>::scratch(targets.shape());
    let per_task = rows_per_task(width);
    par_chunks(&mut out, per_task, |task, out| {
        let first = task * per_task;
        simd!({
            for ((o, &id), row) in out.iter_mut().zip(&ids[first..]).zip(data[first * width..].chunks(width)) {
                let (max, rest) = log_sum_exp(row);
                *o = rest - (row[id as usize] - max);
            }
        })
    });
    Tensor::from_buffer(out, targets.shape())
}

pub(super) fn cross_entropy_grad<E: Elem>(logits: &Tensor, targets: &IndexTensor, drow: &Tensor) -> Tensor {
    let (logits, drow) = (logits.contiguous(), drow.contiguous());
    let width = width_of(&logits);
    let (data, ids, weight) = (logits.slice::<E>(), targets.as_slice(), drow.slice::<E>());
    let mut out = Buffer::<E>::scratch(logits.shape());
    par_rows(&mut out, width, |first, rows| {
        simd!({
            for (i, row) in rows.chunks_mut(width).enumerate() {
                let (r, x) = (first + i, &data[(first + i) * width..][..width]);
                let (max, rest) = log_sum_exp(x);
                row.iter_mut().zip(x).for_each(|(o, &v)| *o = ((v - max) - rest).exp() * weight[r]);
                row[ids[r] as usize] -= weight[r];
            }
        })
    });
    Tensor::from_buffer(out, logits.shape())
}

pub(super) fn rotary<E: Elem>(x: &Tensor, spec: &RotarySpec, inverse: bool) -> Tensor {
    let x = x.contiguous();
    let [_, pos, heads, width] = *x.shape() else { unreachable!("shapes were checked") };
    let (cos, sin) = (spec.cos.contiguous(), spec.sin.contiguous());
    let half = *cos.shape().last().expect("shapes were checked");
    let per_item = cos.shape()[0] > 1;
    let (cos, sin) = (cos.slice::<E>(), sin.slice::<E>());
    let sign = if inverse { -E::ONE } else { E::ONE };
    let mut out = Buffer::<E>::scratch(x.shape());
    out.copy_from_slice(x.slice());
    par_rows(&mut out, width, |first, rows| {
        for (i, row) in rows.chunks_mut(width).enumerate() {
            let token = (first + i) / heads;
            let at = if per_item { token } else { token % pos } * half;
            for j in 0..half {
                let (lo, hi) = if spec.interleaved { (2 * j, 2 * j + 1) } else { (j, j + half) };
                let (c, s) = (cos[at + j], sign * sin[at + j]);
                let (a, b) = (row[lo], row[hi]);
                row[lo] = a * c - b * s;
                row[hi] = b * c + a * s;
            }
        }
    });
    Tensor::from_buffer(out, x.shape())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Device};

    #[test]
    fn a_small_loss_keeps_its_digits() {
        // Logits far from 0: the loss is about e^-12, five digits below the logits' own rounding.
        let logits = Tensor::from_vec(vec![30.0, 18.0, 17.0], &[1, 3], &Device::Cpu);
        let target = IndexTensor::new(vec![0], &[1]);
        let exact = logits.to_dtype(DType::F64).cross_entropy(&target).item();
        let loss = logits.cross_entropy(&target).item();
        assert!((loss / exact - 1.0).abs() < 0.02, "{loss:e} for {exact:e}");
        let one = Tensor::from_vec(vec![1.0], &[1], &Device::Cpu);
        let grad = logits.cross_entropy_grad(&target, &one).to_vec();
        assert!((f64::from(grad[0]) / -exact - 1.0).abs() < 0.02, "{grad:?}");
    }
}
