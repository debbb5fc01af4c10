//! What a model is trained to do.

use ironlens_autograd::Var;
use ironlens_tensor::IndexTensor;
use serde::{Deserialize, Serialize};

/// A loss, `[]`, of logits `[batch, pos, d_vocab_out]` and the tokens `[batch, pos]` they are of.
pub type LossFn = fn(&Var, &IndexTensor) -> Var;

/// The notebook's loss: the mean of -log p(previous token), `logits[:, 1:]` against `tokens[:, :-1]`.
///
/// # Panics
/// If there are fewer than two positions, or the shapes disagree.
#[track_caller]
pub fn previous_token_loss(logits: &Var, tokens: &IndexTensor) -> Var {
    let pos = logits.dim(1);
    assert!(
        pos > 1,
        "the previous-token loss needs at least two positions, the logits have shape {:?}",
        logits.shape()
    );
    logits.narrow(1, 1, pos - 1).cross_entropy(&tokens.narrow(1, 0, pos - 1)).mean_all()
}

/// The language-model loss: the mean of -log p(next token).
///
/// # Panics
/// As [`previous_token_loss`].
#[track_caller]
pub fn next_token_loss(logits: &Var, tokens: &IndexTensor) -> Var {
    ironlens_transformer::next_token_loss(logits, tokens, None)
}

/// A task by name, as a run directory keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Predict the token before each position.
    #[default]
    PreviousToken,
    /// Predict the token after each position.
    NextToken,
}

impl Task {
    /// The loss of the task.
    pub fn loss(self) -> LossFn {
        match self {
            Task::PreviousToken => previous_token_loss,
            Task::NextToken => next_token_loss,
        }
    }

    /// What the loss is, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Task::PreviousToken => "mean of -log p(previous token): logits[:, 1:] against tokens[:, :-1]",
            Task::NextToken => "mean of -log p(next token): logits[:, :-1] against tokens[:, 1:]",
        }
    }
}
