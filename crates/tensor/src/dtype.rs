//! Element types: `f32` everywhere, `f64` on the CPU for telling rounding from bugs.

use crate::cpu::storage::{Buffer, CpuStorage};

/// The element type of a [`Tensor`](crate::Tensor).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit floating point, the type that models run in.
    F32,
    /// 64-bit floating point, on the CPU only: gradient checks and reference runs.
    F64,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F64 => 8,
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
        })
    }
}

/// An element type that CPU kernels are written over. Sealed: `f32` and `f64`.
pub trait Elem:
    faer::traits::ComplexField
    + Copy
    + Default
    + PartialOrd
    + Send
    + Sync
    + std::fmt::Debug
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + std::ops::DivAssign
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Negative infinity.
    const NEG_INFINITY: Self;

    /// Rounds a double to this type.
    fn from_f64(x: f64) -> Self;
    /// Widens to a double.
    fn to_f64(self) -> f64;
    /// e^x, within 2 ulp.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// The error function; absolute error below 3e-7 in `f32`.
    fn erf(self) -> Self;
    /// Sine.
    fn sin(self) -> Self;
    /// Cosine.
    fn cos(self) -> Self;
    /// Hyperbolic tangent, within 2 ulp.
    fn tanh(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Fused multiply-add, `self * a + b`.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// `self` to the power `p`.
    fn powf(self, p: Self) -> Self;
    /// False for infinities and NaN.
    fn is_finite(self) -> bool;
    /// True for NaN alone.
    fn is_nan(self) -> bool;

    #[doc(hidden)]
    fn buffer(storage: &CpuStorage) -> &Buffer<Self>;
    #[doc(hidden)]
    fn buffer_mut(storage: &mut CpuStorage) -> &mut Buffer<Self>;
    #[doc(hidden)]
    fn wrap(buffer: Buffer<Self>) -> CpuStorage;
    #[doc(hidden)]
    fn pool() -> &'static crate::cpu::storage::Pool<Self>;
}
