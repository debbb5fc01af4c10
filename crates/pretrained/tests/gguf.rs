//! Models in GGUF files, written as llama.cpp's converter writes them.

mod common;

use std::fs;
use std::path::Path;

use common::{HfCheckpoint, encoded, error_of, f64_options, load, load_with, tokens};
use ironlens_files::{Dtype, GgufArray, GgufFile, GgufValue, Stored, StoredTensor, TensorFile, write_gguf};
use ironlens_pretrained::{LoadOptions, Pretrained, PretrainedError};
use ironlens_tensor::IndexTensor;
use ironlens_tokenizer::Tokenize;
use ironlens_transformer::NormalizationType;

/// What llama.cpp's converter calls the parts of a layer.
const GGUF_NAMES: [(&str, &str); 15] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("input_layernorm", "attn_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
];

fn gguf_name(name: &str, norms_after: bool) -> String {
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.").unwrap().split_once('.').unwrap();
    let (part, kind) = rest.rsplit_once('.').unwrap();
    let part = match part {
        "post_attention_layernorm" if !norms_after => "ffn_norm",
        part => GGUF_NAMES.iter().find(|(hf, _)| *hf == part).unwrap_or_else(|| panic!("{name}")).1,
    };
    format!("blk.{layer}.{part}.{kind}")
}

/// Writes a checkpoint as llama.cpp's converter does: rows of queries and keys in the order in which it rotates
/// them (Llama), 1 added to the weights of norms (Gemma). `more` takes the place of keys of the same name.
fn write_as_gguf(path: &Path, checkpoint: &HfCheckpoint, arch: &str, more: &[(&str, GgufValue)]) {
    let size = |key: &str| checkpoint.config[key].as_u64().unwrap();
    let whole = |key: &str| GgufValue::U32(size(key) as u32);
    let number = |key: &str| GgufValue::F32(checkpoint.config[key].as_f64().unwrap() as f32);
    let mut metadata = vec![("general.architecture".to_string(), GgufValue::String(arch.into()))];
    for (key, value) in [
        ("embedding_length", whole("hidden_size")),
        ("block_count", whole("num_hidden_layers")),
        ("feed_forward_length", whole("intermediate_size")),
        ("attention.head_count", whole("num_attention_heads")),
        ("attention.head_count_kv", whole("num_key_value_heads")),
        ("context_length", whole("max_position_embeddings")),
        ("attention.layer_norm_rms_epsilon", number("rms_norm_eps")),
        ("rope.freq_base", number("rope_theta")),
    ] {
        if !more.iter().any(|(other, _)| *other == key) {
            metadata.push((format!("{arch}.{key}"), value));
        }
    }
    metadata.extend(more.iter().map(|(key, value)| (format!("{arch}.{key}"), value.clone())));
    let gemma = arch.starts_with("gemma");
    let (mut infos, mut bytes) = (Vec::new(), Vec::new());
    for (name, (shape, values)) in &checkpoint.tensors {
        let mut values = values.clone();
        if ["llama", "smollm3"].contains(&arch) && (name.contains("q_proj") || name.contains("k_proj")) {
            let heads = size(if name.contains("q_proj") { "num_attention_heads" } else { "num_key_value_heads" });
            values = neighbours(&values, shape[0], heads as usize);
        }
        if gemma && name.ends_with("norm.weight") {
            values.iter_mut().for_each(|v| *v += 1.0);
        }
        let shape = shape.clone();
        infos.push(StoredTensor {
            name: gguf_name(name, gemma || arch == "olmo2"),
            stored: Stored::Plain(Dtype::F32),
            shape,
        });
        bytes.push(encoded(&values, Dtype::F32));
    }
    // Factors of wavelengths, as tensors of their own.
    let one = llama3_factors(checkpoint).map(|factors| ("rope_freqs.weight", factors));
    let two = [("rope_factors_short.weight", "short_factor"), ("rope_factors_long.weight", "long_factor")];
    let two = two.into_iter().filter_map(|(name, key)| Some((name, list_of(checkpoint, key)?)));
    for (name, factors) in one.into_iter().chain(two) {
        let shape = vec![factors.len()];
        infos.push(StoredTensor { name: name.into(), stored: Stored::Plain(Dtype::F32), shape });
        bytes.push(encoded(&factors, Dtype::F32));
    }
    write_gguf(path, &metadata, &infos, |i, file| file.write_all(&bytes[i])).unwrap();
}

