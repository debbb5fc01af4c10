//! The iterator that writes.

use std::fmt;

use ironlens_nn::{Ctx, Hooks, Padding, Target};
use ironlens_tensor::{DType, Device, IndexTensor, Tensor};
use ironlens_tokenizer::{PaddingSide, TokenOptions};

use super::sample::{Draws, Sampling};
use super::text::NewText;
use super::{EditLogits, Finish, GenerateOptions, Generated, Generation, HooksOn};
use crate::cache::ActivationCache;
use crate::error::ModelError;
use crate::input::Input;
use crate::key_value_cache::KeyValueCache;
use crate::model::HookedTransformer;
use crate::output::LogitsAt;
use crate::sequences::Sequences;

/// A new token of one sequence.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its id.
    pub id: u32,
    /// The text that is certain with it: whole characters, without special tokens and stop strings. Empty in a model
    /// without a tokenizer. Texts of all tokens are together the new text.
    pub text: String,
    /// Its log-probability, by the model's logits as they are after hooks.
    pub log_prob: f32,
    /// Why the sequence ends with it, if it does.
    pub finish: Option<Finish>,
}

/// The new tokens of all sequences.
#[derive(Clone, Debug)]
pub struct Step {
    /// By sequence; `None` where one ended before.
    pub tokens: Vec<Option<NewToken>>,
    /// Their place in the sequences, padding counted.
    pub pos: usize,
    /// Activations of the pass that led to them: of the prompt at first, then of the token before. `None` unless asked
    /// for with [`Generation::names`].
    pub cache: Option<ActivationCache>,
}

impl Step {
    /// The new token of the first sequence, unless it ended before others.
    pub fn token(&self) -> Option<&NewToken> {
        self.tokens.first()?.as_ref()
    }

    /// Its text.
    pub fn text(&self) -> &str {
        self.token().map_or("", |token| &token.text)
    }
}

/// Keys and values of the generation alone, or those of the caller.
enum Past<'h> {
    Own(KeyValueCache),
    Callers(&'h mut KeyValueCache),
    /// None are kept.
    None,
}

/// One sequence of the batch.
struct Sequence<'m> {
    /// Prompt and new tokens, without padding.
    tokens: Vec<u32>,
    /// How many of them are new.
    new: usize,
    log_probs: Vec<f32>,
    text: Option<NewText<'m>>,
    draws: Draws,
    finish: Option<Finish>,
}

/// A model that writes, one token of every sequence a step. After an error it ends.
pub struct Stream<'m, 'h> {
    model: &'m HookedTransformer,
    options: GenerateOptions,
    sampling: Sampling,
    ends: Vec<u32>,
    hooks: Hooks<'h>,
    hooks_on: HooksOn,
    names: Option<Vec<String>>,
    edit_logits: Option<EditLogits<'h>>,
    past: Past<'h>,
    /// `[batch, pos]`: all tokens, as they were and will be read.
    tokens: IndexTensor,
    /// `[batch, pos]`, 0 at padding.
    mask: Option<IndexTensor>,
    prompts: Option<Vec<String>>,
    prompt_len: usize,
    /// How many positions of `tokens` were read.
    read: usize,
    /// How many positions a cache of the caller's had before.
    before: usize,
    sequences: Vec<Sequence<'m>>,
    /// All ids `[d_vocab_out]`, on a device that chooses by itself.
    ids: Option<Tensor>,
    failed: bool,
}

