//! What depends on what: patching and ablation of every part, at every position.

use ironlens_lens::ablation::{Ablation, Parts, ablate_by_position};
use ironlens_lens::patching::{PatchOptions, PatchResult, Patching};
use ironlens_lens::{Metric, WeightsExt};
use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::HookedTransformer;

use super::{foremost, last_predictions, layer_labels};
use crate::analyser::{Failure, Found};
use crate::picture::Picture;
use crate::subject::Subject;

/// What changed at each position of each sequence with one part replaced.
struct Effects {
    /// The parts: heads, layer by layer, or MLPs.
    labels: Vec<String>,
    /// `[part, batch, pos]`.
    values: Vec<f64>,
    batch: usize,
    pos: usize,
}

/// What effects are measured against: how large a whole one is at each position of each sequence, `[batch, pos]`, and
/// where one can be told.
struct Whole {
    size: Vec<f64>,
    counts: Vec<bool>,
}

impl Effects {
    /// Those of `parts` on top of `base` `[batch, pos]`, which `measure` gives without them.
    fn of(
        subject: &Subject,
        tokens: &IndexTensor,
        measure: &dyn Fn(&Tensor) -> Tensor,
        base: &Tensor,
        parts: Parts,
        by: &Ablation,
    ) -> Result<Effects, Failure> {
        let model = &subject.model;
        let labels = match parts {
            Parts::Mlps if model.config().attn_only => Vec::new(),
            Parts::Mlps => (0..model.config().n_layers).map(|l| format!("MLP {l}")).collect(),
            Parts::Attns => layer_labels(model),
            Parts::Heads | Parts::Patterns => model.all_head_labels(),
        };
        let (batch, pos) = (base.dim(0), base.dim(1));
        let values = match labels.is_empty() {
            true => Vec::new(),
            false => {
                let all = ablate_by_position(model, tokens, measure, parts, by)?.reshape(&[labels.len(), batch, pos]);
                (&all - base).to_vec_f64()
            }
        };
        Ok(Effects { labels, values, batch, pos })
    }

    fn and(mut self, other: Effects) -> Effects {
        self.labels.extend(other.labels);
        self.values.extend(other.values);
        self
    }

    fn cells(&self, part: usize) -> &[f64] {
        let size = self.batch * self.pos;
        &self.values[part * size..(part + 1) * size]
    }

    /// Shares of the whole over the sequences, and their standard errors, `[part, pos]`.
    fn by_position(&self, whole: &Whole) -> (Vec<f64>, Vec<f64>) {
        let at = |part: usize, p: usize| {
            let items = (0..self.batch).map(|b| b * self.pos + p).filter(|i| whole.counts[*i]);
            share(&items.map(|i| (self.cells(part)[i], whole.size[i])).collect::<Vec<_>>())
        };
        (0..self.labels.len())
            .flat_map(|part| (0..self.pos).map(move |p| (part, p)))
            .map(|(part, p)| at(part, p))
            .unzip()
    }

    /// Shares over all positions, and their standard errors over the sequences, `[part]`.
    fn overall(&self, whole: &Whole) -> (Vec<f64>, Vec<f64>) {
        let of_item = |part: usize, b: usize| {
            let items = (b * self.pos..(b + 1) * self.pos).filter(|i| whole.counts[*i]);
            items.fold((0.0, 0.0), |(v, w), i| (v + self.cells(part)[i], w + whole.size[i]))
        };
        let of_part = |part| share(&(0..self.batch).map(|b| of_item(part, b)).collect::<Vec<_>>());
        (0..self.labels.len()).map(of_part).unzip()
    }
}

