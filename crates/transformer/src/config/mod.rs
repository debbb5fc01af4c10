//! What a model is made of: TransformerLens 2.18's `HookedTransformerConfig`, field for field.
//!
//! ```
//! use ironlens_transformer::config::{ActFn, Config};
//!
//! let cfg = Config {
//!     d_model: 768,
//!     d_head: 64,
//!     n_layers: 2,
//!     n_ctx: 128,
//!     d_vocab: 300,
//!     act_fn: ActFn::Gelu,
//!     ..Config::default()
//! }
//! .resolved()?;
//! assert_eq!((cfg.n_heads, cfg.d_mlp, cfg.attn_scale), (12, 3072, 8.0));
//! # Ok::<(), ironlens_transformer::config::ConfigError>(())
//! ```

mod choices;
mod error;
mod json;
mod memory;
mod validate;

pub use choices::{ActFn, AttentionDir, AttnType, InitMode, NormalizationType, PositionalEmbeddingType, QkNormType};
pub use error::ConfigError;
pub use ironlens_nn::RopeScaling;
pub use memory::machine_memory;
pub(crate) use memory::product;

/// The shape and kind of a transformer, by TransformerLens's names.
///
/// Four sizes must be given (`d_model`, `d_head`, `n_layers`, `n_ctx`), and so must `d_vocab` and, unless the model
/// is `attn_only`, `act_fn`. Everything else has TransformerLens's default, most often filled in by
/// [`resolved`](Config::resolved): a size of 0 means *not given*, and so does -1.0 where a field says so.
/// A model keeps its resolved configuration.
///
/// Fields of TransformerLens's that this crate does not implement (4-bit weights, T5's relative positions) are not
/// here; [`from_json`](Config::from_json) accepts them at their defaults and refuses them by name otherwise. The
/// last fields, from `norm_topk_prob` on, are of families that TransformerLens 2.18 does not compute; they are
/// written to a file only where they are not at their defaults.
#[derive(Clone, Debug, PartialEq)]
#[expect(non_snake_case, reason = "TransformerLens's field names, to the letter")]
pub struct Config {
    /// Number of blocks; one block is attention and, unless `attn_only`, an MLP.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Longest sequence, in positions.
    pub n_ctx: usize,
    /// Width of a head's queries, keys and values.
    pub d_head: usize,
    /// A name for people; nothing depends on it. Default `"custom"`.
    pub model_name: String,
    /// Number of attention heads. Default `d_model / d_head`; `n_heads * d_head` need not equal `d_model`.
    pub n_heads: usize,
    /// Number of MLP neurons. Default `4 * d_model`; 0 in an `attn_only` model.
    pub d_mlp: usize,
    /// The MLP's activation function.
    pub act_fn: ActFn,
    /// Number of tokens that can be read.
    pub d_vocab: usize,
    /// Added to the variance (or mean square) inside a norm's square root. Default 1e-5.
    pub eps: f64,
    /// Compute each head's output by itself, for `attn.hook_result` `[batch, pos, head, d_model]`.
    pub use_attn_result: bool,
    /// Divide the scores by `attn_scale`; without it they are not divided. Default true.
    pub use_attn_scale: bool,
    /// What the scores are divided by. Default (-1.0) √`d_head`.
    pub attn_scale: f64,
    /// Give queries, keys and values an input of their own per head, for `hook_q_input`, `hook_k_input` and
    /// `hook_v_input` `[batch, pos, head, d_model]`.
    pub use_split_qkv_input: bool,
    /// Run `hook_mlp_in` `[batch, pos, d_model]`, the MLP's input before its norm.
    pub use_hook_mlp_in: bool,
    /// Give each head an input of its own, for `hook_attn_in` `[batch, pos, head, d_model]`. With
    /// `use_split_qkv_input`, too, that hook runs and nothing reads what it leaves, as in TransformerLens.
    pub use_attn_in: bool,
    /// RMS-normalise each query and key vector (Gemma 3, Qwen 3), before any rotation.
    pub use_qk_norm: bool,
    /// Let the layers that `attn_types` calls local look back `window_size` positions only.
    pub use_local_attn: bool,
    /// With grouped queries: give every head its own copy of its group's keys and values, so that hooks on them
    /// see `n_heads` heads.
    pub ungroup_grouped_query_attention: bool,
    /// The family a pretrained model comes from; nothing depends on it.
    pub original_architecture: Option<String>,
    /// Whether the weights were taken during training; nothing depends on it.
    pub from_checkpoint: bool,
    /// Which of the checkpoints they are.
    pub checkpoint_index: Option<u64>,
    /// What `checkpoint_value` counts: `"step"` or `"token"`.
    pub checkpoint_label_type: Option<String>,
    /// When in training the checkpoint was taken.
    pub checkpoint_value: Option<u64>,
    /// The tokenizer's name at its hub; kept, never fetched.
    pub tokenizer_name: Option<String>,
    /// How many positions local attention sees, the current one among them. Needed by `use_local_attn`.
    pub window_size: usize,
    /// Per layer, how far its attention reaches. Needed by `use_local_attn`, one entry for each layer.
    pub attn_types: Vec<AttnType>,
    /// How the weight matrices are drawn.
    pub init_mode: InitMode,
    /// The norms' kind. Default [`LN`](NormalizationType::LN).
    pub normalization_type: NormalizationType,
    /// Causal or bidirectional.
    pub attention_dir: AttentionDir,
    /// Leave the MLPs out.
    pub attn_only: bool,
    /// The seed the weights are drawn with where [`HookedTransformer::new`](crate::HookedTransformer::new) is
    /// given none; 0 if there is none here either.
    pub seed: Option<u64>,
    /// Standard deviation of the initial weights, or their gain where `init_mode` is not `gpt2`.
    /// Default (any negative number): 0.8 / √`d_model` for `gpt2`, 1.0 for the others.
    pub initializer_range: f64,
    /// Draw initial weights; without it they start at 0. Default true.
    pub init_weights: bool,
    /// Divide layer *l*'s scores by *l* + 1 as well (Stanford's Mistral models).
    pub scale_attn_by_inverse_layer_idx: bool,
    /// How the model knows positions.
    pub positional_embedding_type: PositionalEmbeddingType,
    /// Make the last norm an RMSNorm also in a model of layer norms; nothing in a model without norms.
    pub final_rms: bool,
    /// Number of tokens that can be predicted. Default `d_vocab`.
    pub d_vocab_out: usize,
    /// Let the MLP read the block's input rather than attention's output (GPT-J, GPT-NeoX).
    pub parallel_attn_mlp: bool,
    /// How many of a head's dimensions are rotated, the first ones; even. Default `d_head` if rotary.
    pub rotary_dim: usize,
    /// Run `hook_tokens` `[batch, pos]`.
    pub use_hook_tokens: bool,
    /// Multiply the activations by a second, linear, read of the residual stream (Llama).
    pub gated_mlp: bool,
    /// Whether text is given a beginning-of-sequence token. Default true.
    pub default_prepend_bos: bool,
    /// Whether the tokenizer adds that token by itself.
    pub tokenizer_prepends_bos: Option<bool>,
    /// Number of key and value heads, a divisor of `n_heads`, each shared by a group of heads (grouped-query
    /// attention). Default 0: every head has its own. Giving `n_heads` is not the same as giving none: the
    /// parameters are then `_W_K`, `_W_V`, `_b_K`, `_b_V`.
    pub n_key_value_heads: usize,
    /// Put a LayerNorm right after the token embedding (BLOOM), whatever `normalization_type` is.
    pub post_embedding_ln: bool,
    /// Base of the rotation's wavelengths. Default 10000.
    pub rotary_base: f64,
    /// The same for local layers (Gemma 3). Default: `rotary_base`.
    pub rotary_base_local: Option<f64>,
    /// Rotate neighbouring pairs (GPT-J) rather than pairs from the two halves (GPT-NeoX, Llama).
    pub rotary_adjacent_pairs: bool,
    /// Normalise what attention and MLP write as well as what they read (Gemma 2); RMS norms only.
    pub use_normalization_before_and_after: bool,
    /// Squash the scores: *cap* tanh(*score* / *cap*). Default (-1.0, or any number not above 0) off.
    pub attn_scores_soft_cap: f64,
    /// Squash the logits likewise.
    pub output_logits_soft_cap: f64,
    /// Stretch the rotation's long wavelengths (Llama 3.1's "NTK by parts").
    pub use_NTK_by_parts_rope: bool,
    /// Wavelengths above `NTK_original_ctx_len` / this are stretched in full. Default 1.
    pub NTK_by_parts_low_freq_factor: f64,
    /// Wavelengths below `NTK_original_ctx_len` / this are left alone. Default 4.
    pub NTK_by_parts_high_freq_factor: f64,
    /// By how much they are stretched. Default 8.
    pub NTK_by_parts_factor: f64,
    /// The context length before stretching. Default 8192.
    pub NTK_original_ctx_len: usize,
    /// Number of experts, each an MLP with `d_mlp` neurons, that take an MLP's place (Mixtral). Default 0: none.
    pub num_experts: usize,
    /// How many of them each token goes to.
    pub experts_per_token: usize,
    /// Divide the weights of a token's experts by their sum. Default true.
    pub norm_topk_prob: bool,
    /// Number of neurons of an expert that every token goes to, besides its own (Qwen 2). Default 0: there is none.
    pub d_shared_expert: usize,
    /// Layers that have a plain MLP in a model with experts.
    pub dense_layers: Vec<usize>,
    /// Number of neurons of that MLP. Default `d_mlp`.
    pub d_mlp_dense: usize,
    /// Biases in the router and the experts, and the experts' clamped activation: gpt-oss's.
    pub gpt_oss_experts: bool,
    /// Add the biases of a gated MLP before the product, and give the gate one, `b_gate`.
    pub gate_bias: bool,
    /// Normalise what attention and MLP write, and not what they read (OLMo 2); RMS norms only.
    pub use_normalization_after_only: bool,
    /// What [`use_qk_norm`](Config::use_qk_norm) normalises, and how. Default: each vector, by RMS.
    pub qk_norm_type: QkNormType,
    /// Cut queries, keys and values off at this (OLMo). Default: not.
    pub clip_qkv: Option<f64>,
    /// Give each head a score that belongs to no position (gpt-oss); the parameter is `attn.sinks`.
    pub attn_sinks: bool,
    /// ALiBi's slope of each head. Default (empty): TransformerLens's formula, which is the paper's where the
    /// number of heads is a power of two.
    pub alibi_slopes: Vec<f64>,
    /// ALiBi's bias as Falcon's in Hugging Face: slope, place of the key and their product are rounded to `bf16`, and
    /// the product is divided as scores are ([`Alibi`](ironlens_tensor::Alibi)).
    pub alibi_bf16: bool,
    /// Layers whose queries and keys are not rotated (SmolLM 3).
    pub no_rope_layers: Vec<usize>,
    /// How the rotation's wavelengths are stretched, where it is not by Llama 3.1's formula.
    pub rope_scaling: Option<RopeScaling>,
    /// Stretch them in global layers only (Gemma 3, OLMo 3).
    pub rope_scaling_global_only: bool,
}

