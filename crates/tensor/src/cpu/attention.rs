//! Attention, one head of one sequence per task: fused, and in the parts that hooks look between.
//!
//! The fused kernel runs the same functions per head as the parts do, so both give the same bits.
//! Queries go in blocks, and of a causal block only the keys that it can see are multiplied.

use faer::Par;

use super::elem::Elem;
use super::elementwise::soft_cap;
use super::few_rows;
use super::matmul::{Mat, OutMat, gemm};
use super::parallel::{self, par_chunks};
use super::rows::{softmax_grad_row, softmax_row};
use super::simd::{LANES, simd};
use super::storage::Buffer;
use super::team;
use crate::Tensor;
use crate::backend::AttentionSpec;
use crate::check;

/// Queries per block.
const BLOCK: usize = 64;
/// Keys per block, where values are added up.
const KEYS: usize = 256;

/// A tensor `[batch, pos, head, d_head]` whose last axis is dense, by head.
struct Heads<'a, E> {
    data: &'a [E],
    strides: [usize; 4],
    pos: usize,
    width: usize,
}

impl<'a, E: Elem> Heads<'a, E> {
    fn new(x: &'a Tensor) -> Self {
        let s = x.layout().strides();
        Heads {
            data: &x.memory::<E>()[x.layout().offset()..],
            strides: [s[0], s[1], s[2], s[3]],
            pos: x.shape()[1],
            width: x.shape()[3],
        }
    }

    /// `[pos, d_head]` of one head.
    fn head(&self, b: usize, h: usize) -> Mat<'a, E> {
        let at = (b * self.strides[0] + h * self.strides[2]).min(self.data.len());
        Mat::new(&self.data[at..], self.pos, self.width, self.strides[1], self.strides[3])
    }
}

/// Copied if the last axis is not dense.
fn dense(x: &Tensor) -> Tensor {
    if x.layout().strides()[3] == 1 || x.shape()[3] == 1 { x.clone() } else { x.contiguous() }
}

/// A result `[batch, pos, head, d_head]` that tasks fill head by head.
struct HeadsOut<E> {
    ptr: *mut E,
    pos: usize,
    width: usize,
    batch_stride: usize,
    row_stride: usize,
}

// SAFETY: tasks write disjoint heads (see `head`).
unsafe impl<E: Send> Sync for HeadsOut<E> {}

impl<E: Elem> HeadsOut<E> {
    /// The heads of a row-major `[batch, pos, head, width]` in `memory`.
    fn new(memory: &mut [E], shape: [usize; 4]) -> Self {
        let [_, pos, heads, width] = shape;
        assert!(memory.len() == check::numel(&shape));
        let row_stride = heads * width;
        HeadsOut { ptr: memory.as_mut_ptr(), pos, width, batch_stride: pos * row_stride, row_stride }
    }

    /// The same memory, counting heads from `first`.
    fn starting_at(&self, first: usize) -> Self {
        HeadsOut { ptr: self.ptr.wrapping_add(first * self.width), ..*self }
    }

    /// `[pos, d_head]` of one head.
    ///
    /// # Safety
    /// No two live matrices may be of the same batch item and head, and the memory must outlive
    /// them.
    unsafe fn head(&self, b: usize, h: usize) -> OutMat<'_, E> {
        // SAFETY: the caller keeps heads apart; rows of a head are `width` apart from others.
        unsafe {
            let ptr = self.ptr.add(b * self.batch_stride + h * self.width);
            OutMat::from_raw(ptr, self.pos, self.width, self.row_stride)
        }
    }
}

/// The sizes that every kernel here needs.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    width: usize,
}

impl Sizes {
    fn new(q: &[usize], k: &[usize]) -> Sizes {
        Sizes { batch: q[0], heads: q[2], kv_heads: k[2], queries: q[1], keys: k[1], width: q[3] }
    }

