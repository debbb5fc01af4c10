//! A model writes: token by token, with hooks, sampled or greedy, several sequences at once.

mod options;
mod sample;
mod stream;
mod text;

use std::fmt;

use ironlens_nn::{Hooks, Target};
use ironlens_tensor::{IndexTensor, Tensor};

pub use options::GenerateOptions;
pub use sample::Sampling;
pub use stream::{NewToken, Step, Stream};

use crate::error::ModelError;
use crate::input::Input;
use crate::key_value_cache::KeyValueCache;
use crate::model::HookedTransformer;

/// On which passes of a generation hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HooksOn {
    /// On all: the prompt's, and that of every new token.
    #[default]
    All,
    /// On the prompt's alone.
    Prompt,
    /// On those of new tokens alone: once each, at the place where it was written.
    NewTokens,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finish {
    /// A token that ends texts was written.
    Eos,
    /// Its text has one of the stop strings.
    StopString,
    /// `max_new_tokens` were written.
    Length,
    /// There is no position left: the sequence is `n_ctx` long.
    ContextFull,
}

/// What a model wrote.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Ids `[batch, pos]`: the prompts (padded if they are not of one length), and what was written. Sequences that
    /// ended before others are filled with the token that ends texts.
    pub tokens: IndexTensor,
    /// Length of the prompts, padding included: new tokens begin there.
    pub prompt_len: usize,
    /// The new tokens of each sequence, up to its end.
    pub new_tokens: Vec<Vec<u32>>,
    /// Log-probability of each of these, by the model's logits as they are (after hooks; before temperature, penalties
    /// and filters).
    pub log_probs: Vec<Vec<f32>>,
    /// Why each sequence ended.
    pub finish: Vec<Finish>,
    /// The new text of each sequence, without special tokens, up to a stop string; `None` for a model without a
    /// tokenizer.
    pub new_texts: Option<Vec<String>>,
    /// The prompts as text, where they were given so.
    pub prompts: Option<Vec<String>>,
}

impl Generated {
    /// Prompt and new text of each sequence: what TransformerLens gives for a prompt of text. It takes spaces out of
    /// that text, as `clean_up_tokenization_spaces`, where the tokenizer's files ask for it; here texts are what was
    /// told while they were written, with all spaces.
    ///
    /// # Errors
    /// If the model has no tokenizer, or the prompts were given as tokens.
    pub fn texts(&self) -> Result<Vec<String>, ModelError> {
        match (&self.prompts, &self.new_texts) {
            (Some(prompts), Some(new)) => Ok(prompts.iter().zip(new).map(|(p, n)| format!("{p}{n}")).collect()),
            (None, Some(_)) => Err(ModelError::Options(
                "the prompts were tokens: take new_texts, or HookedTransformer::to_strings of the tokens".into(),
            )),
            (_, None) => Err(ModelError::NoTokenizer),
        }
    }

    /// The new text of the first sequence; empty if the model has no tokenizer.
    pub fn new_text(&self) -> &str {
        self.new_texts.as_ref().and_then(|texts| texts.first()).map_or("", String::as_str)
    }
}

type EditLogits<'h> = Box<dyn FnMut(&mut Tensor, &[Vec<u32>]) -> Result<(), ironlens_nn::HookFailure> + 'h>;

/// A generation with everything that [`HookedTransformer::generate`] leaves at its default: hooks, activations, a
/// cache of keys and values to go on from, edits of the logits.
#[must_use = "a generation runs when it is asked for its output"]
pub struct Generation<'m, 'h> {
    model: &'m HookedTransformer,
    input: Input,
    attention_mask: Option<IndexTensor>,
    options: GenerateOptions,
    hooks: Hooks<'h>,
    hooks_on: HooksOn,
    names: Option<Target<'h>>,
    edit_logits: Option<EditLogits<'h>>,
    past: Option<&'h mut KeyValueCache>,
}

