//! StableLM 2: Llama with layer norms, a quarter of a head rotated.

use super::{Family, Read, layer, llama, llama_keys};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_tensor::Tensor;
use ironlens_transformer::config::{Config, NormalizationType, QkNormType};

pub(super) const FAMILY: Family = Family {
    name: "StableLM",
    architectures: &["StableLmForCausalLM", "StableLmModel", "StableLMEpochForCausalLM"],
    prefix: "model.",
    config,
    tensors,
    names: &[("rope_pct", "partial_rotary_factor"), ("norm_eps", "layer_norm_eps")],
    defaults: r#"{"vocab_size": 50304, "intermediate_size": 6912, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 4096, "layer_norm_eps": 1e-05,
        "partial_rotary_factor": 0.25}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    if hf.flag("qk_layernorm", false)? {
        cfg.use_qk_norm = true;
        cfg.qk_norm_type = QkNormType::LayerNormPerHead;
    }
    Ok(Config {
        eps: hf.number_if_given("layer_norm_eps")?.unwrap_or(1e-5),
        normalization_type: NormalizationType::LN,
        final_rms: false,
        parallel_attn_mlp: hf.flag("use_parallel_residual", false)?,
        ..cfg
    })
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("{}self_attn.{name}", layer(l));
        c.stream_norm(&format!("blocks.{l}.ln1"), &format!("{}input_layernorm", layer(l)))?;
        // Side by side, both read the same norm.
        let second = if c.cfg.parallel_attn_mlp { "input_layernorm" } else { "post_attention_layernorm" };
        c.stream_norm(&format!("blocks.{l}.ln2"), &format!("{}{second}", layer(l)))?;
        c.attention_in(l, [&at("q_proj"), &at("k_proj"), &at("v_proj")])?;
        c.attention_out(l, &at("o_proj"), 1.0)?;
        if c.cfg.use_qk_norm {
            per_head(c, l, "q", c.cfg.n_heads)?;
            per_head(c, l, "k", c.cfg.n_key_value_heads())?;
        }
        llama::gated_mlp(c, l)?;
    }
    Ok(())
}

/// The weights of one norm per head, `[h]` each.
fn per_head(c: &mut Conversion<'_>, l: usize, which: &str, heads: usize) -> Read<()> {
    let mut all = Vec::new();
    for i in 0..heads {
        let name = format!("{}self_attn.{which}_layernorm.norms.{i}.weight", layer(l));
        all.extend(c.read(&name, &[c.cfg.d_head])?);
    }
    let whole = all.len() == heads;
    c.write(&format!("blocks.{l}.attn.{which}_norm.w"), whole.then(|| Tensor::stack(&all, 0)))
}
