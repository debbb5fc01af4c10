//! Llama 1 to 3.3, and all that call themselves so: Yi, SmolLM, SmolLM 2, TinyLlama, DeepSeek's first.

use super::{Family, Read, layer, llama_keys};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_transformer::config::Config;

pub(super) const FAMILY: Family = Family {
    name: "Llama",
    architectures: &["LlamaForCausalLM", "LlamaModel"],
    prefix: "model.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 32000, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-06}"#,
};

pub(super) fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    // Biases of gate and input are added before their product.
    cfg.gate_bias = hf.flag("mlp_bias", false)?;
    Ok(cfg)
}

pub(super) fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        norms(c, l)?;
        attention(c, l)?;
        gated_mlp(c, l)?;
    }
    Ok(())
}

/// The norms before attention and MLP.
pub(super) fn norms(c: &mut Conversion<'_>, l: usize) -> Read<()> {
    c.stream_norm(&format!("blocks.{l}.ln1"), &format!("{}input_layernorm", layer(l)))?;
    c.stream_norm(&format!("blocks.{l}.ln2"), &format!("{}post_attention_layernorm", layer(l)))
}

/// Attention, with norms of queries and keys where there are such.
pub(super) fn attention(c: &mut Conversion<'_>, l: usize) -> Read<()> {
    let at = |name: &str| format!("{}self_attn.{name}", layer(l));
    c.attention_in(l, [&at("q_proj"), &at("k_proj"), &at("v_proj")])?;
    c.attention_out(l, &at("o_proj"), 1.0)?;
    qk_norms(c, l)
}

/// One weight for all heads.
pub(super) fn qk_norms(c: &mut Conversion<'_>, l: usize) -> Read<()> {
    if !c.cfg.use_qk_norm {
        return Ok(());
    }
    for name in ["q_norm", "k_norm"] {
        c.norm(&format!("blocks.{l}.attn.{name}"), &format!("{}self_attn.{name}", layer(l)), c.cfg.d_head)?;
    }
    Ok(())
}

pub(super) fn gated_mlp(c: &mut Conversion<'_>, l: usize) -> Read<()> {
    let at = |name: &str| format!("{}mlp.{name}", layer(l));
    c.mlp(l, &at("up_proj"), &at("down_proj"), Some(&at("gate_proj")))
}
