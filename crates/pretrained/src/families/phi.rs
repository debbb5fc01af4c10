//! Phi 1, 1.5 and 2 (side by side, from one norm, with biases everywhere), and Phi 3 and 4 (Llama with packed
//! matrices).

use super::{Family, Read, layer, llama, llama_keys, windows_everywhere};
use crate::conversion::Conversion;
use crate::error::PretrainedError;
use crate::hf::HfConfig;
use ironlens_transformer::config::{Config, NormalizationType};

pub(super) const FAMILY: Family = Family {
    name: "Phi",
    architectures: &["PhiForCausalLM", "PhiModel"],
    prefix: "model.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 51200, "intermediate_size": 8192, "num_hidden_layers": 24,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "layer_norm_eps": 1e-05,
        "partial_rotary_factor": 0.5}"#,
};

pub(super) const FAMILY_3: Family = Family {
    name: "Phi 3",
    architectures: &["Phi3ForCausalLM", "Phi3Model"],
    prefix: "model.",
    config: config_3,
    tensors: tensors_3,
    names: &[],
    defaults: r#"{"vocab_size": 32064, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-05}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    if hf.flag("qk_layernorm", false)? {
        return Err(PretrainedError::Family {
            architecture: "Phi with qk_layernorm".into(),
            hint: "no published model has it; the others are read".into(),
        });
    }
    let cfg = llama_keys(hf)?;
    Ok(Config {
        eps: hf.number_if_given("layer_norm_eps")?.unwrap_or(1e-5),
        act_fn: super::act_fn(hf, "hidden_act", "gelu_new")?,
        normalization_type: NormalizationType::LN,
        final_rms: false,
        gated_mlp: false,
        parallel_attn_mlp: true,
        ..cfg
    })
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "model.final_layernorm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("{}{name}", layer(l));
        c.stream_norm(&format!("blocks.{l}.ln1"), &at("input_layernorm"))?;
        c.stream_norm(&format!("blocks.{l}.ln2"), &at("input_layernorm"))?;
        c.attention_in(l, [&at("self_attn.q_proj"), &at("self_attn.k_proj"), &at("self_attn.v_proj")])?;
        c.attention_out(l, &at("self_attn.dense"), 1.0)?;
        c.mlp(l, &at("mlp.fc1"), &at("mlp.fc2"), None)?;
    }
    Ok(())
}

fn config_3(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    cfg.final_rms = false;
    windows_everywhere(hf, &mut cfg)?;
    Ok(cfg)
}

fn tensors_3(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("{}{name}", layer(l));
        llama::norms(c, l)?;
        c.attention_in_one(l, &at("self_attn.qkv_proj"), c.in_turn())?;
        c.attention_out(l, &at("self_attn.o_proj"), 1.0)?;
        c.mlp_with_packed_gate(l, &at("mlp.gate_up_proj"), &at("mlp.down_proj"))?;
    }
    Ok(())
}