impl Default for Config {
    /// TransformerLens's defaults; the sizes it demands are 0, and [`resolved`](Config::resolved) asks for them.
    fn default() -> Self {
        Config {
            n_layers: 0,
            d_model: 0,
            n_ctx: 0,
            d_head: 0,
            model_name: "custom".into(),
            n_heads: 0,
            d_mlp: 0,
            act_fn: ActFn::Unset,
            d_vocab: 0,
            eps: 1e-5,
            use_attn_result: false,
            use_attn_scale: true,
            attn_scale: -1.0,
            use_split_qkv_input: false,
            use_hook_mlp_in: false,
            use_attn_in: false,
            use_qk_norm: false,
            use_local_attn: false,
            ungroup_grouped_query_attention: false,
            original_architecture: None,
            from_checkpoint: false,
            checkpoint_index: None,
            checkpoint_label_type: None,
            checkpoint_value: None,
            tokenizer_name: None,
            window_size: 0,
            attn_types: Vec::new(),
            init_mode: InitMode::Gpt2,
            normalization_type: NormalizationType::LN,
            attention_dir: AttentionDir::Causal,
            attn_only: false,
            seed: None,
            initializer_range: -1.0,
            init_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            positional_embedding_type: PositionalEmbeddingType::Standard,
            final_rms: false,
            d_vocab_out: 0,
            parallel_attn_mlp: false,
            rotary_dim: 0,
            use_hook_tokens: false,
            gated_mlp: false,
            default_prepend_bos: true,
            tokenizer_prepends_bos: None,
            n_key_value_heads: 0,
            post_embedding_ln: false,
            rotary_base: 10000.0,
            rotary_base_local: None,
            rotary_adjacent_pairs: false,
            use_normalization_before_and_after: false,
            attn_scores_soft_cap: -1.0,
            output_logits_soft_cap: -1.0,
            use_NTK_by_parts_rope: false,
            NTK_by_parts_low_freq_factor: 1.0,
            NTK_by_parts_high_freq_factor: 4.0,
            NTK_by_parts_factor: 8.0,
            NTK_original_ctx_len: 8192,
            num_experts: 0,
            experts_per_token: 0,
            norm_topk_prob: true,
            d_shared_expert: 0,
            dense_layers: Vec::new(),
            d_mlp_dense: 0,
            gpt_oss_experts: false,
            gate_bias: false,
            use_normalization_after_only: false,
            qk_norm_type: QkNormType::Rms,
            clip_qkv: None,
            attn_sinks: false,
            alibi_slopes: Vec::new(),
            alibi_bf16: false,
            no_rope_layers: Vec::new(),
            rope_scaling: None,
            rope_scaling_global_only: false,
        }
    }
}

