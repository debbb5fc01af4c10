//! [`FactoredMatrix`]: a product of two thin matrices that is never multiplied out.

use std::fmt;

use faer::Mat;
use ironlens_tensor::Tensor;

use crate::weights::widened;

/// `A B` with `A [.., ldim, mdim]`, `B [.., mdim, rdim]`, and leading axes that broadcast. What is
/// asked of the product is computed from the factors: its SVD takes that of an `mdim x mdim` matrix.
///
/// Decompositions run in double precision and are rounded once.
///
/// ```
/// # use ironlens_lens::FactoredMatrix;
/// # use ironlens_tensor::{Device, Tensor};
/// let a = Tensor::from_vec(vec![3., 0., 0., 4., 0., 0.], &[3, 2], &Device::Cpu);
/// let m = FactoredMatrix::new(a.clone(), a.t());
/// let s = m.singular_values().to_vec();
/// assert!((s[0] - 16.0).abs() < 1e-5 && (s[1] - 9.0).abs() < 1e-5);
/// assert_eq!(m.ab().shape(), [3, 3]);
/// assert_eq!(format!("{m:?}"), "FactoredMatrix [3, 3] of inner size 2");
/// ```
#[derive(Clone)]
pub struct FactoredMatrix {
    a: Tensor,
    b: Tensor,
}

/// The sizes; for numbers ask [`FactoredMatrix::get_corner`].
impl fmt::Debug for FactoredMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FactoredMatrix {:?} of inner size {}", self.shape(), self.mdim())
    }
}

/// A singular value decomposition `U diag(S) V^T`; singular values fall.
#[derive(Clone, Debug)]
pub struct Svd {
    /// `[.., ldim, rank]`, orthonormal columns.
    pub u: Tensor,
    /// `[.., rank]`.
    pub s: Tensor,
    /// `[.., rdim, rank]`, orthonormal columns (what TransformerLens 2.18 calls `Vh`).
    pub v: Tensor,
}

impl FactoredMatrix {
    /// The product of two factors; those that are stored in 16 bits become `f32`.
    ///
    /// # Panics
    /// If their inner sizes differ or their leading axes do not broadcast.
    #[track_caller]
    pub fn new(a: Tensor, b: Tensor) -> FactoredMatrix {
        let (a, b) = (widened(a), widened(b));
        let (sa, sb) = (a.shape(), b.shape());
        let (na, nb) = (sa.len(), sb.len());
        assert!(
            na >= 2 && nb >= 2 && sa[na - 1] == sb[nb - 2],
            "FactoredMatrix: inner sizes of {sa:?} and {sb:?} must agree"
        );
        let n = na.max(nb) - 2;
        let at = |s: &[usize], i: usize| if i + s.len() < n + 2 { 1 } else { s[i + s.len() - n - 2] };
        let lead: Vec<usize> = (0..n)
            .map(|i| match (at(sa, i), at(sb, i)) {
                (x, y) if x == y || y == 1 => x,
                (1, y) => y,
                _ => panic!("FactoredMatrix: leading axes of {sa:?} and {sb:?} do not broadcast"),
            })
            .collect();
        let full = |s: &[usize]| [&lead[..], &s[s.len() - 2..]].concat();
        let (fa, fb) = (full(sa), full(sb));
        FactoredMatrix { a: a.expand(&fa), b: b.expand(&fb) }
    }

    /// The left factor, `[.., ldim, mdim]`.
    pub fn a(&self) -> &Tensor {
        &self.a
    }

    /// The right factor, `[.., mdim, rdim]`.
    pub fn b(&self) -> &Tensor {
        &self.b
    }

    /// Both factors.
    pub fn pair(&self) -> (Tensor, Tensor) {
        (self.a.clone(), self.b.clone())
    }

    /// Rows of the product.
    pub fn ldim(&self) -> usize {
        self.a.dim(self.a.ndim() - 2)
    }

    /// Columns of the product.
    pub fn rdim(&self) -> usize {
        self.b.dim(self.b.ndim() - 1)
    }

    /// Width between the factors.
    pub fn mdim(&self) -> usize {
        self.a.dim(self.a.ndim() - 1)
    }

    /// Shape of the product, `[.., ldim, rdim]`.
    pub fn shape(&self) -> Vec<usize> {
        [self.lead(), &[self.ldim(), self.rdim()]].concat()
    }

    fn lead(&self) -> &[usize] {
        &self.a.shape()[..self.a.ndim() - 2]
    }

    /// The product, `[.., ldim, rdim]`.
    pub fn ab(&self) -> Tensor {
        self.a.matmul(&self.b)
    }

