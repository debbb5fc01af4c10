//! Sums, means and maxima, whole and running.

use ironlens_tensor::{Axes, Axis};

use crate::Var;

impl Var {
    /// Sum over `axes`, which go.
    #[track_caller]
    pub fn sum(&self, axes: impl Axes) -> Var {
        let from = self.shape().to_vec();
        let axes = axes.of(&from);
        let kept: Vec<usize> = (0..from.len()).map(|a| if axes.contains(&a) { 1 } else { from[a] }).collect();
        let sum = self.value().sum(&axes);
        Var::record(sum, &[self], move |dy, sink| sink.add(0, dy.reshape(&kept).expand(&from)))
    }

    /// Mean over `axes`, which go.
    #[track_caller]
    pub fn mean(&self, axes: impl Axes) -> Var {
        let axes = axes.of(self.shape());
        let n: usize = axes.iter().map(|&a| self.shape()[a]).product();
        self.sum(&axes) * (1.0 / n as f64)
    }

    /// Sum over `axes`, which stay with length 1.
    #[track_caller]
    pub fn sum_keepdim(&self, axes: impl Axes) -> Var {
        let axes = axes.of(self.shape());
        self.sum(&axes).reshape(&self.kept_shape(&axes))
    }

    /// Largest element over `axes`, which go. Equal ones share the gradient.
    #[track_caller]
    pub fn max(&self, axes: impl Axes) -> Var {
        let axes = axes.of(self.shape());
        let (x, y) = (self.value().clone(), self.value().max(&axes));
        let kept = self.kept_shape(&axes);
        let top = y.reshape(&kept);
        Var::record(y, &[self], move |dy, sink| {
            let largest = x.eq(&top);
            let share = dy.reshape(&kept) / largest.sum_keepdim(&axes);
            sink.add(0, largest * share);
        })
    }

    /// See [`ironlens_tensor::Tensor::cumsum`].
    #[track_caller]
    pub fn cumsum(&self, axis: impl Axis) -> Var {
        let axis = axis.of(self.shape());
        // Element i is in the sums i.. : their gradients, summed from the end.
        Var::record(self.value().cumsum(axis), &[self], move |dy, sink| {
            sink.add(0, dy.flip(axis).cumsum(axis).flip(axis));
        })
    }

    /// Sum of all elements, shape `[]`.
    #[track_caller]
    pub fn sum_all(&self) -> Var {
        self.sum(&(0..self.shape().len()).collect::<Vec<_>>())
    }

    /// Mean of all elements, shape `[]`.
    #[track_caller]
    pub fn mean_all(&self) -> Var {
        self.mean(&(0..self.shape().len()).collect::<Vec<_>>())
    }
}
