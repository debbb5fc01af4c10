//! What is asked of a text that a model writes.

use ironlens_tokenizer::PaddingSide;

use crate::error::ModelError;
use crate::generate::sample::Sampling;
use crate::model::HookedTransformer;

/// How a model writes: TransformerLens's arguments of `generate` with their defaults, and what other tools have.
///
/// ```
/// # use ironlens_transformer::GenerateOptions;
/// let greedy = GenerateOptions { max_new_tokens: 50, ..GenerateOptions::greedy() };
/// let lively = GenerateOptions { temperature: 0.8, top_p: Some(0.95), seed: 7, ..GenerateOptions::default() };
/// # let _ = (greedy, lively);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// How many tokens at most are written.
    pub max_new_tokens: usize,
    /// Whether a sequence ends with a token that ends texts.
    pub stop_at_eos: bool,
    /// The tokens that end texts; if empty, those that the tokenizer and its model name.
    pub eos_token_id: Vec<u32>,
    /// A sequence ends where its new text has one of these. The text ends before it, the tokens with it.
    pub stop_strings: Vec<String>,
    /// Draw tokens; else the likeliest is taken, of equals the one with the lowest id.
    pub do_sample: bool,
    /// Draw among the `k` likeliest only (and what is as likely as the last of them).
    pub top_k: Option<usize>,
    /// Draw among the likeliest only that together have this probability.
    pub top_p: Option<f64>,
    /// Draw only from tokens that have this part of the likeliest one's probability.
    pub min_p: Option<f64>,
    /// With both `top_k` and `top_p`: keep the `k` likeliest, then `p` of those, as Hugging Face does. TransformerLens
    /// leaves out `top_p` then, so that without this both at once are refused.
    pub top_k_then_top_p: bool,
    /// Logits are divided by it: below 1 likely tokens become likelier. 0 takes the likeliest.
    pub temperature: f64,
    /// A token's logit loses this much for every time that it stands in the sequence so far, after the temperature; of
    /// what is drawn alone, as in TransformerLens. (This penalty and the next do not know what a
    /// [`KeyValueCache`](crate::KeyValueCache) of the caller's holds from before.)
    pub freq_penalty: f64,
    /// Logits of tokens that stand in the sequence so far are divided by this if above 0, and multiplied by it if
    /// below (Keskar et al. 2019; Hugging Face's `repetition_penalty`); 1 changes nothing.
    pub repetition_penalty: f64,
    /// Keep keys and values; else the whole sequence is computed again for every token.
    pub use_past_kv_cache: bool,
    /// Whether texts get a beginning-of-sequence token; the model's habit if `None`.
    pub prepend_bos: Option<bool>,
    /// Where shorter texts of a batch are padded, and the padding hidden; on the left if `None`.
    pub padding_side: Option<PaddingSide>,
    /// Of what is drawn: a seed gives the same text on every machine.
    pub seed: u64,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            max_new_tokens: 10,
            stop_at_eos: true,
            eos_token_id: Vec::new(),
            stop_strings: Vec::new(),
            do_sample: true,
            top_k: None,
            top_p: None,
            min_p: None,
            top_k_then_top_p: false,
            temperature: 1.0,
            freq_penalty: 0.0,
            repetition_penalty: 1.0,
            use_past_kv_cache: true,
            prepend_bos: None,
            padding_side: None,
            seed: 0,
        }
    }
}

impl GenerateOptions {
    /// The likeliest token every time.
    pub fn greedy() -> GenerateOptions {
        GenerateOptions { do_sample: false, ..GenerateOptions::default() }
    }

    /// How tokens are chosen.
    ///
    /// # Errors
    /// If an option cannot be, or two do not go together.
    pub fn sampling(&self) -> Result<Sampling, ModelError> {
        fn refuse<T>(reason: String) -> Result<T, ModelError> {
            Err(ModelError::Options(reason))
        }
        let part = |name: &str, p: Option<f64>| match p {
            Some(p) if !(p > 0.0 && p <= 1.0) => refuse(format!("{name} is {p}, expected above 0 and at most 1")),
            _ => Ok(()),
        };
        part("top_p", self.top_p)?;
        part("min_p", self.min_p)?;
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return refuse(format!("temperature is {}, expected 0 (the likeliest token) or more", self.temperature));
        }
        if !self.freq_penalty.is_finite() {
            return refuse(format!("freq_penalty is {}, expected a number", self.freq_penalty));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return refuse(format!(
                "repetition_penalty is {}, expected above 0, and 1 for none",
                self.repetition_penalty
            ));
        }
        if self.top_k == Some(0) {
            return refuse("top_k is 0, expected at least 1; leave it out to draw from all tokens".into());
        }
        if self.top_k.is_some() && self.top_p.is_some() && !self.top_k_then_top_p {
            return refuse(
                "top_k and top_p at once mean two things: TransformerLens leaves out top_p, Hugging Face takes top_p \
                 of the top_k; leave one out, or set top_k_then_top_p"
                    .into(),
            );
        }
        Ok(Sampling {
            greedy: !self.do_sample || self.temperature == 0.0,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            temperature: self.temperature,
            freq_penalty: self.freq_penalty,
            repetition_penalty: self.repetition_penalty,
        })
    }

    /// The tokens that end sequences.
    pub(super) fn ends(&self, model: &HookedTransformer) -> Result<Vec<u32>, ModelError> {
        let d_vocab = model.config().d_vocab;
        if let Some(id) = self.eos_token_id.iter().find(|id| **id as usize >= d_vocab) {
            return Err(ModelError::Options(format!(
                "eos_token_id {id} is outside of the vocabulary: d_vocab is {d_vocab}, so ids are 0 to {}",
                d_vocab - 1
            )));
        }
        if !self.stop_at_eos {
            return Ok(Vec::new());
        }
        let ends = match self.eos_token_id.is_empty() {
            true => model.tokenizer().map(|t| t.end_ids()).unwrap_or_default(),
            false => self.eos_token_id.clone(),
        };
        if ends.is_empty() {
            let why = if model.tokenizer().is_some() { "its tokenizer names none" } else { "it has no tokenizer" };
            return Err(ModelError::NoEnd { why });
        }
        Ok(ends)
    }
}