    /// The factors the other way round, `[.., mdim, mdim]`: the same nonzero eigenvalues.
    ///
    /// # Panics
    /// If the product is not square.
    #[track_caller]
    pub fn ba(&self) -> Tensor {
        assert!(self.ldim() == self.rdim(), "BA needs a square product, not {:?}", self.shape());
        self.b.matmul(&self.a)
    }

    /// The transpose.
    #[must_use]
    pub fn t(&self) -> FactoredMatrix {
        FactoredMatrix { a: self.b.t(), b: self.a.t() }
    }

    /// `self @ other` `[.., rdim, new]`, kept thin.
    ///
    /// # Panics
    /// If sizes disagree.
    #[must_use]
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> FactoredMatrix {
        match self.rdim() > self.mdim() {
            true => FactoredMatrix::new(self.a.clone(), self.b.matmul(other)),
            false => FactoredMatrix::new(self.ab(), other.clone()),
        }
    }

    /// `other @ self`, `other` `[.., new, ldim]`, kept thin.
    ///
    /// # Panics
    /// If sizes disagree.
    #[must_use]
    #[track_caller]
    pub fn left_matmul(&self, other: &Tensor) -> FactoredMatrix {
        match self.ldim() > self.mdim() {
            true => FactoredMatrix::new(other.matmul(&self.a), self.b.clone()),
            false => FactoredMatrix::new(other.clone(), self.ab()),
        }
    }

    /// `self @ other`.
    ///
    /// # Panics
    /// If sizes disagree.
    #[must_use]
    #[track_caller]
    pub fn compose(&self, other: &FactoredMatrix) -> FactoredMatrix {
        self.matmul(&other.a).matmul(&other.b)
    }

    /// `self @ v` for a vector `[rdim]`: `[.., ldim]`. `v @ self` is `self.t().apply(v)`.
    ///
    /// # Panics
    /// If sizes disagree.
    #[track_caller]
    pub fn apply(&self, v: &Tensor) -> Tensor {
        self.a.matmul(&self.b.matmul(v).unsqueeze(-1)).squeeze(-1)
    }

    /// Times a number.
    #[must_use]
    pub fn scale(&self, by: f64) -> FactoredMatrix {
        FactoredMatrix { a: &self.a * by, b: self.b.clone() }
    }

    /// The matrix at `index` along the first leading axis.
    ///
    /// # Panics
    /// If there is no leading axis, or no such index.
    #[must_use]
    #[track_caller]
    pub fn at(&self, index: usize) -> FactoredMatrix {
        assert!(!self.lead().is_empty(), "a single matrix {:?} has no leading axis to index", self.shape());
        self.select(0, index as isize)
    }

    /// The matrices at `index` along the leading axis `axis`, negative counting from the end.
    ///
    /// # Panics
    /// If `axis` is no leading axis, or has no such index.
    #[must_use]
    #[track_caller]
    pub fn select(&self, axis: usize, index: isize) -> FactoredMatrix {
        let lead = self.lead();
        assert!(axis < lead.len(), "axis {axis} is not a leading axis of {:?}", self.shape());
        let length = lead[axis] as isize;
        let from_start = if index < 0 { index + length } else { index };
        assert!(
            (0..length).contains(&from_start),
            "index {index} of axis {axis} of {:?}, which has {length}",
            self.shape()
        );
        let at = from_start as usize;
        FactoredMatrix { a: self.a.select(axis, at), b: self.b.select(axis, at) }
    }

    /// Rows `rows` and columns `columns` (start, length) of the product.
    ///
    /// # Panics
    /// If they reach past it.
    #[must_use]
    #[track_caller]
    pub fn block(&self, rows: (usize, usize), columns: (usize, usize)) -> FactoredMatrix {
        let n = self.a.ndim();
        FactoredMatrix { a: self.a.narrow(n - 2, rows.0, rows.1), b: self.b.narrow(n - 1, columns.0, columns.1) }
    }

    /// The corner of the product for a look: the first `k` along every axis, leading ones, too.
    pub fn get_corner(&self, k: usize) -> Tensor {
        let mut corner = self.block((0, k.min(self.ldim())), (0, k.min(self.rdim())));
        for (axis, &length) in self.lead().iter().enumerate() {
            let first = |t: &Tensor| t.narrow(axis, 0, k.min(length));
            corner = FactoredMatrix { a: first(&corner.a), b: first(&corner.b) };
        }
        corner.ab()
    }

    /// With a new leading axis of length 1 at `axis`.
    ///
    /// # Panics
    /// If it is not among the leading axes.
    #[must_use]
    #[track_caller]
    pub fn unsqueeze(&self, axis: usize) -> FactoredMatrix {
        assert!(axis <= self.lead().len(), "axis {axis} is not a leading axis of {:?}", self.shape());
        FactoredMatrix { a: self.a.unsqueeze(axis), b: self.b.unsqueeze(axis) }
    }

