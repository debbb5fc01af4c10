//! GPTBigCode (SantaCoder, StarCoder): GPT-2 with one key and value for all heads.

use super::{Family, Read, gpt2};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_transformer::config::Config;

pub(super) const FAMILY: Family = Family {
    name: "GPTBigCode",
    architectures: &["GPTBigCodeForCausalLM", "GPTBigCodeModel"],
    prefix: "transformer.",
    config,
    tensors,
    names: gpt2::NAMES,
    defaults: r#"{"vocab_size": 50257, "n_positions": 1024, "n_layer": 12, "n_head": 12,
        "layer_norm_epsilon": 1e-05, "tie_word_embeddings": true}"#,
};

/// The class that came with SantaCoder's first checkpoint: matrices as GPT-2's, queries apart from key and value.
pub(super) const FAMILY_CUSTOM: Family = Family {
    name: "SantaCoder",
    architectures: &["GPT2LMHeadCustomModel"],
    tensors: |c| {
        c.conv1d = true;
        tensors(c)
    },
    ..FAMILY
};

fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = gpt2::gpt_keys(hf)?;
    if hf.flag("multi_query", true)? {
        cfg.n_key_value_heads = 1;
    }
    Ok(cfg)
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "transformer.ln_f")?;
    c.embeddings("transformer.wte.weight", "lm_head.weight", 1.0, 1.0)?;
    c.positions("transformer.wpe.weight", 0)?;
    let (n, h) = (c.cfg.n_heads, c.cfg.d_head);
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("transformer.h.{l}.{name}");
        c.stream_norm(&format!("blocks.{l}.ln1"), &at("ln_1"))?;
        c.stream_norm(&format!("blocks.{l}.ln2"), &at("ln_2"))?;
        match c.cfg.n_key_value_heads() {
            _ if c.has(&at("attn.q_attn.weight")) => c.attention_in_two(l, &at("attn.q_attn"), &at("attn.kv_attn"))?,
            1 => c.attention_in_one(l, &at("attn.c_attn"), c.in_turn())?,
            // With a key for each head, queries, keys and values of a head lie side by side.
            _ => c.attention_in_one(l, &at("attn.c_attn"), move |t| super::gpt_neox::head_by_head(t, n, h))?,
        }
        c.attention_out(l, &at("attn.c_proj"), 1.0)?;
        c.mlp(l, &at("mlp.c_fc"), &at("mlp.c_proj"), None)?;
    }
    Ok(())
}
