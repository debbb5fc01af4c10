//! What a report tells of a run on a task whose rule is known.

pub mod modular;
mod text;

use ironlens_report::{Section, line};
use ironlens_train::{Experiment, RunDir};
use ironlens_transformer::HookedTransformer;

use crate::error::StudyError;

/// The sections on a task; `model` is the run's last.
///
/// # Errors
/// If the run cannot be read, or a picture not be made.
pub fn sections(experiment: Experiment, run: &RunDir, model: &HookedTransformer) -> Result<Vec<Section>, StudyError> {
    Ok(match experiment {
        Experiment::Induction => vec![by_position(run, model)?],
        Experiment::Markov => vec![by_position(run, model)?],
        Experiment::ModularAddition => modular::sections(run, model)?,
        Experiment::Text => vec![text::continuations(run, model)?],
    })
}

/// The loss of each next token on the run's held-out sequences.
fn by_position(run: &RunDir, model: &HookedTransformer) -> Result<Section, StudyError> {
    let tokens = run.sequences()?.tokens;
    let logits = model.forward(&tokens)?;
    let n = tokens.shape()[1] - 1;
    let losses = logits.narrow(1, 0, n).cross_entropy(&tokens.narrow(1, 1, n)).mean(0).to_vec_f64();
    let half = n / 2;
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
    let prose = format!(
        "Mean over {} held-out sequences: {:.3} over the first {half} predictions, {:.3} over the others.",
        tokens.shape()[0],
        mean(&losses[..half]),
        mean(&losses[half..])
    );
    let figure = line(&losses).title("Loss by position").x("position").y("loss");
    Ok(Section { title: "Loss by position".into(), prose, figures: vec![figure] })
}
