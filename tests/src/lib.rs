//! Helpers of the end-to-end tests: the reference cases and small models.

use std::path::{Path, PathBuf};

use ironlens::prelude::*;

/// The folder of reference cases.
pub fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference")
}

/// The folders of all complete cases.
pub fn cases() -> Vec<PathBuf> {
    let cases = ironlens_cli::verify::find_cases(&[reference()]).expect("the reference cases are in the repository");
    assert!(cases.len() >= 20, "only {} reference cases were found", cases.len());
    cases
}

/// The model of a case, with its weights.
pub fn case_model(dir: &Path) -> HookedTransformer {
    let text = std::fs::read_to_string(dir.join("config.json")).expect("a case has a configuration");
    let mut model = HookedTransformer::new(Config::from_json(&text).expect("it can be read"), &Device::Cpu, 0)
        .expect("it can be built");
    model.load_weights(dir.join("weights.safetensors")).expect("its weights fit");
    model
}

/// A small model of the notebook's architecture with random weights and biases off 0.
pub fn small_model() -> HookedTransformer {
    let cfg = Config {
        d_model: 24,
        d_head: 8,
        n_heads: 3,
        n_layers: 2,
        n_ctx: 12,
        d_mlp: 40,
        d_vocab: 17,
        act_fn: ActFn::Gelu,
        ..Config::default()
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 5).expect("it can be built");
    let names: Vec<String> = model.registry().params().map(|(n, _)| n.to_string()).collect();
    for (i, name) in names.iter().enumerate() {
        let value = model.param(name).expect("it is there");
        let noise = ironlens::tensor::Rng::new(9, i as u64).normal(value.shape(), 0.0, 0.1, &Device::Cpu);
        model.params_mut().set(name, &(value + noise)).expect("it fits");
    }
    model
}

/// Tokens `[batch, pos]` that `small_model` knows.
pub fn tokens(batch: usize, pos: usize) -> IndexTensor {
    ironlens::tensor::Rng::new(3, 0).integers(&[batch, pos], 0, 17)
}