/// The ratio of two means, of pairs (value, whole), and its standard error; 0 where there is nothing to divide by.
fn share(pairs: &[(f64, f64)]) -> (f64, f64) {
    let n = pairs.len() as f64;
    let (value, whole) = pairs.iter().fold((0.0, 0.0), |(v, w), pair| (v + pair.0, w + pair.1));
    if whole.abs() < 1e-6 * n || n == 0.0 {
        return (0.0, 0.0);
    }
    let ratio = value / whole;
    let squares: f64 = pairs.iter().map(|(v, w)| (v - ratio * w).powi(2)).sum();
    (ratio, (squares / (n - 1.0).max(1.0) / n).sqrt() / (whole / n).abs())
}

/// Values of every head as a tensor `[layer, head]`: the first ones of `of`.
fn grid(model: &HookedTransformer, of: &[f64]) -> Tensor {
    let (layers, heads) = (model.config().n_layers, model.config().n_heads());
    Tensor::from_vec_f64(of[..layers * heads].to_vec(), &[layers, heads])
}

/// A picture of shares by position with their errors, one matrix for each name.
fn by_position(title: &str, named: &[(&str, &Effects)], whole: &Whole) -> (Picture, String) {
    let all: Vec<(Vec<f64>, Vec<f64>)> = named.iter().map(|(_, effects)| effects.by_position(whole)).collect();
    let (first, pos) = (named[0].1, named[0].1.pos);
    let size = |part: usize| -> f64 {
        all.iter()
            .map(|(values, _)| values[part * pos..][..pos].iter().map(|v| v.abs()).sum::<f64>())
            .fold(0.0, f64::max)
    };
    let (shown, told) = foremost(first.labels.len(), size);
    let pick = |of: &[f64]| shown.iter().flat_map(|&part| of[part * pos..][..pos].to_vec()).collect::<Vec<f64>>();
    let shape: Vec<usize> = [named.len(), shown.len(), pos].into_iter().skip(usize::from(named.len() == 1)).collect();
    let tensor = |of: Vec<f64>| Tensor::from_vec_f64(of, &shape);
    let values = tensor(all.iter().flat_map(|(values, _)| pick(values)).collect());
    let errors = tensor(all.iter().flat_map(|(_, errors)| pick(errors)).collect());
    let labels = shown.iter().map(|&part| first.labels[part].clone()).collect();
    let mut picture = Picture::heatmap(title, ["part", "position"], &values).labels(labels, vec![]).noise(&errors);
    if named.len() > 1 {
        picture = picture.facets(named.iter().map(|(name, _)| (*name).to_string()).collect());
    }
    (picture, told)
}

/// Patching from each sequence to another one in its place.
pub(super) fn patches(subject: &Subject) -> Result<Found, Failure> {
    let (model, clean) = (&subject.model, &subject.tokens);
    let [batch, pos] = *clean.shape() else { return Err("the tokens are not [batch, pos]".into()) };
    let corrupted = others(clean, model.config().d_vocab);
    let (logits, worse) = (model.forward(clean)?, model.forward(&corrupted)?);
    let (right, wrong) = (logits.argmax(-1), worse.argmax(-1));
    let measure = |logits: &Tensor| {
        let of = |ids: &IndexTensor| logits.gather(2, &ids.reshape(&[batch, pos, 1])).reshape(&[batch, pos]);
        &of(&right) - &of(&wrong)
    };
    let base = measure(&worse);
    let whole = Whole {
        size: (&measure(&logits) - &base).to_vec_f64(),
        counts: right.as_slice().iter().zip(wrong.as_slice()).map(|(a, b)| a != b).collect(),
    };
    let told_apart = whole.counts.iter().filter(|c| **c).count();
    if told_apart == 0 {
        return Err("the model says the same of every sequence, so there is no answer to bring back".into());
    }
    let by = Ablation::Resample(clean.clone().into());
    let effects = |parts| Effects::of(subject, &corrupted, &measure, &base, parts, &by);
    let (heads, patterns) = (effects(Parts::Heads)?, effects(Parts::Patterns)?);
    let in_all = |title: &str, effects: &Effects| {
        let (shares, errors) = effects.overall(&whole);
        let picture = Picture::heads(title, &grid(model, &shares)).noise(&grid(model, &errors));
        picture.range(-1.0, 1.0).value("share restored")
    };
    let totals = [in_all("Head output", &heads), in_all("Attention pattern of a head", &patterns)];
    let parts = heads.and(effects(Parts::Mlps)?);
    let title = "Share of the answer that the output of a part brings back, by position";
    let (picture, told) = by_position(title, &[("", &parts)], &whole);
    let mut pictures = vec![picture.range(-1.0, 1.0).value("share restored")];
    pictures.extend(totals);
    let (one_token, what) = one_token(subject)?;
    pictures.push(one_token);
    let prose = format!(
        "{batch} sequences, and another one in the place of each. A cell runs the other one with the output of one part \
         taken from the original. What comes back is a share of the way from the other answer to the original one (the \
         difference of their logits): 1 is all, 0 nothing. Means over the sequences, at the {told_apart} of {} positions \
         where the answers differ.{told}\n\n{what}",
        batch * pos
    );
    Ok((prose, pictures))
}

