//! Vectorised scalar functions and the run-time choice of instruction set.
//!
//! Kernels are plain loops over `#[inline(always)]` functions without branches; [`simd!`] compiles
//! the loop once per instruction set (AVX-512, AVX2 + FMA or baseline on x86-64, NEON on Apple silicon) and
//! picks at run time. Multiply-adds are written as `mul_add` and sums have a fixed number of
//! lanes, so every instruction set gives the same bits.

use super::elem::Elem;

/// Evaluates an expression compiled for the best instruction set of this machine. Everything hot
/// that it calls must be `#[inline(always)]`.
///
/// The expression is written out once per instruction set, as a closure that is always inlined: a function that is not
/// inlined does not get its caller's instructions.
macro_rules! simd {
    ($body:expr) => {{
        #[cfg(target_arch = "x86_64")]
        {
            if $crate::cpu::simd::has_avx512() {
                // SAFETY: the processor has what the function is compiled for.
                unsafe {
                    $crate::cpu::simd::with_avx512(
                        #[inline(always)]
                        || $body,
                    )
                }
            } else if $crate::cpu::simd::has_avx2() {
                // SAFETY: the processor has what the function is compiled for.
                unsafe {
                    $crate::cpu::simd::with_avx2(
                        #[inline(always)]
                        || $body,
                    )
                }
            } else {
                $body
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        $body
    }};
}
pub(crate) use simd;

#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("fma")
        && std::arch::is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn has_avx512() -> bool {
    has_avx2()
        && std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512dq")
        && std::arch::is_x86_feature_detected!("avx512bw")
}

/// Runs `f`, which is inlined here and so compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512vl,avx512dq,avx512bw")]
pub(crate) fn with_avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Runs `f`, which is inlined here and so compiled for AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn with_avx2<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Half precision, widened; exact.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "f16c")]
pub(super) fn widen_f16(from: &[half::f16; LANES]) -> [f32; LANES] {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let mut to = [0.0; LANES];
    for (from, to) in from.as_chunks::<8>().0.iter().zip(to.as_chunks_mut::<8>().0) {
        // SAFETY: both are 8 elements long.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast()))) };
    }
    to
}

