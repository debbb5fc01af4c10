//! Configurations as JSON, in the names and values of TransformerLens's `to_dict`.
//!
//! One table says which fields there are and how each is written; reading, writing and the "did you mean" of an
//! unknown name all come from it.

use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::error::{ConfigError, invalid, nearest};
use super::{
    ActFn, AttentionDir, AttnType, Config, InitMode, NormalizationType, PositionalEmbeddingType, QkNormType,
    RopeScaling,
};

/// How a field's value is written.
trait Form<T> {
    /// What the field must be, for an error message.
    fn expected() -> String;
    /// The value, or `None` if it is of another kind.
    fn read(value: &Value) -> Option<T>;
    fn write(field: &T) -> Value;
}

/// A size that must be given.
struct Size;
/// A size that is -1 in TransformerLens while it is not given.
struct SizeOrMinusOne;
/// A size that is `None` in TransformerLens while it is not given.
struct SizeOrNull;
/// Truth values, numbers, names, and those of them that may be null.
struct Plain;
/// A number that is written as an integer where it is one.
struct Base;
/// A list of names, null where it is empty.
struct ListOrNull;

fn read_size(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}

impl Form<usize> for Size {
    fn expected() -> String {
        "a whole number".into()
    }
    fn read(value: &Value) -> Option<usize> {
        read_size(value)
    }
    fn write(field: &usize) -> Value {
        json!(field)
    }
}

impl Form<usize> for SizeOrMinusOne {
    fn expected() -> String {
        "a whole number, or -1 for the default".into()
    }
    fn read(value: &Value) -> Option<usize> {
        if value.is_null() || *value == json!(-1) { Some(0) } else { read_size(value) }
    }
    fn write(field: &usize) -> Value {
        if *field == 0 { json!(-1) } else { json!(field) }
    }
}

impl Form<usize> for SizeOrNull {
    fn expected() -> String {
        "a whole number, or null for the default".into()
    }
    fn read(value: &Value) -> Option<usize> {
        <SizeOrMinusOne as Form<usize>>::read(value)
    }
    fn write(field: &usize) -> Value {
        if *field == 0 { Value::Null } else { json!(field) }
    }
}

impl Form<bool> for Plain {
    fn expected() -> String {
        "true or false".into()
    }
    fn read(value: &Value) -> Option<bool> {
        value.as_bool()
    }
    fn write(field: &bool) -> Value {
        json!(field)
    }
}

impl Form<f64> for Plain {
    fn expected() -> String {
        "a number".into()
    }
    fn read(value: &Value) -> Option<f64> {
        value.as_f64()
    }
    fn write(field: &f64) -> Value {
        json!(field)
    }
}

impl Form<String> for Plain {
    fn expected() -> String {
        "text".into()
    }
    fn read(value: &Value) -> Option<String> {
        value.as_str().map(String::from)
    }
    fn write(field: &String) -> Value {
        json!(field)
    }
}

impl Form<u64> for Plain {
    fn expected() -> String {
        "a whole number".into()
    }
    fn read(value: &Value) -> Option<u64> {
        value.as_u64()
    }
    fn write(field: &u64) -> Value {
        json!(field)
    }
}

impl Form<f64> for Base {
    fn expected() -> String {
        "a number".into()
    }
    fn read(value: &Value) -> Option<f64> {
        value.as_f64()
    }
    fn write(field: &f64) -> Value {
        // Up to 2^53 every whole f64 is that integer and no other.
        if field.fract() == 0.0 && field.abs() <= 9.0e15 { json!(*field as i64) } else { json!(field) }
    }
}

macro_rules! optional {
    ($($form:ident of $inner:ty),+) => { $(
        impl Form<Option<$inner>> for $form {
            fn expected() -> String {
                format!("{}, or null", <$form as Form<$inner>>::expected())
            }
            fn read(value: &Value) -> Option<Option<$inner>> {
                if value.is_null() { Some(None) } else { <$form as Form<$inner>>::read(value).map(Some) }
            }
            fn write(field: &Option<$inner>) -> Value {
                field.as_ref().map_or(Value::Null, <$form as Form<$inner>>::write)
            }
        }
    )+ };
}
optional!(Plain of bool, Plain of u64, Plain of f64, Plain of String, Plain of RopeScaling, Base of f64);

