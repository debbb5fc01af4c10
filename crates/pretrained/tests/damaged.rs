//! Every case with one thing wrong with it: no panic, and an error that names what it is.

mod common;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use common::{HfCheckpoint, case, cases, load};
use ironlens_files::Dtype;
use ironlens_pretrained::{Pretrained, PretrainedError};
use ironlens_tensor::IndexTensor;
use ironlens_transformer::HookedTransformer;
use serde_json::{Map, Value, json};

/// Loads a model and, if there is one, runs it on a few tokens.
#[track_caller]
fn attempt(folder: &Path, what: &str) -> Result<HookedTransformer, PretrainedError> {
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let model = load(folder)?;
        model.forward(&IndexTensor::from([[1, 0, 1]]))?;
        Ok(model)
    }));
    tried.unwrap_or_else(|_| panic!("{what}: a panic"))
}

#[track_caller]
fn refused(checkpoint: &HfCheckpoint, folder: &Path, what: &str, words: &[&str]) {
    checkpoint.write(folder, Dtype::F32);
    let text = match attempt(folder, what) {
        Err(error @ PretrainedError::Mismatch { .. }) => error.to_string(),
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what}: it was loaded"),
    };
    for word in words {
        assert!(text.contains(word), "{what} does not say {word:?}: {text}");
    }
}

/// Tables that a model computes itself, and what only as much as a tied embedding repeats.
fn is_needless(name: &str, checkpoint: &HfCheckpoint) -> bool {
    let tied = checkpoint.config.get("tie_word_embeddings").is_some_and(|t| *t == json!(true));
    name.ends_with("attn.bias") || name.ends_with("attn.masked_bias") || (tied && name.starts_with("lm_head"))
}

#[test]
fn a_checkpoint_lacks_a_tensor_or_has_a_bad_one() {
    let folder = tempfile::tempdir().unwrap();
    for name in cases() {
        let whole = HfCheckpoint::of(&name);
        for (i, tensor) in whole.tensors.keys().filter(|t| !is_needless(t, &whole)).enumerate() {
            // A bias that is not there is 0 (but a router's), a head the embedding; everything else is missed.
            let what = format!("{name} without {tensor}");
            let without = whole.renamed(|n| (n != tensor).then(|| n.into()));
            let bias = tensor.ends_with(".bias") && !tensor.contains("router");
            if bias || tensor.starts_with("lm_head") {
                without.write(folder.path(), Dtype::F32);
                attempt(folder.path(), &what).unwrap_or_else(|e| panic!("{what}: {e}"));
            } else {
                refused(&without, folder.path(), &what, &[tensor, "is missing"]);
            }

            // One of three defects, in turn: writing and reading takes its time.
            let mut bad = whole.clone();
            let (shape, values) = bad.tensors.get_mut(tensor).unwrap();
            let nan = format!("NaN at element {}", values.len() - 1);
            let (defect, told) = match i % 3 {
                0 => {
                    shape.insert(0, 1);
                    ("with another axis", "expected")
                }
                1 => {
                    values.truncate(values.len() - values.len() / shape[0]);
                    shape[0] -= 1;
                    ("without its last row", "expected")
                }
                _ => {
                    *values.last_mut().unwrap() = f32::NAN;
                    ("with NaN", &nan[..])
                }
            };
            refused(&bad, folder.path(), &format!("{name}: {tensor} {defect}"), &[tensor, told]);
        }
        let mut more = whole.clone();
        more.tensors.insert("model.layers.0.of_another.weight".into(), (vec![2], vec![0.0; 2]));
        let what = format!("{name} with a tensor more");
        refused(&more, folder.path(), &what, &["model.layers.0.of_another.weight", "[2]", "is not a tensor"]);
    }
}

/// The places of all values in a configuration.
fn places(map: &Map<String, Value>) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (key, value) in map {
        all.push(vec![key.clone()]);
        if let Value::Object(inner) = value {
            all.extend(places(inner).into_iter().map(|rest| [vec![key.clone()], rest].concat()));
        }
    }
    all
}

fn set(map: &mut Map<String, Value>, place: &[String], value: Value) {
    match place {
        [key] => {
            map.insert(key.clone(), value);
        }
        [key, rest @ ..] => set(map[key].as_object_mut().unwrap(), rest, value),
        [] => unreachable!("a place has a key"),
    }
}

#[test]
fn a_configuration_has_any_value_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    // Where a case before had the same key, these do.
    let few = [json!(0), json!(1_000_000_000_000u64), json!("x")];
    let more = [
        json!(1),
        json!(-1),
        json!(0.5),
        json!(-1e300),
        json!(u64::MAX),
        json!(true),
        json!([]),
        json!([7, "x"]),
        json!({}),
        Value::Null,
    ];
    let mut seen = HashSet::new();
    for name in cases() {
        let whole = HfCheckpoint::of(&name);
        whole.write(folder.path(), Dtype::F32);
        let mut changed = whole.clone();
        for place in places(&whole.config) {
            let known = !seen.insert(place.clone());
            for value in few.iter().chain(more.iter().filter(|_| !known)) {
                changed.config = whole.config.clone();
                set(&mut changed.config, &place, value.clone());
                changed.write_config(folder.path());
                let what = format!("{name} with {} = {value}", place.join("."));
                if let Err(error) = attempt(folder.path(), &what) {
                    assert!(error.to_string().len() > 20, "{what}: {error}");
                }
            }
            if let ([key], false) = (&place[..], known) {
                changed.config = whole.config.clone();
                changed.config.remove(key);
                changed.write_config(folder.path());
                let _ = attempt(folder.path(), &format!("{name} without {key}"));
            }
        }
    }
}

/// The same for configurations in TransformerLens's names, which saved models have.
#[test]
fn a_saved_configuration_has_any_value_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gpt_oss", "phi3_longrope"] {
        load(&case(name).join("hf")).unwrap().save_pretrained(folder.path()).unwrap();
        let path = folder.path().join("config.json");
        let whole: Map<String, Value> = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for place in places(&whole) {
            for value in [json!(0), json!(-2), json!(0.5), json!(1_000_000_000_000u64), json!("x")] {
                let mut changed = whole.clone();
                set(&mut changed, &place, value.clone());
                std::fs::write(&path, serde_json::to_string(&changed).unwrap()).unwrap();
                let what = format!("{name}, saved, with {} = {value}", place.join("."));
                if let Err(error) = attempt(folder.path(), &what) {
                    assert!(error.to_string().len() > 20, "{what}: {error}");
                }
            }
        }
    }
}

#[test]
fn a_file_is_cut_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["mixtral", "lma31"] {
        for file in ["config.json", "model.safetensors"] {
            for other in ["config.json", "model.safetensors"] {
                std::fs::copy(case(name).join("hf").join(other), folder.path().join(other)).unwrap();
            }
            let whole = std::fs::read(folder.path().join(file)).unwrap();
            for at in (0..whole.len()).step_by(whole.len() / 40) {
                std::fs::write(folder.path().join(file), &whole[..at]).unwrap();
                let error = attempt(folder.path(), &format!("{name}: {file} of {at} bytes"));
                let text = error.map(|_| ()).expect_err("it is cut").to_string();
                assert!(text.contains(file) || text.contains("JSON"), "{file} of {at} bytes: {text}");
            }
        }
    }
}
