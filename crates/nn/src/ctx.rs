//! What a forward pass carries through the modules.

use ironlens_autograd::{Tape, Var};
use ironlens_tensor::{DType, Device, Tensor};

use crate::error::HookError;
use crate::hooks::{Active, Hooks};
use crate::params::Params;
use crate::registry::{Param, Registry};

/// The weights of a forward pass, as constants or as leaves of a tape, and the hooks that listen.
pub struct Ctx<'a, 'h> {
    pub(crate) registry: &'a Registry,
    pub(crate) active: Active<'a, 'h>,
    leaves: Vec<Var>,
    dtype: DType,
    device: Device,
}

impl<'a, 'h> Ctx<'a, 'h> {
    /// A pass that records nothing.
    ///
    /// # Errors
    /// If a hook names no hook point that fires.
    pub fn evaluate(params: &'a Params, hooks: &'a mut Hooks<'h>) -> Result<Self, HookError> {
        Ctx::new(params, hooks, Var::from)
    }

    /// A pass that records on `tape`, with all weights as leaves.
    ///
    /// # Errors
    /// If a hook names no hook point that fires.
    pub fn record(params: &'a Params, tape: &Tape, hooks: &'a mut Hooks<'h>) -> Result<Self, HookError> {
        Ctx::new(params, hooks, |value| tape.leaf(value))
    }

    fn new(params: &'a Params, hooks: &'a mut Hooks<'h>, leaf: impl Fn(Tensor) -> Var) -> Result<Self, HookError> {
        Ok(Ctx {
            registry: params.registry(),
            active: Active::new(params.registry(), hooks)?,
            leaves: params.slots().iter().map(|s| leaf(s.clone())).collect(),
            dtype: params.dtype(),
            device: params.device().clone(),
        })
    }

    /// A stored parameter.
    pub fn param(&self, param: Param) -> &Var {
        &self.leaves[param.0]
    }

    /// All stored parameters, in order.
    pub fn leaves(&self) -> &[Var] {
        &self.leaves
    }

    /// Element type of the weights, and so of all activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the weights are, and so all activations.
    pub fn device(&self) -> &Device {
        &self.device
    }
}
