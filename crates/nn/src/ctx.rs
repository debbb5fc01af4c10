//! What a forward pass carries through the modules.

use ironlens_autograd::{Tape, Var};
use ironlens_tensor::{DType, Device, Tensor};

use crate::error::HookError;
use crate::hooks::{Active, Hooks};
use crate::params::Params;
use crate::registry::{Param, Registry};

/// By which weights a recorded pass is differentiated. The others, and those that are frozen
/// ([`Params::freeze`]), are constants: their gradients cost nothing, neither time nor memory.
#[derive(Default)]
pub enum Leaves<'l> {
    /// By all that are not frozen.
    #[default]
    All,
    /// By none: the tape begins at the first hook point where a backward hook listens.
    None,
    /// By those of whose full name this is true. Parameters that are stored side by side (`W_Q`, `W_K`
    /// and `W_V` of a layer, and their biases) are differentiated by together.
    Where(Box<dyn Fn(&str) -> bool + 'l>),
}

impl Leaves<'_> {
    fn include(&self, params: &Params, slot: usize) -> bool {
        let mut trained = params.registry().names_of(slot).filter(|name| !params.is_frozen(name));
        match self {
            Leaves::All => trained.next().is_some(),
            Leaves::None => false,
            Leaves::Where(wanted) => trained.any(wanted),
        }
    }
}

impl<'l, F: Fn(&str) -> bool + 'l> From<F> for Leaves<'l> {
    fn from(wanted: F) -> Self {
        Leaves::Where(Box::new(wanted))
    }
}

/// The weights of a forward pass, as constants or as leaves of a tape, and the hooks that listen.
pub struct Ctx<'a, 'h> {
    pub(crate) registry: &'a Registry,
    pub(crate) active: Active<'a, 'h>,
    weights: Vec<Var>,
    dtype: DType,
    device: Device,
}

impl<'a, 'h> Ctx<'a, 'h> {
    /// A pass that records nothing.
    ///
    /// # Errors
    /// If a hook names no hook point that fires.
    pub fn evaluate(params: &'a Params, hooks: &'a mut Hooks<'h>) -> Result<Self, HookError> {
        Ctx::new(params, None, hooks, |_, value| Var::from(value))
    }

    /// A pass that records on `tape`, with all weights as leaves.
    ///
    /// # Errors
    /// If a hook names no hook point that fires.
    pub fn record(params: &'a Params, tape: &Tape, hooks: &'a mut Hooks<'h>) -> Result<Self, HookError> {
        Ctx::record_by(params, tape, &Leaves::All, hooks)
    }

    /// As [`Ctx::record`], with some of the weights as leaves and the others as constants.
    ///
    /// # Errors
    /// If a hook names no hook point that fires, or a leaf is stored in 16 bits ([`Params::store_as`]).
    pub fn record_by(
        params: &'a Params,
        tape: &Tape,
        leaves: &Leaves<'_>,
        hooks: &'a mut Hooks<'h>,
    ) -> Result<Self, HookError> {
        let stored = |slot: &usize| params.slots()[*slot].dtype().is_storage() && leaves.include(params, *slot);
        if let Some(slot) = (0..params.slots().len()).find(stored) {
            let name = params.registry().names_of(slot).next().unwrap_or_default().to_string();
            return Err(HookError::NoGradient { name, storage: params.slots()[slot].dtype() });
        }
        Ctx::new(params, Some(tape), hooks, |slot, value| match leaves.include(params, slot) {
            true => tape.leaf(value),
            false => Var::from(value),
        })
    }

    fn new(
        params: &'a Params,
        tape: Option<&Tape>,
        hooks: &'a mut Hooks<'h>,
        weight: impl Fn(usize, Tensor) -> Var,
    ) -> Result<Self, HookError> {
        Ok(Ctx {
            registry: params.registry(),
            active: Active::new(params.registry(), tape, hooks)?,
            weights: params.slots().iter().enumerate().map(|(slot, w)| weight(slot, w.clone())).collect(),
            dtype: params.dtype(),
            device: params.device().clone(),
        })
    }

    /// A stored parameter.
    pub fn param(&self, param: Param) -> &Var {
        &self.weights[param.0]
    }

    /// All stored parameters, in order: leaves of the tape, or constants.
    pub fn weights(&self) -> &[Var] {
        &self.weights
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