/// OLMo 3: OLMo 2 with windows, and longer wavelengths where there are none.
fn third_olmo() -> HfCheckpoint {
    let mut olmo = HfCheckpoint::of("olmo2");
    let layers = olmo.config["num_hidden_layers"].as_u64().unwrap();
    olmo.set("architectures", serde_json::json!(["Olmo3ForCausalLM"]));
    olmo.set("model_type", "olmo3");
    olmo.set("sliding_window", 3);
    let kinds = (0..layers).map(|l| if l == 1 { "full_attention" } else { "sliding_attention" });
    olmo.set("layer_types", kinds.collect::<Vec<_>>());
    olmo.set(
        "rope_scaling",
        serde_json::json!({ "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8,
                            "attention_factor": 1.208, "beta_fast": 32.0, "beta_slow": 1.0 }),
    );
    olmo
}

/// What llama.cpp's converter says of it, under OLMo 2's name: the factor of attention is Hugging Face's there.
fn third_olmo_more() -> Vec<(&'static str, GgufValue)> {
    let layers = HfCheckpoint::of("olmo2").config["num_hidden_layers"].as_u64().unwrap();
    vec![
        ("attention.sliding_window", GgufValue::U32(3)),
        ("attention.sliding_window_pattern", GgufValue::Array(GgufArray::Bool((0..layers).map(|l| l != 1).collect()))),
        ("rope.scaling.type", GgufValue::String("yarn".into())),
        ("rope.scaling.factor", GgufValue::F32(8.0)),
        ("rope.scaling.attn_factor", GgufValue::F32(1.208)),
        ("rope.scaling.original_context_length", GgufValue::U32(8)),
    ]
}

/// Rows `[head, 2, h / 2]` in the order `[head, h / 2, 2]`: llama.cpp's `permute`.
fn neighbours(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (width, half) = (values.len() / rows, rows / heads / 2);
    let row = |r: usize| &values[r * width..(r + 1) * width];
    let order = (0..heads).flat_map(|h| (0..half).flat_map(move |i| [0, 1].map(|part| (2 * h + part) * half + i)));
    order.flat_map(row).copied().collect()
}

/// A list of factors of LongRoPE's.
fn list_of(checkpoint: &HfCheckpoint, key: &str) -> Option<Vec<f32>> {
    let list = checkpoint.config.get("rope_scaling")?.get(key)?.as_array()?;
    Some(list.iter().map(|v| v.as_f64().unwrap() as f32).collect())
}

/// llama.cpp's `rope_freqs`: what each wavelength of Llama 3.1 is multiplied by.
fn llama3_factors(checkpoint: &HfCheckpoint) -> Option<Vec<f32>> {
    let scaling = checkpoint.config.get("rope_scaling")?;
    let number = |key: &str| scaling[key].as_f64().unwrap();
    (scaling.get("rope_type")?.as_str() == Some("llama3")).then(|| {
        let dim = checkpoint.config["head_dim"].as_f64().unwrap();
        let (low, high) = (number("low_freq_factor"), number("high_freq_factor"));
        let context = number("original_max_position_embeddings");
        let factor = |i: usize| {
            let base = checkpoint.config["rope_theta"].as_f64().unwrap();
            let wavelength = 2.0 * std::f64::consts::PI * base.powf(2.0 * i as f64 / dim);
            if wavelength < context / high {
                1.0
            } else if wavelength > context / low {
                number("factor")
            } else {
                let smooth = (context / wavelength - low) / (high - low);
                1.0 / ((1.0 - smooth) / number("factor") + smooth)
            }
        };
        (0..dim as usize / 2).map(|i| factor(i) as f32).collect()
    })
}

