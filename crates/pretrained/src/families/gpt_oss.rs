//! gpt-oss: experts with biases and a clamped activation, sinks, windows in every other layer, YaRN.

use super::{Family, Read, layer, llama, llama_keys, windows};
use crate::conversion::Conversion;
use crate::error::PretrainedError;
use crate::hf::HfConfig;
use ironlens_transformer::config::Config;

pub(super) const FAMILY: Family = Family {
    name: "gpt-oss",
    architectures: &["GptOssForCausalLM", "GptOssModel"],
    prefix: "model.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"num_hidden_layers": 36, "num_local_experts": 128, "vocab_size": 201088,
        "intermediate_size": 2880, "head_dim": 64, "num_attention_heads": 64,
        "num_key_value_heads": 8, "sliding_window": 128, "rope_theta": 150000.0,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-05,
        "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false, "original_max_position_embeddings": 4096},
        "num_experts_per_tok": 4}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    cfg.eps = hf.number_if_given("rms_norm_eps")?.unwrap_or(1e-5);
    cfg.num_experts = hf.size("num_local_experts")?;
    cfg.experts_per_token = hf.size("num_experts_per_tok")?;
    cfg.gpt_oss_experts = true;
    cfg.attn_sinks = true;
    windows(hf, &mut cfg, |l| l % 2 == 0)?;
    Ok(cfg)
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    if c.has(&format!("{}mlp.experts.gate_up_proj_blocks", layer(0))) {
        return Err(PretrainedError::Family {
            architecture: "gpt-oss with experts in four bits (MXFP4)".into(),
            hint: "take a checkpoint whose experts are in bf16".into(),
        });
    }
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        llama::norms(c, l)?;
        llama::attention(c, l)?;
        let sinks = format!("{}self_attn.sinks", layer(l));
        match c.cfg.attn_sinks {
            true => c.copy(&format!("blocks.{l}.attn.sinks"), &sinks, &[c.cfg.n_heads])?,
            false => c.ignore(&sinks),
        }
        experts(c, l)?;
    }
    Ok(())
}

/// The experts' matrices lie in one tensor each: `[expert, m, 2 f]`, whose even columns are the gate's and
/// whose odd ones are the input's, and `[expert, f, m]`.
fn experts(c: &mut Conversion<'_>, l: usize) -> Read<()> {
    let (m, f, n) = (c.cfg.d_model, c.cfg.d_mlp, c.cfg.num_experts);
    let from = |name: &str| format!("{}mlp.{name}", layer(l));
    let to = |name: &str| format!("blocks.{l}.mlp.{name}");
    c.copy(&to("W_gate.weight"), &from("router.weight"), &[n, m])?;
    c.copy(&to("W_gate.bias"), &from("router.bias"), &[n])?;
    let up = c.read(&from("experts.gate_up_proj"), &[n, m, 2 * f])?.map(|w| w.reshape(&[n, m, f, 2]));
    let up_bias = c.read(&from("experts.gate_up_proj_bias"), &[n, 2 * f])?.map(|b| b.reshape(&[n, f, 2]));
    let down = c.read(&from("experts.down_proj"), &[n, f, m])?;
    let down_bias = c.read(&from("experts.down_proj_bias"), &[n, m])?;
    for e in 0..n {
        let expert = |name: &str| to(&format!("experts.{e}.{name}"));
        for (name, place) in [("W_gate", 0), ("W_in", 1)] {
            let w = up.as_ref().map(|w| w.select(0, e).select(2, place).t());
            c.write(&expert(&format!("{name}.weight")), w)?;
            let b = up_bias.as_ref().map(|b| b.select(0, e).select(1, place));
            c.write(&expert(&format!("{name}.bias")), b)?;
        }
        c.write(&expert("W_out.weight"), down.as_ref().map(|w| w.select(0, e).t()))?;
        c.write(&expert("W_out.bias"), down_bias.as_ref().map(|b| b.select(0, e)))?;
    }
    Ok(())
}