    /// Query heads per key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    /// Whether a head takes microseconds: where a token is written.
    fn is_short(&self) -> bool {
        self.queries <= few_rows::MAX_ROWS
    }

    fn head_area(&self) -> usize {
        self.queries * self.keys
    }

    /// Where the rows of some queries lie in the area of a head.
    fn rows(&self, (first, len): (usize, usize)) -> std::ops::Range<usize> {
        first * self.keys..(first + len) * self.keys
    }

    /// Blocks of queries: (first, how many).
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let n = self.queries;
        (0..n).step_by(BLOCK).map(move |i| (i, BLOCK.min(n - i)))
    }
}

/// Runs `f(task, area)` for the `[query, key]` of each head of each sequence.
fn for_each_area<E: Elem>(areas: &mut [E], sizes: Sizes, f: impl Fn(usize, &mut [E]) + Sync) {
    let area = sizes.head_area().max(1);
    if sizes.is_short() {
        team::for_each_chunk(areas, area, f);
    } else {
        par_chunks(areas, area, f);
    }
}

/// One past the last key that any of the queries `first..first + len` can see.
fn key_limit(spec: &AttentionSpec, keys: usize, first: usize, len: usize) -> usize {
    if spec.causal { (first + len + spec.query_start).min(keys) } else { keys }
}

/// The keys `from..to` that query `i` can see when no key is padding.
#[inline(always)]
fn key_range(spec: &AttentionSpec, keys: usize, i: usize) -> (usize, usize) {
    let i = i + spec.query_start;
    let to = if spec.causal { (i + 1).min(keys) } else { keys };
    let from = spec.window.map_or(0, |w| (i + 1).saturating_sub(w).min(to));
    (from, to)
}

/// Scores of one head, `[query, key]`.
fn head_scores<E: Elem>(
    out: &mut [E],
    q: Mat<'_, E>,
    k: Mat<'_, E>,
    spec: &AttentionSpec,
    sizes: Sizes,
    head: (usize, usize),
) {
    for block in sizes.blocks() {
        block_scores(&mut out[sizes.rows(block)], q, k, spec, sizes, head, block);
    }
}

/// Scores of the queries `first..first + len` of one head, `[len, key]`.
fn block_scores<E: Elem>(
    rows: &mut [E],
    q: Mat<'_, E>,
    k: Mat<'_, E>,
    spec: &AttentionSpec,
    sizes: Sizes,
    (b, h): (usize, usize),
    (first, len): (usize, usize),
) {
    let keys = sizes.keys;
    let scale = E::from_f64(spec.scale);
    let cap = spec.soft_cap.map(E::from_f64);
    let slope = spec.alibi.as_ref().map(|s| E::from_f64(s[h]));
    let limit = key_limit(spec, keys, first, len);
    let mut scores = OutMat::new(rows, len, keys, keys);
    gemm(scores.block(0, len, limit), false, q.sub_rows(first, len), k.sub_rows(0, limit).t(), Par::Seq);
    simd!({
        for (i, row) in (first..).zip(rows.chunks_mut(keys.max(1))) {
            let (from, to) = key_range(spec, keys, i);
            row[..from].fill(E::NEG_INFINITY);
            row[to..].fill(E::NEG_INFINITY);
            row[from..to].iter_mut().for_each(|s| *s /= scale);
            if let Some(cap) = cap {
                for s in &mut row[from..to] {
                    *s = soft_cap(*s, cap).0;
                }
            }
            if let Some(slope) = slope {
                let query = (i + spec.query_start) as f64;
                for (j, s) in row[from..to].iter_mut().enumerate() {
                    *s += slope * E::from_f64(((from + j) as f64 - query).min(0.0));
                }
            }
            if spec.key_mask.is_some() {
                for (j, s) in row.iter_mut().enumerate().take(to).skip(from) {
                    if !spec.visible(b, i, j) {
                        *s = E::NEG_INFINITY;
                    }
                }
            }
        }
    });
}