/// What follows from the fields. All of it reads an unset field as its default, so none of it needs
/// [`resolved`](Config::resolved) first; of a resolved configuration, such as a model's, a field and the method
/// of its name say the same.
impl Config {
    /// Number of attention heads.
    pub fn n_heads(&self) -> usize {
        if self.n_heads != 0 { self.n_heads } else { self.d_model.checked_div(self.d_head).unwrap_or(0) }
    }

    /// Number of heads that have keys and values of their own; `n_heads` without grouped queries.
    pub fn n_key_value_heads(&self) -> usize {
        if self.is_grouped_query() { self.n_key_value_heads } else { self.n_heads() }
    }

    /// Whether key and value heads are shared by groups of heads, so that their parameters are `_W_K`, `_W_V`,
    /// `_b_K` and `_b_V`.
    pub fn is_grouped_query(&self) -> bool {
        self.n_key_value_heads != 0
    }

    /// Number of key and value heads that hooks see: `n_heads` if there are no groups or they are ungrouped.
    pub fn n_hooked_key_value_heads(&self) -> usize {
        if self.ungroup_grouped_query_attention { self.n_heads() } else { self.n_key_value_heads() }
    }

    /// Number of MLP neurons; 0 without MLPs.
    pub fn d_mlp(&self) -> usize {
        match (self.attn_only, self.d_mlp) {
            (true, _) => 0,
            (false, 0) => self.d_model.saturating_mul(4),
            (false, given) => given,
        }
    }

