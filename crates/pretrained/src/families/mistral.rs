//! Mistral: Llama, with a window in its first version.

use super::{Family, Read, llama, llama_keys, windows, windows_everywhere};
use crate::hf::HfConfig;
use ironlens_transformer::config::Config;

pub(super) const FAMILY: Family = Family {
    name: "Mistral",
    architectures: &["MistralForCausalLM", "MistralModel", "MinistralForCausalLM"],
    prefix: "model.",
    config,
    tensors: llama::tensors,
    names: &[],
    defaults: r#"{"vocab_size": 32000, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06, "sliding_window": 4096, "max_position_embeddings": 131072}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    // TransformerLens names its weights as of grouped queries also where every head has its own.
    cfg.n_key_value_heads = hf.size_if_given("num_key_value_heads")?.unwrap_or(cfg.n_heads);
    cfg.final_rms = false;
    match hf.architectures().contains(&"MinistralForCausalLM") {
        true => windows(hf, &mut cfg, |_| true)?,
        false => windows_everywhere(hf, &mut cfg)?,
    }
    Ok(cfg)
}
