//! Methods that tensors and variables share: each is made of other methods of its type, so that
//! its derivative is made of theirs. Written once here, and given to `Tensor` below and to `Var` in
//! `ironlens-autograd`.

use crate::Tensor;

/// Functions of every element: method, op, what it computes.
#[doc(hidden)]
#[macro_export]
macro_rules! elementwise_methods {
    ($T:ident: $($method:ident $op:ident $doc:literal;)*) => {
        impl $T {
            $(
                #[doc = $doc]
                #[track_caller]
                pub fn $method(&self) -> $T {
                    self.unary($crate::UnaryOp::$op)
                }
            )*
        }
    };
}

/// The shared methods of `$T`, whose tensor is `$value`.
#[doc(hidden)]
#[macro_export]
macro_rules! shared_methods {
    ($T:ident, |$x:ident| $value:expr) => {
        $crate::elementwise_methods! { $T:
            exp Exp "e^x";
            log Log "Natural logarithm.";
            sqrt Sqrt "Square root.";
            square Square "Square.";
            abs Abs "Absolute value.";
            sign Sign "-1, 0 or 1.";
            recip Recip "1 / x";
            sin Sin "Sine.";
            cos Cos "Cosine.";
            tanh Tanh "Hyperbolic tangent.";
            sigmoid Sigmoid "1 / (1 + e^-x)";
            relu Relu "max(x, 0)";
            gelu Gelu "x Phi(x), with the error function: PyTorch's `gelu`.";
            gelu_new GeluNew "TransformerLens's `gelu_new`, PyTorch's `gelu(approximate=\"tanh\")`.";
            silu Silu "x sigmoid(x)";
        }

        /// Functions of every element, and comparisons.
        impl $T {
            /// x^p
            #[track_caller]
            pub fn pow(&self, p: f64) -> $T {
                self.unary($crate::UnaryOp::Pow(p))
            }

            /// `scale * x + shift`
            #[track_caller]
            pub fn affine(&self, scale: f64, shift: f64) -> $T {
                self.unary($crate::UnaryOp::Affine { scale, shift })
            }

            /// Cut off at `min` and `max`, which may be infinite.
            #[track_caller]
            pub fn clamp(&self, min: f64, max: f64) -> $T {
                self.unary($crate::UnaryOp::Clamp { min, max })
            }

            /// A number of this one's type, on its device.
            #[doc(hidden)]
            pub fn number(&self, value: f64) -> $T {
                let $x = self;
                $T::from($crate::Tensor::scalar(value, $value.dtype(), &$value.device()))
            }

            /// What stands beside this one; a number has its type and device.
            pub(crate) fn array<'r>(&self, right: $crate::Right<'r, $T>) -> std::borrow::Cow<'r, $T> {
                match right {
                    $crate::Right::Array(right) => right,
                    $crate::Right::Number(right) => std::borrow::Cow::Owned(self.number(right)),
                }
            }

            #[track_caller]
            fn beside(&self, op: $crate::BinaryOp, other: impl $crate::Operand<$T>) -> $T {
                self.binary(op, &self.array(other.operand()))
            }

            #[track_caller]
            fn beside_swapped(&self, op: $crate::BinaryOp, other: impl $crate::Operand<$T>) -> $T {
                self.array(other.operand()).binary(op, self)
            }

            /// The larger of both, element by element; they broadcast. NaN stays. Where they are
            /// equal, each gets half of the gradient.
            #[track_caller]
            pub fn maximum(&self, other: impl $crate::Operand<$T>) -> $T {
                self.beside($crate::BinaryOp::Maximum, other)
            }

            /// The smaller of both, as [`Self::maximum`].
            #[track_caller]
            pub fn minimum(&self, other: impl $crate::Operand<$T>) -> $T {
                self.beside($crate::BinaryOp::Minimum, other)
            }

            /// 1 where this is greater than `other` (a number, or one that broadcasts), else 0.
            /// Comparisons with NaN give 0; no gradient flows through comparisons.
            #[track_caller]
            pub fn gt(&self, other: impl $crate::Operand<$T>) -> $T {
                self.beside($crate::BinaryOp::Gt, other)
            }

            /// 1 where this is greater than or equal to `other`, else 0; see [`Self::gt`].
            #[track_caller]
            pub fn ge(&self, other: impl $crate::Operand<$T>) -> $T {
                self.beside($crate::BinaryOp::Ge, other)
            }

            /// 1 where this is less than `other`, else 0; see [`Self::gt`].
            #[track_caller]
            pub fn lt(&self, other: impl $crate::Operand<$T>) -> $T {
                self.beside_swapped($crate::BinaryOp::Gt, other)
            }

            /// 1 where this is less than or equal to `other`, else 0; see [`Self::gt`].
            #[track_caller]
            pub fn le(&self, other: impl $crate::Operand<$T>) -> $T {
                self.beside_swapped($crate::BinaryOp::Ge, other)
            }

            /// 1 where this equals `other`, else 0; see [`Self::gt`].
            #[track_caller]
            pub fn eq(&self, other: impl $crate::Operand<$T>) -> $T {
                self.beside($crate::BinaryOp::Eq, other)
            }

            /// `a` where `cond` is not 0, else `b`; all three broadcast, and `a` and `b` may be
            /// numbers. What is not chosen leaves no trace, be it infinite or NaN.
            ///
            /// ```
            /// # use ironlens_tensor::Tensor;
            /// let x = Tensor::from([1.0, -4.0, 9.0]);
            /// assert_eq!(Tensor::where_(x.ge(0), x.sqrt(), 0).to_vec(), [1.0, 0.0, 3.0]);
            /// ```
            ///
            /// # Panics
            /// If the condition is a number, or the shapes do not broadcast.
            #[track_caller]
            pub fn where_(
                cond: impl $crate::Operand<$T>,
                a: impl $crate::Operand<$T>,
                b: impl $crate::Operand<$T>,
            ) -> $T {
                let $crate::Right::Array(cond) = cond.operand() else {
                    panic!("where_: the condition must be a tensor of 0 and 1, not a number")
                };
                cond.kept(a.operand()) + cond.eq(0.0).kept(b.operand())
            }

            /// `x` where this mask is not 0, else 0.
            #[track_caller]
            fn kept(&self, x: $crate::Right<'_, $T>) -> $T {
                match x {
                    $crate::Right::Array(x) => x.binary($crate::BinaryOp::Keep, self),
                    $crate::Right::Number(x) => self.number(x).binary($crate::BinaryOp::Keep, self),
                }
            }

            /// `value` where `mask` is not 0, which broadcasts.
            #[track_caller]
            pub fn masked_fill(&self, mask: impl $crate::Operand<$T>, value: f64) -> $T {
                Self::where_(mask, value, self)
            }

            /// The lower triangle of each matrix of the last two axes, and 0 above it: what lies
            /// on and below the diagonal that is `diagonal` places above the main one.
            #[track_caller]
            pub fn tril(&self, diagonal: isize) -> $T {
                let $x = self;
                self.binary($crate::BinaryOp::Keep, &$T::from($value.triangle("tril", diagonal)))
            }

            /// The upper triangle of each matrix of the last two axes, and 0 below it: what lies
            /// on and above the diagonal that is `diagonal` places above the main one.
            #[track_caller]
            pub fn triu(&self, diagonal: isize) -> $T {
                let $x = self;
                let below = $value.triangle("triu", diagonal.saturating_sub(1));
                self.binary($crate::BinaryOp::Keep, &$T::from(below.eq(0.0)))
            }
        }

        /// Statistics.
        impl $T {
            /// The shape with length 1 on `axes`.
            pub(crate) fn kept_shape(&self, axes: &[usize]) -> Vec<usize> {
                (0..self.shape().len()).map(|a| if axes.contains(&a) { 1 } else { self.shape()[a] }).collect()
            }

            /// Mean over `axes`, which stay with length 1.
            #[track_caller]
            pub fn mean_keepdim(&self, axes: impl $crate::Axes) -> $T {
                let axes = axes.of(self.shape());
                self.mean(&axes).reshape(&self.kept_shape(&axes))
            }

            /// Largest element over `axes`, which stay with length 1.
            #[track_caller]
            pub fn max_keepdim(&self, axes: impl $crate::Axes) -> $T {
                let axes = axes.of(self.shape());
                self.max(&axes).reshape(&self.kept_shape(&axes))
            }

            /// Largest of all elements, as a scalar `[]`; NaN if there is one.
            ///
            /// # Panics
            /// If there are none.
            #[track_caller]
            pub fn max_all(&self) -> $T {
                let axes: Vec<usize> = (0..self.shape().len()).collect();
                self.max(&axes)
            }

            /// Smallest of all elements, as [`Self::max_all`].
            #[track_caller]
            pub fn min_all(&self) -> $T {
                -(-self).max_all()
            }

            /// Smallest element over `axes`, which go; NaN if there is one.
            #[track_caller]
            pub fn min(&self, axes: impl $crate::Axes) -> $T {
                -(-self).max(&axes.of(self.shape()))
            }

            /// Smallest element over `axes`, which stay with length 1.
            #[track_caller]
            pub fn min_keepdim(&self, axes: impl $crate::Axes) -> $T {
                -(-self).max_keepdim(axes)
            }

            /// Variance over `axes`, which go: squares summed and divided by one less than their
            /// number, as in PyTorch.
            #[track_caller]
            pub fn var(&self, axes: impl $crate::Axes) -> $T {
                let axes = axes.of(self.shape());
                let n: usize = axes.iter().map(|&a| self.shape()[a]).product();
                (self - self.mean_keepdim(&axes)).square().sum(&axes) * (1.0 / (n as f64 - 1.0).max(0.0))
            }

            /// Standard deviation over `axes`, which go: the root of [`Self::var`]. Where it is 0, so is
            /// its gradient.
            #[track_caller]
            pub fn std(&self, axes: impl $crate::Axes) -> $T {
                let axes = axes.of(self.shape());
                let n: usize = axes.iter().map(|&a| self.shape()[a]).product();
                (self - self.mean_keepdim(&axes)).vector_norm(&axes) * (1.0 / (n as f64 - 1.0).max(0.0).sqrt())
            }

            /// Euclidean norm over `axes`, which go. Where it is 0, so is its gradient.
            #[track_caller]
            pub fn vector_norm(&self, axes: impl $crate::Axes) -> $T {
                let squares = self.square().sum(&axes.of(self.shape()));
                // The root's slope is infinite at 0: there, the root of 1 is taken and dropped.
                let zero = squares.eq(0.0);
                let not_zero = zero.eq(0.0);
                (squares + zero).sqrt().binary($crate::BinaryOp::Keep, &not_zero)
            }

            /// `log(sum(e^x))` over `axes`, which go, without overflow.
            #[track_caller]
            pub fn logsumexp(&self, axes: impl $crate::Axes) -> $T {
                let $x = self;
                let axes = axes.of(self.shape());
                // A constant that the result does not depend on; 0 if infinite, since infinities cancel badly.
                let max = $value.max_keepdim(&axes);
                let max = max.binary($crate::BinaryOp::Keep, &max.abs().lt(f64::INFINITY));
                let sum = (self - &$T::from(max.clone())).exp().sum(&axes);
                let shape = sum.shape().to_vec();
                // Of negative infinities alone: the log's slope is infinite there, and 1 is taken in its place and
                // dropped.
                let none = sum.eq(0.0);
                let log = (&sum + &none).log() + $T::from(max.reshape(&shape));
                $T::where_(&none, f64::NEG_INFINITY, log)
            }
        }

        /// Products.
        impl $T {
            /// Matrix product over the last two axes, `[.., m, k] x [.., k, n] -> [.., m, n]`; leading
            /// axes broadcast. A vector is a row on the left and a column on the right, and its axis
            /// goes: `[.., m, k] x [k] -> [.., m]`. `other` may be stored in 16 bits
            /// (`DType`) beside `f32`.
            ///
            /// ```
            /// # use ironlens_tensor::Tensor;
            /// let x = Tensor::from([[1.0, 2.0], [3.0, 4.0]]);
            /// let direction = Tensor::from([1.0, -1.0]);
            /// assert_eq!(x.matmul(&x).to_vec(), [7.0, 10.0, 15.0, 22.0]);
            /// assert_eq!(x.matmul(&direction).to_vec(), [-1.0, -1.0]);
            /// assert_eq!(direction.matmul(&x).to_vec(), [-2.0, -2.0]);
            /// assert_eq!(direction.matmul(&direction).item(), 2.0);
            /// ```
            ///
            /// # Panics
            /// If sizes disagree.
            #[track_caller]
            pub fn matmul(&self, other: &$T) -> $T {
                match (self.shape().len(), other.shape().len()) {
                    (1, 1..) => {
                        $crate::check_inner(self.shape(), other.shape());
                        let row = self.unsqueeze(0).matmul(other);
                        let at = row.shape().len() - other.shape().len().min(2);
                        row.squeeze(at)
                    }
                    (2.., 1) => {
                        $crate::check_inner(self.shape(), other.shape());
                        self.product(&other.unsqueeze(1)).squeeze(-1)
                    }
                    _ => self.product(other),
                }
            }
        }

        /// Writes in place.
        impl $T {
            /// Writes `value`, a number or what broadcasts, over the elements `index` of `axis`:
            /// `z.set_at(2, head, &mean)` sets one head of `[batch, pos, head, d_head]`. See
            /// [`Self::assign`] for any region.
            ///
            /// # Panics
            /// If there is no such axis or index, or the value does not broadcast.
            #[track_caller]
            pub fn set_at(&mut self, axis: impl $crate::Axis, index: usize, value: impl $crate::Operand<$T>) {
                let axis = axis.of(self.shape());
                let value = self.array(value.operand());
                $crate::check_set_at(self.shape(), axis, index, value.shape());
                self.assign(|x| x.select(axis, index), &*value);
            }

            /// Sets the elements `index` of `axis` to 0; see [`Self::set_at`].
            #[track_caller]
            pub fn zero_at(&mut self, axis: impl $crate::Axis, index: usize) {
                self.set_at(axis, index, 0.0);
            }
        }

        /// Elements by index, and their order.
        impl $T {
            /// Elements by their index along `axis`: `y[i, j] = x[i, ids[i, j]]` for the last axis of
            /// a matrix. `ids` has as many axes as this, none but `axis` longer than here, and the
            /// result its shape.
            ///
            /// ```
            /// # use ironlens_tensor::{IndexTensor, Tensor};
            /// let logits = Tensor::from([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
            /// assert_eq!(logits.gather(-1, &IndexTensor::from([[2], [0]])).to_vec(), [3.0, 4.0]);
            /// ```
            ///
            /// # Panics
            /// If an index is too large.
            #[track_caller]
            pub fn gather(&self, axis: impl $crate::Axis, ids: &$crate::IndexTensor) -> $T {
                let rows = $crate::gather_rows(self.shape(), axis.of(self.shape()), ids);
                let n = self.shape().iter().product();
                self.reshape(&[n, 1]).embed(&rows).reshape(ids.shape())
            }

            /// The elements `ids` of `axis`, whose place the axes of `ids` take: with `ids` `[n]`,
            /// `W_U[:, ids]` is `w_u.index_select(1, &ids)`, `[d_model, n]`.
            ///
            /// # Panics
            /// If an index is too large.
            #[track_caller]
            pub fn index_select(&self, axis: impl $crate::Axis, ids: &$crate::IndexTensor) -> $T {
                let shape = self.shape();
                let axis = axis.of(shape);
                let rows = $crate::select_rows(shape, axis, ids);
                // Rows [outer, axis] of what lies within one element of the axis.
                let inner: usize = shape[axis + 1..].iter().product();
                let outer: usize = shape[..=axis].iter().product();
                let result = [&shape[..axis], ids.shape(), &shape[axis + 1..]].concat();
                self.reshape(&[outer, inner]).embed(&rows).reshape(&result)
            }

            /// Elements in the opposite order along `axis`.
            #[track_caller]
            pub fn flip(&self, axis: impl $crate::Axis) -> $T {
                let axis = axis.of(self.shape());
                let backwards: Vec<u32> = (0..self.shape()[axis] as u32).rev().collect();
                self.index_select(axis, &$crate::IndexTensor::from(backwards))
            }

            /// Elements along `axis` in rising (or falling) order, and where they were; see
            /// [`Self::argsort`].
            #[track_caller]
            pub fn sort(&self, axis: impl $crate::Axis, descending: bool) -> ($T, $crate::IndexTensor) {
                let ids = self.argsort(axis, descending);
                (self.gather(axis, &ids), ids)
            }

            /// The `k` largest elements along `axis`, falling, and where they are; see
            /// [`Self::argsort`].
            ///
            /// ```
            /// # use ironlens_tensor::Tensor;
            /// let (values, ids) = Tensor::from([3.0, 1.0, 4.0, 1.0, 5.0]).topk(2, 0);
            /// assert_eq!((values.to_vec(), ids.as_slice()), (vec![5.0, 4.0], &[4, 2][..]));
            /// ```
            #[track_caller]
            pub fn topk(&self, k: usize, axis: impl $crate::Axis) -> ($T, $crate::IndexTensor) {
                let $x = self;
                let ids = $value.order(axis.of(self.shape()), true, Some(k));
                (self.gather(axis, &ids), ids)
            }

            /// Indices that sort `axis` in rising (or falling) order. Equal elements keep their
            /// order, NaN counts as the largest. On a GPU, the values come to the host for it.
            #[track_caller]
            pub fn argsort(&self, axis: impl $crate::Axis, descending: bool) -> $crate::IndexTensor {
                let $x = self;
                $value.order(axis.of(self.shape()), descending, None)
            }

            /// Index of the largest element along `axis`, which goes: the first of equals, or the
            /// first NaN.
            #[track_caller]
            pub fn argmax(&self, axis: impl $crate::Axis) -> $crate::IndexTensor {
                let $x = self;
                $value.largest("argmax", axis.of(self.shape()))
            }

            /// Index of the smallest element along `axis`, which goes: the first of equals, or the
            /// first NaN.
            #[track_caller]
            pub fn argmin(&self, axis: impl $crate::Axis) -> $crate::IndexTensor {
                let $x = self;
                (-$value).largest("argmin", axis.of(self.shape()))
            }
        }

        impl $crate::einops::Array for $T {
            fn shape(&self) -> &[usize] {
                $T::shape(self)
            }
            fn reshape(&self, shape: &[usize]) -> $T {
                $T::reshape(self, shape)
            }
            fn permute(&self, axes: &[usize]) -> $T {
                $T::permute(self, axes)
            }
            fn expand(&self, shape: &[usize]) -> $T {
                $T::expand(self, shape)
            }
            fn diagonal(&self) -> $T {
                $T::diagonal(self, 0)
            }
            fn matmul(&self, right: &$T) -> $T {
                $T::matmul(self, right)
            }
            fn mul(&self, right: &$T) -> $T {
                self * right
            }
            fn reduce(&self, by: $crate::einops::Reduction, axes: &[usize]) -> $T {
                match by {
                    $crate::einops::Reduction::Sum => self.sum(axes),
                    $crate::einops::Reduction::Mean => self.mean(axes),
                    $crate::einops::Reduction::Max => self.max(axes),
                    $crate::einops::Reduction::Min => self.min(axes),
                }
            }
        }
    };
}

crate::shared_methods!(Tensor, |x| x);