    /// How many of a head's dimensions are rotated; 0 unless positions are rotary.
    pub fn rotary_dim(&self) -> usize {
        match (self.positional_embedding_type, self.rotary_dim) {
            (PositionalEmbeddingType::Rotary, 0) => self.d_head,
            (PositionalEmbeddingType::Rotary, given) => given,
            _ => 0,
        }
    }

    /// How far back the attention of `layer` reaches: [`Global`](AttnType::Global) unless `use_local_attn`.
    pub fn attn_type(&self, layer: usize) -> AttnType {
        match self.use_local_attn {
            true => self.attn_types.get(layer).copied().unwrap_or_default(),
            false => AttnType::Global,
        }
    }

    /// Base of the rotation's wavelengths in `layer`.
    pub fn rotary_base(&self, layer: usize) -> f64 {
        match (self.rotary_base_local, self.attn_type(layer)) {
            (Some(base), AttnType::Local) => base,
            _ => self.rotary_base,
        }
    }

    /// What the attention scores of `layer` are divided by.
    pub fn attn_scale(&self, layer: usize) -> f64 {
        let scale = match (self.use_attn_scale, self.attn_scale) {
            (false, _) => 1.0,
            (true, -1.0) => (self.d_head as f64).sqrt(),
            (true, given) => given,
        };
        if self.scale_attn_by_inverse_layer_idx { scale * (layer as f64 + 1.0) } else { scale }
    }

