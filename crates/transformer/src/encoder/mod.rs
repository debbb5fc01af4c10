//! [`HookedEncoder`]: BERT with a name for every activation.

mod call;
mod net;
mod next_sentence;
mod sentences;
mod text;

use std::fmt;
use std::sync::Arc;

use ironlens_nn::{Hooks, Params, Registry};
use ironlens_tensor::{DType, Device, Tensor};
use ironlens_tokenizer::EncoderTokenizer;
use serde_json::Value;

pub use call::{EncoderCall, EncoderOutput, Head};
pub use next_sentence::{BertNextSentencePrediction, NextSentence};
pub use sentences::{Pooling, Sentences};
pub use text::{EncoderInputs, Guesses};

use crate::cache::ActivationCache;
use crate::config::{Config, ConfigError};
use crate::error::ModelError;
use crate::fit;
use crate::input::Input;
use net::EncoderNet;

/// An encoder such as BERT, whose every activation has a name, by TransformerLens's names and numbers
/// (`HookedEncoder`, 2.18).
///
/// It reads a text as a whole: each position sees all others. Norms come after what they normalise is added, so that
/// the stream that a block reads is normalised (`hook_normalized_resid_post` of the block before). What it is used
/// for is in its heads: guessing masked words (logits, [`HookedEncoder::predict`]), one vector for a text
/// ([`HookedEncoder::sentence_embeddings`]), and whether a text follows another ([`BertNextSentencePrediction`]).
///
/// ```
/// use ironlens_tensor::{Device, IndexTensor};
/// use ironlens_transformer::{ActFn, AttentionDir, Config, Head, HookedEncoder, Hooks};
///
/// let cfg = Config {
///     d_model: 16,
///     d_head: 4,
///     n_layers: 2,
///     n_ctx: 8,
///     d_vocab: 10,
///     act_fn: ActFn::Gelu,
///     attention_dir: AttentionDir::Bidirectional,
///     ..Config::default()
/// };
/// let model = HookedEncoder::new(cfg, &Device::Cpu, 42)?;
/// let tokens = IndexTensor::from([[2, 7, 4, 3]]);
///
/// let (logits, cache) = model.run_with_cache(&tokens)?;
/// assert_eq!(logits.shape(), [1, 4, 10]);
/// assert_eq!(cache[("attn", 0)].shape(), [1, 4, 4, 4]);
/// assert_eq!(cache[("normalized_resid_post", -1)].shape(), [1, 4, 16]);
///
/// // Whether the second part follows the first, with a head's output set to 0.
/// let types = IndexTensor::from([[0, 0, 1, 1]]);
/// let mut ablate = Hooks::new().fwd("blocks.0.attn.hook_z", |z, _| z.assign(|z| z.select(2, 1), 0.0));
/// let output = model.call(&tokens).token_types(&types).head(Head::NextSentence).hooks(&mut ablate).output()?;
/// assert_eq!(output.next_sentence().shape(), [1, 2]);
/// # Ok::<(), ironlens_transformer::ModelError>(())
/// ```
///
/// Cloning is cheap: clones share weights until one is changed. Printing gives the module tree.
#[derive(Clone)]
pub struct HookedEncoder {
    cfg: Arc<Config>,
    heads: Heads,
    net: Arc<EncoderNet>,
    params: Params,
    tokenizer: Option<Arc<EncoderTokenizer>>,
    sentences: Sentences,
}

/// Which heads an encoder has. Checkpoints have those that they were made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// `mlm_head` and `unembed`, which guess masked words.
    pub masked_language: bool,
    /// `pooler`, which makes a vector of the first token.
    pub pooler: bool,
    /// `nsp_head`, which says of that vector whether the second text follows the first; needs the pooler.
    pub next_sentence: bool,
}

impl Heads {
    /// All, as TransformerLens's class has them.
    pub const ALL: Heads = Heads { masked_language: true, pooler: true, next_sentence: true };
    /// None: the stream after the last block is all there is.
    pub const NONE: Heads = Heads { masked_language: false, pooler: false, next_sentence: false };
}

