//! Products of a few rows with a matrix: what a model computes for each token that it writes, and for a short prompt.
//! Such a product is bound by reading the matrix, so each element is read once, for all rows, by all threads.
//!
//! The sums have the order that faer's products of many rows have on this machine ([`fits`]): `k` in blocks ([`block`]),
//! in each block one chain of fused multiply-adds from 0, and the blocks added in their order. Thus a row alone has the
//! bits that it has among others, however the work is cut.

use super::elem::{Elem, SQUARE};
use super::matmul::{Mat, OutMat};
use super::simd::{LANES, prefetch, simd};
use super::storage::Buffer;
use super::stored::Widen;
use super::team;

/// Rows that are multiplied at a time.
pub(super) const GROUP: usize = 8;
/// Products of up to so many rows come here, of a matrix of [`FROM_MEMORY`] elements: faer's, which pack it first, read
/// it from memory at a third of the speed, and are faster once the arithmetic takes longer than that.
const MAX_ROWS: usize = 48;
/// Elements of a matrix that is not in a cache: 1 MB and more.
const FROM_MEMORY: usize = 1 << 18;
/// Depth of the blocks that faer's products are summed in, at most.
const BLOCK: usize = 512;
/// Sums that are taken at a time: they stay in the L1 cache, beside the rows of the matrix that go by.
const STRIP: usize = 4096;
/// Rows of the matrix that go into a sum between two times that it is written down, and so streams of memory that are
/// read beside each other.
const STEP: usize = 8;
/// Multiply-adds (of one row) that are worth a second thread.
const PARALLEL: usize = 1 << 16;
/// Elements of a matrix that are worth a second piece for each thread.
const LARGE: usize = 1 << 22;

/// Whether faer sums in the order that this file has: its products for x86-64 with FMA do, and, in blocks that are cut
/// for it ([`block`]), those for ARM. (Its portable ones, without FMA, round between product and sum.)
pub(super) fn fits() -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::simd::has_avx2();
    #[cfg(not(target_arch = "x86_64"))]
    cfg!(target_arch = "aarch64")
}

/// Depth of the blocks in which sums of `k` products are taken. faer's products for x86-64 take [`BLOCK`] at a time. Its
/// others cut by the numbers of rows and columns and by the sizes of caches, but leave whole what is no longer than that:
/// they are given blocks, all about as long, since two products or fewer are added in another order again.
pub(super) fn block(k: usize) -> usize {
    if cfg!(target_arch = "x86_64") { BLOCK } else { k.div_ceil(k.div_ceil(BLOCK).max(1)).max(1) }
}

/// Whether products of these sizes come here, where faer sums in this order.
pub(super) fn takes(rows: usize, k: usize, cols: usize) -> bool {
    rows <= GROUP || takes_small(rows, k, cols) || rows <= MAX_ROWS && k.saturating_mul(cols) >= FROM_MEMORY
}

/// Whether faer has other code for a product so small, with another order of its sums: off x86-64 it does.
fn takes_small(rows: usize, k: usize, cols: usize) -> bool {
    /// Multiply-adds, of faer's `NANO_GEMM_THRESHOLD`.
    const SMALL: usize = 16 * 16 * 16;
    cfg!(not(target_arch = "x86_64")) && (k <= 2 || rows.saturating_mul(k).saturating_mul(cols) <= SMALL)
}

/// `out = a b`, or `out += a b` with `add`. A row or a column of `b` lies densely.
pub(super) fn product<E: Elem, W: Widen<E>>(
    out: &mut OutMat<'_, E>,
    add: bool,
    a: Mat<'_, E>,
    b: Mat<'_, W>,
    parallel: bool,
) {
    match a.rows {
        1 => product_of::<E, W, 1, 1>(out, add, a, b, parallel),
        2 => product_of::<E, W, 2, 2>(out, add, a, b, parallel),
        3 | 4 => product_of::<E, W, 4, 4>(out, add, a, b, parallel),
        _ => product_of::<E, W, GROUP, 4>(out, add, a, b, parallel),
    }
}

