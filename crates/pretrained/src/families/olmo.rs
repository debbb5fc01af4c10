//! OLMo: the first with norms without weights; the second and third with norms after attention and MLP only,
//! and of queries and keys; OLMoE with norms before, and experts.

use super::{Family, Read, layer, llama, llama_keys, mixtral, windows};
use crate::conversion::Conversion;
use crate::hf::{HfConfig, mistaken};
use ironlens_transformer::config::{Config, NormalizationType, QkNormType};

pub(super) const FAMILY: Family = Family {
    name: "OLMo",
    architectures: &["OlmoForCausalLM", "OlmoModel"],
    prefix: "model.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 50304, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048}"#,
};

pub(super) const FAMILY_2: Family = Family {
    name: "OLMo 2",
    architectures: &["Olmo2ForCausalLM", "Olmo2Model"],
    prefix: "model.",
    config: config_2,
    tensors: tensors_2,
    names: &[],
    defaults: r#"{"vocab_size": 50304, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-05}"#,
};

pub(super) const FAMILY_3: Family = Family {
    name: "OLMo 3",
    architectures: &["Olmo3ForCausalLM", "Olmo3Model"],
    prefix: "model.",
    config: config_3,
    tensors: tensors_2,
    names: &[],
    defaults: r#"{"vocab_size": 50304, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-05, "sliding_window": 4096}"#,
};

pub(super) const FAMILY_E: Family = Family {
    name: "OLMoE",
    architectures: &["OlmoeForCausalLM", "OlmoeModel"],
    prefix: "model.",
    config: config_e,
    tensors: tensors_e,
    names: &[],
    defaults: r#"{"vocab_size": 50304, "intermediate_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 16, "max_position_embeddings": 4096, "rms_norm_eps": 1e-05,
        "num_experts_per_tok": 8, "num_experts": 64}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    Ok(Config {
        // Layer norms without weights are what others become when theirs are folded.
        normalization_type: NormalizationType::LNPre,
        final_rms: false,
        eps: 1e-5,
        clip_qkv: hf.number_if_given("clip_qkv")?,
        ..llama_keys(hf)?
    })
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        llama::attention(c, l)?;
        llama::gated_mlp(c, l)?;
    }
    Ok(())
}

fn config_2(hf: &HfConfig) -> Read<Config> {
    Ok(Config {
        use_normalization_after_only: true,
        use_qk_norm: true,
        qk_norm_type: QkNormType::RmsOfAllHeads,
        ..llama_keys(hf)?
    })
}

fn config_3(hf: &HfConfig) -> Read<Config> {
    let mut cfg = config_2(hf)?;
    windows(hf, &mut cfg, |l| !(l + 1).is_multiple_of(4))?;
    cfg.rope_scaling_global_only = cfg.rope_scaling.is_some() || cfg.use_NTK_by_parts_rope;
    Ok(cfg)
}

fn tensors_2(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        c.stream_norm(&format!("blocks.{l}.ln1_post"), &format!("{}post_attention_layernorm", layer(l)))?;
        c.stream_norm(&format!("blocks.{l}.ln2_post"), &format!("{}post_feedforward_layernorm", layer(l)))?;
        attention(c, l)?;
        llama::gated_mlp(c, l)?;
    }
    Ok(())
}

/// Attention with norms of the queries, and of the keys, of all heads.
fn attention(c: &mut Conversion<'_>, l: usize) -> Read<()> {
    let at = |name: &str| format!("{}self_attn.{name}", layer(l));
    c.attention_in(l, [&at("q_proj"), &at("k_proj"), &at("v_proj")])?;
    c.attention_out(l, &at("o_proj"), 1.0)?;
    let (n, kv, h) = (c.cfg.n_heads, c.cfg.n_key_value_heads(), c.cfg.d_head);
    c.norm(&format!("blocks.{l}.attn.q_norm"), &at("q_norm"), n * h)?;
    c.norm(&format!("blocks.{l}.attn.k_norm"), &at("k_norm"), kv * h)
}

fn config_e(hf: &HfConfig) -> Read<Config> {
    if let Some(at) = hf.number_if_given("clip_qkv")? {
        return Err(mistaken("clip_qkv", &at.to_string(), "null, as in every published OLMoE"));
    }
    Ok(Config {
        use_qk_norm: true,
        qk_norm_type: QkNormType::RmsOfAllHeads,
        eps: hf.number_if_given("rms_norm_eps")?.unwrap_or(1e-5),
        num_experts: hf.size("num_experts")?,
        experts_per_token: hf.size("num_experts_per_tok")?,
        norm_topk_prob: hf.flag("norm_topk_prob", false)?,
        ..llama_keys(hf)?
    })
}

fn tensors_e(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        llama::norms(c, l)?;
        attention(c, l)?;
        let at = |name: &str| format!("{}mlp.{name}", layer(l));
        mixtral::experts(c, l, &at("gate"), |e| at(&format!("experts.{e}.")), ["up_proj", "gate_proj", "down_proj"])?;
    }
    Ok(())
}
