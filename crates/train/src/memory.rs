//! Whether a batch can fit into memory, before it is tried.

use ironlens_transformer::Config;
use ironlens_transformer::config::machine_memory;

use crate::error::TrainError;

/// A product of sizes; `None` if it is beyond any memory.
pub(crate) fn product(sizes: &[usize]) -> Option<u64> {
    sizes.iter().try_fold(1u64, |all, &size| all.checked_mul(size as u64))
}

/// Bytes that a training step on `[batch, pos]` tokens holds at least, weights aside: activations that
/// the way back needs, and the logits with their gradient.
pub(crate) fn of_a_step(cfg: &Config, batch: usize, pos: usize) -> Option<u64> {
    // A layer keeps the stream before and after attention, queries and their mix of values, and the
    // MLP's product before and after its function; grouped keys and values may be small.
    let stream = product(&[2, cfg.d_model])?;
    let heads = product(&[2, cfg.n_heads(), cfg.d_head])?;
    let layer = stream.checked_add(heads)?.checked_add(product(&[2, cfg.d_mlp()])?)?;
    let row = layer.checked_mul(cfg.n_layers as u64)?.checked_add(product(&[2, cfg.d_vocab_out])?)?;
    product(&[batch, pos, size_of::<f32>()])?.checked_mul(row)
}

/// Bytes that a forward pass on `[batch, pos]` tokens holds at least, weights aside: the stream, and the
/// widest product.
pub(crate) fn of_a_pass(cfg: &Config, batch: usize, pos: usize) -> Option<u64> {
    let row = cfg.d_model.checked_add(cfg.d_vocab_out.max(cfg.d_mlp()))?;
    product(&[batch, pos, row, size_of::<f32>()])
}

/// Refuses a setting that asks for more bytes than this machine has.
pub(crate) fn check(name: &'static str, given: usize, bytes: Option<u64>) -> Result<(), TrainError> {
    let there_is = machine_memory().unwrap_or(1 << 40);
    if bytes.is_some_and(|b| b <= there_is) {
        return Ok(());
    }
    let asked = bytes.map_or("more bytes than can be counted".into(), |b| format!("at least {}", gib(b)));
    Err(TrainError::Setting {
        name,
        given: given.to_string(),
        expected: format!("a batch that fits into memory: this one takes {asked}, the machine has {}", gib(there_is)),
    })
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}
