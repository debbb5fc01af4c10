//! Which token comes next.

use ironlens_tensor::Rng;

/// How tokens are chosen from logits; [`crate::GenerateOptions::sampling`] makes it.
///
/// In this order: repetition penalty, temperature, frequency penalty, top k, top p, min p. What is left has the
/// softmax's probabilities, in double precision, so that one seed draws the same tokens everywhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    pub(crate) greedy: bool,
    pub(crate) top_k: Option<usize>,
    pub(crate) top_p: Option<f64>,
    pub(crate) min_p: Option<f64>,
    pub(crate) temperature: f64,
    pub(crate) freq_penalty: f64,
    pub(crate) repetition_penalty: f64,
}

impl Sampling {
    /// Whether the likeliest token of the logits as they are is taken, so that nothing but its id is needed.
    pub(crate) fn is_argmax(&self) -> bool {
        self.greedy && self.repetition_penalty == 1.0
    }

    /// The probability of each token to be chosen, from `logits` `[d_vocab]`; `seen` are the tokens of the sequence so
    /// far. One has 1 if the likeliest is taken.
    pub fn probabilities(&self, logits: &[f32], seen: &[u32]) -> Vec<f64> {
        let mut x = self.penalised(logits, seen);
        if self.greedy {
            let best = likeliest(&x);
            return (0..x.len()).map(|i| f64::from(u8::from(i == best))).collect();
        }
        x.iter_mut().for_each(|v| *v /= self.temperature);
        if self.freq_penalty != 0.0 {
            seen.iter().for_each(|&token| x[token as usize] -= self.freq_penalty);
        }
        if let Some(k) = self.top_k.filter(|k| *k < x.len()) {
            let mut sorted = x.clone();
            let (_, &mut kth, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
            x.iter_mut().filter(|v| **v < kth).for_each(|v| *v = f64::NEG_INFINITY);
        }
        if let Some(p) = self.top_p {
            self.keep_top_p(&mut x, p);
        }
        let mut chances = softmax(&x);
        if let Some(part) = self.min_p {
            let least = part * chances.iter().copied().fold(0.0, f64::max);
            chances.iter_mut().filter(|c| **c < least).for_each(|c| *c = 0.0);
            let sum: f64 = chances.iter().sum();
            chances.iter_mut().for_each(|c| *c /= sum);
        }
        chances
    }

    /// The logits after the repetition penalty.
    fn penalised(&self, logits: &[f32], seen: &[u32]) -> Vec<f64> {
        let mut x: Vec<f64> = logits.iter().map(|&v| f64::from(v)).collect();
        if self.repetition_penalty != 1.0 {
            let mut done = vec![false; x.len()];
            for &token in seen {
                let token = token as usize;
                if !std::mem::replace(&mut done[token], true) {
                    let by = self.repetition_penalty;
                    x[token] = if x[token] > 0.0 { x[token] / by } else { x[token] * by };
                }
            }
        }
        x
    }

    /// Hides what comes after the likeliest tokens that together have more than `p`.
    fn keep_top_p(&self, x: &mut [f64], p: f64) {
        let chances = softmax(x);
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(|&a, &b| x[b].total_cmp(&x[a]).then(a.cmp(&b)));
        let mut sum = 0.0;
        let keep = order.iter().position(|&i| {
            sum += chances[i];
            sum > p
        });
        for &i in order.iter().skip(keep.map_or(x.len(), |last| last + 1)) {
            x[i] = f64::NEG_INFINITY;
        }
    }

    /// A token by its probability. `draw` is a number from 0 up to but without 1.
    pub(crate) fn choose(&self, logits: &[f32], seen: &[u32], draw: impl FnOnce() -> f64) -> u32 {
        if self.is_argmax() {
            return likeliest(logits) as u32;
        }
        if self.greedy {
            return likeliest(&self.penalised(logits, seen)) as u32;
        }
        let chances = self.probabilities(logits, seen);
        let draw = draw();
        let mut sum = 0.0;
        let chosen = chances.iter().position(|c| {
            sum += c;
            *c > 0.0 && draw < sum
        });
        // The sum may end just below 1.
        chosen.or_else(|| chances.iter().rposition(|c| *c > 0.0)).unwrap_or(0) as u32
    }
}

/// The place of the largest, the first of equals.
fn likeliest<T: PartialOrd>(x: &[T]) -> usize {
    (0..x.len()).fold(0, |best, i| if x[i] > x[best] { i } else { best })
}

/// With an exponential that is the same on every machine.
fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut all: Vec<f64> = x.iter().map(|v| libm::exp(v - max)).collect();
    let sum: f64 = all.iter().sum();
    all.iter_mut().for_each(|v| *v /= sum);
    all
}

/// Numbers for the draws of one sequence of a batch.
pub(crate) struct Draws(Rng);

impl Draws {
    pub fn new(seed: u64, sequence: usize) -> Draws {
        Draws(Rng::new(seed, sequence as u64))
    }

    /// From 0 up to but without 1, with 53 random bits.
    pub fn next(&mut self) -> f64 {
        let bits = self.0.integers(&[2], 0, 1 << 27);
        let [high, low] = [bits.as_slice()[0], bits.as_slice()[1] >> 1];
        (f64::from(high) * f64::from(1u32 << 26) + f64::from(low)) / (1u64 << 53) as f64
    }
}
