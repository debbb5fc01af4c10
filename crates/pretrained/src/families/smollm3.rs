//! SmolLM 3: Llama, without rotation in every fourth layer.

use super::{Family, Read, llama, windows};
use crate::hf::HfConfig;
use ironlens_transformer::config::Config;
use serde_json::Value;

pub(super) const FAMILY: Family = Family {
    name: "SmolLM 3",
    architectures: &["SmolLM3ForCausalLM", "SmolLM3Model"],
    prefix: "model.",
    config,
    tensors: llama::tensors,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama::config(hf)?;
    let rotated = hf.list_if_given("no_rope_layers", |v| v.as_u64().or(v.as_bool().map(u64::from)))?;
    cfg.no_rope_layers = match rotated {
        // In spite of its name, 1 stands for a layer that is rotated.
        Some(rotated) => rotated.iter().enumerate().filter(|(_, r)| **r == 0).map(|(l, _)| l).collect(),
        None => {
            let every = hf.size_if_given("no_rope_layer_interval")?.unwrap_or(4).max(1);
            (0..cfg.n_layers).filter(|l| (l + 1).is_multiple_of(every)).collect()
        }
    };
    if hf.get("use_sliding_window").and_then(Value::as_bool) == Some(true) {
        windows(hf, &mut cfg, false)?;
    }
    Ok(cfg)
}
