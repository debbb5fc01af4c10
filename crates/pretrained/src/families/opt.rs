//! OPT. The first two rows of its table of positions are of padding.

use super::{Family, Read, act_fn};
use crate::conversion::Conversion;
use crate::error::PretrainedError;
use crate::hf::HfConfig;
use ironlens_transformer::config::Config;

pub(super) const FAMILY: Family = Family {
    name: "OPT",
    architectures: &["OPTForCausalLM", "OPTModel"],
    prefix: "model.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 50272, "num_hidden_layers": 12, "ffn_dim": 3072,
        "max_position_embeddings": 2048, "num_attention_heads": 12, "tie_word_embeddings": true}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let (d_model, n_heads) = (hf.size("hidden_size")?, hf.count("num_attention_heads")?);
    let projected = hf.size_if_given("word_embed_proj_dim")?.is_some_and(|d| d != d_model);
    if projected || !hf.flag("do_layer_norm_before", true)? || hf.flag("_remove_final_layer_norm", false)? {
        return Err(PretrainedError::Family {
            architecture: "OPT with norms after its blocks (opt-350m)".into(),
            hint: "the other sizes are: opt-125m, opt-1.3b and above".into(),
        });
    }
    Ok(Config {
        d_model,
        n_heads,
        d_head: d_model.checked_div(n_heads).unwrap_or(0),
        n_layers: hf.count("num_hidden_layers")?,
        d_mlp: hf.size("ffn_dim")?,
        n_ctx: hf.size("max_position_embeddings")?,
        d_vocab: hf.size("vocab_size")?,
        eps: 1e-5,
        act_fn: act_fn(hf, "activation_function", "relu")?,
        init_weights: false,
        ..Config::default()
    })
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    // Norms without weights and biases keep their ones and zeros.
    let affine = c.hf.flag("layer_norm_elementwise_affine", true)?;
    if affine {
        c.stream_norm("ln_final", "model.decoder.final_layer_norm")?;
    }
    c.embeddings("model.decoder.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    c.positions("model.decoder.embed_positions.weight", 2)?;
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("model.decoder.layers.{l}.{name}");
        if affine {
            c.stream_norm(&format!("blocks.{l}.ln1"), &at("self_attn_layer_norm"))?;
            c.stream_norm(&format!("blocks.{l}.ln2"), &at("final_layer_norm"))?;
        }
        c.attention_in(l, [&at("self_attn.q_proj"), &at("self_attn.k_proj"), &at("self_attn.v_proj")])?;
        c.attention_out(l, &at("self_attn.out_proj"), 1.0)?;
        c.mlp(l, &at("fc1"), &at("fc2"), None)?;
    }
    Ok(())
}
