//! How a model continues a prompt: TransformerLens's `test_prompt`.

use std::fmt;

use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{HookedTransformer, ModelError, TokenOptions};

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

/// What a model makes of a prompt and several answers to it, each by its first token.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswersTest {
    /// The tokens of the prompt.
    pub prompt: Vec<String>,
    /// The first token of each answer, in the order of the answers, and how many tokens are likelier than it.
    pub answers: Vec<(Candidate, usize)>,
    /// The likeliest tokens, best first.
    pub top: Vec<Candidate>,
}

/// How prompts are tested; `default()` is what TransformerLens does without arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptOptions {
    /// Put a space before an answer that has none.
    pub prepend_space_to_answer: bool,
    /// A token that begins texts before the prompt; the model's habit if `None`.
    pub prepend_bos: Option<bool>,
    /// How many of the likeliest tokens are kept.
    pub top_k: usize,
}

impl Default for PromptOptions {
    fn default() -> Self {
        PromptOptions { prepend_space_to_answer: true, prepend_bos: None, top_k: 10 }
    }
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
    test_prompt_with(model, prompt, answer, &PromptOptions { prepend_space_to_answer, ..PromptOptions::default() })
}

/// The same with options.
///
/// # Errors
/// As [`test_prompt`].
pub fn test_prompt_with(
    model: &HookedTransformer,
    prompt: &str,
    answer: &str,
    options: &PromptOptions,
) -> Result<PromptTest, ModelError> {
    let (prompt, answer) = (prompt_ids(model, prompt, options)?, answer_ids(model, answer, options)?);
    let logits = model.forward(&tokens_of(&[&prompt[..], &answer].concat()))?.select(0, 0);
    let steps = answer.iter().enumerate().map(|(i, &token)| {
        let place = Place::new(model, &logits.select(0, prompt.len() - 1 + i));
        Ok(Step { answer: place.candidate(token)?, rank: place.rank(token), top: place.top(options.top_k)? })
    });
    Ok(PromptTest { steps: steps.collect::<Result<_, ModelError>>()?, prompt: model.to_str_tokens(prompt.as_slice())? })
}

/// The rank and probability of the first token of each of several answers after `prompt`, and the likeliest tokens
/// there: TransformerLens's `test_prompt` with a list of answers.
///
/// ```no_run
/// # use ironlens_lens::prompt::{PromptOptions, test_answers};
/// # fn example(model: &ironlens_transformer::HookedTransformer) -> Result<(), Box<dyn std::error::Error>> {
/// let prompt = "When John and Mary went to the shops, John gave the bag to";
/// println!("{}", test_answers(model, prompt, &["Mary", "John"], &PromptOptions::default())?);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`test_prompt`], and if there is no answer.
pub fn test_answers(
    model: &HookedTransformer,
    prompt: &str,
    answers: &[impl AsRef<str>],
    options: &PromptOptions,
) -> Result<AnswersTest, ModelError> {
    if answers.is_empty() {
        return Err(ModelError::Options("there are no answers to compare; give at least one".into()));
    }
    let prompt = prompt_ids(model, prompt, options)?;
    let logits = model.forward(&tokens_of(&prompt))?.select(0, 0);
    let place = Place::new(model, &logits.select(0, prompt.len() - 1));
    let of = |answer: &str| {
        let first = answer_ids(model, answer, options)?[0];
        Ok((place.candidate(first)?, place.rank(first)))
    };
    Ok(AnswersTest {
        answers: answers.iter().map(|answer| of(answer.as_ref())).collect::<Result<_, ModelError>>()?,
        top: place.top(options.top_k)?,
        prompt: model.to_str_tokens(prompt.as_slice())?,
    })
}

fn prompt_ids(model: &HookedTransformer, prompt: &str, options: &PromptOptions) -> Result<Vec<u32>, ModelError> {
    ids(model, "prompt", prompt, options.prepend_bos)
}

