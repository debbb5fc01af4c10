//! The standard set of analyses: where heads look, what depends on them (`causal.rs`), what weights say (`weights.rs`).

mod causal;
mod weights;

use ironlens_lens::WeightsExt;
use ironlens_lens::heads::{HeadKind, head_scores_by_position};
use ironlens_lens::logits::{Units, direct_logit_attribution, direct_logit_attribution_by_position};
use ironlens_lens::patterns::{attention_distance, attention_entropy};
use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{ActivationCache, HookedTransformer, Slice};

use crate::analyser::{Analyser, Failure, Found};
use crate::picture::Picture;
use crate::subject::Subject;

/// The most heads in a picture of heads by position.
const MOST_HEADS: usize = 32;

/// The standard analyses, in the order of a report.
pub const ANALYSERS: &[Analyser] = &[
    Analyser { title: "What each head attends to", run: heads },
    Analyser { title: "What makes the prediction", run: attribution },
    Analyser { title: "Where the answer is: patching", run: causal::patches },
    Analyser { title: "What is needed: ablation", run: causal::ablations },
    Analyser { title: "QK and OV circuits", run: weights::circuits },
    Analyser { title: "Which heads build on which", run: weights::composition },
];

/// The title of the picture of every kind of head.
const BY_POSITION: &str = "Share of attention that goes where such a head looks, by position";

/// `layer 0` and so on.
pub fn layer_labels(model: &HookedTransformer) -> Vec<String> {
    (0..model.config().n_layers).map(|l| format!("layer {l}")).collect()
}

/// Which of `parts` matter most by `weight`, at most [`MOST_HEADS`], in their own order; and a sentence where some are
/// left out.
fn foremost(parts: usize, weight: impl Fn(usize) -> f64) -> (Vec<usize>, String) {
    let mut order: Vec<usize> = (0..parts).collect();
    order.sort_by(|a, b| weight(*b).total_cmp(&weight(*a)));
    order.truncate(MOST_HEADS);
    order.sort_unstable();
    let told = match parts > MOST_HEADS {
        true => format!(" By position, the {MOST_HEADS} of {parts} parts with the largest values are shown."),
        false => String::new(),
    };
    (order, told)
}

/// What the model predicts at the last position of each sequence, `[batch]`, of logits `[batch, pos, d_vocab]`.
pub fn last_predictions(logits: &Tensor) -> IndexTensor {
    logits.select(1, logits.dim(1) - 1).argmax(-1)
}

fn heads(subject: &Subject) -> Result<Found, Failure> {
    let (model, tokens) = (&subject.model, &subject.tokens);
    let (_, cache) = model.run_with_cache(tokens)?;
    let mut pictures = Vec::new();
    let mut told = String::new();
    if let Ok(shares) = head_scores_by_position(model, tokens, &HeadKind::ALL) {
        let (labels, pos) = (model.all_head_labels(), tokens.shape()[1]);
        let n = labels.len();
        // [kind, head, pos]
        let all = Tensor::stack(&shares.iter().map(|s| s.reshape(&[n, pos])).collect::<Vec<_>>(), 0);
        let scores = all.mean(&[2]).to_vec_f64();
        let largest = |h: usize| (0..HeadKind::ALL.len()).map(|k| scores[k * n + h]).fold(0.0, f64::max);
        let (shown, left_out) = foremost(n, largest);
        let rows: Vec<Tensor> = shown.iter().map(|&h| all.narrow(1, h, 1)).collect();
        let kinds = HeadKind::ALL.iter().map(|k| k.label().to_string()).collect();
        let picture = Picture::heatmap(BY_POSITION, ["head", "position"], &Tensor::cat(&rows, 1));
        let names = shown.iter().map(|&h| labels[h].clone()).collect();
        let picture = picture.labels(names, vec![]).facets(kinds).unsigned().range(0.0, 1.0).value("share");
        pictures.push(picture);
        told = left_out;
    }
    let entropy = Picture::heads("Entropy of attention, nats", &attention_entropy(&cache)?);
    let distance = Picture::heads("Mean distance of attention, positions", &attention_distance(&cache)?);
    pictures.push(entropy.unsigned().value("nats"));
    pictures.push(distance.unsigned().value("positions"));
    let prose = format!(
        "Means over {} sequences. A share says how much of what a position attends to lies where a head of the kind would \
         look; a head may do its work at some positions only. Entropy is 0 for a head that looks at one position, ln n for \
         one that looks at n alike.{told}",
        tokens.shape()[0]
    );
    Ok((prose, pictures))
}

fn attribution(subject: &Subject) -> Result<Found, Failure> {
    let (logits, cache) = subject.model.run_with_cache(&subject.tokens)?;
    let (by_position, left_out) = attribution_by_position(&cache, &logits.argmax(-1))?;
    let found = direct_logit_attribution(&cache, &last_predictions(&logits), None, -1, Units::Heads)?;
    let prose = format!(
        "The logit of the predicted token at the last position, {:.3} on average over {} sequences, as the sum of what \
         each part of the model writes in its direction. The final norm's scale is held fixed; its bias and b_U are \
         parts of their own, and the remainder is what rounding leaves. By position: the logit of what is predicted \
         there, with the mean over the sequences; what is less than two standard errors from 0 is grey.{left_out}",
        found.total,
        subject.tokens.shape()[0]
    );
    let labels = found.labels.iter().map(|label| in_words(label)).collect();
    let bars = Picture::bars("Direct logit attribution", "logit", labels, found.values);
    Ok((prose, vec![bars, by_position]))
}

/// What each part writes of the logit of the token that is `predicted` `[batch, pos]` at each position.
fn attribution_by_position(cache: &ActivationCache, predicted: &IndexTensor) -> Result<(Picture, String), Failure> {
    let [batch, _] = *predicted.shape() else { return Err("the tokens are not [batch, pos]".into()) };
    let mut labels = Vec::new();
    // [part, pos] of one sequence at a time: the streams of all parts at all its positions are in memory at once.
    let mut of_sequences = Vec::new();
    for b in 0..batch {
        let cache = cache.clone().apply_slice_to_batch_dim(&Slice::At(b as isize))?;
        let tokens = predicted.narrow(0, b, 1);
        let found = direct_logit_attribution_by_position(&cache, &tokens, None, Units::Heads)?;
        labels = found.labels;
        of_sequences.push(found.values.select(1, 0));
    }
    let all = Tensor::stack(&of_sequences, 0);
    let mean = all.mean(&[0]);
    let errors = match batch {
        1 => mean.zeros_like(),
        _ => (all.var(&[0]) * (1.0 / batch as f64)).sqrt(),
    };
    let sizes = mean.abs().mean(&[1]).to_vec_f64();
    let (shown, left_out) = foremost(labels.len(), |part| sizes[part]);
    let pick = |of: &Tensor| Tensor::cat(&shown.iter().map(|&i| of.narrow(0, i, 1)).collect::<Vec<_>>(), 0);
    let names = shown.iter().map(|&i| in_words(&labels[i])).collect();
    let picture = Picture::heatmap("Direct logit attribution by position", ["part", "position"], &pick(&mean));
    Ok((picture.labels(names, vec![]).noise(&pick(&errors)).value("logit"), left_out))
}

/// The label of a part of the stream as readers know it: `0_mlp_out` is MLP 0.
pub(crate) fn in_words(label: &str) -> String {
    for (end, name) in [("_mlp_out", "MLP"), ("_attn_out", "attention")] {
        if let Some(layer) = label.strip_suffix(end) {
            return format!("{name} {layer}");
        }
    }
    label.into()
}
