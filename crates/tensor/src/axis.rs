//! Axes by number, also counted from the last.

use crate::check;

/// The number of an axis; negative numbers count from the last, which is `-1`.
///
/// ```
/// # use ironlens_tensor::Tensor;
/// let x = Tensor::from([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
/// assert_eq!(x.sum(-1).to_vec(), x.sum(&[1]).to_vec());
/// assert_eq!(x.select(-2, 0).shape(), [3]);
/// assert_eq!(x.unsqueeze(-1).shape(), [2, 3, 1]);
/// ```
#[diagnostic::on_unimplemented(message = "an axis is a `usize`, `i32` or `isize`, not `{Self}`")]
pub trait Axis: Copy {
    /// The number as it was given.
    #[doc(hidden)]
    fn number(self) -> i128;

    /// Counted from the first axis of a tensor of shape `shape`.
    ///
    /// # Panics
    /// If there is no such axis.
    #[track_caller]
    fn of(self, shape: &[usize]) -> usize {
        check::axis_number(shape, self.number())
    }

    /// The place of a new axis in a tensor of shape `shape`; -1 is after its last.
    ///
    /// # Panics
    /// If there is no such place.
    #[track_caller]
    fn new_in(self, shape: &[usize]) -> usize {
        check::new_axis_number(shape, self.number())
    }
}

/// Several axes, or one: `&[0, 2]`, `&axes`, `-1`.
#[diagnostic::on_unimplemented(message = "axes are `&[0, 1]`, a slice of numbers or one number, not `{Self}`")]
pub trait Axes {
    /// Counted from the first axis of a tensor of shape `shape`.
    ///
    /// # Panics
    /// If one of them does not exist, or is named twice.
    #[track_caller]
    fn of(self, shape: &[usize]) -> Vec<usize>;
}

macro_rules! axis {
    ($($number:ty)*) => {$(
        impl Axis for $number {
            fn number(self) -> i128 {
                self as i128
            }
        }
        impl Axes for $number {
            #[track_caller]
            fn of(self, shape: &[usize]) -> Vec<usize> {
                vec![Axis::of(self, shape)]
            }
        }
    )*};
}
axis!(usize i32 isize);

impl<A: Axis> Axes for &[A] {
    #[track_caller]
    fn of(self, shape: &[usize]) -> Vec<usize> {
        let mut axes = Vec::with_capacity(self.len());
        for axis in self {
            axes.push(axis.of(shape));
        }
        check::axes(shape, &axes);
        axes
    }
}

impl<A: Axis, const N: usize> Axes for &[A; N] {
    #[track_caller]
    fn of(self, shape: &[usize]) -> Vec<usize> {
        self.as_slice().of(shape)
    }
}

impl<A: Axis> Axes for &Vec<A> {
    #[track_caller]
    fn of(self, shape: &[usize]) -> Vec<usize> {
        self.as_slice().of(shape)
    }
}
