//! Apertus: xIELU with parameters of its own for each layer, norms of queries and keys.

use super::{Family, Read, act_fn, layer, llama, llama_keys};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use half::bf16;
use ironlens_tensor::{DType, Device, Tensor};
use ironlens_transformer::config::{ActFn, Config};

pub(super) const FAMILY: Family = Family {
    name: "Apertus",
    architectures: &["ApertusForCausalLM", "ApertusModel"],
    prefix: "model.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 131072, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 65536,
        "rms_norm_eps": 1e-05, "rope_theta": 12000000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192, "low_freq_factor": 1.0, "high_freq_factor": 4.0}}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    Ok(Config {
        act_fn: act_fn(hf, "hidden_act", "xielu")?,
        eps: hf.number_if_given("rms_norm_eps")?.unwrap_or(1e-5),
        gated_mlp: false,
        use_qk_norm: hf.flag("qk_norm", true)?,
        ..llama_keys(hf)?
    })
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("{}{name}", layer(l));
        c.stream_norm(&format!("blocks.{l}.ln1"), &at("attention_layernorm"))?;
        c.stream_norm(&format!("blocks.{l}.ln2"), &at("feedforward_layernorm"))?;
        llama::attention(c, l)?;
        c.mlp(l, &at("mlp.up_proj"), &at("mlp.down_proj"), None)?;
        xielu(c, l)?;
    }
    Ok(())
}

/// The parameters of a layer's xIELU, of which `beta` is a constant: Hugging Face keeps them in bf16, whatever the
/// model's type is.
fn xielu(c: &mut Conversion<'_>, l: usize) -> Read<()> {
    if c.cfg.act_fn != ActFn::Xielu {
        return Ok(());
    }
    for name in ["alpha_p", "alpha_n", "beta"] {
        let from = format!("{}mlp.act_fn.{name}", layer(l));
        if name != "beta" || c.has(&from) {
            let value = c.read(&from, &[])?;
            let rounded = |t: Tensor| Tensor::scalar(bf16::from_f64(t.item()).to_f64(), DType::F32, &Device::Cpu);
            c.write(&format!("blocks.{l}.mlp.act_fn.{name}"), value.map(rounded))?;
        }
    }
    Ok(())
}
