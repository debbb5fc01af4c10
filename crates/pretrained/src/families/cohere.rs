//! Command R: attention and MLP side by side from one layer norm without bias; logits are scaled. Command R7B
//! rotates only where it looks back a window.

use super::{Family, Read, layer, llama, llama_keys, windows};
use crate::conversion::Conversion;
use crate::hf::{HfConfig, mistaken};
use ironlens_transformer::config::{AttnType, Config, NormalizationType, QkNormType};

pub(super) const FAMILY: Family = Family {
    name: "Command R",
    architectures: &["CohereForCausalLM", "CohereModel"],
    prefix: "model.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 256000, "intermediate_size": 22528,
        "num_hidden_layers": 40, "num_attention_heads": 64, "max_position_embeddings": 8192,
        "layer_norm_eps": 1e-05, "tie_word_embeddings": true}"#,
};

pub(super) const FAMILY_2: Family = Family {
    name: "Command R7B",
    architectures: &["Cohere2ForCausalLM", "Cohere2Model"],
    prefix: "model.",
    config: config_2,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 256000, "intermediate_size": 22528,
        "num_hidden_layers": 40, "num_attention_heads": 64, "max_position_embeddings": 8192,
        "layer_norm_eps": 1e-05, "tie_word_embeddings": true, "sliding_window": 4096}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    cfg.eps = hf.number_if_given("layer_norm_eps")?.unwrap_or(1e-5);
    cfg.normalization_type = NormalizationType::LN;
    cfg.final_rms = false;
    cfg.parallel_attn_mlp = true;
    cfg.rotary_adjacent_pairs = true;
    if hf.flag("use_qk_norm", false)? {
        cfg.use_qk_norm = true;
        cfg.qk_norm_type = QkNormType::LayerNormPerHead;
    }
    Ok(cfg)
}

fn config_2(hf: &HfConfig) -> Read<Config> {
    let mut cfg = config(hf)?;
    let every = hf.size_if_given("sliding_window_pattern")?.unwrap_or(4).max(1);
    windows(hf, &mut cfg, |l| !(l + 1).is_multiple_of(every))?;
    cfg.no_rope_layers = (0..cfg.n_layers).filter(|l| cfg.attn_type(*l) == AttnType::Global).collect();
    Ok(cfg)
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    let scale = c.hf.number_if_given("logit_scale")?.unwrap_or(0.0625);
    if scale == 0.0 {
        return Err(mistaken("logit_scale", "0", "another number"));
    }
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0 / scale)?;
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("{}self_attn.{name}", layer(l));
        c.stream_norm(&format!("blocks.{l}.ln1"), &format!("{}input_layernorm", layer(l)))?;
        c.stream_norm(&format!("blocks.{l}.ln2"), &format!("{}input_layernorm", layer(l)))?;
        c.attention_in(l, [&at("q_proj"), &at("k_proj"), &at("v_proj")])?;
        c.attention_out(l, &at("o_proj"), 1.0)?;
        if c.cfg.use_qk_norm {
            let (n, kv, h) = (c.cfg.n_heads, c.cfg.n_key_value_heads(), c.cfg.d_head);
            c.copy(&format!("blocks.{l}.attn.q_norm.w"), &at("q_norm.weight"), &[n, h])?;
            c.copy(&format!("blocks.{l}.attn.k_norm.w"), &at("k_norm.weight"), &[kv, h])?;
        }
        llama::gated_mlp(c, l)?;
    }
    Ok(())
}
