//! [`Metric`]: what an intervention is judged by.

use std::fmt;

use ironlens_autograd::Var;
use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{HookedTransformer, LogitsAt, Sequences};

use crate::error::LensError;

type Function<'m> = Box<dyn Fn(&Var) -> Var + Sync + 'm>;

/// A number computed from logits, differentiably. It says whether it reads the logits of all
/// positions or of the last alone, which is much less to compute.
///
/// ```
/// # use ironlens_lens::Metric;
/// # use ironlens_tensor::{Device, Tensor};
/// let logits = Tensor::from_vec(vec![0., 1., 5., 0., 0., 2., 1., 4.], &[1, 2, 4], &Device::Cpu);
/// let difference = Metric::logit_diff(&[3], &[1])?;
/// assert_eq!(difference.of(&logits), 2.0);          // at the last position, 4 - 2
/// let total = Metric::all(|logits| logits.sum_all());
/// assert_eq!(total.of(&logits), 13.0);
/// # Ok::<(), ironlens_lens::LensError>(())
/// ```
pub struct Metric<'m> {
    function: Function<'m>,
    positions: LogitsAt,
    reads: Reads,
}

/// What a metric must find, as far as it is known.
enum Reads {
    /// Nobody knows.
    Anything,
    /// So many items, and logits up to that of this token.
    Items(usize, u32),
    /// Targets of this shape, and logits up to that of this token.
    Targets(Vec<usize>, u32),
}

impl fmt::Debug for Metric<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metric(of logits at {:?})", self.positions)
    }
}

impl<'m> Metric<'m> {
    /// A function of all logits, `[batch, pos, d_vocab_out]`, that gives one number.
    pub fn all(function: impl Fn(&Var) -> Var + Sync + 'm) -> Metric<'m> {
        Metric { function: Box::new(function), positions: LogitsAt::All, reads: Reads::Anything }
    }

    /// A function of the logits of the last position, `[batch, d_vocab_out]`, that gives one number.
    pub fn last(function: impl Fn(&Var) -> Var + Sync + 'm) -> Metric<'m> {
        Metric { function: Box::new(function), positions: LogitsAt::Last, reads: Reads::Anything }
    }

    /// The logit of `right` minus that of `wrong` at the last position, averaged over the batch; one of
    /// each for every item of the batch.
    ///
    /// # Errors
    /// If they are not equally many.
    pub fn logit_diff(right: &[u32], wrong: &[u32]) -> Result<Metric<'static>, LensError> {
        if right.len() != wrong.len() || right.is_empty() {
            return Err(LensError::argument(
                "wrong answers",
                wrong.len().to_string(),
                format!("as many as right ones ({}), at least one", right.len()),
            ));
        }
        let (right, wrong) = (right.to_vec(), wrong.to_vec());
        let largest = right.iter().chain(&wrong).max().copied().unwrap_or_default();
        let reads = Reads::Items(right.len(), largest);
        let metric = Metric::last(move |logits| {
            let (batch, vocab) = (logits.dim(0), logits.dim(1));
            assert!(batch == right.len(), "the metric has answers for {} items, the batch {batch}", right.len());
            if let Some(id) = right.iter().chain(&wrong).find(|id| **id as usize >= vocab) {
                panic!(
                    "the metric asks for the logit of token {id}; there are {vocab} logits, of tokens 0 to {}",
                    vocab - 1
                );
            }
            if !logits.requires_grad() {
                // Logits cancel here; their difference is not rounded again.
                let l = logits.value().to_vec_f64();
                let differences = right.iter().zip(&wrong).enumerate();
                let sum: f64 =
                    differences.map(|(i, (r, w))| l[i * vocab + *r as usize] - l[i * vocab + *w as usize]).sum();
                return Var::from(Tensor::from_vec_f64(vec![sum / batch as f64], &[]));
            }
            let mut signs = vec![0.0; batch * vocab];
            for (i, (r, w)) in right.iter().zip(&wrong).enumerate() {
                signs[i * vocab + *r as usize] += 1.0 / batch as f64;
                signs[i * vocab + *w as usize] -= 1.0 / batch as f64;
            }
            let signs = Tensor::from_vec_f64(signs, &[batch, vocab]);
            let signs = signs.to_dtype(logits.value().dtype()).to_device(&logits.value().device());
            (logits * &Var::from(signs)).sum_all()
        });
        Ok(Metric { reads, ..metric })
    }

    /// The mean loss of predicting `targets` `[batch, pos]` from the logits of all positions.
    pub fn loss(targets: IndexTensor) -> Metric<'static> {
        let largest = targets.as_slice().iter().max().copied().unwrap_or_default();
        let reads = Reads::Targets(targets.shape().to_vec(), largest);
        Metric { reads, ..Metric::all(move |logits| logits.cross_entropy(&targets).mean_all()) }
    }

