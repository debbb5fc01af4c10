//! TransformerLens's rules: BOS, padding, masks and single tokens.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Result, TokenizerError};
use crate::prompt::{Occurrence, PaddingSide, Prompt, Single, Texts, TokenOptions, Tokens};
use crate::tokenize::{Parts, SpecialToken, SpecialTokens, Tokenize};
#[cfg(feature = "formats")]
use crate::tokenizer::Tokenizer;

/// A tokenizer with TransformerLens's rules and names (2.18).
///
/// A missing EOS token is `<|endoftext|>`, missing padding and BOS tokens are EOS. BOS is put before texts by
/// default, also for models that never saw one.
///
/// Two things are told apart that TransformerLens leaves to chance: a BOS that the vocabulary lacks is an error
/// (there, its letters would be tokenized), and without BOS only that first token is cut which the tokenizer puts
/// before every text (there, the first of any text, if the tokenizer only adds EOS).
#[derive(Clone, Debug)]
pub struct HookedTokenizer {
    tokenizer: Arc<dyn Tokenize>,
    special: SpecialTokens,
    /// What the tokenizer puts before and after every text by itself.
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    default_prepend_bos: bool,
    padding_side: PaddingSide,
    n_ctx: Option<usize>,
    d_vocab: usize,
}

impl HookedTokenizer {
    /// Gives a tokenizer TransformerLens's rules: it is set to add BOS by itself where it can
    /// ([`Tokenizer::with_bos`]), and missing tokens are filled.
    ///
    /// # Errors
    /// If the tokenizer cannot tokenize at all.
    #[cfg(feature = "formats")]
    pub fn new(tokenizer: Tokenizer) -> Result<HookedTokenizer> {
        HookedTokenizer::of(Arc::new(tokenizer.with_bos()?))
    }

    /// [`Tokenizer::from_folder`] with TransformerLens's rules.
    ///
    /// # Errors
    /// As [`Tokenizer::from_folder`].
    #[cfg(feature = "formats")]
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<HookedTokenizer> {
        HookedTokenizer::new(Tokenizer::from_folder(folder)?)
    }

    /// The same for a tokenizer of one's own.
    ///
    /// # Errors
    /// If the tokenizer cannot tokenize at all.
    pub fn of(tokenizer: Arc<dyn Tokenize>) -> Result<HookedTokenizer> {
        let mut special = tokenizer.special_tokens().clone();
        let eos = special.eos.get_or_insert_with(|| SpecialToken {
            text: "<|endoftext|>".to_owned(),
            id: tokenizer.token_to_id("<|endoftext|>"),
        });
        let eos = eos.clone();
        special.pad.get_or_insert_with(|| eos.clone());
        special.bos.get_or_insert(eos);
        let (prefix, suffix) = around(&*tokenizer)?;
        let d_vocab = tokenizer.vocab_size();
        Ok(HookedTokenizer {
            tokenizer,
            special,
            prefix,
            suffix,
            default_prepend_bos: true,
            padding_side: PaddingSide::Right,
            n_ctx: None,
            d_vocab,
        })
    }

    /// The same with another default for BOS (TransformerLens: false for Bloom and Qwen).
    pub fn with_default_prepend_bos(mut self, prepend: bool) -> HookedTokenizer {
        self.default_prepend_bos = prepend;
        self
    }

    /// The same with another default for padding.
    pub fn with_padding_side(mut self, side: PaddingSide) -> HookedTokenizer {
        self.padding_side = side;
        self
    }

    /// The same with a context length, at which texts are cut; without one they are not.
    pub fn with_n_ctx(mut self, n_ctx: usize) -> HookedTokenizer {
        self.n_ctx = Some(n_ctx);
        self
    }

    /// The same with the model's number of ids, which may be larger than the tokenizer's: ids that only the model has
    /// are nothing as text. Tokens that were added to the vocabulary may be beyond it; a text with one is an error.
    ///
    /// # Errors
    /// If the model lacks ids that texts are divided into.
    pub fn with_d_vocab(self, d_vocab: usize) -> Result<HookedTokenizer> {
        fits(d_vocab, &*self.tokenizer)?;
        Ok(self.with_any_d_vocab(d_vocab))
    }

