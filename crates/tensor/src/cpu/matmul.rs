//! Matrix products. Every product of the CPU goes through [`gemm`], which is faer's but for products of a few rows
//! (`few_rows.rs`), and on macOS Apple's (`library.rs`).

use faer::linalg::matmul::matmul as faer_matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::elem::Elem;
use super::parallel::{par_chunks, par_rows};
use super::simd::simd;
use super::storage::Buffer;
use super::stored::{Stored, Widen};
use super::{few_rows, library, width_of};
use crate::Tensor;

/// Products of this many multiply-adds and more are cut into parallel pieces one by one; smaller
/// ones of a batch run side by side.
const LARGE: usize = 1 << 25;
/// Products below this are not worth a second thread.
const SMALL: usize = 1 << 16;

/// Index of the last element of a matrix that has elements; `None` if it wraps.
fn reach(rows: usize, row_stride: usize, cols: usize, col_stride: usize) -> Option<usize> {
    (rows - 1).checked_mul(row_stride)?.checked_add((cols - 1).checked_mul(col_stride)?)
}

/// A matrix in memory that outlives it.
#[derive(Clone, Copy)]
pub(super) struct Mat<'a, T> {
    pub data: &'a [T],
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<'a, T: Copy> Mat<'a, T> {
    pub fn new(data: &'a [T], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        assert!(
            rows == 0 || cols == 0 || reach(rows, row_stride, cols, col_stride).is_some_and(|last| last < data.len()),
            "a {rows} x {cols} matrix with strides {row_stride} and {col_stride} reaches past its memory of {}",
            data.len()
        );
        Mat { data, rows, cols, row_stride, col_stride }
    }

    pub fn t(self) -> Self {
        Mat { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// Rows `start..start + len`.
    pub fn sub_rows(self, start: usize, len: usize) -> Self {
        assert!(start <= self.rows && len <= self.rows - start);
        Mat { data: &self.data[(start * self.row_stride).min(self.data.len())..], rows: len, ..self }
    }

    /// Columns `start..start + len`.
    pub fn sub_cols(self, start: usize, len: usize) -> Self {
        self.t().sub_rows(start, len).t()
    }

    /// Row `i` of a matrix whose rows lie densely.
    pub fn row(self, i: usize) -> &'a [T] {
        &self.data[i * self.row_stride..][..self.cols]
    }

    /// Column `j` of a matrix whose columns lie densely.
    pub fn col(self, j: usize) -> &'a [T] {
        &self.data[j * self.col_stride..][..self.rows]
    }

    /// Itself, if it holds elements as they are.
    fn as_elems<E: Elem>(self) -> Option<Mat<'a, E>>
    where
        T: Widen<E>,
    {
        let Mat { rows, cols, row_stride, col_stride, .. } = self;
        T::as_elems(self.data).map(|data| Mat { data, rows, cols, row_stride, col_stride })
    }
}

impl<'a, E: Elem> Mat<'a, E> {
    fn faer(self) -> MatRef<'a, E> {
        // SAFETY: `new` checked, in arithmetic that does not wrap, that every element lies in `data`, which
        // is borrowed for 'a; parts of a matrix lie in it, and `gemm` repeats a single row or column by stride 0.
        unsafe {
            MatRef::from_raw_parts(
                self.data.as_ptr(),
                self.rows,
                self.cols,
                self.row_stride as isize,
                self.col_stride as isize,
            )
        }
    }
}

/// A row-major matrix to write to, maybe with gaps between its rows.
pub(super) struct OutMat<'a, E> {
    pub ptr: *mut E,
    rows: usize,
    cols: usize,
    pub row_stride: usize,
    memory: std::marker::PhantomData<&'a mut E>,
}

impl<'a, E: Elem> OutMat<'a, E> {
    pub fn new(data: &'a mut [E], rows: usize, cols: usize, row_stride: usize) -> Self {
        if rows > 0 && cols > 0 {
            assert!(cols <= row_stride || rows == 1);
            assert!(
                reach(rows, row_stride, cols, 1).is_some_and(|last| last < data.len()),
                "a {rows} x {cols} matrix with rows {row_stride} apart reaches past its memory of {}",
                data.len()
            );
        }
        OutMat { ptr: data.as_mut_ptr(), rows, cols, row_stride, memory: std::marker::PhantomData }
    }

