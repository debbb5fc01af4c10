//! What files leave out, and how they say the same otherwise.

use super::*;
use serde_json::json;

/// The configuration of a family's `config.json`; where no width is given, of heads of 64.
fn config(class: &str, given: Value) -> Read<Config> {
    let Value::Object(mut map) = given else { panic!("a configuration is an object") };
    let family =
        FAMILIES.iter().chain(ENCODERS).find(|f| f.architectures.contains(&class)).expect("the class is known");
    let defaults: Value = serde_json::from_str(family.defaults).expect(family.name);
    let heads = ["num_attention_heads", "n_head", "num_heads"];
    let heads = heads.iter().find_map(|name| map.get(*name).unwrap_or(&defaults[*name]).as_u64()).unwrap_or(1);
    if !["hidden_size", "n_embd", "n_embed"].iter().any(|name| map.contains_key(*name)) {
        map.extend(["hidden_size", "n_embd"].map(|name| (name.to_string(), json!(64 * heads))));
    }
    map.insert("architectures".into(), json!([class]));
    Ok((family.config)(&HfConfig::from_map(map).completed(family.names, family.defaults))?.resolved()?)
}

#[track_caller]
fn refused(class: &str, given: Value, words: &[&str]) {
    let text = config(class, given).expect_err("must be refused").to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[test]
fn what_is_left_out_is_as_in_the_class() {
    for family in FAMILIES.iter().chain(ENCODERS) {
        let defaults: Value = serde_json::from_str(family.defaults).expect(family.name);
        assert!(defaults.is_object(), "{}", family.name);
        // The class of Qwen 1 comes with its files, and is not known.
        if family.name != "Qwen 1" {
            let cfg = config(family.architectures[0], json!({})).expect(family.name);
            assert!(cfg.n_layers > 0 && cfg.d_vocab > 0 && cfg.n_ctx > 0, "{}", family.name);
        }
    }
    let gpt2 = config("GPT2LMHeadModel", json!({})).unwrap();
    assert_eq!((gpt2.d_model, gpt2.n_heads, gpt2.n_layers, gpt2.n_ctx, gpt2.d_vocab), (768, 12, 12, 1024, 50257));
    // gemma-3-4b's file says no more about text than this.
    let text = json!({ "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                       "num_hidden_layers": 34, "sliding_window": 1024,
                       "rope_scaling": { "factor": 8.0, "rope_type": "linear" } });
    let gemma = config("Gemma3ForConditionalGeneration", json!({ "text_config": text })).unwrap();
    assert_eq!((gemma.n_heads, gemma.n_key_value_heads, gemma.d_head, gemma.d_vocab), (8, 4, 256, 262208));
    assert_eq!((gemma.window_size, gemma.rotary_base, gemma.rotary_base_local), (1024, 1e6, Some(1e4)));
    assert_eq!(gemma.rope_scaling, Some(RopeScaling::Linear { factor: 8.0 }));
    // Given as null, a setting is off.
    let scores = |given: Value| config("Gemma2ForCausalLM", given).unwrap().attn_scores_soft_cap;
    assert_eq!((scores(json!({})), scores(json!({ "attn_logit_softcapping": null }))), (50.0, -1.0));
    assert!(config("ApertusForCausalLM", json!({})).unwrap().use_NTK_by_parts_rope);
    assert!(!config("ApertusForCausalLM", json!({ "rope_scaling": null })).unwrap().use_NTK_by_parts_rope);
}

#[test]
fn other_names_of_settings_are_known() {
    let bloom = config("BloomForCausalLM", json!({ "n_embed": 48, "num_attention_heads": 3 })).unwrap();
    assert_eq!((bloom.d_model, bloom.n_heads), (48, 3));
    let falcon = json!({ "n_head": 4, "n_layer": 3, "hidden_size": 64, "n_head_kv": 2 });
    let falcon = config("RWForCausalLM", falcon).unwrap();
    assert_eq!((falcon.n_heads, falcon.n_layers, falcon.n_key_value_heads), (4, 3, 2));
    let neox = config("GPTNeoXForCausalLM", json!({ "rotary_pct": 0.5, "rotary_emb_base": 500 })).unwrap();
    assert_eq!((neox.rotary_dim, neox.rotary_base), (32, 500.0));
    // A family's own name goes first.
    assert_eq!(config("GPT2LMHeadModel", json!({ "n_ctx": 8, "n_positions": 16 })).unwrap().n_ctx, 16);
}

#[test]
fn stretching_by_length_is_known_in_the_part_of_the_text_too() {
    let dynamic = |of: Value| is_dynamic(&HfConfig::from_json(&of.to_string()).unwrap()).unwrap();
    let scaling = json!({ "rope_scaling": { "rope_type": "dynamic", "factor": 2.0 } });
    assert!(dynamic(scaling.clone()) && dynamic(json!({ "text_config": scaling })));
    assert!(!dynamic(json!({ "text_config": { "rope_scaling": { "rope_type": "linear", "factor": 2.0 } } })));
}

/// The layers that look back a window.
fn local(class: &str, given: Value) -> Vec<usize> {
    let cfg = config(class, given).unwrap();
    (0..cfg.n_layers).filter(|l| cfg.attn_type(*l) == AttnType::Local).collect()
}

#[test]
fn windows_are_where_the_class_has_them() {
    let window = |more: Value| {
        let Value::Object(more) = more else { unreachable!("it is an object") };
        let mut given = serde_json::Map::new();
        given.insert("num_hidden_layers".into(), json!(4));
        given.insert("use_sliding_window".into(), json!(true));
        given.insert("sliding_window".into(), json!(8));
        given.extend(more);
        Value::Object(given)
    };
    assert_eq!(local("Qwen2ForCausalLM", window(json!({ "max_window_layers": 2 }))), [2, 3]);
    assert_eq!(local("Qwen2ForCausalLM", window(json!({}))), [0usize; 0]);
    // With experts, no layer is left out.
    for class in ["Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"] {
        assert_eq!(local(class, window(json!({ "max_window_layers": 2 }))), [0, 1, 2, 3]);
        assert_eq!(local(class, window(json!({ "use_sliding_window": false }))), [0usize; 0]);
    }
    assert_eq!(local("SmolLM3ForCausalLM", window(json!({ "no_rope_layers": [1, 0, 1, 0] }))), [1, 3]);
    assert_eq!(local("Cohere2ForCausalLM", window(json!({ "sliding_window_pattern": 2 }))), [0, 2]);
    assert_eq!(local("MistralForCausalLM", window(json!({}))), [0, 1, 2, 3]);
    assert_eq!(local("MistralForCausalLM", window(json!({ "sliding_window": null }))), [0usize; 0]);
    // Some classes look at no types.
    let types = json!({ "layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"] });
    for class in ["MistralForCausalLM", "MixtralForCausalLM", "Phi3ForCausalLM", "Starcoder2ForCausalLM"] {
        assert_eq!(local(class, window(types.clone())), [0, 1, 2, 3], "{class}");
    }
    assert_eq!(local("MinistralForCausalLM", window(types)), [1]);
    assert_eq!(local("MinistralForCausalLM", window(json!({}))), [0, 1, 2, 3]);
    let types = json!({ "layer_types": ["full_attention", "chunked_attention", "full_attention", "full_attention"] });
    refused("Qwen2ForCausalLM", window(types), &["layer_types", "chunked_attention", "sliding_attention"]);
}

