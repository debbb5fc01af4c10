//! Language-model losses.

use ironlens_autograd::Var;
use ironlens_tensor::{IndexTensor, Tensor};

/// Cross-entropy of each prediction against the next token, `[batch, pos - 1]`: TransformerLens's
/// `lm_cross_entropy_loss(.., per_token=True)`. Pairs with padding (`mask` 0) on either side are 0.
///
/// # Panics
/// If `logits` `[batch, pos, d_vocab]` and `tokens` `[batch, pos]` disagree, or there is only one
/// position.
#[track_caller]
pub fn next_token_losses(logits: &Var, tokens: &IndexTensor, mask: Option<&IndexTensor>) -> Var {
    let pos = logits.dim(1);
    assert!(pos > 1, "the next-token loss needs at least two positions, the logits have shape {:?}", logits.shape());
    let losses = logits.narrow(1, 0, pos - 1).cross_entropy(&targets(tokens, mask));
    match mask {
        None => losses,
        Some(mask) => &losses * &Var::from(pairs(mask, losses.value())),
    }
}

/// The mean of [`next_token_losses`] over all pairs without padding, shape `[]`.
///
/// # Panics
/// As [`next_token_losses`].
#[track_caller]
pub fn next_token_loss(logits: &Var, tokens: &IndexTensor, mask: Option<&IndexTensor>) -> Var {
    let losses = next_token_losses(logits, tokens, mask);
    match mask {
        None => losses.mean_all(),
        Some(mask) => {
            let count = pairs(mask, losses.value()).sum_all().item();
            losses.sum_all() * (1.0 / count)
        }
    }
}

/// 1 where the likeliest token is the next one, else 0, `[batch, pos - 1]`: TransformerLens's
/// `lm_accuracy(.., per_token=True)`. Pairs with padding (`mask` 0) on either side are 0.
///
/// # Panics
/// If `logits` `[batch, pos, d_vocab]` and `tokens` `[batch, pos]` disagree, or there is only one position.
#[track_caller]
pub fn next_token_accuracies(logits: &Tensor, tokens: &IndexTensor, mask: Option<&IndexTensor>) -> Tensor {
    let (shape, pos) = (logits.shape(), tokens.shape().last().copied().unwrap_or_default());
    assert!(
        shape.len() == 3 && shape[..2] == *tokens.shape() && pos > 1,
        "the next-token accuracy needs logits [batch, pos, d_vocab] of at least two positions and tokens [batch, pos], \
         given {shape:?} and {:?}",
        tokens.shape()
    );
    let likeliest = logits.narrow(1, 0, pos - 1).argmax(2);
    let next = tokens.narrow(1, 1, pos - 1);
    let right: Vec<f32> = likeliest.as_slice().iter().zip(next.as_slice()).map(|(a, b)| f32::from(a == b)).collect();
    let right = Tensor::from_vec(right, next.shape(), &logits.device()).to_dtype(logits.dtype());
    match mask {
        None => right,
        Some(mask) => &right * &pairs(mask, &right),
    }
}

/// The mean of [`next_token_accuracies`] over all pairs without padding: TransformerLens's `lm_accuracy`.
///
/// # Panics
/// As [`next_token_accuracies`].
#[track_caller]
pub fn next_token_accuracy(logits: &Tensor, tokens: &IndexTensor, mask: Option<&IndexTensor>) -> f64 {
    let right = next_token_accuracies(logits, tokens, mask);
    let count = mask.map_or(right.numel() as f64, |mask| pairs(mask, &right).sum_all().item());
    right.sum_all().item() / count
}

/// Whether each pair of a token and the next, `[batch, pos - 1]` in row-major order, has no padding.
pub(crate) fn real_pairs(mask: &IndexTensor) -> impl Iterator<Item = bool> {
    mask.as_slice().chunks(mask.shape()[1]).flat_map(|row| row.windows(2).map(|w| w[0] != 0 && w[1] != 0))
}

/// The next tokens, `[batch, pos - 1]`: 0 for pairs that do not count, whose tokens may be no predictions.
fn targets(tokens: &IndexTensor, mask: Option<&IndexTensor>) -> IndexTensor {
    let next = tokens.narrow(1, 1, tokens.shape()[1] - 1);
    let Some(mask) = mask else { return next };
    let counted = next.as_slice().iter().zip(real_pairs(mask)).map(|(&id, real)| if real { id } else { 0 });
    IndexTensor::new(counted.collect::<Vec<u32>>(), next.shape())
}

/// 1 where both a token and the next are no padding.
fn pairs(mask: &IndexTensor, like: &Tensor) -> Tensor {
    let both: Vec<f32> = real_pairs(mask).map(f32::from).collect();
    Tensor::from_vec(both, like.shape(), &like.device()).to_dtype(like.dtype())
}