    /// # Safety
    /// The `rows x cols` elements from `ptr` must be valid for writes, and nobody else may touch
    /// them while the matrix lives (elements in the gaps between its rows may be in use).
    pub unsafe fn from_raw(ptr: *mut E, rows: usize, cols: usize, row_stride: usize) -> Self {
        OutMat { ptr, rows, cols, row_stride, memory: std::marker::PhantomData }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows `start..start + len`, of which the first `cols` columns.
    pub fn block(&mut self, start: usize, len: usize, cols: usize) -> OutMat<'_, E> {
        assert!(start <= self.rows && len <= self.rows - start && cols <= self.cols);
        // SAFETY: a part of this matrix, borrowed from it.
        unsafe { OutMat::from_raw(self.ptr.wrapping_add(start * self.row_stride), len, cols, self.row_stride) }
    }

    /// Columns `start..start + len`.
    fn columns(&mut self, start: usize, len: usize) -> OutMat<'_, E> {
        assert!(start <= self.cols && len <= self.cols - start);
        // SAFETY: a part of this matrix, borrowed from it.
        unsafe { OutMat::from_raw(self.ptr.wrapping_add(start), self.rows, len, self.row_stride) }
    }

    fn faer(&mut self) -> MatMut<'_, E> {
        // SAFETY: the constructors guarantee that the elements are valid and ours alone.
        unsafe { MatMut::from_raw_parts_mut(self.ptr, self.rows, self.cols, self.row_stride as isize, 1) }
    }

    fn fill_zero(&mut self) {
        self.faer().fill(E::ZERO);
    }
}

/// `out = a b`, or `out += a b` with `add`.
///
/// The bits of a row of the result depend on that row of `a` and on `b` alone, not on the other
/// rows nor on the number of threads. faer keeps that except where the result is a vector, for
/// which it has other code, and, off x86-64, where it takes other blocks or other code for small products: rows are
/// computed in `few_rows.rs`, in faer's order, and so are what is small; columns, and rows where that order is another,
/// are computed twice over, as a matrix. A library of the system's (`library.rs`) promises none of this.
///
/// What `b` stores in 16 bits is widened as it is read; the bits are those of a product with the widened matrix.
pub(super) fn gemm<E: Elem, W: Widen<E>>(mut out: OutMat<'_, E>, add: bool, a: Mat<'_, E>, b: Mat<'_, W>, par: Par) {
    assert!(a.cols == b.rows && out.rows == a.rows && out.cols == b.cols, "gemm: sizes disagree");
    if out.rows == 0 || out.cols == 0 {
        return;
    }
    if a.cols == 0 {
        if !add {
            out.fill_zero();
        }
        return;
    }
    if let Some(library) = library::chosen()
        && let Some(b) = b.as_elems()
        && library::product(library, &mut out, add, a, b)
    {
        return;
    }
    own(out, add, a, b, par);
}

/// [`gemm`] by our own code, of matrices that have elements.
pub(super) fn own<E: Elem, W: Widen<E>>(mut out: OutMat<'_, E>, add: bool, a: Mat<'_, E>, b: Mat<'_, W>, par: Par) {
    // A single row or column lies densely, whatever its distance to the next.
    let dense = |stride, len| if len == 1 { 1 } else { stride };
    let b = Mat { row_stride: dense(b.row_stride, b.rows), col_stride: dense(b.col_stride, b.cols), ..b };
    // Where a library takes the products of `f32`, no order is promised, and widening a whole matrix for a few rows
    // would take longer than the product.
    let any_order = library::chosen().is_some() && b.as_elems().is_none();
    let few = few_rows::takes(out.rows, a.cols, out.cols);
    if few && (few_rows::fits() || any_order) && (b.row_stride == 1 || b.col_stride == 1) {
        few_rows::product(&mut out, add, a, b, par != Par::Seq);
        return;
    }
    let Some(b) = b.as_elems() else { return by_panels(out, add, a, b, par) };
    if out.rows == 1 || out.cols == 1 {
        let (rows, cols) = (out.rows.max(2), out.cols.max(2));
        let a2 = if a.rows == 1 { Mat { rows: 2, row_stride: 0, ..a } } else { a };
        let b2 = if b.cols == 1 { Mat { cols: 2, col_stride: 0, ..b } } else { b };
        let mut twice = Buffer::<E>::scratch(&[rows, cols]);
        run(OutMat::new(&mut twice, rows, cols, cols), Accum::Replace, a2, b2, par);
        let mut out = out.faer();
        for i in 0..out.nrows() {
            for j in 0..out.ncols() {
                let v = twice[i * cols + j];
                out[(i, j)] = if add { out[(i, j)] + v } else { v };
            }
        }
        return;
    }
    run(out, if add { Accum::Add } else { Accum::Replace }, a, b, par);
}

