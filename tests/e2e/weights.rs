//! Weights files.

use ironlens::prelude::*;
use ironlens::transformer::{read_tensors, write_tensors};
use ironlens_tests::{small_model, tokens};

fn fresh() -> HookedTransformer {
    HookedTransformer::new(small_model().config().clone(), &Device::Cpu, 1).unwrap()
}

#[test]
fn weights_survive_a_round_trip_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("w.safetensors");
    let model = small_model();
    model.save_weights(&file).unwrap();
    let mut other = fresh();
    let x = tokens(2, 12);
    assert_ne!(other.forward(&x).unwrap().to_vec(), model.forward(&x).unwrap().to_vec());
    other.load_weights(&file).unwrap();
    assert_eq!(other.forward(&x).unwrap().to_vec(), model.forward(&x).unwrap().to_vec());
    assert!(!folder.path().join("w.safetensors.tmp").exists());
}

#[test]
fn every_problem_of_a_file_is_listed_and_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("w.safetensors");
    small_model().save_weights(&file).unwrap();
    let mut tensors = read_tensors(&file).unwrap();
    tensors.remove("blocks.0.attn.W_Q").unwrap();
    let wide = Tensor::zeros(&[24, 18], DType::F32, &Device::Cpu);
    tensors.insert("unembed.W_U".into(), wide.clone());
    tensors.insert("blocks.7.mlp.W_in".into(), wide);
    write_tensors(&file, tensors.iter().map(|(n, t)| (n.as_str(), t.clone()))).unwrap();
    let mut model = fresh();
    let before = model.param("embed.W_E").unwrap().to_vec();
    let error = model.load_weights(&file).unwrap_err().to_string();
    assert!(error.contains("`blocks.0.attn.W_Q` [3, 24, 8] is missing"), "{error}");
    assert!(error.contains("`unembed.W_U` has shape [24, 18], the model's has [24, 17]"), "{error}");
    assert!(error.contains("`blocks.7.mlp.W_in` is not a parameter"), "{error}");
    assert_eq!(model.param("embed.W_E").unwrap().to_vec(), before);
}

#[test]
fn files_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("w.safetensors");
    let missing = fresh().load_weights(&file).unwrap_err().to_string();
    assert!(missing.contains("w.safetensors") && missing.contains("reading failed"), "{missing}");
    small_model().save_weights(&file).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let cut = fresh().load_weights(&file).unwrap_err().to_string();
    assert!(cut.contains("not a whole safetensors file"), "{cut}");
    let nowhere = folder.path().join("no/such/folder/w.safetensors");
    assert!(small_model().save_weights(nowhere).unwrap_err().to_string().contains("writing failed"));
}

#[test]
fn the_same_seed_gives_the_same_weights_however_they_are_stored() {
    let w = HookedTransformer::new(small_model().config().clone(), &Device::Cpu, 7).unwrap();
    let again = HookedTransformer::new(small_model().config().clone(), &Device::Cpu, 7).unwrap();
    for ((name, a), (_, b)) in w.params().iter().zip(again.params().iter()) {
        assert_eq!(a.to_vec(), b.to_vec(), "{name}");
    }
    let q = w.param("blocks.0.attn.W_Q").unwrap();
    let std = q.square().mean_all().item().sqrt();
    let want = 0.8 / 24f64.sqrt();
    assert!((std / want - 1.0).abs() < 0.1, "deviation {std}, expected {want}");
    assert_eq!(w.param("blocks.0.attn.b_Q").unwrap().norm(), 0.0);
    assert_eq!(w.param("ln_final.w").unwrap().to_vec(), vec![1.0; 24]);
}
