//! AdamW in one pass over parameter, gradient and moments.

use rayon::prelude::*;

use super::elem::Elem;
use super::parallel::CHUNK;
use super::simd::simd;
use crate::Tensor;
use crate::backend::AdamWStep;

/// PyTorch's `AdamW` (decoupled decay first, then the bias-corrected step).
pub(super) fn adamw<E: Elem>(
    param: &mut Tensor,
    grad: &Tensor,
    grad_scale: &Tensor,
    m: &mut Tensor,
    v: &mut Tensor,
    step: &AdamWStep,
) {
    if !grad_scale.item().is_finite() {
        return;
    }
    let (correction1, correction2) = step.corrections();
    let keep = E::from_f64(1.0 - step.lr * step.weight_decay);
    let size = E::from_f64(step.lr / correction1);
    let root = E::from_f64(correction2.sqrt());
    let (eps, clip) = (E::from_f64(step.eps), E::from_f64(grad_scale.item()));
    let (one_minus_b1, b2) = (E::from_f64(1.0 - step.beta1), E::from_f64(step.beta2));
    let one_minus_b2 = E::from_f64(1.0 - step.beta2);

    let grad = grad.contiguous();
    for t in [&mut *param, &mut *m, &mut *v] {
        *t = t.contiguous();
    }
    param
        .slice_mut::<E>()
        .par_chunks_mut(CHUNK)
        .zip(grad.slice::<E>().par_chunks(CHUNK))
        .zip(m.slice_mut::<E>().par_chunks_mut(CHUNK))
        .zip(v.slice_mut::<E>().par_chunks_mut(CHUNK))
        .for_each(|(((p, g), m), v)| {
            simd!({
                for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                    let g = g * clip;
                    *m += one_minus_b1 * (g - *m);
                    *v = *v * b2 + one_minus_b2 * g * g;
                    *p = *p * keep - size * (*m / (Elem::sqrt(*v) / root + eps));
                }
            })
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Device};

    /// Where moments have long been of their full size, one more step is as large as any other.
    #[test]
    fn steps_are_counted_as_far_as_anybody_trains() {
        let after = |step: u64| {
            let number = |x: f64| Tensor::scalar(x, DType::F64, &Device::Cpu);
            let (mut param, mut m, mut v) = (number(1.0), number(0.5), number(0.25));
            let step = AdamWStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, step };
            adamw::<f64>(&mut param, &number(0.5), &number(1.0), &mut m, &mut v, &step);
            param.item()
        };
        let late = after(1_000_000);
        for step in [1 << 31, (1 << 32) + 1, u64::MAX] {
            assert_eq!(after(step), late, "step {step}");
        }
    }
}