#[test]
fn gguf_files_are_the_models_that_they_were_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let head = |name: &str| GgufValue::U32(HfCheckpoint::of(name).config["head_dim"].as_u64().unwrap() as u32);
    let llama = HfCheckpoint::of("lma31");
    // Qwen 2 is Llama with biases of queries, keys and values, and no permutation.
    let mut qwen = HfCheckpoint::of("lma_bias_headdim");
    qwen.set("architectures", serde_json::json!(["Qwen2ForCausalLM"]));
    qwen.set("mlp_bias", false);
    let qwen = qwen.renamed(|n| {
        let bias_elsewhere = n.ends_with("bias") && !["q_proj", "k_proj", "v_proj"].iter().any(|p| n.contains(p));
        (!bias_elsewhere).then(|| n.into())
    });
    // Every sixth layer looks at everything, as llama.cpp has it.
    let mut gemma = HfCheckpoint::of("gemma3");
    gemma.set("layer_types", serde_json::json!(vec!["sliding_attention"; 3]));
    gemma.set("query_pre_attn_scalar", gemma.config["head_dim"].clone());
    // Of wavelengths that are stretched, llama.cpp keeps a kind and its numbers.
    let plain = |name: &str| {
        let mut checkpoint = HfCheckpoint::of(name);
        checkpoint.set("rope_scaling", serde_json::Value::Null);
        checkpoint
    };
    let (mut linear, mut yarn) = (plain("lma31"), plain("lma31"));
    linear.set("rope_scaling", serde_json::json!({ "rope_type": "linear", "factor": 2.5 }));
    let numbers = serde_json::json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16 });
    yarn.set("rope_scaling", numbers);
    let mut ramp = yarn.clone();
    // llama.cpp's factor is beside the paper's, of 1 + 0.1 ln(4).
    ramp.set(
        "rope_scaling",
        serde_json::json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                            "beta_fast": 4.0, "beta_slow": 0.5, "attention_factor": 1.25 * (1.0 + 0.1 * 4f64.ln()) }),
    );
    let scaling = |kind: &str, factor: f32| {
        vec![
            ("attention.key_length", head("lma31")),
            ("rope.scaling.type", GgufValue::String(kind.into())),
            ("rope.scaling.factor", GgufValue::F32(factor)),
            ("rope.scaling.original_context_length", GgufValue::U32(16)),
        ]
    };
    // As Phi 3's converter writes it; the factor of attention follows from the lengths.
    let long = vec![
        ("rope.scaling.original_context_length", GgufValue::U32(32)),
        ("attention.sliding_window", GgufValue::U32(0)),
    ];
    let told = vec![("rope.scaling.attn_factor", GgufValue::F32((1.0 + 4f32.ln() / 32f32.ln()).sqrt()))];
    let window = ("attention.sliding_window", GgufValue::U32(6));
    let qwen_head = ("attention.key_length", head("lma_bias_headdim"));
    for (what, arch, checkpoint, more) in [
        (
            "Llama 3.1",
            "llama",
            llama,
            vec![("rope.dimension_count", head("lma31")), ("attention.key_length", head("lma31"))],
        ),
        ("Qwen 2", "qwen2", qwen, vec![qwen_head.clone()]),
        ("Gemma 3", "gemma3", gemma, vec![window, ("attention.key_length", head("gemma3"))]),
        ("linear scaling", "llama", linear.clone(), scaling("linear", 2.5)),
        (
            "linear scaling without its kind",
            "llama",
            linear.clone(),
            vec![("attention.key_length", head("lma31")), ("rope.scaling.factor", GgufValue::F32(2.5))],
        ),
        (
            "linear scaling of old files",
            "llama",
            linear,
            vec![("attention.key_length", head("lma31")), ("rope.scale_linear", GgufValue::F32(2.5))],
        ),
        ("YaRN", "llama", yarn, scaling("yarn", 4.0)),
        (
            "YaRN, told its ramp",
            "llama",
            ramp,
            [
                scaling("yarn", 4.0),
                vec![
                    ("rope.scaling.yarn_beta_fast", GgufValue::F32(4.0)),
                    ("rope.scaling.yarn_beta_slow", GgufValue::F32(0.5)),
                    ("rope.scaling.attn_factor", GgufValue::F32(1.25)),
                ],
            ]
            .concat(),
        ),
        ("biases everywhere", "llama", HfCheckpoint::of("lma_bias_headdim"), vec![qwen_head.clone()]),
        ("no scaling", "llama", plain("lma31"), scaling("none", 1.0)),
        ("OLMo 2", "olmo2", HfCheckpoint::of("olmo2"), vec![]),
        ("OLMo 3", "olmo2", third_olmo(), third_olmo_more()),
        ("SmolLM 3", "smollm3", HfCheckpoint::of("smollm3"), vec![]),
        ("LongRoPE", "phi3", HfCheckpoint::of("phi3_longrope"), long.clone()),
        ("LongRoPE, told its factor", "phi3", HfCheckpoint::of("phi3_longrope"), [long, told].concat()),
    ] {
        let (hf, gguf) = (folder.path().join(format!("{what}-hf")), folder.path().join(what).join("model.gguf"));
        checkpoint.write(&hf, Dtype::F32);
        fs::create_dir_all(gguf.parent().unwrap()).unwrap();
        write_as_gguf(&gguf, &checkpoint, arch, &more);
        let hf = load_with(&hf, &f64_options()).unwrap();
        // Longer than the original context of LongRoPE, too.
        let x = IndexTensor::new((0..2 * 40).map(|i| (i * 7 + i / 9) % 50).collect::<Vec<_>>(), &[2, 40]);
        let x = if arch == "phi3" { x } else { tokens("lma31") };
        let expected = hf.forward(&x).unwrap();
        // The file, and the folder that it is alone in, without a configuration and with that of the original.
        for (path, configured) in [(&*gguf, false), (gguf.parent().unwrap(), false), (gguf.parent().unwrap(), true)] {
            if configured {
                checkpoint.write_config(path);
            }
            let found = load_with(path, &f64_options()).unwrap_or_else(|e| panic!("{what}: {e}"));
            let error = error_of(&found.forward(&x).unwrap(), &expected);
            // Epsilon, base and the factors of wavelengths are f32 there, as is 1 + w.
            assert!(error < 2e-6, "{what}: logits differ by {error}");
            let (a, b) = (found.config(), hf.config());
            assert_eq!((a.n_heads, a.d_head, a.n_key_value_heads), (b.n_heads, b.d_head, b.n_key_value_heads));
            assert_eq!((a.d_vocab, a.n_ctx, &a.attn_types), (b.d_vocab, b.n_ctx, &b.attn_types));
        }
        let processed = load_with(&gguf, &LoadOptions::default()).unwrap();
        assert_eq!(processed.config().normalization_type, NormalizationType::RMSPre);
    }
    let several = folder.path().join("YaRN");
    fs::copy(several.join("model.gguf"), several.join("other.gguf")).unwrap();
    let text = load(&several).unwrap_err().to_string();
    assert!(text.contains("several GGUF files"), "{text}");
}

