//! A run directory in which one file is something else: every reading ends, well or with an error.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ironlens_tensor::Device;
use ironlens_train::{Preset, RandomTokens, RunDir, TrainConfig, Trainer, previous_token_loss};
use ironlens_transformer::{Config, HookedTransformer};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// A whole run, and its files in order.
static RUN: LazyLock<(TempDir, Vec<PathBuf>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Config { n_layers: 1, d_model: 4, d_head: 2, n_ctx: 4, d_mlp: 4, d_vocab: 5, ..Preset::Tiny.model() };
    let mut model = HookedTransformer::new(config, &Device::Cpu, 0).expect("a small model");
    let train =
        TrainConfig { steps: 2, batch_size: 1, eval_batch_size: 1, checkpoint_every: 1, ..Preset::Tiny.train() };
    let mut data = RandomTokens::new(model.config(), 0).expect("data");
    let trainer = Trainer::new(train).keep(folder.path().join("run"));
    trainer.fit_model(&mut model, &mut data, previous_token_loss).expect("a training");
    let mut files = Vec::new();
    list(&folder.path().join("run"), &mut files);
    files.sort();
    (folder, files)
});

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() { list(&entry.path(), files) } else { files.push(entry.path()) }
    }
}

fn read(path: &Path) {
    let Ok(run) = RunDir::open(path) else { return };
    let _ = (run.metrics(), run.evals(), run.snapshots(), run.initial_model(&Device::Cpu));
    if let Ok(last) = run.last_checkpoint() {
        let _ = run.model_at(&last, &Device::Cpu);
    }
    let _ = run.sequences();
}

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else { return };
    let file = &RUN.1[usize::from(*which) % RUN.1.len()];
    let whole = fs::read(file).expect("a file of the run");
    fs::write(file, bytes).expect("a file of the run");
    read(&RUN.0.path().join("run"));
    // A few bytes changed in place come further than a file of noise.
    let mut changed = whole.clone();
    for change in bytes.chunks_exact(3).take(8) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % changed.len().max(1);
        if let Some(byte) = changed.get_mut(at) {
            *byte = change[2];
        }
    }
    fs::write(file, &changed).expect("a file of the run");
    read(&RUN.0.path().join("run"));
    fs::write(file, whole).expect("a file of the run");
});
