//! Mixtral: Mistral with experts.

use super::{Family, Read, layer, llama, llama_keys, windows_everywhere};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_transformer::config::Config;

pub(super) const FAMILY: Family = Family {
    name: "Mixtral",
    architectures: &["MixtralForCausalLM", "MixtralModel"],
    prefix: "model.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 32000, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "num_experts_per_tok": 2,
        "num_local_experts": 8, "max_position_embeddings": 131072}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    cfg.n_key_value_heads = hf.size_if_given("num_key_value_heads")?.unwrap_or(cfg.n_heads);
    cfg.final_rms = false;
    cfg.num_experts = hf.size("num_local_experts")?;
    cfg.experts_per_token = hf.size("num_experts_per_tok")?;
    windows_everywhere(hf, &mut cfg)?;
    Ok(cfg)
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        llama::norms(c, l)?;
        llama::attention(c, l)?;
        let router = format!("{}block_sparse_moe.gate", layer(l));
        let expert = |e: usize| format!("{}block_sparse_moe.experts.{e}.", layer(l));
        experts(c, l, &router, expert, ["w3", "w1", "w2"])?;
    }
    Ok(())
}

/// The router, and of each expert the matrices into it, of its gate and out of it.
pub(super) fn experts(
    c: &mut Conversion<'_>,
    l: usize,
    router: &str,
    expert: impl Fn(usize) -> String,
    [up, gate, down]: [&str; 3],
) -> Read<()> {
    let (m, f, n) = (c.cfg.d_model, c.cfg.d_mlp, c.cfg.num_experts);
    let at = |name: String| format!("blocks.{l}.mlp.{name}");
    c.copy(&at("W_gate.weight".into()), &format!("{router}.weight"), &[n, m])?;
    for e in 0..n {
        for (to, from, shape) in [("W_in", up, [f, m]), ("W_gate", gate, [f, m]), ("W_out", down, [m, f])] {
            c.copy(&at(format!("experts.{e}.{to}.weight")), &format!("{}{from}.weight", expert(e)), &shape)?;
        }
    }
    Ok(())
}
