//! How much memory loading takes. Alone in its file: the peak is that of the process.

#![cfg(target_os = "linux")]

mod common;

use std::fs;

use common::{HfCheckpoint, load, load_with};
use ironlens_files::Dtype;
use ironlens_pretrained::LoadOptions;
use ironlens_tensor::{DType, release_pooled_memory};
use ironlens_transformer::HookedTransformer;

/// A value of `/proc/self/status`, in bytes.
fn status(name: &str) -> usize {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// How far the peak of memory rises while `load` runs, as a part of the weights that it gives.
fn part_of_weights(load: impl FnOnce() -> HookedTransformer) -> f64 {
    // What the model before left.
    release_pooled_memory();
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let model = load();
    let peak = status("VmHWM");
    (peak - before) as f64 / model.params().bytes() as f64
}

/// Embedding and unembedding are almost all of these models: a copy of one would be half of them.
#[test]
fn a_matrix_is_never_there_twice() {
    // Matrices of more than 32 MB in 16 bits too, which the system's allocator gives back.
    const VOCABULARY: usize = 400_000;
    for (name, embeddings) in [
        ("lma31", &["model.embed_tokens.weight", "lm_head.weight"][..]),
        ("stablelm", &["model.embed_tokens.weight", "lm_head.weight"]),
        ("gpt_neo", &["transformer.wte.weight"]),
    ] {
        let mut large = HfCheckpoint::of(name);
        large.set("vocab_size", VOCABULARY);
        for embedding in embeddings {
            let (shape, values) = large.tensors.get_mut(*embedding).unwrap();
            let len = VOCABULARY * shape[1];
            shape[0] = VOCABULARY;
            *values = values.iter().copied().cycle().take(len).collect();
        }
        let folder = tempfile::tempdir().unwrap();
        large.write(folder.path(), Dtype::F32);
        drop(large);
        let processed = part_of_weights(|| load(folder.path()).unwrap());
        assert!(processed < 1.15, "{name}: {processed:.2}");
        let as_stored = part_of_weights(|| load_with(folder.path(), &LoadOptions::no_processing()).unwrap());
        assert!(as_stored < 1.15, "{name}, not processed: {as_stored:.2}");
        let in_16_bits = LoadOptions { storage: DType::Bf16, ..LoadOptions::default() };
        let in_16_bits = part_of_weights(|| load_with(folder.path(), &in_16_bits).unwrap());
        assert!(in_16_bits < 1.15, "{name}, processed, in bf16: {in_16_bits:.2}");
        // A model that takes nothing was not measured.
        let least = processed.min(as_stored).min(in_16_bits);
        assert!(least > 0.9, "{name}: {processed:.2}, not processed: {as_stored:.2}, bf16: {in_16_bits:.2}");
    }
}
