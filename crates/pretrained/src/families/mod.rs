//! The families: for each, what its `config.json` means, and which of its tensors is which weight.

use ironlens_transformer::config::{ActFn, AttnType, Config, NormalizationType, PositionalEmbeddingType, RopeScaling};
use serde_json::Value;

use crate::conversion::Conversion;
use crate::error::PretrainedError;
use crate::hf::{HfConfig, mistaken};

mod apertus;
pub(crate) mod bert;
mod bloom;
mod cohere;
mod falcon;
mod gemma;
mod glm;
mod gpt2;
mod gpt_bigcode;
mod gpt_neo;
mod gpt_neox;
mod gpt_oss;
mod gptj;
mod granite;
mod llama;
mod mistral;
mod mixtral;
pub(crate) mod nano_gpt;
mod nemotron;
mod olmo;
mod opt;
mod phi;
mod qwen;
mod qwen1;
mod smollm3;
mod stablelm;
mod starcoder2;

#[cfg(test)]
mod tests;

type Read<T> = Result<T, PretrainedError>;

/// A family of models.
pub(crate) struct Family {
    /// For people.
    pub name: &'static str,
    /// Hugging Face's classes, as `architectures` in a `config.json` has them.
    pub architectures: &'static [&'static str],
    /// What the names of tensors begin with where the model has a head, and may not where it has none.
    pub prefix: &'static str,
    /// Other names that files have for a setting, and the one that is read here.
    pub names: &'static [(&'static str, &'static str)],
    /// What `config.json` may leave out, as an object of JSON: the values that Hugging Face's class has by itself. The
    /// width is not among them, so that a file of little else is told by what it lacks.
    pub defaults: &'static str,
    /// The model's configuration.
    pub config: fn(&HfConfig) -> Read<Config>,
    /// Writes every weight.
    pub tensors: fn(&mut Conversion<'_>) -> Read<()>,
}

/// Every family, by name.
pub(crate) const FAMILIES: &[Family] = &[
    apertus::FAMILY,
    bloom::FAMILY,
    cohere::FAMILY,
    cohere::FAMILY_2,
    falcon::FAMILY,
    gemma::FAMILY,
    gemma::FAMILY_2,
    gemma::FAMILY_3,
    glm::FAMILY,
    gpt2::FAMILY,
    gpt_bigcode::FAMILY,
    gpt_bigcode::FAMILY_CUSTOM,
    gpt_neo::FAMILY,
    gpt_neox::FAMILY,
    gpt_oss::FAMILY,
    gptj::FAMILY,
    granite::FAMILY,
    llama::FAMILY,
    mistral::FAMILY,
    mixtral::FAMILY,
    nemotron::FAMILY,
    olmo::FAMILY,
    olmo::FAMILY_2,
    olmo::FAMILY_3,
    olmo::FAMILY_E,
    opt::FAMILY,
    phi::FAMILY,
    phi::FAMILY_3,
    qwen1::FAMILY,
    qwen::FAMILY_2,
    qwen::FAMILY_2_MOE,
    qwen::FAMILY_3,
    qwen::FAMILY_3_MOE,
    smollm3::FAMILY,
    stablelm::FAMILY,
    starcoder2::FAMILY,
];

/// Families of encoders.
pub(crate) const ENCODERS: &[Family] = &[bert::FAMILY];

/// Classes that are known and not read, by what their names begin with, and what there is instead.
const OTHERS: [(&str, &str); 13] = [
    ("T5", "encoder-decoder models are no HookedTransformer; there are decoders of its size, such as pythia-70m"),
    (
        "Bert",
        "of BERT those are read that guess words or next sentences, or have no head: BertForMaskedLM, \
         BertForPreTraining, BertForNextSentencePrediction and BertModel",
    ),
    ("DistilBert", "DistilBERT has half of BERT's layers and no token types; there is BERT, such as bert-base-uncased"),
    ("Roberta", "RoBERTa counts positions otherwise; there is BERT, such as bert-base-cased"),
    ("XLMRoberta", "XLM-RoBERTa counts positions otherwise; there is BERT, such as bert-base-cased"),
    ("Electra", "ELECTRA tells replaced words from others; there is BERT, such as bert-base-uncased"),
    ("Albert", "ALBERT shares one layer's weights; there is BERT, such as bert-base-uncased"),
    ("ModernBert", "ModernBERT rotates and has norms before; there is BERT, such as bert-base-uncased"),
    ("Hubert", "models of sound are out of scope; this library reads text"),
    ("Wav2Vec2", "models of sound are out of scope; this library reads text"),
    ("CLIP", "models of pictures are out of scope; this library reads text"),
    ("ViT", "models of pictures are out of scope; this library reads text"),
    (
        "Mamba",
        "state-space models have no attention to look at; there are transformers of its size, such as pythia-160m",
    ),
];

