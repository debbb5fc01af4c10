//! GPT-J: attention and MLP side by side, from one norm; neighbouring dimensions are rotated.

use super::{Family, Read, gpt2};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_transformer::config::{Config, PositionalEmbeddingType};

pub(super) const FAMILY: Family = Family {
    name: "GPT-J",
    architectures: &["GPTJForCausalLM", "GPTJModel"],
    prefix: "transformer.",
    config,
    tensors,
    names: gpt2::NAMES,
    defaults: r#"{"vocab_size": 50400, "n_positions": 2048, "n_layer": 28, "n_head": 16,
        "rotary_dim": 64, "layer_norm_epsilon": 1e-05}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let cfg = gpt2::gpt_keys(hf)?;
    Ok(Config {
        rotary_dim: hf.size("rotary_dim")?,
        positional_embedding_type: PositionalEmbeddingType::Rotary,
        rotary_adjacent_pairs: true,
        parallel_attn_mlp: true,
        ..cfg
    })
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "transformer.ln_f")?;
    c.embeddings("transformer.wte.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("transformer.h.{l}.{name}");
        c.stream_norm(&format!("blocks.{l}.ln1"), &at("ln_1"))?;
        c.stream_norm(&format!("blocks.{l}.ln2"), &at("ln_1"))?;
        c.attention_in(l, [&at("attn.q_proj"), &at("attn.k_proj"), &at("attn.v_proj")])?;
        c.attention_out(l, &at("attn.out_proj"), 1.0)?;
        c.mlp(l, &at("mlp.fc_in"), &at("mlp.fc_out"), None)?;
    }
    Ok(())
}