#[test]
fn gguf_files_that_are_not_read_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let refused = |checkpoint: &HfCheckpoint, arch: &str, more: &[(&str, GgufValue)], words: &[&str]| {
        write_as_gguf(&path, checkpoint, arch, more);
        let text = load(&path).unwrap_err().to_string();
        words.iter().for_each(|w| assert!(text.contains(w), "{w}: {text}"));
    };
    let llama = HfCheckpoint::of("lma31");
    let head = ("attention.key_length", GgufValue::U32(12));
    refused(&llama, "mamba", &[], &["\"mamba\"", "llama, mistral"]);
    refused(&llama, "llama", &[("expert_count", GgufValue::U32(8))], &["with experts", "safetensors"]);
    refused(&llama, "llama", &[("attention.key_length", GgufValue::String("x".into()))], &["attention.key_length"]);
    refused(&llama, "llama", &[("attention.key_length", GgufValue::U32(10))], &["short_factor", "6 numbers", "5"]);
    let mut plain = llama.clone();
    plain.set("rope_scaling", serde_json::Value::Null);
    refused(&plain, "llama", &[("attention.key_length", GgufValue::U32(10))], &["q_proj", "expected [40, 48]"]);
    for part in ["mlp.up_proj.weight", "input_layernorm.weight"] {
        let without = llama.renamed(|n| (n != format!("model.layers.1.{part}")).then(|| n.into()));
        refused(&without, "llama", std::slice::from_ref(&head), &[&format!("layers.1.{part}"), "missing"]);
    }
    // Factors for short texts alone.
    let mut half = HfCheckpoint::of("phi3_longrope");
    half.set("rope_scaling", serde_json::json!({ "short_factor": vec![1.0; 6] }));
    refused(&half, "phi3", &[], &["rope_factors_long.weight", "not there"]);
    let mut none = plain;
    none.set("num_attention_heads", 0);
    none.set("num_key_value_heads", 0);
    none.tensors.retain(|n, _| !n.contains("q_proj") && !n.contains("k_proj"));
    refused(&none, "llama", &[], &["num_attention_heads", "at least 1"]);
}

