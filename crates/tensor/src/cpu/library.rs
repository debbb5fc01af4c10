//! Products by a library of the system's, which is Apple's Accelerate on macOS and none elsewhere. It is used once it
//! has agreed with our own products on this very machine.
//!
//! What such a library promises is less than what ours do: not that a row alone has the bits that it has among others.

use std::any::TypeId;
use std::ffi::OsStr;
use std::fmt;
use std::sync::OnceLock;

use super::elem::Elem;
use super::matmul::{Mat, OutMat, own};

/// The environment's variable that does without the system's library: `0` always, `release` in debug builds, whose
/// tests may demand the same bits alone and in a batch.
pub const ACCELERATE_VARIABLE: &str = "IRONLENS_ACCELERATE";

#[cfg(target_os = "macos")]
const LIBRARY: Option<Sgemm> = Some(super::accelerate::sgemm);
#[cfg(not(target_os = "macos"))]
const LIBRARY: Option<Sgemm> = None;

/// Who computes products of `f32` matrices on the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Products {
    /// This library: there is no other.
    Own,
    /// Apple's Accelerate, which agreed with ours.
    Accelerate,
    /// This library, since [`ACCELERATE_VARIABLE`] asks for it.
    OwnByChoice,
    /// This library, since the system's did not agree with it.
    OwnForSafety,
}

impl fmt::Display for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Products::Own => "our own products",
            Products::Accelerate => "products by Apple's Accelerate, which agreed with ours",
            Products::OwnByChoice => "our own products, as IRONLENS_ACCELERATE asks for",
            Products::OwnForSafety => "our own products, since Apple's Accelerate disagrees with them here",
        })
    }
}

/// Who computes products of `f32` matrices on the CPU, decided once in a process.
pub fn products() -> Products {
    decided().0
}

/// What multiplies, if it is not ours.
pub(super) fn chosen() -> Option<Sgemm> {
    #[cfg(test)]
    if let Some(other) = tests::IN_ITS_PLACE.get() {
        return Some(other);
    }
    if LIBRARY.is_none() { None } else { decided().1 }
}

fn decided() -> (Products, Option<Sgemm>) {
    static DECIDED: OnceLock<(Products, Option<Sgemm>)> = OnceLock::new();
    *DECIDED.get_or_init(|| decide(std::env::var_os(ACCELERATE_VARIABLE).as_deref(), LIBRARY))
}

fn decide(variable: Option<&OsStr>, library: Option<Sgemm>) -> (Products, Option<Sgemm>) {
    match library {
        None => (Products::Own, None),
        Some(_) if variable.is_some_and(|value| value == "0" || (value == "release" && cfg!(debug_assertions))) => {
            (Products::OwnByChoice, None)
        }
        Some(library) if agrees(library) => (Products::Accelerate, Some(library)),
        Some(_) => (Products::OwnForSafety, None),
    }
}

/// Where a matrix lies, as BLAS is told: its first element, whether it is stored transposed, and the distance of its
/// rows (of its columns, if it is).
#[derive(Clone, Copy)]
#[cfg_attr(not(any(test, target_os = "macos")), expect(dead_code, reason = "only a library reads it"))]
pub(super) struct Place {
    pub ptr: *const f32,
    pub transposed: bool,
    pub stride: i32,
}

/// `out = a b`, or `out += a b` with `add`: `[m, k]` times `[k, n]`, `out` with its rows `out_stride` apart.
#[cfg_attr(not(any(test, target_os = "macos")), expect(dead_code, reason = "only a library reads it"))]
pub(super) struct Call {
    pub m: i32,
    pub n: i32,
    pub k: i32,
    pub a: Place,
    pub b: Place,
    pub out: *mut f32,
    pub out_stride: i32,
    pub add: bool,
}

/// A product of a library. It must only be called where all elements of `a`, `b` and `out` exist, and nobody else
/// touches those of `out`.
pub(super) type Sgemm = unsafe fn(&Call);

/// `None` if neither rows nor columns lie densely and apart from each other (those of an expanded matrix lie in one
/// place), or a number is too large for BLAS.
fn place<E: Elem>(m: Mat<'_, E>) -> Option<Place> {
    let ptr = m.data.as_ptr().cast();
    // Of a single line BLAS asks for a distance to the next, too.
    let apart = |stride: usize, len: usize, lines: usize| lines <= 1 || stride >= len;
    if (m.col_stride == 1 || m.cols == 1) && apart(m.row_stride, m.cols, m.rows) {
        Some(Place { ptr, transposed: false, stride: m.row_stride.max(m.cols).try_into().ok()? })
    } else if (m.row_stride == 1 || m.rows == 1) && apart(m.col_stride, m.rows, m.cols) {
        Some(Place { ptr, transposed: true, stride: m.col_stride.max(m.rows).try_into().ok()? })
    } else {
        None
    }
}

