//! Gemma 1 to 3. Norms multiply by their weight plus 1; the embedding is scaled by the root of its width.

use super::{Family, Read, act_fn, layer, llama, llama_keys, rope_parameters, windows};
use crate::conversion::Conversion;
use crate::hf::{HfConfig, mistaken};
use ironlens_transformer::config::Config;

pub(super) const FAMILY: Family = Family {
    name: "Gemma",
    architectures: &["GemmaForCausalLM", "GemmaModel"],
    prefix: "model.",
    config: config_1,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 256000, "intermediate_size": 24576,
        "num_hidden_layers": 28, "num_attention_heads": 16, "head_dim": 256,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-06, "tie_word_embeddings": true}"#,
};

pub(super) const FAMILY_2: Family = Family {
    name: "Gemma 2",
    architectures: &["Gemma2ForCausalLM", "Gemma2Model"],
    prefix: "model.",
    config: config_2,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 256000, "intermediate_size": 9216,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-06, "tie_word_embeddings": true,
        "query_pre_attn_scalar": 256, "sliding_window": 4096, "final_logit_softcapping": 30.0,
        "attn_logit_softcapping": 50.0}"#,
};

pub(super) const FAMILY_3: Family = Family {
    name: "Gemma 3",
    architectures: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", "Gemma3TextModel"],
    prefix: "model.",
    config: config_3,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 262208, "intermediate_size": 9216,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-06, "tie_word_embeddings": true,
        "rope_theta": 1000000.0, "query_pre_attn_scalar": 256, "sliding_window": 4096,
        "rope_local_base_freq": 10000.0}"#,
};

fn config_1(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    cfg.n_key_value_heads = hf.size_if_given("num_key_value_heads")?.unwrap_or(cfg.n_heads);
    cfg.act_fn = act_fn(hf, "hidden_act", "gelu_pytorch_tanh")?;
    Ok(cfg)
}

fn config_2(hf: &HfConfig) -> Read<Config> {
    let mut cfg = norms_after_too(hf)?;
    windows(hf, &mut cfg, |l| l % 2 == 0)?;
    Ok(cfg)
}

/// What the second and the third have in common.
fn norms_after_too(hf: &HfConfig) -> Read<Config> {
    let mut cfg = config_1(hf)?;
    if hf.flag("use_bidirectional_attention", false)? {
        return Err(mistaken("use_bidirectional_attention", "true", "false: Gemma is read as a decoder"));
    }
    cfg.act_fn = act_fn(hf, "hidden_activation", "gelu_pytorch_tanh")?;
    cfg.use_normalization_before_and_after = true;
    cfg.attn_scale = hf.number("query_pre_attn_scalar")?.sqrt();
    cfg.attn_scores_soft_cap = soft_cap(hf, "attn_logit_softcapping")?;
    cfg.output_logits_soft_cap = soft_cap(hf, "final_logit_softcapping")?;
    Ok(cfg)
}

/// A cap, or -1 for none.
fn soft_cap(hf: &HfConfig, name: &str) -> Read<f64> {
    match hf.number_if_given(name)? {
        Some(cap) if cap <= 0.0 => Err(mistaken(name, &cap.to_string(), "a number above 0, or null for no cap")),
        cap => Ok(cap.unwrap_or(-1.0)),
    }
}

fn config_3(hf: &HfConfig) -> Read<Config> {
    // Models that read pictures keep what is about text apart.
    let text = hf.part("text_config");
    let hf = text.as_ref().unwrap_or(hf);
    let mut cfg = norms_after_too(hf)?;
    // Instead of the cap on scores, which Hugging Face's class has a setting for and does not read.
    cfg.use_qk_norm = true;
    cfg.attn_scores_soft_cap = -1.0;
    let every = hf.size_if_given("sliding_window_pattern")?.unwrap_or(6).max(1);
    windows(hf, &mut cfg, |l| !(l + 1).is_multiple_of(every))?;
    cfg.rope_scaling_global_only = true;
    if cfg.use_local_attn {
        let local = rope_parameters(hf, "sliding_attention").map(|it| it.number_if_given("rope_theta")).transpose()?;
        cfg.rotary_base_local = local.flatten().or(hf.number_if_given("rope_local_base_freq")?);
    }
    Ok(cfg)
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.norm_offset = if c.offset_inside { 0.0 } else { 1.0 };
    let scale = (c.cfg.d_model as f64).sqrt();
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", scale, 1.0)?;
    for l in 0..c.cfg.n_layers {
        if c.cfg.use_normalization_before_and_after {
            for (to, from) in [
                ("ln1", "input_layernorm"),
                ("ln1_post", "post_attention_layernorm"),
                ("ln2", "pre_feedforward_layernorm"),
                ("ln2_post", "post_feedforward_layernorm"),
            ] {
                c.stream_norm(&format!("blocks.{l}.{to}"), &format!("{}{from}", layer(l)))?;
            }
        } else {
            llama::norms(c, l)?;
        }
        llama::attention(c, l)?;
        llama::gated_mlp(c, l)?;
    }
    Ok(())
}