/// The softmax of scores of the queries from `first` on, in place: of the keys that each can see (from where a lane of
/// the sum begins, so that the bits are those of the whole row's), since e^-inf is slow.
fn block_pattern<E: Elem>(rows: &mut [E], spec: &AttentionSpec, keys: usize, first: usize) {
    simd!({
        for (i, row) in (first..).zip(rows.chunks_mut(keys.max(1))) {
            let (from, to) = key_range(spec, keys, i);
            let from = from - from % LANES;
            softmax_row(&mut row[from..to]);
            row[..from].fill(E::ZERO);
            row[to..].fill(E::ZERO);
        }
    });
}

/// z of one head from its pattern.
fn head_mix<E: Elem>(mut z: OutMat<'_, E>, pattern: &[E], v: Mat<'_, E>, sizes: Sizes) {
    for (first, len) in sizes.blocks() {
        block_mix(z.block(first, len, sizes.width), &pattern[sizes.rows((first, len))], v, sizes.keys);
    }
}

/// z of some queries of one head from their rows of the pattern. Key columns before and after those that they see, all
/// 0 unless a hook wrote there, are left out of the product.
///
/// Keys are added up in blocks by their places, so that a row has the same bits where hidden blocks before are not
/// there at all (as where a window has moved on), or are.
fn block_mix<E: Elem>(mut z: OutMat<'_, E>, rows: &[E], v: Mat<'_, E>, keys: usize) {
    let len = z.rows();
    let p = Mat::new(rows, len, keys, keys, 1);
    let (from, to) = used_keys(rows, keys);
    let start = from / KEYS * KEYS;
    let mut at = start;
    // Once also where nothing is seen: z is 0 then.
    loop {
        let n = KEYS.min(to - at);
        gemm(z.block(0, len, v.cols), at > start, p.sub_cols(at, n), v.sub_rows(at, n), Par::Seq);
        at += n;
        if at == to {
            break;
        }
    }
}

/// From the first to one past the last column that is not 0 in every row.
fn used_keys<E: Elem>(rows: &[E], keys: usize) -> (usize, usize) {
    let used = |row: &[E]| {
        let from = row.iter().position(|v| *v != E::ZERO)?;
        Some((from, row.iter().rposition(|v| *v != E::ZERO)? + 1))
    };
    let all = rows.chunks(keys.max(1)).filter_map(used);
    all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((0, 0))
}

pub(super) fn scores<E: Elem>(q: &Tensor, k: &Tensor, spec: &AttentionSpec) -> Tensor {
    let s = Sizes::new(q.shape(), k.shape());
    let (q, k) = (dense(q), dense(k));
    let (qh, kh) = (Heads::<E>::new(&q), Heads::<E>::new(&k));
    let mut out = Buffer::<E>::scratch(&[s.batch, s.heads, s.queries, s.keys]);
    for_each_area(&mut out, s, |task, out| {
        let (b, h) = (task / s.heads, task % s.heads);
        head_scores(out, qh.head(b, h), kh.head(b, h / s.group()), spec, s, (b, h));
    });
    Tensor::from_buffer(out, &[s.batch, s.heads, s.queries, s.keys])
}

pub(super) fn mix<E: Elem>(pattern: &Tensor, v: &Tensor) -> Tensor {
    let [batch, heads, queries, keys] = *pattern.shape() else { unreachable!("shapes were checked") };
    let s = Sizes { batch, heads, kv_heads: v.shape()[2], queries, keys, width: v.shape()[3] };
    let (pattern, v) = (pattern.contiguous(), dense(v));
    let (p, vh) = (pattern.slice::<E>(), Heads::<E>::new(&v));
    let shape = [batch, queries, heads, s.width];
    let mut out = Buffer::<E>::scratch(&shape);
    let z = HeadsOut::new(&mut out, shape);
    let one = |task: usize| {
        let (b, h) = (task / heads, task % heads);
        // SAFETY: one task per head; `out` outlives the loop.
        let z = unsafe { z.head(b, h) };
        head_mix(z, &p[task * s.head_area()..][..s.head_area()], vh.head(b, h / s.group()), s);
    };
    if s.is_short() {
        team::for_each(batch * heads, one)
    } else {
        parallel::for_each(batch * heads, &one)
    }
    Tensor::from_buffer(out, &shape)
}