macro_rules! by_name {
    ($($choice:ident),+) => { $(
        impl Form<$choice> for Plain {
            fn expected() -> String {
                $choice::listed()
            }
            fn read(value: &Value) -> Option<$choice> {
                $choice::ALL.iter().find(|c| c.name() == value.as_str() && (value.is_string() || value.is_null())).copied()
            }
            fn write(field: &$choice) -> Value {
                json!(field.name())
            }
        }
    )+ };
}
by_name!(ActFn, AttentionDir, AttnType, InitMode, NormalizationType, PositionalEmbeddingType, QkNormType);

impl Form<Vec<AttnType>> for ListOrNull {
    fn expected() -> String {
        format!("a list, each entry {}, or null", AttnType::listed())
    }
    fn read(value: &Value) -> Option<Vec<AttnType>> {
        if value.is_null() {
            return Some(Vec::new());
        }
        value.as_array()?.iter().map(<Plain as Form<AttnType>>::read).collect()
    }
    fn write(field: &Vec<AttnType>) -> Value {
        if field.is_empty() { Value::Null } else { field.iter().map(<Plain as Form<AttnType>>::write).collect() }
    }
}

macro_rules! lists {
    ($($element:ty: $expected:literal, $read:expr;)+) => { $(
        impl Form<Vec<$element>> for Plain {
            fn expected() -> String {
                concat!("a list of ", $expected).into()
            }
            fn read(value: &Value) -> Option<Vec<$element>> {
                value.as_array()?.iter().map($read).collect()
            }
            fn write(field: &Vec<$element>) -> Value {
                json!(field)
            }
        }
    )+ };
}
lists! {
    f64: "numbers", Value::as_f64;
    usize: "whole numbers", read_size;
}

/// As Hugging Face writes it in a `config.json`.
impl Form<RopeScaling> for Plain {
    fn expected() -> String {
        "an object with rope_type linear, llama3, yarn or longrope and that type's numbers".into()
    }
    fn read(value: &Value) -> Option<RopeScaling> {
        let number = |name: &str| value.get(name).and_then(Value::as_f64);
        let context = || value.get("original_max_position_embeddings").and_then(read_size);
        let factors = |name: &str| <Plain as Form<Vec<f64>>>::read(value.get(name)?);
        Some(match value.get("rope_type")?.as_str()? {
            "linear" => RopeScaling::Linear { factor: number("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: number("factor")?,
                low: number("low_freq_factor")?,
                high: number("high_freq_factor")?,
                context: context()?,
            },
            "yarn" => RopeScaling::Yarn {
                factor: number("factor")?,
                beta_fast: number("beta_fast")?,
                beta_slow: number("beta_slow")?,
                context: context()?,
                truncate: value.get("truncate")?.as_bool()?,
                attention_factor: number("attention_factor")?,
            },
            "longrope" => RopeScaling::LongRope {
                short: factors("short_factor")?,
                long: factors("long_factor")?,
                context: context()?,
                attention_factor: number("attention_factor")?,
            },
            _ => return None,
        })
    }
    fn write(field: &RopeScaling) -> Value {
        match field {
            RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
            RopeScaling::Llama3 { factor, low, high, context } => json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": context,
            }),
            RopeScaling::Yarn { factor, beta_fast, beta_slow, context, truncate, attention_factor } => json!({
                "rope_type": "yarn", "factor": factor, "beta_fast": beta_fast, "beta_slow": beta_slow,
                "original_max_position_embeddings": context, "truncate": truncate,
                "attention_factor": attention_factor,
            }),
            RopeScaling::LongRope { short, long, context, attention_factor } => json!({
                "rope_type": "longrope", "short_factor": short, "long_factor": long,
                "original_max_position_embeddings": context, "attention_factor": attention_factor,
            }),
        }
    }
}

