//! [`HookedRootModule`]: what a forward pass over named parameters and hook points can do.

use ironlens_autograd::{Tape, Var};
use ironlens_tensor::Tensor;

use crate::activations::Activations;
use crate::ctx::Ctx;
use crate::error::HookError;
use crate::hooks::{Hooks, Target};
use crate::params::Params;

/// Anything with parameters, hook points and a forward pass: it can be run with hooks, with a cache, and
/// differentiated, as TransformerLens's class of this name.
///
/// ```
/// use ironlens_autograd::Var;
/// use ironlens_nn::{Ctx, HookError, HookPoint, HookedRootModule, Hooks, Linear, Params, Registry};
/// use ironlens_tensor::{Device, Tensor};
///
/// struct Toy {
///     params: Params,
///     layer: Linear,
///     hook_out: HookPoint,
/// }
///
/// impl HookedRootModule for Toy {
///     type Input = Tensor;
///
///     fn params(&self) -> &Params {
///         &self.params
///     }
///
///     fn forward(&self, ctx: &mut Ctx<'_, '_>, x: &Tensor) -> Result<Var, HookError> {
///         let y = self.layer.forward(ctx, &Var::from(x.clone()));
///         self.hook_out.apply(ctx, y)
///     }
/// }
///
/// let mut registry = Registry::new("Toy");
/// let mut scope = registry.root();
/// let layer = Linear::new(&mut scope.child("layer", "Linear"), 2, 3, 0.5);
/// let hook_out = scope.hook("hook_out", "batch unit");
/// let mut toy = Toy { params: Params::initialised(registry, 42, &Device::Cpu), layer, hook_out };
///
/// let x = Tensor::from([[1.0, 2.0]]);
/// let (y, cache) = toy.run_with_cache(&x)?;
/// assert_eq!(cache["hook_out"].to_vec(), y.to_vec());
/// let ablated = toy.run_with_hooks(&x, &mut Hooks::new().fwd("hook_out", |y, _| y.zero_at(1, 0)))?;
/// assert_eq!(ablated.to_vec()[0], 0.0);
/// let (loss, gradients) = toy.gradients(&x, &mut Hooks::new(), |y| y.square().mean_all())?;
/// assert!(loss.item() > 0.0 && gradients.len() == 2);
///
/// # let folder = tempfile::tempdir()?;
/// let file = folder.path().join("toy.safetensors");
/// toy.params().save(&file)?;
/// toy.params.load(&file)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait HookedRootModule {
    /// What it runs on.
    type Input: ?Sized;

    /// The weights, and the tree that names them and the hook points.
    fn params(&self) -> &Params;

    /// The pass itself. It takes weights from `ctx` and shows values to their hook points.
    ///
    /// # Errors
    /// If a hook fails.
    fn forward(&self, ctx: &mut Ctx<'_, '_>, input: &Self::Input) -> Result<Var, HookError>;

    /// Runs.
    ///
    /// # Errors
    /// If a permanent hook fails.
    fn run(&self, input: &Self::Input) -> Result<Tensor, HookError> {
        self.run_with_hooks(input, &mut Hooks::new())
    }

    /// Runs with hooks.
    ///
    /// # Errors
    /// If a hook names nothing that fires, fails, or is a backward hook, which [`HookedRootModule::gradients`] runs.
    fn run_with_hooks(&self, input: &Self::Input, hooks: &mut Hooks<'_>) -> Result<Tensor, HookError> {
        Ok(self.forward(&mut Ctx::evaluate(self.params(), hooks)?, input)?.into_value())
    }

    /// Runs, and keeps the value at every hook point.
    ///
    /// # Errors
    /// If there are no hook points.
    fn run_with_cache(&self, input: &Self::Input) -> Result<(Tensor, Activations), HookError> {
        self.run_with_cache_of(input, Target::all(), &mut Hooks::new())
    }

    /// Runs with hooks, and keeps what they leave at the hook points `names`: a name, several, or a
    /// predicate.
    ///
    /// # Errors
    /// If `names` or a hook names nothing that fires, or a hook fails.
    fn run_with_cache_of<'t>(
        &self,
        input: &Self::Input,
        names: impl Into<Target<'t>>,
        hooks: &mut Hooks<'_>,
    ) -> Result<(Tensor, Activations), HookError> {
        let names: Target<'_> = names.into();
        let mut cache = Activations::default();
        let output = {
            let keep = |value: &mut Var, info: &crate::HookInfo<'_>| {
                cache.insert(info.name, value.value().clone());
            };
            self.run_with_hooks(input, &mut hooks.nested().fwd(names, keep))?
        };
        Ok((output, cache))
    }

    /// The loss that `loss` makes of the output, and its gradient by each of [`Params::slots`] (`None` where it
    /// does not depend on one, or all of it is frozen), for an [`Optimizer`](crate::optim::Optimizer).
    ///
    /// # Errors
    /// If a hook names nothing that fires, or fails.
    fn gradients(
        &self,
        input: &Self::Input,
        hooks: &mut Hooks<'_>,
        loss: impl FnOnce(&Var) -> Var,
    ) -> Result<(Tensor, Vec<Option<Tensor>>), HookError> {
        let tape = Tape::new();
        let mut ctx = Ctx::record(self.params(), &tape, hooks)?;
        let loss = loss(&self.forward(&mut ctx, input)?);
        let gradients = ctx.backward(&loss)?;
        Ok((loss.into_value(), gradients))
    }
}
