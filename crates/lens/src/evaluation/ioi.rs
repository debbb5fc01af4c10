//! Indirect object identification (Wang et al. 2022): "When John and Mary went to the shops, John gave a bag to" Mary.
//!
//! TransformerLens's `IOIDataset` and `ioi_eval`, with its templates, names and nouns as the defaults, and the order
//! of the two names as a choice. Two things are not copied from TransformerLens 2.18: it seeds Python's `random` with
//! 42 anew for each prompt, so that all prompts of a data set are the same (here each is drawn), and where a tokenizer
//! puts a token that begins texts by itself, its prompts begin with two (here with one).

use ironlens_tensor::Rng;
use ironlens_transformer::{HookedTransformer, TokenOptions};

use crate::error::LensError;

/// Which of the two names comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As each template says (TransformerLens).
    AsWritten,
    /// Indirect object, subject, subject: "Mary and John .. John gave .. to Mary".
    Abba,
    /// Subject, indirect object, subject: "John and Mary .. John gave .. to Mary".
    Baba,
    /// Each half of the time.
    Both,
}

/// What prompts are made of.
#[derive(Clone, Debug)]
pub struct IoiOptions {
    /// Texts with `[A]` for the indirect object, `[B]` for the subject, and names of nouns; the answer is their end.
    pub templates: Vec<String>,
    /// Two of these are drawn for each prompt.
    pub names: Vec<String>,
    /// What may stand for `[LOCATION]` and so on.
    pub nouns: Vec<(String, Vec<String>)>,
    /// How many prompts.
    pub num_samples: usize,
    /// With each prompt, also the one with its names exchanged.
    pub symmetric: bool,
    /// The order of the first `[A]` and the first `[B]` of a template, which change places for the other one.
    pub order: Order,
    /// Of what is drawn.
    pub seed: u64,
}

impl Default for IoiOptions {
    fn default() -> Self {
        let all = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        IoiOptions {
            templates: all(&[
                "[A] and [B] went to the [LOCATION] to buy [OBJECT]. [B] handed the [OBJECT] to [A]",
                "Then, [B] and [A] went to the [LOCATION]. [B] gave the [OBJECT] to [A]",
            ]),
            names: all(&["John", "Mary"]),
            nouns: vec![
                ("LOCATION".into(), all(&["store", "market"])),
                ("OBJECT".into(), all(&["milk", "eggs", "bread"])),
            ],
            num_samples: 1000,
            symmetric: false,
            order: Order::AsWritten,
            seed: 0,
        }
    }
}

/// A prompt with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoiSample {
    /// All of it: it ends with the indirect object.
    pub text: String,
    /// The indirect object, with the space before it.
    pub io: String,
    /// The subject, with the space before it.
    pub s: String,
}

/// The most prompts of a data set.
const MOST: usize = 10_000_000;

/// Draws prompts.
///
/// # Errors
/// If there is no template, there are fewer than two names, a template does not end with `[A]` or has no `[B]` (or no
/// second `[A]` where an [`Order`] is asked for), or more than ten million prompts are asked for.
pub fn ioi_dataset(options: &IoiOptions) -> Result<Vec<IoiSample>, LensError> {
    let refuse = |what, given: String, expected| Err(LensError::argument(what, given, expected));
    if options.names.len() < 2 {
        return refuse("names", format!("{:?}", options.names), "at least two");
    }
    if options.templates.is_empty() {
        return refuse("templates", "none".into(), "at least one");
    }
    if let Some(template) = options.templates.iter().find(|t| !t.ends_with("[A]") || !t.contains("[B]")) {
        return refuse("a template", format!("{template:?}"), "a text with [B] that ends with [A]");
    }
    if options.num_samples > MOST {
        return refuse("num_samples", options.num_samples.to_string(), "at most 10000000");
    }
    let one_a = |t: &&String| t.matches("[A]").count() < 2;
    if let Some(template) = options.templates.iter().find(one_a).filter(|_| options.order != Order::AsWritten) {
        let expected = "a text with an [A] before its end, or Order::AsWritten";
        return refuse("a template whose names are ordered", format!("{template:?}"), expected);
    }
    let mut rng = Rng::new(options.seed, 0);
    let mut draw = |n: usize| rng.integers(&[1], 0, n as u32).as_slice()[0] as usize;
    let mut samples = Vec::new();
    let mut baba = false;
    while samples.len() < options.num_samples {
        let mut template = options.templates[draw(options.templates.len())].clone();
        for (name, nouns) in options.nouns.iter().filter(|(_, nouns)| !nouns.is_empty()) {
            template = template.replace(&format!("[{name}]"), &nouns[draw(nouns.len())]);
        }
        let first_b = match options.order {
            Order::AsWritten => None,
            Order::Abba => Some(false),
            Order::Baba => Some(true),
            Order::Both => {
                baba = !baba;
                Some(baba)
            }
        };
        if let (Some(a), Some(b)) = (template.find("[A]"), template.find("[B]"))
            && first_b.is_some_and(|wanted| wanted != (b < a))
        {
            template.replace_range(a..a + 3, "[B]");
            template.replace_range(b..b + 3, "[A]");
        }
        let first = draw(options.names.len());
        let second = (first + 1 + draw(options.names.len() - 1)) % options.names.len();
        let pairs = [(first, second), (second, first)];
        for (io, s) in pairs.into_iter().take(if options.symmetric { 2 } else { 1 }) {
            let (io, s) = (&options.names[io], &options.names[s]);
            let text = template.replace("[A]", io).replace("[B]", s);
            samples.push(IoiSample { text, io: format!(" {io}"), s: format!(" {s}") });
        }
    }
    samples.truncate(options.num_samples);
    Ok(samples)
}

