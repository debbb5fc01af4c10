//! [`HookedTransformer`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ironlens_autograd::Var;
use ironlens_nn::{Ctx, Hooks, ParamError, Params, PermaHooks, Registry};
use ironlens_tensor::{DType, Device, Tensor};
use ironlens_tokenizer::HookedTokenizer;

use crate::cache::ActivationCache;
use crate::call::Call;
use crate::config::Config;
use crate::error::ModelError;
use crate::fit;
use crate::input::Input;
use crate::net::Net;

/// A transformer whose every activation has a name, by TransformerLens's names and numbers.
///
/// Cloning is cheap: clones share weights until one is changed. Printing gives the module tree.
#[derive(Clone)]
pub struct HookedTransformer {
    cfg: Arc<Config>,
    pub(crate) net: Arc<Net>,
    pub(crate) params: Params,
    pub(crate) tokenizer: Option<Arc<HookedTokenizer>>,
}

impl HookedTransformer {
    /// A model with starting weights drawn from `seed`: a number, or `None` for the configuration's own
    /// (0 if it has none).
    ///
    /// # Errors
    /// If the configuration cannot be, its weights would not fit into memory, or one of them is more than the
    /// device takes in one piece.
    pub fn new(cfg: Config, device: &Device, seed: impl Into<Option<u64>>) -> Result<HookedTransformer, ModelError> {
        let seed = seed.into().or(cfg.seed).unwrap_or(0);
        let params = |registry| Ok(Params::initialised(registry, seed, device));
        HookedTransformer::with_params(cfg, device, DType::F32, params)
    }

    /// As [`HookedTransformer::new`] on the CPU, with matrices stored in `storage` ([`Params::store_as`]) from the outset,
    /// so that 16 bits take half of the memory at once.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// If `storage` is `F64`.
    #[track_caller]
    pub fn new_stored_as(
        cfg: Config,
        storage: DType,
        seed: impl Into<Option<u64>>,
    ) -> Result<HookedTransformer, ModelError> {
        let seed = seed.into().or(cfg.seed).unwrap_or(0);
        let params = |registry| Ok(Params::initialised_as(storage, registry, seed, &Device::Cpu));
        HookedTransformer::with_params(cfg, &Device::Cpu, storage, params)
    }

