//! SmolLM 3: Llama, without rotation in every fourth layer.

use super::{Family, Read, llama, windows};
use crate::hf::{HfConfig, mistaken};
use ironlens_transformer::config::Config;

pub(super) const FAMILY: Family = Family {
    name: "SmolLM 3",
    architectures: &["SmolLM3ForCausalLM", "SmolLM3Model"],
    prefix: "model.",
    config,
    tensors: llama::tensors,
    names: &[],
    defaults: r#"{"vocab_size": 128256, "intermediate_size": 11008,
        "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 4,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-06, "rope_theta": 2000000.0,
        "tie_word_embeddings": true}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama::config(hf)?;
    let rotated = hf.list_if_given("no_rope_layers", |v| v.as_u64().or(v.as_bool().map(u64::from)))?;
    cfg.no_rope_layers = match rotated {
        // In spite of its name, 1 stands for a layer that is rotated.
        Some(rotated) if rotated.len() != cfg.n_layers => {
            let expected = format!("a list with a number for each of the {} layers", cfg.n_layers);
            return Err(mistaken("no_rope_layers", &format!("a list of {}", rotated.len()), &expected));
        }
        Some(rotated) => rotated.iter().enumerate().filter(|(_, r)| **r == 0).map(|(l, _)| l).collect(),
        None => {
            let every = hf.size_if_given("no_rope_layer_interval")?.unwrap_or(4).max(1);
            (0..cfg.n_layers).filter(|l| (l + 1).is_multiple_of(every)).collect()
        }
    };
    if hf.flag("use_sliding_window", false)? {
        // Layers that are rotated look at all positions.
        let still = cfg.no_rope_layers.clone();
        windows(hf, &mut cfg, |l| still.contains(&l))?;
    }
    Ok(cfg)
}