pub(super) fn attention<E: Elem>(q: &Tensor, k: &Tensor, v: &Tensor, spec: &AttentionSpec) -> (Tensor, Tensor) {
    let s = Sizes::new(q.shape(), k.shape());
    let (q, k, v) = (dense(q), dense(k), dense(v));
    let (qh, kh, vh) = (Heads::<E>::new(&q), Heads::<E>::new(&k), Heads::<E>::new(&v));
    let shape = [s.batch, s.queries, s.heads, s.width];
    let mut out = Buffer::<E>::scratch(&shape);
    let mut pattern = Buffer::<E>::scratch(&[s.batch, s.heads, s.queries, s.keys]);
    let z = HeadsOut::new(&mut out, shape);
    for_each_area(&mut pattern, s, |task, p| {
        let (b, h) = (task / s.heads, task % s.heads);
        let kv = h / s.group();
        let (q, k, v) = (qh.head(b, h), kh.head(b, kv), vh.head(b, kv));
        // SAFETY: one task per head; `out` outlives the loop.
        let mut z = unsafe { z.head(b, h) };
        // A block of queries at a time, whose rows stay in the cache.
        for (first, len) in s.blocks() {
            let rows = &mut p[s.rows((first, len))];
            block_scores(rows, q, k, spec, s, (b, h), (first, len));
            block_pattern(rows, spec, s.keys, first);
            block_mix(z.block(first, len, s.width), rows, v, s.keys);
        }
    });
    let pattern = Tensor::from_buffer(pattern, &[s.batch, s.heads, s.queries, s.keys]);
    (Tensor::from_buffer(out, &shape), pattern)
}

/// dpattern of one head: `dz v^T`.
fn head_dpattern<E: Elem>(out: &mut [E], dz: Mat<'_, E>, v: Mat<'_, E>, sizes: Sizes) {
    let keys = sizes.keys;
    gemm(OutMat::new(out, sizes.queries, keys, keys), false, dz, v.t(), Par::Seq);
}

/// Turns dscores of one head into the gradient of `q . k`, in place.
fn head_dproduct<E: Elem>(
    ds: &mut [E],
    q: Mat<'_, E>,
    k: Mat<'_, E>,
    spec: &AttentionSpec,
    sizes: Sizes,
    (b, h): (usize, usize),
) {
    let keys = sizes.keys;
    let scale = E::from_f64(spec.scale);
    if let Some(cap) = spec.soft_cap {
        // The cap's slope needs the scores before it.
        let mut raw = Buffer::<E>::scratch(&[sizes.queries, sizes.keys]);
        let plain = AttentionSpec { soft_cap: None, alibi: None, ..spec.clone() };
        head_scores(&mut raw, q, k, &plain, sizes, (b, h));
        simd!({
            for (d, &s) in ds.iter_mut().zip(&raw[..]) {
                *d *= soft_cap(s, E::from_f64(cap)).1;
            }
        });
    }
    simd!({
        for (i, row) in ds.chunks_mut(keys.max(1)).enumerate() {
            let (from, to) = key_range(spec, keys, i);
            row[..from].fill(E::ZERO);
            row[to..].fill(E::ZERO);
            row[from..to].iter_mut().for_each(|d| *d /= scale);
            if spec.key_mask.is_some() {
                for (j, d) in row.iter_mut().enumerate() {
                    if !spec.visible(b, i, j) {
                        *d = E::ZERO;
                    }
                }
            }
        }
    });
}

