//! Attention, a block of queries of one head per task: fused, and in the parts that hooks look between.
//!
//! The fused kernel runs the same functions per block as the parts do, so both give the same bits, and keeps the
//! pattern only where it is asked for: else its rows never leave the cache.
//! Of a causal block only the keys that it can see are multiplied.

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
use crate::backend::{self, AttentionSpec};
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
        // SAFETY: the caller's promise.
        unsafe { self.block((b, h), (0, self.pos)) }
    }

    /// `[len, d_head]` of one head, from position `first` on.
    ///
    /// # Safety
    /// No two live matrices may share a position of a batch item and head, and the memory must outlive them.
    unsafe fn block(&self, (b, h): (usize, usize), (first, len): (usize, usize)) -> OutMat<'_, E> {
        assert!(first <= self.pos && len <= self.pos - first);
        // SAFETY: the caller keeps blocks apart; rows of a head are `width` apart from others.
        unsafe {
            let ptr = self.ptr.add(b * self.batch_stride + first * self.row_stride + h * self.width);
            OutMat::from_raw(ptr, len, self.width, self.row_stride)
        }
    }
}

/// A result `[batch, head, query, key]` that tasks fill block by block.
struct PatternOut<E> {
    ptr: *mut E,
    sizes: Sizes,
}

// SAFETY: tasks write disjoint blocks (see `rows`).
unsafe impl<E: Send> Sync for PatternOut<E> {}

impl<E: Elem> PatternOut<E> {
    fn new(memory: &mut [E], sizes: Sizes) -> Self {
        assert!(memory.len() == sizes.batch * sizes.heads * sizes.head_area());
        PatternOut { ptr: memory.as_mut_ptr(), sizes }
    }

