//! A shape and its numbers: all that a figure needs to know about a tensor.

use crate::ReportError;

/// Numbers with a shape, in row-major order.
///
/// This is the only way data enters the crate, so figures work with any tensor
/// library: give the dimensions and a slice.
///
/// ```
/// use ironlens_report::Array;
/// let a = Array::new([2, 3], &[0., 1., 2., 3., 4., 5.])?;
/// assert_eq!(a.at(1)?.data(), [3., 4., 5.]);
/// assert!(Array::new([2, 2], &[1.0]).is_err());
/// # Ok::<(), ironlens_report::ReportError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Array {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Array {
    /// Copies `data` into an array of the given shape.
    ///
    /// # Errors
    /// [`ReportError::Shape`] if the shape does not hold exactly `data.len()` numbers.
    pub fn new(shape: impl Into<Vec<usize>>, data: &[f32]) -> Result<Self, ReportError> {
        Self::from_vec(shape, data.to_vec())
    }

    /// Like [`Array::new`], taking over a vector instead of copying a slice.
    ///
    /// # Errors
    /// [`ReportError::Shape`] if the shape does not hold exactly `data.len()` numbers.
    pub fn from_vec(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Result<Self, ReportError> {
        let shape = shape.into();
        let size = shape.iter().try_fold(1usize, |size, &n| size.checked_mul(n));
        if size != Some(data.len()) {
            return Err(ReportError::Shape {
                what: "an array".into(),
                expected: match size {
                    Some(n) => format!("{n} numbers, the product of its shape"),
                    None => "a shape whose product fits in memory".into(),
                },
                got: format!("shape {shape:?} with {} numbers", data.len()),
            });
        }
        Ok(Self { shape, data })
    }

    /// A matrix from rows of equal length.
    ///
    /// # Errors
    /// [`ReportError::Shape`] if the rows differ in length.
    pub fn from_rows<R: AsRef<[f32]>>(rows: &[R]) -> Result<Self, ReportError> {
        let cols = rows.first().map_or(0, |r| r.as_ref().len());
        if let Some(odd) = rows.iter().position(|r| r.as_ref().len() != cols) {
            return Err(ReportError::Shape {
                what: format!("row {odd}"),
                expected: format!("{cols} numbers, as row 0 has"),
                got: format!("{} numbers", rows[odd].as_ref().len()),
            });
        }
        let data = rows.iter().flat_map(|r| r.as_ref()).copied().collect();
        Self::from_vec([rows.len(), cols], data)
    }

    /// The length of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers, in row-major order.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The `index`-th part along the first dimension.
    ///
    /// # Errors
    /// [`ReportError::Shape`] if there is no such part.
    pub fn at(&self, index: usize) -> Result<Array, ReportError> {
        match self.shape.split_first() {
            Some((&n, rest)) if index < n => {
                let size = rest.iter().product::<usize>();
                Ok(Array { shape: rest.to_vec(), data: self.data[index * size..(index + 1) * size].to_vec() })
            }
            _ => Err(ReportError::Shape {
                what: "an index into an array".into(),
                expected: format!("less than the first length of shape {:?}", self.shape),
                got: index.to_string(),
            }),
        }
    }

    /// The mean over the first dimension, for instance over heads.
    ///
    /// # Errors
    /// [`ReportError::Shape`] if the array has no first dimension or it is empty.
    pub fn mean_first(&self) -> Result<Array, ReportError> {
        match self.shape.split_first() {
            Some((&n, rest)) if n > 0 => {
                let size = rest.iter().product::<usize>();
                let data = (0..size)
                    .map(|i| {
                        let sum: f64 = (0..n).map(|k| f64::from(self.data[k * size + i])).sum();
                        (sum / n as f64) as f32
                    })
                    .collect();
                Ok(Array { shape: rest.to_vec(), data })
            }
            _ => Err(ReportError::Shape {
                what: "an array to average".into(),
                expected: "at least one part along the first dimension".into(),
                got: format!("shape {:?}", self.shape),
            }),
        }
    }

    /// Smallest and largest finite number, if there is one.
    pub(crate) fn finite_range(&self) -> Option<(f64, f64)> {
        finite_range(self.data.iter().map(|&v| f64::from(v)))
    }
}

impl From<&Array> for Array {
    fn from(array: &Array) -> Self {
        array.clone()
    }
}

pub(crate) fn finite_range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((lo, hi)) => Some((lo.min(v), hi.max(v))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked() {
        let error = Array::new([2, 3], &[1.0; 5]).unwrap_err().to_string();
        assert!(error.contains("[2, 3]") && error.contains('5'), "{error}");
        assert!(Array::new([usize::MAX, 2], &[]).is_err());
        assert!(Array::from_rows(&[vec![1.0], vec![1.0, 2.0]]).is_err());
        assert!(Array::default().at(0).is_err());
    }

    #[test]
    fn mean_over_heads() {
        let a = Array::new([2, 1, 2], &[0., 1., 2., 3.]).unwrap();
        let mean = a.mean_first().unwrap();
        assert_eq!((mean.shape(), mean.data()), (&[1, 2][..], &[1., 2.][..]));
    }

    #[test]
    fn range_skips_what_is_not_finite() {
        let a = Array::new([3], &[f32::NAN, f32::INFINITY, 2.0]).unwrap();
        assert_eq!(a.finite_range(), Some((2.0, 2.0)));
    }
}
