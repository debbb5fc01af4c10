//! GLM-4: half of a head's neighbouring dimensions are rotated, and norms stand before and after.

use super::{Family, Read, layer, llama_keys};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_transformer::config::Config;

pub(super) const FAMILY: Family = Family {
    name: "GLM-4",
    architectures: &["Glm4ForCausalLM", "Glm4Model", "GlmForCausalLM", "GlmModel"],
    prefix: "model.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 151552, "intermediate_size": 13696,
        "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 2,
        "partial_rotary_factor": 0.5, "head_dim": 128, "max_position_embeddings": 131072,
        "rms_norm_eps": 1.5625e-07}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    cfg.rotary_adjacent_pairs = true;
    // The first GLM-4 has norms before only.
    cfg.use_normalization_before_and_after = hf.architectures().iter().any(|c| c.starts_with("Glm4"));
    Ok(cfg)
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("{}{name}", layer(l));
        let ln = |name: &str| format!("blocks.{l}.{name}");
        c.stream_norm(&ln("ln1"), &at("input_layernorm"))?;
        c.stream_norm(&ln("ln2"), &at("post_attention_layernorm"))?;
        if c.cfg.use_normalization_before_and_after {
            c.stream_norm(&ln("ln1_post"), &at("post_self_attn_layernorm"))?;
            c.stream_norm(&ln("ln2_post"), &at("post_mlp_layernorm"))?;
        }
        c.attention_in(l, [&at("self_attn.q_proj"), &at("self_attn.k_proj"), &at("self_attn.v_proj")])?;
        c.attention_out(l, &at("self_attn.o_proj"), 1.0)?;
        c.mlp_with_packed_gate(l, &at("mlp.gate_up_proj"), &at("mlp.down_proj"))?;
    }
    Ok(())
}
