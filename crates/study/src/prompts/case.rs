//! A question as a model sees it.

use ironlens_lens::{Metric, WeightsExt};
use ironlens_tensor::{IndexTensor, Tensor, UnaryOp};
use ironlens_transformer::{HookedTransformer, ModelError, TokenOptions};

use super::Question;
use crate::error::StudyError;
use crate::sections::last_predictions;

/// A prompt as tokens, what should follow it, and the same prompt with another answer.
#[derive(Debug)]
pub struct Case {
    /// What was asked.
    pub question: Question,
    /// The prompt, `[1, pos]`.
    pub tokens: IndexTensor,
    /// The texts of the tokens.
    pub labels: Vec<String>,
    /// The first token of the answer, or of what the model says.
    pub answer: u32,
    /// The first token of the wrong answer.
    pub wrong: Option<u32>,
    /// The prompt with another answer, `[1, pos]`, or why there is none.
    pub corrupted: Result<IndexTensor, String>,
}

impl Case {
    /// A question to a model.
    ///
    /// # Errors
    /// If the model has no tokenizer, or a text does not fit it.
    pub(super) fn new(model: &HookedTransformer, question: Question) -> Result<Case, StudyError> {
        let tokens = whole(model, &question.prompt)?;
        let (pos, n_ctx) = (tokens.shape()[1], model.config().n_ctx);
        if pos > n_ctx {
            return Err(ModelError::TooLong { pos, n_ctx }.into());
        }
        let one = |text: &str| -> Result<u32, StudyError> {
            let ids = model.to_tokens_with(text, &TokenOptions::prepend_bos(false))?.tokens;
            let first = ids.as_slice().first().copied();
            first.ok_or_else(|| StudyError::prompt(format!("{text:?} has no tokens")))
        };
        let answer = match &question.answer {
            Some(answer) => one(answer)?,
            // What the model itself says.
            None => last_predictions(&model.forward(&tokens)?).as_slice()[0],
        };
        let wrong = question.wrong.as_deref().map(one).transpose()?;
        if wrong == Some(answer) {
            let text = model.to_single_str_token(answer)?;
            return Err(StudyError::prompt(format!(
                "the answer and the wrong one begin with the same token, {text:?}; give others"
            )));
        }
        let corrupted = corrupted(model, &question, &tokens);
        let labels = model.to_str_tokens(tokens.as_slice())?;
        Ok(Case { question, tokens, labels, answer, wrong, corrupted })
    }

    /// The logit of the answer at the last position, less that of the wrong one.
    pub(super) fn metric(&self) -> Result<Metric<'static>, StudyError> {
        let answer = IndexTensor::new(vec![self.answer], &[1]);
        Ok(match self.wrong {
            Some(wrong) => Metric::logit_diff(&[self.answer], &[wrong])?,
            None => Metric::last(move |logits| logits.gather(1, &answer.reshape(&[1, 1])).mean_all()),
        })
    }

    /// The metric at streams as the final norm leaves them, `[.., d_model]`: `[..]`.
    pub(super) fn read(&self, model: &HookedTransformer, normalized: &Tensor) -> Result<Tensor, StudyError> {
        let (b_u, cap) = (model.b_u()?, model.config().output_logits_soft_cap);
        let logit = |token: u32| -> Result<Tensor, StudyError> {
            let direction = model.tokens_to_residual_directions(token)?;
            let logit = (normalized * &direction).sum(-1) + b_u.select(0, token as usize);
            Ok(if cap > 0.0 { logit.unary(UnaryOp::SoftCap(cap)) } else { logit })
        };
        let right = logit(self.answer)?;
        Ok(match self.wrong {
            Some(wrong) => right - logit(wrong)?,
            None => right,
        })
    }

    /// What the metric is, in words.
    pub(super) fn what(&self, model: &HookedTransformer) -> Result<String, StudyError> {
        let text = |token| model.to_single_str_token(token).map(|t| format!("{t:?}"));
        Ok(match self.wrong {
            Some(wrong) => format!("the logit of {} less that of {}", text(self.answer)?, text(wrong)?),
            None => format!("the logit of {}", text(self.answer)?),
        })
    }

    /// What differs in the corrupted prompt, in words.
    pub(super) fn changes(&self, model: &HookedTransformer, corrupted: &IndexTensor) -> String {
        let changed: Vec<String> = (0..self.labels.len())
            .filter(|&i| self.tokens.as_slice()[i] != corrupted.as_slice()[i])
            .map(|i| {
                let other = model.to_single_str_token(corrupted.as_slice()[i]).unwrap_or_default();
                format!("{:?} at position {i} becomes {other:?}", self.labels[i])
            })
            .collect();
        changed.join(" and ")
    }
}

/// The tokens of a text, `[1, pos]`, all of them: what is analysed of one that is cut is of another text.
fn whole(model: &HookedTransformer, text: &str) -> Result<IndexTensor, ModelError> {
    Ok(model.to_tokens_with(text, &TokenOptions::whole())?.tokens)
}

/// The prompt with another answer: as given, or with the wrong answer's last mention replaced by the right one.
fn corrupted(model: &HookedTransformer, q: &Question, tokens: &IndexTensor) -> Result<IndexTensor, String> {
    let text = match (&q.corrupted, q.answer.as_deref().map(str::trim), q.wrong.as_deref().map(str::trim)) {
        (Some(text), _, _) => text.clone(),
        (None, Some(answer), Some(wrong)) if !answer.is_empty() && !wrong.is_empty() && q.prompt.contains(wrong) => {
            let at = q.prompt.rfind(wrong).unwrap_or(0);
            format!("{}{answer}{}", &q.prompt[..at], &q.prompt[at + wrong.len()..])
        }
        _ => return Err("there is no corrupted prompt; give one of as many tokens".into()),
    };
    let other = whole(model, &text).map_err(|e| e.to_string())?;
    if other.shape() != tokens.shape() {
        let (a, b) = (tokens.shape()[1], other.shape()[1]);
        return Err(format!("the prompt has {a} tokens and the corrupted one, {text:?}, {b}; give one of as many"));
    }
    if other.as_slice() == tokens.as_slice() {
        return Err("the corrupted prompt is the prompt itself; give another".into());
    }
    Ok(other)
}