/// TransformerLens's names of models that are among [`OTHERS`], with their classes.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("facebook/hubert-base-ls960", "HubertModel"),
    ("facebook/wav2vec2-base", "Wav2Vec2ForPreTraining"),
    ("facebook/wav2vec2-large", "Wav2Vec2ForPreTraining"),
    ("google-t5/t5-small", "T5ForConditionalGeneration"),
    ("google-t5/t5-base", "T5ForConditionalGeneration"),
    ("google-t5/t5-large", "T5ForConditionalGeneration"),
];

/// Why the model of an official name is not read, if its name tells.
pub(crate) fn not_read(official: &str) -> Option<PretrainedError> {
    let (_, class) = OTHER_NAMES.iter().find(|(name, _)| *name == official)?;
    let hint = OTHERS.iter().find(|(start, _)| class.starts_with(start))?.1;
    Some(PretrainedError::Family { architecture: (*class).into(), hint: hint.into() })
}

/// The family of decoders that a configuration is of.
pub(crate) fn family_of(hf: &HfConfig) -> Read<&'static Family> {
    of(FAMILIES, hf, |encoder| match among(ENCODERS, encoder) {
        Some(_) => Some("it is an encoder, which HookedEncoder::from_pretrained reads"),
        None => None,
    })
}

/// The family of encoders that a configuration is of.
pub(crate) fn encoder_of(hf: &HfConfig) -> Read<&'static Family> {
    of(ENCODERS, hf, |decoder| match among(FAMILIES, decoder) {
        Some(_) => Some("it is a decoder, which HookedTransformer::from_pretrained reads"),
        None => None,
    })
}

/// Whether a configuration is one of an encoder.
pub(crate) fn is_encoder(hf: &HfConfig) -> bool {
    among(ENCODERS, hf).is_some()
}

fn among(families: &'static [Family], hf: &HfConfig) -> Option<&'static Family> {
    let classes = hf.architectures();
    families.iter().find(|f| classes.iter().any(|c| f.architectures.contains(c)))
}

/// The one of `families`; `elsewhere` says what reads a model that is of none.
fn of(
    families: &'static [Family],
    hf: &HfConfig,
    elsewhere: impl Fn(&HfConfig) -> Option<&'static str>,
) -> Read<&'static Family> {
    if let Some(family) = among(families, hf) {
        return Ok(family);
    }
    let Some(architecture) = hf.architectures().first().map(|class| class.to_string()) else {
        let hint = "config.json has no `architectures`; name the class that the checkpoint was made for there";
        return Err(PretrainedError::Family { architecture: "a model without a class".into(), hint: hint.into() });
    };
    let other = || OTHERS.iter().find(|(start, _)| architecture.starts_with(start)).map(|(_, hint)| *hint);
    let hint = elsewhere(hf).or_else(other).map(String::from).unwrap_or_else(|| {
        let known: Vec<&str> = families.iter().map(|f| f.name).collect();
        format!("families that are: {}", known.join(", "))
    });
    Err(PretrainedError::Family { architecture, hint })
}

/// The activation function of this name of Hugging Face's.
fn act_fn(hf: &HfConfig, key: &str, default: &str) -> Read<ActFn> {
    let name = hf.text_if_given(key)?.unwrap_or(default);
    Ok(match name {
        "relu" => ActFn::Relu,
        "gelu" => ActFn::Gelu,
        "gelu_new" => ActFn::GeluNew,
        "gelu_fast" => ActFn::GeluFast,
        "gelu_pytorch_tanh" => ActFn::GeluPytorchTanh,
        "silu" | "swish" => ActFn::Silu,
        "relu2" => ActFn::Relu2,
        "xielu" => ActFn::Xielu,
        _ => {
            let known = "one of the activation functions relu, relu2, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, silu (swish) or xielu";
            return Err(mistaken(key, &format!("{name:?}"), known));
        }
    })
}

/// What Llama's keys say: sizes, RMS norms, rotation, grouped queries.
fn llama_keys(hf: &HfConfig) -> Read<Config> {
    let (d_model, n_heads) = (hf.size("hidden_size")?, hf.count("num_attention_heads")?);
    if n_heads == 0 {
        return Err(mistaken("num_attention_heads", "0", "at least 1"));
    }
    let d_head = hf.size_if_given("head_dim")?.filter(|h| *h > 0).unwrap_or(d_model / n_heads);
    let kv = hf.size_if_given("num_key_value_heads")?.unwrap_or(n_heads);
    let mut cfg = Config {
        d_model,
        n_heads,
        d_head,
        n_layers: hf.count("num_hidden_layers")?,
        d_mlp: hf.size("intermediate_size")?,
        n_ctx: hf.size("max_position_embeddings")?,
        d_vocab: hf.size("vocab_size")?,
        eps: hf.number_if_given("rms_norm_eps")?.unwrap_or(1e-6),
        act_fn: act_fn(hf, "hidden_act", "silu")?,
        normalization_type: NormalizationType::RMS,
        positional_embedding_type: PositionalEmbeddingType::Rotary,
        n_key_value_heads: if kv == n_heads { 0 } else { kv },
        final_rms: true,
        gated_mlp: true,
        init_weights: false,
        ..Config::default()
    };
    rope(hf, &mut cfg)?;
    Ok(cfg)
}

