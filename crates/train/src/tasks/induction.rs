//! Random tokens, said twice: the second time can be foreseen, by looking for what came after the same token before
//! (Olsson et al. 2022, arXiv 2209.11895). It takes two layers.

use ironlens_tensor::{IndexTensor, Rng};
use ironlens_transformer::Config;

use super::{Labelled, setting};
use crate::data::{Data, DataRecord, HELD_OUT, Reference};
use crate::error::TrainError;
use crate::memory;

/// Sequences `[0, s, s]`, where `s` are `(n_ctx - 1) / 2` tokens drawn evenly from the ids `1..d_vocab`.
#[derive(Clone, Debug)]
pub struct Induction {
    d_vocab: u32,
    half: usize,
    seed: u64,
    next: u64,
}

impl Induction {
    /// For a model of this configuration.
    ///
    /// # Errors
    /// If it has fewer than three tokens or five positions.
    pub fn new(cfg: &Config, seed: u64) -> Result<Induction, TrainError> {
        setting((3..1 << 30).contains(&cfg.d_vocab), "d_vocab", cfg.d_vocab, "at least 3: 0 to begin with, and two to draw")?;
        setting(cfg.n_ctx >= 5, "n_ctx", cfg.n_ctx, "at least 5: one to begin with, and two tokens twice")?;
        Ok(Induction { d_vocab: cfg.d_vocab as u32, half: (cfg.n_ctx - 1) / 2, seed, next: 0 })
    }

    fn draw(&self, seed: u64, number: u64, size: usize) -> Result<Labelled, TrainError> {
        let width = 1 + 2 * self.half;
        memory::check("the size of a batch", size, (size as u64).saturating_mul(12 * width as u64))?;
        let drawn = Rng::new(seed, number).integers(&[size, self.half], 1, self.d_vocab);
        let rows = drawn.as_slice().chunks(self.half).flat_map(|s| [&[0], s, s].concat());
        Ok(Labelled::next_tokens(IndexTensor::new(rows.collect::<Vec<_>>(), &[size, width])))
    }
}

impl Data for Induction {
    type Batch = Labelled;

    fn batch(&mut self, size: usize) -> Result<Labelled, TrainError> {
        self.next += 1;
        self.draw(self.seed, self.next - 1, size)
    }

    fn seek(&mut self, batch: u64) {
        self.next = batch;
    }

    fn held_out(&self, size: usize) -> Result<Labelled, TrainError> {
        self.draw(self.seed ^ HELD_OUT, 0, size)
    }

    fn describe(&self) -> DataRecord {
        DataRecord {
            description: format!("{} tokens drawn from 1 to {}, said twice after a 0", self.half, self.d_vocab - 1),
            seed: Some(self.seed),
        }
    }

    /// Nothing is known of the first half, everything of the second: half of ln(number of tokens).
    fn references(&self, _: &Labelled) -> Vec<Reference> {
        let chance = f64::from(self.d_vocab - 1).ln();
        vec![Reference::new("guessing evenly", chance), Reference::best("the second half foreseen", chance / 2.0)]
    }
}
