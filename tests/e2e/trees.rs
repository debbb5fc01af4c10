//! Names, order and shapes are TransformerLens's: the printed tree, hooks, cache, state dict.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ironlens::prelude::*;
use ironlens_tests::{case_model, cases, reference};
use serde_json::Value;

/// Every case, and the notebook's model, with its configuration.
fn models() -> Vec<(PathBuf, HookedTransformer)> {
    let mut all: Vec<_> = cases().into_iter().map(|dir| (dir.clone(), case_model(&dir))).collect();
    let notebook = HookedTransformer::new(Preset::Notebook.model(), &Device::Cpu, 0).unwrap();
    all.push((reference().join("notebook"), notebook));
    all
}

fn json(dir: &Path, file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join(file)).unwrap()).unwrap()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_string()).collect()
}

#[test]
fn the_printed_tree_is_python_s() {
    for (dir, model) in models() {
        let want = std::fs::read_to_string(dir.join("tree.txt")).unwrap();
        assert_eq!(format!("{model}").trim_end(), want.trim_end(), "{}", dir.display());
    }
}

#[test]
fn hook_points_are_named_in_python_s_order() {
    for (dir, model) in models() {
        let want = strings(&json(&dir, "hooks.json")["hook_dict"]);
        let ours: Vec<String> = model.registry().hooks().map(|h| h.0.to_string()).collect();
        assert_eq!(ours, want, "{}", dir.display());
    }
}

#[test]
fn the_cache_has_python_s_order_and_shapes() {
    for (dir, model) in models() {
        let listed = json(&dir, "hooks.json");
        let want: Vec<(String, Vec<usize>)> = listed["cache"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| {
                let shape = e[1].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
                (e[0].as_str().unwrap().to_string(), shape)
            })
            .collect();
        let residual = want.iter().find(|(n, _)| n.ends_with("hook_resid_pre")).unwrap();
        let (batch, pos) = (residual.1[0], residual.1[1]);
        let tokens = IndexTensor::new(vec![1; batch * pos], &[batch, pos]);
        let (_, cache) = model.run_with_cache(&tokens).unwrap();
        let ours: Vec<(String, Vec<usize>)> = cache.iter().map(|(n, t)| (n.to_string(), t.shape().to_vec())).collect();
        assert_eq!(ours, want, "{}", dir.display());
    }
}

#[test]
fn a_saved_state_dict_is_python_s_and_saved_weights_are_its_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights.safetensors");
    for (dir, model) in models() {
        model.save_weights(&file).unwrap();
        let names: BTreeSet<String> = header(&file).keys().cloned().collect();
        let parameters = model.params().iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, parameters, "{}", dir.display());
        model.save_state_dict(&file).unwrap();
        let header = header(&file);
        let want = json(&dir, "state_dict.json");
        let want = want.as_array().unwrap();
        assert_eq!(header.keys().filter(|k| *k != "__metadata__").count(), want.len(), "{}", dir.display());
        for entry in want {
            let name = entry[0].as_str().unwrap();
            let dtype = if entry[2] == "bool" { "BOOL" } else { "F32" };
            assert_eq!(header[name]["shape"], entry[1], "{name} of {}", dir.display());
            assert_eq!(header[name]["dtype"], dtype, "{name} of {}", dir.display());
        }
    }
}

/// The header of a safetensors file.
fn header(file: &Path) -> serde_json::Map<String, Value> {
    let bytes = std::fs::read(file).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    serde_json::from_slice(&bytes[8..8 + len]).unwrap()
}