#[test]
fn metadata_has_any_value_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let keys = [
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.sliding_window",
        "attention.layer_norm_rms_epsilon",
        "context_length",
        "rope.freq_base",
        "rope.dimension_count",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "expert_count",
        "final_logit_softcapping",
    ];
    let values = [
        GgufValue::U32(0),
        GgufValue::U32(1),
        GgufValue::I32(-1),
        GgufValue::U64(1_000_000_000_000),
        GgufValue::U64(u64::MAX),
        GgufValue::F32(0.5),
        GgufValue::F64(-1e300),
        GgufValue::F32(f32::NAN),
        GgufValue::String("yarn".into()),
        GgufValue::Bool(true),
        GgufValue::Array(GgufArray::U32(vec![4, 4])),
    ];
    for (arch, name) in [("llama", "lma31"), ("gemma3", "gemma3")] {
        let checkpoint = HfCheckpoint::of(name);
        for key in keys {
            // The second time, only where whole numbers and others are told apart.
            for value in values.iter().take(if arch == "llama" { values.len() } else { 6 }) {
                write_as_gguf(&path, &checkpoint, arch, &[(key, value.clone())]);
                let tried = std::panic::catch_unwind(|| {
                    load(&path)?.forward(&ironlens_tensor::IndexTensor::from([[1, 0, 1]]))?;
                    Ok::<(), PretrainedError>(())
                });
                match tried {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => assert!(error.to_string().len() > 20, "{error}"),
                    Err(_) => panic!("{arch} with {key} = {value:?}: a panic"),
                }
            }
        }
    }
    // A number that is none is not taken for one that is not given.
    write_as_gguf(&path, &HfCheckpoint::of("gemma3"), "gemma3", &[("rope.freq_base", GgufValue::F32(f32::NAN))]);
    let text = load(&path).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("gemma3.rope.freq_base") && text.contains("NaN"), "{text}");
}

/// The tokenizer of a file: four letters, of model "gpt2" and the given cuts.
fn letters(pre: &str) -> Vec<(String, GgufValue)> {
    let text = |text: &str| GgufValue::String(text.into());
    let texts = |texts: &[&str]| GgufValue::Array(GgufArray::String(texts.iter().map(|t| t.to_string()).collect()));
    let pairs = [
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text(pre)),
        ("tokenizer.ggml.tokens", texts(&["a", "b", "<|eom|>", "[EOS]"])),
        ("tokenizer.ggml.merges", texts(&[])),
        ("tokenizer.ggml.eom_token_id", GgufValue::U32(2)),
        ("tokenizer.chat_template", text("plain")),
        ("tokenizer.chat_templates", texts(&["tool_use", "absent"])),
        ("tokenizer.chat_template.tool_use", text("{{ tools }}")),
    ];
    pairs.map(|(key, value)| (key.to_string(), value)).into()
}

/// Adds pairs to the metadata of a GGUF file.
fn add_pairs(path: &Path, more: Vec<(String, GgufValue)>) {
    let file = GgufFile::open(path).unwrap();
    let pairs = [file.metadata().pairs(), &more].concat();
    let bytes: Vec<_> = file.tensors().iter().map(|t| file.read(&t.name).unwrap()).collect();
    write_gguf(path, &pairs, file.tensors(), |i, out| out.write_all(&bytes[i])).unwrap();
}

#[test]
fn the_tokenizer_is_the_file_s_or_else_the_folder_s() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("model.gguf"), folder.path().join("other.gguf"));
    let head = ("attention.key_length", GgufValue::U32(12));
    for (path, pre) in [(&path, "gpt-2"), (&other, "nobody-knows")] {
        write_as_gguf(path, &HfCheckpoint::of("lma31"), "llama", std::slice::from_ref(&head));
        add_pairs(path, letters(pre));
    }
    let model = load(&path).unwrap();
    assert_eq!(model.tokenizer().unwrap().encode("ba", false).unwrap(), [1, 0]);
    // "[EOS]" by its spelling, the other by its role.
    assert_eq!(model.tokenizer().unwrap().end_ids(), [2, 3]);
    model.save_pretrained(folder.path().join("saved")).unwrap();
    let saved = fs::read_to_string(folder.path().join("saved/tokenizer_config.json")).unwrap();
    assert!(saved.contains("tool_use") && saved.contains("plain") && !saved.contains("absent"), "{saved}");

    let text = load(&other).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("nobody-knows") && text.contains("tokenizer.json"), "{text}");
    fs::copy(folder.path().join("saved/tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    assert_eq!(load(&other).unwrap().tokenizer().unwrap().encode("ba", false).unwrap(), [1, 0]);
}
