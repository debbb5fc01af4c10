//! `config.json` of pretrained models: the first byte says beside which weights. A model or an error, and a model
//! runs.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ironlens_pretrained::{LoadOptions, Pretrained};
use ironlens_tensor::IndexTensor;
use ironlens_transformer::HookedTransformer;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// A folder for the configuration, with links to the weights of a case.
static MODELS: LazyLock<Vec<TempDir>> = LazyLock::new(|| {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/pretrained");
    let cases = fs::read_dir(cases).expect("the cases are in the repository").flatten();
    let mut cases: Vec<PathBuf> = cases.map(|case| case.path().join("hf")).filter(|hf| hf.is_dir()).collect();
    cases.sort();
    let linked = |case: &PathBuf| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in fs::read_dir(case).expect("a folder").flatten().filter(|f| f.file_name() != "config.json") {
            std::os::unix::fs::symlink(file.path(), folder.path().join(file.file_name())).expect("a link");
        }
        folder
    };
    cases.iter().map(linked).collect()
});

fuzz_target!(|input: &[u8]| {
    let Some((which, config)) = input.split_first() else { return };
    let folder = MODELS[usize::from(*which) % MODELS.len()].path();
    fs::write(folder.join("config.json"), config).expect("a temporary file");
    let name = folder.to_str().expect("a temporary folder's name is text");
    let options = LoadOptions { n_ctx: Some(8), ..LoadOptions::no_processing() };
    if let Ok(model) = HookedTransformer::from_pretrained_with(name, &options) {
        model.forward(&IndexTensor::from([[1, 0, 1]])).expect("it was tried when it was loaded");
    }
});
