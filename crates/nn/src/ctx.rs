//! What a forward pass carries through the modules.

use std::fmt;

use ironlens_autograd::{Tape, Var};
use ironlens_tensor::{DType, Device, Layout, Tensor};

use crate::active::Active;
use crate::error::HookError;
use crate::hooks::Hooks;
use crate::params::Params;
use crate::registry::{HookPoint, Param, Registry, part_of};

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

impl fmt::Debug for Leaves<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Leaves::All => "All",
            Leaves::None => "None",
            Leaves::Where(_) => "Where(..)",
        })
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
    /// The parts of leaves that are frozen: slot and place in it.
    frozen: Vec<(usize, Layout)>,
    dtype: DType,
    device: Device,
}

impl<'a, 'h> Ctx<'a, 'h> {
    /// A pass that records nothing. Permanent backward hooks wait for one that does.
    ///
    /// # Errors
    /// If a hook names no hook point that fires, or is a backward hook.
    pub fn evaluate(params: &'a Params, hooks: &'a mut Hooks<'h>) -> Result<Self, HookError> {
        if let Some(target) = hooks.first_backward() {
            return Err(HookError::ForwardOnly { at: format!("{target:?}") });
        }
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

    /// A pass that records nothing and runs no hooks, not even permanent ones: a part of a computation on
    /// plain values.
    pub fn plain(params: &'a Params) -> Self {
        Ctx::with(params, Active::default(), |_, value| Var::from(value))
    }

    /// As [`Ctx::plain`], recorded on `tape`, with all weights as leaves: parameters of one's own that
    /// live in hooks of another pass.
    pub fn plain_on(params: &'a Params, tape: &Tape) -> Self {
        Ctx::with(params, Active::default(), |slot, value| match Leaves::All.include(params, slot) {
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
        let active = Active::new(params.registry(), tape, &params.perma_hooks.0, hooks)?;
        Ok(Ctx::with(params, active, weight))
    }

    fn with(params: &'a Params, active: Active<'a, 'h>, weight: impl Fn(usize, Tensor) -> Var) -> Self {
        let weights: Vec<Var> = params.slots().iter().enumerate().map(|(slot, w)| weight(slot, w.clone())).collect();
        let places = params.frozen().filter_map(|name| params.registry().param_place(name));
        let frozen =
            places.filter(|(slot, _)| weights[*slot].requires_grad()).map(|(slot, at)| (slot, at.clone())).collect();
        Ctx {
            registry: params.registry(),
            active,
            weights,
            frozen,
            dtype: params.dtype(),
            device: params.device().clone(),
        }
    }

    /// The pass goes on after `pos_offset` rows of each sequence, as hooks are told.
    #[must_use]
    pub fn after(mut self, pos_offset: usize) -> Self {
        self.active.pos_offset = pos_offset;
        self
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

impl HookPoint {
    /// Whether a hook of this call listens here. While one does, the value must be made.
    pub fn is_live(&self, ctx: &Ctx<'_, '_>) -> bool {
        ctx.active.live.get(self.id).copied().unwrap_or(false)
    }

    /// Its full name.
    pub fn name<'c>(&self, ctx: &'c Ctx<'_, '_>) -> &'c str {
        &ctx.registry.hooks[self.id].name
    }

    /// Shows `value` to the hooks that listen here, and gives what they make of it.
    ///
    /// # Errors
    /// If a hook fails, or changes the shape, type or device.
    pub fn apply(&self, ctx: &mut Ctx<'_, '_>, value: Var) -> Result<Var, HookError> {
        if !self.is_live(ctx) {
            return Ok(value);
        }
        ctx.active.forward(ctx.registry, self.id, value)
    }
}

/// Gradients by stored parameters, and by other leaves.
pub type ByWeightsAndLeaves = (Vec<Option<Tensor>>, Vec<Option<Tensor>>);

impl Ctx<'_, '_> {
    /// Gradients of `loss` by every stored parameter (`None` where it does not depend on one, or one is
    /// no leaf; 0 where a part of one is frozen); backward hooks run on the way.
    ///
    /// # Errors
    /// If a hook fails, or changes a gradient's shape, type or device.
    pub fn backward(&mut self, loss: &Var) -> Result<Vec<Option<Tensor>>, HookError> {
        Ok(self.backward_with(loss, &[])?.0)
    }

    /// As [`Ctx::backward`], and the gradients by other leaves of the same tape.
    ///
    /// # Errors
    /// As [`Ctx::backward`].
    pub fn backward_with(&mut self, loss: &Var, leaves: &[&Var]) -> Result<ByWeightsAndLeaves, HookError> {
        let (registry, active) = (self.registry, &mut self.active);
        let mut grads = loss.backward_with(|id, grad| active.backward(registry, id, grad))?;
        let mut by_weights: Vec<Option<Tensor>> = self.weights.iter().map(|leaf| grads.take(leaf)).collect();
        for (slot, part) in &self.frozen {
            if let Some(grad) = &mut by_weights[*slot] {
                // Laid out as it is stored, for `part` is a place in that.
                *grad = grad.contiguous();
                grad.assign(|grad| part_of(grad, part), 0.0);
            }
        }
        Ok((by_weights, leaves.iter().map(|leaf| grads.take(leaf)).collect()))
    }
}

impl fmt::Debug for Ctx<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leaves = self.weights.iter().filter(|w| w.requires_grad()).count();
        write!(
            f,
            "Ctx of {} stored weights, {leaves} of them leaves, in {} on {}",
            self.weights.len(),
            self.dtype,
            self.device
        )
    }
}