/// dq of one head, and dk added to that of its key head: products of the gradient of `q . k`.
#[expect(clippy::too_many_arguments, reason = "the operands of two products")]
fn head_dq_dk<E: Elem>(
    mut dq: OutMat<'_, E>,
    dk: OutMat<'_, E>,
    add_dk: bool,
    ds: &[E],
    q: Mat<'_, E>,
    k: Mat<'_, E>,
    spec: &AttentionSpec,
    sizes: Sizes,
) {
    let keys = sizes.keys;
    let ds = Mat::new(ds, sizes.queries, keys, keys, 1);
    for (first, len) in sizes.blocks() {
        let limit = key_limit(spec, keys, first, len);
        gemm(
            dq.block(first, len, sizes.width),
            false,
            ds.sub_rows(first, len).sub_cols(0, limit),
            k.sub_rows(0, limit),
            Par::Seq,
        );
    }
    gemm(dk, add_dk, ds.t(), q, Par::Seq);
}

pub(super) fn scores_grad<E: Elem>(q: &Tensor, k: &Tensor, spec: &AttentionSpec, dscores: &Tensor) -> (Tensor, Tensor) {
    let s = Sizes::new(q.shape(), k.shape());
    let (q, k, dscores) = (dense(q), dense(k), dscores.contiguous());
    let (qh, kh) = (Heads::<E>::new(&q), Heads::<E>::new(&k));
    let all = dscores.slice::<E>();
    let mut dq = Buffer::<E>::scratch(q.shape());
    let mut dk = Buffer::<E>::scratch(k.shape());
    let dq_shape = [s.batch, s.queries, s.heads, s.width];
    let dk_shape = [s.batch, s.keys, s.kv_heads, s.width];
    let dq_out = HeadsOut::new(&mut dq, dq_shape);
    let dk_out = HeadsOut::new(&mut dk, dk_shape);
    parallel::for_each(s.batch * s.kv_heads, &|task| {
        let (b, kv) = (task / s.kv_heads, task % s.kv_heads);
        for g in 0..s.group() {
            let h = kv * s.group() + g;
            let mut ds = Buffer::<E>::scratch(&[s.queries, s.keys]);
            ds.copy_from_slice(&all[(b * s.heads + h) * s.head_area()..][..s.head_area()]);
            head_dproduct(&mut ds, qh.head(b, h), kh.head(b, kv), spec, s, (b, h));
            // SAFETY: one task per key head and its group of query heads.
            let (dq, dk) = unsafe { (dq_out.head(b, h), dk_out.head(b, kv)) };
            head_dq_dk(dq, dk, g > 0, &ds, qh.head(b, h), kh.head(b, kv), spec, s);
        }
    });
    (Tensor::from_buffer(dq, &dq_shape), Tensor::from_buffer(dk, &dk_shape))
}

pub(super) fn mix_grad<E: Elem>(pattern: &Tensor, v: &Tensor, dz: &Tensor) -> (Tensor, Tensor) {
    let s = Sizes {
        batch: pattern.shape()[0],
        heads: pattern.shape()[1],
        kv_heads: v.shape()[2],
        queries: pattern.shape()[2],
        keys: pattern.shape()[3],
        width: v.shape()[3],
    };
    let (pattern, v, dz) = (pattern.contiguous(), dense(v), dense(dz));
    let (p, vh, dzh) = (pattern.slice::<E>(), Heads::<E>::new(&v), Heads::<E>::new(&dz));
    let mut dp = Buffer::<E>::scratch(pattern.shape());
    let mut dv = Buffer::<E>::scratch(v.shape());
    let dv_shape = [s.batch, s.keys, s.kv_heads, s.width];
    let dv_out = HeadsOut::new(&mut dv, dv_shape);
    par_chunks(&mut dp, (s.group() * s.head_area()).max(1), |task, dp| {
        let (b, kv) = (task / s.kv_heads, task % s.kv_heads);
        for (g, dp) in dp.chunks_mut(s.head_area()).enumerate() {
            let h = kv * s.group() + g;
            let p = &p[(b * s.heads + h) * s.head_area()..][..s.head_area()];
            head_dpattern(dp, dzh.head(b, h), vh.head(b, kv), s);
            // SAFETY: one task per key head.
            let dv = unsafe { dv_out.head(b, kv) };
            gemm(dv, g > 0, Mat::new(p, s.queries, s.keys, s.keys, 1).t(), dzh.head(b, h), Par::Seq);
        }
    });
    (Tensor::from_buffer(dp, pattern.shape()), Tensor::from_buffer(dv, &dv_shape))
}

