//! How well a model predicts: of a text, of repeated random tokens, of indirect objects.

pub mod ioi;

use ironlens_tensor::{IndexTensor, Rng};
use ironlens_transformer::{HookedTransformer, ReturnType, TokenOptions};

use crate::error::LensError;

/// How a model predicts a text, token by token.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The tokens of the text.
    pub tokens: Vec<u32>,
    /// The loss (in nats) of every token that was predicted; `None` for those that were not: the first of each piece
    /// that the model read.
    pub losses: Vec<Option<f32>>,
    /// Whether it was the likeliest one.
    pub right: Vec<Option<bool>>,
}

impl Evaluation {
    /// The mean loss of a predicted token, in nats.
    pub fn loss(&self) -> f64 {
        let losses: Vec<f64> = self.losses.iter().flatten().map(|&l| f64::from(l)).collect();
        losses.iter().sum::<f64>() / losses.len() as f64
    }

    /// The exponential of the loss.
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }

    /// The part of predicted tokens that were the likeliest (TransformerLens's `lm_accuracy`).
    pub fn accuracy(&self) -> f64 {
        let right: Vec<bool> = self.right.iter().copied().flatten().collect();
        right.iter().filter(|r| **r).count() as f64 / right.len() as f64
    }

    /// How many tokens were predicted.
    pub fn predicted(&self) -> usize {
        self.losses.iter().flatten().count()
    }
}

/// How a model predicts a text. A text longer than the context is read in pieces of `n_ctx` tokens, each with a
/// beginning-of-sequence token where the model is used to one; `progress` is told the tokens done and all.
///
/// # Errors
/// If the model has no tokenizer, or the text has no token to predict.
pub fn evaluate_text(
    model: &HookedTransformer,
    text: &str,
    mut progress: impl FnMut(usize, usize),
) -> Result<Evaluation, LensError> {
    let ids = |text: &str, prepend_bos| -> Result<Vec<u32>, LensError> {
        let options = TokenOptions { prepend_bos, ..TokenOptions::whole() };
        Ok(model.to_tokens_with(text, &options)?.tokens.as_slice().to_vec())
    };
    let bare = ids(text, Some(false))?;
    // What stands before any text stands before each piece of this one.
    let (short, without) = (ids("a", None)?, ids("a", Some(false))?);
    let before = &short[..short.len().saturating_sub(without.len())];
    let n_ctx = model.config().n_ctx;
    let room = n_ctx.saturating_sub(before.len()).max(1);
    let mut all = Evaluation { tokens: Vec::new(), losses: Vec::new(), right: Vec::new() };
    for piece in bare.chunks(room) {
        progress(all.tokens.len(), bare.len());
        let tokens = [before, piece].concat();
        let skipped = usize::from(before.is_empty());
        all.tokens.extend(piece);
        all.losses.extend(vec![None; skipped]);
        all.right.extend(vec![None; skipped]);
        if tokens.len() < 2 {
            continue;
        }
        let n = tokens.len();
        let tokens = IndexTensor::new(tokens, &[1, n]);
        let out = model.call(&tokens).return_type(ReturnType::Both).loss_per_token().output()?;
        let losses = out.loss().value().to_vec();
        let best = out.logits().value().argmax(2);
        let first = before.len().max(1) - 1;
        all.losses.extend(losses[first..].iter().map(|&l| Some(l)));
        let right = |at: usize| best.as_slice()[at] == tokens.as_slice()[at + 1];
        all.right.extend((first..n - 1).map(|at| Some(right(at))));
    }
    progress(bare.len(), bare.len());
    match all.predicted() {
        0 => Err(LensError::argument("a text", format!("{} tokens long", bare.len()), "one with a token to predict")),
        _ => Ok(all),
    }
}

/// The loss on random tokens that are said a second time, over that second time: low in models with induction heads.
/// TransformerLens's `evals.induction_loss`: ids from 100 up to but without 20000 (as many as the vocabulary has),
/// `batch_size` sequences of `subseq_len`, twice; a token that begins texts, if there is one, in the first place.
///
/// # Errors
/// If there are none or they are shorter than three, they are longer than the context, or the vocabulary has none of these ids.
pub fn induction_loss(
    model: &HookedTransformer,
    batch_size: usize,
    subseq_len: usize,
    bos: Option<u32>,
    seed: u64,
) -> Result<f64, LensError> {
    let high = model.config().d_vocab.min(20_000) as u32;
    let low = 100.min(high / 10);
    // The first token that is said again cannot be foreseen, and the one after it tells the place: two are not counted.
    if batch_size == 0 || subseq_len < 3 || high <= low {
        return Err(LensError::argument(
            "repeated random tokens",
            format!("{batch_size} sequences of {subseq_len} from {high} ids"),
            "at least one of at least three",
        ));
    }
    let half = Rng::new(seed, 0).integers(&[batch_size, subseq_len], low, high);
    let mut tokens = IndexTensor::cat(&[half.clone(), half], 1);
    if let Some(bos) = bos {
        let first = IndexTensor::new(vec![bos; batch_size], &[batch_size, 1]);
        tokens = IndexTensor::cat(&[first, tokens.narrow(1, 1, 2 * subseq_len - 1)], 1);
    }
    let out = model.call(&tokens).return_type(ReturnType::Loss).loss_per_token().output()?;
    // The loss at place i is of token i + 1.
    Ok(out.loss().value().narrow(1, subseq_len + 1, subseq_len - 2).mean_all().item())
}
