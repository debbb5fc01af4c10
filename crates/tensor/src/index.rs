//! Token ids and other indices.

use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD, IxDyn};

/// An immutable array of `u32` indices, such as tokens `[batch, pos]`.
#[derive(Clone, PartialEq, Eq)]
pub struct IndexTensor {
    data: Arc<[u32]>,
    shape: Vec<usize>,
}

impl IndexTensor {
    /// From values in row-major order.
    ///
    /// # Panics
    /// If the number of values is not the product of `shape`.
    #[track_caller]
    pub fn new(data: impl Into<Arc<[u32]>>, shape: &[usize]) -> IndexTensor {
        let data = data.into();
        crate::check::element_count(data.len(), shape);
        IndexTensor { data, shape: shape.to_vec() }
    }

    /// Length of every axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// All values in row-major order.
    pub fn as_slice(&self) -> &[u32] {
        &self.data
    }

    /// Number of values.
    pub fn numel(&self) -> usize {
        self.data.len()
    }

    /// As an ndarray view.
    pub fn view(&self) -> ArrayViewD<'_, u32> {
        ArrayViewD::from_shape(IxDyn(&self.shape), &self.data).expect("the shape was checked at construction")
    }

    /// Elements `start..start + len` along `axis`.
    ///
    /// # Panics
    /// If the range leaves the axis.
    #[track_caller]
    pub fn narrow(&self, axis: usize, start: usize, len: usize) -> IndexTensor {
        crate::check::range(&self.shape, axis, start, len);
        self.view().slice_axis(ndarray::Axis(axis), (start..start + len).into()).to_owned().into()
    }

    /// The rows `rows` of a tensor `[row, ...]`, in that order.
    ///
    /// # Panics
    /// If a row does not exist.
    #[track_caller]
    pub fn rows(&self, rows: &[usize]) -> IndexTensor {
        crate::check::rows(&self.shape, rows);
        self.view().select(ndarray::Axis(0), rows).into()
    }
}

impl From<ArrayD<u32>> for IndexTensor {
    fn from(a: ArrayD<u32>) -> IndexTensor {
        let shape = a.shape().to_vec();
        IndexTensor { data: a.iter().copied().collect(), shape }
    }
}

impl<const R: usize, const C: usize> From<[[u32; C]; R]> for IndexTensor {
    fn from(rows: [[u32; C]; R]) -> IndexTensor {
        IndexTensor::new(rows.concat(), &[R, C])
    }
}

impl std::fmt::Debug for IndexTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IndexTensor{:?} {:?}", self.shape, self.view())
    }
}
