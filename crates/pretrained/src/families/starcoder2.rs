//! StarCoder 2: rotary, grouped queries, layer norms and biases everywhere, a plain MLP.

use super::{Family, Read, act_fn, layer, llama, llama_keys, windows_everywhere};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_transformer::config::{Config, NormalizationType};

pub(super) const FAMILY: Family = Family {
    name: "StarCoder 2",
    architectures: &["Starcoder2ForCausalLM", "Starcoder2Model"],
    prefix: "model.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 49152, "intermediate_size": 12288,
        "num_hidden_layers": 30, "num_attention_heads": 24, "num_key_value_heads": 2,
        "max_position_embeddings": 4096, "norm_epsilon": 1e-05, "tie_word_embeddings": true}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let mut cfg = llama_keys(hf)?;
    windows_everywhere(hf, &mut cfg)?;
    Ok(Config {
        eps: hf.number_if_given("norm_epsilon")?.unwrap_or(1e-5),
        act_fn: act_fn(hf, "hidden_act", "gelu_pytorch_tanh")?,
        normalization_type: NormalizationType::LN,
        final_rms: false,
        gated_mlp: false,
        ..cfg
    })
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    c.stream_norm("ln_final", "model.norm")?;
    c.embeddings("model.embed_tokens.weight", "lm_head.weight", 1.0, 1.0)?;
    for l in 0..c.cfg.n_layers {
        llama::norms(c, l)?;
        llama::attention(c, l)?;
        let at = |name: &str| format!("{}mlp.{name}", layer(l));
        c.mlp(l, &at("c_fc"), &at("c_proj"), None)?;
    }
    Ok(())
}
