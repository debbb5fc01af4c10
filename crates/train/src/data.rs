//! Where batches come from.

use std::fmt;

use ironlens_tensor::{IndexTensor, Rng};
use ironlens_transformer::Config;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::memory;

/// A source of batches that can be set to any batch, so that a resumed run sees what it would have
/// seen; it keeps a part for itself that is never trained on, and says what it is.
///
/// ```
/// use ironlens_tensor::{IndexTensor, Rng};
/// use ironlens_train::{Data, DataRecord, TrainError};
///
/// /// Windows of 16 bytes; the last tenth of the text is held out.
/// struct Text {
///     bytes: Vec<u8>,
///     next: u64,
/// }
///
/// impl Text {
///     fn windows(&self, size: usize, number: u64, from: usize, to: usize) -> IndexTensor {
///         let starts = Rng::new(7, number).integers(&[size], from as u32, (to - 16) as u32);
///         let ids = starts.as_slice().iter().flat_map(|&s| &self.bytes[s as usize..][..16]);
///         IndexTensor::new(ids.map(|&b| u32::from(b)).collect::<Vec<_>>(), &[size, 16])
///     }
/// }
///
/// impl Data for Text {
///     type Batch = IndexTensor;
///
///     fn batch(&mut self, size: usize) -> Result<IndexTensor, TrainError> {
///         self.next += 1;
///         Ok(self.windows(size, self.next - 1, 0, self.bytes.len() * 9 / 10))
///     }
///
///     fn seek(&mut self, batch: u64) {
///         self.next = batch;
///     }
///
///     fn held_out(&self, size: usize) -> Result<IndexTensor, TrainError> {
///         Ok(self.windows(size, 0, self.bytes.len() * 9 / 10, self.bytes.len()))
///     }
///
///     fn describe(&self) -> DataRecord {
///         DataRecord { description: format!("{} bytes of text", self.bytes.len()), seed: Some(7) }
///     }
/// }
/// ```
pub trait Data {
    /// What a learner is given: tokens, tokens with labels, a tensor.
    type Batch;

    /// The next batch, of `size` examples.
    ///
    /// # Errors
    /// If no batch can be made.
    fn batch(&mut self, size: usize) -> Result<Self::Batch, TrainError>;

    /// Goes to the batch with this number, counted from 0.
    fn seek(&mut self, batch: u64);

    /// A batch of `size` examples (or as many as there are) that [`Data::batch`] never gives, the
    /// same at each call. The trainer measures held-out losses and takes attention snapshots on it.
    ///
    /// # Errors
    /// If no batch can be made.
    fn held_out(&self, size: usize) -> Result<Self::Batch, TrainError>;

    /// What this is, for the record of a run; a run is only resumed with data of the same description.
    fn describe(&self) -> DataRecord;

    /// Losses on `held_out` that say what a loss means: of guessing, of simpler rules, and the best that can be.
    fn references(&self, held_out: &Self::Batch) -> Vec<Reference> {
        let _ = held_out;
        Vec::new()
    }
}

/// A loss to compare with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Whose loss it is, such as [`Reference::EVENLY`].
    pub name: String,
    /// The loss, on the held-out part.
    pub loss: f64,
    /// Whether nobody can do better on average.
    pub best: bool,
}

impl Reference {
    /// The name of the loss of one who knows what there is to say, and nothing more.
    pub const EVENLY: &'static str = "guessing evenly";

    /// A loss that can be bettered.
    pub fn new(name: impl Into<String>, loss: f64) -> Reference {
        Reference { name: name.into(), loss, best: false }
    }

    /// The best possible loss.
    pub fn best(name: impl Into<String>, loss: f64) -> Reference {
        Reference { name: name.into(), loss, best: true }
    }
}

/// What data says of itself, as a run directory keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecord {
    /// In words.
    pub description: String,
    /// The seed that batches are drawn with, if they are drawn.
    pub seed: Option<u64>,
}

impl fmt::Display for DataRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seed {
            Some(seed) => write!(f, "{} (seed {seed})", self.description),
            None => f.write_str(&self.description),
        }
    }
}

/// Seed of held-out batches, apart from the data's.
pub(crate) const HELD_OUT: u64 = 0x5eed_4e1d_0047;

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
                expected: "at least 2: the beginning-of-sequence token and one to draw".into(),
            });
        }
        Ok(RandomTokens { d_vocab: cfg.d_vocab as u32, n_ctx: cfg.n_ctx, seed, next: 0 })
    }

    /// The batch that runs of format 1 took their snapshots on.
    pub(crate) fn looked_at_by_format_1(cfg: &Config) -> Result<IndexTensor, TrainError> {
        let data = RandomTokens::new(cfg, HELD_OUT)?;
        data.draw(HELD_OUT, 1, 8)
    }

    /// Batch `number` of a seed, `[size, n_ctx]`.
    fn draw(&self, seed: u64, number: u64, size: usize) -> Result<IndexTensor, TrainError> {
        // The ids, and the copy that they are drawn into.
        let bytes = (size as u64).saturating_mul(self.n_ctx as u64).saturating_mul(2 * size_of::<u32>() as u64);
        memory::check("the size of a batch", size, bytes)?;
        let drawn = Rng::new(seed, number).integers(&[size, self.n_ctx], 1, self.d_vocab);
        let mut ids = drawn.as_slice().to_vec();
        ids.iter_mut().step_by(self.n_ctx).for_each(|bos| *bos = 0);
        Ok(IndexTensor::new(ids, &[size, self.n_ctx]))
    }
}

impl Data for RandomTokens {
    type Batch = IndexTensor;

    fn batch(&mut self, size: usize) -> Result<IndexTensor, TrainError> {
        let batch = self.draw(self.seed, self.next, size)?;
        self.next += 1;
        Ok(batch)
    }

    fn seek(&mut self, batch: u64) {
        self.next = batch;
    }

    fn held_out(&self, size: usize) -> Result<IndexTensor, TrainError> {
        let seed = if self.seed == HELD_OUT { HELD_OUT + 1 } else { HELD_OUT };
        self.draw(seed, 0, size)
    }

    fn describe(&self) -> DataRecord {
        DataRecord {
            description: format!(
                "random tokens: {} positions, 0 at the first, ids from 1 to {} drawn evenly at the others",
                self.n_ctx,
                self.d_vocab - 1
            ),
            seed: Some(self.seed),
        }
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

    #[test]
    fn what_is_held_out_is_not_trained_on() {
        let cfg = Config { d_vocab: 1000, n_ctx: 8, ..Config::default() };
        for seed in [137, HELD_OUT] {
            let mut data = RandomTokens::new(&cfg, seed).unwrap();
            let held_out = data.held_out(4).unwrap();
            assert_eq!(held_out, data.held_out(4).unwrap());
            assert!((0..50).all(|_| data.batch(4).unwrap() != held_out));
            assert_eq!(data.describe().seed, Some(seed));
        }
    }

    #[test]
    fn a_batch_beyond_memory_is_refused() {
        let cfg = Config { d_vocab: 7, n_ctx: 5, ..Config::default() };
        let mut data = RandomTokens::new(&cfg, 137).unwrap();
        for size in [1 << 45, usize::MAX] {
            let error = data.batch(size).unwrap_err().to_string();
            assert!(error.contains(&size.to_string()) && error.contains("memory"), "{error}");
            assert!(data.held_out(size).is_err());
        }
    }
}
