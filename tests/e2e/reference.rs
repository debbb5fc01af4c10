//! Agreement with TransformerLens.

use ironlens::prelude::*;
use ironlens_cli::verify::{find_cases, verify_case};
use ironlens_tests::{cases, reference};

#[test]
fn every_case_agrees() {
    let mut groups = 0;
    for dir in cases() {
        let (results, unknown) = verify_case(&dir, &Device::Cpu, DType::F32);
        // A tensor of no group would be compared with nothing.
        assert_eq!(unknown, Vec::<String>::new(), "{}", dir.display());
        for r in &results {
            assert!(r.passed(), "{} {}: error {:.2e} at {} {:?}", r.case, r.group, r.error, r.place, r.problem);
        }
        groups += results.len();
    }
    assert!(groups >= 180, "only {groups} groups were compared");
}

/// Checkpoints as Hugging Face writes them: logits and tokens are Hugging Face's, names and activations
/// TransformerLens's.
#[test]
fn every_checkpoint_agrees() {
    let dirs = find_cases(&[reference().join("pretrained")]).unwrap();
    assert!(dirs.len() >= 14, "only {} checkpoints were found", dirs.len());
    let mut groups = 0;
    for dir in dirs {
        let (results, unknown) = verify_case(&dir, &Device::Cpu, DType::F32);
        assert_eq!(unknown, Vec::<String>::new());
        for r in &results {
            assert!(r.passed(), "{} {}: error {:.2e} at {} {:?}", r.case, r.group, r.error, r.place, r.problem);
        }
        groups += results.len();
    }
    assert!(groups >= 60, "only {groups} groups were compared");
}

#[test]
fn double_precision_agrees_too() {
    let (results, _) = verify_case(&reference().join("gpt2_ln"), &Device::Cpu, DType::F64);
    for group in ["logits", "cache", "loss", "grad", "cache_grad"] {
        let r = results.iter().find(|r| r.group == group).expect("the group is there");
        assert!(r.passed(), "{group}: {:.2e} at {}", r.error, r.place);
    }
}

#[test]
fn a_wrong_weight_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let case = reference().join("gpt2_ln");
    for file in ["config.json", "inputs.safetensors", "expected.safetensors"] {
        std::fs::copy(case.join(file), folder.path().join(file)).unwrap();
    }
    let mut model = ironlens_tests::case_model(&case);
    let w = model.param("blocks.1.mlp.b_out").unwrap();
    model.params_mut().set("blocks.1.mlp.b_out", &(w * 1.01)).unwrap();
    model.save_weights(folder.path().join("weights.safetensors")).unwrap();
    let (results, _) = verify_case(folder.path(), &Device::Cpu, DType::F32);
    let failed: Vec<&str> = results.iter().filter(|r| !r.passed()).map(|r| r.group.as_str()).collect();
    assert!(failed.contains(&"logits") && failed.contains(&"cache"), "{failed:?}");
    assert!(!failed.contains(&"stop_at_layer"), "layer 0 has not changed: {failed:?}");
}

#[test]
fn an_unsupported_configuration_names_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let case = reference().join("gpt2_ln");
    for file in ["weights.safetensors", "inputs.safetensors", "expected.safetensors"] {
        std::fs::copy(case.join(file), folder.path().join(file)).unwrap();
    }
    let text = std::fs::read_to_string(case.join("config.json")).unwrap();
    let text = text.replace("\"num_experts\": null", "\"num_experts\": 4");
    std::fs::write(folder.path().join("config.json"), text).unwrap();
    let (results, _) = verify_case(folder.path(), &Device::Cpu, DType::F32);
    assert!(results[0].problem.as_ref().unwrap().contains("num_experts"), "{:?}", results[0].problem);
}
