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
    let losses = logits.narrow(1, 0, pos - 1).cross_entropy(&tokens.narrow(1, 1, pos - 1));
    match mask {
        None => losses,
        Some(mask) => &losses * &Var::from(pairs(mask, &losses)),
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
            let count = pairs(mask, &losses).sum_all().item();
            losses.sum_all() * (1.0 / count)
        }
    }
}

/// 1 where both a token and the next are no padding.
fn pairs(mask: &IndexTensor, like: &Var) -> Tensor {
    let width = mask.shape()[1];
    let both = mask.as_slice().chunks(width).flat_map(|row| row.windows(2).map(|w| f32::from(w[0] != 0 && w[1] != 0)));
    Tensor::from_vec(both.collect(), like.shape(), &like.value().device()).to_dtype(like.value().dtype())
}
