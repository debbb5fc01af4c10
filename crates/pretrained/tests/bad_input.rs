//! What is no model is refused with what is wrong and what to do, at once.

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{HfCheckpoint, case, load, load_with};
use ironlens_files::Dtype;
use ironlens_pretrained::{LoadOptions, Pretrained, PretrainedError, check};
use ironlens_tokenizer::TokenOptions;
use ironlens_transformer::HookedTransformer;
use serde_json::{Value, json};

#[track_caller]
fn refused(path: &Path, words: &[&str]) -> PretrainedError {
    let start = Instant::now();
    let error = load(path).map(|_| ()).expect_err("must be refused");
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
    error
}

/// A folder with the weights of a case, and its configuration as `change` leaves it.
fn changed(name: &str, change: impl FnOnce(&mut HfCheckpoint)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = HfCheckpoint::of(name);
    change(&mut checkpoint);
    checkpoint.write(folder.path(), Dtype::F32);
    folder
}

#[test]
fn folders_that_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    refused(path, &["no config.json", "no GGUF file", "name"]);
    let config = case("lma31").join("hf/config.json");
    fs::copy(&config, path.join("config.json")).unwrap();
    refused(path, &[path.to_str().unwrap(), "safetensors"]);
    fs::create_dir(path.join("model.safetensors")).unwrap();
    refused(path, &["no weights"]);
    fs::remove_dir(path.join("model.safetensors")).unwrap();
    fs::write(path.join("model.safetensors"), "").unwrap();
    refused(path, &["model.safetensors"]);
    fs::write(path.join("notes.txt"), "text").unwrap();
    refused(&path.join("notes.txt"), &["notes.txt"]);
}

#[test]
fn adapters_are_refused_by_the_name_of_their_model() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("adapter_config.json", r#"{"peft_type": "LORA", "base_model_name_or_path": "someone/base"}"#);
    write("adapter_model.safetensors", "");
    for config in [None, Some("{}")] {
        if let Some(text) = config {
            write("config.json", text);
        }
        refused(folder.path(), &["adapter (LORA) for someone/base", "merge_and_unload"]);
    }
    write("adapter_config.json", "{");
    refused(folder.path(), &["it is an adapter", "does not name"]);
    // Merged, it is a model, whatever was left beside it.
    let merged = changed("lma31", |_| {});
    fs::copy(folder.path().join("adapter_config.json"), merged.path().join("adapter_config.json")).unwrap();
    load(merged.path()).unwrap();
}

#[test]
fn a_tokenizer_may_have_more_tokens_than_the_model() {
    let folder = changed("lma31", |_| {});
    let gpt2 = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tokenizers/gpt2");
    for file in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        fs::copy(gpt2.join(file), folder.path().join(file)).unwrap();
    }
    let model = load(folder.path()).unwrap();
    let told = check(&model).unwrap().into_iter().find(|check| check.what == "vocabulary").unwrap();
    assert!(!told.passed && told.found.ends_with("the model 61") && !told.found.contains("has 61"), "{told:?}");
    let numbers = TokenOptions { prepend_bos: Some(false), ..TokenOptions::default() };
    assert_eq!(model.to_tokens_with("0", &numbers).unwrap().tokens.as_slice(), [15]);
    let text = model.to_tokens_with("hello", &numbers).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("token id") && text.contains("below 61"), "{text}");
}

#[test]
fn configurations_that_are_none() {
    let folder = changed("lma31", |_| {});
    let path = folder.path();
    let whole = fs::read_to_string(path.join("config.json")).unwrap();
    for text in ["", "{", "not JSON", "[1]", "null", "3", &whole[..whole.len() / 2], &"[".repeat(100_000)] {
        fs::write(path.join("config.json"), text).unwrap();
        refused(path, &["no JSON object"]);
    }
    fs::write(path.join("config.json"), [0xff, 0xfe, 0x00]).unwrap();
    refused(path, &["config.json"]);
    fs::write(path.join("config.json"), vec![b' '; (16 << 20) + 1]).unwrap();
    refused(path, &["config.json", "16777217 bytes"]);
}

