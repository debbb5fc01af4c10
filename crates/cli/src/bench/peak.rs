//! What the machine could do at best: multiply-adds and memory traffic of all threads.

use std::time::Instant;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// The measured limits of this machine with the threads in use.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// Floating-point operations a second, in 1e9; a multiply-add counts two.
    pub gflops: f64,
    /// Bytes a second through main memory, in 1e9.
    pub gbytes: f64,
}

impl Peak {
    /// Measures; takes about half a second. Many short runs: in some of them all threads have a core
    /// of their own.
    pub fn measure() -> Peak {
        Peak { gflops: best_of(40, multiply_adds), gbytes: best_of(8, triad()) }
    }

    /// Bytes a second that all threads together read from main memory, in 1e9: more than where something is written,
    /// too.
    pub fn reading() -> f64 {
        best_of(8, reading())
    }
}

fn best_of(times: usize, mut measure: impl FnMut() -> f64) -> f64 {
    (0..times).map(|_| measure()).fold(0.0, f64::max)
}

/// Independent multiply-adds in registers.
struct Fma {
    rounds: usize,
}

/// Enough to hide the latency of two units.
const CHAINS: usize = 12;

impl WithSimd for Fma {
    /// Operations done.
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        // Numbers that the compiler cannot see, and different sums, so that none is left out.
        let (a, b) = std::hint::black_box((simd.splat_f32s(0.999_9), simd.splat_f32s(1e-4)));
        let mut sums: [S::f32s; CHAINS] = std::array::from_fn(|i| simd.splat_f32s(i as f32));
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, a, b);
            }
        }
        std::hint::black_box(sums.map(|s| simd.reduce_sum_f32s(s)));
        2 * self.rounds * CHAINS * S::F32_LANES
    }
}

fn multiply_adds() -> f64 {
    let start = Instant::now();
    let done: Vec<usize> = rayon::broadcast(|_| pulp::Arch::new().dispatch(Fma { rounds: 300_000 }));
    done.iter().sum::<usize>() as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// `a = b + s c` over arrays that no cache holds.
fn triad() -> impl FnMut() -> f64 {
    const N: usize = 1 << 24;
    const CHUNK: usize = 1 << 14;
    let (mut a, b, c) = (vec![0f32; N], vec![1f32; N], vec![2f32; N]);
    move || {
        let start = Instant::now();
        a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK)).zip(c.par_chunks(CHUNK)).for_each(|((a, b), c)| {
            a.iter_mut().zip(b).zip(c).for_each(|((a, b), c)| *a = b + 3.0 * c);
        });
        std::hint::black_box(&a);
        (3 * N * size_of::<f32>()) as f64 / start.elapsed().as_secs_f64() / 1e9
    }
}

/// The sum of an array that no cache holds, each thread from several places at once: as many bytes are under way then
/// as a core can wait for.
fn reading() -> impl FnMut() -> f64 {
    const N: usize = 1 << 26;
    const CHUNK: usize = 1 << 18;
    const STREAMS: usize = 8;
    let a = vec![1f32; N];
    move || {
        let start = Instant::now();
        let sum = |chunk: &[f32]| {
            let stream = chunk.len() / STREAMS;
            let mut sums = [0f32; 16 * STREAMS];
            for at in (0..stream).step_by(16) {
                for (i, sums) in sums.chunks_exact_mut(16).enumerate() {
                    sums.iter_mut().zip(&chunk[i * stream + at..][..16]).for_each(|(s, v)| *s += v);
                }
            }
            sums.iter().sum::<f32>()
        };
        std::hint::black_box(a.par_chunks(CHUNK).map(sum).sum::<f32>());
        (N * size_of::<f32>()) as f64 / start.elapsed().as_secs_f64() / 1e9
    }
}
