//! From a configuration to the parts of a network.

use std::sync::Arc;

use ironlens_nn::{
    Activation, Attention, AttentionConfig, ExpertKind, Init, Mlp, MlpConfig, Moe, MoeConfig, NormKind, PositionScheme,
    QkNorm, RopeScaling, RotaryConfig, RotaryTable, Scope,
};
use ironlens_tensor::{Alibi, UnaryOp};

use crate::block::FeedForward;
use crate::config::{
    ActFn, AttentionDir, AttnType, Config, InitMode, NormalizationType, PositionalEmbeddingType, QkNormType,
};

/// How a weight matrix starts, as TransformerLens's `init_weights`. `embed` is whether "embed" is
/// in its name, which is all that muP looks at.
pub(crate) fn init_of(cfg: &Config, embed: bool, shape: &[usize]) -> Init {
    if !cfg.init_weights {
        return Init::Zeros;
    }
    let (fan_in, fan_out) = match *shape {
        [heads, rows, columns] => (rows as f64, (heads * columns) as f64),
        [rows, columns] => (rows as f64, columns as f64),
        _ => unreachable!("weight matrices have two or three axes"),
    };
    let gain = cfg.initializer_range;
    match cfg.init_mode {
        InitMode::Gpt2 => Init::Normal(gain),
        InitMode::XavierUniform => Init::Uniform(gain * (6.0 / (fan_in + fan_out)).sqrt()),
        InitMode::XavierNormal => Init::Normal(gain * (2.0 / (fan_in + fan_out)).sqrt()),
        InitMode::KaimingUniform => Init::Uniform(gain * 2f64.sqrt() * (3.0 / fan_in).sqrt()),
        InitMode::KaimingNormal => Init::Normal(gain * 2f64.sqrt() / fan_in.sqrt()),
        InitMode::MuP => Init::Normal(if embed { 1.0 } else { 1.0 / fan_in.sqrt() }),
    }
}

/// The norm before attention and MLP.
pub(crate) fn inner_norm(cfg: &Config) -> Option<NormKind> {
    match cfg.normalization_type {
        NormalizationType::None => None,
        NormalizationType::LN => Some(NormKind::LayerNorm),
        NormalizationType::LNPre => Some(NormKind::LayerNormPre),
        NormalizationType::RMS => Some(NormKind::RmsNorm),
        NormalizationType::RMSPre => Some(NormKind::RmsNormPre),
    }
}

pub(crate) fn final_norm(cfg: &Config) -> Option<NormKind> {
    match (inner_norm(cfg)?, cfg.final_rms) {
        (NormKind::LayerNorm, true) => Some(NormKind::RmsNorm),
        (NormKind::LayerNormPre, true) => Some(NormKind::RmsNormPre),
        (kind, _) => Some(kind),
    }
}

/// How a layer rotates.
pub(crate) fn rotary(cfg: &Config, layer: usize) -> RotaryConfig {
    let scaling = match cfg.use_NTK_by_parts_rope {
        true => Some(RopeScaling::Llama3 {
            factor: cfg.NTK_by_parts_factor,
            low: cfg.NTK_by_parts_low_freq_factor,
            high: cfg.NTK_by_parts_high_freq_factor,
            context: cfg.NTK_original_ctx_len,
        }),
        false => cfg.rope_scaling.clone(),
    };
    let scaled = !(cfg.rope_scaling_global_only && cfg.attn_type(layer) == AttnType::Local);
    RotaryConfig {
        dim: cfg.rotary_dim,
        base: cfg.rotary_base(layer),
        interleaved: cfg.rotary_adjacent_pairs,
        scaling: scaling.filter(|_| scaled),
    }
}

/// How a layer knows positions; a table that is not among `tables` yet joins them.
pub(crate) fn positions(cfg: &Config, layer: usize, tables: &mut Vec<Arc<RotaryTable>>) -> PositionScheme {
    match cfg.positional_embedding_type {
        PositionalEmbeddingType::Rotary if cfg.no_rope_layers.contains(&layer) => PositionScheme::None,
        PositionalEmbeddingType::Rotary => {
            let rotary = rotary(cfg, layer);
            let known = tables.iter().find(|t| *t.config() == rotary).cloned();
            PositionScheme::Rotary(known.unwrap_or_else(|| {
                tables.push(Arc::new(RotaryTable::new(rotary)));
                tables[tables.len() - 1].clone()
            }))
        }
        PositionalEmbeddingType::Alibi => {
            let slopes = match cfg.alibi_slopes.is_empty() {
                true => {
                    let start = 2f64.powf(-8.0 / cfg.n_heads as f64);
                    (0..cfg.n_heads).map(|i| start * start.powi(i as i32)).collect()
                }
                false => cfg.alibi_slopes.clone(),
            };
            PositionScheme::Alibi(Alibi { slopes, bf16: cfg.alibi_bf16 })
        }
        PositionalEmbeddingType::Standard | PositionalEmbeddingType::Shortformer => PositionScheme::None,
    }
}

