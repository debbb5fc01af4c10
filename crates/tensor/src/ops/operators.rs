//! `+ - * /` and the numbers and tensors that may stand on their right.

use std::borrow::Cow;

use crate::Tensor;

/// What may stand beside a `T` (a tensor or a variable) in a formula: another, or a number.
///
/// ```
/// # use ironlens_tensor::{Device, Tensor};
/// let x = Tensor::from([1.0, -2.0]);
/// let y = 1.0 - &x * 3 + x.maximum(0.5) / &x;
/// assert_eq!(y.to_vec(), [-1.0, 6.75]);
/// ```
#[diagnostic::on_unimplemented(message = "`{Self}` is neither a number nor a tensor that can stand beside a `{T}`")]
pub trait Operand<T: Clone> {
    /// Which of the two it is.
    fn operand(&self) -> Right<'_, T>;
}

/// The right side of a formula; see [`Operand`].
#[derive(Debug)]
pub enum Right<'a, T: Clone> {
    /// A tensor or a variable.
    Array(Cow<'a, T>),
    /// A number, which takes the type and the device of the left side.
    Number(f64),
}

impl Operand<Tensor> for Tensor {
    fn operand(&self) -> Right<'_, Tensor> {
        Right::Array(Cow::Borrowed(self))
    }
}

impl Operand<Tensor> for &Tensor {
    fn operand(&self) -> Right<'_, Tensor> {
        Right::Array(Cow::Borrowed(self))
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl<T: Clone> Operand<T> for $number {
            fn operand(&self) -> Right<'_, T> {
                Right::Number(*self as f64)
            }
        }
    )*};
}
numbers!(f64 f32 i32 i64 u32 usize isize);

/// The operators of a type that has `unary`, `into_unary`, `binary` and `number`.
#[doc(hidden)]
#[macro_export]
macro_rules! operators {
    ($T:ident) => {
        $crate::operators!(@ $T Add add AddAssign add_assign, |x| Affine { scale: 1.0, shift: x }, |y, x| {
            x.unary($crate::UnaryOp::Affine { scale: 1.0, shift: y })
        });
        $crate::operators!(@ $T Sub sub SubAssign sub_assign, |x| Affine { scale: 1.0, shift: -x }, |y, x| {
            x.unary($crate::UnaryOp::Affine { scale: -1.0, shift: y })
        });
        $crate::operators!(@ $T Mul mul MulAssign mul_assign, |x| Affine { scale: x, shift: 0.0 }, |y, x| {
            x.unary($crate::UnaryOp::Affine { scale: y, shift: 0.0 })
        });
        $crate::operators!(@ $T Div div DivAssign div_assign, |x| Affine { scale: 1.0 / x, shift: 0.0 }, |y, x| {
            x.number(y).binary($crate::BinaryOp::Div, x)
        });

        impl std::ops::Neg for &$T {
            type Output = $T;
            #[track_caller]
            fn neg(self) -> $T {
                self.unary($crate::UnaryOp::Neg)
            }
        }

        impl std::ops::Neg for $T {
            type Output = $T;
            #[track_caller]
            fn neg(self) -> $T {
                self.into_unary($crate::UnaryOp::Neg)
            }
        }
    };
    // One operator: `$affine` is what a number on the right does, `$left` what one on the left does.
    (@ $T:ident $trait:ident $method:ident $assign:ident $assign_method:ident,
     |$x:ident| $affine:ident { scale: $scale:expr, shift: $shift:expr }, |$number:ident, $right:ident| $left:block) => {
        impl<R: $crate::Operand<$T>> std::ops::$trait<R> for &$T {
            type Output = $T;
            #[track_caller]
            fn $method(self, right: R) -> $T {
                match right.operand() {
                    $crate::Right::Array(right) => self.binary($crate::BinaryOp::$trait, &right),
                    $crate::Right::Number($x) => {
                        self.unary($crate::UnaryOp::$affine { scale: $scale, shift: $shift })
                    }
                }
            }
        }

        impl<R: $crate::Operand<$T>> std::ops::$trait<R> for $T {
            type Output = $T;
            #[track_caller]
            fn $method(self, right: R) -> $T {
                match right.operand() {
                    $crate::Right::Array(right) => self.binary($crate::BinaryOp::$trait, &right),
                    $crate::Right::Number($x) => {
                        self.into_unary($crate::UnaryOp::$affine { scale: $scale, shift: $shift })
                    }
                }
            }
        }

        impl<R: $crate::Operand<$T>> std::ops::$assign<R> for $T {
            #[track_caller]
            fn $assign_method(&mut self, right: R) {
                *self = std::ops::$trait::$method(&*self, right);
            }
        }

        impl std::ops::$trait<&$T> for f64 {
            type Output = $T;
            #[track_caller]
            fn $method(self, $right: &$T) -> $T {
                let $number = self;
                $left
            }
        }

        impl std::ops::$trait<$T> for f64 {
            type Output = $T;
            #[track_caller]
            fn $method(self, right: $T) -> $T {
                std::ops::$trait::$method(self, &right)
            }
        }
    };
}

crate::operators!(Tensor);