    /// The singular value decomposition of the product, by QR of both factors. That of a product
    /// that is not finite is NaN.
    pub fn svd(&self) -> Svd {
        let all: Vec<[Mat<f64>; 3]> = matrices(&self.a)
            .iter()
            .zip(&matrices(&self.b))
            .map(|(a, b)| {
                let (qa, qb) = (a.qr(), b.transpose().qr());
                let core = qa.thin_R() * qb.thin_R().transpose();
                let Ok(svd) = core.thin_svd() else {
                    let rank = core.nrows().min(core.ncols());
                    return [(a.nrows(), rank), (rank, 1), (b.ncols(), rank)]
                        .map(|(rows, columns)| Mat::full(rows, columns, f64::NAN));
                };
                let u = qa.compute_thin_Q() * svd.U();
                let v = qb.compute_thin_Q() * svd.V();
                let rank = svd.S().column_vector().nrows();
                [u, Mat::from_fn(rank, 1, |i, _| svd.S().column_vector()[i]), v]
            })
            .collect();
        let part = |i: usize| self.tensor(all.iter().map(|m| &m[i]));
        let s = part(1);
        Svd { u: part(0), s: s.squeeze(s.ndim() - 1), v: part(2) }
    }

    /// The singular values of the product, `[.., rank]`, falling.
    pub fn singular_values(&self) -> Tensor {
        self.svd().s
    }

    /// The nonzero eigenvalues of a square product, as `(real, imaginary)`, `[.., mdim]` each: those
    /// of `BA`. Those of a product that is not finite are NaN.
    ///
    /// # Panics
    /// If the product is not square.
    #[track_caller]
    pub fn eigenvalues(&self) -> (Tensor, Tensor) {
        let ba = self.ba();
        let nan = faer::c64::new(f64::NAN, f64::NAN);
        let values: Vec<_> =
            matrices(&ba).iter().map(|m| m.eigenvalues().unwrap_or_else(|_| vec![nan; m.nrows()])).collect();
        let shape = [self.lead(), &[self.mdim()]].concat();
        let part = |f: fn(&faer::c64) -> f64| {
            Tensor::from_vec_f64(values.iter().flatten().map(f).collect(), &shape)
                .to_dtype(self.a.dtype())
                .to_device(&self.a.device())
        };
        (part(|z| z.re), part(|z| z.im))
    }

    /// Frobenius norms, `[..]`.
    pub fn norm(&self) -> Tensor {
        let s = self.singular_values();
        s.square().sum(&[s.ndim() - 1]).sqrt()
    }

    /// The same product with the singular values shared evenly between the factors.
    #[must_use]
    pub fn make_even(&self) -> FactoredMatrix {
        let Svd { u, s, v } = self.svd();
        let root = s.sqrt();
        let n = root.ndim();
        FactoredMatrix { a: &u * &root.unsqueeze(n - 1), b: &root.unsqueeze(n) * &v.t() }
    }

    /// `diag(S) V^T`, `[.., rank, rdim]`: the product but for a rotation on the left.
    pub fn collapse_l(&self) -> Tensor {
        let Svd { s, v, .. } = self.svd();
        &s.unsqueeze(s.ndim()) * &v.t()
    }

    /// `U diag(S)`, `[.., ldim, rank]`: the product but for a rotation on the right.
    pub fn collapse_r(&self) -> Tensor {
        let Svd { u, s, .. } = self.svd();
        &u * &s.unsqueeze(s.ndim() - 1)
    }

    /// Matrices of one size as a tensor with the leading axes.
    fn tensor<'m>(&self, all: impl Iterator<Item = &'m Mat<f64>>) -> Tensor {
        let (mut values, mut size) = (Vec::new(), [0, 0]);
        for m in all {
            size = [m.nrows(), m.ncols()];
            values.extend((0..m.nrows()).flat_map(|i| (0..m.ncols()).map(move |j| m[(i, j)])));
        }
        let shape = [self.lead(), &size].concat();
        Tensor::from_vec_f64(values, &shape).to_dtype(self.a.dtype()).to_device(&self.a.device())
    }
}

impl std::fmt::Display for FactoredMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FactoredMatrix: Shape({:?}), Hidden Dim({})", self.shape(), self.mdim())
    }
}

/// The matrices of the last two axes, in order.
pub(crate) fn matrices(x: &Tensor) -> Vec<Mat<f64>> {
    let (rows, cols) = (x.dim(x.ndim() - 2), x.dim(x.ndim() - 1));
    let values = x.to_vec_f64();
    values.chunks((rows * cols).max(1)).map(|m| Mat::from_fn(rows, cols, |i, j| m[i * cols + j])).collect()
}
