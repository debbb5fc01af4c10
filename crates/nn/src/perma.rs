//! Hooks that stay: TransformerLens's permanent hooks.

use std::sync::Arc;

use ironlens_autograd::Var;
use ironlens_tensor::Tensor;

use crate::error::{HookError, HookFailure};
use crate::hooks::{HookInfo, HookReturn, Target};
use crate::params::Params;

/// A hook of every pass over the parameters that it was added to. Clones share it, and passes of several
/// threads may run it at once.
#[derive(Clone)]
pub(crate) struct PermaHook {
    /// Full names of the hook points where it listens.
    pub names: Vec<String>,
    pub action: PermaAction,
}

/// The permanent hooks of some [`Params`]; clones share the functions.
#[derive(Clone, Default)]
pub struct PermaHooks(pub(crate) Vec<PermaHook>);

/// The names of the hook points.
impl std::fmt::Debug for PermaHooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().flat_map(|hook| &hook.names)).finish()
    }
}

type Shared<T> = Arc<dyn Fn(&mut T, &HookInfo<'_>) -> Result<(), HookFailure> + Send + Sync>;

#[derive(Clone)]
pub(crate) enum PermaAction {
    Forward(Shared<Var>),
    Backward(Shared<Tensor>),
}

impl Params {
    /// Adds a forward hook that runs in every pass over these parameters, before those of a call, until
    /// [`Params::remove_perma_hooks`]: a model that is steered or ablated for whatever is done with it. An
    /// ablated model can be analysed and trained as any other. It may edit values as a hook of a call
    /// may ([`Hooks`](crate::Hooks)), but keeps nothing between passes.
    ///
    /// ```
    /// # use ironlens_nn::{Ctx, Hooks, Init, Params, Registry};
    /// # use ironlens_autograd::Var;
    /// # use ironlens_tensor::{Device, Tensor};
    /// let mut registry = Registry::new("Toy");
    /// let hook = registry.root().hook("hook_out", "unit");
    /// let mut params = Params::zeros(registry, &Device::Cpu);
    /// params.add_perma_hook("hook_out", |x, _| x.zero_at(0, 1))?;
    /// let mut hooks = Hooks::new();
    /// let mut ctx = Ctx::evaluate(&params, &mut hooks)?;
    /// let out = hook.apply(&mut ctx, Var::from(Tensor::from([1.0, 2.0])))?;
    /// assert_eq!(out.value().to_vec(), [1.0, 0.0]);
    /// # Ok::<(), ironlens_nn::HookError>(())
    /// ```
    ///
    /// # Errors
    /// If it names no hook point that fires.
    pub fn add_perma_hook<'t, R: HookReturn>(
        &mut self,
        target: impl Into<Target<'t>>,
        hook: impl Fn(&mut Var, &HookInfo<'_>) -> R + Send + Sync + 'static,
    ) -> Result<(), HookError> {
        let hook = move |value: &mut Var, info: &HookInfo<'_>| hook(value, info).result();
        self.push_perma_hook(target.into(), PermaAction::Forward(Arc::new(hook)))
    }

    /// As [`Params::add_perma_hook`], on the way back: the hook sees gradients and may replace them.
    ///
    /// # Errors
    /// If it names no hook point that fires.
    pub fn add_perma_bwd_hook<'t, R: HookReturn>(
        &mut self,
        target: impl Into<Target<'t>>,
        hook: impl Fn(&mut Tensor, &HookInfo<'_>) -> R + Send + Sync + 'static,
    ) -> Result<(), HookError> {
        let hook = move |grad: &mut Tensor, info: &HookInfo<'_>| hook(grad, info).result();
        self.push_perma_hook(target.into(), PermaAction::Backward(Arc::new(hook)))
    }

    fn push_perma_hook(&mut self, target: Target<'_>, action: PermaAction) -> Result<(), HookError> {
        let names = target.names(self.registry())?;
        self.perma_hooks.0.push(PermaHook { names, action });
        Ok(())
    }

    /// Full names of the hook points with permanent hooks, one for each hook.
    pub fn perma_hooks(&self) -> impl Iterator<Item = &str> {
        self.perma_hooks.0.iter().flat_map(|hook| &hook.names).map(String::as_str)
    }

    /// Takes all permanent hooks off (TransformerLens's `reset_hooks(including_permanent=True)`).
    pub fn remove_perma_hooks(&mut self) {
        self.perma_hooks.0.clear();
    }

    /// The permanent hooks, to be given to other parameters.
    pub fn perma_hooks_alone(&self) -> PermaHooks {
        self.perma_hooks.clone()
    }

    /// Takes these permanent hooks in place of those that there are. A name that fires nowhere is an error
    /// of the next pass.
    pub fn set_perma_hooks(&mut self, hooks: PermaHooks) {
        self.perma_hooks = hooks;
    }
}
