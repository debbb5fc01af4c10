//! Gemma 1 to 3. Norms multiply by their weight plus 1; the embedding is scaled by the root of its width.

use super::{Family, Read, act_fn, layer, llama, llama_keys, local_if, set_windows, windows};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_transformer::config::{AttnType, Config};

pub(super) const FAMILY: Family = Family {
    name: "Gemma",
    architectures: &["GemmaForCausalLM", "GemmaModel"],
    prefix: "model.",
    config: config_1,
    tensors,
};

pub(super) const FAMILY_2: Family = Family {
    name: "Gemma 2",
    architectures: &["Gemma2ForCausalLM", "Gemma2Model"],
    prefix: "model.",
    config: config_2,
    tensors,
};

pub(super) const FAMILY_3: Family = Family {
    name: "Gemma 3",
    architectures: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", "Gemma3TextModel"],
    prefix: "model.",
    config: config_3,
    tensors,
};

fn config_1(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    cfg.n_key_value_heads = hf.size_if_given("num_key_value_heads")?.unwrap_or(cfg.n_heads);
    // Early files call the function `gelu` and mean its approximation.
    cfg.act_fn = act_fn(hf, "hidden_activation", "gelu_pytorch_tanh")?;
    Ok(cfg)
}

fn config_2(hf: &HfConfig) -> Read<Config> {
    let mut cfg = config_1(hf)?;
    cfg.use_normalization_before_and_after = true;
    cfg.attn_scale = hf.number_if_given("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt();
    cfg.attn_scores_soft_cap = hf.number_if_given("attn_logit_softcapping")?.unwrap_or(-1.0);
    cfg.output_logits_soft_cap = hf.number_if_given("final_logit_softcapping")?.unwrap_or(-1.0);
    windows(hf, &mut cfg, true)?;
    if hf.get("layer_types").is_none() && cfg.use_local_attn {
        cfg.attn_types = (0..cfg.n_layers).map(|l| local_if(l % 2 == 0)).collect();
    }
    Ok(cfg)
}

fn config_3(hf: &HfConfig) -> Read<Config> {
    // Models that read pictures keep what is about text apart.
    let text = hf.part("text_config");
    let hf = text.as_ref().unwrap_or(hf);
    let mut cfg = config_2(hf)?;
    cfg.use_qk_norm = true;
    cfg.rotary_base_local = Some(hf.number_if_given("rope_local_base_freq")?.unwrap_or(10000.0));
    cfg.rope_scaling_global_only = true;
    if hf.get("rope_theta").is_none() && hf.get("rope_parameters").is_none() {
        cfg.rotary_base = 1e6;
    }
    if hf.get("layer_types").is_none() {
        let every = hf.size_if_given("sliding_window_pattern")?.unwrap_or(6).max(1);
        let window = hf.size_if_given("sliding_window")?.unwrap_or(4096);
        let types: Vec<AttnType> = (0..cfg.n_layers).map(|l| local_if(!(l + 1).is_multiple_of(every))).collect();
        cfg.use_local_attn = false;
        set_windows(&mut cfg, window, types);
    }
    if !cfg.use_local_attn {
        cfg.rotary_base_local = None;
    }
    Ok(cfg)
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.norm_offset = if c.offset_inside { 0.0 } else { 1.0 };
    let scale = (c.cfg.d_model as f64).sqrt();
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", scale, 1.0)?;
    c.stream_norm("ln_final", "model.norm")?;
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