/// Another sequence in the place of each: the next one; of a single one, its tokens half the vocabulary further.
fn others(tokens: &IndexTensor, vocab: usize) -> IndexTensor {
    let (ids, pos) = (tokens.as_slice(), tokens.shape()[1]);
    let moved: Vec<u32> = match tokens.shape()[0] {
        1 => ids.iter().map(|id| ((*id as usize + vocab / 2) % vocab) as u32).collect(),
        _ => ids[pos..].iter().chain(&ids[..pos]).copied().collect(),
    };
    IndexTensor::new(moved, tokens.shape())
}

/// Patching layer by layer from a sequence to the same with the last token but one replaced: what is where.
fn one_token(subject: &Subject) -> Result<(Picture, String), Failure> {
    let (model, cfg) = (&subject.model, subject.model.config());
    let pos = subject.tokens.shape()[1];
    let clean = subject.tokens.rows(&[0]);
    let mut ids = clean.as_slice().to_vec();
    let replaced = pos.saturating_sub(2);
    let other = (ids[replaced] as usize + cfg.d_vocab / 2).max(1) % cfg.d_vocab;
    ids[replaced] = other as u32;
    let corrupted = IndexTensor::new(ids, clean.shape());
    let (logits, cache) = model.run_with_cache(&clean)?;
    let right = last_predictions(&logits).as_slice()[0];
    let mut wrong = last_predictions(&model.forward(&corrupted)?).as_slice()[0];
    if wrong == right {
        wrong = (right + 1) % cfg.d_vocab_out as u32;
    }
    let metric = Metric::logit_diff(&[right], &[wrong])?;
    let m_clean = metric.of(&logits);
    // Nothing before the replaced token differs.
    let from = replaced.saturating_sub(6);
    let shown = |result: PatchResult| {
        // A difference too small to divide by is shown as it is.
        let values = match (m_clean - result.corrupted).abs() > 1e-6 {
            true => result.normalized(m_clean),
            false => result.values,
        };
        values.narrow(1, from, pos - from)
    };
    let options = PatchOptions::default;
    let patching = Patching::new(model, &corrupted, &cache, &metric)?;
    let mut maps = vec![
        ("residual stream before", shown(patching.resid_pre(options())?)),
        ("attention output", shown(patching.attn_out(options())?)),
    ];
    if !cfg.attn_only {
        maps.push(("MLP output", shown(patching.mlp_out(options())?)));
    }
    let (names, maps): (Vec<&str>, Vec<Tensor>) = maps.into_iter().unzip();
    let columns = (from..pos).map(|p| p.to_string()).collect();
    let picture =
        Picture::heatmap("One token replaced: where its answer is", ["layer", "position"], &Tensor::stack(&maps, 0))
            .labels((0..cfg.n_layers).map(|l| l.to_string()).collect(), columns)
            .facets(names.into_iter().map(String::from).collect());
    let what = format!(
        "Layer by layer: the first sequence with token {replaced} replaced, and one activation of the original in its \
         place. 1 brings the answer at the last position (token {right} over {wrong}, a logit difference of {m_clean:.3}) \
         back in full. Positions well before the replaced token are left out: nothing differs there."
    );
    Ok((picture.range(-1.0, 1.0).value("share restored"), what))
}

