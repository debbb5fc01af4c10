//! [`HookedTransformer`].

use std::fmt;
use std::sync::Arc;

use ironlens_nn::{Hooks, Params, Registry};
use ironlens_tensor::{DType, Device, IndexTensor, Tensor};

use crate::build::Net;
use crate::cache::ActivationCache;
use crate::call::{Call, Input};
use crate::config::Config;
use crate::error::ModelError;

/// A transformer whose every activation has a name, by TransformerLens's names and numbers.
///
/// Cloning is cheap: clones share weights until one is changed. Printing gives the module tree.
#[derive(Clone)]
pub struct HookedTransformer {
    cfg: Arc<Config>,
    pub(crate) net: Arc<Net>,
    pub(crate) params: Params,
}

impl HookedTransformer {
    /// A model with starting weights drawn from `seed`.
    ///
    /// # Errors
    /// If the configuration cannot be.
    pub fn new(cfg: Config, device: &Device, seed: u64) -> Result<HookedTransformer, ModelError> {
        let cfg = cfg.resolved()?;
        let (net, registry) = build(&cfg);
        let params = Params::initialised(registry, seed, device);
        Ok(HookedTransformer { cfg: Arc::new(cfg), net: Arc::new(net), params })
    }

    /// The resolved configuration.
    pub fn config(&self) -> &Config {
        &self.cfg
    }

    /// The weights.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The weights, for an optimiser.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.params.device()
    }

    /// The tree of modules, parameters and hook points.
    pub fn registry(&self) -> &Registry {
        self.params.registry()
    }

    /// A weight by its full name, such as `blocks.0.attn.W_Q`, in TransformerLens's shape; a view.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn param(&self, name: &str) -> Result<Tensor, ModelError> {
        Ok(self.params.get(name)?)
    }

    // ---- running ------------------------------------------------------------------------

    /// A call with options; see [`Call`].
    pub fn call<'h>(&self, input: impl Into<Input>) -> Call<'_, 'h> {
        Call::new(self, input.into())
    }

    /// Logits `[batch, pos, d_vocab_out]` of tokens `[batch, pos]`.
    ///
    /// # Errors
    /// If a token is outside of the vocabulary, or there are too many positions.
    pub fn forward(&self, tokens: &IndexTensor) -> Result<Tensor, ModelError> {
        Ok(self.call(tokens).output()?.logits().value().clone())
    }

    /// Logits, with hooks.
    ///
    /// # Errors
    /// As [`HookedTransformer::forward`], and if a hook names nothing that fires, or fails.
    pub fn run_with_hooks(&self, tokens: &IndexTensor, hooks: &mut Hooks<'_>) -> Result<Tensor, ModelError> {
        Ok(self.call(tokens).hooks(hooks).output()?.logits().value().clone())
    }

    /// Logits, and every activation.
    ///
    /// # Errors
    /// As [`HookedTransformer::forward`].
    pub fn run_with_cache(&self, tokens: &IndexTensor) -> Result<(Tensor, ActivationCache), ModelError> {
        let (output, cache) = self.call(tokens).cached()?;
        Ok((output.logits().value().clone(), cache))
    }

    // ---- switches -----------------------------------------------------------------------

    /// Compute each head's output by itself, for `attn.hook_result`.
    ///
    /// # Errors
    /// If the configuration cannot be.
    pub fn set_use_attn_result(&mut self, on: bool) -> Result<(), ModelError> {
        self.reconfigure(|cfg| cfg.use_attn_result = on)
    }

    /// Give queries, keys and values inputs of their own, for `hook_q_input`, `hook_k_input` and
    /// `hook_v_input`.
    ///
    /// # Errors
    /// If the configuration cannot be.
    pub fn set_use_split_qkv_input(&mut self, on: bool) -> Result<(), ModelError> {
        self.reconfigure(|cfg| cfg.use_split_qkv_input = on)
    }

    /// Give every head its own input, for `hook_attn_in`.
    ///
    /// # Errors
    /// If the configuration cannot be (grouped queries).
    pub fn set_use_attn_in(&mut self, on: bool) -> Result<(), ModelError> {
        self.reconfigure(|cfg| cfg.use_attn_in = on)
    }

    /// Run `hook_mlp_in`.
    ///
    /// # Errors
    /// If the configuration cannot be (attention only).
    pub fn set_use_hook_mlp_in(&mut self, on: bool) -> Result<(), ModelError> {
        self.reconfigure(|cfg| cfg.use_hook_mlp_in = on)
    }

    /// Give every head its own copy of its group's keys and values.
    ///
    /// # Errors
    /// If the configuration cannot be.
    pub fn set_ungroup_grouped_query_attention(&mut self, on: bool) -> Result<(), ModelError> {
        self.reconfigure(|cfg| cfg.ungroup_grouped_query_attention = on)
    }

    /// Rebuilds the modules under a changed configuration with the same weights.
    fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), ModelError> {
        let mut cfg = (*self.cfg).clone();
        change(&mut cfg);
        let cfg = cfg.resolved()?;
        let (net, registry) = build(&cfg);
        self.params = self.params.with_registry(registry);
        (self.cfg, self.net) = (Arc::new(cfg), Arc::new(net));
        Ok(())
    }

    /// The same model in another element type.
    pub fn to_dtype(&self, dtype: DType) -> HookedTransformer {
        HookedTransformer { params: self.params.to_dtype(dtype), ..self.clone() }
    }

    /// The same model on another device.
    pub fn to_device(&self, device: &Device) -> HookedTransformer {
        HookedTransformer { params: self.params.to_device(device), ..self.clone() }
    }
}

fn build(cfg: &Config) -> (Net, Registry) {
    let mut registry = Registry::new("HookedTransformer");
    let net = Net::new(&mut registry.root(), cfg);
    (net, registry)
}

impl fmt::Display for HookedTransformer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registry().fmt(f)
    }
}

impl fmt::Debug for HookedTransformer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookedTransformer with {} weights on {}: {:?}", self.params.count(), self.device(), self.cfg)
    }
}