/// What [`ioi_eval`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IoiScore {
    /// The mean of the indirect object's logit less the subject's.
    pub logit_difference: f64,
    /// The part of prompts in which it is above 0.
    pub accuracy: f64,
    /// How many prompts were asked.
    pub prompts: usize,
}

/// How well a model tells the indirect object from the subject: the logits are those before the first token in which
/// the two names differ. Prompts begin with a token that begins texts where the model is used to one.
///
/// # Errors
/// If the model has no tokenizer, there are no prompts, or one is longer than the context.
pub fn ioi_eval(
    model: &HookedTransformer,
    samples: &[IoiSample],
    batch_size: usize,
    progress: impl FnMut(usize, usize),
) -> Result<IoiScore, LensError> {
    ioi_eval_with(model, samples, batch_size, None, progress)
}

/// The same with or without a token that begins texts; TransformerLens's `prepend_bos` is true unless told.
///
/// # Errors
/// As [`ioi_eval`].
pub fn ioi_eval_with(
    model: &HookedTransformer,
    samples: &[IoiSample],
    batch_size: usize,
    prepend_bos: Option<bool>,
    mut progress: impl FnMut(usize, usize),
) -> Result<IoiScore, LensError> {
    if samples.is_empty() || batch_size == 0 {
        return Err(LensError::argument(
            "prompts",
            format!("{} in batches of {batch_size}", samples.len()),
            "at least one of each",
        ));
    }
    let ids = |text: &str| -> Result<Vec<u32>, LensError> {
        let options = TokenOptions { prepend_bos: Some(false), ..TokenOptions::whole() };
        Ok(model.to_tokens_with(text, &options)?.tokens.as_slice().to_vec())
    };
    let (mut sum, mut right) = (0.0, 0usize);
    for (done, batch) in samples.chunks(batch_size).enumerate() {
        progress(done * batch_size, samples.len());
        let texts: Vec<&str> = batch.iter().map(|s| s.text.as_str()).collect();
        let whole = TokenOptions { prepend_bos, ..TokenOptions::whole() };
        let read = model.to_tokens_with(texts.as_slice(), &whole)?;
        let mut call = model.call(&read.tokens);
        if let Some(mask) = &read.attention_mask {
            call = call.attention_mask(mask);
        }
        let output = call.output()?;
        let logits = output.logits().value();
        let pos = read.tokens.shape()[1];
        for (item, sample) in batch.iter().enumerate() {
            let (io, s) = (ids(&sample.io)?, ids(&sample.s)?);
            let Some(differs) = io.iter().zip(&s).position(|(a, b)| a != b) else {
                let given = format!("{:?} and {:?}", sample.io, sample.s);
                return Err(LensError::argument("names", given, "two that differ in a token of both"));
            };
            let seen = |at: &usize| read.attention_mask.as_ref().is_none_or(|m| m.as_slice()[item * pos + at] != 0);
            let last = (0..pos).rfind(seen).unwrap_or(0);
            // The prompt ends with the indirect object.
            let Some(at) = (last + differs).checked_sub(io.len()) else {
                return Err(LensError::argument("a prompt", format!("{:?}", sample.text), "more than its answer"));
            };
            let row = logits.select(0, item).select(0, at);
            let of = |id: u32| row.select(0, id as usize).item();
            let difference = of(io[differs]) - of(s[differs]);
            sum += difference;
            right += usize::from(difference > 0.0);
        }
    }
    progress(samples.len(), samples.len());
    let n = samples.len() as f64;
    Ok(IoiScore { logit_difference: sum / n, accuracy: right as f64 / n, prompts: samples.len() })
}
