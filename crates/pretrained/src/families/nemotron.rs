//! Nemotron: layer norms whose weight is added to 1, a squared ReLU, half of a head rotated.

use super::{Family, Read, act_fn, layer, llama, llama_keys};
use crate::conversion::Conversion;
use crate::hf::{HfConfig, mistaken};
use ironlens_transformer::config::{Config, NormalizationType};

pub(super) const FAMILY: Family = Family {
    name: "Nemotron",
    architectures: &["NemotronForCausalLM", "NemotronModel"],
    prefix: "model.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 256000, "intermediate_size": 24576,
        "num_hidden_layers": 32, "num_attention_heads": 48, "max_position_embeddings": 4096,
        "norm_eps": 1e-05, "partial_rotary_factor": 0.5}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let cfg = llama_keys(hf)?;
    if cfg.rope_scaling.is_some() || cfg.use_NTK_by_parts_rope {
        return Err(mistaken("rope_scaling", "given", "null: Hugging Face's Nemotron reads no stretching of rotation"));
    }
    Ok(Config {
        eps: hf.number_if_given("norm_eps")?.unwrap_or(1e-5),
        act_fn: act_fn(hf, "hidden_act", "relu2")?,
        normalization_type: NormalizationType::LN,
        final_rms: false,
        gated_mlp: false,
        ..cfg
    })
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.norm_offset = 1.0;
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        llama::norms(c, l)?;
        llama::attention(c, l)?;
        let at = |name: &str| format!("{}mlp.{name}", layer(l));
        c.mlp(l, &at("up_proj"), &at("down_proj"), None)?;
    }
    Ok(())
}
