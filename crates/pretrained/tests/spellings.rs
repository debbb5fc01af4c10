//! One model in the words that different files have for it.

mod common;

use common::{HfCheckpoint, assert_same_bits, case, error_of, load, tokens};
use ironlens_files::Dtype;
use ironlens_transformer::HookedTransformer;
use serde_json::{Value, json};

/// The model of a checkpoint in memory.
fn model(checkpoint: &HfCheckpoint) -> HookedTransformer {
    let folder = tempfile::tempdir().unwrap();
    checkpoint.write(folder.path(), Dtype::F32);
    load(folder.path()).unwrap()
}

/// Newer files gather the settings of rotation.
#[test]
fn rope_parameters_are_those_of_older_names() {
    for name in ["lma31", "phi3_longrope", "stablelm", "smollm3", "gemma3"] {
        let mut newer = HfCheckpoint::of(name);
        let mut take = |key: &str| newer.config.remove(key).filter(|value| !value.is_null());
        let mut rope = match take("rope_scaling") {
            Some(Value::Object(scaling)) => scaling,
            _ => Default::default(),
        };
        if let Some(kind) = rope.remove("type") {
            rope.insert("rope_type".into(), kind);
        }
        rope.entry("rope_type").or_insert(json!("default"));
        rope.extend(
            ["rope_theta", "partial_rotary_factor"].iter().filter_map(|key| Some((key.to_string(), take(key)?))),
        );
        let longest = take("original_max_position_embeddings");
        rope.extend(longest.map(|length| ("original_max_position_embeddings".to_string(), length)));
        let rope = match take("rope_local_base_freq") {
            Some(base) => json!({ "full_attention": rope, "sliding_attention": { "rope_theta": base } }),
            None => Value::Object(rope),
        };
        newer.set("rope_parameters", rope);
        assert_same_bits(&model(&newer), &load(&case(name).join("hf")).unwrap(), &tokens(name));
    }
}

/// Rows of the tensors of these names, one below the other.
fn stacked(c: &HfCheckpoint, names: &[String]) -> (Vec<usize>, Vec<f32>) {
    let tensors: Vec<_> = names.iter().map(|name| &c.tensors[name]).collect();
    let rows = tensors.iter().map(|(shape, _)| shape[0]).sum();
    let shape = [rows].into_iter().chain(tensors[0].0[1..].iter().copied()).collect();
    (shape, tensors.iter().flat_map(|(_, values)| values.clone()).collect())
}

/// Each of `heads` groups of rows twice.
fn doubled((shape, values): &(Vec<usize>, Vec<f32>), heads: usize) -> (Vec<usize>, Vec<f32>) {
    let groups = values.chunks(values.len() / heads).flat_map(|group| [group, group].concat());
    (vec![2 * shape[0], shape[1]], groups.collect())
}

/// Qwen 1 is a Llama under GPT-2's names, with a key for every head.
#[test]
fn qwen_1_is_a_llama_under_other_names() {
    let mut llama = HfCheckpoint::of("lma31");
    llama.set("rope_scaling", Value::Null);
    let mut qwen = llama.renamed(|name| {
        let name = name.replace("model.embed_tokens", "transformer.wte").replace("model.norm", "transformer.ln_f");
        Some(
            name.replace("model.layers", "transformer.h")
                .replace("input_layernorm", "ln_1")
                .replace("post_attention_layernorm", "ln_2")
                .replace("self_attn.o_proj", "attn.c_proj")
                .replace("mlp.up_proj", "mlp.w1")
                .replace("mlp.gate_proj", "mlp.w2")
                .replace("mlp.down_proj", "mlp.c_proj"),
        )
    });
    for l in 0..2 {
        for part in ["k", "v"] {
            let name = format!("transformer.h.{l}.self_attn.{part}_proj.weight");
            let heads = doubled(&qwen.tensors[&name], 2);
            qwen.tensors.insert(name, heads);
        }
        let parts = ["q", "k", "v"].map(|part| format!("transformer.h.{l}.self_attn.{part}_proj.weight"));
        let all = stacked(&qwen, &parts);
        qwen.tensors.insert(format!("transformer.h.{l}.attn.c_attn.weight"), all);
        qwen.tensors.retain(|name, _| !parts.contains(name));
    }
    let get = |key: &str| llama.config[key].clone();
    let config = json!({
        "architectures": ["QWenLMHeadModel"], "hidden_size": get("hidden_size"), "vocab_size": get("vocab_size"),
        "num_hidden_layers": 2, "num_attention_heads": 4, "kv_channels": get("head_dim"), "intermediate_size": 160,
        "seq_length": 32, "layer_norm_epsilon": get("rms_norm_eps"), "rotary_emb_base": get("rope_theta"),
        "no_bias": true, "scale_attn_weights": true, "tie_word_embeddings": false, "use_dynamic_ntk": true,
    });
    let Value::Object(config) = config else { unreachable!("it is an object") };
    qwen.config = config;
    let (qwen, x) = (model(&qwen), tokens("lma31"));
    assert!(!qwen.config().default_prepend_bos);
    let error = error_of(&qwen.forward(&x).unwrap(), &model(&llama).forward(&x).unwrap());
    assert!(error < 1e-6, "logits differ by {error}");
}

