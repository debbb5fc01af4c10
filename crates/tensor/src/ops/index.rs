//! Elements by index, as rows of a table (see [`Tensor::embed`]).

use crate::{IndexTensor, Layout, Tensor};

/// Where `gather` finds its elements, as rows of a table `[numel, 1]`.
#[doc(hidden)]
#[track_caller]
pub fn gather_rows(shape: &[usize], axis: usize, ids: &IndexTensor) -> IndexTensor {
    let fits = ids.shape().len() == shape.len() && (0..shape.len()).all(|a| a == axis || ids.shape()[a] <= shape[a]);
    let rule = "the indices need as many axes, none but the gathered one longer";
    crate::check::requires(fits, "gather", shape, ids.shape(), rule);
    crate::check::ids("gather", ids, shape[axis], shape);
    let strides = Layout::contiguous(shape);
    let strides = strides.strides();
    let rows = ids.view();
    let rows = rows.indexed_iter().map(|(at, &id)| {
        let place = |a: usize| if a == axis { id as usize } else { at[a] };
        row((0..shape.len()).map(|a| place(a) * strides[a]).sum())
    });
    IndexTensor::from(rows.collect::<Vec<u32>>())
}

/// Where `index_select` finds its elements, as rows of a table `[outer * axis, inner]`.
#[doc(hidden)]
#[track_caller]
pub fn select_rows(shape: &[usize], axis: usize, ids: &IndexTensor) -> IndexTensor {
    crate::check::ids("index_select", ids, shape[axis], shape);
    let outer: usize = shape[..axis].iter().product();
    let rows = (0..outer).flat_map(|o| ids.as_slice().iter().map(move |&id| row(o * shape[axis] + id as usize)));
    IndexTensor::from(rows.collect::<Vec<u32>>())
}

/// Refuses a place, or a value that does not broadcast to it.
#[doc(hidden)]
#[track_caller]
pub fn check_set_at(shape: &[usize], axis: usize, index: usize, value: &[usize]) {
    crate::check::range(shape, axis, index, 1);
    let place: Vec<usize> = (0..shape.len()).filter(|&a| a != axis).map(|a| shape[a]).collect();
    let fits = Layout::contiguous(value).expand(&place).is_some();
    crate::check::requires(fits, "set_at", shape, value, "the value must broadcast to the elements at one index");
}

/// Refuses factors of which one is a vector, and whose lengths along it differ.
#[doc(hidden)]
#[track_caller]
pub fn check_inner(left: &[usize], right: &[usize]) {
    let fits = left.last() == Some(&right[right.len().saturating_sub(2)]);
    let rule = match right.len() {
        1 => "the left's last axis must be as long as the vector",
        _ => "the vector must be as long as the right's last axis but one",
    };
    crate::check::requires(fits, "matmul", left, right, rule);
}

fn row(at: usize) -> u32 {
    u32::try_from(at).expect("tensors that are indexed have less than 2^32 elements")
}

impl Tensor {
    /// The diagonal of each matrix of the last two axes, `offset` places above the main one, as a
    /// view: `[.., rows, columns] -> [.., length]`.
    ///
    /// ```
    /// # use ironlens_tensor::Tensor;
    /// let x = Tensor::from([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert_eq!(x.diagonal(1).to_vec(), [2.0, 6.0]);
    /// assert_eq!(x.diagonal(-1).to_vec(), [4.0]);
    /// ```
    ///
    /// # Panics
    /// If there are less than two axes.
    #[track_caller]
    pub fn diagonal(&self, offset: isize) -> Tensor {
        let (shape, strides) = (self.shape(), self.layout().strides());
        crate::check::at_least_two_axes("diagonal", shape);
        let n = shape.len() - 2;
        let (down, right) = if offset < 0 { (offset.unsigned_abs(), 0) } else { (0, offset.unsigned_abs()) };
        let length = shape[n].saturating_sub(down).min(shape[n + 1].saturating_sub(right));
        let start = if length == 0 { 0 } else { down * strides[n] + right * strides[n + 1] };
        self.with_layout(Layout::strided(
            [&shape[..n], &[length]].concat(),
            [&strides[..n], &[strides[n] + strides[n + 1]]].concat(),
            self.layout().offset() + start,
        ))
    }
}