    /// Refuses a metric that asks for other items, or for logits that a model does not have, where that is known.
    pub(crate) fn check(&self, model: &HookedTransformer, sequences: &Sequences) -> Result<(), LensError> {
        let shape = sequences.tokens.shape();
        let largest = match &self.reads {
            Reads::Anything => return Ok(()),
            Reads::Items(n, largest) => {
                let batch = shape.first().copied().unwrap_or_default();
                if batch != *n {
                    let expected = format!("{batch}, one of each for every sequence");
                    return Err(LensError::argument("the number of the metric's answers", n.to_string(), expected));
                }
                *largest
            }
            Reads::Targets(of, _) if of != shape => {
                let expected = format!("{shape:?}, as the tokens");
                return Err(LensError::argument("the shape of the metric's targets", format!("{of:?}"), expected));
            }
            Reads::Targets(_, largest) => *largest,
        };
        let d_vocab = model.config().d_vocab_out;
        match (largest as usize) < d_vocab {
            true => Ok(()),
            false => Err(LensError::argument(
                "a token that the metric asks for",
                largest.to_string(),
                format!("an id below d_vocab_out = {d_vocab}"),
            )),
        }
    }

    /// Which logits it reads.
    pub fn positions(&self) -> LogitsAt {
        self.positions
    }

    /// Its value at logits `[batch, pos, d_vocab_out]`.
    ///
    /// # Panics
    /// If its function does not give one number, or answers are for another number of items or beyond the logits.
    /// (Analyses refuse such a metric.)
    #[track_caller]
    pub fn of(&self, logits: &Tensor) -> f64 {
        self.apply(&Var::from(logits.clone())).value().item()
    }

    /// Its value at logits `[batch, pos, d_vocab_out]`, differentiable.
    ///
    /// # Panics
    /// As [`Metric::of`].
    #[track_caller]
    pub fn apply(&self, logits: &Var) -> Var {
        self.apply_to(logits, &[])
    }

    /// As [`Metric::of`], of padded sequences: "the last position" is that of each sequence's last token.
    ///
    /// # Panics
    /// As [`Metric::of`], or if a sequence is all padding.
    #[track_caller]
    pub fn of_sequences(&self, logits: &Tensor, sequences: &Sequences) -> f64 {
        self.apply_to_sequences(&Var::from(logits.clone()), sequences).value().item()
    }

    /// As [`Metric::of_sequences`], differentiable.
    ///
    /// # Panics
    /// As [`Metric::of_sequences`].
    #[track_caller]
    pub fn apply_to_sequences(&self, logits: &Var, sequences: &Sequences) -> Var {
        match &sequences.mask {
            None => self.apply_to(logits, &[]),
            Some(_) => {
                let last = |item| *sequences.real(item).last().expect("a sequence has at least one token");
                self.apply_to(logits, &(0..logits.dim(0)).map(last).collect::<Vec<_>>())
            }
        }
    }

    /// `last` are the last positions of the sequences, or none where all end together.
    #[track_caller]
    fn apply_to(&self, logits: &Var, last: &[usize]) -> Var {
        let value = match (self.positions, last) {
            (LogitsAt::All, _) => (self.function)(logits),
            (LogitsAt::Last, []) => (self.function)(&logits.select(1, logits.dim(1) - 1)),
            (LogitsAt::Last, last) => {
                let rows: Vec<Var> =
                    last.iter().enumerate().map(|(item, &p)| logits.select(0, item).select(0, p)).collect();
                (self.function)(&Var::stack(&rows, 0))
            }
        };
        assert!(value.value().numel() == 1, "a metric gives one number, this one gave shape {:?}", value.shape());
        value
    }
}