/// The fields of a configuration that an encoder reads, or that follow from others; all others must be at their
/// defaults.
const FIELDS: [&str; 28] = [
    "n_layers",
    "d_model",
    "n_ctx",
    "d_head",
    "model_name",
    "n_heads",
    "d_mlp",
    "act_fn",
    "d_vocab",
    "d_vocab_out",
    "eps",
    "use_attn_result",
    "use_attn_scale",
    "attn_scale",
    "use_split_qkv_input",
    "use_hook_mlp_in",
    "original_architecture",
    "from_checkpoint",
    "checkpoint_index",
    "checkpoint_label_type",
    "checkpoint_value",
    "tokenizer_name",
    "init_mode",
    "attention_dir",
    "seed",
    "initializer_range",
    "init_weights",
    "n_params",
];

/// The configuration, resolved, if an encoder can be made of it.
fn resolved(cfg: Config) -> Result<Config, ConfigError> {
    let fields = |cfg: &Config| serde_json::from_str::<Value>(&cfg.to_json()).unwrap_or_default();
    let (given, default) = (fields(&cfg), fields(&Config::default()));
    for (field, value) in given.as_object().into_iter().flatten() {
        if !FIELDS.contains(&field.as_str()) && default.get(field) != Some(value) {
            let (field, value) = (field.clone(), value.to_string());
            let hint = "an encoder has one layout, BERT's, and does not read this field; leave it at its default";
            return Err(ConfigError::Unsupported { field, value, hint: hint.into() });
        }
    }
    let cfg = cfg.resolved()?;
    if net::head_activation(&cfg).is_none() {
        return Err(ConfigError::Invalid {
            field: "act_fn".into(),
            value: cfg.act_fn.to_string(),
            expected: "gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu or silu".into(),
            hint: "an encoder's heads have its activation function, too".into(),
        });
    }
    Ok(cfg)
}

impl HookedEncoder {
    /// A model with all heads and starting weights drawn from `seed`: a number, or `None` for the configuration's own
    /// (0 if it has none). Set `attention_dir` to bidirectional for what BERT does.
    ///
    /// # Errors
    /// If the configuration cannot be, or has what encoders do not; if its weights would not fit into memory, or one
    /// of them is more than the device takes in one piece.
    pub fn new(cfg: Config, device: &Device, seed: impl Into<Option<u64>>) -> Result<HookedEncoder, ModelError> {
        HookedEncoder::with_heads(cfg, Heads::ALL, device, seed)
    }

    /// The same with some heads.
    ///
    /// # Errors
    /// As [`HookedEncoder::new`], and for a next-sentence head without a pooler.
    pub fn with_heads(
        cfg: Config,
        heads: Heads,
        device: &Device,
        seed: impl Into<Option<u64>>,
    ) -> Result<HookedEncoder, ModelError> {
        if heads.next_sentence && !heads.pooler {
            return Err(ModelError::Options("the next-sentence head reads the pooler: have that, too".into()));
        }
        let seed = seed.into().or(cfg.seed).unwrap_or(0);
        cfg.check_memory(device)?;
        let cfg = resolved(cfg)?;
        let (net, registry) = build(&cfg, heads);
        fit::weights(&registry, device)?;
        let params = Params::initialised(registry, seed, device);
        let (cfg, net) = (Arc::new(cfg), Arc::new(net));
        Ok(HookedEncoder { cfg, heads, net, params, tokenizer: None, sentences: Sentences::default() })
    }

    /// The resolved configuration.
    pub fn config(&self) -> &Config {
        &self.cfg
    }

    /// Which heads it has.
    pub fn heads(&self) -> Heads {
        self.heads
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

    /// Parameter `name` of every block, such as `attn.W_Q`, `[layer, ..]`: TransformerLens's `model.W_Q` and so on.
    ///
    /// # Errors
    /// If blocks have none of this name.
    pub fn stack_param(&self, name: &str) -> Result<Tensor, ModelError> {
        let of_layer = |l: usize| self.param(&format!("blocks.{l}.{name}"));
        Ok(Tensor::stack(&(0..self.cfg.n_layers).map(of_layer).collect::<Result<Vec<_>, _>>()?, 0))
    }

    // ---- running ------------------------------------------------------------------------

    /// A call with options; see [`EncoderCall`].
    pub fn call<'h>(&self, input: impl Into<Input>) -> EncoderCall<'_, 'h> {
        EncoderCall::new(self, call::Read::One(input.into()))
    }