/// Elements of a matrix that are widened at a time: 2 MiB.
const PANEL: usize = 1 << 19;

/// [`gemm`] with a matrix that is widened a few columns at a time.
fn by_panels<E: Elem, W: Widen<E>>(mut out: OutMat<'_, E>, add: bool, a: Mat<'_, E>, b: Mat<'_, W>, par: Par) {
    let (depth, by_rows) = (b.rows, b.col_stride == 1);
    assert!(by_rows || b.row_stride == 1, "gemm: neither rows nor columns lie densely");
    let width = (PANEL / depth).max(1).next_multiple_of(64).min(b.cols);
    let mut panel = Buffer::<E>::scratch(&[depth, width]);
    for first in (0..b.cols).step_by(width) {
        let part = b.sub_cols(first, width.min(b.cols - first));
        // Rows, or columns where these lie densely, as they lie in memory.
        let (lines, len) = if by_rows { (part.rows, part.cols) } else { (part.cols, part.rows) };
        let widen = |i: usize, to: &mut [E]| {
            let from = if by_rows { part.row(i) } else { part.col(i) };
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from.widen());
        };
        let panel = &mut panel[..lines * len];
        if par == Par::Seq {
            panel.chunks_mut(len).enumerate().for_each(|(i, line)| widen(i, line));
        } else {
            par_chunks(panel, len, widen);
        }
        let widened = Mat::new(panel, lines, len, len, 1);
        let widened = if by_rows { widened } else { widened.t() };
        gemm(out.columns(first, widened.cols), add, a, widened, par);
    }
}

fn run<E: Elem>(mut out: OutMat<'_, E>, accum: Accum, a: Mat<'_, E>, b: Mat<'_, E>, par: Par) {
    if cfg!(target_arch = "x86_64") {
        return faer_matmul(out.faer(), accum, a.faer(), b.faer(), E::ONE, par);
    }
    let depth = few_rows::block(a.cols);
    for first in (0..a.cols).step_by(depth) {
        let len = depth.min(a.cols - first);
        let accum = if first == 0 { accum } else { Accum::Add };
        faer_matmul(out.faer(), accum, a.sub_cols(first, len).faer(), b.sub_rows(first, len).faer(), E::ONE, par);
    }
}

/// All threads for a product worth it.
fn parallelism(multiply_adds: usize) -> Par {
    if multiply_adds < SMALL { Par::Seq } else { Par::rayon(0) }
}

/// A tensor's last two axes as matrices, copied first if neither lies densely.
fn dense(x: &Tensor) -> Tensor {
    let s = x.layout().strides();
    if s[s.len() - 1] == 1 || s[s.len() - 2] == 1 { x.clone() } else { x.contiguous() }
}

fn matrix<E: Stored>(x: &Tensor, offset: usize) -> Mat<'_, E> {
    let (n, l) = (x.ndim(), x.layout());
    Mat::new(&x.memory::<E>()[offset..], x.shape()[n - 2], x.shape()[n - 1], l.strides()[n - 2], l.strides()[n - 1])
}