#[test]
fn rotation_is_read_as_the_class_reads_it() {
    let llama = |scaling: Value| config("LlamaForCausalLM", json!({ "rope_scaling": scaling }));
    // Texts up to the context are rotated as without.
    assert_eq!(llama(json!({ "type": "dynamic", "factor": 4.0 })).unwrap().rope_scaling, None);
    // The context before stretching is beside the factors, not among them.
    let (short, long) = (vec![1.0; 32], vec![2.0; 32]);
    let factors = json!({ "rope_type": "longrope", "factor": 4.0, "short_factor": short, "long_factor": long,
                          "original_max_position_embeddings": 8 });
    let context = |cfg: Config| match cfg.rope_scaling {
        Some(RopeScaling::LongRope { context, .. }) => context,
        other => panic!("{other:?}"),
    };
    assert_eq!(context(llama(factors.clone()).unwrap()), 2048);
    let beside = json!({ "rope_scaling": factors.clone(), "original_max_position_embeddings": 16 });
    assert_eq!(context(config("LlamaForCausalLM", beside).unwrap()), 16);
    assert_eq!(context(config("LlamaForCausalLM", json!({ "rope_parameters": factors.clone() })).unwrap()), 8);
    // The first files of Phi 3 call it YaRN.
    let (mut early, given) = (factors.clone(), factors);
    early["rope_type"] = json!("yarn");
    let phi = |scaling: &Value| config("Phi3ForCausalLM", json!({ "rope_scaling": scaling })).unwrap().rope_scaling;
    assert!(matches!(phi(&early), Some(RopeScaling::LongRope { context: 4096, .. })), "{:?}", phi(&early));
    assert_eq!(phi(&early), phi(&given));
    assert!(matches!(llama(early).unwrap().rope_scaling, Some(RopeScaling::Yarn { .. })));
    // Stretched are layers that look at all positions, whatever the kind.
    let llama3 = json!({ "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64,
                         "low_freq_factor": 1.0, "high_freq_factor": 4.0 });
    assert!(config("Olmo3ForCausalLM", json!({ "rope_scaling": llama3 })).unwrap().rope_scaling_global_only);
    refused("GPTNeoXForCausalLM", json!({ "rotary_pct": 0.001 }), &["partial_rotary_factor", "0.001", "64"]);
    refused("PhiForCausalLM", json!({ "partial_rotary_factor": 0.001 }), &["partial_rotary_factor", "0.001", "64"]);
    refused("NemotronForCausalLM", json!({ "rope_scaling": { "type": "linear", "factor": 2.0 } }), &["rope_scaling"]);
}

#[test]
fn what_would_be_computed_wrongly_is_refused() {
    for class in ["Gemma2ForCausalLM", "Gemma3ForCausalLM"] {
        refused(class, json!({ "use_bidirectional_attention": true }), &["use_bidirectional_attention", "decoder"]);
    }
    refused("GPT2LMHeadModel", json!({ "activation_function": "tanh" }), &["activation_function", "tanh", "gelu_new"]);
}
