//! Qwen 1, whose class comes with its checkpoints: Llama with GPT-2's names and packed queries, keys and values.

use super::{Family, Read};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_transformer::config::{ActFn, Config, NormalizationType, PositionalEmbeddingType};

pub(super) const FAMILY: Family = Family {
    name: "Qwen 1",
    architectures: &["QWenLMHeadModel"],
    prefix: "transformer.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000, "rotary_pct": 1.0}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let (d_model, n_heads) = (hf.size("hidden_size")?, hf.count("num_attention_heads")?);
    let d_head = hf.size_if_given("kv_channels")?.unwrap_or(d_model.checked_div(n_heads).unwrap_or(0));
    Ok(Config {
        d_model,
        n_heads,
        d_head,
        n_layers: hf.count("num_hidden_layers")?,
        // It is that of gate and input together.
        d_mlp: hf.size("intermediate_size")? / 2,
        // Longer texts would be rotated, and their scores scaled, by their length.
        n_ctx: hf.size_if_given("seq_length")?.map_or_else(|| hf.size("max_position_embeddings"), Ok)?,
        d_vocab: hf.size("vocab_size")?,
        eps: hf.number("layer_norm_epsilon")?,
        act_fn: ActFn::Silu,
        normalization_type: NormalizationType::RMS,
        positional_embedding_type: PositionalEmbeddingType::Rotary,
        rotary_dim: (d_head as f64 * hf.number("rotary_pct")?) as usize,
        rotary_base: hf.number("rotary_emb_base")?,
        use_attn_scale: hf.flag("scale_attn_weights", true)?,
        final_rms: true,
        gated_mlp: true,
        default_prepend_bos: false,
        init_weights: false,
        ..Config::default()
    })
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "transformer.ln_f")?;
    c.embeddings("transformer.wte.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("transformer.h.{l}.{name}");
        c.stream_norm(&format!("blocks.{l}.ln1"), &at("ln_1"))?;
        c.stream_norm(&format!("blocks.{l}.ln2"), &at("ln_2"))?;
        c.attention_in_one(l, &at("attn.c_attn"), c.in_turn())?;
        c.attention_out(l, &at("attn.c_proj"), 1.0)?;
        c.mlp(l, &at("mlp.w1"), &at("mlp.c_proj"), Some(&at("mlp.w2")))?;
    }
    Ok(())
}
