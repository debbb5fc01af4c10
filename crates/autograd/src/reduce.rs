//! Sums and means.

use crate::Var;

impl Var {
    /// Sum over `axes`, which go.
    #[track_caller]
    pub fn sum(&self, axes: &[usize]) -> Var {
        let sum = self.value().sum(axes);
        let from = self.shape().to_vec();
        let kept: Vec<usize> = (0..from.len()).map(|a| if axes.contains(&a) { 1 } else { from[a] }).collect();
        Var::record(sum, &[self], move |dy, sink| sink.add(0, dy.reshape(&kept).expand(&from)))
    }

    /// Mean over `axes`, which go.
    #[track_caller]
    pub fn mean(&self, axes: &[usize]) -> Var {
        let sum = self.sum(axes);
        let n: usize = axes.iter().map(|&a| self.shape()[a]).product();
        sum * (1.0 / n as f64)
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