fn answer_ids(model: &HookedTransformer, answer: &str, options: &PromptOptions) -> Result<Vec<u32>, ModelError> {
    match options.prepend_space_to_answer && !answer.starts_with(' ') {
        true => ids(model, "answer", &format!(" {answer}"), Some(false)),
        false => ids(model, "answer", answer, Some(false)),
    }
}

/// Ids of `which` text, at least one.
fn ids(model: &HookedTransformer, which: &str, text: &str, prepend_bos: Option<bool>) -> Result<Vec<u32>, ModelError> {
    let whole = TokenOptions { prepend_bos, ..TokenOptions::whole() };
    let ids = model.to_tokens_with(text, &whole)?.tokens.as_slice().to_vec();
    match ids.is_empty() {
        true => Err(ModelError::Options(format!("the {which} has no tokens; give some text"))),
        false => Ok(ids),
    }
}

/// `[1, pos]`.
fn tokens_of(ids: &[u32]) -> IndexTensor {
    IndexTensor::new(ids.to_vec(), &[1, ids.len()])
}

/// What a model predicts at one position.
struct Place<'m> {
    model: &'m HookedTransformer,
    /// `[d_vocab_out]`.
    logits: Tensor,
    values: Vec<f64>,
    chances: Vec<f64>,
}

impl Place<'_> {
    fn new<'m>(model: &'m HookedTransformer, logits: &Tensor) -> Place<'m> {
        let (values, chances) = (logits.to_vec_f64(), logits.softmax().to_vec_f64());
        Place { model, logits: logits.clone(), values, chances }
    }

    fn candidate(&self, token: u32) -> Result<Candidate, ModelError> {
        let (logit, probability) = (self.values[token as usize], self.chances[token as usize]);
        Ok(Candidate { token, text: self.model.to_single_str_token(token)?, logit, probability })
    }

    /// How many tokens are likelier.
    fn rank(&self, token: u32) -> usize {
        self.values.iter().filter(|v| **v > self.values[token as usize]).count()
    }

    /// The `k` likeliest tokens, or as many as there are.
    fn top(&self, k: usize) -> Result<Vec<Candidate>, ModelError> {
        if k == 0 {
            return Ok(Vec::new());
        }
        let (_, best) = self.logits.topk(k.min(self.values.len()), 0);
        best.as_slice().iter().map(|&token| self.candidate(token)).collect()
    }
}

impl PromptTest {
    /// The rank of each token of the answer.
    pub fn ranks(&self) -> Vec<usize> {
        self.steps.iter().map(|step| step.rank).collect()
    }
}

impl AnswersTest {
    /// The rank of each answer.
    pub fn ranks(&self) -> Vec<usize> {
        self.answers.iter().map(|(_, rank)| *rank).collect()
    }
}

/// The lines of a place: those of answers with their ranks, and of the likeliest tokens.
fn write_place<'c>(
    f: &mut fmt::Formatter<'_>,
    answers: impl IntoIterator<Item = (&'c Candidate, usize)>,
    top: &[Candidate],
) -> fmt::Result {
    let line = |c: &Candidate| format!("Logit {:>7.3}  Prob {:>6.2}%  {:?}", c.logit, 100.0 * c.probability, c.text);
    for (answer, rank) in answers {
        writeln!(f, "Rank {rank:<6} {}", line(answer))?;
    }
    top.iter().enumerate().try_for_each(|(place, c)| writeln!(f, "  Top {place:>2}    {}", line(c)))
}

impl fmt::Display for PromptTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Tokenized prompt: {:?}", self.prompt)?;
        let answer: Vec<&str> = self.steps.iter().map(|s| s.answer.text.as_str()).collect();
        writeln!(f, "Tokenized answer: {answer:?}")?;
        for Step { answer, rank, top } in &self.steps {
            write_place(f, [(answer, *rank)], top)?;
        }
        write!(f, "Ranks of the answer's tokens: {:?}", self.ranks())
    }
}

impl fmt::Display for AnswersTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Tokenized prompt: {:?}", self.prompt)?;
        write_place(f, self.answers.iter().map(|(answer, rank)| (answer, *rank)), &self.top)?;
        write!(f, "Ranks of the answers' first tokens: {:?}", self.ranks())
    }
}
