//! Models whose matrices are stored in 16 bits.

mod common;

use common::{HfCheckpoint, assert_same_bits, case, cases, load, load_with, tokens};
use half::{bf16, f16};
use ironlens_files::{Dtype, SafeTensorsFile};
use ironlens_lens::{Processing, process_weights};
use ironlens_pretrained::{LoadOptions, Pretrained};
use ironlens_tensor::{DType, Device, Tensor};
use ironlens_transformer::HookedTransformer;

/// Without processing.
fn stored_as(storage: DType) -> LoadOptions {
    LoadOptions { storage, ..LoadOptions::no_processing() }
}

fn is_matrix(name: &str, value: &Tensor) -> bool {
    value.ndim() > 1 && name.split('.').any(|part| part.trim_start_matches('_').starts_with("W_"))
}

/// The same model in `f32`, with matrices rounded one element at a time.
fn rounded(model: &HookedTransformer, round: impl Fn(f32) -> f32) -> HookedTransformer {
    let mut rounded = model.clone();
    for (name, value) in model.params().iter().filter(|(name, value)| is_matrix(name, value)) {
        let values = value.to_vec().into_iter().map(&round).collect();
        rounded.params_mut().set(name, &Tensor::from_vec(values, value.shape(), &Device::Cpu)).unwrap();
    }
    rounded
}

/// Of each family: attention and MLPs of all kinds, experts, tied and learned embeddings.
#[test]
fn stored_models_have_the_bits_of_rounded_ones() {
    for name in cases().iter().filter(|name| case(name).join("hf").is_dir()) {
        let hf = case(name).join("hf");
        let model = load(&hf).unwrap();
        let stored = load_with(&hf, &stored_as(DType::Bf16)).unwrap();
        assert_eq!((stored.params().dtype(), stored.params().storage()), (DType::F32, DType::Bf16), "{name}");
        for (param, value) in stored.params().iter() {
            let expected = if is_matrix(param, &value) { DType::Bf16 } else { DType::F32 };
            assert_eq!(value.dtype(), expected, "{param} of {name}");
        }
        assert_same_bits(&stored, &rounded(&model, |v| bf16::from_f32(v).to_f32()), &tokens(name));
    }
}

/// Weights are processed as they are read there, part by part.
#[test]
fn processed_models_are_rounded_last() {
    let bf16 = |v: f32| bf16::from_f32(v).to_f32();
    for name in cases().iter().filter(|name| case(name).join("hf").is_dir()) {
        let hf = case(name).join("hf");
        for like_transformerlens in [false, true] {
            let options = LoadOptions { like_transformerlens, ..LoadOptions::default() };
            let Ok(model) = load_with(&hf, &options) else {
                assert!(like_transformerlens, "{name}: TransformerLens refuses some, and none is refused else");
                continue;
            };
            let stored = load_with(&hf, &LoadOptions { storage: DType::Bf16, ..options }).unwrap();
            assert_eq!(stored.params().storage(), DType::Bf16, "{name}");
            assert_eq!(stored.config(), model.config(), "{name}");
            for (param, value) in stored.params().iter() {
                let expected = if is_matrix(param, &value) { DType::Bf16 } else { DType::F32 };
                assert_eq!(value.dtype(), expected, "{param} of {name}");
            }
            assert_same_bits(&stored, &rounded(&model, bf16), &tokens(name));
        }
    }
}

/// A file may have both of two matrices that are tied.
#[test]
fn tied_matrices_may_both_be_there() {
    let mut checkpoint = HfCheckpoint::of("smollm3");
    let embedding = checkpoint.tensors["model.embed_tokens.weight"].clone();
    checkpoint.tensors.insert("lm_head.weight".into(), embedding);
    let folder = tempfile::tempdir().unwrap();
    checkpoint.write(folder.path(), Dtype::F32);
    let options = LoadOptions { storage: DType::Bf16, ..LoadOptions::default() };
    let alone = load_with(&case("smollm3").join("hf"), &options).unwrap();
    assert_same_bits(&load_with(folder.path(), &options).unwrap(), &alone, &tokens("smollm3"));
}

#[test]
fn half_precision_is_stored_too_and_processing_comes_before_rounding() {
    let (hf, x) = (case("gpt2_sharded").join("hf"), tokens("gpt2_sharded"));
    let half = |v: f32| f16::from_f32(v).to_f32();
    assert_same_bits(&load_with(&hf, &stored_as(DType::F16)).unwrap(), &rounded(&load(&hf).unwrap(), half), &x);
    let processed = rounded(&load_with(&hf, &LoadOptions::default()).unwrap(), half);
    let stored = load_with(&hf, &LoadOptions { storage: DType::F16, ..LoadOptions::default() }).unwrap();
    assert_same_bits(&stored, &processed, &x);
    // And later, of what was rounded before.
    let later = process_weights(&load_with(&hf, &stored_as(DType::F16)).unwrap(), Processing::default()).unwrap();
    let widened = process_weights(&rounded(&load(&hf).unwrap(), half), Processing::default()).unwrap();
    assert_eq!(later.params().storage(), DType::F16);
    assert_same_bits(&later, &rounded(&widened, half), &x);
}

#[test]
fn saving_keeps_the_type() {
    let (hf, x, folder) = (case("gpt2_sharded").join("hf"), tokens("gpt2_sharded"), tempfile::tempdir().unwrap());
    let stored = load_with(&hf, &stored_as(DType::Bf16)).unwrap();
    stored.save_pretrained(folder.path()).unwrap();
    let file = SafeTensorsFile::open(folder.path().join("model.safetensors")).unwrap();
    let dtype = |name: &str| file.get(name).unwrap().dtype;
    assert_eq!((dtype("embed.W_E"), dtype("blocks.0.attn.b_Q")), (Dtype::BF16, Dtype::F32));
    for storage in [DType::Bf16, DType::F32] {
        assert_same_bits(&load_with(folder.path(), &stored_as(storage)).unwrap(), &stored, &x);
    }
}

#[test]
fn what_cannot_be_stored_or_trained_says_so() {
    let hf = case("gpt2_sharded").join("hf");
    for (dtype, storage) in [(DType::F64, DType::Bf16), (DType::F32, DType::F64), (DType::Bf16, DType::F32)] {
        let options = LoadOptions { dtype, storage, ..LoadOptions::no_processing() };
        let text = load_with(&hf, &options).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains(&storage.to_string()) && text.contains("`storage`"), "{text}");
    }
    let mut model = load_with(&hf, &stored_as(DType::Bf16)).unwrap();
    let x = tokens("gpt2_sharded");
    let gradients =
        |model: &HookedTransformer| model.call(&x).gradients(|out| out.logits().square().sum_all()).map(|_| ());
    let text = gradients(&model).unwrap_err().to_string();
    assert!(text.contains("bf16") && text.contains("store_as") && text.contains("freeze"), "{text}");
    model.params_mut().store_as(DType::F32);
    assert!(gradients(&model).is_ok());
}
