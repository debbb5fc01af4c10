//! How a model continues a prompt: TransformerLens's `test_prompt`.

use std::fmt;

use ironlens_tensor::IndexTensor;
use ironlens_transformer::{HookedTransformer, ModelError, TokenOptions};

/// How many of the likeliest tokens are kept.
const TOP: usize = 10;

/// A token and what the model gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its id.
    pub token: u32,
    /// Its text.
    pub text: String,
    /// Its logit.
    pub logit: f64,
    /// Its probability, from 0 to 1.
    pub probability: f64,
}

/// What the model says where one token of the answer is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The answer's token.
    pub answer: Candidate,
    /// How many tokens are likelier than it; 0 for the likeliest.
    pub rank: usize,
    /// The likeliest tokens, best first.
    pub top: Vec<Candidate>,
}

/// What a model makes of a prompt and an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptTest {
    /// The tokens of the prompt.
    pub prompt: Vec<String>,
    /// One step for each token of the answer, each after the right ones before it.
    pub steps: Vec<Step>,
}

/// The rank and probability of each token of `answer` after `prompt`, and the likeliest tokens there. The answer
/// gets a space before it if `prepend_space_to_answer` and it has none (TransformerLens's default).
///
/// # Errors
/// If the model has no tokenizer, the answer is empty, or prompt and answer are longer than the context.
pub fn test_prompt(
    model: &HookedTransformer,
    prompt: &str,
    answer: &str,
    prepend_space_to_answer: bool,
) -> Result<PromptTest, ModelError> {
    let answer = match prepend_space_to_answer && !answer.starts_with(' ') {
        true => format!(" {answer}"),
        false => answer.to_string(),
    };
    let tokenizer = model.tokenizer().ok_or(ModelError::NoTokenizer)?;
    let whole = TokenOptions { truncate: false, ..TokenOptions::default() };
    let prompt = tokenizer.to_tokens(prompt, &whole)?.ids;
    let answer = tokenizer.to_tokens(&answer, &TokenOptions { prepend_bos: Some(false), ..whole })?.ids;
    if answer.is_empty() || prompt.is_empty() {
        let which = if answer.is_empty() { "answer" } else { "prompt" };
        return Err(ModelError::Options(format!("the {which} has no tokens; give some text")));
    }
    let ids = [&prompt[..], &answer].concat();
    let length = ids.len();
    let logits = model.forward(&IndexTensor::new(ids, &[1, length]))?.select(0, 0);
    let steps = answer.iter().enumerate().map(|(i, &token)| {
        let logits = logits.select(0, prompt.len() - 1 + i);
        let (values, chances) = (logits.to_vec_f64(), logits.softmax().to_vec_f64());
        let candidate = |token: u32| -> Result<Candidate, ModelError> {
            let (logit, probability) = (values[token as usize], chances[token as usize]);
            Ok(Candidate { token, text: tokenizer.to_single_str_token(token)?, logit, probability })
        };
        let (_, best) = logits.topk(TOP.min(values.len()), 0);
        Ok(Step {
            answer: candidate(token)?,
            rank: values.iter().filter(|v| **v > values[token as usize]).count(),
            top: best.as_slice().iter().map(|&t| candidate(t)).collect::<Result<_, ModelError>>()?,
        })
    });
    Ok(PromptTest {
        steps: steps.collect::<Result<_, ModelError>>()?,
        prompt: tokenizer.to_str_tokens(&prompt, &whole)?,
    })
}

impl PromptTest {
    /// The rank of each token of the answer.
    pub fn ranks(&self) -> Vec<usize> {
        self.steps.iter().map(|step| step.rank).collect()
    }
}

impl fmt::Display for PromptTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Tokenized prompt: {:?}", self.prompt)?;
        let answer: Vec<&str> = self.steps.iter().map(|s| s.answer.text.as_str()).collect();
        writeln!(f, "Tokenized answer: {answer:?}")?;
        for Step { answer, rank, top } in &self.steps {
            writeln!(
                f,
                "Rank {rank:<6} Logit {:>7.3}  Prob {:>6.2}%  {:?}",
                answer.logit,
                100.0 * answer.probability,
                answer.text
            )?;
            for (place, c) in top.iter().enumerate() {
                writeln!(
                    f,
                    "  Top {place:>2}    Logit {:>7.3}  Prob {:>6.2}%  {:?}",
                    c.logit,
                    100.0 * c.probability,
                    c.text
                )?;
            }
        }
        write!(f, "Ranks of the answer's tokens: {:?}", self.ranks())
    }
}