    /// The same for a model that may lack ids that texts are divided into, too: a text with one is an error when it is
    /// tokenized.
    pub fn with_any_d_vocab(mut self, d_vocab: usize) -> HookedTokenizer {
        self.d_vocab = d_vocab;
        self
    }

    /// Whether BOS is put before texts if a call does not say.
    pub fn default_prepend_bos(&self) -> bool {
        self.default_prepend_bos
    }

    /// Where shorter rows are filled if a call does not say.
    pub fn padding_side(&self) -> PaddingSide {
        self.padding_side
    }

    /// The length at which texts are cut.
    pub fn n_ctx(&self) -> Option<usize> {
        self.n_ctx
    }

    /// How many ids the model has: the tokenizer's, unless it was told.
    pub fn d_vocab(&self) -> usize {
        self.d_vocab
    }

    /// Whether the tokenizer puts something around every text by itself: an empty one has ids. (TransformerLens's
    /// name and rule.)
    pub fn tokenizer_prepends_bos(&self) -> bool {
        !self.prefix.is_empty() || !self.suffix.is_empty()
    }

    /// Ids of one text or several, padded to the longest: TransformerLens's `to_tokens`.
    ///
    /// ```no_run
    /// # let tokenizer = ironlens_tokenizer::HookedTokenizer::from_folder("gpt2")?;
    /// let tokens = tokenizer.to_tokens(["Hello, world!", "Hi"], &Default::default())?;
    /// assert_eq!((tokens.rows, tokens.columns), (2, 5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If BOS or padding is needed and is not in the vocabulary.
    pub fn to_tokens(&self, texts: impl Texts, options: &TokenOptions) -> Result<Tokens> {
        let prepend = options.prepend_bos.unwrap_or(self.default_prepend_bos);
        let side = options.padding_side.unwrap_or(self.padding_side);
        let texts = texts.texts();
        let rows: Vec<Vec<u32>> =
            texts.iter().map(|text| self.ids(text, prepend, options.truncate)).collect::<Result<_>>()?;
        self.padded(&rows, side)
    }