/// `out = a b`, or `out += a b` with `add`, by a library; false, and nothing done, for what BLAS cannot do.
pub(super) fn product<E: Elem>(by: Sgemm, out: &mut OutMat<'_, E>, add: bool, a: Mat<'_, E>, b: Mat<'_, E>) -> bool {
    if TypeId::of::<E>() != TypeId::of::<f32>() {
        return false;
    }
    let sizes = [a.rows, b.cols, a.cols].map(i32::try_from);
    let (Some(pa), Some(pb), [Ok(m), Ok(n), Ok(k)]) = (place(a), place(b), sizes) else { return false };
    let Ok(out_stride) = i32::try_from(out.row_stride.max(b.cols)) else { return false };
    // SAFETY: `E` is f32; `Mat` and `OutMat` guarantee that the elements exist and that those of `out` are ours alone.
    unsafe { by(&Call { m, n, k, a: pa, b: pb, out: out.ptr.cast(), out_stride, add }) };
    true
}

/// Rows, columns and depth of the products that are compared: single ones, ends of tiles, and a whole tile.
const SIZES: [(usize, usize, usize); 8] =
    [(1, 1, 1), (1, 7, 5), (5, 1, 3), (3, 5, 1), (4, 4, 4), (17, 33, 64), (65, 31, 130), (96, 96, 96)];

/// Largest error for each number that is summed, none of which is above 1.
const TOLERANCE: f32 = 1e-6;

