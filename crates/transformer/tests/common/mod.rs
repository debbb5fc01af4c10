//! Small models of every kind of part that TransformerLens does not have, with weights that are nowhere special.

#![allow(dead_code, reason = "each test file uses its own part")]

use ironlens_tensor::{DType, Device, IndexTensor, Rng};
use ironlens_transformer::config::{QkNormType, RopeScaling};
use ironlens_transformer::{ActFn, AttnType, Config, HookedTransformer, NormalizationType, PositionalEmbeddingType};

/// A small GPT-2.
pub fn base() -> Config {
    Config {
        d_model: 8,
        d_head: 4,
        n_heads: 2,
        n_layers: 2,
        n_ctx: 16,
        d_mlp: 10,
        d_vocab: 11,
        act_fn: ActFn::Gelu,
        ..Config::default()
    }
}

/// A small Llama.
pub fn llama() -> Config {
    Config {
        act_fn: ActFn::Silu,
        normalization_type: NormalizationType::RMS,
        positional_embedding_type: PositionalEmbeddingType::Rotary,
        gated_mlp: true,
        final_rms: true,
        ..base()
    }
}

/// A small Mixtral.
pub fn experts() -> Config {
    Config { num_experts: 4, experts_per_token: 2, d_mlp: 6, ..llama() }
}

/// A small gpt-oss.
pub fn gpt_oss() -> Config {
    Config {
        gpt_oss_experts: true,
        attn_sinks: true,
        use_local_attn: true,
        window_size: 3,
        attn_types: vec![AttnType::Local, AttnType::Global],
        rope_scaling: Some(yarn(false)),
        ..experts()
    }
}

/// Every dimension but the first of a head of four is stretched, some in part.
pub fn yarn(truncate: bool) -> RopeScaling {
    RopeScaling::Yarn { factor: 4.0, beta_fast: 2.0, beta_slow: 0.01, context: 8, truncate, attention_factor: 1.1 }
}

/// For two pairs of dimensions; texts beyond `context` are long.
pub fn long_rope(context: usize) -> RopeScaling {
    RopeScaling::LongRope { short: vec![1.0, 1.5], long: vec![2.0, 7.0], context, attention_factor: 1.2 }
}

/// What it is, the configuration, and what the names of parameters hold that only this part has.
pub type Architecture = (&'static str, Config, &'static [&'static str]);

/// One of each part.
pub fn architectures() -> Vec<Architecture> {
    let qk_norm = |kind| Config { use_qk_norm: true, qk_norm_type: kind, ..llama() };
    let norms = &["q_norm.w", "k_norm.w"];
    let expert = &["mlp.W_gate.weight", "experts.0.W_in", "experts.3.W_gate", "experts.1.W_out"];
    let gpt_oss_expert = &["mlp.W_gate.bias", "experts.2.W_in.bias", "experts.0.W_gate.bias", "W_out.bias", "sinks"];
    vec![
        ("experts", experts(), expert),
        ("experts weighed as they are", Config { norm_topk_prob: false, ..experts() }, expert),
        (
            "a shared expert",
            Config { d_shared_expert: 5, ..experts() },
            &["shared_expert.W_in", "shared_expert.W_gate", "shared_expert.W_out", "shared_expert_gate"],
        ),
        (
            "a plain MLP beside experts",
            Config { dense_layers: vec![0], d_mlp_dense: 9, ..experts() },
            &["blocks.0.mlp.W_in", "blocks.1.mlp.experts.2.W_out"],
        ),
        ("gpt-oss", gpt_oss(), gpt_oss_expert),
        ("sinks", Config { attn_sinks: true, ..base() }, &["attn.sinks"]),
        ("sinks and grouped queries", Config { attn_sinks: true, n_key_value_heads: 1, ..llama() }, &["attn.sinks"]),
        ("norms of queries and keys", qk_norm(QkNormType::Rms), norms),
        ("norms of all heads", qk_norm(QkNormType::RmsOfAllHeads), norms),
        ("norms of all heads, grouped", Config { n_key_value_heads: 1, ..qk_norm(QkNormType::RmsOfAllHeads) }, norms),
        ("norms per head", Config { n_key_value_heads: 1, ..qk_norm(QkNormType::LayerNormPerHead) }, norms),
        ("clipped", Config { clip_qkv: Some(0.5), ..base() }, &["attn.W_Q", "attn.b_V"]),
        ("norms after only", Config { use_normalization_after_only: true, ..llama() }, &["ln1_post.w", "ln2_post.w"]),
        (
            "xIELU",
            Config { act_fn: ActFn::Xielu, gated_mlp: false, ..llama() },
            &["act_fn.alpha_p", "act_fn.alpha_n", "act_fn.beta"],
        ),
        ("squared ReLU", Config { act_fn: ActFn::Relu2, ..base() }, &["mlp.W_in"]),
        ("a bias of the gate", Config { gate_bias: true, ..llama() }, &["mlp.b_gate", "mlp.b_in"]),
        ("a layer that is not rotated", Config { no_rope_layers: vec![1], ..llama() }, &[]),
        ("YaRN", Config { rope_scaling: Some(yarn(true)), ..llama() }, &[]),
        (
            "linear scaling in global layers only",
            Config {
                rope_scaling: Some(RopeScaling::Linear { factor: 3.0 }),
                rope_scaling_global_only: true,
                use_local_attn: true,
                window_size: 3,
                attn_types: vec![AttnType::Local, AttnType::Global],
                ..llama()
            },
            &[],
        ),
        (
            "ALiBi's slopes",
            Config {
                positional_embedding_type: PositionalEmbeddingType::Alibi,
                alibi_slopes: vec![0.3, 0.05],
                ..base()
            },
            &[],
        ),
        (
            "biases of Falcon's places",
            Config {
                positional_embedding_type: PositionalEmbeddingType::Alibi,
                alibi_slopes: vec![0.3, 0.05],
                alibi_bf16: true,
                ..base()
            },
            &[],
        ),
    ]
}

/// A model with all parameters random, also those that start at 0 or 1.
pub fn model(cfg: Config) -> HookedTransformer {
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 5).unwrap();
    let shapes: Vec<(String, Vec<usize>)> =
        model.registry().params().map(|(n, s)| (n.to_string(), s.to_vec())).collect();
    for (i, (name, shape)) in shapes.iter().enumerate() {
        let value = model.param(name).unwrap();
        let noise = Rng::new(9, i as u64).normal(shape, 0.0, 0.3, &Device::Cpu);
        model.params_mut().set(name, &(value + noise)).unwrap();
    }
    model
}

/// The same in double precision.
pub fn model_f64(cfg: Config) -> HookedTransformer {
    model(cfg).to_dtype(DType::F64)
}

/// Tokens `[batch, pos]`.
pub fn tokens(batch: usize, pos: usize) -> IndexTensor {
    Rng::new(3, 0).integers(&[batch, pos], 0, 11)
}