/// What newer versions gather about rotation under one name, or under that of each kind of layers.
fn rope_parameters(hf: &HfConfig, layers: &str) -> Option<HfConfig> {
    let all = hf.part("rope_parameters")?;
    Some(all.part(layers).unwrap_or(all))
}

/// How rotation is stretched.
fn rope_scaling(hf: &HfConfig) -> Option<HfConfig> {
    rope_parameters(hf, "full_attention").or_else(|| hf.part("rope_scaling"))
}

/// Whether rotation is stretched by a factor of its own for each length beyond the context.
pub(crate) fn is_dynamic(hf: &HfConfig) -> Read<bool> {
    // Of a model that sees too, the text's part.
    let text = hf.part("text_config");
    let scaling = rope_scaling(text.as_ref().unwrap_or(hf));
    Ok(scaling.map(|scaling| rope_type(&scaling).map(|kind| kind == Some("dynamic"))).transpose()?.unwrap_or(false))
}

/// The kind of stretching, under the newer name or the older one.
fn rope_type(scaling: &HfConfig) -> Read<Option<&str>> {
    match scaling.text_if_given("rope_type")? {
        Some(kind) => Ok(Some(kind)),
        None => scaling.text_if_given("type"),
    }
}

/// Base, width and stretching of the rotation.
fn rope(hf: &HfConfig, cfg: &mut Config) -> Read<()> {
    for name in ["rope_parameters", "rope_scaling"] {
        if let Some(given) = hf.get(name).filter(|value| !value.is_object()) {
            return Err(mistaken(name, &given.to_string(), "an object with the type of rotation in it, or null"));
        }
    }
    let new = rope_parameters(hf, "full_attention");
    let source = new.as_ref().unwrap_or(hf);
    let part = source.number_if_given("partial_rotary_factor")?.unwrap_or(1.0);
    set_rotated(cfg, part)?;
    cfg.rotary_base = source.number_if_given("rope_theta")?.unwrap_or(10000.0);
    if let Some(scaling) = rope_scaling(hf) {
        apply_scaling(hf, &scaling, cfg)?;
    }
    Ok(())
}

/// Rotates a part of each head.
fn set_rotated(cfg: &mut Config, part: f64) -> Read<()> {
    cfg.rotary_dim = (cfg.d_head as f64 * part) as usize;
    if cfg.rotary_dim == 0 {
        let expected = format!("a part of a head's {} dimensions that is at least 2 of them", cfg.d_head);
        return Err(mistaken("partial_rotary_factor", &part.to_string(), &expected));
    }
    Ok(())
}

fn is_phi_3(hf: &HfConfig) -> bool {
    hf.architectures().iter().any(|class| class.starts_with("Phi3"))
}

