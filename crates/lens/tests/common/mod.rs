//! Small models with weights that are nowhere special.

#![allow(dead_code, reason = "each test file uses its own part")]

use ironlens_tensor::{Device, IndexTensor, Rng};
use ironlens_transformer::{ActFn, Config, HookedTransformer};

/// The size that the tests share.
pub fn base() -> Config {
    Config {
        d_model: 24,
        d_head: 6,
        n_heads: 4,
        n_layers: 3,
        n_ctx: 10,
        d_vocab: 17,
        act_fn: ActFn::Gelu,
        ..Config::default()
    }
}

/// A model with random biases and norm weights, too.
pub fn model(cfg: Config) -> HookedTransformer {
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 3).unwrap();
    let names: Vec<(String, Vec<usize>)> =
        model.registry().params().map(|(n, s)| (n.to_string(), s.to_vec())).collect();
    for (i, (name, shape)) in names.into_iter().enumerate() {
        let last = name.rsplit('.').next().unwrap();
        if last.starts_with('b') || last.starts_with("_b") || last == "w" {
            let noise = Rng::new(9, i as u64).normal(&shape, if last == "w" { 1.0 } else { 0.0 }, 0.3, &Device::Cpu);
            model.params_mut().set(&name, &noise).unwrap();
        }
    }
    model
}

/// Clean and corrupted tokens, `[2, pos]`, that differ at two positions.
pub fn tokens(pos: usize) -> [IndexTensor; 2] {
    let ids: Vec<u32> = (0..2 * pos as u32).map(|i| (i * 7 + 3) % 17).collect();
    let mut other = ids.clone();
    other[2] = (other[2] + 5) % 17;
    other[pos + 4] = (other[pos + 4] + 3) % 17;
    [IndexTensor::new(ids, &[2, pos]), IndexTensor::new(other, &[2, pos])]
}