/// `R` rows at a time, of which the sums of `G` fit into registers.
fn product_of<E: Elem, W: Widen<E>, const R: usize, const G: usize>(
    out: &mut OutMat<'_, E>,
    add: bool,
    a: Mat<'_, E>,
    b: Mat<'_, W>,
    parallel: bool,
) {
    let dense_rows = b.col_stride == 1;
    assert!(dense_rows || b.row_stride == 1);
    let groups: Vec<Vec<[E; R]>> =
        (0..a.rows).step_by(R).map(|first| packed(a.sub_rows(first, R.min(a.rows - first)))).collect();
    let target = Target { ptr: out.ptr, rows: a.rows, row_stride: out.row_stride, add };
    let piece = |first: usize, len: usize| {
        let b = b.sub_cols(first, len);
        match dense_rows {
            true => by_rows(&target, first, &groups, b),
            false => by_columns::<E, W, R, G>(&target, first, &groups, b),
        }
    };
    let n = b.cols;
    if !parallel || n * b.rows < PARALLEL {
        return piece(0, n);
    }
    // Sums do not depend on the cut: one piece for each thread, and more where these are long.
    let pieces = rayon::current_num_threads() * (n * b.rows / LARGE).clamp(1, 8);
    let width = n.div_ceil(pieces).next_multiple_of(LANES);
    team::for_each(n.div_ceil(width), |i| piece(i * width, width.min(n - i * width)));
}

/// `a` as `[k][R]`, with 0 for rows that it has not.
fn packed<E: Elem, const R: usize>(a: Mat<'_, E>) -> Vec<[E; R]> {
    let mut x = vec![[E::ZERO; R]; a.cols];
    for i in 0..a.rows {
        let row = &a.data[i * a.row_stride..];
        for (p, x) in x.iter_mut().enumerate() {
            x[i] = row[p * a.col_stride];
        }
    }
    x
}

/// Where the sums of a product go; tasks write columns of their own.
struct Target<E> {
    ptr: *mut E,
    rows: usize,
    row_stride: usize,
    add: bool,
}

// SAFETY: tasks write disjoint columns (see `row`).
unsafe impl<E: Send> Sync for Target<E> {}

impl<E: Elem> Target<E> {
    /// Columns `first..first + len` of row `i`.
    ///
    /// # Safety
    /// They must lie in the matrix, which must outlive them, and nobody else may hold them.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "tasks hold parts of one matrix; the caller keeps them apart")]
    unsafe fn row(&self, i: usize, first: usize, len: usize) -> &mut [E] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(i * self.row_stride + first), len) }
    }

    /// Writes down the sums of a block, by row from `row` on; some may be of rows that are not there.
    #[inline(always)]
    fn put<'s>(&self, first_block: bool, row: usize, first: usize, sums: impl Iterator<Item = &'s [E]>)
    where
        E: 's,
    {
        for (i, sums) in (row..self.rows).zip(sums) {
            // SAFETY: `product` has the matrix for itself while its tasks run, and each task has its columns.
            let out = unsafe { self.row(i, first, sums.len()) };
            if first_block && !self.add {
                out.copy_from_slice(sums);
            } else {
                out.iter_mut().zip(sums).for_each(|(o, &s)| *o += s);
            }
        }
    }
}

/// Columns of the result from `first` on, of a matrix whose rows lie densely: a strip of sums stays in the cache while
/// the rows go by. What comes to the cache for the first group of rows is there for the others.
fn by_rows<E: Elem, W: Widen<E>, const R: usize>(
    target: &Target<E>,
    first: usize,
    groups: &[Vec<[E; R]>],
    b: Mat<'_, W>,
) {
    let strip = (STRIP / R).min(b.cols);
    let mut sums = Buffer::<E>::scratch(&[R, strip]);
    let depth = block(b.rows);
    for start in (0..b.cols).step_by(strip) {
        let len = strip.min(b.cols - start);
        let sums = &mut sums[..R * len];
        for at in (0..b.rows).step_by(depth) {
            let b = b.sub_rows(at, depth.min(b.rows - at)).sub_cols(start, len);
            for (group, x) in groups.iter().enumerate() {
                let x = &x[at..at + b.rows];
                sums.fill(E::ZERO);
                simd!({
                    let (steps, rest) = x.as_chunks::<STEP>();
                    for (g, x) in steps.iter().enumerate() {
                        let rows = |g: usize| std::array::from_fn(|u| b.row((g * STEP + u).min(b.rows - 1)));
                        add_rows::<E, W, R, STEP>(sums, x, rows(g), rows(g + 1));
                    }
                    for (u, x) in rest.iter().enumerate() {
                        let row = [b.row(steps.len() * STEP + u)];
                        add_rows::<E, W, R, 1>(sums, &[*x], row, row);
                    }
                    target.put(at == 0, group * R, first + start, sums.chunks_exact(len));
                });
            }
        }
    }
}