    /// Ids of one text, not padded.
    fn ids(&self, text: &str, prepend: bool, truncate: bool) -> Result<Vec<u32>> {
        let added = self.prefix.len() + self.suffix.len();
        let mut body = match prepend && added == 0 {
            // The text of BOS, as TransformerLens does it: the tokenizer finds it there.
            true => self.tokenizer.encode(&(self.bos()?.0.to_owned() + text), false)?,
            false => self.tokenizer.encode(text, false)?,
        };
        if let Some(n_ctx) = self.n_ctx.filter(|_| truncate) {
            body.truncate(n_ctx.saturating_sub(added));
        }
        let ids = [self.prefix.as_slice(), &body, &self.suffix].concat();
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.d_vocab) {
            return Err(TokenizerError::UnknownId { id, vocab_size: self.d_vocab });
        }
        // Without BOS the token that the tokenizer put first is cut; the context was counted with it.
        let cut = usize::from(!prepend && !self.prefix.is_empty());
        Ok(ids[cut..].to_vec())
    }

    /// The mask is 0 where a row was filled, and nowhere else: a text may have the padding token itself, as its
    /// first or last token, too.
    fn padded(&self, rows: &[Vec<u32>], side: PaddingSide) -> Result<Tokens> {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let needs_padding = rows.iter().any(|row| row.len() < columns);
        let pad = if needs_padding { self.pad()? } else { 0 };
        let mut ids = Vec::with_capacity(rows.len() * columns);
        let mut attention_mask = Vec::with_capacity(rows.len() * columns);
        for row in rows {
            let filled = columns - row.len();
            let before = if side == PaddingSide::Left { filled } else { 0 };
            ids.extend(std::iter::repeat_n(pad, before).chain(row.iter().copied()));
            attention_mask.extend(std::iter::repeat_n(0, before).chain(std::iter::repeat_n(1, row.len())));
            ids.extend(std::iter::repeat_n(pad, filled - before));
            attention_mask.extend(std::iter::repeat_n(0, filled - before));
        }
        Ok(Tokens { ids, attention_mask, rows: rows.len(), columns })
    }

    /// The mask of one row of ids of which nobody knows where they were filled: 0 at padding tokens at its end (or its
    /// beginning, for left padding), else 1. [`to_tokens`](Self::to_tokens) knows, and gives the mask itself.
    ///
    /// If BOS is the padding token, the last padding token at the beginning is BOS and is attended to; on the right
    /// nothing tells padding from tokens of the text that are the padding token. (TransformerLens's rule.)
    pub fn attention_mask(&self, ids: &[u32], side: PaddingSide, prepend_bos: bool) -> Vec<u8> {
        let pad = self.special.pad.as_ref().and_then(|token| token.id);
        let is_pad = |id: &&u32| Some(**id) == pad;
        let mut mask = vec![1; ids.len()];
        match side {
            PaddingSide::Right => {
                let padding = ids.iter().rev().take_while(is_pad).count();
                mask[ids.len() - padding..].fill(0);
            }
            PaddingSide::Left => {
                let mut padding = ids.iter().take_while(is_pad).count();
                if prepend_bos && self.special.bos.as_ref().and_then(|token| token.id) == pad {
                    padding = padding.saturating_sub(1);
                }
                mask[..padding].fill(0);
            }
        }
        mask
    }

    /// Text of ids, with special tokens and all spaces: TransformerLens's `to_string`.
    ///
    /// # Errors
    /// If an id is beyond the model's vocabulary.
    pub fn to_string(&self, ids: &[u32]) -> Result<String> {
        self.decode_uncleaned(ids, false)
    }

    /// The text of each token of a prompt, each decoded alone: incomplete characters are U+FFFD.
    ///
    /// # Errors
    /// As [`to_tokens`](Self::to_tokens) and [`to_string`](Self::to_string).
    pub fn to_str_tokens<'p>(&self, prompt: impl Into<Prompt<'p>>, options: &TokenOptions) -> Result<Vec<String>> {
        self.prompt_ids(prompt.into(), options)?.iter().map(|&id| self.to_single_str_token(id)).collect()
    }

    fn prompt_ids(&self, prompt: Prompt<'_>, options: &TokenOptions) -> Result<Vec<u32>> {
        match prompt {
            Prompt::Text(text) => Ok(self.to_tokens(text, options)?.ids),
            Prompt::Ids(ids) => Ok(ids.to_vec()),
        }
    }

    /// The id of a text that is one token.
    ///
    /// # Errors
    /// If it is none, or several.
    pub fn to_single_token(&self, text: &str) -> Result<u32> {
        let ids = self.to_tokens(text, &TokenOptions::prepend_bos(false))?.ids;
        match ids.as_slice() {
            [id] => Ok(*id),
            several => Err(TokenizerError::NotSingle {
                text: text.to_owned(),
                count: several.len(),
                tokens: several.iter().take(8).map(|&id| self.to_single_str_token(id)).collect::<Result<_>>()?,
            }),
        }
    }

    /// The text of one id.
    ///
    /// # Errors
    /// If it is beyond the model's vocabulary.
    pub fn to_single_str_token(&self, id: u32) -> Result<String> {
        self.to_string(&[id])
    }

    /// The place of a token in a prompt: TransformerLens's `get_token_position`.
    ///
    /// # Errors
    /// If it does not occur, or its text is not one token.
    pub fn get_token_position<'a>(
        &self,
        token: impl Into<Single<'a>>,
        prompt: impl Into<Prompt<'a>>,
        mode: Occurrence,
        options: &TokenOptions,
    ) -> Result<usize> {
        let ids = self.prompt_ids(prompt.into(), options)?;
        let token = match token.into() {
            Single::Text(text) => self.to_single_token(text)?,
            Single::Id(id) => id,
        };
        let place = match mode {
            Occurrence::First => ids.iter().position(|&id| id == token),
            Occurrence::Last => ids.iter().rposition(|&id| id == token),
        };
        let text = || self.to_single_str_token(token).unwrap_or_default();
        place.ok_or_else(|| TokenizerError::NotFound { token, text: text(), length: ids.len() })
    }

    /// The ids that end a text which a model writes: EOS, and what else the model's files name.
    pub fn end_ids(&self) -> Vec<u32> {
        let eos = self.special.eos.as_ref().and_then(|eos| eos.id);
        let mut ids: Vec<u32> = eos.into_iter().chain(self.special.ends.iter().copied()).collect();
        let mut seen = std::collections::HashSet::new();
        ids.retain(|id| (*id as usize) < self.d_vocab && seen.insert(*id));
        ids
    }

    /// Text and id of BOS.
    pub(crate) fn bos(&self) -> Result<(&str, u32)> {
        needed("BOS", &self.special.bos, "pass prepend_bos = false, or name another in tokenizer_config.json")
    }

    pub(crate) fn pad(&self) -> Result<u32> {
        let advice = "give texts of one length, or name another in tokenizer_config.json";
        needed("padding", &self.special.pad, advice).map(|(_, id)| id)
    }
}

