//! nanoGPT: GPT-2 with matrices as PyTorch's `Linear` has them, and maybe without biases.

use super::{Read, gpt2};
use crate::conversion::Conversion;
use crate::hf::HfConfig;
use ironlens_transformer::config::{ActFn, Config};

/// Of `model_args` in a checkpoint.
pub(crate) fn config(hf: &HfConfig) -> Read<Config> {
    let (d_model, n_heads) = (hf.size("n_embd")?, hf.count("n_head")?);
    Ok(Config {
        d_model,
        n_heads,
        d_head: d_model.checked_div(n_heads).unwrap_or(0),
        n_layers: hf.count("n_layer")?,
        n_ctx: hf.size("block_size")?,
        d_vocab: hf.size("vocab_size")?,
        act_fn: ActFn::Gelu,
        original_architecture: Some("nanoGPT".into()),
        init_weights: false,
        ..Config::default()
    })
}

pub(crate) fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    gpt2::weights(c)
}
