//! Weights files: read or refused, and a model that refuses one is as it was.

#![no_main]

use std::sync::LazyLock;

use ironlens_files::SafeTensorsFile;
use ironlens_tensor::Device;
use ironlens_transformer::{Config, HookedTransformer};
use libfuzzer_sys::fuzz_target;

static MODEL: LazyLock<HookedTransformer> = LazyLock::new(|| {
    let config = Config { n_layers: 1, d_model: 4, d_head: 2, n_ctx: 4, d_mlp: 4, d_vocab: 5, ..Config::default() };
    let config = Config { act_fn: ironlens_transformer::ActFn::Relu, ..config };
    HookedTransformer::new(config, &Device::Cpu, 0).expect("a small model")
});

fuzz_target!(|bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("a temporary file");
    if let Ok(file) = SafeTensorsFile::open(file.path()) {
        for tensor in file.tensors() {
            let read = file.read(&tensor.name).expect("its place was checked with the header");
            assert_eq!(Some(read.len()), tensor.bytes());
        }
    }
    let mut model = MODEL.clone();
    if model.load_weights(file.path()).is_err() {
        for ((name, before), (_, after)) in MODEL.params().iter().zip(model.params().iter()) {
            assert_eq!(before.to_vec(), after.to_vec(), "{name}");
        }
    }
});