#[test]
fn families_that_are_not_read() {
    for (class, hint) in [
        ("T5ForConditionalGeneration", "encoder-decoder"),
        ("BertForMaskedLM", "HookedEncoder::from_pretrained"),
        ("DistilBertModel", "bert-base-uncased"),
        ("MambaForCausalLM", "state-space"),
        ("CLIPModel", "pictures"),
        ("NewThingForCausalLM", "families that are: "),
    ] {
        let folder = changed("lma31", |c| c.set("architectures", json!([class])));
        let error = refused(folder.path(), &[class, "is not read here", hint]);
        assert!(matches!(error, PretrainedError::Family { .. }), "{error:?}");
    }
    // Its file has the names of TransformerLens's sizes.
    let folder = changed("lma31", |c| {
        c.config = serde_json::Map::new();
        c.set("architectures", json!(["MPTForCausalLM"]));
        c.set("d_model", 48);
        c.set("n_layers", 2);
    });
    refused(folder.path(), &["MPTForCausalLM is not read here", "families that are: "]);
    for none in [Value::Null, json!([]), json!("LlamaForCausalLM"), json!([3])] {
        let folder = changed("lma31", |c| c.set("architectures", none));
        refused(folder.path(), &["has no `architectures`"]);
    }
}

#[test]
fn sizes_that_cannot_be_or_are_not_those_of_the_weights() {
    let size = |key: &'static str, value: Value| changed("lma31", move |c| c.set(key, value));
    for (key, value, words) in [
        ("num_attention_heads", json!(0), ["num_attention_heads", "0", "at least 1"]),
        ("num_hidden_layers", json!(0), ["n_layers", "0", "at least 1"]),
        ("hidden_size", json!(0), ["d_model", "0", "at least 1"]),
        ("num_hidden_layers", json!(1_000_000_000_000u64), ["num_hidden_layers", "1000000000000", "2^16"]),
        ("num_attention_heads", json!(1_000_000_000_000u64), ["num_attention_heads", "1000000000000", "2^16"]),
        ("hidden_size", json!(1_000_000_000_000u64), ["d_model", "1000000000000", "2^30"]),
        ("vocab_size", json!(u64::MAX), ["d_vocab", "18446744073709551615", "2^30"]),
        ("vocab_size", json!(1 << 29), ["d_vocab", "536870912", "memory"]),
        ("num_hidden_layers", json!(-2), ["num_hidden_layers", "-2", "a whole number"]),
        ("hidden_size", json!("48"), ["hidden_size", "\"48\"", "a whole number"]),
        ("num_key_value_heads", json!(3), ["n_key_value_heads", "3", "divisor of n_heads = 4"]),
        ("rms_norm_eps", json!(-1.0), ["eps", "-1", "0 or above"]),
        ("hidden_act", json!("swigloo"), ["hidden_act", "swigloo", "activation function"]),
        ("rope_theta", json!(0), ["rotary_base", "0", "above 0"]),
        // What fits by itself, and not with the weights.
        ("num_hidden_layers", json!(3), ["model.layers.2.", "is missing", "same model"]),
        ("num_hidden_layers", json!(1), ["model.layers.1.", "is not a tensor of this model", "same model"]),
        ("vocab_size", json!(60), ["model.embed_tokens.weight", "[61, 48]", "[60, 48]"]),
        ("intermediate_size", json!(81), ["mlp.up_proj.weight", "[80, 48]", "[81, 48]"]),
    ] {
        refused(size(key, value).path(), &words);
    }
    let missing = changed("lma31", |c| {
        c.config.remove("hidden_size");
    });
    refused(missing.path(), &["hidden_size", "not given"]);
    let scaled = changed("phi3_longrope", |c| {
        c.config["rope_scaling"]["short_factor"] = json!([1.0]);
    });
    refused(scaled.path(), &["short_factor", "1 numbers", "expected"]);
}

/// A gated MLP without `mlp_bias` has no place for biases of gate and input, neither before nor after the product.
#[test]
fn biases_that_the_configuration_does_not_know() {
    for part in ["gate_proj", "up_proj"] {
        let name = format!("model.layers.1.mlp.{part}.bias");
        let folder = changed("lma31", |c| {
            c.tensors.insert(name.clone(), (vec![80], vec![0.5; 80]));
        });
        refused(folder.path(), &[&name, "[80]", "is not a tensor of this model"]);
    }
    // As TransformerLens, which has no such biases.
    let like = LoadOptions { like_transformerlens: true, ..LoadOptions::no_processing() };
    let text = load_with(&case("lma_bias_headdim").join("hf"), &like).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("gate_proj.bias") && text.contains("is not a tensor of this model"), "{text}");
}

