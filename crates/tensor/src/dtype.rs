//! Element types.

/// The element type of a [`Tensor`](crate::Tensor).
///
/// Tensors are computed with in [`DType::F32`] (and [`DType::F64`]). The types of 16 bits are for *storing* weights:
/// such tensors are views, copies, parts and joins like any other. They are read, and widened to `f32`, as the right
/// operand of [`Tensor::matmul`](crate::Tensor::matmul) and [`Tensor::linear`](crate::Tensor::linear), as the table of
/// [`Tensor::embed`](crate::Tensor::embed), and by `gather`, `index_select` and `flip`. Other ops refuse them.
///
/// ```
/// # use ironlens_tensor::{DType, Tensor};
/// let w = Tensor::from([[1.0, 0.1], [0.2, 1.0]]).to_dtype(DType::Bf16);
/// let y = Tensor::from([[1.0, 2.0]]).matmul(&w);
/// assert_eq!(y.dtype(), DType::F32);
/// assert_eq!(y.to_vec(), Tensor::from([[1.0, 2.0]]).matmul(&w.to_dtype(DType::F32)).to_vec());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit floating point, the type that models run in.
    F32,
    /// 64-bit floating point, on the CPU only: gradient checks and reference runs.
    F64,
    /// 16 bits for storage, on the CPU only: the upper half of an `f32`.
    Bf16,
    /// 16 bits for storage, on the CPU only: IEEE 754's half precision.
    F16,
}

impl DType {
    /// All of them.
    pub const ALL: [DType; 4] = [DType::F32, DType::F64, DType::Bf16, DType::F16];

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F64 => 8,
            DType::Bf16 | DType::F16 => 2,
        }
    }

    /// Whether it is for storage alone: `bf16` and `f16`.
    pub fn is_storage(self) -> bool {
        match self {
            DType::F32 | DType::F64 => false,
            DType::Bf16 | DType::F16 => true,
        }
    }

    /// The type that is computed in: `f32` for those that are for storage alone, and their gradients' type.
    #[must_use]
    pub fn computed(self) -> DType {
        if self.is_storage() { DType::F32 } else { self }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
        })
    }
}
