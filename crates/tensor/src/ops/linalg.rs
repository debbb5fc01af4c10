//! Decompositions, in double precision on the host.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Mat, Par};

use crate::{Tensor, check};

impl Tensor {
    /// Singular value decomposition of each matrix of the last two axes, `x = u diag(s) vh`: from
    /// `[.., m, n]` to `u [.., m, r]`, `s [.., r]`, falling, and `vh [.., r, n]`, where `r` is the
    /// smaller of `m` and `n`. Computed on the host in `f64`. Of a matrix that is not finite, all is NaN.
    ///
    /// # Panics
    /// If there are less than two axes.
    #[track_caller]
    pub fn svd(&self) -> (Tensor, Tensor, Tensor) {
        let (u, s, vh) = self.svd_f64();
        let home = |t: Tensor| t.to_dtype(self.dtype()).to_device(&self.device());
        (home(u), home(s), home(vh))
    }

    /// The `x` of least squares `|a x - b|^2` for this `a` `[.., m, n]` and `b` `[.., m, k]`:
    /// `[.., n, k]`, the shortest if there are many. For a square matrix of full rank it solves
    /// `a x = b`. Computed on the host in `f64`; singular values below `f64`'s rounding of the
    /// largest count as 0.
    ///
    /// ```
    /// # use ironlens_tensor::{Device, Tensor};
    /// let a = Tensor::from([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]);      // intercept and slope
    /// let x = a.lstsq(&Tensor::from([[1.0], [3.0], [5.0]]));
    /// assert!((x - Tensor::from([[1.0], [2.0]])).norm() < 1e-5);
    /// ```
    ///
    /// # Panics
    /// If the matrices do not fit.
    #[track_caller]
    pub fn lstsq(&self, b: &Tensor) -> Tensor {
        check::same_place("lstsq", self, b);
        let (a_shape, b_shape) = (self.shape(), b.shape());
        let n = self.ndim();
        let fits = n >= 2 && b.ndim() == n && a_shape[..n - 1] == b_shape[..n - 1];
        check::requires(fits, "lstsq", a_shape, b_shape, "both need the same rows: [.., m, n] and [.., m, k]");
        let (u, s, vh) = self.svd_f64();
        let negligible = f64::EPSILON * a_shape[n - 2].max(a_shape[n - 1]) as f64;
        let s_max = if s.dim(n - 2) == 0 { s.clone() } else { s.max_keepdim(-1) };
        let inverse = Tensor::where_(s.gt(s_max * negligible), s.recip(), 0.0);
        let b = b.on_cpu().to_dtype(crate::DType::F64);
        let x = vh.t().matmul(&(inverse.unsqueeze(n - 1) * u.t().matmul(&b)));
        x.to_dtype(self.dtype()).to_device(&self.device())
    }

    #[track_caller]
    fn svd_f64(&self) -> (Tensor, Tensor, Tensor) {
        check::computes("svd", self);
        let n = self.ndim();
        check::at_least_two_axes("svd", self.shape());
        let (rows, cols) = (self.dim(n - 2), self.dim(n - 1));
        let rank = rows.min(cols);
        let count: usize = self.shape()[..n - 2].iter().product();
        let values = self.to_vec_f64();
        let (mut us, mut ss, mut vhs) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..count {
            let x = Mat::from_fn(rows, cols, |r, c| values[(i * rows + r) * cols + c]);
            let (u, s, v) = thin_svd(&x);
            us.extend((0..rows).flat_map(|r| (0..rank).map(move |j| (r, j))).map(|at| u[at]));
            ss.extend((0..rank).map(|j| s.column_vector()[j]));
            vhs.extend((0..rank).flat_map(|j| (0..cols).map(move |c| (c, j))).map(|at| v[at]));
        }
        let shape = |last: &[usize]| [&self.shape()[..n - 2], last].concat();
        (
            Tensor::from_vec_f64(us, &shape(&[rows, rank])),
            Tensor::from_vec_f64(ss, &shape(&[rank])),
            Tensor::from_vec_f64(vhs, &shape(&[rank, cols])),
        )
    }
}

/// `u`, `s` and `v` of one matrix, by one thread: the bits do not depend on their number.
fn thin_svd(x: &Mat<f64>) -> (Mat<f64>, Diag<f64>, Mat<f64>) {
    let (m, n) = (x.nrows(), x.ncols());
    let rank = m.min(n);
    let (mut u, mut s, mut v) = (Mat::zeros(m, rank), Diag::zeros(rank), Mat::zeros(n, rank));
    if rank == 0 {
        return (u, s, v);
    }
    let compute = ComputeSvdVectors::Thin;
    let scratch = svd_scratch::<f64>(m, n, compute, compute, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let finite = (0..n).all(|c| x.col(c).iter().all(|v| v.is_finite()));
    let (u_, v_) = (Some(u.as_mut()), Some(v.as_mut()));
    let done =
        finite && svd(x.as_ref(), s.as_mut(), u_, v_, Par::Seq, MemStack::new(&mut memory), Default::default()).is_ok();
    if !done {
        u.fill(f64::NAN);
        v.fill(f64::NAN);
        s.column_vector_mut().fill(f64::NAN);
    }
    (u, s, v)
}
