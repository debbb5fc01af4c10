//! The types that memory holds: those that are computed in, and `bf16` and `f16`, which are widened where they are read.

use std::sync::Arc;

use half::{bf16, f16};

use super::elem::Elem;
use super::simd::LANES;
use super::storage::{Buffer, CpuStorage, Pool};

/// An element type of CPU memory. Sealed: `f32`, `f64`, `bf16` and `f16`.
pub trait Stored: Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    /// Rounds a double to this type.
    fn from_f64(x: f64) -> Self;
    /// Widens to a double.
    fn to_f64(self) -> f64;

    #[doc(hidden)]
    fn buffer(storage: &CpuStorage) -> &Buffer<Self>;
    #[doc(hidden)]
    fn buffer_mut(storage: &mut CpuStorage) -> &mut Buffer<Self>;
    #[doc(hidden)]
    fn wrap(buffer: Buffer<Self>) -> CpuStorage;
    #[doc(hidden)]
    fn pool() -> &'static Pool<Self>;
}

/// What products and tables read as elements of type `E`: such elements, or what is widened to them, exactly.
pub(super) trait Widen<E: Elem>: Stored {
    /// As an element.
    fn widen(self) -> E;

    /// [`Widen::widen`] of the first [`LANES`]. Products of a few rows ask for it, once
    /// [`super::few_rows::fits`] said that this machine can.
    #[inline(always)]
    fn widen_lanes(from: &[Self]) -> [E; LANES] {
        // A plain loop: the compiler keeps its array in registers, and one that a closure makes in memory.
        let mut to = [E::ZERO; LANES];
        for (to, &w) in to.iter_mut().zip(&from[..LANES]) {
            *to = w.widen();
        }
        to
    }

    /// The same memory, if it holds elements as they are.
    fn as_elems(from: &[Self]) -> Option<&[E]>;
}

impl<E: Elem> Widen<E> for E {
    #[inline(always)]
    fn widen(self) -> E {
        self
    }

    fn as_elems(from: &[E]) -> Option<&[E]> {
        Some(from)
    }
}

impl Widen<f32> for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn as_elems(_: &[bf16]) -> Option<&[f32]> {
        None
    }
}

impl Widen<f32> for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn widen_lanes(from: &[f16]) -> [f32; LANES] {
        let from = from.first_chunk().expect("so many were asked for");
        debug_assert!(super::simd::has_avx2());
        // SAFETY: asked for where `fits`, which is: where there is AVX2, and F16C with it.
        unsafe { super::simd::widen_f16(from) }
    }

    fn as_elems(_: &[f16]) -> Option<&[f32]> {
        None
    }
}

/// What a type of memory is, but for its rounding.
macro_rules! stored {
    ($($T:ident in $Variant:ident: $from:expr, $to:expr;)*) => {$(
        impl Stored for $T {
            #[inline(always)]
            fn from_f64(x: f64) -> $T {
                let from: fn(f64) -> $T = $from;
                from(x)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                let to: fn($T) -> f64 = $to;
                to(self)
            }
            fn buffer(storage: &CpuStorage) -> &Buffer<$T> {
                match storage {
                    CpuStorage::$Variant(b) => b,
                    other => unreachable!("a kernel for {} was given {}", stringify!($T), other.dtype()),
                }
            }
            fn buffer_mut(storage: &mut CpuStorage) -> &mut Buffer<$T> {
                match storage {
                    CpuStorage::$Variant(b) => Arc::make_mut(b),
                    other => unreachable!("a kernel for {} was given {}", stringify!($T), other.dtype()),
                }
            }
            fn wrap(buffer: Buffer<$T>) -> CpuStorage {
                CpuStorage::$Variant(Arc::new(buffer))
            }
            fn pool() -> &'static Pool<$T> {
                static POOL: Pool<$T> = Pool::new();
                &POOL
            }
        }
    )*};
}
stored! {
    f32 in F32: |x| x as f32, f64::from;
    f64 in F64: |x| x, |x| x;
    bf16 in Bf16: |x| bf16::from_f32(rounded_to_odd(x)), |x| f64::from(Widen::<f32>::widen(x));
    f16 in F16: |x| f16::from_f32(rounded_to_odd(x)), |x| f64::from(Widen::<f32>::widen(x));
}

/// A double cut to an `f32` whose last bit says if anything was cut off: rounded further, it gives what rounding the
/// double at once does (`half`'s own conversions of doubles lose the lower half of them).
#[inline(always)]
fn rounded_to_odd(x: f64) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    if back == x || x.is_nan() {
        return near;
    }
    let bits = near.to_bits();
    f32::from_bits(if back.abs() > x.abs() { bits - 1 } else { bits } | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that 16 bits can be, and back.
    #[test]
    fn widening_is_exact() {
        for bits in 0..=u16::MAX {
            let (b, h) = (bf16::from_bits(bits), f16::from_bits(bits));
            let lanes = |lane: f32| [lane; LANES];
            if b.is_nan() {
                assert!(Widen::<f32>::widen(b).is_nan());
            } else {
                assert_eq!(f64::from(Widen::<f32>::widen(b)), bf16::to_f64_const(b));
                assert_eq!(<bf16 as Stored>::from_f64(Stored::to_f64(b)).to_bits(), bits);
            }
            assert_eq!(bf16::widen_lanes(&[b; LANES]).map(f32::to_bits), lanes(b.widen()).map(f32::to_bits));
            if h.is_nan() {
                assert!(Widen::<f32>::widen(h).is_nan());
                continue;
            }
            assert_eq!(f64::from(Widen::<f32>::widen(h)), f16::to_f64_const(h));
            assert_eq!(<f16 as Stored>::from_f64(Stored::to_f64(h)).to_bits(), bits);
            if super::super::few_rows::fits() {
                assert_eq!(f16::widen_lanes(&[h; LANES]), lanes(h.widen()));
            }
        }
    }

    #[test]
    fn ties_round_to_even() {
        let b = |x: f64| <bf16 as Stored>::from_f64(x).to_bits();
        let h = |x: f64| <f16 as Stored>::from_f64(x).to_bits();
        let halfway = |bits: u16| f64::from(f32::from_bits((u32::from(bits) << 16) | 0x8000));
        assert_eq!([b(halfway(0x3f80)), b(halfway(0x3f81)), b(halfway(0xbf81))], [0x3f80, 0x3f82, 0xbf82]);
        assert_eq!([h(1.0 + 2f64.powi(-11)), h(1.0 + 3.0 * 2f64.powi(-11))], [0x3c00, 0x3c02]);
        // A bit above or below halfway, which rounding to f32 first would lose.
        assert_eq!(
            [h(1.0 + 2f64.powi(-11) + 2f64.powi(-40)), h(1.0 + 3.0 * 2f64.powi(-11) - 2f64.powi(-40))],
            [0x3c01; 2]
        );
        assert_eq!([h(1e300), h(-65520.0), h(65519.0)], [0x7c00, 0xfc00, 0x7bff]);
        assert!(<f16 as Stored>::from_f64(f64::NAN).is_nan() && <bf16 as Stored>::from_f64(f64::NAN).is_nan());
    }
}
