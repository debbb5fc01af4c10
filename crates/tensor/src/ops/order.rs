//! Order and running sums, along one axis. What GPUs do not do goes through the host.

use crate::cpu::order;
use crate::{Axis, IndexTensor, Tensor, check};

/// The order of axes that puts `axis` last.
fn last(axis: usize, ndim: usize) -> Vec<usize> {
    (0..ndim).filter(|&a| a != axis).chain([axis]).collect()
}

/// The order that undoes [`last`].
fn back(axis: usize, ndim: usize) -> Vec<usize> {
    (0..axis).chain([ndim - 1]).chain(axis..ndim - 1).collect()
}

impl Tensor {
    /// Indices that sort `axis`, or the first `k` of them.
    #[doc(hidden)]
    #[track_caller]
    pub fn order(&self, axis: usize, descending: bool, k: Option<usize>) -> IndexTensor {
        check::computes("sort", self);
        let (n, shape) = (self.dim(axis), self.shape());
        let k = k.unwrap_or(n);
        check::range(shape, axis, 0, k);
        let rows = self.permute(&last(axis, self.ndim()));
        let mut found = rows.shape().to_vec();
        *found.last_mut().expect("there is an axis") = k;
        IndexTensor::new(order::argsort(&rows.on_cpu(), descending, k), &found).permute(&back(axis, self.ndim()))
    }

    /// Index of the largest element along `axis`.
    #[doc(hidden)]
    #[track_caller]
    pub fn largest(&self, op: &str, axis: usize) -> IndexTensor {
        check::computes(op, self);
        check::axis(self.shape(), axis);
        let mut found = self.shape().to_vec();
        found.remove(axis);
        if self.numel() == 0 {
            check::not_of_nothing(op, self.shape(), &found);
            return IndexTensor::new(Vec::new(), &found);
        }
        let rows = self.permute(&last(axis, self.ndim()));
        self.on("argmax", [&rows], |b| b.argmax(&rows))
    }

    /// Running sum along `axis`: element `i` is the sum of elements `0..=i`. On a GPU, the values
    /// go through the host.
    #[track_caller]
    pub fn cumsum(&self, axis: impl Axis) -> Tensor {
        check::computes("cumsum", self);
        let axis = axis.of(self.shape());
        let sums = order::cumsum(&self.permute(&last(axis, self.ndim())).on_cpu());
        sums.to_device(&self.device()).permute(&back(axis, self.ndim()))
    }
}
