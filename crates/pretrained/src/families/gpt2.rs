//! GPT-2 and what was made like it: DistilGPT-2, Stanford's, mGPT.

use super::{Family, Read, act_fn};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_transformer::config::Config;

pub(super) const FAMILY: Family = Family {
    name: "GPT-2",
    architectures: &["GPT2LMHeadModel", "GPT2Model", "GPT2DoubleHeadsModel"],
    prefix: "transformer.",
    config,
    tensors,
    names: NAMES,
    defaults: r#"{"vocab_size": 50257, "n_positions": 1024, "n_layer": 12, "n_head": 12,
        "layer_norm_epsilon": 1e-05, "tie_word_embeddings": true}"#,
};

/// The other names that the GPT classes of Hugging Face know for their settings.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("hidden_size", "n_embd"),
    ("max_position_embeddings", "n_positions"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
    ("n_ctx", "n_positions"),
];

fn config(hf: &HfConfig) -> Read<Config> {
    gpt_keys(hf)
}

/// What the keys of OpenAI's say.
pub(super) fn gpt_keys(hf: &HfConfig) -> Read<Config> {
    let (d_model, n_heads) = (hf.size("n_embd")?, hf.count("n_head")?);
    Ok(Config {
        d_model,
        n_heads,
        d_head: d_model.checked_div(n_heads).unwrap_or(0),
        n_layers: hf.count("n_layer")?,
        d_mlp: hf.size_if_given("n_inner")?.unwrap_or(d_model.saturating_mul(4)),
        n_ctx: hf.size("n_positions")?,
        d_vocab: hf.size("vocab_size")?,
        eps: hf.number_if_given("layer_norm_epsilon")?.unwrap_or(1e-5),
        act_fn: act_fn(hf, "activation_function", "gelu_new")?,
        use_attn_scale: hf.flag("scale_attn_weights", true)?,
        scale_attn_by_inverse_layer_idx: hf.flag("scale_attn_by_inverse_layer_idx", false)?,
        init_weights: false,
        ..Config::default()
    })
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.conv1d = true;
    // What chooses among several texts, in the class with two heads.
    for part in ["weight", "bias"] {
        c.ignore(&format!("multiple_choice_head.summary.{part}"));
    }
    weights(c)
}

/// The weights, whichever way matrices are stored.
pub(super) fn weights(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "transformer.ln_f")?;
    c.embeddings("transformer.wte.weight", "lm_head.weight", 1.0, 1.0)?;
    c.positions("transformer.wpe.weight", 0)?;
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