pub(super) fn matmul<E: Elem, W: Widen<E>>(a: &Tensor, b: &Tensor, shape: &[usize]) -> Tensor {
    let d = shape.len() - 2;
    let (m, n) = (shape[d], shape[d + 1]);
    let k = a.shape()[a.ndim() - 1];
    let batch: usize = shape[..d].iter().product();
    let mut out = Buffer::<E>::scratch(shape);
    if out.is_empty() {
        return Tensor::from_buffer(out, shape);
    }
    // One matrix on the right for all on the left: one tall product.
    if b.ndim() == 2
        && a.ndim() > 2
        && let Some(layout) = a.layout().reshape(&[batch * m, k])
    {
        let a = a.with_layout(layout);
        return matmul::<E, W>(&a, b, &[batch * m, n]).reshape(shape);
    }
    let (a, b) = (dense(a), dense(b));
    let expand = |x: &Tensor| {
        let mut s = shape[..d].to_vec();
        s.extend_from_slice(&x.shape()[x.ndim() - 2..]);
        x.expand(&s)
    };
    let (a, b) = (expand(&a), expand(&b));
    let offset = |x: &Tensor, mut i: usize| {
        let mut at = x.layout().offset();
        for axis in (0..d).rev() {
            at += (i % shape[axis]) * x.layout().strides()[axis];
            i /= shape[axis];
        }
        at
    };
    let one = |i: usize, out: &mut [E], par: Par| {
        gemm(OutMat::new(out, m, n, n), false, matrix::<E>(&a, offset(&a, i)), matrix::<W>(&b, offset(&b, i)), par);
    };
    if batch == 1 || m * n * k >= LARGE {
        out.chunks_mut(m * n).enumerate().for_each(|(i, out)| one(i, out, parallelism(m * n * k)));
    } else {
        par_chunks(&mut out, m * n, |i, out| one(i, out, Par::Seq));
    }
    Tensor::from_buffer(out, shape)
}

