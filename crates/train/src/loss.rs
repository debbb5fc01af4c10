//! What a model is trained to do.

use ironlens_autograd::Var;
use ironlens_tensor::IndexTensor;
use serde::{Deserialize, Serialize};

/// A loss, `[]`, of logits `[batch, pos, d_vocab_out]` and the tokens `[batch, pos]` they are of.
pub type LossFn = fn(&Var, &IndexTensor) -> Var;

/// The notebook's loss: the mean of -log p(previous token), `logits[:, 1:]` against `tokens[:, :-1]`. Of a
/// tensor it is a constant, of a variable it is differentiable.
///
/// ```
/// # use ironlens_tensor::{DType, Device, IndexTensor, Tensor};
/// # use ironlens_train::previous_token_loss;
/// let logits = Tensor::zeros(&[1, 3, 10], DType::F32, &Device::Cpu);
/// let loss = previous_token_loss(&logits, &IndexTensor::from([[1, 2, 3]])).item();
/// assert!((loss - 10f64.ln()).abs() < 1e-6);
/// ```
///
/// # Panics
/// If there are fewer than two positions, or the shapes disagree.
#[track_caller]
pub fn previous_token_loss<L: Clone + Into<Var>>(logits: &L, tokens: &IndexTensor) -> Var {
    let logits: Var = logits.clone().into();
    let pos = logits.dim(1);
    assert!(
        pos > 1,
        "the previous-token loss needs at least two positions, the logits have shape {:?}",
        logits.shape()
    );
    logits.narrow(1, 1, pos - 1).cross_entropy(&tokens.narrow(1, 0, pos - 1)).mean_all()
}

/// The language-model loss: the mean of -log p(next token), as [`previous_token_loss`].
///
/// # Panics
/// As [`previous_token_loss`].
#[track_caller]
pub fn next_token_loss<L: Clone + Into<Var>>(logits: &L, tokens: &IndexTensor) -> Var {
    ironlens_transformer::next_token_loss(&logits.clone().into(), tokens, None)
}

/// A task by name: a loss that a file can ask for, and a run directory names.
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
    /// All of them.
    pub const ALL: [Task; 2] = [Task::PreviousToken, Task::NextToken];

    /// Its name, as in files.
    pub fn name(self) -> &'static str {
        match self {
            Task::PreviousToken => "previous-token",
            Task::NextToken => "next-token",
        }
    }

    /// The task with this name.
    pub fn from_name(name: &str) -> Option<Task> {
        Task::ALL.into_iter().find(|task| task.name() == name)
    }

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

/// What a record calls a loss: by its task, by a function's own path, or "custom".
pub(crate) fn name_of<F>(_: &F) -> String {
    // A function has a type of its own, which is called by its path; a closure's has braces in it, a
    // pointer's is `fn(..)`.
    let name = std::any::type_name::<F>();
    let known = [
        (Task::PreviousToken, std::any::type_name_of_val(&previous_token_loss::<Var>)),
        (Task::NextToken, std::any::type_name_of_val(&next_token_loss::<Var>)),
    ];
    if let Some((task, _)) = known.iter().find(|(_, path)| *path == name) {
        return task.name().into();
    }
    let is_path = name.chars().all(|c| c.is_alphanumeric() || "_:".contains(c));
    if is_path { name.into() } else { "custom".into() }
}

#[cfg(test)]
mod tests {
    use ironlens_tensor::{Device, Tensor};

    use super::*;

    fn own(logits: &Var, _: &IndexTensor) -> Var {
        logits.mean_all()
    }

    /// Logits that are tall where a position says a token, of each task's own positions.
    #[test]
    fn a_loss_is_of_the_token_beside_each_position() {
        let tokens = IndexTensor::new(vec![2, 0, 1], &[1, 3]);
        let said = |ids: [usize; 3]| {
            let one_hot = ids.iter().flat_map(|&id| (0..3).map(move |i| if i == id { 20.0f32 } else { 0.0 }));
            Var::from(Tensor::from_vec(one_hot.collect::<Vec<_>>(), &[1, 3, 3], &Device::Cpu))
        };
        let loss = |task: Task, ids| task.loss()(&said(ids), &tokens).item();
        // The first position has none before it, the last none after it: what they say does not count.
        for anything in 0..3 {
            assert!(loss(Task::PreviousToken, [anything, 2, 0]) < 1e-6);
            assert!(loss(Task::NextToken, [0, 1, anything]) < 1e-6);
        }
        // One of two is wrong, by 20.
        assert!((loss(Task::PreviousToken, [0, 2, 1]) - 10.0).abs() < 1e-6);
        assert!((loss(Task::NextToken, [0, 2, 0]) - 10.0).abs() < 1e-6);
    }

    #[test]
    fn losses_are_called_what_they_are() {
        assert_eq!(name_of(&previous_token_loss::<Var>), "previous-token");
        assert_eq!(name_of(&next_token_loss::<Var>), "next-token");
        assert_eq!(name_of(&own), "ironlens_train::loss::tests::own");
        assert_eq!(name_of(&Task::PreviousToken.loss()), "custom");
        assert_eq!(name_of(&|logits: &Var, tokens: &IndexTensor| previous_token_loss(logits, tokens)), "custom");
        for task in Task::ALL {
            assert_eq!(Task::from_name(task.name()), Some(task));
            assert_eq!(serde_json::to_value(task).unwrap(), task.name());
        }
    }
}
