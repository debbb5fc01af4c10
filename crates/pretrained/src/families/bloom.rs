//! BLOOM: ALiBi, and a norm after the embedding.

use super::{Family, Read, alibi_slopes, gpt_neox};
use crate::conversion::Conversion;
use crate::error::PretrainedError;
use crate::hf::HfConfig;
use ironlens_transformer::config::{ActFn, Config, PositionalEmbeddingType};

pub(super) const FAMILY: Family = Family {
    name: "BLOOM",
    architectures: &["BloomForCausalLM", "BloomModel"],
    prefix: "transformer.",
    config,
    tensors,
    names: &[("n_embed", "hidden_size"), ("num_hidden_layers", "n_layer"), ("num_attention_heads", "n_head")],
    defaults: r#"{"vocab_size": 250880, "n_layer": 2, "n_head": 8,
        "layer_norm_epsilon": 1e-05, "tie_word_embeddings": true}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let (width, n_heads) = (hf.size("hidden_size")?, hf.count("n_head")?);
    if hf.flag("apply_residual_connection_post_layernorm", false)? {
        return Err(PretrainedError::Family {
            architecture: "BLOOM with apply_residual_connection_post_layernorm".into(),
            hint: "no published model has it; the others are read".into(),
        });
    }
    Ok(Config {
        d_model: width,
        n_heads,
        d_head: width.checked_div(n_heads).unwrap_or(0),
        n_layers: hf.count("n_layer")?,
        d_mlp: width.saturating_mul(4),
        // ALiBi has no longest sequence; it is what the models were trained on.
        n_ctx: hf.size_if_given("seq_length")?.unwrap_or(2048),
        d_vocab: hf.size("vocab_size")?,
        eps: hf.number_if_given("layer_norm_epsilon")?.unwrap_or(1e-5),
        act_fn: ActFn::GeluFast,
        positional_embedding_type: PositionalEmbeddingType::Alibi,
        alibi_slopes: if n_heads.is_power_of_two() { Vec::new() } else { alibi_slopes(n_heads) },
        post_embedding_ln: true,
        default_prepend_bos: false,
        init_weights: false,
        ..Config::default()
    })
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "transformer.ln_f")?;
    c.embeddings("transformer.word_embeddings.weight", "lm_head.weight", 1.0, 1.0)?;
    c.stream_norm("embed.ln", "transformer.word_embeddings_layernorm")?;
    let (n, h) = (c.cfg.n_heads, c.cfg.d_head);
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("transformer.h.{l}.{name}");
        c.stream_norm(&format!("blocks.{l}.ln1"), &at("input_layernorm"))?;
        c.stream_norm(&format!("blocks.{l}.ln2"), &at("post_attention_layernorm"))?;
        let split = move |t: &ironlens_tensor::Tensor| gpt_neox::head_by_head(t, n, h);
        c.attention_in_one(l, &at("self_attention.query_key_value"), split)?;
        c.attention_out(l, &at("self_attention.dense"), 1.0)?;
        c.mlp(l, &at("mlp.dense_h_to_4h"), &at("mlp.dense_4h_to_h"), None)?;
    }
    Ok(())
}
