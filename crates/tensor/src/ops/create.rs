//! Tensors from little: counted, spaced, one-hot, triangular, from nested arrays.

use crate::{DType, Device, IndexTensor, Tensor, check};

/// Values that were computed in double precision, as a tensor of `dtype` on `device`.
#[track_caller]
pub(crate) fn home(values: Vec<f64>, shape: &[usize], dtype: DType, device: &Device) -> Tensor {
    // The last conversion tells of a type that the device does not have.
    Tensor::from_vec_f64(values, shape).to_dtype(dtype).to_device(device).to_dtype(dtype)
}

impl Tensor {
    /// All elements 1.
    #[track_caller]
    pub fn ones(shape: &[usize], dtype: DType, device: &Device) -> Tensor {
        Tensor::full(shape, 1.0, dtype, device)
    }

    /// 1s of this tensor's dtype, device and shape.
    pub fn ones_like(&self) -> Tensor {
        Tensor::ones(self.shape(), self.dtype(), &self.device())
    }

    /// 0, 1, .. `n - 1`. For other starts and steps, `Tensor::arange(..) * step + start`.
    #[track_caller]
    pub fn arange(n: usize, dtype: DType, device: &Device) -> Tensor {
        home((0..n).map(|i| i as f64).collect(), &[n], dtype, device)
    }

    /// `n` evenly spaced numbers from `start` to `end`, both included.
    ///
    /// ```
    /// # use ironlens_tensor::{DType, Device, Tensor};
    /// assert_eq!(Tensor::linspace(0.0, 1.0, 5, DType::F32, &Device::Cpu).to_vec(), [0.0, 0.25, 0.5, 0.75, 1.0]);
    /// ```
    #[track_caller]
    pub fn linspace(start: f64, end: f64, n: usize, dtype: DType, device: &Device) -> Tensor {
        let step = (end - start) / n.saturating_sub(1).max(1) as f64;
        // From both ends to the middle, so that the last is `end` to the bit.
        let at = |i: usize| if i < n.div_ceil(2) { start + step * i as f64 } else { end - step * (n - 1 - i) as f64 };
        home((0..n).map(at).collect(), &[n], dtype, device)
    }

    /// 1 at each index, 0 elsewhere: `ids` `[..]` below `n` become `[.., n]`.
    ///
    /// ```
    /// # use ironlens_tensor::{DType, Device, IndexTensor, Tensor};
    /// let x = Tensor::one_hot(&IndexTensor::from([2, 0]), 3, DType::F32, &Device::Cpu);
    /// assert_eq!(x.to_vec(), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If an index is not below `n`.
    #[track_caller]
    pub fn one_hot(ids: &IndexTensor, n: usize, dtype: DType, device: &Device) -> Tensor {
        check::ids("one_hot", ids, n, &[n]);
        let mut values = vec![0.0; check::numel(&[ids.numel(), n])];
        ids.as_slice().iter().zip(values.chunks_mut(n.max(1))).for_each(|(&id, row)| row[id as usize] = 1.0);
        home(values, &[ids.shape(), &[n]].concat(), dtype, device)
    }

    /// The identity matrix `[n, n]`.
    #[track_caller]
    pub fn eye(n: usize, dtype: DType, device: &Device) -> Tensor {
        let mut values = vec![0.0; check::numel(&[n, n])];
        values.iter_mut().step_by(n + 1).for_each(|v| *v = 1.0);
        home(values, &[n, n], dtype, device)
    }

    /// 1 on and below the diagonal that is `diagonal` places above the main one, else 0: numpy's
    /// `tri`. `tri(n, n, 0, ..)` says which keys a causal query sees.
    #[track_caller]
    pub fn tri(rows: usize, columns: usize, diagonal: isize, dtype: DType, device: &Device) -> Tensor {
        let mut values = vec![0.0; check::numel(&[rows, columns])];
        for (r, row) in values.chunks_mut(columns.max(1)).enumerate() {
            let ones = (r as isize).saturating_add(diagonal).saturating_add(1).clamp(0, columns as isize);
            row[..ones as usize].fill(1.0);
        }
        home(values, &[rows, columns], dtype, device)
    }

    /// [`Tensor::tri`] for the matrices of the last two axes.
    #[doc(hidden)]
    #[track_caller]
    pub fn triangle(&self, op: &str, diagonal: isize) -> Tensor {
        check::at_least_two_axes(op, self.shape());
        let n = self.ndim();
        Tensor::tri(self.dim(n - 2), self.dim(n - 1), diagonal, self.dtype(), &self.device())
    }
}

/// Nested arrays and vectors of `f32` become tensors on the CPU.
macro_rules! nested {
    ($(($($n:ident),*) $array:ty, |$x:ident| $values:expr, [$($shape:expr),*];)*) => {$(
        impl<$(const $n: usize),*> From<$array> for Tensor {
            #[track_caller]
            fn from($x: $array) -> Tensor {
                Tensor::from_vec($values, &[$($shape),*], &Device::Cpu)
            }
        }
    )*};
}
nested! {
    (A) [f32; A], |x| x.to_vec(), [A];
    (A, B) [[f32; B]; A], |x| x.concat(), [A, B];
    (A, B, C) [[[f32; C]; B]; A], |x| x.as_flattened().concat(), [A, B, C];
    (A, B, C, D) [[[[f32; D]; C]; B]; A], |x| x.as_flattened().as_flattened().concat(), [A, B, C, D];
}

impl From<Vec<f32>> for Tensor {
    /// `[n]` on the CPU.
    fn from(values: Vec<f32>) -> Tensor {
        let n = values.len();
        Tensor::from_vec(values, &[n], &Device::Cpu)
    }
}

impl From<Vec<Vec<f32>>> for Tensor {
    /// `[row, column]` on the CPU.
    ///
    /// # Panics
    /// If rows differ in length.
    #[track_caller]
    fn from(rows: Vec<Vec<f32>>) -> Tensor {
        let width = check::even_rows(&rows);
        Tensor::from_vec(rows.concat(), &[rows.len(), width], &Device::Cpu)
    }
}
