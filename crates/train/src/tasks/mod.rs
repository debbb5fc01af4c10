//! Tasks: data with its labels, and what guessers of each kind would lose. Of all but the bytes of a text, the best
//! possible loss is known.

mod drawn;
mod induction;
mod markov;
mod modular;
mod text;

use std::path::Path;

use ironlens_autograd::Var;
use ironlens_tensor::{DType, Device, IndexTensor};
use ironlens_transformer::{Config, Sequences};
use serde::{Deserialize, Serialize};

pub use drawn::{Drawn, Source};
pub use induction::{Induction, Repeated};
pub use markov::{Chains, Markov};
pub use modular::ModularAddition;
pub use text::{Text, Windows};

use crate::data::{Data, DataRecord, Reference};
use crate::error::TrainError;
use crate::learner::TokenBatch;

/// Tokens, and what should be predicted at some of their positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// `[batch, pos]`.
    pub tokens: IndexTensor,
    /// The first position that something should be predicted at.
    pub first: usize,
    /// What should be predicted from there on, `[batch, n]`.
    pub labels: IndexTensor,
}

impl Labelled {
    /// Tokens at each of which the next one should be predicted.
    fn next_tokens(tokens: IndexTensor) -> Labelled {
        let labels = tokens.narrow(1, 1, tokens.shape()[1] - 1);
        Labelled { tokens, first: 0, labels }
    }
}

impl TokenBatch for Labelled {
    fn sequences(&self) -> Sequences {
        self.tokens.clone().into()
    }
}

/// The mean of -log p(label) over all labels, `[]`; in double precision where the device has it, since losses far
/// below the rounding of a logit are part of what is studied.
///
/// # Panics
/// If labels lie outside of the logits.
#[track_caller]
pub fn labelled_loss(logits: &Var, batch: &Labelled) -> Var {
    let logits = logits.narrow(1, batch.first, batch.labels.shape()[1]);
    let dtype = logits.value().dtype();
    let precise = if logits.value().device() == Device::Cpu { logits.to_dtype(DType::F64) } else { logits };
    precise.cross_entropy(&batch.labels).mean_all().to_dtype(dtype)
}

/// A task by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Experiment {
    /// Random tokens, said again and again.
    Induction,
    /// Chains whose transitions have to be found in context.
    Markov,
    /// Sums modulo a prime, of which most are held out.
    ModularAddition,
    /// The bytes of a text.
    Text,
}

impl Experiment {
    /// All of them.
    pub const ALL: [Experiment; 4] =
        [Experiment::Induction, Experiment::Markov, Experiment::ModularAddition, Experiment::Text];

    /// Its name, which a run's record has as its loss.
    pub fn name(self) -> &'static str {
        match self {
            Experiment::Induction => "induction",
            Experiment::Markov => "markov",
            Experiment::ModularAddition => "modular-addition",
            Experiment::Text => "text",
        }
    }

    /// The task with this name.
    pub fn from_name(name: &str) -> Option<Experiment> {
        Experiment::ALL.into_iter().find(|task| task.name() == name)
    }

    /// What the loss is, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Experiment::Induction => "mean of -log p(next token), over all positions",
            Experiment::Markov => "mean of -log p(next state)",
            Experiment::ModularAddition => "mean of -log p(a + b), at the last position",
            Experiment::Text => "mean of -log p(next byte), in nats",
        }
    }

    /// Whether `data` is this task's for a model of this configuration: a loss of one's own may have its name.
    pub fn is_of(self, cfg: &Config, data: &DataRecord) -> bool {
        match self {
            Experiment::Induction | Experiment::Markov | Experiment::ModularAddition => {
                let own = self.data(cfg, data.seed.unwrap_or_default(), None);
                own.is_ok_and(|own| own.describe() == *data)
            }
            // Which text it was is not known here.
            Experiment::Text => cfg.d_vocab == 256 && data.description.starts_with(&text::beginning(cfg.n_ctx)),
        }
    }

    /// Its data for a model of this configuration; `text` is the file of [`Experiment::Text`].
    ///
    /// # Errors
    /// If the model cannot have the task, or the text cannot be read.
    pub fn data(self, cfg: &Config, seed: u64, text: Option<&Path>) -> Result<TaskData, TrainError> {
        Ok(match (self, text) {
            (Experiment::Induction, _) => TaskData::Induction(Induction::new(cfg, seed)?),
            (Experiment::Markov, _) => TaskData::Markov(Markov::new(cfg, seed)?),
            (Experiment::ModularAddition, _) => TaskData::ModularAddition(ModularAddition::new(cfg, seed)?),
            (Experiment::Text, Some(path)) => TaskData::Text(Text::read(path, cfg, seed)?),
            (Experiment::Text, None) => {
                return Err(TrainError::Setting {
                    name: "text",
                    given: "not given".into(),
                    expected: "the file whose bytes are learned".into(),
                });
            }
        })
    }
}

/// The data of an [`Experiment`].
#[derive(Clone, Debug)]
pub enum TaskData {
    /// See [`Induction`].
    Induction(Induction),
    /// See [`Markov`].
    Markov(Markov),
    /// See [`ModularAddition`].
    ModularAddition(ModularAddition),
    /// See [`Text`].
    Text(Text),
}

macro_rules! each {
    ($self:expr, $data:ident => $value:expr) => {
        match $self {
            TaskData::Induction($data) => $value,
            TaskData::Markov($data) => $value,
            TaskData::ModularAddition($data) => $value,
            TaskData::Text($data) => $value,
        }
    };
}

impl Data for TaskData {
    type Batch = Labelled;

    fn batch(&mut self, size: usize) -> Result<Labelled, TrainError> {
        each!(self, data => data.batch(size))
    }

    fn seek(&mut self, batch: u64) {
        each!(self, data => data.seek(batch))
    }

    fn held_out(&self, size: usize) -> Result<Labelled, TrainError> {
        each!(self, data => data.held_out(size))
    }

    fn describe(&self) -> DataRecord {
        each!(self, data => data.describe())
    }

    fn references(&self, held_out: &Labelled) -> Vec<Reference> {
        each!(self, data => data.references(held_out))
    }
}

/// The mean of -ln `p` over the labels of a batch. A guesser `sees` the tokens of a row one after the other; `p` is the
/// probability that it then gives the label there.
fn mean_loss<S: Default>(batch: &Labelled, sees: impl Fn(&mut S, u32), p: impl Fn(&S, u32) -> f64) -> f64 {
    let (pos, n) = (batch.tokens.shape()[1], batch.labels.shape()[1]);
    let rows = batch.tokens.as_slice().chunks(pos).zip(batch.labels.as_slice().chunks(n));
    let mut losses = Vec::with_capacity(batch.labels.as_slice().len());
    for (tokens, labels) in rows {
        let mut seen = S::default();
        for (i, token) in tokens.iter().enumerate() {
            sees(&mut seen, *token);
            if let Some(label) = i.checked_sub(batch.first).and_then(|i| labels.get(i)) {
                losses.push(-p(&seen, *label).ln());
            }
        }
    }
    losses.iter().sum::<f64>() / losses.len().max(1) as f64
}

/// Refuses a setting of the model.
fn setting(ok: bool, name: &'static str, given: usize, expected: &str) -> Result<(), TrainError> {
    match ok {
        true => Ok(()),
        false => Err(TrainError::Setting { name, given: given.to_string(), expected: expected.into() }),
    }
}