/// A square turned, in registers: pairs of rows are interleaved, then pairs of pairs, then halves change places.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx")]
pub(super) fn turn_f32(rows: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
    use std::arch::x86_64::{
        _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps,
        _mm256_unpacklo_ps,
    };
    // SAFETY: rows are 8 elements long.
    let r = rows.map(|row| unsafe { _mm256_loadu_ps(row.as_ptr()) });
    // [low 0 and 1, high 0 and 1, low 2 and 3, ..]
    let mut pairs = r;
    for i in (0..8).step_by(2) {
        pairs[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    // Columns 0 to 3 (and, in the upper half, 4 to 7) of rows 0 to 3, then those of rows 4 to 7.
    let mut fours = pairs;
    for i in [0, 4] {
        for j in 0..2 {
            fours[i + 2 * j] = _mm256_shuffle_ps::<0x44>(pairs[i + j], pairs[i + j + 2]);
            fours[i + 2 * j + 1] = _mm256_shuffle_ps::<0xee>(pairs[i + j], pairs[i + j + 2]);
        }
    }
    let mut turned = [[0.0; 8]; 8];
    for j in 0..4 {
        // SAFETY: rows are 8 elements long.
        unsafe {
            _mm256_storeu_ps(turned[j].as_mut_ptr(), _mm256_permute2f128_ps::<0x20>(fours[j], fours[j + 4]));
            _mm256_storeu_ps(turned[j + 4].as_mut_ptr(), _mm256_permute2f128_ps::<0x31>(fours[j], fours[j + 4]));
        }
    }
    turned
}

/// Asks for the memory at `x`, which is read soon; a hint, whatever lies there.
#[inline(always)]
pub(crate) fn prefetch<T>(x: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, and no address makes it fail.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(x.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = x;
}

/// Elements side by side in a register or two. Sums of a slice keep this many partial sums; fixed, so that results do not depend on
/// the instruction set.
pub(crate) const LANES: usize = 16;

/// `f` of each element, in place, [`LANES`] at a time at the end as well, where the rest of a long function's row would
/// else be computed one by one.
#[inline(always)]
pub(crate) fn map_lanes<E: Elem>(x: &mut [E], f: impl Fn(E) -> E) {
    let (whole, rest) = x.as_chunks_mut::<LANES>();
    for chunk in whole {
        chunk.iter_mut().for_each(|v| *v = f(*v));
    }
    if let Some(&first) = rest.first() {
        let mut last = [first; LANES];
        last[..rest.len()].copy_from_slice(rest);
        last.iter_mut().for_each(|v| *v = f(*v));
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Sums `f(x)` over a slice in [`LANES`] lanes, folded pairwise.
#[inline(always)]
pub(crate) fn sum_map<E: Elem>(x: &[E], f: impl Fn(E) -> E) -> E {
    let mut acc = [E::ZERO; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (a, &v) in acc.iter_mut().zip(chunk) {
            *a += f(v);
        }
    }
    for (a, &v) in acc.iter_mut().zip(tail) {
        *a += f(v);
    }
    fold(acc)
}

/// Sums `f(x, y)` over two slices of one length, as [`sum_map`].
#[inline(always)]
pub(crate) fn sum_map2<E: Elem>(x: &[E], y: &[E], f: impl Fn(E, E) -> E) -> E {
    let mut acc = [E::ZERO; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (xt, yt) = (xs.remainder(), ys.remainder());
    for (cx, cy) in xs.zip(ys) {
        for ((a, &v), &w) in acc.iter_mut().zip(cx).zip(cy) {
            *a += f(v, w);
        }
    }
    for ((a, &v), &w) in acc.iter_mut().zip(xt).zip(yt) {
        *a += f(v, w);
    }
    fold(acc)
}

#[inline(always)]
fn fold<E: Elem>(mut acc: [E; LANES]) -> E {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            let other = acc[i + width];
            acc[i] += other;
        }
        width /= 2;
    }
    acc[0]
}

/// The largest element, NaN if there is one; negative infinity for an empty slice.
#[inline(always)]
pub(crate) fn max_of<E: Elem>(x: &[E]) -> E {
    let mut acc = [E::NEG_INFINITY; LANES];
    // A sum that NaN poisons: `max` by comparison would drop it.
    let mut nan = [E::ZERO; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for ((a, n), &v) in acc.iter_mut().zip(&mut nan).zip(chunk) {
            *a = if v > *a { v } else { *a };
            *n = if v.is_nan() { v } else { *n };
        }
    }
    for ((a, n), &v) in acc.iter_mut().zip(&mut nan).zip(tail) {
        *a = if v > *a { v } else { *a };
        *n = if v.is_nan() { v } else { *n };
    }
    let mut best = acc[0];
    for v in acc {
        best = if v > best { v } else { best };
    }
    for n in nan {
        if n.is_nan() {
            return n;
        }
    }
    best
}

/// e^x. Cody-Waite reduction to |r| <= ln(2)/2 and a degree-6 Taylor-like polynomial; 2^n is
/// applied in two halves so that results down to the smallest subnormal and up to the largest
/// float come out right. Relative error below 1.5e-7.
#[inline(always)]
pub(super) fn exp_f32(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HI: f32 = 0.693_359_4; // 9 significant bits, so n * LN2_HI is exact
    const LN2_LO: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to an integer, which then sits in the low bits.
    const ROUND: f32 = 12_582_912.0;

    // Comparisons rather than min/max: NaN must come through.
    let clamped = if x < -104.0 { -104.0 } else { x };
    let clamped = if clamped > 89.0 { 89.0 } else { clamped };
    let shifted = clamped.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = (-n).mul_add(LN2_HI, clamped);
    let r = (-n).mul_add(LN2_LO, r);
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5e-1);
    let y = (p * r).mul_add(r, r) + 1.0;
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let scale = |e: i32| f32::from_bits((e.wrapping_add(127) as u32) << 23);
    y * scale(half) * scale(n.wrapping_sub(half))
}

/// tanh(x): an odd polynomial below 0.625, 1 - 2 / (e^2x + 1) above (Cephes, Moshier).
#[inline(always)]
pub(super) fn tanh_f32(x: f32) -> f32 {
    let z = x * x;
    let mut p = -5.704_988_7e-3f32;
    p = p.mul_add(z, 2.063_909e-2);
    p = p.mul_add(z, -5.373_971_6e-2);
    p = p.mul_add(z, 1.333_144_2e-1);
    p = p.mul_add(z, -3.333_328e-1);
    let small = (p * z).mul_add(x, x);
    let a = x.abs();
    let large = (1.0 - 2.0 / (exp_f32(2.0 * a) + 1.0)).copysign(x);
    if a < 0.625 { small } else { large }
}

/// erf(x): an odd polynomial below 0.93, 1 - e^p(|x|) above; relative error below 1.2e-7.
/// Coefficients by N. Juffa (stackoverflow.com/a/35148199).
#[inline(always)]
pub(super) fn erf_f32(x: f32) -> f32 {
    let a = x.abs();
    // erf is 1 in f32 from 3.92 on; the polynomial in the exponent is only good a little beyond.
    let t = if a > 4.0 { 4.0 } else { a };
    let s = t * t;
    let u = t.mul_add(-3.883_964_4e-3, 2.425_462_2e-2);
    let mut p = t.mul_add(-1.728_534_7e-5, 3.831_971_3e-4).mul_add(s, u);
    p = p.mul_add(t, -1.067_778_8e-1);
    p = p.mul_add(t, -6.348_467e-1);
    p = p.mul_add(t, -1.287_175_1e-1);
    let large = (1.0 - exp_f32(p.mul_add(t, -t))).copysign(x);
    let mut q = -5.967_617e-4f32;
    q = q.mul_add(s, 4.991_194e-3);
    q = q.mul_add(s, -2.676_813_5e-2);
    q = q.mul_add(s, 1.128_199_2e-1);
    q = q.mul_add(s, -3.761_253_4e-1);
    q = q.mul_add(s, 1.283_791_7e-1);
    let small = q.mul_add(x, x);
    // The comparison is false for NaN, which `large` lets through.
    if a < 0.927_734_4 { small } else { large }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_turned() {
        if !super::super::few_rows::fits() {
            return;
        }
        let square: [[f32; 8]; 8] = std::array::from_fn(|i| std::array::from_fn(|j| (8 * i + j) as f32));
        let turned: [[f32; 8]; 8] = std::array::from_fn(|i| std::array::from_fn(|j| (8 * j + i) as f32));
        assert_eq!(f32::turn(square), turned);
        let wide = |square: [[f32; 8]; 8]| square.map(|row| row.map(f64::from));
        assert_eq!(f64::turn(wide(square)), wide(turned));
    }

    fn sweep(lo: f32, hi: f32) -> impl Iterator<Item = f32> {
        (0..=200_000).map(move |i| lo + (hi - lo) * i as f32 / 200_000.0)
    }

    #[test]
    fn exp_is_within_stated_error() {
        for x in sweep(-87.0, 88.7) {
            let want = f64::from(x).exp();
            assert!((f64::from(exp_f32(x)) / want - 1.0).abs() < 1.5e-7, "exp({x})");
        }
        assert_eq!(exp_f32(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_f32(0.0), 1.0);
        assert_eq!(exp_f32(100.0), f32::INFINITY);
        assert!(exp_f32(f32::NAN).is_nan());
        assert!((exp_f32(-100.0) / (-100f64).exp() as f32 - 1.0).abs() < 0.1);
    }

    #[test]
    fn tanh_is_within_stated_error() {
        for x in sweep(-12.0, 12.0).filter(|x| *x != 0.0) {
            let want = f64::from(x).tanh();
            assert!((f64::from(tanh_f32(x)) / want - 1.0).abs() < 2.4e-7, "tanh({x})");
        }
        assert_eq!(tanh_f32(1e10), 1.0);
        assert!(tanh_f32(f32::NAN).is_nan());
    }

    #[test]
    fn erf_is_within_stated_error() {
        for x in sweep(-6.0, 6.0).filter(|x| *x != 0.0) {
            let want = libm::erf(f64::from(x));
            assert!((f64::from(erf_f32(x)) / want - 1.0).abs() < 1.2e-7, "erf({x}) = {}", erf_f32(x));
        }
        assert_eq!(erf_f32(f32::INFINITY), 1.0);
        assert!(erf_f32(f32::NAN).is_nan());
    }

    #[test]
    fn dispatch_gives_the_bits_of_the_plain_code() {
        let x: Vec<f32> = sweep(-10.0, 10.0).collect();
        let f = |v: f32| exp_f32(v) + erf_f32(v) * tanh_f32(v);
        let plain: Vec<f32> = x.iter().map(|&v| f(v)).collect();
        let mut fast = x.clone();
        simd!(fast.iter_mut().for_each(|v| *v = f(*v)));
        assert_eq!(plain, fast);
        assert_eq!(sum_map(&x, |v| v).to_bits(), simd!(sum_map(&x, |v| v)).to_bits());
    }

    #[test]
    fn max_sees_nan() {
        assert_eq!(max_of(&[1.0f32, 3.0, 2.0]), 3.0);
        assert!(max_of(&[1.0f32, f32::NAN, 2.0]).is_nan());
        assert_eq!(max_of::<f32>(&[]), f32::NEG_INFINITY);
    }
}