fn apply_scaling(hf: &HfConfig, scaling: &HfConfig, cfg: &mut Config) -> Read<()> {
    let context = scaling.size_if_given("original_max_position_embeddings")?;
    let numbers = |name: &str| {
        scaling
            .list_if_given(name, Value::as_f64)?
            .ok_or_else(|| mistaken(&format!("rope_scaling.{name}"), "not given", "a list of numbers"))
    };
    let kind = match rope_type(scaling)? {
        // What the first files of Phi 3 call it.
        Some("yarn") if is_phi_3(hf) && scaling.get("short_factor").is_some() => Some("longrope"),
        kind => kind,
    };
    match kind {
        // Texts are not longer than the context beyond which "dynamic" stretches (`load::configuration`).
        None | Some("default" | "dynamic") => {}
        Some("linear") => cfg.rope_scaling = Some(RopeScaling::Linear { factor: scaling.number("factor")? }),
        Some("llama3") => {
            cfg.use_NTK_by_parts_rope = true;
            cfg.NTK_by_parts_factor = scaling.number("factor")?;
            cfg.NTK_by_parts_low_freq_factor = scaling.number("low_freq_factor")?;
            cfg.NTK_by_parts_high_freq_factor = scaling.number("high_freq_factor")?;
            cfg.NTK_original_ctx_len = scaling.size("original_max_position_embeddings")?;
        }
        Some("yarn") => {
            let factor = scaling.number("factor")?;
            // The paper's 0.1 ln(factor) + 1, by default.
            let growth = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
            let scales = (scaling.number_if_given("mscale")?, scaling.number_if_given("mscale_all_dim")?);
            let attention_factor = match (scaling.number_if_given("attention_factor")?, scales) {
                (Some(given), _) => given,
                (None, (Some(one), Some(all))) if one != 0.0 && all != 0.0 => growth(one) / growth(all),
                (None, _) => growth(1.0),
            };
            cfg.rope_scaling = Some(RopeScaling::Yarn {
                factor,
                beta_fast: scaling.number_if_given("beta_fast")?.filter(|b| *b != 0.0).unwrap_or(32.0),
                beta_slow: scaling.number_if_given("beta_slow")?.filter(|b| *b != 0.0).unwrap_or(1.0),
                context: context.filter(|c| *c > 0).unwrap_or(cfg.n_ctx),
                truncate: scaling.flag("truncate", true)?,
                attention_factor,
            });
        }
        Some("longrope" | "su") => {
            // Hugging Face reads it beside `rope_scaling`, and newer versions in `rope_parameters`.
            let original = match hf.get("rope_parameters") {
                Some(_) => context,
                None => hf.size_if_given("original_max_position_embeddings")?,
            };
            let factor = match original.filter(|c| *c > 0) {
                Some(context) => Some(cfg.n_ctx as f64 / context as f64),
                None => scaling.number_if_given("factor")?,
            };
            let context = original.unwrap_or(cfg.n_ctx);
            let attention_factor = match (scaling.number_if_given("attention_factor")?, factor) {
                (Some(given), _) => given,
                (None, Some(factor)) if factor > 1.0 => (1.0 + factor.ln() / (context as f64).ln()).sqrt(),
                (None, _) => 1.0,
            };
            cfg.rope_scaling = Some(RopeScaling::LongRope {
                short: numbers("short_factor")?,
                long: numbers("long_factor")?,
                context,
                attention_factor,
            });
        }
        Some(other) => {
            let expected = "\"linear\", \"dynamic\", \"llama3\", \"yarn\" or \"longrope\"";
            return Err(mistaken("rope_scaling.rope_type", &format!("{other:?}"), expected));
        }
    }
    Ok(())
}

/// Lets the layers look back `sliding_window` positions that `layer_types` calls so or, where there are no types,
/// those that `local` names.
fn windows(hf: &HfConfig, cfg: &mut Config, local: impl Fn(usize) -> bool) -> Read<()> {
    let Some(window) = hf.size_if_given("sliding_window")? else { return Ok(()) };
    let types = match hf.list_if_given("layer_types", Value::as_str)? {
        Some(types) => types.into_iter().map(kind_of_layer).collect::<Read<_>>()?,
        None => (0..cfg.n_layers).map(|l| local_if(local(l))).collect(),
    };
    set_windows(cfg, window, types);
    Ok(())
}

/// The same for every layer, in the classes that ask no `layer_types`.
fn windows_everywhere(hf: &HfConfig, cfg: &mut Config) -> Read<()> {
    if let Some(window) = hf.size_if_given("sliding_window")? {
        set_windows(cfg, window, vec![AttnType::Local; cfg.n_layers]);
    }
    Ok(())
}

/// Hugging Face's name of what a layer looks at.
fn kind_of_layer(name: &str) -> Read<AttnType> {
    match name {
        "full_attention" => Ok(AttnType::Global),
        "sliding_attention" => Ok(AttnType::Local),
        _ => Err(mistaken("layer_types", &format!("{name:?}"), "\"full_attention\" and \"sliding_attention\" in it")),
    }
}

fn local_if(local: bool) -> AttnType {
    if local { AttnType::Local } else { AttnType::Global }
}

/// Gives the layers that are local a window, if there are any.
fn set_windows(cfg: &mut Config, window: usize, types: Vec<AttnType>) {
    if types.contains(&AttnType::Local) {
        cfg.use_local_attn = true;
        cfg.window_size = window;
        cfg.attn_types = types;
    }
}

/// ALiBi's slopes for any number of heads (Press et al. 2021): those of the power of two below, and every
/// other one of the power above.
fn alibi_slopes(n_heads: usize) -> Vec<f64> {
    let below = 1 << n_heads.max(1).ilog2();
    let start = |n: usize| 2f64.powf(-8.0 / n as f64);
    let first = (1..=below).map(|i| start(below).powi(i as i32));
    let more = (0..n_heads - below.min(n_heads)).map(|i| start(2 * below).powi(2 * i as i32 + 1));
    first.chain(more).collect()
}

/// The prefix of a layer's tensors, in most families.
fn layer(l: usize) -> String {
    format!("model.layers.{l}.")
}
