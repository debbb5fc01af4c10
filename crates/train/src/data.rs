//! Where batches come from.

use ironlens_tensor::{IndexTensor, Rng};
use ironlens_transformer::Config;

use crate::error::TrainError;

/// A source of batches that can be set to any batch, so that a resumed run sees what it would have
/// seen.
pub trait Data {
    /// The next batch, `[size, pos]`.
    ///
    /// # Errors
    /// If no batch can be made.
    fn batch(&mut self, size: usize) -> Result<IndexTensor, TrainError>;

    /// Goes to the batch with this number, counted from 0.
    fn seek(&mut self, batch: u64);
}

/// The notebook's data: position 0 is the beginning-of-sequence token 0, all others are drawn
/// evenly from the ids `1..d_vocab`.
#[derive(Clone, Debug)]
pub struct RandomTokens {
    d_vocab: u32,
    n_ctx: usize,
    seed: u64,
    next: u64,
}

impl RandomTokens {
    /// Sequences of `n_ctx` tokens for a model of this configuration.
    ///
    /// # Errors
    /// If the vocabulary has fewer than two tokens.
    pub fn new(cfg: &Config, seed: u64) -> Result<RandomTokens, TrainError> {
        if cfg.d_vocab < 2 || cfg.d_vocab > u32::MAX as usize {
            return Err(TrainError::Setting {
                name: "d_vocab",
                given: cfg.d_vocab.to_string(),
                expected: "at least 2: the beginning-of-sequence token and one to draw",
            });
        }
        Ok(RandomTokens { d_vocab: cfg.d_vocab as u32, n_ctx: cfg.n_ctx, seed, next: 0 })
    }
}

impl Data for RandomTokens {
    fn batch(&mut self, size: usize) -> Result<IndexTensor, TrainError> {
        let drawn = Rng::new(self.seed, self.next).integers(&[size, self.n_ctx], 1, self.d_vocab);
        self.next += 1;
        let mut ids = drawn.as_slice().to_vec();
        ids.iter_mut().step_by(self.n_ctx).for_each(|bos| *bos = 0);
        Ok(IndexTensor::new(ids, &[size, self.n_ctx]))
    }

    fn seek(&mut self, batch: u64) {
        self.next = batch;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_by_number() {
        let cfg = Config { d_vocab: 7, n_ctx: 5, ..Config::default() };
        let mut data = RandomTokens::new(&cfg, 137).unwrap();
        let all: Vec<IndexTensor> = (0..3).map(|_| data.batch(4).unwrap()).collect();
        data.seek(1);
        assert_eq!(data.batch(4).unwrap(), all[1]);
        assert_ne!(all[0], all[1]);
        for row in all[2].as_slice().chunks(5) {
            assert!(row[0] == 0 && row[1..].iter().all(|t| (1..7).contains(t)));
        }
        assert!(RandomTokens::new(&Config { d_vocab: 1, ..cfg }, 0).is_err());
    }
}
