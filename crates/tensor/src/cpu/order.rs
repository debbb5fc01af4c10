//! Order and running sums over the last axis.

use std::cmp::Ordering;

use super::elem::Elem;
use super::parallel::{par_chunks, par_rows};
use super::storage::Buffer;
use crate::{DType, Tensor};

/// Numbers as they are; NaN is the largest.
fn rising<E: Elem>(a: E, b: E) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| Elem::is_nan(a).cmp(&Elem::is_nan(b)))
}

/// The first `k` of the indices that sort each row, equals in their order: `[row, k]`.
pub(crate) fn argsort(x: &Tensor, descending: bool, k: usize) -> Vec<u32> {
    match x.dtype() {
        DType::F32 => argsort_of::<f32>(x, descending, k),
        DType::F64 => argsort_of::<f64>(x, descending, k),
        DType::Bf16 | DType::F16 => unreachable!("{}", super::NOT_COMPUTED_IN),
    }
}

fn argsort_of<E: Elem>(x: &Tensor, descending: bool, k: usize) -> Vec<u32> {
    let x = x.contiguous();
    let width = x.shape().last().copied().unwrap_or(1);
    let mut out = vec![0; x.numel().checked_div(width).unwrap_or(0) * k];
    if k == 0 || out.is_empty() {
        return out;
    }
    let data = x.slice::<E>();
    par_chunks(&mut out, k, |i, out| {
        let row = &data[i * width..][..width];
        // Indices break ties, so that no two are equal and every way of sorting gives the same.
        let order = |a: &u32, b: &u32| {
            let (x, y) = (row[*a as usize], row[*b as usize]);
            if descending { rising(y, x) } else { rising(x, y) }.then(a.cmp(b))
        };
        let mut ids: Vec<u32> = (0..width as u32).collect();
        if k < width {
            ids.select_nth_unstable_by(k, order);
        }
        ids[..k].sort_unstable_by(order);
        out.copy_from_slice(&ids[..k]);
    });
    out
}

/// Running sums of each row, in double precision until they are stored.
pub(crate) fn cumsum(x: &Tensor) -> Tensor {
    match x.dtype() {
        DType::F32 => cumsum_of::<f32>(x),
        DType::F64 => cumsum_of::<f64>(x),
        DType::Bf16 | DType::F16 => unreachable!("{}", super::NOT_COMPUTED_IN),
    }
}

fn cumsum_of<E: Elem>(x: &Tensor) -> Tensor {
    let x = x.contiguous();
    let width = super::width_of(&x);
    let data = x.slice::<E>();
    let mut out = Buffer::<E>::scratch(x.shape());
    par_rows(&mut out, width, |first, rows| {
        for (i, row) in rows.chunks_mut(width).enumerate() {
            let mut sum = 0.0;
            for (o, v) in row.iter_mut().zip(&data[(first + i) * width..]) {
                sum += v.to_f64();
                *o = E::from_f64(sum);
            }
        }
    });
    Tensor::from_buffer(out, x.shape())
}
