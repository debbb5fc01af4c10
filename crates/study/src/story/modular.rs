//! Sums modulo a prime: the waves that a model adds numbers with, and the phases in which it finds them (Nanda et al.
//! 2023, arXiv 2301.05217).

use std::f64::consts::PI;

use ironlens_report::{Figure, Section, Series, bar, imshow, line};
use ironlens_tensor::{DType, Device, IndexTensor, Tensor};
use ironlens_train::{Data, ModularAddition, RunDir};
use ironlens_transformer::HookedTransformer;

use crate::array;
use crate::error::StudyError;

/// The largest prime whose phases are computed: the logits of all pairs are in memory at once.
const LARGEST: usize = 256;

/// A frequency stands out whose share of the power lies this many standard deviations above its even share. Of random
/// embeddings of `d` numbers each share is a mean of `2 d` squares, whose deviation is `1 / sqrt(d)` of it.
const DEVIATIONS: f64 = 5.7;

/// What embeddings are made of, as waves over the numbers.
#[derive(Clone, Debug)]
pub struct Frequencies {
    /// The share of the power of each frequency 1, 2, .. up to half of the prime.
    pub shares: Vec<f64>,
    /// The frequencies that stand out, the strongest first: with `d_model` of 128, more than one and a half times their
    /// even share.
    pub key: Vec<usize>,
}

impl Frequencies {
    /// Of the embeddings of the numbers `0..d_vocab - 1` of a model.
    ///
    /// # Errors
    /// If the model has no embeddings.
    pub fn of(model: &HookedTransformer) -> Result<Frequencies, StudyError> {
        let p = model.config().d_vocab - 1;
        let w = model.param("embed.W_E")?.narrow(0, 0, p);
        let half = p.saturating_sub(1) / 2;
        let waves = waves(p, 1..=half).to_dtype(w.dtype()).to_device(&w.device());
        let power = waves.matmul(&w).square().sum(1).reshape(&[half, 2]).sum(1).to_vec_f64();
        let total: f64 = power.iter().sum();
        let stands_out = 1.0 + DEVIATIONS / (model.config().d_model as f64).sqrt();
        let mut key: Vec<usize> =
            (1..=half).filter(|k| power[k - 1] > stands_out * total / half.max(1) as f64).collect();
        key.sort_by(|a, b| power[b - 1].total_cmp(&power[a - 1]));
        Ok(Frequencies { shares: power.iter().map(|v| v / total.max(f64::MIN_POSITIVE)).collect(), key })
    }

    /// The share of the key frequencies.
    pub fn key_share(&self) -> f64 {
        self.key.iter().map(|k| self.shares[k - 1]).sum()
    }
}

/// The losses of one checkpoint. What a sum has to do with the key frequencies is the part of the logits that is a wave
/// of one of these over `a + b`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Steps trained.
    pub step: u64,
    /// The loss on the pairs that are trained on.
    pub shown: f64,
    /// The loss on all others.
    pub held_out: f64,
    /// Restricted loss: of the logits' mean and their part in the key frequencies alone, on all pairs.
    pub restricted: f64,
    /// Excluded loss: of the logits without their part in the key frequencies, on the pairs that are trained on.
    pub excluded: f64,
    /// The norm of all weights.
    pub weights: f64,
}

/// The losses of every checkpoint of a run, by the key frequencies of its end.
///
/// # Errors
/// If the run cannot be read, or is of another task.
pub fn moments(run: &RunDir, key: &[usize]) -> Result<Vec<Moment>, StudyError> {
    let seed = run.config().data.seed.unwrap_or_default();
    let shown = ModularAddition::new(run.model_config()?, seed)?.batch(usize::MAX)?;
    let shown: Vec<(u32, u32)> = shown.tokens.as_slice().chunks(3).map(|t| (t[0], t[1])).collect();
    let mut all = vec![moment(&run.initial_model(&Device::Cpu)?, 0, key, &shown)?];
    for checkpoint in run.checkpoints()?.iter().filter(|c| c.step > 0) {
        all.push(moment(&run.model_at(checkpoint, &Device::Cpu)?, checkpoint.step, key, &shown)?);
    }
    Ok(all)
}

