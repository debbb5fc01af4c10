//! Indirect object identification (Wang et al. 2022): "When John and Mary went to the shops, John gave a bag to" Mary.
//!
//! TransformerLens's `IOIDataset` and `ioi_eval`, with its templates, names and nouns as the defaults, and the order
//! of the two names as a choice. A prompt begins with one token that begins texts, also where a tokenizer puts one by
//! itself (there TransformerLens 2.18 has two).

use ironlens_tensor::Rng;
use ironlens_transformer::{HookedTransformer, TokenOptions};

use crate::error::LensError;

/// Which of the two names comes first, and which a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
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
    /// The order of names in the first sentence of templates that say "[A] and [B]".
    pub order: Order,
    /// Of what is drawn.
    pub seed: u64,
}

impl Default for IoiOptions {
    fn default() -> Self {
        let all = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        IoiOptions {
            templates: all(&[
                "Then, [A] and [B] went to the [LOCATION]. [B] gave a [OBJECT] to [A]",
                "When [A] and [B] got a [OBJECT] at the [LOCATION], [B] decided to give it to [A]",
            ]),
            names: all(&["John", "Mary"]),
            nouns: vec![("LOCATION".into(), all(&["store", "market"])), ("OBJECT".into(), all(&["drink", "kiss"]))],
            num_samples: 1000,
            symmetric: false,
            order: Order::Abba,
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

/// Draws prompts.
///
/// # Errors
/// If there is no template, there are fewer than two names, or a template does not end with `[A]` or has no `[B]`.
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
    let mut rng = Rng::new(options.seed, 0);
    let mut draw = |n: usize| rng.integers(&[1], 0, n as u32).as_slice()[0] as usize;
    let mut samples = Vec::with_capacity(options.num_samples);
    let mut flip = false;
    while samples.len() < options.num_samples {
        let mut template = options.templates[draw(options.templates.len())].clone();
        for (name, nouns) in options.nouns.iter().filter(|(_, nouns)| !nouns.is_empty()) {
            template = template.replace(&format!("[{name}]"), &nouns[draw(nouns.len())]);
        }
        flip = match options.order {
            Order::Abba => false,
            Order::Baba => true,
            Order::Both => !flip,
        };
        if flip {
            template = template.replacen("[A] and [B]", "[B] and [A]", 1);
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
/// the two names differ.
///
/// # Errors
/// If the model has no tokenizer, or there are no prompts.
pub fn ioi_eval(
    model: &HookedTransformer,
    samples: &[IoiSample],
    batch_size: usize,
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
        let options = TokenOptions { prepend_bos: Some(false), truncate: false, ..TokenOptions::default() };
        Ok(model.to_tokens_with(text, &options)?.tokens.as_slice().to_vec())
    };
    let (mut sum, mut right) = (0.0, 0usize);
    for (done, batch) in samples.chunks(batch_size).enumerate() {
        progress(done * batch_size, samples.len());
        let texts: Vec<&str> = batch.iter().map(|s| s.text.as_str()).collect();
        let read = model.to_tokens_with(texts.as_slice(), &TokenOptions::default())?;
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
