//! Sequences with what a model makes of each token.

use ironlens_report::{Array, Example};
use ironlens_tensor::Tensor;
use ironlens_train::{Experiment, RunDir, Task};
use ironlens_transformer::{ActivationCache, Sequences};

use crate::array;
use crate::error::StudyError;

/// The most sequences that a report shows.
pub(crate) const MOST: usize = 3;

/// The most numbers of attention that they bring into a page.
const MOST_CELLS: usize = 2_000_000;

/// How many of the likeliest tokens are listed.
const TOP: usize = 5;

/// Some held-out sequences of a run, of logits `[batch, pos, d_vocab_out]`.
pub(crate) fn of_run(
    run: &RunDir,
    sequences: &Sequences,
    logits: &Tensor,
    cache: &ActivationCache,
) -> Result<Vec<Example>, StudyError> {
    let loss = &run.config().learner.loss;
    let (task, experiment) = (Task::from_name(loss), Experiment::from_name(loss));
    let is_text = experiment == Some(Experiment::Text);
    let text = |id: u32| match u8::try_from(id) {
        Ok(byte) if is_text => char::from(byte).to_string(),
        _ => id.to_string(),
    };
    let [batch, pos] = *sequences.tokens.shape() else { return Ok(Vec::new()) };
    let cells = (0..cache.model().config().n_layers)
        .map(|l| cache.get(("pattern", l)).map_or(0, |p| p.numel() / batch))
        .sum::<usize>();
    let with_attention = MOST_CELLS / cells.max(1);
    let mut out = Vec::new();
    for item in 0..batch.min(MOST) {
        // Padding stands at one side, or at both: what is between is the sequence.
        let real = sequences.real(item);
        let (Some(&from), n) = (real.first(), real.len()) else { continue };
        if real.last() != Some(&(from + n - 1)) {
            continue;
        }
        let ids = &sequences.tokens.as_slice()[item * pos..][from..from + n];
        let targets: Vec<Option<u32>> = (0..n)
            .map(|i| match (task, experiment) {
                (Some(Task::PreviousToken), _) => i.checked_sub(1).map(|i| ids[i]),
                (Some(Task::NextToken), _) => ids.get(i + 1).copied(),
                (None, Some(Experiment::Induction | Experiment::Markov | Experiment::Text)) => ids.get(i + 1).copied(),
                (None, Some(Experiment::ModularAddition) | None) => None,
            })
            .collect();
        let name = format!("held-out sequence {}", item + 1);
        let mut example = of(name, ids, &targets, &logits.select(0, item).narrow(0, from, n), &text);
        if item < with_attention && n == pos {
            example.layers = patterns(cache, item)?;
        }
        out.push(example);
    }
    Ok(out)
}

/// A sequence of tokens, what should be said at each, and logits `[pos, d_vocab_out]`.
pub(crate) fn of(
    name: String,
    ids: &[u32],
    targets: &[Option<u32>],
    logits: &Tensor,
    text: &dyn Fn(u32) -> String,
) -> Example {
    let log_probs = logits.log_softmax();
    let vocab = log_probs.dim(1);
    let (values, best) = log_probs.topk(TOP.min(vocab), 1);
    let (all, top, ids_of_top) = (log_probs.to_vec(), values.to_vec(), best);
    let k = TOP.min(vocab).max(1);
    let row = |i: usize| {
        let ids = &ids_of_top.as_slice()[i * k..(i + 1) * k];
        ids.iter().zip(&top[i * k..(i + 1) * k]).map(|(id, p)| (text(*id), *p)).collect()
    };
    let log_prob = |(i, target): (usize, &Option<u32>)| {
        target.filter(|t| (*t as usize) < vocab).map_or(f32::NAN, |t| all[i * vocab + t as usize])
    };
    Example {
        name,
        tokens: ids.iter().map(|id| text(*id)).collect(),
        targets: targets.iter().map(|t| t.map_or_else(String::new, text)).collect(),
        log_probs: targets.iter().enumerate().map(log_prob).collect(),
        top: (0..ids.len()).map(row).collect(),
        layers: Vec::new(),
    }
}

/// The attention of one sequence, `[head, dest, src]` for each layer.
pub(crate) fn patterns(cache: &ActivationCache, item: usize) -> Result<Vec<Array>, StudyError> {
    let of = |l| Ok(array(&cache.get(("pattern", l))?.select(0, item).contiguous()));
    (0..cache.model().config().n_layers).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironlens_tensor::Device;

    #[test]
    fn tokens_have_their_chances() {
        let logits = Tensor::from_vec(vec![0.0, 2f32.ln(), 0.0, 0.0, 0.0, 6f32.ln()], &[2, 3], &Device::Cpu);
        let example = of("one".into(), &[4, 5], &[None, Some(2)], &logits, &|id| format!("t{id}"));
        assert_eq!((example.tokens[1].as_str(), example.targets[1].as_str()), ("t5", "t2"));
        assert!(example.log_probs[0].is_nan() && (example.log_probs[1] - 0.75f32.ln()).abs() < 1e-6);
        assert_eq!(example.top[0][0].0, "t1");
        assert!((example.top[0][0].1 - 0.5f32.ln()).abs() < 1e-6 && example.top[1].len() == 3);
    }
}