/// The table of fields, in TransformerLens's order; then those that it has not.
macro_rules! fields {
    (transformer_lens { $($name:ident: $form:ident,)+ } beyond { $($beyond:ident: $beyond_form:ident,)+ }) => {
        const FIELDS: &[&str] = &[$(stringify!($name),)+ $(stringify!($beyond)),+];

        /// Sets the field of this name; false if there is none.
        fn set(cfg: &mut Config, name: &str, value: &Value) -> Result<bool, ConfigError> {
            match name {
                $(stringify!($name) => cfg.$name = read_as::<$form, _>(name, value)?,)+
                $(stringify!($beyond) => cfg.$beyond = read_as::<$beyond_form, _>(name, value)?,)+
                _ => return Ok(false),
            }
            Ok(true)
        }

        fn entries(cfg: &Config) -> Vec<(&'static str, Value)> {
            vec![$((stringify!($name), <$form as Form<_>>::write(&cfg.$name))),+]
        }

        /// What TransformerLens 2.18 does not know, where it is not at its default.
        fn entries_beyond(cfg: &Config) -> Vec<(&'static str, Value)> {
            let default = Config::default();
            let mut entries = Vec::new();
            $(if cfg.$beyond != default.$beyond {
                entries.push((stringify!($beyond), <$beyond_form as Form<_>>::write(&cfg.$beyond)));
            })+
            entries
        }
    };
}
fields! {
    transformer_lens {
        n_layers: Size,
        d_model: Size,
        n_ctx: Size,
        d_head: Size,
        model_name: Plain,
        n_heads: SizeOrMinusOne,
        d_mlp: SizeOrNull,
        act_fn: Plain,
        d_vocab: SizeOrMinusOne,
        eps: Plain,
        use_attn_result: Plain,
        use_attn_scale: Plain,
        attn_scale: Plain,
        use_split_qkv_input: Plain,
        use_hook_mlp_in: Plain,
        use_attn_in: Plain,
        use_qk_norm: Plain,
        use_local_attn: Plain,
        ungroup_grouped_query_attention: Plain,
        original_architecture: Plain,
        from_checkpoint: Plain,
        checkpoint_index: Plain,
        checkpoint_label_type: Plain,
        checkpoint_value: Plain,
        tokenizer_name: Plain,
        window_size: SizeOrNull,
        attn_types: ListOrNull,
        init_mode: Plain,
        normalization_type: Plain,
        attention_dir: Plain,
        attn_only: Plain,
        seed: Plain,
        initializer_range: Plain,
        init_weights: Plain,
        scale_attn_by_inverse_layer_idx: Plain,
        positional_embedding_type: Plain,
        final_rms: Plain,
        d_vocab_out: SizeOrMinusOne,
        parallel_attn_mlp: Plain,
        rotary_dim: SizeOrNull,
        use_hook_tokens: Plain,
        gated_mlp: Plain,
        default_prepend_bos: Plain,
        tokenizer_prepends_bos: Plain,
        n_key_value_heads: SizeOrNull,
        post_embedding_ln: Plain,
        rotary_base: Base,
        rotary_base_local: Base,
        rotary_adjacent_pairs: Plain,
        use_normalization_before_and_after: Plain,
        attn_scores_soft_cap: Plain,
        output_logits_soft_cap: Plain,
        use_NTK_by_parts_rope: Plain,
        NTK_by_parts_low_freq_factor: Plain,
        NTK_by_parts_high_freq_factor: Plain,
        NTK_by_parts_factor: Plain,
        NTK_original_ctx_len: Size,
        num_experts: SizeOrNull,
        experts_per_token: SizeOrNull,
    }
    beyond {
        norm_topk_prob: Plain,
        d_shared_expert: SizeOrNull,
        dense_layers: Plain,
        d_mlp_dense: SizeOrNull,
        gpt_oss_experts: Plain,
        gate_bias: Plain,
        use_normalization_after_only: Plain,
        qk_norm_type: Plain,
        clip_qkv: Plain,
        attn_sinks: Plain,
        alibi_slopes: Plain,
        alibi_bf16: Plain,
        no_rope_layers: Plain,
        rope_scaling: Plain,
        rope_scaling_global_only: Plain,
    }
}

/// Fields of TransformerLens 2.18 and 3.5 that say nothing about the model here: it counts its own parameters, a
/// device belongs to tensors, and YaRN's details only matter beside a field that is refused.
const IGNORED: &[&str] = &[
    "n_params",
    "device",
    "trust_remote_code",
    "layer_norm_folding",
    "yarn_factor",
    "yarn_attention_factor",
    "yarn_beta_fast",
    "yarn_beta_slow",
    "yarn_original_max_position_embeddings",
];