/// What was asked for; not the model.
impl fmt::Debug for Generation<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("input", &self.input)
            .field("attention_mask", &self.attention_mask)
            .field("options", &self.options)
            .field("hooks", &self.hooks)
            .field("hooks_on", &self.hooks_on)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl HookedTransformer {
    /// Writes on from a text, several texts, or tokens `[batch, pos]`. `generation` takes hooks and more.
    ///
    /// ```
    /// # use ironlens_tensor::{Device, IndexTensor};
    /// # use ironlens_transformer::{ActFn, Config, GenerateOptions, HookedTransformer};
    /// # let cfg = Config { d_model: 8, d_head: 4, n_layers: 2, n_ctx: 8, d_vocab: 5, act_fn: ActFn::Relu, ..Config::default() };
    /// # let model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
    /// let options = GenerateOptions { max_new_tokens: 4, stop_at_eos: false, ..GenerateOptions::greedy() };
    /// let out = model.generate(&IndexTensor::from([[0, 1, 2]]), &options)?;
    /// assert_eq!(out.tokens.shape(), [1, 7]);
    /// assert_eq!(out.new_tokens[0].len(), 4);
    /// # Ok::<(), ironlens_transformer::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// If the input does not fit the model or has no place for another token, or options cannot be or do not go
    /// together.
    pub fn generate(&self, input: impl Into<Input>, options: &GenerateOptions) -> Result<Generated, ModelError> {
        self.generation(input).options(options.clone()).run()
    }

    /// As [`HookedTransformer::generate`], token by token: an iterator.
    ///
    /// ```no_run
    /// # use std::io::Write;
    /// # use ironlens_transformer::{GenerateOptions, HookedTransformer};
    /// # fn example(model: &HookedTransformer) -> Result<(), Box<dyn std::error::Error>> {
    /// for step in model.stream("Once upon a time", &GenerateOptions::default())? {
    ///     print!("{}", step?.text());
    ///     std::io::stdout().flush()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`HookedTransformer::generate`].
    pub fn stream(
        &self,
        input: impl Into<Input>,
        options: &GenerateOptions,
    ) -> Result<Stream<'_, 'static>, ModelError> {
        self.generation(input).options(options.clone()).stream()
    }

    /// A generation with hooks and more; see [`Generation`].
    pub fn generation<'h>(&self, input: impl Into<Input>) -> Generation<'_, 'h> {
        Generation {
            model: self,
            input: input.into(),
            attention_mask: None,
            options: GenerateOptions::default(),
            hooks: Hooks::new(),
            hooks_on: HooksOn::All,
            names: None,
            edit_logits: None,
            past: None,
        }
    }
}

impl<'m, 'h> Generation<'m, 'h> {
    /// How to write.
    pub fn options(mut self, options: GenerateOptions) -> Self {
        self.options = options;
        self
    }

    /// `[batch, pos]`, 0 at padding, of prompts that are tokens.
    pub fn attention_mask(mut self, mask: &IndexTensor) -> Self {
        self.attention_mask = Some(mask.clone());
        self
    }

    /// Hooks that run while the model writes. They see the rows of a pass: those of the prompt, then one for every
    /// new token; [`ironlens_nn::HookInfo::pos_offset`] says where the first of them stands. Patterns and scores have
    /// all keys.
    ///
    /// ```
    /// # use ironlens_tensor::{Device, IndexTensor, Tensor};
    /// # use ironlens_transformer::{ActFn, Config, GenerateOptions, HookedTransformer, Hooks, HooksOn};
    /// # let cfg = Config { d_model: 8, d_head: 4, n_layers: 2, n_ctx: 8, d_vocab: 5, act_fn: ActFn::Relu, ..Config::default() };
    /// # let model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
    /// # let direction = Tensor::from(vec![1.0; 8]);
    /// # let options = GenerateOptions { stop_at_eos: false, max_new_tokens: 4, ..GenerateOptions::greedy() };
    /// let mut steer = Hooks::new().fwd("blocks.1.hook_resid_pre", |x, _| *x += &direction * 4.0);
    /// let tokens = IndexTensor::from([[0, 1, 2]]);
    /// let out = model.generation(&tokens).options(options).hooks(&mut steer).hooks_on(HooksOn::NewTokens).run()?;
    /// # assert_eq!(out.new_tokens[0].len(), 4);
    /// # Ok::<(), ironlens_transformer::ModelError>(())
    /// ```
    pub fn hooks(mut self, hooks: &'h mut Hooks<'_>) -> Self {
        self.hooks = hooks.nested();
        self
    }

    /// On which passes they run; on all unless told otherwise.
    pub fn hooks_on(mut self, on: HooksOn) -> Self {
        self.hooks_on = on;
        self
    }

    /// Activations that every [`Step`] of a stream brings: a name, several, or a predicate.
    pub fn names(mut self, names: impl Into<Target<'h>>) -> Self {
        self.names = Some(names.into());
        self
    }

    /// Changes the logits `[batch, d_vocab_out]` of the next token before it is chosen, given the tokens of each
    /// sequence so far (padding left out). What is minus infinity is never chosen.
    pub fn edit_logits<R: ironlens_nn::HookReturn>(
        mut self,
        mut edit: impl FnMut(&mut Tensor, &[Vec<u32>]) -> R + 'h,
    ) -> Self {
        self.edit_logits = Some(Box::new(move |logits, tokens| edit(logits, tokens).result()));
        self
    }

    /// Goes on from what `past` has read, and leaves there what is read now: the input, and all new tokens but the
    /// last.
    pub fn past_kv_cache(mut self, past: &'h mut KeyValueCache) -> Self {
        self.past = Some(past);
        self
    }

    /// Token by token.
    ///
    /// # Errors
    /// As [`HookedTransformer::generate`], and if a hook names nothing that fires.
    pub fn stream(self) -> Result<Stream<'m, 'h>, ModelError> {
        Stream::new(self)
    }

    /// To the end.
    ///
    /// # Errors
    /// As [`Generation::stream`], and if a hook fails.
    pub fn run(self) -> Result<Generated, ModelError> {
        let mut stream = self.stream()?;
        for step in stream.by_ref() {
            step?;
        }
        stream.finish()
    }
}
