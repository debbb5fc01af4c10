//! Parts of a model by themselves: blocks and their modules; and what stays with a model: starting weights,
//! permanent hooks.

use ironlens_autograd::Var;
use ironlens_nn::{
    AttentionInput, Ctx, HookError, HookInfo, HookReturn, HookedRootModule, Params, Registry, Rows, Target,
};
use ironlens_tensor::Tensor;

use crate::block::TransformerBlock;
use crate::config::{Config, PositionalEmbeddingType};
use crate::error::ModelError;
use crate::model::HookedTransformer;
use crate::names::{LayerIndex, resolve_layer};
use crate::net::Net;

/// One block of a model (TransformerLens's `model.blocks[layer]`), or a module of it. It runs on its own as
/// any [`HookedRootModule`], on values `[batch, pos, d_model]`, with the full names of hook points:
///
/// ```
/// # use ironlens_autograd::Var;
/// # use ironlens_nn::{HookedRootModule, Hooks};
/// # use ironlens_tensor::{Device, IndexTensor};
/// # use ironlens_transformer::{ActFn, Config, HookedTransformer};
/// # let cfg = Config { d_model: 8, d_head: 4, n_layers: 2, n_ctx: 4, d_vocab: 5, act_fn: ActFn::Relu, ..Config::default() };
/// # let model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
/// let (_, cache) = model.run_with_cache(&IndexTensor::from([[0, 1, 2]]))?;
/// let stream = Var::from(cache[("resid_pre", 1)].clone());
///
/// let block = model.block(1)?;
/// assert_eq!(block.run(&stream)?.to_vec(), cache[("resid_post", 1)].to_vec());
/// let (written, within) = block.attn().run_with_cache_of(
///     &block.ln1().run(&stream)?.into(),
///     "blocks.1.attn.hook_pattern",
///     &mut Hooks::new(),
/// )?;
/// assert_eq!(written.to_vec(), cache[("attn_out", 1)].to_vec());
/// assert_eq!(within["blocks.1.attn.hook_pattern"].shape(), [1, 2, 3, 3]);
/// # Ok::<(), ironlens_transformer::ModelError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Part<'m> {
    model: &'m HookedTransformer,
    layer: usize,
    module: Module,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Module {
    Block,
    Ln1,
    Attn,
    Ln2,
    Mlp,
}

impl<'m> Part<'m> {
    /// The layer that this is of.
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// The norm before attention; what it is given, in a model without.
    pub fn ln1(&self) -> Part<'m> {
        Part { module: Module::Ln1, ..*self }
    }

    /// Attention, on the normalised stream: what it writes, before a norm after it.
    pub fn attn(&self) -> Part<'m> {
        Part { module: Module::Attn, ..*self }
    }

    /// The norm before the MLP; what it is given, in a model without.
    pub fn ln2(&self) -> Part<'m> {
        Part { module: Module::Ln2, ..*self }
    }

    /// The MLP or the experts, on the normalised stream: what they write, before a norm after them; 0 in a
    /// model that is attention alone.
    pub fn mlp(&self) -> Part<'m> {
        Part { module: Module::Mlp, ..*self }
    }

    fn block(&self) -> &'m TransformerBlock {
        &self.model.net.blocks[self.layer]
    }
}

impl HookedRootModule for Part<'_> {
    type Input = Var;

    fn params(&self) -> &Params {
        self.model.params()
    }

    fn forward(&self, ctx: &mut Ctx<'_, '_>, x: &Var) -> Result<Var, HookError> {
        let width = self.model.config().d_model;
        let [batch, pos, d_model] = *x.shape() else { panic!("expected [batch, pos, {width}], given {:?}", x.shape()) };
        assert!(d_model == width, "expected [batch, pos, {width}], given {:?}", x.shape());
        let mlp = self.block().mlp.as_ref();
        let norm = match self.module {
            Module::Block => {
                let shortformer = self.model.config().positional_embedding_type == PositionalEmbeddingType::Shortformer;
                let table = self.model.net.pos_embed.as_ref().filter(|_| shortformer);
                let pos_embed = table.map(|(w, _)| w.forward(ctx, batch, 0..pos));
                return self.block().forward(ctx, x.clone(), pos_embed.as_ref(), Rows::default());
            }
            Module::Attn => {
                return self.block().attn.forward(ctx, &AttentionInput::Shared(x.clone()), None, None);
            }
            Module::Mlp => {
                return match mlp {
                    Some(mlp) => mlp.mlp.forward(ctx, x, None),
                    None => Ok(x.number(0.0).expand(x.shape())),
                };
            }
            Module::Ln1 => self.block().ln1.as_ref(),
            Module::Ln2 => mlp.and_then(|mlp| mlp.ln2.as_ref()),
        };
        match norm {
            Some(norm) => norm.forward(ctx, x),
            None => Ok(x.clone()),
        }
    }
}

impl std::fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Part({:?} of layer {})", self.module, self.layer)
    }
}

impl HookedTransformer {
    /// The block of a layer, with its modules; negative counts from the end.
    ///
    /// # Errors
    /// If there is no such layer.
    pub fn block(&self, layer: impl Into<LayerIndex>) -> Result<Part<'_>, ModelError> {
        let layer = resolve_layer(layer.into().0, self.config().n_layers)?;
        Ok(Part { model: self, layer, module: Module::Block })
    }

    /// Draws all weights anew by the configuration's `init_mode`, also those that were read from a file.
    /// [`Params::init_where`] starts some of them in another way.
    pub fn init_weights(&mut self, seed: u64) {
        let cfg = Config { init_weights: true, ..self.config().clone() };
        let mut registry = Registry::new("HookedTransformer");
        Net::new(&mut registry.root(), &cfg);
        self.params = self.params.with_registry(registry);
        self.params.init_weights(seed);
    }

    /// Adds a hook that runs in every pass of this model and of its clones to come: see
    /// [`Params::add_perma_hook`]. Analyses and training then are of the steered or ablated model.
    ///
    /// # Errors
    /// If it names no hook point that fires.
    pub fn add_perma_hook<'t, R: HookReturn>(
        &mut self,
        target: impl Into<Target<'t>>,
        hook: impl Fn(&mut Var, &HookInfo<'_>) -> R + Send + Sync + 'static,
    ) -> Result<(), ModelError> {
        Ok(self.params.add_perma_hook(target, hook)?)
    }

    /// As [`HookedTransformer::add_perma_hook`], of gradients.
    ///
    /// # Errors
    /// If it names no hook point that fires.
    pub fn add_perma_bwd_hook<'t, R: HookReturn>(
        &mut self,
        target: impl Into<Target<'t>>,
        hook: impl Fn(&mut Tensor, &HookInfo<'_>) -> R + Send + Sync + 'static,
    ) -> Result<(), ModelError> {
        Ok(self.params.add_perma_bwd_hook(target, hook)?)
    }

    /// Takes all permanent hooks off.
    pub fn remove_perma_hooks(&mut self) {
        self.params.remove_perma_hooks();
    }
}