/// Fields of TransformerLens 2.18 and 3.5 that are accepted only at their default, and the way out otherwise.
fn unsupported(name: &str) -> Option<(Value, &'static str)> {
    const T5: &str = "it belongs to encoder-decoder models (T5); set it to null";
    Some(match name {
        "relative_attention_max_distance" | "relative_attention_num_buckets" | "decoder_start_token_id" => {
            (Value::Null, T5)
        }
        "tie_word_embeddings" => {
            (json!(false), "W_E and W_U are separate parameters, as in HookedTransformer; set it to false")
        }
        "load_in_4bit" => (json!(false), "weights are float32; convert them and set it to false"),
        "n_devices" => (json!(1), "a model lives on one device; set it to 1"),
        "rotary_scaling_factor" => {
            (json!(1.0), "give rope_scaling {\"rope_type\": \"linear\", \"factor\": ..} instead")
        }
        "use_yarn_rope" => (json!(false), "give rope_scaling {\"rope_type\": \"yarn\", ..} instead"),
        "uses_rms_norm" => (json!(false), "set normalization_type to \"RMS\" instead"),
        _ => return None,
    })
}

/// The names [`unsupported`] knows, for the "did you mean" of an unknown one.
const UNSUPPORTED: &[&str] = &[
    "relative_attention_max_distance",
    "relative_attention_num_buckets",
    "decoder_start_token_id",
    "tie_word_embeddings",
    "load_in_4bit",
    "n_devices",
    "rotary_scaling_factor",
    "use_yarn_rope",
    "uses_rms_norm",
];

/// Reads a value in a form; the error says what was given, and which name it may have been meant for.
fn read_as<F: Form<T>, T>(field: &str, value: &Value) -> Result<T, ConfigError> {
    if let Some(read) = F::read(value) {
        return Ok(read);
    }
    let expected = F::expected();
    let hint = match (field, value.as_str()) {
        ("positional_embedding_type", Some("relative_positional_bias")) => {
            "relative positions belong to encoder-decoder models (T5)".into()
        }
        (_, Some(text)) => match nearest(text, expected.split(['[', ']', ',', ' '])) {
            Some(name) if name.len() > 2 => format!("did you mean {name:?}?"),
            _ => "correct the value, or leave the field out for its default".into(),
        },
        _ => "correct the value, or leave the field out for its default".into(),
    };
    Err(invalid(field, shortened(value), expected, hint))
}

/// A value as an error message shows it.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl Config {
    /// Reads a configuration from a JSON object of TransformerLens's fields (2.18 or 3.5); those left out have
    /// their defaults. The result is as the text says: call [`resolved`](Config::resolved) to fill in and check.
    ///
    /// From Python, `json.dumps({k: v for k, v in model.cfg.to_dict().items() if k != "dtype"})` writes such a text.
    ///
    /// # Errors
    /// Text that is not a JSON object, a field nobody knows, a value of the wrong kind, and a field whose effect is
    /// not implemented at a value other than its default; each names the field, the value and the way out.
    pub fn from_json(text: &str) -> Result<Config, ConfigError> {
        let map: Map<String, Value> = serde_json::from_str(text).map_err(|e| ConfigError::Json(e.to_string()))?;
        Config::from_map(&map)
    }

    /// Writes the configuration as an indented JSON object, every field by TransformerLens's name and in its value,
    /// so that `HookedTransformerConfig.from_dict(json.load(file))` reads it in Python. The device and the element
    /// type are left out: TransformerLens chooses them.
    pub fn to_json(&self) -> String {
        // An object of strings and plain values cannot fail to be written.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    fn from_map(map: &Map<String, Value>) -> Result<Config, ConfigError> {
        let mut cfg = Config::default();
        for (name, value) in map {
            if set(&mut cfg, name, value)? || IGNORED.contains(&name.as_str()) {
                continue;
            }
            if name == "dtype" {
                match value.as_str() {
                    Some("float32" | "torch.float32") => continue,
                    _ => {
                        return Err(ConfigError::Unsupported {
                            field: name.clone(),
                            value: shortened(value),
                            hint: "weights are float32; convert them and leave the field out".into(),
                        });
                    }
                }
            }
            match unsupported(name) {
                // 1 and 1.0 are the same default.
                Some((default, _))
                    if *value == default || value.as_f64().is_some_and(|v| default.as_f64() == Some(v)) => {}
                Some((_, hint)) => {
                    return Err(ConfigError::Unsupported {
                        field: name.clone(),
                        value: shortened(value),
                        hint: hint.into(),
                    });
                }
                None => {
                    let known = FIELDS.iter().chain(IGNORED).chain(UNSUPPORTED).copied().chain(["dtype"]);
                    let nearest = nearest(name, known).map(String::from);
                    return Err(ConfigError::UnknownField { field: name.chars().take(80).collect(), nearest });
                }
            }
        }
        Ok(cfg)
    }
}