impl Tokenize for HookedTokenizer {
    fn chat_text(&self, messages: &[(&str, &str)], add_generation_prompt: bool) -> Result<String> {
        self.tokenizer.chat_text(messages, add_generation_prompt)
    }

    fn save_into(&self, folder: &Path) -> Result<bool> {
        self.tokenizer.save_into(folder)
    }

    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        self.tokenizer.encode(text, add_special)
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.tokenizer.decode(&known(&*self.tokenizer, self.d_vocab, ids)?, skip_special)
    }

    fn decode_uncleaned(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.tokenizer.decode_uncleaned(&known(&*self.tokenizer, self.d_vocab, ids)?, skip_special)
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    fn vocab_size(&self) -> usize {
        self.d_vocab
    }

    fn divided_vocab_size(&self) -> usize {
        self.tokenizer.divided_vocab_size()
    }

    fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    fn encode_parts(&self, first: &str, second: Option<&str>, max_length: Option<usize>) -> Result<Parts> {
        self.tokenizer.encode_parts(first, second, max_length)
    }
}

/// Whether a model of `d_vocab` ids has all that a tokenizer divides texts into.
pub(crate) fn fits(d_vocab: usize, tokenizer: &dyn Tokenize) -> Result<()> {
    let needed = tokenizer.divided_vocab_size();
    if d_vocab < needed {
        let reason = format!("the model has d_vocab {d_vocab}, and the tokenizer ids up to {}", needed - 1);
        return Err(TokenizerError::Argument(reason));
    }
    Ok(())
}

/// Those of some ids of a model of `d_vocab` that the tokenizer has: the others are nothing as text.
pub(crate) fn known<'i>(tokenizer: &dyn Tokenize, d_vocab: usize, ids: &'i [u32]) -> Result<Cow<'i, [u32]>> {
    if let Some(&id) = ids.iter().find(|&&id| id as usize >= d_vocab) {
        return Err(TokenizerError::UnknownId { id, vocab_size: d_vocab });
    }
    let has = |id: &&u32| (**id as usize) < tokenizer.vocab_size();
    Ok(match ids.iter().all(|id| has(&id)) {
        true => Cow::Borrowed(ids),
        false => Cow::Owned(ids.iter().filter(has).copied().collect()),
    })
}

fn needed<'t>(role: &'static str, token: &'t Option<SpecialToken>, advice: &'static str) -> Result<(&'t str, u32)> {
    match token {
        Some(SpecialToken { text, id: Some(id) }) => Ok((text, *id)),
        other => {
            let token = other.as_ref().map(|t| t.text.clone()).unwrap_or_default();
            Err(TokenizerError::NoSpecialToken { role, token, advice })
        }
    }
}

/// What a tokenizer puts before and after every text by itself, seen at the text "a".
fn around(tokenizer: &dyn Tokenize) -> Result<(Vec<u32>, Vec<u32>)> {
    let (bare, whole) = (tokenizer.encode("a", false)?, tokenizer.encode("a", true)?);
    let at = match bare.is_empty() {
        true => whole.len(),
        false => whole.windows(bare.len()).position(|window| window == bare).unwrap_or(0),
    };
    let after = whole.get(at + bare.len()..).unwrap_or_default();
    Ok((whole[..at].to_vec(), after.to_vec()))
}
