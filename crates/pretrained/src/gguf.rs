//! A GGUF file as the checkpoint of Hugging Face's that it was made from: its configuration, and its tensors
//! by their names there.

use std::collections::BTreeMap;
use std::ops::Range;

use ironlens_files::{FileError, GgufArray, GgufFile, GgufValue, TensorFile};
use serde_json::{Map, Value, json};

use crate::conversion::Source;
use crate::error::PretrainedError;
use crate::hf::{HfConfig, mistaken};

/// llama.cpp's architectures that are read, and the classes that they were.
const CLASSES: [(&str, &str); 11] = [
    ("llama", "LlamaForCausalLM"),
    ("mistral", "MistralForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
    ("gemma", "GemmaForCausalLM"),
    ("gemma2", "Gemma2ForCausalLM"),
    ("gemma3", "Gemma3ForCausalLM"),
    ("granite", "GraniteForCausalLM"),
    ("smollm3", "SmolLM3ForCausalLM"),
    ("olmo2", "Olmo2ForCausalLM"),
    ("phi3", "Phi3ForCausalLM"),
];

/// Numbers of the metadata (after `{arch}.`) and the keys of a `config.json` that they are.
const NUMBERS: [(&str, &str); 15] = [
    ("embedding_length", "hidden_size"),
    ("block_count", "num_hidden_layers"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("context_length", "max_position_embeddings"),
    ("attention.sliding_window", "sliding_window"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("rope.freq_base", "rope_theta"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
    ("attention.scale", "attention_multiplier"),
    ("embedding_scale", "embedding_multiplier"),
    ("residual_scale", "residual_multiplier"),
];

/// What a tensor's name of Hugging Face's ends in, after `model.layers.L.`, and what llama.cpp calls it.
fn layer_names(class: &str) -> Vec<(&'static str, &'static str)> {
    let mut names = vec![
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.qkv_proj", "attn_qkv"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
    ];
    names.push(match class {
        "Phi3ForCausalLM" => ("mlp.gate_up_proj", "ffn_up"),
        _ => ("mlp.up_proj", "ffn_up"),
    });
    names.extend(match class {
        "Gemma2ForCausalLM" | "Gemma3ForCausalLM" | "Olmo2ForCausalLM" | "Olmo3ForCausalLM" => vec![
            ("post_attention_layernorm", "post_attention_norm"),
            ("pre_feedforward_layernorm", "ffn_norm"),
            ("post_feedforward_layernorm", "post_ffw_norm"),
        ],
        _ => vec![("post_attention_layernorm", "ffn_norm")],
    });
    names
}

/// A GGUF file, read as another checkpoint.
pub(crate) struct GgufSource<'f> {
    file: &'f GgufFile,
    /// By name of Hugging Face's: the name in the file, and the number of heads whose rows were permuted.
    tensors: BTreeMap<String, (String, Option<usize>)>,
}

/// The configuration that the metadata of a file gives, and its tensors.
pub(crate) fn open(file: &GgufFile) -> Result<(HfConfig, GgufSource<'_>), PretrainedError> {
    let metadata = file.metadata();
    let arch: &str = metadata.required("general.architecture")?;
    let Some((_, class)) = CLASSES.iter().find(|(name, _)| *name == arch) else {
        let known: Vec<&str> = CLASSES.iter().map(|(name, _)| *name).collect();
        return Err(PretrainedError::Family {
            architecture: format!("GGUF's architecture {arch:?}"),
            hint: format!("those that are: {}; others are read from safetensors", known.join(", ")),
        });
    };
    if metadata.optional::<u64>(&format!("{arch}.expert_count"))?.is_some_and(|n| n > 0) {
        return Err(PretrainedError::Family {
            architecture: format!("GGUF's architecture {arch:?} with experts"),
            hint: "models with experts are read from safetensors".into(),
        });
    }
    let mut map = Map::new();
    for (from, to) in NUMBERS {
        let key = format!("{arch}.{from}");
        let value = match metadata.value(&key) {
            None => continue,
            // Sizes are whole numbers there, and everything else is not.
            Some(GgufValue::F32(_) | GgufValue::F64(_)) => match metadata.required::<f64>(&key)? {
                number if number.is_finite() => json!(number),
                number => return Err(mistaken(&key, &number.to_string(), "a finite number")),
            },
            Some(_) => json!(metadata.required::<u64>(&key)?),
        };
        map.insert(to.into(), value);
    }
    let vocabulary = file.get("token_embd.weight").and_then(|t| t.shape.first().copied()).unwrap_or(0);
    map.insert("vocab_size".into(), json!(vocabulary));
    map.insert("tie_word_embeddings".into(), json!(file.get("output.weight").is_none()));
    map.insert("mlp_bias".into(), json!(file.get("blk.0.ffn_gate.bias").is_some()));
    if let Some(n) = metadata.optional::<u64>(&format!("{arch}.rope.dimension_count"))? {
        let heads = map.get("num_attention_heads").and_then(Value::as_f64).unwrap_or(1.0);
        let width = map.get("hidden_size").and_then(Value::as_f64).unwrap_or(0.0) / heads;
        let head = map.get("head_dim").and_then(Value::as_f64).unwrap_or(width);
        map.insert("partial_rotary_factor".into(), json!(n as f64 / head));
    }
    if let Some(scale) = metadata.optional::<f64>(&format!("{arch}.logit_scale"))? {
        map.insert("logits_scaling".into(), json!(scale));
    }
    // No window is written as one of 0.
    if map.get("sliding_window").is_some_and(|window| *window == json!(0)) {
        map.remove("sliding_window");
    }
    // One name for two: the third OLMo has windows, the second has none.
    let third_olmo = arch == "olmo2" && map.contains_key("sliding_window");
    let class = if third_olmo { "Olmo3ForCausalLM" } else { class };
    map.insert("architectures".into(), json!([class]));
    if third_olmo
        && let Some(GgufValue::Array(GgufArray::Bool(windows))) =
            metadata.value(&format!("{arch}.attention.sliding_window_pattern"))
    {
        let kind = |window: &bool| if *window { "sliding_attention" } else { "full_attention" };
        map.insert("layer_types".into(), windows.iter().map(kind).collect());
    }
    scaling(file, arch, &mut map)?;
    gemma(arch, &mut map);

    let heads = |name: &str| map.get(name).and_then(Value::as_u64).map(|n| n as usize);
    let all = heads("num_attention_heads");
    // Rows of queries and keys lie so that neighbours are rotated, in this architecture alone.
    let permuted = matches!(arch, "llama" | "mistral" | "granite" | "smollm3");
    let mut tensors = BTreeMap::new();
    let factors = |name: &str| SHORT_AND_LONG.contains(&name);
    for t in file.tensors().iter().filter(|t| !factors(&t.name)) {
        let name = hugging_face_name(&t.name, class);
        let heads = match (permuted, t.name.contains(".attn_q."), t.name.contains(".attn_k.")) {
            (true, true, _) => all,
            (true, _, true) => heads("num_key_value_heads").or(all),
            _ => None,
        };
        tensors.insert(name, (t.name.clone(), heads));
    }
    Ok((HfConfig::from_map(map), GgufSource { file, tensors }))
}

/// The name that a tensor has in Hugging Face's checkpoint; its own if it is of none.
fn hugging_face_name(name: &str, class: &str) -> String {
    match name {
        "token_embd.weight" => return "model.embed_tokens.weight".into(),
        "output_norm.weight" => return "model.norm.weight".into(),
        "output.weight" => return "lm_head.weight".into(),
        _ => {}
    }
    let parts = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let Some((layer, (part, kind))) = parts.and_then(|(l, rest)| Some((l, rest.rsplit_once('.')?))) else {
        return name.into();
    };
    match layer_names(class).into_iter().find(|(_, gguf)| *gguf == part) {
        Some((hf, _)) => format!("model.layers.{layer}.{hf}.{kind}"),
        None => name.into(),
    }
}

/// Factors of wavelengths, as tensors of the whole model: one list (Llama 3.1), or two, for texts of up to the
/// original context and longer ones (Phi 3).
const FACTORS: &str = "rope_freqs.weight";
const SHORT_AND_LONG: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];

/// Stretched wavelengths: as a kind with a factor, or as a factor for each pair of dimensions.
fn scaling(file: &GgufFile, arch: &str, map: &mut Map<String, Value>) -> Result<(), PretrainedError> {
    let metadata = file.metadata();
    let key = |name: &str| format!("{arch}.rope.scaling.{name}");
    let context = metadata.optional::<u64>(&key("original_context_length"))?;
    if file.get(FACTORS).is_some() {
        let factors = file.read_f32(FACTORS)?;
        map.insert(
            "rope_scaling".into(),
            json!({ "rope_type": "longrope", "short_factor": factors, "long_factor": factors,
                    "attention_factor": 1.0 }),
        );
        return Ok(());
    }
    if SHORT_AND_LONG.iter().any(|name| file.get(name).is_some()) {
        let [short, long] = SHORT_AND_LONG.map(|name| match file.get(name) {
            Some(_) => Ok(file.read_f32(name)?),
            None => Err(mistaken(name, "not there", "the other list of factors")),
        });
        let mut scaling = Map::from_iter([
            ("rope_type".to_string(), json!("longrope")),
            ("short_factor".to_string(), json!(short?)),
            ("long_factor".to_string(), json!(long?)),
        ]);
        map.extend(context.map(|context| ("original_max_position_embeddings".to_string(), json!(context))));
        let attention = metadata.optional::<f64>(&key("attn_factor"))?;
        scaling.extend(attention.map(|factor| ("attention_factor".to_string(), json!(factor))));
        map.insert("rope_scaling".into(), Value::Object(scaling));
        return Ok(());
    }
    // Older files name no kind, or the factor otherwise; one of 0 is none.
    let kind = metadata.optional::<&str>(&key("type"))?.unwrap_or("linear");
    let factor = match metadata.optional::<f64>(&key("factor"))? {
        None => metadata.optional::<f64>(&format!("{arch}.rope.scale_linear"))?,
        given => given,
    };
    let factor = factor.filter(|factor| *factor != 0.0);
    if kind == "none" || (kind == "linear" && factor.is_none()) {
        return Ok(());
    }
    let mut scaling = Map::from_iter([("rope_type".to_string(), json!(kind))]);
    scaling.extend(factor.map(|factor| ("factor".to_string(), json!(factor))));
    if let Some(context) = context {
        scaling.insert("original_max_position_embeddings".into(), json!(context));
    }
    for (from, to) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
        let beta = metadata.optional::<f64>(&key(from))?;
        scaling.extend(beta.map(|beta| (to.to_string(), json!(beta))));
    }
    // llama.cpp multiplies what the paper has by it; for OLMo its converter writes Hugging Face's as it is.
    if let (Some(more), Some(factor)) = (metadata.optional::<f64>(&key("attn_factor"))?, scaling.get("factor")) {
        let paper = match arch {
            "olmo2" => 1.0,
            _ => 1.0 + 0.1 * factor.as_f64().unwrap_or(1.0).max(1.0).ln(),
        };
        scaling.insert("attention_factor".into(), json!(more * paper));
    }
    map.insert("rope_scaling".into(), Value::Object(scaling));
    Ok(())
}

/// What llama.cpp knows of Gemma by its size: the largest of the second and third have scores scaled by the
/// width of the stream over the number of heads.
fn gemma(arch: &str, map: &mut Map<String, Value>) {
    let size = |name: &str| map.get(name).and_then(Value::as_u64);
    let largest = matches!((arch, size("num_hidden_layers")), ("gemma2", Some(46)) | ("gemma3", Some(62)));
    let scalar = match (largest, size("hidden_size"), size("num_attention_heads"), size("head_dim")) {
        (true, Some(width), Some(heads), _) if heads > 0 => width / heads,
        (_, _, _, Some(head)) => head,
        _ => return,
    };
    if arch.starts_with("gemma") {
        map.insert("query_pre_attn_scalar".into(), json!(scalar));
    }
}

impl Source for GgufSource<'_> {
    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let shape = |name: &str| self.file.get(name).map(|t| t.shape.clone()).unwrap_or_default();
        self.tensors.iter().map(|(hf, (name, _))| (hf.clone(), shape(name))).collect()
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, FileError> {
        let (own, heads) = &self.tensors[name];
        let values = self.file.read_f32(own)?;
        let Some(heads) = *heads else { return Ok(values) };
        let shape = self.file.get(own).map(|t| t.shape.clone()).unwrap_or_default();
        Ok(halves_again(&values, &shape, heads))
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, width: usize) -> Result<Vec<f32>, FileError> {
        let (own, heads) = &self.tensors[name];
        debug_assert!(heads.is_none(), "rows of queries and keys are not read apart");
        let mut out = vec![0.0; rows.len() * width];
        self.file.read_rows_into(own, rows, &mut out)?;
        Ok(out)
    }
}

