//! Weights files.

use ironlens::files::{Dtype, TensorInfo, write_safetensors};
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
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["w.safetensors"]);
}

#[test]
fn a_file_is_of_the_model_s_own_type_and_any_type_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("w.safetensors");
    // Numbers that f32 does not have.
    let mut wide = small_model().to_dtype(DType::F64);
    let names: Vec<String> = wide.params().iter().map(|(n, _)| n.to_string()).collect();
    for name in &names {
        let third = wide.param(name).unwrap().affine(1.0 / 3.0, 0.0);
        wide.params_mut().set(name, &third).unwrap();
    }
    wide.save_weights(&file).unwrap();
    let mut again = fresh().to_dtype(DType::F64);
    again.load_weights(&file).unwrap();
    let mut narrow = fresh();
    narrow.load_weights(&file).unwrap();
    for (name, value) in wide.params().iter() {
        assert_eq!(again.param(name).unwrap().to_vec_f64(), value.to_vec_f64(), "{name}");
        assert_eq!(narrow.param(name).unwrap().to_vec(), value.to_vec(), "{name}");
    }
    // An f32 file into an f64 model: every number as it is.
    narrow.save_weights(&file).unwrap();
    again.load_weights(&file).unwrap();
    for (name, value) in narrow.params().iter() {
        assert_eq!(again.param(name).unwrap().to_vec_f64(), value.to_vec_f64(), "{name}");
    }
    // The state dict of an f64 model is read back, tables and masks skipped.
    wide.save_state_dict(&file).unwrap();
    again.load_weights(&file).unwrap();
    assert_eq!(again.param("unembed.W_U").unwrap().to_vec_f64(), wide.param("unembed.W_U").unwrap().to_vec_f64());
}

#[test]
fn half_precision_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("w.safetensors");
    for dtype in [Dtype::F16, Dtype::BF16] {
        let infos: Vec<TensorInfo> = small_model()
            .registry()
            .params()
            .map(|(name, shape)| TensorInfo { name: name.into(), dtype, shape: shape.to_vec() })
            .collect();
        // 1.5 in both.
        let bits = if dtype == Dtype::F16 { 0x3e00u16 } else { 0x3fc0 };
        write_safetensors(&file, &infos, |i, out| {
            out.write_all(&bits.to_le_bytes().repeat(infos[i].bytes().unwrap() / 2))
        })
        .unwrap();
        let mut model = fresh();
        model.load_weights(&file).unwrap();
        assert!(model.params().iter().all(|(_, value)| value.to_vec().iter().all(|v| *v == 1.5)), "{dtype}");
    }
    let infos: Vec<TensorInfo> = small_model()
        .registry()
        .params()
        .map(|(name, shape)| TensorInfo { name: name.into(), dtype: Dtype::I32, shape: shape.to_vec() })
        .collect();
    write_safetensors(&file, &infos, |i, out| out.write_all(&vec![0; infos[i].bytes().unwrap()])).unwrap();
    let error = fresh().load_weights(&file).unwrap_err().to_string();
    assert!(error.contains("`embed.W_E` is of type I32"), "{error}");
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