/// How far it is; not the model.
impl fmt::Debug for Stream<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("options", &self.options)
            .field("tokens", &self.tokens)
            .field("prompt_len", &self.prompt_len)
            .field("read", &self.read)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl<'m, 'h> Stream<'m, 'h> {
    pub(super) fn new(generation: Generation<'m, 'h>) -> Result<Stream<'m, 'h>, ModelError> {
        let Generation { model, input, attention_mask, options, hooks, hooks_on, names, edit_logits, past } =
            generation;
        let cfg = model.config();
        let (sampling, ends) = (options.sampling()?, options.ends(model)?);
        if cfg.d_vocab_out != cfg.d_vocab {
            return Err(ModelError::Options(format!(
                "the model's predictions are no tokens that it could read: d_vocab_out is {}, d_vocab {}",
                cfg.d_vocab_out, cfg.d_vocab
            )));
        }
        if options.stop_strings.iter().any(String::is_empty) {
            return Err(ModelError::Options("a stop string is empty: every text has it; leave it out".into()));
        }
        if !options.stop_strings.is_empty() && model.tokenizer().is_none() {
            return Err(ModelError::NoTokenizer);
        }
        let prompts = match &input {
            Input::Texts(texts) => Some(texts.clone()),
            Input::Sequences(_) | Input::Residual(_) => None,
        };
        if attention_mask.is_some() && prompts.is_some() {
            return Err(ModelError::Options(
                "an attention mask is of tokens; texts bring one of their own: leave it out, or give tokens".into(),
            ));
        }
        if hooks_on != HooksOn::All && !options.use_past_kv_cache {
            return Err(ModelError::Options(format!(
                "without use_past_kv_cache the prompt is read again for every token, and hooks_on {hooks_on:?} would hold \
                 for some of its readings: keep use_past_kv_cache, or say HooksOn::All"
            )));
        }
        let (tokens, mask) = match input {
            Input::Sequences(Sequences { tokens, mask }) => (tokens, attention_mask.or(mask)),
            Input::Texts(texts) => read(model, &texts, &options, past.as_deref())?,
            Input::Residual(_) => {
                return Err(ModelError::Options(
                    "a generation begins with text or tokens, not a residual stream".into(),
                ));
            }
        };
        let &[batch, pos] = tokens.shape() else {
            return Err(ModelError::Shape {
                what: "the prompt",
                given: tokens.shape().to_vec(),
                expected: "[batch, pos], with at least one of each".into(),
            });
        };
        if tokens.numel() == 0 {
            return Err(ModelError::Options(
                "the prompt has no tokens: give at least one, such as the token that begins texts (prepend_bos)".into(),
            ));
        }
        if let Some(mask) = mask.as_ref().filter(|mask| mask.shape() != tokens.shape()) {
            return Err(ModelError::Shape {
                what: "the attention mask",
                given: mask.shape().to_vec(),
                expected: format!("{:?}, as the prompt", tokens.shape()),
            });
        }
        let past = match (past, options.use_past_kv_cache) {
            (Some(past), true) => Past::Callers(past),
            (None, true) => Past::Own(KeyValueCache::new(model, batch)),
            (None, false) => Past::None,
            (Some(_), false) => {
                return Err(ModelError::Options(
                    "a cache of keys and values was given, and use_past_kv_cache is off; choose one".into(),
                ));
            }
        };
        let before = match &past {
            Past::Callers(past) => {
                past.check(model, [batch, pos])?;
                past.len()
            }
            Past::Own(_) | Past::None => 0,
        };
        if before + pos > cfg.n_ctx {
            return Err(ModelError::TooLong { pos: before + pos, n_ctx: cfg.n_ctx });
        }
        let names = names.map(|names: Target<'_>| names.names(model.registry())).transpose()?;
        let mut hooks = hooks;
        // Names that fire nowhere are told before anything is computed.
        Ctx::evaluate(model.params(), &mut hooks)?;
        let sequence = |item: usize| {
            let seen = |at: &usize| mask.as_ref().is_none_or(|mask| mask.select(0, item).as_slice()[*at] != 0);
            let row = tokens.select(0, item);
            Sequence {
                tokens: (0..pos).filter(seen).map(|at| row.as_slice()[at]).collect(),
                new: 0,
                log_probs: Vec::new(),
                text: model.tokenizer().map(|tokenizer| NewText::new(tokenizer, &options.stop_strings)),
                draws: Draws::new(options.seed, item),
                finish: (options.max_new_tokens == 0).then_some(Finish::Length),
            }
        };
        let sequences: Vec<Sequence<'_>> = (0..batch).map(sequence).collect();
        if let Some(item) = sequences.iter().position(|s| s.tokens.is_empty()) {
            return Err(ModelError::Options(format!("all of sequence {item} of the prompt is padding")));
        }
        let ids = (sampling.is_argmax() && *model.device() != Device::Cpu)
            .then(|| Tensor::arange(cfg.d_vocab_out, model.params().dtype(), model.device()));
        Ok(Stream {
            model,
            sampling,
            ids,
            ends,
            hooks,
            hooks_on,
            names,
            edit_logits,
            past,
            mask,
            prompts,
            prompt_len: pos,
            read: 0,
            before,
            sequences,
            failed: false,
            options,
            tokens,
        })
    }

    /// What was written so far.
    ///
    /// # Errors
    /// If the tokenizer fails on the end of a text.
    pub fn finish(mut self) -> Result<Generated, ModelError> {
        for sequence in &mut self.sequences {
            if let Some(text) = &mut sequence.text {
                text.finish()?;
            }
        }
        let texts = self.sequences.iter().map(|s| s.text.as_ref().map(|t| t.text().to_string())).collect();
        let new = |s: &Sequence<'_>| s.tokens[s.tokens.len() - s.new..].to_vec();
        Ok(Generated {
            prompt_len: self.prompt_len,
            new_tokens: self.sequences.iter().map(new).collect(),
            log_probs: self.sequences.iter_mut().map(|s| std::mem::take(&mut s.log_probs)).collect(),
            finish: self.sequences.iter().map(|s| s.finish.unwrap_or(Finish::Length)).collect(),
            new_texts: texts,
            prompts: self.prompts,
            tokens: self.tokens,
        })
    }

    fn step(&mut self) -> Result<Step, ModelError> {
        let (mut logits, cache) = self.read()?;
        if let Some(edit) = &mut self.edit_logits {
            let shape = logits.shape().to_vec();
            let seen: Vec<Vec<u32>> = self.sequences.iter().map(|s| s.tokens.clone()).collect();
            edit(&mut logits, &seen)
                .map_err(|source| ironlens_nn::HookError::Failed { name: "edit_logits".into(), source })?;
            if logits.shape() != shape {
                return Err(ModelError::Shape {
                    what: "what edit_logits left",
                    given: logits.shape().to_vec(),
                    expected: format!("{shape:?}, as it was"),
                });
            }
        }
        let pos = self.before + self.tokens.shape()[1];
        let chosen = self.choose(&logits)?;
        let (full, fill) = (pos + 1 >= self.model.config().n_ctx, self.ends.first().copied().unwrap_or(0));
        let mut column = Vec::new();
        let mut tokens = Vec::new();
        for (sequence, (id, log_prob)) in self.sequences.iter_mut().zip(chosen) {
            if sequence.finish.is_some() {
                column.push(fill);
                tokens.push(None);
                continue;
            }
            column.push(id);
            sequence.tokens.push(id);
            sequence.new += 1;
            sequence.log_probs.push(log_prob);
            let (mut text, stopped) = match &mut sequence.text {
                Some(text) => text.push(id)?,
                None => (String::new(), false),
            };
            sequence.finish = if self.ends.contains(&id) {
                Some(Finish::Eos)
            } else if stopped {
                Some(Finish::StopString)
            } else if sequence.new >= self.options.max_new_tokens {
                Some(Finish::Length)
            } else {
                full.then_some(Finish::ContextFull)
            };
            if let (Some(_), Some(rest)) = (sequence.finish, &mut sequence.text) {
                text.push_str(&rest.finish()?);
            }
            tokens.push(Some(NewToken { id, text, log_prob, finish: sequence.finish }));
        }
        let batch = column.len();
        self.tokens = IndexTensor::cat(&[self.tokens.clone(), IndexTensor::new(column, &[batch, 1])], 1);
        self.mask = self.mask.take().map(|mask| {
            let seen = IndexTensor::new(vec![1; batch], &[batch, 1]);
            IndexTensor::cat(&[mask, seen], 1)
        });
        Ok(Step { tokens, pos, cache })
    }

    /// Reads what was not read yet: logits `[batch, d_vocab_out]` of what comes next.
    fn read(&mut self) -> Result<(Tensor, Option<ActivationCache>), ModelError> {
        let total = self.tokens.shape()[1];
        let longest = self.mask.as_ref().map_or(total, |mask| Padding::new(mask).longest());
        if let Past::Own(past) = &mut self.past
            && self.model.net.turns_otherwise(past.longest(), longest)
        {
            if self.hooks_on != HooksOn::All && self.read > 0 {
                return Err(ModelError::Options(format!(
                    "beyond {} tokens this model rotates all positions by other angles, so that the text is read again, \
                     and hooks_on {:?} cannot hold for it: say HooksOn::All, or write less",
                    longest - 1,
                    self.hooks_on
                )));
            }
            // Beyond a length that is in sight now, all positions are rotated by other angles.
            *past = KeyValueCache::new(self.model, past.batch());
            self.read = 0;
        }
        let first = self.read == 0;
        let from = match &self.past {
            Past::Own(_) | Past::Callers(_) => self.read,
            Past::None => 0,
        };
        let rows = |x: &IndexTensor| x.narrow(1, from, total - from);
        let wanted = match self.hooks_on {
            HooksOn::All => true,
            HooksOn::Prompt => first,
            HooksOn::NewTokens => !first,
        };
        let mut hooks = if wanted { self.hooks.nested() } else { Hooks::new() };
        let mut call = self.model.call(&rows(&self.tokens)).hooks(&mut hooks).logits_at(LogitsAt::Last);
        if let Some(mask) = &self.mask {
            call = call.attention_mask(&rows(mask));
        }
        call = match &mut self.past {
            Past::Own(past) => call.past_kv_cache(past),
            Past::Callers(past) => call.past_kv_cache(past),
            Past::None => call,
        };
        let (output, cache) = match &self.names {
            None => (call.output()?, None),
            Some(names) => {
                let (output, cache) = call.names(names.clone()).cached()?;
                (output, Some(cache))
            }
        };
        self.read = total;
        Ok((output.logits().value().select(1, 0), cache))
    }

    /// The next token of every sequence, and its log-probability.
    fn choose(&mut self, logits: &Tensor) -> Result<Vec<(u32, f32)>, ModelError> {
        let log_probs = logits.log_softmax();
        let chosen: Vec<(u32, f32)> = match &self.ids {
            Some(ids) => likeliest_on_device(&log_probs, ids),
            None => {
                let d_vocab = logits.dim(1);
                let values = |x: &Tensor| x.to_dtype(DType::F32).to_vec();
                let (logits, log_probs) = (values(logits), values(&log_probs));
                let rows = logits.chunks(d_vocab).zip(log_probs.chunks(d_vocab));
                let choose = |(sequence, (logits, log_probs)): (&mut Sequence<'_>, (&[f32], &[f32]))| {
                    let id = self.sampling.choose(logits, &sequence.tokens, || sequence.draws.next());
                    (id, log_probs[id as usize])
                };
                self.sequences.iter_mut().zip(rows).map(choose).collect()
            }
        };
        let bad = |(sequence, (_, log_prob)): (&Sequence<'_>, &(u32, f32))| {
            sequence.finish.is_none() && !log_prob.is_finite()
        };
        match self.sequences.iter().zip(&chosen).position(bad) {
            None => Ok(chosen),
            Some(item) => Err(ModelError::Options(format!(
                "the logits of the next token of sequence {item}, after position {}, are not numbers: the weights, a \
                 hook or an edit of the logits made them infinite",
                self.before + self.tokens.shape()[1] - 1
            ))),
        }
    }
}

impl Iterator for Stream<'_, '_> {
    type Item = Result<Step, ModelError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.sequences.iter().all(|s| s.finish.is_some()) {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        Some(step)
    }
}

/// The likeliest of `log_probs` `[batch, d_vocab_out]` with its log-probability, by the device: two numbers of each
/// sequence are all that is read back. Of equals, the lowest of `ids` `[d_vocab_out]`, which are whole numbers in f32
/// up to 2^24.
fn likeliest_on_device(log_probs: &Tensor, ids: &Tensor) -> Vec<(u32, f32)> {
    let (batch, d_vocab) = (log_probs.dim(0), log_probs.dim(1));
    let best = log_probs.max_keepdim(1);
    let none = Tensor::scalar(d_vocab as f64, ids.dtype(), &ids.device());
    let id = Tensor::where_(log_probs.ge(&best), ids, &none).min_keepdim(1);
    let both = Tensor::cat(&[id, best], 1).to_vec();
    (0..batch).map(|item| (both[2 * item].min((d_vocab - 1) as f32) as u32, both[2 * item + 1])).collect()
}

/// Texts as tokens and mask. What follows a cache gets no token that begins texts, unless that is asked for.
fn read(
    model: &HookedTransformer,
    texts: &[String],
    options: &GenerateOptions,
    past: Option<&KeyValueCache>,
) -> Result<(IndexTensor, Option<IndexTensor>), ModelError> {
    let follows = past.is_some_and(|past| !past.is_empty());
    let options = TokenOptions {
        prepend_bos: options.prepend_bos.or(follows.then_some(false)),
        padding_side: Some(options.padding_side.unwrap_or(PaddingSide::Left)),
        truncate: false,
    };
    let read = model.to_tokens_with(texts, &options)?;
    Ok((read.tokens, read.attention_mask))
}
