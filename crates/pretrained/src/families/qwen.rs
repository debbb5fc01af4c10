//! Qwen 1.5 to 3, and their mixtures of experts.

use super::{Family, Read, layer, llama, llama_keys, local_if, mixtral, set_windows, windows};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_transformer::config::Config;
use serde_json::Value;

pub(super) const FAMILY_2: Family = Family {
    name: "Qwen 2",
    architectures: &["Qwen2ForCausalLM", "Qwen2Model"],
    prefix: "model.",
    config: |hf| with_windows(hf, config_2(hf)?),
    tensors: llama::tensors,
    names: &[],
    defaults: r#"{"vocab_size": 151936, "intermediate_size": 22016,
        "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-06, "sliding_window": 4096, "max_window_layers": 28}"#,
};

pub(super) const FAMILY_3: Family = Family {
    name: "Qwen 3",
    architectures: &["Qwen3ForCausalLM", "Qwen3Model"],
    prefix: "model.",
    config: |hf| with_windows(hf, config_3(hf)?),
    tensors: llama::tensors,
    names: &[],
    defaults: r#"{"vocab_size": 151936, "intermediate_size": 22016,
        "num_hidden_layers": 32, "num_attention_heads": 32, "head_dim": 128,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-06, "sliding_window": 4096,
        "max_window_layers": 28}"#,
};

pub(super) const FAMILY_2_MOE: Family = Family {
    name: "Qwen 2 MoE",
    architectures: &["Qwen2MoeForCausalLM", "Qwen2MoeModel"],
    prefix: "model.",
    config: |hf| with_experts(hf, config_2(hf)?),
    tensors: tensors_moe,
    names: &[],
    defaults: r#"{"vocab_size": 151936, "intermediate_size": 5632,
        "num_hidden_layers": 24, "num_attention_heads": 16, "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-06, "sliding_window": 4096, "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "num_experts": 60}"#,
};

pub(super) const FAMILY_3_MOE: Family = Family {
    name: "Qwen 3 MoE",
    architectures: &["Qwen3MoeForCausalLM", "Qwen3MoeModel"],
    prefix: "model.",
    config: |hf| with_experts(hf, config_3(hf)?),
    tensors: tensors_moe,
    names: &[],
    defaults: r#"{"vocab_size": 151936, "intermediate_size": 6144,
        "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 4,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-06, "sliding_window": 4096,
        "moe_intermediate_size": 768, "num_experts_per_tok": 8, "num_experts": 128}"#,
};

/// Biases of queries, keys and values.
fn config_2(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    cfg.n_key_value_heads = hf.size_if_given("num_key_value_heads")?.unwrap_or(cfg.n_heads);
    cfg.default_prepend_bos = false;
    Ok(cfg)
}

/// Norms of queries and keys.
fn config_3(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    cfg.use_qk_norm = true;
    cfg.default_prepend_bos = false;
    Ok(cfg)
}

/// A window, where it is switched on, in the layers from `max_window_layers` on.
fn with_windows(hf: &HfConfig, mut cfg: Config) -> Read<Config> {
    if hf.flag("use_sliding_window", false)? {
        let first = hf.size_if_given("max_window_layers")?.unwrap_or(0);
        windows(hf, &mut cfg, |l| l >= first)?;
    }
    Ok(cfg)
}

fn with_experts(hf: &HfConfig, mut cfg: Config) -> Read<Config> {
    cfg.num_experts = hf.size("num_experts")?;
    cfg.experts_per_token = hf.size("num_experts_per_tok")?;
    cfg.norm_topk_prob = hf.flag("norm_topk_prob", false)?;
    if hf.flag("use_sliding_window", false)? {
        // In all layers: `layer_types` and `max_window_layers` are read for models without experts only.
        let window = hf.size("sliding_window")?;
        let types = vec![local_if(true); cfg.n_layers];
        set_windows(&mut cfg, window, types);
    }
    cfg.d_shared_expert = hf.size_if_given("shared_expert_intermediate_size")?.unwrap_or(0);
    cfg.d_mlp_dense = cfg.d_mlp;
    cfg.d_mlp = hf.size("moe_intermediate_size")?;
    // Layers with experts come every `decoder_sparse_step`, but for those that are listed.
    let step = hf.size_if_given("decoder_sparse_step")?.unwrap_or(1);
    let plain = hf.list_if_given("mlp_only_layers", Value::as_u64)?.unwrap_or_default();
    let dense = |l: &usize| plain.contains(&(*l as u64)) || step == 0 || !(l + 1).is_multiple_of(step);
    cfg.dense_layers = (0..cfg.n_layers).filter(dense).collect();
    Ok(cfg)
}

fn tensors_moe(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        llama::norms(c, l)?;
        llama::attention(c, l)?;
        if !c.cfg.has_experts(l) {
            llama::gated_mlp(c, l)?;
            continue;
        }
        let at = |name: &str| format!("{}mlp.{name}", layer(l));
        mixtral::experts(c, l, &at("gate"), |e| at(&format!("experts.{e}.")), ["up_proj", "gate_proj", "down_proj"])?;
        let (m, f) = (c.cfg.d_model, c.cfg.d_shared_expert);
        if f == 0 {
            continue;
        }
        let to = |name: &str| format!("blocks.{l}.mlp.{name}.weight");
        c.copy(&to("shared_expert_gate"), &at("shared_expert_gate.weight"), &[1, m])?;
        for (name, from, shape) in
            [("W_in", "up_proj", [f, m]), ("W_gate", "gate_proj", [f, m]), ("W_out", "down_proj", [m, f])]
        {
            c.copy(&to(&format!("shared_expert.{name}")), &at(&format!("shared_expert.{from}.weight")), &shape)?;
        }
    }
    Ok(())
}