/// The losses of a model, in double precision; `shown` are the pairs that it was trained on.
///
/// # Errors
/// If the model cannot be run.
pub fn moment(model: &HookedTransformer, step: u64, key: &[usize], shown: &[(u32, u32)]) -> Result<Moment, StudyError> {
    let p = model.config().d_vocab - 1;
    // All pairs by their sum: [sum, a, logit]. The part of logits that is a wave over a + b is one of their mean over
    // the pairs of a sum.
    let pairs = (0..p).flat_map(|sum| (0..p).flat_map(move |a| [a, (sum + p - a) % p, p]));
    let tokens = IndexTensor::new(pairs.map(|id| id as u32).collect::<Vec<_>>(), &[p * p, 3]);
    let logits = model.forward(&tokens)?.select(1, 2).to_dtype(DType::F64);
    let width = logits.dim(1);
    let logits = logits.reshape(&[p, p, width]);
    let of_sums = logits.mean(1);
    let waves = waves(p, key.iter().copied());
    let part = match key.is_empty() {
        true => of_sums.zeros_like(),
        false => waves.t().matmul(&waves.matmul(&of_sums)),
    };
    let sums = IndexTensor::new((0..p as u32).collect::<Vec<_>>(), &[p]);
    let restricted = (&part + &of_sums.mean(0)).cross_entropy(&sums).mean_all().item();
    let labels = IndexTensor::new((0..p * p).map(|i| (i / p) as u32).collect::<Vec<_>>(), &[p, p]);
    let losses = logits.cross_entropy(&labels).to_vec_f64();
    let without = (&logits - &part.reshape(&[p, 1, width])).cross_entropy(&labels).to_vec_f64();
    let mut is_shown = vec![false; p * p];
    for &(a, b) in shown {
        is_shown[(a as usize + b as usize) % p * p + a as usize] = true;
    }
    let over = |of: &[f64], which: bool| {
        let chosen: Vec<f64> =
            of.iter().zip(&is_shown).filter(|(_, is)| **is == which).map(|(loss, _)| *loss).collect();
        chosen.iter().sum::<f64>() / chosen.len().max(1) as f64
    };
    Ok(Moment {
        step,
        shown: over(&losses, true),
        held_out: over(&losses, false),
        restricted,
        excluded: over(&without, true),
        weights: model.params().iter().map(|(_, w)| w.square().sum_all().item()).sum::<f64>().sqrt(),
    })
}

/// When what happened; a step is that of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// From here on the pairs that are trained on are known: memorisation is over.
    pub by_heart: Option<u64>,
    /// From here on the key frequencies alone give all sums.
    pub formed: Option<u64>,
    /// From here on the pairs that are trained on are no better than guessed without the key frequencies.
    pub needed: Option<u64>,
    /// From here on the pairs that are held out are known: what was learned by heart is cleaned up.
    pub known: Option<u64>,
}

impl Phases {
    /// Of losses, where knowing is a tenth of the loss of guessing, `ln p`.
    pub fn of(moments: &[Moment], p: usize) -> Phases {
        let guessing = (p as f64).ln();
        let first = |of: fn(&Moment) -> f64| moments.iter().find(|m| of(m) < guessing / 10.0).map(|m| m.step);
        // Untrained logits are worse than guessing, too: it counts from the least excluded loss on.
        let least = (0..moments.len()).min_by(|i, j| moments[*i].excluded.total_cmp(&moments[*j].excluded));
        let needed = moments[least.unwrap_or(0)..].iter().find(|m| m.excluded > guessing).map(|m| m.step);
        Phases {
            by_heart: first(|m| m.shown),
            formed: first(|m| m.restricted),
            needed: needed.filter(|_| first(|m| m.shown).is_some()),
            known: first(|m| m.held_out),
        }
    }

    /// Whether they came as in the paper: first the sums are learned by heart, then the circuit is formed, and last
    /// the held-out ones are known.
    pub fn in_order(&self) -> bool {
        match (self.by_heart, self.formed, self.needed, self.known) {
            (Some(by_heart), Some(formed), Some(needed), Some(known)) => {
                by_heart < known && (by_heart..=known).contains(&formed) && (by_heart..=known).contains(&needed)
            }
            _ => false,
        }
    }
}

/// The sections on a run of this task; `model` is its last.
///
/// # Errors
/// If the run cannot be read.
pub fn sections(run: &RunDir, model: &HookedTransformer) -> Result<Vec<Section>, StudyError> {
    let frequencies = Frequencies::of(model)?;
    let mut sections = vec![rule(model, &frequencies)?];
    let p = model.config().d_vocab - 1;
    if p <= LARGEST && !frequencies.key.is_empty() {
        let moments = moments(run, &frequencies.key)?;
        // Fewer show no order.
        if moments.len() > 3 {
            sections.push(phases(&moments, p));
        }
    }
    Ok(sections)
}

