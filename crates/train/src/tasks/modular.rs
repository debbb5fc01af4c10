//! Sums modulo a prime, of which some are shown: the model first learns them by heart, and much later the rule (Nanda
//! et al. 2023, arXiv 2301.05217).

use ironlens_tensor::{IndexTensor, Rng};
use ironlens_transformer::Config;

use super::{Labelled, setting};
use crate::data::{Data, DataRecord, Reference};
use crate::error::TrainError;

/// Pairs that are trained on for each number: 30 % of those modulo 113, as in the paper. Of smaller primes it is a
/// greater share, without which the rule is not found.
const SHOWN: f64 = 0.3 * 113.0;

/// The greatest share of all pairs.
const MOST: f64 = 0.8;

/// `[a, b, =]` with label `(a + b) mod p` at the last position, for all pairs of numbers below `p = d_vocab - 1`;
/// `=` is the token `p`. 33.9 pairs for each number (80 % of all at most), drawn by the seed, are trained on, the
/// others held out.
#[derive(Clone, Debug)]
pub struct ModularAddition {
    p: u32,
    /// All pairs `a p + b`, in the order in which they were drawn; those trained on come first.
    pairs: Vec<u32>,
    shown: usize,
    seed: u64,
    next: u64,
}

impl ModularAddition {
    /// For a model of this configuration.
    ///
    /// # Errors
    /// If it does not have three positions, or fewer than four tokens or more than 4097.
    pub fn new(cfg: &Config, seed: u64) -> Result<ModularAddition, TrainError> {
        setting((4..=4097).contains(&cfg.d_vocab), "d_vocab", cfg.d_vocab, "from 4 to 4097: p numbers and `=`")?;
        setting(cfg.n_ctx == 3, "n_ctx", cfg.n_ctx, "3: two numbers and `=`")?;
        setting(cfg.d_vocab_out + 1 >= cfg.d_vocab, "d_vocab_out", cfg.d_vocab_out, "at least p = d_vocab - 1")?;
        let p = cfg.d_vocab as u32 - 1;
        let mut pairs: Vec<u32> = (0..p * p).collect();
        Rng::new(seed, 0).shuffle(&mut pairs);
        let shown = (SHOWN * f64::from(p)).min(MOST * pairs.len() as f64) as usize;
        Ok(ModularAddition { p, pairs, shown: shown.max(1), seed, next: 0 })
    }

    /// Number of pairs that are trained on, and held out.
    pub fn sizes(&self) -> (usize, usize) {
        (self.shown, self.pairs.len() - self.shown)
    }

    fn of(&self, pairs: impl Iterator<Item = u32>) -> Labelled {
        let p = self.p;
        let (mut ids, mut sums) = (Vec::new(), Vec::new());
        for pair in pairs {
            let (a, b) = (pair / p, pair % p);
            ids.extend([a, b, p]);
            sums.push((a + b) % p);
        }
        let n = sums.len();
        Labelled { tokens: IndexTensor::new(ids, &[n, 3]), first: 2, labels: IndexTensor::new(sums, &[n, 1]) }
    }
}

impl Data for ModularAddition {
    type Batch = Labelled;

    /// The next pairs, from the first again after the last; all of them if `size` is their number or more.
    fn batch(&mut self, size: usize) -> Result<Labelled, TrainError> {
        let size = size.min(self.shown);
        let start = (self.next as u128 * size as u128 % self.shown as u128) as usize;
        self.next += 1;
        Ok(self.of((start..start + size).map(|i| self.pairs[i % self.shown])))
    }

    fn seek(&mut self, batch: u64) {
        self.next = batch;
    }

    fn held_out(&self, size: usize) -> Result<Labelled, TrainError> {
        Ok(self.of(self.pairs[self.shown..].iter().take(size.max(1)).copied()))
    }

    fn describe(&self) -> DataRecord {
        let (shown, held_out) = self.sizes();
        let p = self.p;
        DataRecord {
            description: format!("sums of two numbers modulo {p}: {shown} pairs, and {held_out} held out"),
            seed: Some(self.seed),
        }
    }

    /// A sum is certain.
    fn references(&self, _: &Labelled) -> Vec<Reference> {
        vec![Reference::new(Reference::EVENLY, f64::from(self.p).ln()), Reference::best("adding", 0.0)]
    }
}