    /// Whether there is a `pos_embed.W_pos`: everywhere but in rotary models (ALiBi ones have it and never read it).
    pub fn has_pos_embed(&self) -> bool {
        self.positional_embedding_type != PositionalEmbeddingType::Rotary
    }

    /// Whether there is a `hook_resid_mid`: the residual stream between attention and MLP, where they are in series.
    pub fn has_resid_mid(&self) -> bool {
        !self.attn_only && !self.parallel_attn_mlp
    }

    /// Whether `layer` has experts rather than an MLP.
    pub fn has_experts(&self, layer: usize) -> bool {
        self.num_experts != 0 && !self.attn_only && !self.dense_layers.contains(&layer)
    }

    /// Number of neurons of the MLP of `layer`, if it has one.
    pub fn d_mlp_of(&self, layer: usize) -> usize {
        match (self.dense_layers.contains(&layer), self.d_mlp_dense) {
            (true, dense) if dense != 0 => dense,
            _ => self.d_mlp(),
        }
    }

    /// Whether attention and MLP read the stream through a norm.
    pub fn normalizes_inputs(&self) -> bool {
        !self.use_normalization_after_only
    }

    /// Whether what attention and MLP write is normalised.
    pub fn normalizes_outputs(&self) -> bool {
        self.use_normalization_before_and_after || self.use_normalization_after_only
    }

    /// Whether the MLP has a layer norm of its own (`mlp.ln`), as in SoLU models.
    pub fn is_layer_norm_activation(&self) -> bool {
        self.act_fn.is_layer_norm()
    }

    /// Number of weights in attention and MLP matrices, as TransformerLens counts: embeddings, biases and norms
    /// are left out, and grouped key and value heads count once for each head.
    pub fn n_params(&self) -> usize {
        let product = |sizes: [usize; 4]| sizes.into_iter().fold(1, usize::saturating_mul);
        let attention = product([self.d_model, self.d_head, self.n_heads(), 4]);
        let mut mlp = product([self.d_model, self.d_mlp(), 2 + usize::from(self.gated_mlp), 1]);
        if self.num_experts != 0 {
            // Each expert, and its column of the gate.
            mlp = mlp.saturating_add(self.d_model).saturating_mul(self.num_experts);
        }
        self.n_layers.saturating_mul(attention.saturating_add(mlp))
    }