pub(super) fn ablations(subject: &Subject) -> Result<Found, Failure> {
    let (model, tokens) = (&subject.model, &subject.tokens);
    let logits = model.forward(tokens)?;
    let predicted = logits.argmax(-1);
    let measure = |logits: &Tensor| logits.cross_entropy(&predicted);
    let base = measure(&logits);
    let cells = base.numel();
    let whole = Whole { size: vec![1.0; cells], counts: vec![true; cells] };
    let ways = [("set to zero", Ablation::Zero), ("set to its mean", Ablation::Mean(tokens.clone().into()))];
    let mut all = Vec::new();
    for (how, by) in ways {
        let effects = |parts| Effects::of(subject, tokens, &measure, &base, parts, &by);
        all.push((how, effects(Parts::Heads)?.and(effects(Parts::Mlps)?)));
    }
    let named: Vec<(&str, &Effects)> = all.iter().map(|(how, effects)| (*how, effects)).collect();
    let (picture, told) = by_position("Rise of the loss without a part, by position", &named, &whole);
    let mut pictures = Vec::new();
    let mut cards = Vec::new();
    // One scale for both ways, on which a hundredth of a nat is faint.
    let heads = model.all_head_labels().len();
    let overall: Vec<_> = all.iter().map(|(_, effects)| effects.overall(&whole)).collect();
    let reach = overall.iter().flat_map(|(rises, _)| &rises[..heads]).fold(0.1, |most: f64, v| most.max(v.abs()));
    for ((how, effects), (rises, errors)) in all.iter().zip(overall) {
        let card = Picture::heads(format!("Rise of the loss, head {how}"), &grid(model, &rises));
        cards.push(card.noise(&grid(model, &errors)).range(-reach, reach).value("nats"));
        let title = format!("Each part {how}");
        pictures.push(Picture::bars(title, "rise of the loss", effects.labels.clone(), rises).errors(errors));
    }
    pictures.push(picture.value("nats"));
    pictures.extend(cards);
    let prose = format!(
        "How much the loss of the model's own predictions rises when the output of one part is replaced everywhere: by zero, \
         or by its mean over the {} sequences at each position, which keeps what does not depend on the tokens. Means over \
         the sequences; thin lines are their standard errors.{told}",
        tokens.shape()[0]
    );
    Ok((prose, pictures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_ratios_of_means_with_their_errors() {
        let (ratio, error) = share(&[(1.0, 2.0), (3.0, 2.0)]);
        // Half of the way and one and a half: their deviations from the mean are 1 each, of a whole of 2.
        assert!((ratio - 1.0).abs() < 1e-12 && (error - (2.0f64 / 1.0 / 2.0).sqrt() / 2.0).abs() < 1e-12, "{error}");
        assert_eq!(share(&[(1.0, 2.0)]), (0.5, 0.0), "of one sequence nothing is known of the spread");
        assert_eq!(share(&[]), (0.0, 0.0));
        assert_eq!(share(&[(1.0, 0.0)]), (0.0, 0.0));
    }

    #[test]
    fn other_sequences_take_the_places_of_all() {
        let rows = IndexTensor::from([[1, 2], [3, 4], [5, 6]]);
        assert_eq!(others(&rows, 8).as_slice(), [3, 4, 5, 6, 1, 2]);
        assert_eq!(others(&rows.rows(&[0]), 8).as_slice(), [5, 6]);
    }
}
