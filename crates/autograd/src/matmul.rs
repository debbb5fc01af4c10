//! Products.

use ironlens_tensor::Tensor;

use crate::Var;

impl Var {
    /// [`Var::matmul`] of what has two axes at least.
    #[track_caller]
    pub(crate) fn product(&self, other: &Var) -> Var {
        let (a, b) = (self.value().clone(), other.value().clone());
        Var::record(a.matmul(&b), &[self, other], move |dy, sink| {
            sink.add_with(0, || dy.matmul(&b.t()).sum_to(a.shape()));
            sink.add_with(1, || {
                if b.ndim() == 2 {
                    // One weight for all: a single product over all rows.
                    return rows(&a).t().matmul(&rows(&dy));
                }
                a.t().matmul(&dy).sum_to(b.shape())
            });
        })
    }

    /// `self @ w + bias + residual`; see [`Tensor::linear`].
    #[track_caller]
    pub fn linear(&self, w: &Var, bias: Option<&Var>, residual: Option<&Var>) -> Var {
        let value = self.value().linear(w.value(), bias.map(Var::value), residual.map(Var::value));
        let (x, weight) = (self.value().clone(), w.value().clone());
        let mut parents = vec![self, w];
        parents.extend(bias);
        parents.extend(residual);
        let (bias_at, residual_at) = (bias.map(|_| 2), residual.map(|_| 2 + usize::from(bias.is_some())));
        Var::record(value, &parents, move |dy, sink| {
            let flat = rows(&dy);
            sink.add_with(1, || rows(&x).t().matmul(&flat));
            if let Some(i) = bias_at {
                sink.add_with(i, || flat.sum(&[0]));
            }
            sink.add_with(0, || flat.matmul(&weight.t()).reshape(x.shape()));
            if let Some(i) = residual_at {
                sink.add(i, dy);
            }
        })
    }
}

/// All leading axes joined: `[rows, width]`.
fn rows(x: &Tensor) -> Tensor {
    let (last, leading) = x.shape().split_last().expect("products have two axes");
    x.reshape(&[leading.iter().product(), *last])
}
