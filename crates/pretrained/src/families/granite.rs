//! Granite 3: Llama with four multipliers, which are folded into weights.

use super::{Family, Read, layer, llama};
use crate::conversion::Conversion;
use crate::hf::{HfConfig, mistaken};
use ironlens_transformer::config::Config;

pub(super) const FAMILY: Family = Family {
    name: "Granite",
    architectures: &["GraniteForCausalLM", "GraniteModel"],
    prefix: "model.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 32000, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-06}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama::config(hf)?;
    let factor = hf.number_if_given("attention_multiplier")?.unwrap_or(1.0);
    if factor <= 0.0 {
        return Err(mistaken("attention_multiplier", &factor.to_string(), "a number above 0"));
    }
    cfg.attn_scale = 1.0 / factor;
    Ok(cfg)
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    let number = |name| Ok::<_, crate::PretrainedError>(c.hf.number_if_given(name)?.unwrap_or(1.0));
    let (embedding, residual, logits) =
        (number("embedding_multiplier")?, number("residual_multiplier")?, number("logits_scaling")?);
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", embedding, logits)?;
    for l in 0..c.cfg.n_layers {
        llama::norms(c, l)?;
        let at = |name: &str| format!("{}self_attn.{name}", layer(l));
        c.attention_in(l, [&at("q_proj"), &at("k_proj"), &at("v_proj")])?;
        c.attention_out(l, &at("o_proj"), residual)?;
        llama::gated_mlp(c, l)?;
        // What the MLP writes is scaled as well.
        c.scale(&format!("blocks.{l}.mlp.W_out"), residual)?;
        c.scale(&format!("blocks.{l}.mlp.b_out"), residual)?;
    }
    Ok(())
}