    /// A call of pairs of texts, `[CLS] first [SEP] second [SEP]`.
    pub fn call_pairs<'h, A: AsRef<str>, B: AsRef<str>>(&self, pairs: &[(A, B)]) -> EncoderCall<'_, 'h> {
        let pairs = pairs.iter().map(|(a, b)| (a.as_ref().to_string(), b.as_ref().to_string())).collect();
        EncoderCall::new(self, call::Read::Pairs(pairs))
    }

    /// The logits of masked words, `[batch, pos, d_vocab_out]`, of tokens `[batch, pos]`, or of a text or several.
    ///
    /// # Errors
    /// If the model has no masked-language head, a token is outside of the vocabulary, there are too many positions,
    /// or the model has no tokenizer for a text.
    pub fn forward(&self, input: impl Into<Input>) -> Result<Tensor, ModelError> {
        Ok(self.call(input).output()?.logits().value().clone())
    }

    /// The same, with hooks.
    ///
    /// # Errors
    /// As [`HookedEncoder::forward`], and if a hook names nothing that fires, or fails.
    pub fn run_with_hooks(&self, input: impl Into<Input>, hooks: &mut Hooks<'_>) -> Result<Tensor, ModelError> {
        Ok(self.call(input).hooks(hooks).output()?.logits().value().clone())
    }

    /// The same, and every activation.
    ///
    /// # Errors
    /// As [`HookedEncoder::forward`].
    pub fn run_with_cache(
        &self,
        input: impl Into<Input>,
    ) -> Result<(Tensor, ActivationCache<HookedEncoder>), ModelError> {
        let (output, cache) = self.call(input).cached()?;
        Ok((output.logits().value().clone(), cache))
    }

    /// The stream after the last block, `[batch, pos, d_model]`: TransformerLens's `encoder_output`, Hugging Face's
    /// `last_hidden_state`.
    ///
    /// # Errors
    /// As [`HookedEncoder::forward`], but no head is needed.
    pub fn encoder_output(&self, input: impl Into<Input>) -> Result<Tensor, ModelError> {
        Ok(self.call(input).head(Head::None).output()?.residual.value().clone())
    }

    // ---- switches -----------------------------------------------------------------------

    /// Compute each head's output by itself, for `attn.hook_result`.
    ///
    /// # Errors
    /// If the configuration cannot be.
    pub fn set_use_attn_result(&mut self, on: bool) -> Result<(), ModelError> {
        self.reconfigure(|cfg| cfg.use_attn_result = on)
    }

    /// Give queries, keys and values inputs of their own, for `hook_q_input`, `hook_k_input` and `hook_v_input`.
    ///
    /// # Errors
    /// If the configuration cannot be.
    pub fn set_use_split_qkv_input(&mut self, on: bool) -> Result<(), ModelError> {
        self.reconfigure(|cfg| cfg.use_split_qkv_input = on)
    }

    /// Run `hook_mlp_in`.
    ///
    /// # Errors
    /// If the configuration cannot be.
    pub fn set_use_hook_mlp_in(&mut self, on: bool) -> Result<(), ModelError> {
        self.reconfigure(|cfg| cfg.use_hook_mlp_in = on)
    }

    /// Rebuilds the modules under a changed configuration with the same weights.
    fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), ModelError> {
        let mut cfg = (*self.cfg).clone();
        change(&mut cfg);
        let cfg = resolved(cfg)?;
        let (net, registry) = build(&cfg, self.heads);
        self.params = self.params.with_registry(registry);
        (self.cfg, self.net) = (Arc::new(cfg), Arc::new(net));
        Ok(())
    }

    /// The same model in another element type.
    pub fn to_dtype(&self, dtype: DType) -> HookedEncoder {
        HookedEncoder { params: self.params.to_dtype(dtype), ..self.clone() }
    }

    /// The same model on another device.
    pub fn to_device(&self, device: &Device) -> HookedEncoder {
        HookedEncoder { params: self.params.to_device(device), ..self.clone() }
    }
}

fn build(cfg: &Config, heads: Heads) -> (EncoderNet, Registry) {
    let mut registry = Registry::new("HookedEncoder");
    let net = EncoderNet::new(&mut registry.root(), cfg, heads);
    (net, registry)
}

impl fmt::Display for HookedEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registry().fmt(f)
    }
}

impl fmt::Debug for HookedEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookedEncoder with {} weights on {}: {:?}", self.params.count(), self.device(), self.cfg)
    }
}
