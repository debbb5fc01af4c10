//! nanoGPT: GPT-2 with matrices as PyTorch's `Linear` has them, and maybe without biases.

use super::Read;
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_transformer::config::{ActFn, Config};

/// Of `model_args` in a checkpoint.
pub(crate) fn config(hf: &HfConfig) -> Read<Config> {
    let (d_model, n_heads) = (hf.size("n_embd")?, hf.count("n_head")?);
    Ok(Config {
        d_model,
        n_heads,
        d_head: d_model.checked_div(n_heads).unwrap_or(0),
        n_layers: hf.count("n_layer")?,
        n_ctx: hf.size("block_size")?,
        d_vocab: hf.size("vocab_size")?,
        act_fn: ActFn::Gelu,
        original_architecture: Some("nanoGPT".into()),
        init_weights: false,
        ..Config::default()
    })
}

pub(crate) fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.embeddings("transformer.wte.weight", "lm_head.weight", 1.0, 1.0)?;
    c.positions("transformer.wpe.weight", 0)?;
    c.stream_norm("ln_final", "transformer.ln_f")?;
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("transformer.h.{l}.{name}");
        c.stream_norm(&format!("blocks.{l}.ln1"), &at("ln_1"))?;
        c.stream_norm(&format!("blocks.{l}.ln2"), &at("ln_2"))?;
        c.attention_in_one(l, &at("attn.c_attn"), c.in_turn())?;
        c.attention_out(l, &at("attn.c_proj"), 1.0)?;
        c.mlp(l, &at("mlp.c_fc"), &at("mlp.c_proj"), None)?;
    }
    Ok(())
}
