//! What is analysed.

use ironlens_tensor::{Device, IndexTensor};
use ironlens_train::RunDir;
use ironlens_transformer::{AttentionDir, HookedTransformer, Sequences};

use crate::error::StudyError;

/// A model, and sequences to run it on.
#[derive(Debug)]
pub struct Subject {
    /// The model.
    pub model: HookedTransformer,
    /// The sequences, `[batch, pos]`.
    pub tokens: IndexTensor,
    /// Steps that the model was trained for, if a run tells.
    pub step: Option<u64>,
}

impl Subject {
    /// A model and sequences `[batch, pos]`.
    ///
    /// # Errors
    /// [`StudyError::Unfit`] if weights are not finite.
    pub fn new(model: HookedTransformer, tokens: IndexTensor) -> Result<Subject, StudyError> {
        if let Some(reason) = not_finite(&model) {
            return Err(StudyError::Unfit { reason });
        }
        Ok(Subject { model, tokens, step: None })
    }

    /// The model of a run's last checkpoint, on the held-out sequences that the run keeps. Of padded ones,
    /// what stands between their padding is taken: see [`without_padding`].
    ///
    /// # Errors
    /// If the run cannot be read, has no transformer, or as [`Subject::new`].
    pub fn of_run(run: &RunDir, device: &Device) -> Result<Subject, StudyError> {
        let last = run.last_checkpoint()?;
        let model = run.model_at(&last, device)?;
        let tokens = without_padding(&run.sequences()?, model.config().attention_dir);
        Ok(Subject { step: Some(last.step), ..Subject::new(model, tokens)? })
    }
}

/// The block `[some, shorter]` of the most tokens that stands in the sequences `[batch, pos]` without padding: those
/// that are long enough, each from its own first token on. A causal model says the same at a position of the block as
/// in the padded sequence, so an analysis of the block is exact and need not know of padding. A bidirectional one sees
/// the end from everywhere: of its sequences only those of the very length are taken.
///
/// ```
/// use ironlens_study::without_padding;
/// use ironlens_tensor::IndexTensor;
/// use ironlens_transformer::AttentionDir;
/// let tokens = IndexTensor::from([[0, 7, 8, 9], [4, 5, 6, 0], [0, 0, 0, 3], [1, 2, 3, 4]]);
/// let mask = IndexTensor::from([[0, 1, 1, 1], [1, 1, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]]);
/// let block = |attention| without_padding(&(&tokens, &mask).into(), attention);
/// assert_eq!(block(AttentionDir::Causal), IndexTensor::from([[7, 8, 9], [4, 5, 6], [1, 2, 3]]));
/// assert_eq!(block(AttentionDir::Bidirectional), IndexTensor::from([[7, 8, 9], [4, 5, 6]]));
/// ```
pub fn without_padding(sequences: &Sequences, attention: AttentionDir) -> IndexTensor {
    if sequences.mask.is_none() {
        return sequences.tokens.clone();
    }
    let (batch, pos) = (sequences.tokens.shape()[0], sequences.tokens.shape()[1]);
    let real: Vec<Vec<usize>> = (0..batch).map(|item| sequences.real(item)).collect();
    let fits = |item: usize, n: usize| match attention {
        AttentionDir::Causal => real[item].len() >= n,
        AttentionDir::Bidirectional => real[item].len() == n,
    };
    let rows = |n: usize| (0..batch).filter(|item| fits(*item, n)).collect::<Vec<usize>>();
    let n = (1..=pos).max_by_key(|n| n * rows(*n).len()).unwrap_or(0);
    let rows = rows(n);
    let ids = sequences.tokens.as_slice();
    let of_row = |item: &usize| real[*item][..n].iter().map(|p| ids[item * pos + p]).collect::<Vec<u32>>();
    IndexTensor::new(rows.iter().flat_map(of_row).collect::<Vec<u32>>(), &[rows.len(), n])
}

/// Which weights are not finite, if some are.
fn not_finite(model: &HookedTransformer) -> Option<String> {
    model.params().iter().find_map(|(name, value)| {
        let values = value.to_vec_f64();
        let bad = values.iter().filter(|v| !v.is_finite()).count();
        (bad > 0).then(|| format!("{bad} of the {} weights of {name} are not finite", values.len()))
    })
}