pub(super) fn linear<E: Elem, W: Widen<E>>(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
) -> Tensor {
    let (x, w) = (dense(x), dense(w));
    let (m, k, n) = (x.shape()[0], x.shape()[1], w.shape()[1]);
    let mut out = Buffer::<E>::scratch(&[m, n]);
    gemm(
        OutMat::new(&mut out, m, n, n),
        false,
        matrix::<E>(&x, x.layout().offset()),
        matrix::<W>(&w, w.layout().offset()),
        parallelism(m * n * k),
    );
    let bias = bias.map(Tensor::contiguous);
    let residual = residual.map(Tensor::contiguous);
    let bias = bias.as_ref().map(|b| b.slice::<E>());
    let residual = residual.as_ref().map(|r| r.slice::<E>());
    if (bias.is_some() || residual.is_some()) && n > 0 {
        par_rows(&mut out, n, |first, rows| {
            simd!({
                for (i, row) in rows.chunks_mut(n).enumerate() {
                    if let Some(b) = bias {
                        row.iter_mut().zip(b).for_each(|(o, &b)| *o += b);
                    }
                    if let Some(r) = residual {
                        row.iter_mut().zip(&r[(first + i) * n..]).for_each(|(o, &r)| *o = r + *o);
                    }
                }
            })
        });
    }
    debug_assert_eq!(width_of(&w), n.max(1));
    Tensor::from_buffer(out, &[m, n])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(make: impl FnOnce()) -> String {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make)).expect_err("it should panic");
        *panic.downcast::<String>().expect("the message is a formatted one")
    }

    /// What faer's `unsafe` rests on, also where products wrap.
    #[test]
    fn matrices_stay_within_their_memory() {
        let mut data = [0f32; 12];
        for (rows, cols, row_stride, col_stride) in [
            (3, 4, 5, 1),
            (4, 4, 4, 1),
            (17, 2, 1 << 60, 1),
            (2, 2, usize::MAX, 1),
            (2, 2, 1, usize::MAX),
            (2, 2, 1 << 63, 1 << 63),
        ] {
            let message = refused(|| {
                Mat::new(&data, rows, cols, row_stride, col_stride);
            });
            assert!(message.contains(&format!("a {rows} x {cols} matrix")), "{message}");
        }
        for (rows, cols, row_stride) in [(4, 4, 4), (3, 4, 5), (17, 2, 1 << 60), (2, 2, usize::MAX)] {
            let message = refused(|| {
                OutMat::new(&mut data, rows, cols, row_stride);
            });
            assert!(message.contains(&format!("a {rows} x {cols} matrix")), "{message}");
        }
        let m = Mat::new(&data, 3, 4, 4, 1);
        for (start, len) in [(0, 4), (4, 0), (1, usize::MAX), (3, 1)] {
            let cut = std::panic::catch_unwind(|| m.sub_rows(start, len));
            assert!(cut.is_err(), "rows {start} and {len} more of 3");
            let cut = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                OutMat::new(&mut data.clone(), 3, 4, 4).block(start, len, 4);
            }));
            assert!(cut.is_err(), "rows {start} and {len} more of 3");
        }
        assert_eq!((m.sub_rows(3, 0).rows, m.sub_rows(1, 2).rows), (0, 2));
        Mat::new(&data[..0], 0, 4, usize::MAX, usize::MAX);
    }

    /// Rows from the end of a tall matrix, times `w`, have the bits that they have in the tall product: one row,
    /// few rows and many, dense and transposed, with sums that are one block, several, or a part of one.
    fn rows_alone_have_the_bits_of_many<E: Elem>(dtype: crate::DType) {
        let mut rng = crate::Rng::new(7, 0);
        let mut random = |rows, cols| rng.normal(&[rows, cols], 0.0, 1.0, &crate::Device::Cpu).to_dtype(dtype);
        for k in [1, 2, 3, 64, 512, 513, 1100] {
            // The last is more than a cache holds where `k` is long.
            for n in [1, 3, 33, 130, 520] {
                let (x, w, turned) = (random(70, k), random(k, n), random(n, k));
                for w in [&w, &turned.t(), &w.narrow(1, n / 3, n - n / 3)] {
                    let whole = x.matmul(w);
                    for rows in [1, 2, 3, 5, 8, 9, 33, 48] {
                        let part = x.narrow(0, 70 - rows, rows);
                        let want = whole.narrow(0, 70 - rows, rows).contiguous();
                        for got in [part.matmul(w), part.linear(w, None, None)] {
                            assert_eq!(got.slice::<E>(), want.slice::<E>(), "{rows} rows, {k} x {n} {dtype}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_alone_have_the_bits_of_many_in_f32() {
        rows_alone_have_the_bits_of_many::<f32>(crate::DType::F32);
    }

    #[test]
    fn rows_alone_have_the_bits_of_many_in_f64() {
        rows_alone_have_the_bits_of_many::<f64>(crate::DType::F64);
    }

    /// Products with a matrix of 16 bits have the bits of products with the widened one: few rows and many, dense,
    /// transposed and cut, in one panel and in several, batched.
    #[test]
    fn stored_matrices_have_the_bits_of_widened_ones() {
        use crate::DType::{Bf16, F16, F32};
        let mut rng = crate::Rng::new(3, 0);
        let mut random = |shape: &[usize]| rng.normal(shape, 0.0, 1.0, &crate::Device::Cpu);
        for (k, n) in [(1, 1), (7, 33), (600, 130), (3000, 200)] {
            let (x, w, turned) = (random(&[60, k]), random(&[k, n]), random(&[n, k]));
            for dtype in [Bf16, F16] {
                let (w, turned) = (w.to_dtype(dtype), turned.to_dtype(dtype));
                for w in [&w, &turned.t(), &w.narrow(1, n / 3, n - n / 3)] {
                    let wide = w.to_dtype(F32);
                    for rows in [1, 8, 9, 40, 60] {
                        let x = x.narrow(0, 60 - rows, rows);
                        let want = x.matmul(&wide);
                        for got in [x.matmul(w), x.linear(w, None, None)] {
                            assert_eq!(got.slice::<f32>(), want.slice::<f32>(), "{rows} rows, {k} x {n} {dtype}");
                        }
                    }
                }
            }
        }
        let (x, w) = (random(&[3, 2, 20]), random(&[3, 20, 5]).to_dtype(Bf16));
        assert_eq!(x.matmul(&w).to_vec(), x.matmul(&w.to_dtype(F32)).to_vec());
        let every_second = random(&[20, 10]).to_dtype(F16).reshape(&[20, 5, 2]).select(2, 1);
        assert_eq!(x.matmul(&every_second).to_vec(), x.matmul(&every_second.to_dtype(F32)).to_vec());
    }
}