/// Which frequencies the embeddings of the numbers are made of, and how many sums are right.
fn rule(model: &HookedTransformer, frequencies: &Frequencies) -> Result<Section, StudyError> {
    let p = model.config().d_vocab - 1;
    let (mut right, mut largest) = (0, Vec::with_capacity(p * p));
    // The sums with some first numbers at a time: those of a large prime are too many for memory.
    let at_a_time = (LARGEST * LARGEST / p).clamp(1, p);
    for first in (0..p).step_by(at_a_time) {
        let some = first..(first + at_a_time).min(p);
        let ids: Vec<u32> = some.flat_map(|a| (0..p).flat_map(move |b| [a as u32, b as u32, p as u32])).collect();
        let n = ids.len() / 3;
        let logits = model.forward(&IndexTensor::new(ids, &[n, 3]))?.select(1, 2);
        let said = logits.argmax(-1);
        let is_right = |(i, said): (usize, &u32)| (first + i / p + i % p) % p == *said as usize;
        right += said.as_slice().iter().enumerate().filter(|one| is_right(*one)).count();
        largest.extend(logits.gather(1, &said.reshape(&[n, 1])).to_vec());
    }
    let found = match frequencies.key.is_empty() {
        true => "No frequency stands out: the embeddings are not periodic.".into(),
        false => {
            let names: Vec<String> = frequencies.key.iter().map(usize::to_string).collect();
            let share = 100.0 * frequencies.key_share();
            format!("{} frequencies ({}) hold {share:.1}% of the power.", names.len(), names.join(", "))
        }
    };
    let prose = format!(
        "Of all {} sums, shown and held out, {right} are right. The embeddings of the numbers 0 to {} as waves over the \
         numbers: {found}",
        p * p,
        p - 1
    );
    let labels: Vec<String> = (1..=frequencies.shares.len()).map(|k| k.to_string()).collect();
    let mut figures =
        vec![bar(labels, &frequencies.shares).title("Share of the embedding's power by frequency").y("share")];
    if p <= LARGEST {
        let by_pair = Tensor::from_vec(largest, &[p, p], &Device::Cpu);
        figures.push(imshow(array(&by_pair)).title("The largest logit of each sum").x("b").y("a"));
    }
    Ok(Section { title: "Waves over the numbers".into(), prose, figures })
}

/// How the rule was found.
fn phases(moments: &[Moment], p: usize) -> Section {
    let found = Phases::of(moments, p);
    let at = |step: Option<u64>| step.map_or("at no checkpoint".into(), |s| format!("from step {s} on"));
    let most = moments.iter().max_by(|a, b| a.weights.total_cmp(&b.weights));
    let (most, last) = (most.expect("there are moments"), moments[moments.len() - 1]);
    let prose = format!(
        "Losses at {} checkpoints. The shown sums are known (a tenth of the loss of guessing) {}. The restricted loss, of \
         the key frequencies alone, is as low {}. The excluded loss, without them, is no better than guessing on the shown \
         sums {}. The held-out sums are known {}. The weights' norm is largest, {:.1}, at step {}, and {:.1} at the end.\n\n\
         {}",
        moments.len(),
        at(found.by_heart),
        at(found.formed),
        at(found.needed),
        at(found.known),
        most.weights,
        most.step,
        last.weights,
        match found.in_order() {
            true =>
                "So the sums are learned by heart first, then a circuit of waves is formed beside what was memorised, and \
                 the held-out loss falls last, as what was memorised is cleaned up.",
            false => "These are not, or not all, in the order of the paper: by heart, circuit, held-out sums.",
        }
    );
    let steps: Vec<u64> = moments.iter().map(|m| m.step).collect();
    let curve =
        |name: &str, of: fn(&Moment) -> f64| Series::new(name, &moments.iter().map(of).collect::<Vec<f64>>()).x(&steps);
    let losses = vec![
        curve("shown", |m| m.shown),
        curve("held out", |m| m.held_out),
        curve("restricted: key frequencies alone", |m| m.restricted),
        curve("excluded: without them", |m| m.excluded),
    ];
    let norm = vec![curve("norm of the weights", |m| m.weights)];
    let by_step = |figure: Figure, title: &str| figure.title(title).x("step");
    Section {
        title: "Losses of parts of the logits".into(),
        prose,
        figures: vec![
            by_step(line(losses), "Loss").y("loss").log_y(),
            by_step(line(norm), "Norm of the weights").y("norm"),
        ],
    }
}

/// Cosine and sine of `2 pi k a / p` over numbers `a` below `p`, each of length 1, for each frequency `k`:
/// `[2 * frequencies, p]`, f64.
fn waves(p: usize, frequencies: impl Iterator<Item = usize>) -> Tensor {
    let norm = (2.0 / p as f64).sqrt();
    let values: Vec<f64> = frequencies
        .flat_map(|k| [f64::cos as fn(f64) -> f64, f64::sin].map(|f| (k, f)))
        .flat_map(|(k, f)| (0..p).map(move |a| norm * f(2.0 * PI * (k * a % p) as f64 / p as f64)))
        .collect();
    let rows = values.len() / p;
    Tensor::from_vec_f64(values, &[rows, p])
}