impl Serialize for Config {
    /// As [`to_json`](Config::to_json): the fields of this struct, then those accepted at their defaults only.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in entries(self) {
            map.serialize_entry(name, &value)?;
        }
        // What TransformerLens 2.18's to_dict has besides; 3.5's names would be unknown to 2.18.
        for name in UNSUPPORTED.iter().take(5) {
            let (default, _) = unsupported(name).ok_or_else(|| S::Error::custom("a name that is not in the table"))?;
            map.serialize_entry(name, &default)?;
        }
        for (name, value) in entries_beyond(self) {
            map.serialize_entry(name, &value)?;
        }
        map.serialize_entry("trust_remote_code", &false)?;
        map.serialize_entry("n_params", &self.n_params())?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Config {
    /// As [`from_json`](Config::from_json).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = Map::<String, Value>::deserialize(deserializer)?;
        Config::from_map(&map).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TransformerLens's `to_dict` gives for a small Llama, without device and element type.
    const LLAMA: &str = r#"{
        "NTK_by_parts_factor": 8.0, "NTK_by_parts_high_freq_factor": 4.0, "NTK_by_parts_low_freq_factor": 1.0,
        "NTK_original_ctx_len": 8192, "act_fn": "silu", "attention_dir": "causal", "attn_only": false,
        "attn_scale": 2.8284271247461903, "attn_scores_soft_cap": -1.0, "attn_types": ["global", "local"],
        "checkpoint_index": null, "checkpoint_label_type": null, "checkpoint_value": null, "d_head": 8, "d_mlp": 64,
        "d_model": 32, "d_vocab": 29, "d_vocab_out": 29, "decoder_start_token_id": null,
        "default_prepend_bos": true, "eps": 1e-05, "experts_per_token": null, "final_rms": true,
        "from_checkpoint": false, "gated_mlp": true, "init_mode": "gpt2", "init_weights": true,
        "initializer_range": 0.1414213562373095, "load_in_4bit": false, "model_name": "custom", "n_ctx": 16,
        "n_heads": 4, "n_key_value_heads": 2, "n_layers": 2, "n_params": 20480, "normalization_type": "RMS",
        "num_experts": null, "original_architecture": null, "output_logits_soft_cap": -1.0,
        "parallel_attn_mlp": false, "positional_embedding_type": "rotary", "post_embedding_ln": false,
        "relative_attention_max_distance": null, "relative_attention_num_buckets": null,
        "rotary_adjacent_pairs": false, "rotary_base": 10000, "rotary_base_local": null, "rotary_dim": 8,
        "scale_attn_by_inverse_layer_idx": false, "seed": 11, "tie_word_embeddings": false, "tokenizer_name": null,
        "tokenizer_prepends_bos": null, "trust_remote_code": false, "ungroup_grouped_query_attention": false,
        "use_NTK_by_parts_rope": false, "use_attn_in": false, "use_attn_result": false, "use_attn_scale": true,
        "use_hook_mlp_in": false, "use_hook_tokens": false, "use_local_attn": false,
        "use_normalization_before_and_after": false, "use_qk_norm": false, "use_split_qkv_input": false,
        "window_size": null
    }"#;

    #[test]
    fn a_transformerlens_dictionary_is_read_and_written_without_loss() {
        let cfg = Config::from_json(LLAMA).unwrap();
        assert_eq!((cfg.n_heads, cfg.n_key_value_heads, cfg.window_size), (4, 2, 0));
        assert_eq!(cfg.attn_types, [AttnType::Global, AttnType::Local]);
        assert_eq!(cfg.attn_scale.to_bits(), 8f64.sqrt().to_bits());
        let given: Map<String, Value> = serde_json::from_str(LLAMA).unwrap();
        let written: Map<String, Value> = serde_json::from_str(&cfg.to_json()).unwrap();
        assert_eq!(written, given);
        assert_eq!(Config::from_json(&cfg.to_json()).unwrap(), cfg);
    }

    #[test]
    fn unset_fields_have_transformerlens_sentinels() {
        let text = serde_json::to_value(Config::default()).unwrap();
        for (field, value) in [
            ("n_heads", json!(-1)),
            ("d_vocab_out", json!(-1)),
            ("d_mlp", Value::Null),
            ("act_fn", Value::Null),
            ("rotary_base", json!(10000)),
            ("attn_scale", json!(-1.0)),
            ("attn_types", Value::Null),
        ] {
            assert_eq!(text[field], value, "{field}");
        }
        assert_eq!(Config::from_json("{}").unwrap(), Config::default());
        assert_eq!(Config::from_json(&Config::default().to_json()).unwrap(), Config::default());
        let set = Config { normalization_type: NormalizationType::None, rotary_base: 1e6, ..Config::default() };
        assert_eq!(Config::from_json(&set.to_json()).unwrap(), set);
    }

    #[test]
    fn numbers_read_back_to_the_last_bit() {
        for d in 1..1000 {
            let root = f64::from(d).sqrt();
            let cfg = Config { attn_scale: root, initializer_range: 0.8 / root, ..Config::default() };
            assert_eq!(Config::from_json(&cfg.to_json()).unwrap(), cfg);
        }
    }

    /// A configuration with every field that TransformerLens does not have off its default, but for the rotation's.
    fn beyond() -> Config {
        Config {
            num_experts: 4,
            experts_per_token: 2,
            norm_topk_prob: false,
            d_shared_expert: 5,
            dense_layers: vec![0, 2],
            d_mlp_dense: 7,
            gpt_oss_experts: true,
            gate_bias: true,
            use_normalization_after_only: true,
            qk_norm_type: QkNormType::LayerNormPerHead,
            clip_qkv: Some(0.1 + 0.2),
            attn_sinks: true,
            alibi_slopes: vec![0.1, 1.0 / 3.0],
            alibi_bf16: true,
            no_rope_layers: vec![3],
            rope_scaling_global_only: true,
            ..Config::default()
        }
    }

    #[test]
    fn fields_beyond_transformerlens_read_back_and_are_absent_at_their_defaults() {
        const BEYOND: usize = 15;
        let names = |cfg: &Config| {
            let map: Map<String, Value> = serde_json::from_str(&cfg.to_json()).unwrap();
            map.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        let (none, mut all) = (names(&Config::default()), beyond());
        for scaling in [
            RopeScaling::Linear { factor: 1.0 / 3.0 },
            RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.5, context: 8192 },
            RopeScaling::Yarn {
                factor: 32.0,
                beta_fast: 31.5,
                beta_slow: 1.0,
                context: 4096,
                truncate: false,
                attention_factor: 1.3465735902799727,
            },
            RopeScaling::LongRope {
                short: vec![1.0, 0.1 + 0.2],
                long: vec![2.0, 1e-3],
                context: 4096,
                attention_factor: 1.19,
            },
        ] {
            all.rope_scaling = Some(scaling);
            assert_eq!(Config::from_json(&all.to_json()).unwrap(), all);
            assert_eq!(serde_json::from_value::<Config>(serde_json::to_value(&all).unwrap()).unwrap(), all);
        }
        let given = names(&all);
        let more: Vec<&String> = given.iter().filter(|name| !none.contains(name)).collect();
        assert_eq!(more.len(), BEYOND, "{more:?}");
        for name in &more {
            assert!(FIELDS.contains(&name.as_str()), "{name}");
        }
        // One at a time: only what is not at its default is written.
        let sinks = names(&Config { attn_sinks: true, ..Config::default() });
        assert_eq!(sinks.iter().filter(|name| !none.contains(name)).collect::<Vec<_>>(), ["attn_sinks"]);
    }

    #[test]
    fn fields_beyond_transformerlens_are_refused_in_another_kind() {
        refused(r#"{"norm_topk_prob": 1}"#, &["norm_topk_prob", "1", "true or false"]);
        refused(r#"{"dense_layers": [0, -1]}"#, &["dense_layers", "[0,-1]", "a list of whole numbers"]);
        refused(r#"{"no_rope_layers": 3}"#, &["no_rope_layers", "3", "a list of whole numbers"]);
        refused(r#"{"alibi_slopes": [0.5, "x"]}"#, &["alibi_slopes", "a list of numbers"]);
        refused(
            r#"{"qk_norm_type": "rms_of_al_heads"}"#,
            &["layer_norm_per_head", "did you mean \"rms_of_all_heads\""],
        );
        refused(r#"{"clip_qkv": "8"}"#, &["clip_qkv", "\"8\"", "a number, or null"]);
        refused(r#"{"d_shared_expert": 1.5}"#, &["d_shared_expert", "1.5", "a whole number"]);
        refused(r#"{"num_expert": 4}"#, &["did you mean `num_experts`"]);
        for scaling in [
            r#"{}"#,
            r#"{"rope_type": "linear"}"#,
            r#"{"rope_type": "ntk", "factor": 2.0}"#,
            r#"{"rope_type": "yarn", "factor": 2.0}"#,
            r#"{"rope_type": "longrope", "short_factor": [1], "long_factor": ["x"], "attention_factor": 1.0,
                "original_max_position_embeddings": 8}"#,
            r#"[2.0]"#,
        ] {
            let words = ["rope_scaling", "linear, llama3, yarn or longrope", "or null"];
            refused(&format!("{{\"rope_scaling\": {scaling}}}"), &words);
        }
    }

    #[track_caller]
    fn refused(text: &str, words: &[&str]) {
        let message = Config::from_json(text).expect_err("must be refused").to_string();
        for word in words {
            assert!(message.contains(word), "{message:?} does not say {word:?}");
        }
    }

    #[test]
    fn unknown_fields_are_refused_with_the_nearest_known_one() {
        refused(r#"{"n_layer": 2}"#, &["n_layer", "did you mean `n_layers`"]);
        refused(r#"{"use_ntk_by_parts_rope": true}"#, &["did you mean `use_NTK_by_parts_rope`"]);
        refused(r#"{"zzzzzzzzzzzz": 2}"#, &["zzzzzzzzzzzz"]);
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused() {
        refused(r#"{"d_model": -3}"#, &["d_model", "-3", "whole number"]);
        refused(r#"{"d_model": 2.5}"#, &["d_model", "2.5", "whole number"]);
        refused(r#"{"gated_mlp": "yes"}"#, &["gated_mlp", "yes", "true or false"]);
        refused(r#"{"act_fn": "gelo"}"#, &["act_fn", "gelu_new", "did you mean \"gelu\""]);
        refused(r#"{"attention_dir": null}"#, &["attention_dir", "null", "bidirectional"]);
        refused(r#"{"attn_types": ["local", "far"]}"#, &["attn_types", "far", "global"]);
        refused(r#"{"positional_embedding_type": "relative_positional_bias"}"#, &["relative_positional_bias", "T5"]);
        refused("[1, 2]", &["JSON object"]);
        refused("{", &["JSON object"]);
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name_and_accepted_at_its_default() {
        for (field, default, other) in [
            ("load_in_4bit", "false", "true"),
            ("rotary_scaling_factor", "1", "8.0"),
            ("use_yarn_rope", "false", "true"),
            ("n_devices", "1", "2"),
            ("dtype", "\"torch.float32\"", "\"torch.bfloat16\""),
            ("tie_word_embeddings", "false", "true"),
        ] {
            assert_eq!(Config::from_json(&format!("{{{field:?}: {default}}}")).unwrap(), Config::default());
            refused(&format!("{{{field:?}: {other}}}"), &[field, "not supported"]);
        }
        for name in UNSUPPORTED {
            assert!(unsupported(name).is_some(), "{name}");
        }
        for field in ["device", "yarn_factor"] {
            assert!(Config::from_json(&format!("{{{field:?}: 3}}")).is_ok(), "{field}");
        }
    }
}
