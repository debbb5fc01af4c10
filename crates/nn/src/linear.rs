//! A linear map with bias.

use ironlens_autograd::Var;

use crate::ctx::Ctx;
use crate::registry::{Init, Param, Scope};

/// `x @ W + b`: `W` `[inputs, outputs]`, `b` `[outputs]`.
#[derive(Debug)]
pub struct Linear {
    w: Param,
    b: Param,
}

impl Linear {
    /// Weights start normal with deviation `std`, biases at 0.
    pub fn new(scope: &mut Scope<'_>, inputs: usize, outputs: usize, std: f64) -> Linear {
        Linear::with_init(scope, inputs, outputs, Init::Normal(std))
    }

    /// Weights start as `init` says, biases at 0.
    pub fn with_init(scope: &mut Scope<'_>, inputs: usize, outputs: usize, init: Init) -> Linear {
        Linear { w: scope.param("W", &[inputs, outputs], init), b: scope.param("b", &[outputs], Init::Zeros) }
    }

    /// `[.., inputs] -> [.., outputs]`
    pub fn forward(&self, ctx: &Ctx<'_, '_>, x: &Var) -> Var {
        x.linear(ctx.param(self.w), Some(ctx.param(self.b)), None)
    }
}
