//! Falcon: one key and value for all heads, or for groups of them; attention and MLP side by side in all but
//! the first (falcon-rw), which has ALiBi.

use super::{Family, Read, act_fn, alibi_slopes, gpt_neox, rope};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_tensor::Tensor;
use ironlens_transformer::config::{Config, PositionalEmbeddingType};

pub(super) const FAMILY: Family = Family {
    name: "Falcon",
    architectures: &["FalconForCausalLM", "FalconModel", "RWForCausalLM"],
    prefix: "transformer.",
    config,
    tensors,
    names: &[
        ("n_head_kv", "num_kv_heads"),
        ("n_embed", "hidden_size"),
        ("n_layer", "num_hidden_layers"),
        ("n_head", "num_attention_heads"),
    ],
    defaults: r#"{"vocab_size": 65024, "num_hidden_layers": 32, "num_attention_heads": 71,
        "layer_norm_epsilon": 1e-05, "max_position_embeddings": 2048, "tie_word_embeddings": true}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let n_heads = hf.count("num_attention_heads")?;
    let d_model = hf.size("hidden_size")?;
    let d_head = d_model.checked_div(n_heads).unwrap_or(0);
    let grouped = is_grouped(hf)?;
    let multi_query = hf.flag("multi_query", true)?;
    let mut cfg = Config {
        d_model,
        n_heads,
        d_head,
        n_layers: hf.count("num_hidden_layers")?,
        d_mlp: hf.size_if_given("ffn_hidden_size")?.unwrap_or(d_model.saturating_mul(4)),
        n_ctx: hf.size_if_given("max_position_embeddings")?.unwrap_or(2048),
        d_vocab: hf.size("vocab_size")?,
        eps: hf.number_if_given("layer_norm_epsilon")?.unwrap_or(1e-5),
        act_fn: act_fn(hf, "activation", "gelu")?,
        n_key_value_heads: match (grouped, multi_query) {
            (true, _) => hf.size_if_given("num_kv_heads")?.unwrap_or(n_heads),
            (false, true) => 1,
            (false, false) => 0,
        },
        parallel_attn_mlp: grouped || hf.flag("parallel_attn", true)?,
        init_weights: false,
        ..Config::default()
    };
    if hf.flag("alibi", false)? {
        cfg.positional_embedding_type = PositionalEmbeddingType::Alibi;
        cfg.alibi_slopes = alibi_slopes(n_heads);
        cfg.alibi_bf16 = true;
    } else {
        cfg.positional_embedding_type = PositionalEmbeddingType::Rotary;
        rope(hf, &mut cfg)?;
    }
    Ok(cfg)
}

/// Whether groups of heads have a key and a value; the first files (falcon-40b's) only give the number of groups.
fn is_grouped(hf: &HfConfig) -> Read<bool> {
    Ok(hf.flag("new_decoder_architecture", false)? || hf.size_if_given("n_head_kv")?.is_some())
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "transformer.ln_f")?;
    c.embeddings("transformer.word_embeddings.weight", "lm_head.weight", 1.0, 1.0)?;
    let (n, h) = (c.cfg.n_heads, c.cfg.d_head);
    let grouped = is_grouped(c.hf)?;
    let kv = c.cfg.n_key_value_heads();
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("transformer.h.{l}.{name}");
        let ln = |name: &str| format!("blocks.{l}.{name}");
        if c.has(&at("ln_attn.weight")) {
            c.stream_norm(&ln("ln1"), &at("ln_attn"))?;
            c.stream_norm(&ln("ln2"), &at("ln_mlp"))?;
        } else {
            c.stream_norm(&ln("ln1"), &at("input_layernorm"))?;
            // Side by side, both read the same norm.
            let second = if c.cfg.parallel_attn_mlp { "input_layernorm" } else { "post_attention_layernorm" };
            c.stream_norm(&ln("ln2"), &at(second))?;
        }
        let from = at("self_attention.query_key_value");
        match (grouped, kv == n) {
            (true, _) => c.attention_in_one(l, &from, move |t| group_by_group(t, n, kv, h))?,
            (false, true) => c.attention_in_one(l, &from, move |t| gpt_neox::head_by_head(t, n, h))?,
            (false, false) => c.attention_in_one(l, &from, c.in_turn())?,
        }
        c.attention_out(l, &at("self_attention.dense"), 1.0)?;
        c.mlp(l, &at("mlp.dense_h_to_4h"), &at("mlp.dense_4h_to_h"), None)?;
    }
    Ok(())
}

/// Splits rows `[kv, n / kv + 2, h]`: of each group its queries, its key and its value.
fn group_by_group(t: &Tensor, n: usize, kv: usize, h: usize) -> [Tensor; 3] {
    let rest: usize = t.shape()[1..].iter().product();
    let queries = n / kv;
    let groups = t.reshape(&[kv, queries + 2, h, rest]);
    [(0, queries), (queries, 1), (queries + 1, 1)].map(|(first, count)| {
        let shape: Vec<usize> = [kv * count * h].into_iter().chain(t.shape()[1..].iter().copied()).collect();
        groups.narrow(1, first, count).reshape(&shape)
    })
}
