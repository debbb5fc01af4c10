//! Lists of shards: read or refused, and nothing outside their folder is opened.

#![no_main]

use std::fs;

use ironlens_files::{Checkpoint, Dtype, TensorFile, TensorInfo, write_safetensors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let outside = tempfile::tempdir().expect("a temporary folder");
    let folder = outside.path().join("model");
    fs::create_dir(&folder).expect("a folder");
    let tensor = |name: &str| [TensorInfo { name: name.into(), dtype: Dtype::U8, shape: vec![1] }];
    for (path, name) in [(folder.join("a.safetensors"), "a"), (outside.path().join("a.safetensors"), "outside")] {
        write_safetensors(path, &tensor(name), |_, file| file.write_all(&[1])).expect("a shard");
    }
    fs::write(folder.join("model.safetensors.index.json"), bytes).expect("a list");
    if let Ok(weights) = Checkpoint::open(&folder) {
        assert!(weights.get("outside").is_none());
        assert!(weights.tensors().iter().all(|t| weights.read_f32(&t.name).is_ok_and(|x| x == [1.0])));
    }
});
