//! One model in many forms: without its head's names, in other types, saved and read again.

mod common;

use common::{HfCheckpoint, assert_same_bits, case, cases, error_of, expected, f64_options, load, load_with, tokens};
use ironlens_files::Dtype;
use ironlens_pretrained::{LoadOptions, Pretrained};
use ironlens_tensor::DType;
use ironlens_transformer::HookedTransformer;

#[test]
fn base_models_are_read_without_their_prefix() {
    let folder = tempfile::tempdir().unwrap();
    for name in cases() {
        let whole = HfCheckpoint::of(&name);
        let tied = !whole.tensors.keys().any(|n| n.starts_with("lm_head"));
        let base = whole.renamed(|n| {
            if n.starts_with("lm_head") {
                return Some(n.into());
            }
            let stripped = n.strip_prefix("transformer.").or(n.strip_prefix("model."));
            stripped.map(String::from)
        });
        assert_eq!(base.tensors.len(), whole.tensors.len(), "{name}: every other tensor has a prefix");
        let path = folder.path().join(&name);
        base.write(&path, Dtype::F32);
        let found = load(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_same_bits(&found, &load(&case(&name).join("hf")).unwrap(), &tokens(&name));
        if !tied {
            // A base model has no unembedding of its own: it is the embedding's.
            let headless = base.renamed(|n| (!n.starts_with("lm_head")).then(|| n.into()));
            headless.write(&path, Dtype::F32);
            let found = load(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
            let unembed = found.param("unembed.W_U").unwrap().t().to_vec();
            let names = ["embed_tokens", "word_embeddings.", "embed_in", "wte."];
            let embed = headless.tensors.iter().find(|(n, _)| names.iter().any(|part| n.contains(part))).unwrap().1;
            assert_eq!(unembed, embed.1, "{name}");
        }
    }
}

#[test]
fn half_precision_is_read_as_the_numbers_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gpt2_sharded", "mixtral", "gemma3", "gpt_oss"] {
        for dtype in [Dtype::F16, Dtype::BF16] {
            let (half, whole) = (folder.path().join("half"), folder.path().join("whole"));
            let checkpoint = HfCheckpoint::of(name);
            checkpoint.write(&half, dtype);
            checkpoint.rounded(dtype).write(&whole, Dtype::F32);
            let [half, whole] = [half, whole].map(|path| load(&path).unwrap());
            assert_same_bits(&half, &whole, &tokens(name));
            let error = error_of(&half.forward(&tokens(name)).unwrap(), &expected(name)["hf/logits"]);
            let bound = if dtype == Dtype::F16 { 0.05 } else { 0.3 };
            assert!(error > 1e-5 && error < bound, "{name}, {dtype:?}: {error}");
        }
    }
}

#[test]
fn saved_models_are_read_back_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for name in cases() {
        for options in [LoadOptions::no_processing(), LoadOptions::default()] {
            let model = load_with(&case(&name).join("hf"), &options).unwrap();
            let path = folder.path().join(&name);
            model.save_pretrained(&path).unwrap();
            let again = HookedTransformer::from_pretrained_no_processing(path.to_str().unwrap()).unwrap();
            assert_eq!(again.config().to_json(), model.config().to_json(), "{name}");
            assert_same_bits(&model, &again, &tokens(&name));
            // Processing what is processed leaves it as it is, to rounding.
            if options.fold_ln {
                let twice = load_with(&path, &LoadOptions::default()).unwrap();
                let [a, b] = [&model, &twice].map(|m| m.forward(&tokens(&name)).unwrap());
                assert!(error_of(&a, &b) < 1e-5, "{name}");
            }
        }
    }
}

#[test]
fn a_saved_model_may_be_in_double_precision() {
    let folder = tempfile::tempdir().unwrap();
    let double = load(&case("mixtral").join("hf")).unwrap().to_dtype(DType::F64);
    double.save_pretrained(folder.path()).unwrap();
    let again = load_with(folder.path(), &f64_options()).unwrap();
    assert_same_bits(&double, &again, &tokens("mixtral"));
}

#[test]
fn state_dicts_in_transformerlens_names_are_read_into_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = load(&case("mixtral").join("hf")).unwrap();
    let saved = folder.path().join("weights.safetensors");
    model.save_weights(&saved).unwrap();
    let x = tokens("mixtral");
    let before = model.clone();
    let name = "blocks.1.mlp.experts.2.W_out.weight";
    let other = model.param(name).unwrap() * 2.0;
    model.params_mut().set(name, &other).unwrap();
    assert!(model.forward(&x).unwrap().max_abs_diff(&before.forward(&x).unwrap()).0 > 0.0);
    let loaded = model.load_state_dict(&saved).unwrap();
    assert_eq!((loaded.missing.len(), loaded.unexpected.len()), (0, 0), "{loaded:?}");
    assert_same_bits(&model, &before, &x);
    // Of another model nothing fits, and nothing changes.
    let other = load(&case("gpt_oss").join("hf")).unwrap();
    let wrong = folder.path().join("other.safetensors");
    other.save_weights(&wrong).unwrap();
    let result = model.load_state_dict(&wrong);
    if let Ok(loaded) = &result {
        assert!(loaded.unexpected.iter().any(|n| n.ends_with("attn.sinks")), "{loaded:?}");
    }
}