    /// The model of `cfg` with the weights that `params` makes, with matrices stored in `storage`.
    fn with_params(
        cfg: Config,
        device: &Device,
        storage: DType,
        params: impl FnOnce(Registry) -> Result<Params, ParamError>,
    ) -> Result<HookedTransformer, ModelError> {
        cfg.check_memory_as(storage, device)?;
        let cfg = cfg.resolved()?;
        let (net, registry) = build(&cfg);
        fit::weights(&registry, device)?;
        let params = params(registry)?;
        Ok(HookedTransformer { cfg: Arc::new(cfg), net: Arc::new(net), params, tokenizer: None })
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

    /// Logits `[batch, pos, d_vocab_out]` of tokens `[batch, pos]`, or of a text or several. A text of more tokens than
    /// the model has positions is cut to these ([`Input::Texts`]).
    ///
    /// # Errors
    /// If a token is outside of the vocabulary, tokens have more positions than the model, or the model has no
    /// tokenizer for a text.
    pub fn forward(&self, input: impl Into<Input>) -> Result<Tensor, ModelError> {
        Ok(self.call(input).output()?.logits().value().clone())
    }

    /// Logits, with hooks.
    ///
    /// # Errors
    /// As [`HookedTransformer::forward`], and if a hook names nothing that fires, or fails.
    pub fn run_with_hooks(&self, input: impl Into<Input>, hooks: &mut Hooks<'_>) -> Result<Tensor, ModelError> {
        Ok(self.call(input).hooks(hooks).output()?.logits().value().clone())
    }

    /// Logits, and every activation.
    ///
    /// # Errors
    /// As [`HookedTransformer::forward`].
    pub fn run_with_cache(&self, input: impl Into<Input>) -> Result<(Tensor, ActivationCache), ModelError> {
        let (output, cache) = self.call(input).cached()?;
        Ok((output.logits().value().clone(), cache))
    }

    /// Whether batches of `[batch, pos]` tokens can be run here.
    ///
    /// # Errors
    /// If an activation is more than the device takes in one piece; says how many sequences would fit.
    pub fn check_fits(&self, batch: usize, pos: usize) -> Result<(), ModelError> {
        fit::activations(&self.cfg, self.device(), [batch, pos], pos, true, true)
    }

    // ---- parts --------------------------------------------------------------------------

    /// The final norm of a residual stream `[.., d_model]`, with its weights (the stream itself in a
    /// model without norms).
    ///
    /// # Panics
    /// If the last axis is not d_model.
    #[track_caller]
    pub fn ln_final(&self, residual: &Tensor) -> Tensor {
        self.check_width("ln_final", residual);
        let Some(ln) = &self.net.ln_final else { return residual.clone() };
        let normalized = ln.forward(&mut Ctx::plain(&self.params), &Var::from(residual.clone()));
        normalized.expect("a pass without hooks has none that could fail").into_value()
    }

    /// Logits `[.., d_vocab_out]` of a normalised residual stream `[.., d_model]`.
    ///
    /// # Panics
    /// If the last axis is not d_model.
    #[track_caller]
    pub fn unembed(&self, normalized: &Tensor) -> Tensor {
        self.check_width("unembed", normalized);
        self.net.logits(&Ctx::plain(&self.params), &Var::from(normalized.clone())).into_value()
    }

    #[track_caller]
    fn check_width(&self, what: &str, x: &Tensor) {
        let d = self.cfg.d_model;
        assert!(x.shape().last() == Some(&d), "{what}: expected [.., d_model = {d}], given {:?}", x.shape());
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

    /// A model of another configuration with weights by name, as [`HookedTransformer::params`]
    /// gives them; all that it has must be given.
    ///
    /// # Errors
    /// If the configuration cannot be, or a weight is missing, unknown or of another shape.
    pub fn with_weights<'t>(
        &self,
        cfg: Config,
        weights: impl IntoIterator<Item = (&'t str, &'t Tensor)>,
    ) -> Result<HookedTransformer, ModelError> {
        let weights = weights.into_iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        self.shell().filled(cfg, weights)
    }

    /// A model whose configuration and weights (by name, as [`HookedTransformer::params`] gives them) are what
    /// `change` leaves. The model itself is given up first: memory of what is replaced is free at once, unless
    /// clones hold it.
    ///
    /// # Errors
    /// What `change` gives, and as [`HookedTransformer::with_weights`].
    pub fn rebuilt<E: From<ModelError>>(
        self,
        change: impl FnOnce(&mut Config, &mut BTreeMap<String, Tensor>) -> Result<(), E>,
    ) -> Result<HookedTransformer, E> {
        let (shell, mut cfg) = (self.shell(), self.config().clone());
        let mut weights = self.params.iter().map(|(name, value)| (name.to_string(), value)).collect();
        drop(self);
        change(&mut cfg, &mut weights)?;
        Ok(shell.filled(cfg, weights)?)
    }

    /// What of a model does not depend on its weights.
    fn shell(&self) -> Shell {
        Shell {
            device: self.device().clone(),
            dtype: self.params.dtype(),
            tokenizer: self.tokenizer.clone(),
            perma_hooks: self.params.perma_hooks_alone(),
        }
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

/// A model without its weights.
struct Shell {
    device: Device,
    dtype: DType,
    tokenizer: Option<Arc<HookedTokenizer>>,
    perma_hooks: PermaHooks,
}

impl Shell {
    /// The model of `cfg` with these weights.
    fn filled(self, cfg: Config, weights: BTreeMap<String, Tensor>) -> Result<HookedTransformer, ModelError> {
        // Matrices keep the type that they are stored in.
        let storage = weights.values().map(Tensor::dtype).find(|dtype| dtype.is_storage()).unwrap_or(self.dtype);
        let mut model = HookedTransformer::with_params(cfg, &self.device, storage, |registry| {
            Params::from_weights(registry, self.dtype, &self.device, weights)
        })?;
        model.tokenizer = self.tokenizer;
        model.params.set_perma_hooks(self.perma_hooks);
        Ok(model)
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

#[cfg(test)]
mod tests {
    use ironlens_tensor::IndexTensor;

    use super::*;
    use crate::config::{ActFn, AttnType, PositionalEmbeddingType};

    fn rotary() -> Config {
        Config {
            d_model: 8,
            d_head: 4,
            n_layers: 4,
            n_ctx: 131_072,
            d_vocab: 11,
            act_fn: ActFn::Silu,
            positional_embedding_type: PositionalEmbeddingType::Rotary,
            ..Config::default()
        }
    }

    fn rows(model: &HookedTransformer) -> Vec<usize> {
        model.net.rotary_tables.iter().map(|t| t.rows()).collect()
    }

    #[test]
    fn rotary_tables_are_shared_by_layers_and_as_long_as_what_was_seen() {
        let model = HookedTransformer::new(rotary(), &Device::Cpu, 0).unwrap();
        let tokens = |pos: usize| IndexTensor::new(vec![3; pos], &[1, pos]);
        assert_eq!(rows(&model), [0]);
        let short = model.forward(&tokens(5)).unwrap();
        assert_eq!(rows(&model), [8]);
        let long = model.forward(&tokens(9)).unwrap();
        assert_eq!(rows(&model), [16]);
        assert_eq!(long.narrow(1, 0, 5).contiguous().to_vec(), short.to_vec());
        // Padding counts positions from the first token.
        let mask = IndexTensor::new((0..40).map(|i| u32::from(i >= 37)).collect::<Vec<_>>(), &[1, 40]);
        model.call(&tokens(40)).attention_mask(&mask).output().unwrap();
        assert_eq!(rows(&model), [16]);
        // Another element type has rows of its own.
        model.to_dtype(DType::F64).forward(&tokens(3)).unwrap();
        assert_eq!(rows(&model), [16 + 4]);
    }

    #[test]
    fn each_kind_of_rotation_has_a_table() {
        let local = [AttnType::Local, AttnType::Local, AttnType::Global, AttnType::Local];
        let cfg = Config {
            use_local_attn: true,
            window_size: 3,
            attn_types: local.to_vec(),
            rotary_base_local: Some(500.0),
            ..rotary()
        };
        let model = HookedTransformer::new(cfg, &Device::Cpu, 0).unwrap();
        model.forward(&IndexTensor::from([[1, 2, 3]])).unwrap();
        assert_eq!(rows(&model), [4, 4]);
    }
}