    /// `[len, key]` of one head, from query `first` on.
    ///
    /// # Safety
    /// No two live slices may share a query of a batch item and head, and the memory must outlive them.
    #[expect(clippy::mut_from_ref, reason = "tasks hold parts of one memory; the caller keeps them apart")]
    unsafe fn rows(&self, (b, h): (usize, usize), (first, len): (usize, usize)) -> &mut [E] {
        let s = &self.sizes;
        assert!(b < s.batch && h < s.heads && first <= s.queries && len <= s.queries - first);
        let rows = s.rows((first, len));
        let start = (b * s.heads + h) * s.head_area() + rows.start;
        // SAFETY: in the memory, whose length `new` checked; the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(start), rows.len()) }
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
        self.queries <= few_rows::GROUP
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

    /// Runs `f((b, h), (first, len))` for each block of queries of each head of each sequence, in parallel.
    fn for_each_block(&self, f: impl Fn((usize, usize), (usize, usize)) + Sync) {
        let blocks = self.queries.div_ceil(BLOCK);
        let one = |task: usize| {
            let (head, first) = (task / blocks, task % blocks * BLOCK);
            f((head / self.heads, head % self.heads), (first, BLOCK.min(self.queries - first)));
        };
        let tasks = self.batch * self.heads * blocks;
        if self.is_short() { team::for_each(tasks, one) } else { parallel::for_each(tasks, &one) }
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

/// Divides by `scale`: by a power of two with a product, which has the same bits and takes a fraction of the time.
#[inline(always)]
fn divide<E: Elem>(row: &mut [E], scale: f64) {
    const MANTISSA: u64 = (1 << (f64::MANTISSA_DIGITS - 1)) - 1;
    if scale.is_normal() && scale.to_bits() & MANTISSA == 0 && scale.recip().is_normal() {
        let factor = E::from_f64(scale.recip());
        row.iter_mut().for_each(|s| *s *= factor);
    } else {
        let scale = E::from_f64(scale);
        row.iter_mut().for_each(|s| *s /= scale);
    }
}

/// What each of the first `keys` keys adds to a head's scores, where that is the same for all queries.
fn key_bias<E: Elem>(spec: &AttentionSpec, keys: usize, (b, h): (usize, usize)) -> Option<Buffer<E>> {
    let alibi = spec.alibi.as_ref().filter(|alibi| alibi.bf16)?;
    let rounded = backend::rounded_to_bf16;
    let slope = alibi.slope(h) as f32;
    let mut bias = Buffer::<E>::scratch(&[keys]);
    let at = |place: u32| E::from_f64(rounded(slope * rounded(place as f32)).into());
    simd!({
        match &spec.key_mask {
            None => bias.iter_mut().zip(0..).for_each(|(x, place)| *x = at(place)),
            Some(mask) => {
                let counted = backend::counted(&mask.as_slice()[b * mask.shape()[1]..]);
                bias.iter_mut().zip(counted).for_each(|(x, count)| *x = at(count.saturating_sub(1)));
            }
        }
        divide(&mut bias, spec.scale);
    });
    Some(bias)
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
    let cap = spec.soft_cap.map(E::from_f64);
    let slope = spec.alibi.as_ref().filter(|alibi| !alibi.bf16).map(|alibi| E::from_f64(alibi.slope(h)));
    let limit = key_limit(spec, keys, first, len);
    let bias = key_bias::<E>(spec, limit, (b, h));
    // Of keys; numbers are turned into `E` slowly.
    let mut places = Buffer::<E>::scratch(&[if slope.is_some() { limit } else { 0 }]);
    places.iter_mut().zip(0u32..).for_each(|(x, place)| *x = E::from_f64(place.into()));
    let mut scores = OutMat::new(rows, len, keys, keys);
    gemm(scores.block(0, len, limit), false, q.sub_rows(first, len), k.sub_rows(0, limit).t(), Par::Seq);
    simd!({
        for (i, row) in (first..).zip(rows.chunks_mut(keys.max(1))) {
            let (from, to) = key_range(spec, keys, i);
            row[..from].fill(E::NEG_INFINITY);
            row[to..].fill(E::NEG_INFINITY);
            divide(&mut row[from..to], spec.scale);
            if let Some(cap) = cap {
                for s in &mut row[from..to] {
                    *s = soft_cap(*s, cap).0;
                }
            }
            if let Some(slope) = slope {
                let query = E::from_f64((i + spec.query_start) as f64);
                let before = |place: E| if place < query { place - query } else { E::ZERO };
                row[from..to].iter_mut().zip(&places[from..to]).for_each(|(s, place)| *s += slope * before(*place));
            }
            if let Some(bias) = &bias {
                row[from..to].iter_mut().zip(&bias[from..to]).for_each(|(s, x)| *s += *x);
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
    let (mut from, mut to) = (keys, 0);
    simd!({
        for row in rows.chunks(keys.max(1)) {
            // A row can only widen what those before it use: the keys before, from the front, and those after, from
            // the back.
            let before = &row[..from];
            let skipped = before.chunks(LANES).take_while(|chunk| all_zero(chunk)).count() * LANES;
            from = (skipped..from).find(|&j| row[j] != E::ZERO).unwrap_or(from);
            let after = &row[to..];
            let skipped = after.rchunks(LANES).take_while(|chunk| all_zero(chunk)).count() * LANES;
            let end = keys.saturating_sub(skipped);
            to = (to..end).rfind(|&j| row[j] != E::ZERO).map_or(to, |j| j + 1);
        }
    });
    if from < to { (from, to) } else { (0, 0) }
}

/// Whether nothing else is there: without a branch for each element.
#[inline(always)]
fn all_zero<E: Elem>(x: &[E]) -> bool {
    x.iter().fold(true, |zero, v| zero & (*v == E::ZERO))
}

pub(super) fn scores<E: Elem>(q: &Tensor, k: &Tensor, spec: &AttentionSpec) -> Tensor {
    let s = Sizes::new(q.shape(), k.shape());
    let (q, k) = (dense(q), dense(k));
    let (qh, kh) = (Heads::<E>::new(&q), Heads::<E>::new(&k));
    let shape = [s.batch, s.heads, s.queries, s.keys];
    let mut out = Buffer::<E>::scratch(&shape);
    let scores = PatternOut::new(&mut out, s);
    s.for_each_block(|(b, h), block| {
        // SAFETY: one task per block; `out` outlives the loop.
        let rows = unsafe { scores.rows((b, h), block) };
        block_scores(rows, qh.head(b, h), kh.head(b, h / s.group()), spec, s, (b, h), block);
    });
    Tensor::from_buffer(out, &shape)
}

pub(super) fn mix<E: Elem>(pattern: &Tensor, v: &Tensor) -> Tensor {
    let [batch, heads, queries, keys] = *pattern.shape() else { unreachable!("shapes were checked") };
    let s = Sizes { batch, heads, kv_heads: v.shape()[2], queries, keys, width: v.shape()[3] };
    let (pattern, v) = (pattern.contiguous(), dense(v));
    let (p, vh) = (pattern.slice::<E>(), Heads::<E>::new(&v));
    let shape = [batch, queries, heads, s.width];
    let mut out = Buffer::<E>::scratch(&shape);
    let z = HeadsOut::new(&mut out, shape);
    s.for_each_block(|(b, h), block| {
        let p = &p[(b * heads + h) * s.head_area()..][s.rows(block)];
        // SAFETY: one task per block; `out` outlives the loop.
        block_mix(unsafe { z.block((b, h), block) }, p, vh.head(b, h / s.group()), s.keys);
    });
    Tensor::from_buffer(out, &shape)
}

/// z, and the pattern if it is asked for.
pub(super) fn attention<E: Elem>(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    spec: &AttentionSpec,
    with_pattern: bool,
) -> (Tensor, Option<Tensor>) {
    let s = Sizes::new(q.shape(), k.shape());
    let (q, k, v) = (dense(q), dense(k), dense(v));
    let (qh, kh, vh) = (Heads::<E>::new(&q), Heads::<E>::new(&k), Heads::<E>::new(&v));
    let shape = [s.batch, s.queries, s.heads, s.width];
    let mut out = Buffer::<E>::scratch(&shape);
    let z = HeadsOut::new(&mut out, shape);
    let pattern_shape = [s.batch, s.heads, s.queries, s.keys];
    // A token's is small, and one memory is had sooner than one for each head.
    let mut pattern = (with_pattern || s.is_short()).then(|| Buffer::<E>::scratch(&pattern_shape));
    let kept = pattern.as_mut().map(|memory| PatternOut::new(memory, s));
    s.for_each_block(|(b, h), block| {
        let kv = h / s.group();
        let mut own;
        let rows = match &kept {
            // SAFETY: one task per block; `pattern` outlives the loop.
            Some(kept) => unsafe { kept.rows((b, h), block) },
            None => {
                own = Buffer::<E>::scratch(&[block.1, s.keys]);
                &mut own[..]
            }
        };
        block_scores(rows, qh.head(b, h), kh.head(b, kv), spec, s, (b, h), block);
        block_pattern(rows, spec, s.keys, block.0);
        // SAFETY: one task per block; `out` outlives the loop.
        block_mix(unsafe { z.block((b, h), block) }, rows, vh.head(b, kv), s.keys);
    });
    let pattern = pattern.filter(|_| with_pattern).map(|memory| Tensor::from_buffer(memory, &pattern_shape));
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
            divide(&mut row[from..to], spec.scale);
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
