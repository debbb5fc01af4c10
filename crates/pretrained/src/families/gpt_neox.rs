//! GPT-NeoX, Pythia and StableLM Alpha: attention and MLP side by side, unless the file says otherwise.

use super::{Family, Read, act_fn, rope, set_rotated};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_tensor::Tensor;
use ironlens_transformer::config::{Config, PositionalEmbeddingType};

pub(super) const FAMILY: Family = Family {
    name: "GPT-NeoX",
    architectures: &["GPTNeoXForCausalLM", "GPTNeoXModel"],
    prefix: "gpt_neox.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 50432, "num_hidden_layers": 44, "num_attention_heads": 64,
        "intermediate_size": 24576, "max_position_embeddings": 2048, "layer_norm_eps": 1e-05,
        "partial_rotary_factor": 0.25}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let (d_model, n_heads) = (hf.size("hidden_size")?, hf.count("num_attention_heads")?);
    let mut cfg = Config {
        d_model,
        n_heads,
        d_head: d_model.checked_div(n_heads).unwrap_or(0),
        n_layers: hf.count("num_hidden_layers")?,
        d_mlp: hf.size("intermediate_size")?,
        n_ctx: hf.size("max_position_embeddings")?,
        d_vocab: hf.size("vocab_size")?,
        eps: hf.number_if_given("layer_norm_eps")?.unwrap_or(1e-5),
        act_fn: act_fn(hf, "hidden_act", "gelu")?,
        positional_embedding_type: PositionalEmbeddingType::Rotary,
        parallel_attn_mlp: hf.flag("use_parallel_residual", true)?,
        init_weights: false,
        ..Config::default()
    };
    rope(hf, &mut cfg)?;
    // Older files have names of their own, which go first where both are given.
    if let Some(part) = hf.number_if_given("rotary_pct")? {
        set_rotated(&mut cfg, part)?;
    }
    if let Some(base) = hf.number_if_given("rotary_emb_base")? {
        cfg.rotary_base = base;
    }
    Ok(cfg)
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "gpt_neox.final_layer_norm")?;
    c.embeddings("gpt_neox.embed_in.weight", "embed_out.weight", 1.0, 1.0)?;
    let (n, h) = (c.cfg.n_heads, c.cfg.d_head);
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("gpt_neox.layers.{l}.{name}");
        c.stream_norm(&format!("blocks.{l}.ln1"), &at("input_layernorm"))?;
        c.stream_norm(&format!("blocks.{l}.ln2"), &at("post_attention_layernorm"))?;
        c.attention_in_one(l, &at("attention.query_key_value"), move |t| head_by_head(t, n, h))?;
        c.attention_out(l, &at("attention.dense"), 1.0)?;
        c.mlp(l, &at("mlp.dense_h_to_4h"), &at("mlp.dense_4h_to_h"), None)?;
    }
    Ok(())
}

/// Splits rows `[n, 3, h]`: of each head queries, keys and values.
pub(super) fn head_by_head(t: &Tensor, n: usize, h: usize) -> [Tensor; 3] {
    let rest: usize = t.shape()[1..].iter().product();
    let by_head = t.reshape(&[n, 3, h, rest]);
    let shape: Vec<usize> = [n * h].into_iter().chain(t.shape()[1..].iter().copied()).collect();
    [0, 1, 2].map(|i| by_head.select(1, i).reshape(&shape))
}
