//! Products by Apple's Accelerate framework, which reaches the matrix units of Apple silicon.

use std::any::TypeId;
use std::ffi::{c_float, c_int};

use super::elem::Elem;
use super::matmul::{Mat, OutMat};

const ROW_MAJOR: c_int = 101;
const AS_IS: c_int = 111;
const TRANSPOSED: c_int = 112;

#[link(name = "Accelerate", kind = "framework")]
unsafe extern "C" {
    fn cblas_sgemm(
        order: c_int,
        trans_a: c_int,
        trans_b: c_int,
        m: c_int,
        n: c_int,
        k: c_int,
        alpha: c_float,
        a: *const c_float,
        lda: c_int,
        b: *const c_float,
        ldb: c_int,
        beta: c_float,
        c: *mut c_float,
        ldc: c_int,
    );
}

/// How BLAS is told where a matrix lies: pointer, transposition, distance of its rows (or, if
/// transposed, columns). `None` if neither lies densely, or a number is too large.
fn place<E: Elem>(m: Mat<'_, E>) -> Option<(*const c_float, c_int, c_int)> {
    let (ptr, row_stride, col_stride) = m.place();
    if col_stride == 1 || m.cols == 1 {
        Some((ptr.cast(), AS_IS, row_stride.max(m.cols).try_into().ok()?))
    } else if row_stride == 1 || m.rows == 1 {
        Some((ptr.cast(), TRANSPOSED, col_stride.max(m.rows).try_into().ok()?))
    } else {
        None
    }
}

/// `out = a b`, or `out += a b` with `add`; false, and nothing done, for what BLAS cannot do.
pub(super) fn gemm<E: Elem>(out: &mut OutMat<'_, E>, add: bool, a: Mat<'_, E>, b: Mat<'_, E>) -> bool {
    if TypeId::of::<E>() != TypeId::of::<f32>() {
        return false;
    }
    let sizes = [a.rows, b.cols, a.cols].map(c_int::try_from);
    let (Some(pa), Some(pb), [Ok(m), Ok(n), Ok(k)]) = (place(a), place(b), sizes) else { return false };
    let (ptr, row_stride) = out.place();
    let Ok(ldc) = c_int::try_from(row_stride.max(b.cols)) else { return false };
    let beta = if add { 1.0 } else { 0.0 };
    // SAFETY: `E` is f32; `Mat` and `OutMat` guarantee that the elements exist and that those of
    // `out` are ours alone.
    unsafe {
        cblas_sgemm(ROW_MAJOR, pa.1, pb.1, m, n, k, 1.0, pa.0, pa.2, pb.0, pb.2, beta, ptr.cast(), ldc);
    }
    true
}