/// A file may hold a tied matrix under either of its names (`safetensors.torch.save_model` keeps one), and GPT-2's
/// class with two heads chooses among texts with the second.
#[test]
fn a_tied_embedding_may_have_the_name_of_the_head() {
    let whole = HfCheckpoint::of("gpt2_sharded");
    let as_head = |name: &str| if name == "transformer.wte.weight" { "lm_head.weight".into() } else { name.into() };
    let mut double = whole.renamed(|name| Some(as_head(name)));
    double.set("architectures", json!(["GPT2DoubleHeadsModel"]));
    for (part, shape) in [("weight", vec![1, 48]), ("bias", vec![1])] {
        let values = vec![0.5; shape.iter().product()];
        double.tensors.insert(format!("multiple_choice_head.summary.{part}"), (shape, values));
    }
    assert!(!double.tensors.contains_key("transformer.wte.weight"));
    assert_same_bits(&model(&double), &model(&whole), &tokens("gpt2_sharded"));
}

/// SantaCoder's first class keeps queries apart, and matrices as GPT-2 does.
#[test]
fn santacoder_has_two_classes() {
    let mut custom = HfCheckpoint::of("gpt2_sharded");
    let (m, h) = (48, 12);
    let columns = |(shape, values): &(Vec<usize>, Vec<f32>), from: usize, to: usize| {
        let width = *shape.last().unwrap();
        let part = values.chunks(width).flat_map(|row| row[from..to].to_vec()).collect();
        ([&shape[..shape.len() - 1], &[to - from]].concat(), part)
    };
    for l in 0..2 {
        for kind in ["weight", "bias"] {
            let at = |name: &str| format!("transformer.h.{l}.attn.{name}.{kind}");
            let all = custom.tensors.remove(&at("c_attn")).unwrap();
            custom.tensors.insert(at("q_attn"), columns(&all, 0, m));
            // Any two heads' width of what is left.
            custom.tensors.insert(at("kv_attn"), columns(&all, m, m + 2 * h));
        }
    }
    custom.set("architectures", json!(["GPT2LMHeadCustomModel"]));
    let mut newer = custom.clone();
    newer.set("architectures", json!(["GPTBigCodeForCausalLM"]));
    for (name, (shape, values)) in &mut newer.tensors {
        if let ([rows, columns], true) = (&shape[..], name.contains(".h.")) {
            let (rows, columns) = (*rows, *columns);
            *values = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c)).map(|i| values[i]).collect();
            *shape = vec![columns, rows];
        }
    }
    for l in 0..2 {
        for kind in ["weight", "bias"] {
            let parts = ["q_attn", "kv_attn"].map(|name| format!("transformer.h.{l}.attn.{name}.{kind}"));
            let all = stacked(&newer, &parts);
            newer.tensors.insert(format!("transformer.h.{l}.attn.c_attn.{kind}"), all);
            newer.tensors.retain(|name, _| !parts.contains(name));
        }
    }
    let (custom, newer) = (model(&custom), model(&newer));
    assert_eq!(custom.config().n_key_value_heads, 1);
    assert_same_bits(&custom, &newer, &tokens("gpt2_sharded"));
}