/// Rows `[head, h / 2, 2]` in the order `[head, 2, h / 2]`: pairs from the two halves of a head, as they were
/// before llama.cpp made them neighbours. Rows that do not divide so stay.
fn halves_again(values: &[f32], shape: &[usize], heads: usize) -> Vec<f32> {
    let rows = shape.first().copied().unwrap_or(0);
    if heads == 0 || !rows.is_multiple_of(2 * heads) || rows == 0 {
        return values.to_vec();
    }
    let (width, half) = (values.len() / rows, rows / heads / 2);
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for (part, pair) in (0..2).flat_map(|part| (0..half).map(move |pair| (part, pair))) {
            let row = head * 2 * half + 2 * pair + part;
            out.extend_from_slice(&values[row * width..(row + 1) * width]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_head_return_to_halves() {
        // Two heads of four rows: pairs (0, 2) and (1, 3) had become neighbours.
        let rows = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        assert_eq!(halves_again(&rows, &[8, 1], 2), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn names_are_hugging_faces() {
        let name = |n| hugging_face_name(n, "LlamaForCausalLM");
        assert_eq!(name("blk.11.attn_q.weight"), "model.layers.11.self_attn.q_proj.weight");
        assert_eq!(name("blk.0.ffn_norm.weight"), "model.layers.0.post_attention_layernorm.weight");
        assert_eq!(name("output_norm.weight"), "model.norm.weight");
        let gemma = hugging_face_name("blk.3.ffn_norm.weight", "Gemma3ForCausalLM");
        assert_eq!(gemma, "model.layers.3.pre_feedforward_layernorm.weight");
    }
}
