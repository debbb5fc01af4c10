//! Tasks that draw every batch anew.

use ironlens_tensor::Rng;

use super::Labelled;
use crate::data::{Data, DataRecord, HELD_OUT, Reference};
use crate::error::TrainError;
use crate::memory;

/// Data that a [`Source`] draws: batch `n` from stream `n` of a seed, what is held out from a seed that no batch has.
#[derive(Clone, Debug)]
pub struct Drawn<S> {
    source: S,
    seed: u64,
    next: u64,
}

/// How the sequences of a task are drawn.
pub trait Source {
    /// What a sequence takes while a batch is made, in bytes.
    fn bytes_of_one(&self) -> usize;

    /// `size` sequences that are trained on, or of the part that is held out.
    fn draw(&self, rng: Rng, size: usize, held_out: bool) -> Labelled;

    /// What they are, in words.
    fn describe(&self) -> String;

    /// See [`Data::references`].
    fn references(&self, held_out: &Labelled) -> Vec<Reference>;
}

impl<S: Source> Drawn<S> {
    /// What `source` draws with this seed.
    pub fn of(source: S, seed: u64) -> Drawn<S> {
        Drawn { source, seed, next: 0 }
    }

    fn draw(&self, seed: u64, number: u64, size: usize, held_out: bool) -> Result<Labelled, TrainError> {
        let bytes = (size as u64).saturating_mul(self.source.bytes_of_one() as u64);
        memory::check("the size of a batch", size, bytes)?;
        Ok(self.source.draw(Rng::new(seed, number), size, held_out))
    }
}

impl<S: Source> Data for Drawn<S> {
    type Batch = Labelled;

    fn batch(&mut self, size: usize) -> Result<Labelled, TrainError> {
        self.next += 1;
        self.draw(self.seed, self.next - 1, size, false)
    }

    fn seek(&mut self, batch: u64) {
        self.next = batch;
    }

    fn held_out(&self, size: usize) -> Result<Labelled, TrainError> {
        self.draw(self.seed ^ HELD_OUT, 0, size, true)
    }

    fn describe(&self) -> DataRecord {
        DataRecord { description: self.source.describe(), seed: Some(self.seed) }
    }

    fn references(&self, held_out: &Labelled) -> Vec<Reference> {
        self.source.references(held_out)
    }
}