pub(crate) fn attention(
    s: &mut Scope<'_>,
    cfg: &Config,
    layer: usize,
    positions: PositionScheme,
    init: &dyn Fn(&[usize]) -> Init,
) -> Attention {
    let causal = cfg.attention_dir == AttentionDir::Causal;
    let config = AttentionConfig {
        d_model: cfg.d_model,
        n_heads: cfg.n_heads,
        d_head: cfg.d_head,
        n_ctx: cfg.n_ctx,
        n_key_value_heads: cfg.is_grouped_query().then_some(cfg.n_key_value_heads),
        ungroup: cfg.ungroup_grouped_query_attention,
        scale: cfg.attn_scale(layer),
        soft_cap: (cfg.attn_scores_soft_cap > 0.0).then_some(cfg.attn_scores_soft_cap),
        causal,
        // As in TransformerLens, the window is part of the causal mask.
        window: (causal && cfg.attn_type(layer) == AttnType::Local).then_some(cfg.window_size),
        positions,
        qk_norm: cfg.use_qk_norm.then(|| {
            let kind = match cfg.qk_norm_type {
                QkNormType::Rms => QkNorm::Rms,
                QkNormType::RmsOfAllHeads => QkNorm::RmsOfAllHeads,
                QkNormType::LayerNormPerHead => QkNorm::LayerNormPerHead,
            };
            (kind, cfg.eps)
        }),
        clip_qkv: cfg.clip_qkv,
        sinks: cfg.attn_sinks,
        use_result: cfg.use_attn_result,
    };
    let kind = if cfg.is_grouped_query() { "GroupedQueryAttention" } else { "Attention" };
    let shortformer = cfg.positional_embedding_type == PositionalEmbeddingType::Shortformer;
    Attention::new(&mut s.child("attn", kind), config, shortformer, init)
}

/// The MLP of a layer, or its experts.
pub(crate) fn feed_forward(
    s: &mut Scope<'_>,
    cfg: &Config,
    layer: usize,
    init: &dyn Fn(&[usize]) -> Init,
) -> FeedForward {
    if cfg.has_experts(layer) {
        let kind = match cfg.gpt_oss_experts {
            true => ExpertKind::ClampedSwiglu,
            false => ExpertKind::Gated(activation(cfg)),
        };
        let config = MoeConfig {
            d_model: cfg.d_model,
            d_mlp: cfg.d_mlp,
            n_experts: cfg.num_experts,
            per_token: cfg.experts_per_token,
            kind,
            renormalize: cfg.norm_topk_prob,
            biases: cfg.gpt_oss_experts,
            shared: (cfg.d_shared_expert != 0).then_some(cfg.d_shared_expert),
        };
        return FeedForward::Experts(Moe::new(s, &config, init));
    }
    let norm = match cfg.normalization_type {
        NormalizationType::LN => NormKind::LayerNorm,
        // As in TransformerLens: without weights under every other norm, also under none.
        NormalizationType::None | NormalizationType::LNPre | NormalizationType::RMS | NormalizationType::RMSPre => {
            NormKind::LayerNormPre
        }
    };
    let config = MlpConfig {
        d_model: cfg.d_model,
        d_mlp: cfg.d_mlp_of(layer),
        activation: activation(cfg),
        gated: cfg.gated_mlp,
        gate_bias: cfg.gate_bias,
        norm: cfg.is_layer_norm_activation().then_some((norm, cfg.eps)),
    };
    FeedForward::Mlp(Mlp::new(s, &config, init))
}

pub(crate) fn activation(cfg: &Config) -> Activation {
    match cfg.act_fn {
        ActFn::Relu => Activation::Elementwise(UnaryOp::Relu),
        ActFn::Gelu => Activation::Elementwise(UnaryOp::Gelu),
        // One function in three orders of operations.
        ActFn::GeluNew | ActFn::GeluFast | ActFn::GeluPytorchTanh => Activation::Elementwise(UnaryOp::GeluNew),
        ActFn::Silu => Activation::Elementwise(UnaryOp::Silu),
        ActFn::Relu2 => Activation::SquaredRelu,
        ActFn::Xielu => Activation::Xielu,
        ActFn::Solu | ActFn::SoluLn => Activation::Solu,
        ActFn::Own(own) => Activation::Own(own),
        ActFn::Unset => unreachable!("a resolved configuration with an MLP has an activation function"),
    }
}