/// Whether a library's products are ours to rounding: as they are and transposed, with gaps between rows that are left
/// alone, added to what was there and in place of what was not even a number.
fn agrees(library: Sgemm) -> bool {
    // Numbers between -1 and 1 with no pattern, from the fractional parts of multiples of the golden ratio.
    let draw = |len: usize, from: f32| (0..len).map(move |i| ((i as f32 + from) * 0.618_034).fract() * 2.0 - 1.0);
    let turns = [(false, false), (true, false), (false, true), (true, true)];
    let agrees = |(m, n, k): (usize, usize, usize), (turn_a, turn_b): (bool, bool), add: bool| {
        const GAP: usize = 3;
        const UNTOUCHED: f32 = 7.5;
        let (a, b): (Vec<f32>, Vec<f32>) =
            (draw((m + GAP) * (k + GAP), 0.25).collect(), draw((k + GAP) * (n + GAP), 0.75).collect());
        let matrix = |data, rows: usize, cols: usize, turned: bool| match turned {
            false => Mat::new(data, rows, cols, cols + GAP, 1),
            true => Mat::new(data, cols, rows, rows + GAP, 1).t(),
        };
        let (a, b) = (matrix(&a, m, k, turn_a), matrix(&b, k, n, turn_b));
        // What stands in a result before it is written to is no number.
        let before = if add { 0.5 } else { f32::NAN };
        let start: Vec<f32> = (0..m * (n + GAP)).map(|i| if i % (n + GAP) < n { before } else { UNTOUCHED }).collect();
        let (mut theirs, mut ours) = (start.clone(), start);
        if !product(library, &mut OutMat::new(&mut theirs, m, n, n + GAP), add, a, b) {
            return false;
        }
        own(OutMat::new(&mut ours, m, n, n + GAP), add, a, b, faer::Par::Seq);
        let allowed = TOLERANCE * (k as f32 + 1.0);
        theirs.iter().zip(&ours).enumerate().all(|(i, (x, y))| {
            // Not a number is within nothing.
            if i % (n + GAP) < n { (x - y).abs() <= allowed } else { *x == UNTOUCHED }
        })
    };
    SIZES.iter().all(|&size| turns.iter().all(|&turn| [false, true].iter().all(|&add| agrees(size, turn, add))))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{DType, Device, Rng, Tensor};

    thread_local! {
        /// A library for this thread's products, as macOS has one for all.
        pub(super) static IN_ITS_PLACE: Cell<Option<Sgemm>> = const { Cell::new(None) };
        static CALLS: Cell<usize> = const { Cell::new(0) };
    }

    /// `out = scale a b + keep out`, by the definition; where `keep` is `None` what was there is not read.
    fn multiply(call: &Call, scale: f32, keep: Option<f32>) {
        let at = |place: Place, row: i32, col: i32| {
            let (row, col) = if place.transposed { (col, row) } else { (row, col) };
            // SAFETY: whoever calls a library promises that its matrices are there.
            unsafe { *place.ptr.offset(row as isize * place.stride as isize + col as isize) }
        };
        for i in 0..call.m {
            for j in 0..call.n {
                let sum: f32 = (0..call.k).map(|k| at(call.a, i, k) * at(call.b, k, j)).sum();
                // SAFETY: likewise, and the result is the library's alone.
                let out = unsafe { &mut *call.out.offset(i as isize * call.out_stride as isize + j as isize) };
                *out = scale * sum + keep.map_or(0.0, |keep| keep * *out);
            }
        }
    }

    fn right(call: &Call) {
        CALLS.set(CALLS.get() + 1);
        multiply(call, 1.0, call.add.then_some(1.0));
    }

    // Libraries that are wrong in one way each.

    fn rounds_badly(call: &Call) {
        multiply(call, 1.001, call.add.then_some(1.0));
    }

    fn never_adds(call: &Call) {
        multiply(call, 1.0, None);
    }

    fn reads_what_it_replaces(call: &Call) {
        multiply(call, 1.0, Some(if call.add { 1.0 } else { 0.0 }));
    }

    fn never_transposes(call: &Call) {
        let square = call.m == call.n && call.n == call.k;
        let b = Place { transposed: call.b.transposed && !square, ..call.b };
        multiply(&Call { b, ..*call }, 1.0, call.add.then_some(1.0));
    }

    fn writes_beside(call: &Call) {
        right(call);
        if call.m > 1 {
            // SAFETY: between the end of the first row and the second, where the check has its gaps.
            unsafe { *call.out.offset(call.n as isize) = 0.0 };
        }
    }

    #[test]
    fn a_library_is_taken_if_it_agrees_and_is_wanted() {
        let taken = |variable: Option<&str>, library| decide(variable.map(OsStr::new), library).0;
        assert_eq!(taken(None, None), Products::Own);
        assert_eq!(taken(None, Some(right)), Products::Accelerate);
        assert_eq!(taken(Some("1"), Some(right)), Products::Accelerate);
        assert_eq!(taken(Some("0"), Some(right)), Products::OwnByChoice);
        let in_debug = if cfg!(debug_assertions) { Products::OwnByChoice } else { Products::Accelerate };
        assert_eq!(taken(Some("release"), Some(right)), in_debug);
        let wrong: [Sgemm; 5] = [rounds_badly, never_adds, reads_what_it_replaces, never_transposes, writes_beside];
        for (i, wrong) in wrong.into_iter().enumerate() {
            let (products, library) = decide(None, Some(wrong));
            assert!(products == Products::OwnForSafety && library.is_none(), "number {i}");
        }
    }

    #[test]
    fn products_of_f32_go_to_the_library_and_agree() {
        let mut rng = Rng::new(5, 0);
        let mut random = |shape: &[usize]| rng.normal(shape, 0.0, 1.0, &Device::Cpu);
        let (a, b, turned, bias) = (random(&[19, 40]), random(&[40, 23]), random(&[23, 40]), random(&[23]));
        let all = || {
            let narrow = b.narrow(1, 3, 9);
            let mut results = vec![a.matmul(&b), a.matmul(&turned.t()), a.t().matmul(&a), a.matmul(&narrow)];
            results.extend([a.linear(&b, Some(&bias), None), a.narrow(0, 0, 1).matmul(&b)]);
            results.push(a.matmul(&b.to_dtype(DType::Bf16)));
            results
        };
        let ours = all();
        IN_ITS_PLACE.set(Some(right));
        CALLS.set(0);
        let theirs = all();
        let calls = CALLS.get();
        let exact = a.to_dtype(DType::F64).matmul(&b.to_dtype(DType::F64));
        IN_ITS_PLACE.set(None);
        assert_eq!(calls, CALLS.get(), "doubles are ours to multiply");
        assert!(calls >= 6, "{calls} calls");
        for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert!((ours - theirs).abs().max(&[0, 1]).item() < 1e-4, "product {i}");
        }
        let error = (exact - theirs[0].to_dtype(DType::F64)).abs().max(&[0, 1]).item();
        assert!(error < 1e-4, "{error}");
        assert!(cfg!(target_os = "macos") || super::products() == Products::Own);
    }

    #[test]
    fn what_blas_cannot_do_is_left_to_us() {
        let x: Tensor = Tensor::arange(24, DType::F32, &Device::Cpu).reshape(&[2, 3, 4]);
        let data = x.to_vec();
        let neither = Mat::new(&data, 2, 3, 12, 4);
        let mut out = [0.0; 4];
        assert!(!product(right, &mut OutMat::new(&mut out, 2, 2, 2), false, neither, neither.t()));
        // Rows that lie in one place, or over each other: BLAS would go on into the memory behind them.
        for (row_stride, turned) in [(0, false), (0, true), (1, false), (1, true)] {
            let rows = Mat::new(&data, 5, 4, row_stride, 1);
            let rows = if turned { rows.t() } else { rows };
            let whole = Mat::new(&data, rows.cols, 2, 2, 1);
            let mut out = vec![0.0; 2 * rows.rows];
            let mut out = OutMat::new(&mut out, rows.rows, 2, 2);
            assert!(!product(right, &mut out, false, rows, whole), "{row_stride} {turned}");
        }
        let doubles = [1.0f64; 4];
        let square = Mat::new(&doubles, 2, 2, 2, 1);
        assert!(!product(right, &mut OutMat::new(&mut [0.0f64; 4], 2, 2, 2), false, square, square));
        assert_eq!(out, [0.0; 4]);
    }
}