/// `sums[r] += x[u][r] * rows[u]` for each `u` in turn, while the rows that are `next` come to the cache: processors
/// follow one row through memory by themselves, but not to a row further on.
#[inline(always)]
fn add_rows<E: Elem, W: Widen<E>, const R: usize, const U: usize>(
    sums: &mut [E],
    x: &[[E; R]; U],
    rows: [&[W]; U],
    next: [&[W]; U],
) {
    let len = rows[0].len();
    let whole = len - len % LANES;
    for j in (0..whole).step_by(LANES) {
        let mut w = [[E::ZERO; LANES]; U];
        for u in 0..U {
            prefetch(next[u].as_ptr().wrapping_add(j));
            w[u] = W::widen_lanes(&rows[u][j..]);
        }
        for r in 0..R {
            let sum = &mut sums[r * len + j..][..LANES];
            let mut s = [E::ZERO; LANES];
            s.copy_from_slice(sum);
            for u in 0..U {
                for l in 0..LANES {
                    s[l] = x[u][r].mul_add(w[u][l], s[l]);
                }
            }
            sum.copy_from_slice(&s);
        }
    }
    for j in whole..len {
        for r in 0..R {
            let sum = &mut sums[r * len + j];
            for u in 0..U {
                *sum = x[u][r].mul_add(rows[u][j].widen(), *sum);
            }
        }
    }
}

/// Columns of the result from `first` on, of a matrix whose columns lie densely: as many at a time as lie side by side
/// in a register, for `G` rows at a time, whose sums stay in registers.
fn by_columns<E: Elem, W: Widen<E>, const R: usize, const G: usize>(
    target: &Target<E>,
    first: usize,
    groups: &[Vec<[E; R]>],
    b: Mat<'_, W>,
) {
    let depth = block(b.rows);
    for at in (0..b.rows).step_by(depth) {
        let b = b.sub_rows(at, depth.min(b.rows - at));
        let whole = b.cols - b.cols % LANES;
        let rows = || groups.iter().map(|x| &x[at..at + b.rows]).enumerate();
        simd!({
            for j in (0..whole).step_by(LANES) {
                let columns = std::array::from_fn(|c| b.col(j + c));
                for (group, x) in rows() {
                    for i in (0..R).step_by(G) {
                        let sums = sum_columns::<E, W, R, G>(i, x, columns);
                        target.put(at == 0, group * R + i, first + j, sums.iter().map(|row| &row[..]));
                    }
                }
            }
            for j in whole..b.cols {
                for (group, x) in rows() {
                    let mut sums = [E::ZERO; R];
                    for (x, w) in x.iter().zip(b.col(j)) {
                        sums.iter_mut().zip(x).for_each(|(s, x)| *s = x.mul_add(w.widen(), *s));
                    }
                    target.put(at == 0, group * R, first + j, sums.chunks_exact(1));
                }
            }
        });
    }
}

/// The sums of a block for rows `i..i + G` and some columns. Squares of the matrix are turned, so that columns lie
/// side by side.
#[inline(always)]
fn sum_columns<E: Elem, W: Widen<E>, const R: usize, const G: usize>(
    i: usize,
    x: &[[E; R]],
    columns: [&[W]; LANES],
) -> [[E; LANES]; G] {
    // Plain loops: the compiler keeps their arrays in registers, and those that closures make in memory.
    let mut sums = [[E::ZERO; LANES]; G];
    let whole = x.len() - x.len() % LANES;
    for at in (0..whole).step_by(LANES) {
        let mut turned = [[[E::ZERO; LANES]; SQUARE]; LANES / SQUARE];
        for c in (0..LANES).step_by(SQUARE) {
            let mut wide = [[E::ZERO; LANES]; SQUARE];
            for q in 0..SQUARE {
                wide[q] = W::widen_lanes(&columns[c + q][at..]);
            }
            for half in 0..LANES / SQUARE {
                let mut square = [[E::ZERO; SQUARE]; SQUARE];
                for q in 0..SQUARE {
                    square[q].copy_from_slice(&wide[q][half * SQUARE..][..SQUARE]);
                }
                let square = E::turn(square);
                for q in 0..SQUARE {
                    turned[half][q][c..c + SQUARE].copy_from_slice(&square[q]);
                }
            }
        }
        let x: &[[E; R]; LANES] = x[at..].first_chunk().expect("the lanes are whole");
        for p in 0..LANES {
            let w = &turned[p / SQUARE][p % SQUARE];
            for r in 0..G {
                for c in 0..LANES {
                    sums[r][c] = x[p][i + r].mul_add(w[c], sums[r][c]);
                }
            }
        }
    }
    for (p, x) in x.iter().enumerate().skip(whole) {
        for r in 0..G {
            for c in 0..LANES {
                sums[r][c] = x[i + r].mul_add(columns[c][p].widen(), sums[r][c]);
            }
        }
    }
    sums
}
