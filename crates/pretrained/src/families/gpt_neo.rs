//! GPT-Neo and TinyStories: scores are not scaled, and every other layer looks back 256 positions.

use super::{Family, Read, act_fn, local_if, set_windows};
use crate::conversion::Conversion;
use crate::hf::{HfConfig, mistaken};
use ironlens_transformer::config::{AttnType, Config};
use serde_json::Value;

pub(super) const FAMILY: Family = Family {
    name: "GPT-Neo",
    architectures: &["GPTNeoForCausalLM", "GPTNeoModel"],
    prefix: "transformer.",
    config,
    tensors,
    names: &[("num_attention_heads", "num_heads"), ("num_hidden_layers", "num_layers")],
    defaults: r#"{"vocab_size": 50257, "max_position_embeddings": 2048, "num_layers": 24,
        "num_heads": 16, "window_size": 256, "layer_norm_epsilon": 1e-05, "tie_word_embeddings": true,
        "attention_types": [[["global", "local"], 12]]}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let (d_model, n_heads) = (hf.size("hidden_size")?, hf.count("num_heads")?);
    let mut cfg = Config {
        d_model,
        n_heads,
        d_head: d_model.checked_div(n_heads).unwrap_or(0),
        n_layers: hf.count("num_layers")?,
        d_mlp: hf.size_if_given("intermediate_size")?.unwrap_or(d_model.saturating_mul(4)),
        n_ctx: hf.size("max_position_embeddings")?,
        d_vocab: hf.size("vocab_size")?,
        eps: hf.number_if_given("layer_norm_epsilon")?.unwrap_or(1e-5),
        act_fn: act_fn(hf, "activation_function", "gelu_new")?,
        use_attn_scale: false,
        init_weights: false,
        ..Config::default()
    };
    let types = attention_layers(hf)?;
    set_windows(&mut cfg, hf.size_if_given("window_size")?.unwrap_or(256), types);
    Ok(cfg)
}

/// How far each layer looks: as a list, or as patterns with the number of their repetitions.
fn attention_layers(hf: &HfConfig) -> Read<Vec<AttnType>> {
    if let Some(list) = hf.list_if_given("attention_layers", Value::as_str)? {
        return Ok(list.into_iter().map(|t| local_if(t == "local")).collect());
    }
    let pattern = |v: &Value| {
        let [types, times] = &v.as_array()?[..] else { return None };
        let types: Option<Vec<AttnType>> =
            types.as_array()?.iter().map(|t| Some(local_if(t.as_str()? == "local"))).collect();
        // More repetitions than any model has layers would fill the memory.
        let times = usize::try_from(times.as_u64()?).ok().filter(|n| *n <= 1 << 16)?;
        Some(types?.repeat(times))
    };
    let patterns = hf.list_if_given("attention_types", pattern)?;
    let expected = "a list of \"global\" and \"local\", one for each layer";
    Ok(patterns.ok_or_else(|| mistaken("attention_layers", "not given", expected))?.concat())
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "transformer.ln_f")?;
    c.embeddings("transformer.wte.weight", "lm_head.weight", 1.0, 1.0)?;
    c.positions("transformer.wpe.weight", 0)?;
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("transformer.h.{l}.{name}");
        let attn = |name: &str| at(&format!("attn.attention.{name}"));
        c.stream_norm(&format!("blocks.{l}.ln1"), &at("ln_1"))?;
        c.stream_norm(&format!("blocks.{l}.ln2"), &at("ln_2"))?;
        c.attention_in(l, [&attn("q_proj"), &attn("k_proj"), &attn("v_proj")])?;
        c.attention_out(l, &attn("out_proj"), 1.0)?;
        c.mlp(l, &at("mlp.c_fc"), &at("mlp.c_proj"), None)?;
        // Masks, which some files hold.
        c.ignore(&attn("bias"));
        c.ignore(&attn("masked_bias"));
    }
    Ok(())
}
