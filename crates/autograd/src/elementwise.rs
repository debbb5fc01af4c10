//! Elementwise ops.

use std::borrow::Cow;
use std::ops::{Add, Div, Mul, Sub};

use ironlens_tensor::{BinaryOp, DType, Operand, Right, Tensor, UnaryOp};

use crate::Var;

impl Var {
    /// `op` of every element.
    #[track_caller]
    pub fn unary(&self, op: UnaryOp) -> Var {
        let x = self.value().clone();
        Var::record(self.value().unary(op), &[self], move |dy, sink| sink.add(0, x.unary_grad(op, dy)))
    }

    /// `op` of every element, in this value's own memory if it is on no tape and nobody else holds it.
    #[track_caller]
    pub fn into_unary(self, op: UnaryOp) -> Var {
        if self.requires_grad() { self.unary(op) } else { Var::from(self.into_value().into_unary(op)) }
    }

    /// See [`ironlens_tensor::Tensor::to_dtype`]; its gradient is converted back.
    #[track_caller]
    pub fn to_dtype(&self, dtype: DType) -> Var {
        let from = self.value().dtype().computed();
        Var::record(self.value().to_dtype(dtype), &[self], move |dy, sink| sink.add(0, dy.to_dtype(from)))
    }

    /// `op` of two values, which broadcast by numpy's rules. Comparisons have no gradient, nor has
    /// the mask of [`BinaryOp::Keep`].
    #[track_caller]
    pub fn binary(&self, op: BinaryOp, other: &Var) -> Var {
        let value = self.value().binary(op, other.value());
        let (a_shape, b_shape) = (self.shape().to_vec(), other.shape().to_vec());
        let parents = [self, other];
        match op {
            BinaryOp::Add => Var::record(value, &parents, move |dy, sink| {
                sink.add_with(0, || dy.sum_to(&a_shape));
                sink.add_with(1, || dy.sum_to(&b_shape));
            }),
            BinaryOp::Sub => Var::record(value, &parents, move |dy, sink| {
                sink.add_with(0, || dy.sum_to(&a_shape));
                sink.add_with(1, || (-&dy).sum_to(&b_shape));
            }),
            BinaryOp::Mul => {
                let (a, b) = (self.value().clone(), other.value().clone());
                Var::record(value, &parents, move |dy, sink| {
                    sink.add_with(0, || (&dy * &b).sum_to(&a_shape));
                    sink.add_with(1, || (&dy * &a).sum_to(&b_shape));
                })
            }
            BinaryOp::Div => {
                let (a, b) = (self.value().clone(), other.value().clone());
                Var::record(value, &parents, move |dy, sink| {
                    sink.add_with(0, || (&dy / &b).sum_to(&a_shape));
                    sink.add_with(1, || (-&(&(&dy * &a) / &b.square())).sum_to(&b_shape));
                })
            }
            BinaryOp::Maximum | BinaryOp::Minimum => {
                let (a, b) = (self.value().clone(), other.value().clone());
                Var::record(value, &parents, move |dy, sink| {
                    // How much of the gradient `a` gets: all, none, or half where both are equal.
                    let wins = if op == BinaryOp::Maximum { a.gt(&b) } else { b.gt(&a) };
                    let share = wins + a.eq(&b) * 0.5;
                    sink.add_with(0, || (&dy * &share).sum_to(&a_shape));
                    sink.add_with(1, || (&dy * (1.0 - &share)).sum_to(&b_shape));
                })
            }
            BinaryOp::Keep => {
                let mask = other.value().clone();
                Var::record(value, &[self], move |dy, sink| sink.add(0, dy.binary(op, &mask).sum_to(&a_shape)))
            }
            BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq => Var::from(value),
        }
    }
}

ironlens_tensor::operators!(Var);

impl Operand<Var> for Var {
    fn operand(&self) -> Right<'_, Var> {
        Right::Array(Cow::Borrowed(self))
    }
}

impl Operand<Var> for &Var {
    fn operand(&self) -> Right<'_, Var> {
        Right::Array(Cow::Borrowed(self))
    }
}

impl Operand<Var> for Tensor {
    fn operand(&self) -> Right<'_, Var> {
        Right::Array(Cow::Owned(Var::from(self.clone())))
    }
}

impl Operand<Var> for &Tensor {
    fn operand(&self) -> Right<'_, Var> {
        Right::Array(Cow::Owned(Var::from((*self).clone())))
    }
}

/// A tensor on the left of a variable.
macro_rules! tensor_on_the_left {
    ($($trait:ident $method:ident;)*) => {$(
        impl $trait<Var> for Tensor {
            type Output = Var;
            #[track_caller]
            fn $method(self, right: Var) -> Var {
                Var::from(self).binary(BinaryOp::$trait, &right)
            }
        }
        impl $trait<&Var> for Tensor {
            type Output = Var;
            #[track_caller]
            fn $method(self, right: &Var) -> Var {
                Var::from(self).binary(BinaryOp::$trait, right)
            }
        }
        impl $trait<Var> for &Tensor {
            type Output = Var;
            #[track_caller]
            fn $method(self, right: Var) -> Var {
                Var::from(self.clone()).binary(BinaryOp::$trait, &right)
            }
        }
        impl $trait<&Var> for &Tensor {
            type Output = Var;
            #[track_caller]
            fn $method(self, right: &Var) -> Var {
                Var::from(self.clone()).binary(BinaryOp::$trait, right)
            }
        }
    )*};
}
tensor_on_the_left! {
    Add add;
    Sub sub;
    Mul mul;
    Div div;
}
