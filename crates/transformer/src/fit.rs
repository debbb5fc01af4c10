//! What a device takes in one piece, asked before it is tried.

use ironlens_nn::Registry;
use ironlens_tensor::Device;

use crate::config::{Config, product};
use crate::error::ModelError;

/// Bytes of an f32 tensor, which are all that devices with limits have.
fn bytes_of(shape: &[usize]) -> u64 {
    product(shape).saturating_mul(size_of::<f32>() as u64)
}

/// Refuses weights of which one, as it is stored, is more than `device` takes in one piece.
pub(crate) fn weights(registry: &Registry, device: &Device) -> Result<(), ModelError> {
    let Some(limit) = device.max_tensor_bytes() else { return Ok(()) };
    match registry.stored().find(|(_, shape)| bytes_of(shape) > limit) {
        None => Ok(()),
        Some((names, shape)) => Err(ModelError::TooLarge {
            what: names.join(" with "),
            shape: shape.into(),
            bytes: bytes_of(shape),
            device: device.to_string(),
            limit,
            advice: "make the model smaller, or use the CPU".into(),
        }),
    }
}

/// Neurons that every token comes to, in the layer that has most of them.
fn widest_mlp(cfg: &Config) -> usize {
    let all_of = |layer| match cfg.has_experts(layer) {
        true => cfg.d_shared_expert,
        false => cfg.d_mlp_of(layer),
    };
    if cfg.attn_only { 0 } else { (0..cfg.n_layers).map(all_of).max().unwrap_or(0) }
}

/// Refuses `[batch, pos]` tokens that look back on `keys` (their own included) of which an activation that every pass
/// through `blocks` or to `logits` makes is more than `device` takes in one piece.
pub(crate) fn activations(
    cfg: &Config,
    device: &Device,
    [batch, pos]: [usize; 2],
    keys: usize,
    blocks: bool,
    logits: bool,
) -> Result<(), ModelError> {
    let Some(limit) = device.max_tensor_bytes() else { return Ok(()) };
    let (heads, kv_heads) = (cfg.n_heads(), cfg.n_key_value_heads());
    let by_head = cfg.use_attn_in || cfg.use_split_qkv_input || cfg.use_attn_result;
    let in_blocks = [
        ("the attention pattern", vec![batch, heads, pos, keys]),
        ("queries, keys and values", vec![batch, pos, heads + 2 * kv_heads, cfg.d_head]),
        ("the MLP's activation", vec![batch, pos, widest_mlp(cfg)]),
        ("the stream of each head", vec![batch, pos, if by_head { heads } else { 0 }, cfg.d_model]),
    ];
    let mut all = vec![("the residual stream", vec![batch, pos, cfg.d_model])];
    all.extend(in_blocks.into_iter().filter(|_| blocks));
    all.extend(logits.then(|| ("the logits", vec![batch, pos, cfg.d_vocab_out])));
    match all.into_iter().max_by_key(|(_, shape)| bytes_of(shape)) {
        Some((what, shape)) if bytes_of(&shape) > limit => Err(ModelError::TooLarge {
            what: format!("{what} of {batch} sequences"),
            bytes: bytes_of(&shape),
            device: device.to_string(),
            limit,
            advice: match limit / bytes_of(&shape[1..]) {
                0 => "one sequence is too much already: make it shorter, or use the CPU".into(),
                fit => format!("{fit} at a time fit"),
            },
            shape,
        }),
        _ => Ok(()),
    }
}