pub(super) fn attention_grad<E: Elem>(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spec: &AttentionSpec,
    pattern: &Tensor,
    dz: &Tensor,
) -> (Tensor, Tensor, Tensor) {
    let s = Sizes::new(q.shape(), k.shape());
    let (q, k, v, dz, pattern) = (dense(q), dense(k), dense(v), dense(dz), pattern.contiguous());
    let (qh, kh, vh, dzh) = (Heads::<E>::new(&q), Heads::<E>::new(&k), Heads::<E>::new(&v), Heads::<E>::new(&dz));
    let p = pattern.slice::<E>();

    // One memory [batch, pos, heads + 2 kv_heads, d_head] for all three, so that the gradient of a
    // packed projection needs no joining; apart if queries and keys are not the same positions.
    let packed = s.queries == s.keys;
    let all_heads = if packed { s.heads + 2 * s.kv_heads } else { s.heads };
    let q_shape = [s.batch, s.queries, all_heads, s.width];
    let kv_shape = if packed { q_shape } else { [s.batch, s.keys, 2 * s.kv_heads, s.width] };
    let mut memory = Buffer::<E>::scratch(&q_shape);
    let mut other = Buffer::<E>::scratch(if packed { &[0] } else { &kv_shape });
    let dq_out = HeadsOut::new(&mut memory, q_shape);
    let dk_out = if packed { dq_out.starting_at(s.heads) } else { HeadsOut::new(&mut other, kv_shape) };
    let dv_out = dk_out.starting_at(s.kv_heads);

    parallel::for_each(s.batch * s.kv_heads, &|task| {
        let (b, kv) = (task / s.kv_heads, task % s.kv_heads);
        let mut ds = Buffer::<E>::scratch(&[s.queries, s.keys]);
        for g in 0..s.group() {
            let h = kv * s.group() + g;
            let p = &p[(b * s.heads + h) * s.head_area()..][..s.head_area()];
            head_dpattern(&mut ds, dzh.head(b, h), vh.head(b, kv), s);
            // SAFETY: one task per key head and its group of query heads; the three results lie
            // in different heads of the memory, which outlives the loop.
            let (dq, dk, dv) = unsafe { (dq_out.head(b, h), dk_out.head(b, kv), dv_out.head(b, kv)) };
            gemm(dv, g > 0, Mat::new(p, s.queries, s.keys, s.keys, 1).t(), dzh.head(b, h), Par::Seq);
            simd!({
                for (p, d) in p.chunks(s.keys.max(1)).zip(ds.chunks_mut(s.keys.max(1))) {
                    softmax_grad_row(p, d);
                }
            });
            head_dproduct(&mut ds, qh.head(b, h), kh.head(b, kv), spec, s, (b, h));
            head_dq_dk(dq, dk, g > 0, &ds, qh.head(b, h), kh.head(b, kv), spec, s);
        }
    });
    let first = Tensor::from_buffer(memory, &q_shape);
    if packed {
        let part = |start, len| first.narrow(2, start, len);
        return (part(0, s.heads), part(s.heads, s.kv_heads), part(s.heads + s.kv_heads, s.kv_heads));
    }
    let kv = Tensor::from_buffer(other, &kv_shape);
    (first, kv.narrow(2, 0, s.kv_heads), kv.narrow(2, s.kv_heads, s.kv_heads))
}