#[test]
fn every_problem_is_listed_up_to_a_number() {
    let folder = changed("mixtral", |c| c.tensors.retain(|name, _| !name.contains("experts")));
    let error = refused(folder.path(), &["experts.0.w1.weight", "and 4 more"]);
    let PretrainedError::Mismatch { problems, .. } = error else { panic!("another error") };
    assert_eq!(problems.len(), 21);
}

#[test]
fn tensors_with_what_is_not_finite() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let folder = changed("gpt_oss", |c| {
            c.tensors.get_mut("model.layers.1.self_attn.sinks").unwrap().1[2] = value;
        });
        refused(folder.path(), &["model.layers.1.self_attn.sinks", &value.to_string(), "element 2"]);
    }
}

#[test]
fn names_that_nothing_is_known_by() {
    for (given, nearest) in [("gpt2-smal", "gpt2-small"), ("pythia-70n", "pythia-70m")] {
        let error = HookedTransformer::from_pretrained(given).map(|_| ()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(given) && text.contains("nearest names") && text.contains(nearest), "{text}");
    }
    for given in ["./no/such/folder", "/no/such/folder", ""] {
        let error = HookedTransformer::from_pretrained(given).map(|_| ()).unwrap_err();
        assert!(matches!(&error, PretrainedError::Unknown { given: g, .. } if g == given), "{error:?}");
    }
}

#[test]
fn checkpoints_of_other_quantisations_are_refused_by_name() {
    let folder = changed("lma31", |c| c.set("quantization_config", json!({ "quant_method": "gptq", "bits": 4 })));
    refused(folder.path(), &["gptq", "16 or 32 bits", "GGUF"]);
    let folder = changed("lma31", |c| c.set("quantization_config", Value::Null));
    load(folder.path()).unwrap();
}

#[test]
fn what_is_wrong_with_a_tensor_is_told_once() {
    let folder = changed("lma31", |c| {
        c.tensors.get_mut("model.norm.weight").unwrap().1[1] = f32::NAN;
        c.tensors.get_mut("model.layers.0.mlp.up_proj.weight").unwrap().0 = vec![48, 80];
    });
    let text = load(folder.path()).unwrap_err().to_string();
    assert!(text.contains("NaN at element 1") && text.contains("shape [48, 80], expected [80, 48]"), "{text}");
    assert!(!text.contains("is not a tensor of this model"), "{text}");
}

/// What is no object was given by mistake: without it, the model would be another.
#[test]
fn settings_of_another_kind_are_not_passed_over() {
    for given in [json!("llama3"), json!(8), json!([1]), json!(true)] {
        for name in ["rope_scaling", "rope_parameters"] {
            let folder = changed("lma31", |c| c.set(name, given.clone()));
            refused(folder.path(), &[name, "an object"]);
        }
    }
    let folder = changed("smollm3", |c| c.set("no_rope_layers", json!([1])));
    refused(folder.path(), &["no_rope_layers", "list of 1", "4 layers"]);
    let folder = changed("gemma3", |c| c.set("final_logit_softcapping", -3.0));
    refused(folder.path(), &["final_logit_softcapping", "-3", "above 0"]);
}

#[test]
fn dynamic_rotation_is_read_up_to_the_context() {
    let scaling = json!({ "type": "dynamic", "factor": 2.0 });
    let folder = changed("lma31", |c| c.set("rope_scaling", scaling));
    let longer = LoadOptions { n_ctx: Some(129), ..LoadOptions::no_processing() };
    let text = load_with(folder.path(), &longer).unwrap_err().to_string();
    assert!(text.contains("129") && text.contains("dynamic") && text.contains("up to 128"), "{text}");
    assert!(load_with(folder.path(), &LoadOptions { n_ctx: Some(128), ..longer }).is_ok());
}
