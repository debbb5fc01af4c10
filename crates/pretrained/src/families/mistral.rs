//! Mistral: Llama, with a window in its first version.

use super::{Family, Read, llama, llama_keys, windows};
use crate::hf::HfConfig;
use ironlens_transformer::config::Config;

pub(super) const FAMILY: Family = Family {
    name: "Mistral",
    architectures: &["MistralForCausalLM", "MistralModel", "MinistralForCausalLM"],
    prefix: "model.",
    config,
    tensors: llama::tensors,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    // TransformerLens names its weights as of grouped queries also where every head has its own.
    cfg.n_key_value_heads = hf.size_if_given("num_key_value_heads")?.unwrap_or(cfg.n_heads);
    cfg.final_rms = false;
    windows(hf, &mut cfg, true)?;
    Ok(cfg)
}
