//! Elementwise ops.

use std::ops::{Add, Div, Mul, Neg, Sub};

use ironlens_tensor::{BinaryOp, UnaryOp};

use crate::Var;

impl Var {
    /// `op` of every element.
    #[track_caller]
    pub fn unary(&self, op: UnaryOp) -> Var {
        let x = self.value().clone();
        Var::record(self.value().unary(op), &[self], move |dy, sink| sink.add(0, x.unary_grad(op, dy)))
    }

    /// e^x
    #[track_caller]
    pub fn exp(&self) -> Var {
        self.unary(UnaryOp::Exp)
    }

    /// Natural logarithm.
    #[track_caller]
    pub fn log(&self) -> Var {
        self.unary(UnaryOp::Log)
    }

    /// Square root.
    #[track_caller]
    pub fn sqrt(&self) -> Var {
        self.unary(UnaryOp::Sqrt)
    }

    /// Square.
    #[track_caller]
    pub fn square(&self) -> Var {
        self.unary(UnaryOp::Square)
    }

    /// `scale * x + shift`
    #[track_caller]
    pub fn affine(&self, scale: f64, shift: f64) -> Var {
        self.unary(UnaryOp::Affine { scale, shift })
    }

    /// `op` of two values, which broadcast by numpy's rules.
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
        }
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $op:expr, |$x:ident| ($scale:expr, $shift:expr)) => {
        impl $trait<&Var> for &Var {
            type Output = Var;
            #[track_caller]
            fn $method(self, other: &Var) -> Var {
                self.binary($op, other)
            }
        }
        impl $trait<Var> for Var {
            type Output = Var;
            #[track_caller]
            fn $method(self, other: Var) -> Var {
                self.binary($op, &other)
            }
        }
        impl $trait<&Var> for Var {
            type Output = Var;
            #[track_caller]
            fn $method(self, other: &Var) -> Var {
                self.binary($op, other)
            }
        }
        impl $trait<f64> for &Var {
            type Output = Var;
            #[track_caller]
            fn $method(self, $x: f64) -> Var {
                self.affine($scale, $shift)
            }
        }
        impl $trait<f64> for Var {
            type Output = Var;
            #[track_caller]
            fn $method(self, $x: f64) -> Var {
                self.affine($scale, $shift)
            }
        }
    };
}
operator!(Add, add, BinaryOp::Add, |x| (1.0, x));
operator!(Sub, sub, BinaryOp::Sub, |x| (1.0, -x));
operator!(Mul, mul, BinaryOp::Mul, |x| (x, 0.0));
operator!(Div, div, BinaryOp::Div, |x| (1.0 / x, 0.0));

impl Neg for &Var {
    type Output = Var;
    #[track_caller]
    fn neg(self) -> Var {
        self.unary(UnaryOp::Neg)
    }
}
