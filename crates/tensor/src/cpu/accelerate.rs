//! Apple's Accelerate framework, which reaches the matrix units of Apple silicon and ships with the system.

use std::ffi::{c_float, c_int};

use super::library::{Call, Place};

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

/// The product, by Apple's library.
///
/// # Safety
/// As [`super::library::Sgemm`] has it.
pub(super) unsafe fn sgemm(call: &Call) {
    let turn = |place: Place| if place.transposed { TRANSPOSED } else { AS_IS };
    let &Call { m, n, k, a, b, out, out_stride, add } = call;
    let beta = if add { 1.0 } else { 0.0 };
    // SAFETY: the caller's promise is what the library asks for.
    unsafe {
        cblas_sgemm(ROW_MAJOR, turn(a), turn(b), m, n, k, 1.0, a.ptr, a.stride, b.ptr, b.stride, beta, out, out_stride);
    }
}