    /// `L0H0`, `L0H1`, … for each head of each layer, in order.
    pub fn head_labels(&self) -> Vec<String> {
        let heads = self.n_heads();
        (0..self.n_layers).flat_map(|layer| (0..heads).map(move |head| format!("L{layer}H{head}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The notebook's model.
    pub(super) fn notebook() -> Config {
        Config {
            d_model: 768,
            d_head: 64,
            n_layers: 2,
            n_ctx: 128,
            d_mlp: 3072,
            d_vocab: 300,
            act_fn: ActFn::Gelu,
            ..Config::default()
        }
    }

    #[test]
    fn parameters_are_counted_as_transformerlens_counts_them() {
        assert_eq!(notebook().n_params(), 14_155_776);
        assert_eq!(Config { attn_only: true, ..notebook() }.n_params(), 4_718_592);
        let llama = Config { d_model: 32, d_head: 8, d_mlp: 64, gated_mlp: true, n_key_value_heads: 2, ..notebook() };
        assert_eq!(llama.n_params(), 20480);
        // The reference case `mixtral`.
        let mixtral = Config { d_model: 48, d_head: 12, d_mlp: 80, gated_mlp: true, num_experts: 4, ..notebook() };
        assert_eq!(mixtral.n_params(), 110_976);
        assert_eq!(Config::default().n_params(), 0);
        assert_eq!(Config { d_model: usize::MAX, ..notebook() }.n_params(), usize::MAX);
    }

    #[test]
    fn fields_of_a_resolved_configuration_are_what_methods_say() {
        let rotary = Config { positional_embedding_type: PositionalEmbeddingType::Rotary, ..notebook() };
        for cfg in [notebook(), rotary, Config { n_heads: 3, n_key_value_heads: 3, d_mlp: 5, ..notebook() }] {
            let cfg = cfg.resolved().unwrap();
            assert_eq!((cfg.n_heads, cfg.d_mlp, cfg.rotary_dim), (cfg.n_heads(), cfg.d_mlp(), cfg.rotary_dim()));
            assert_eq!((cfg.attn_scale, cfg.rotary_base), (cfg.attn_scale(0), cfg.rotary_base(0)));
            assert_eq!(cfg.n_key_value_heads(), if cfg.is_grouped_query() { 3 } else { cfg.n_heads });
        }
    }

    #[test]
    fn heads_are_labelled_layer_by_layer() {
        let cfg = Config { n_heads: 2, ..notebook() };
        assert_eq!(cfg.head_labels(), ["L0H0", "L0H1", "L1H0", "L1H1"]);
    }

    #[test]
    fn scale_and_base_depend_on_the_layer() {
        let cfg = Config {
            scale_attn_by_inverse_layer_idx: true,
            use_local_attn: true,
            attn_types: vec![AttnType::Local, AttnType::Global],
            rotary_base: 1e6,
            rotary_base_local: Some(1e4),
            positional_embedding_type: PositionalEmbeddingType::Rotary,
            ..notebook()
        };
        assert_eq!((cfg.attn_scale(0), cfg.attn_scale(1)), (8.0, 16.0));
        assert_eq!((cfg.rotary_base(0), cfg.rotary_base(1)), (1e4, 1e6));
        assert_eq!((cfg.rotary_dim(), notebook().rotary_dim()), (64, 0));
        let unscaled = Config { use_attn_scale: false, ..cfg };
        assert_eq!((unscaled.attn_scale(0), unscaled.attn_scale(1)), (1.0, 2.0));
    }

    #[test]
    fn grouped_heads_are_counted_as_hooks_see_them() {
        let cfg = Config { n_key_value_heads: 4, ..notebook() };
        assert_eq!((cfg.n_heads(), cfg.n_key_value_heads(), cfg.n_hooked_key_value_heads()), (12, 4, 4));
        let cfg = Config { ungroup_grouped_query_attention: true, ..cfg };
        assert_eq!((cfg.n_key_value_heads(), cfg.n_hooked_key_value_heads()), (4, 12));
        assert_eq!((notebook().is_grouped_query(), notebook().n_key_value_heads()), (false, 12));
    }
}
