//! Token ids and other indices.

use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use crate::ops::create::home;
use crate::{Axes, Axis, DType, Device, Tensor};

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

    /// Length of `axis`.
    #[track_caller]
    pub fn dim(&self, axis: impl Axis) -> usize {
        self.shape[axis.of(&self.shape)]
    }

    /// The only value, such as the token of an `argmax` over all logits of a position.
    ///
    /// # Panics
    /// If there is not exactly one.
    #[track_caller]
    pub fn item(&self) -> u32 {
        crate::check::one_element("item", &self.shape);
        self.data[0]
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
    pub fn narrow(&self, axis: impl Axis, start: usize, len: usize) -> IndexTensor {
        let axis = axis.of(&self.shape);
        crate::check::range(&self.shape, axis, start, len);
        self.view().slice_axis(ndarray::Axis(axis), (start..start + len).into()).to_owned().into()
    }

    /// The elements at `index` along `axis`, without the axis.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn select(&self, axis: impl Axis, index: usize) -> IndexTensor {
        let axis = axis.of(&self.shape);
        crate::check::range(&self.shape, axis, index, 1);
        self.view().index_axis(ndarray::Axis(axis), index).to_owned().into()
    }

    /// The elements `ids` of `axis`, whose place the axes of `ids` take.
    ///
    /// # Panics
    /// If an index is too large.
    #[track_caller]
    pub fn index_select(&self, axis: impl Axis, ids: &IndexTensor) -> IndexTensor {
        let axis = axis.of(&self.shape);
        crate::check::ids("index_select", ids, self.shape[axis], &self.shape);
        let picked: Vec<usize> = ids.data.iter().map(|&i| i as usize).collect();
        let shape = [&self.shape[..axis], &ids.shape, &self.shape[axis + 1..]].concat();
        IndexTensor::from(self.view().select(ndarray::Axis(axis), &picked)).reshape(&shape)
    }

    /// The same values in the same order under another shape.
    ///
    /// # Panics
    /// If the numbers of values differ.
    #[track_caller]
    pub fn reshape(&self, shape: &[usize]) -> IndexTensor {
        crate::check::reshape(&self.shape, shape);
        IndexTensor::new(self.data.clone(), shape)
    }

    /// With a new axis of length 1 at `axis`: `[batch]` answers become `[batch, 1]` ones, as
    /// [`Tensor::gather`] wants them.
    ///
    /// # Panics
    /// If there is no such place.
    #[track_caller]
    pub fn unsqueeze(&self, axis: impl Axis) -> IndexTensor {
        let mut shape = self.shape.clone();
        shape.insert(axis.new_in(&self.shape), 1);
        IndexTensor::new(self.data.clone(), &shape)
    }

    /// Axes in the order `axes`.
    ///
    /// # Panics
    /// If `axes` is not an order of the axes.
    #[track_caller]
    pub fn permute(&self, axes: impl Axes) -> IndexTensor {
        let axes = axes.of(&self.shape);
        crate::check::permutation(&self.shape, &axes);
        self.view().permuted_axes(IxDyn(&axes)).to_owned().into()
    }

    /// Tensors side by side along `axis`.
    ///
    /// ```
    /// # use ironlens_tensor::IndexTensor;
    /// let half = IndexTensor::from([[1, 2, 3], [4, 5, 6]]);
    /// let repeated = IndexTensor::cat(&[half.clone(), half], 1);
    /// assert_eq!(repeated.select(0, 0).as_slice(), [1, 2, 3, 1, 2, 3]);
    /// ```
    ///
    /// # Panics
    /// If there are none, or they differ on another axis.
    #[track_caller]
    pub fn cat(parts: &[IndexTensor], axis: impl Axis) -> IndexTensor {
        let shapes: Vec<&[usize]> = parts.iter().map(IndexTensor::shape).collect();
        let axis = crate::check::shapes_join("cat", &shapes, axis);
        let views: Vec<ArrayViewD<'_, u32>> = parts.iter().map(IndexTensor::view).collect();
        ndarray::concatenate(ndarray::Axis(axis), &views).expect("the shapes were checked").into()
    }

    /// Tensors of one shape along a new axis `axis`.
    ///
    /// # Panics
    /// If there are none, or their shapes differ.
    #[track_caller]
    pub fn stack(parts: &[IndexTensor], axis: impl Axis) -> IndexTensor {
        let shapes: Vec<&[usize]> = parts.iter().map(IndexTensor::shape).collect();
        let axis = crate::check::shapes_stack(&shapes, axis);
        let parts: Vec<IndexTensor> = parts.iter().map(|p| p.unsqueeze(axis)).collect();
        IndexTensor::cat(&parts, axis)
    }

    /// As numbers, such as labels for a regression or 0 and 1 for a mask.
    #[track_caller]
    pub fn to_tensor(&self, dtype: DType, device: &Device) -> Tensor {
        let values = self.data.iter().map(|&v| f64::from(v)).collect();
        home(values, &self.shape, dtype, device)
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

impl<const N: usize> From<[u32; N]> for IndexTensor {
    fn from(values: [u32; N]) -> IndexTensor {
        IndexTensor::new(values, &[N])
    }
}

impl From<Vec<u32>> for IndexTensor {
    /// `[n]`
    fn from(values: Vec<u32>) -> IndexTensor {
        let n = values.len();
        IndexTensor::new(values, &[n])
    }
}

impl<const C: usize> From<Vec<[u32; C]>> for IndexTensor {
    /// `[row, column]`: all pairs of digits are `(0..10).flat_map(|a| (0..10).map(move |b| [a, b])).collect::<Vec<_>>()`.
    fn from(rows: Vec<[u32; C]>) -> IndexTensor {
        IndexTensor::new(rows.concat(), &[rows.len(), C])
    }
}

impl From<Vec<Vec<u32>>> for IndexTensor {
    /// `[row, column]`
    ///
    /// # Panics
    /// If rows differ in length.
    #[track_caller]
    fn from(rows: Vec<Vec<u32>>) -> IndexTensor {
        let width = crate::check::even_rows(&rows);
        IndexTensor::new(rows.concat(), &[rows.len(), width])
    }
}

impl std::fmt::Debug for IndexTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IndexTensor{:?} {:?}", self.shape, self.view())
    }
}
