//! Texts as encoders read them: alone or in pairs, with a token before and after, padded, with places to guess.

#[cfg(feature = "formats")]
use std::path::Path;
use std::sync::Arc;

use crate::error::{Result, TokenizerError};
use crate::hooked::{fits, known};
use crate::prompt::{Texts, Tokens};
use crate::tokenize::{Parts, Tokenize};
#[cfg(feature = "formats")]
use crate::tokenizer::Tokenizer;

/// The tokenizer of an encoder such as BERT.
///
/// Texts become what transformers' own call of a tokenizer gives (`tokenizer(texts, padding=True, truncation=True)`),
/// and so what TransformerLens's `HookedEncoder.to_tokens` gives: `[CLS] text [SEP]`, with padding after shorter texts.
/// TransformerLens's rules for BOS are not of encoders; [`HookedTokenizer`](crate::HookedTokenizer) has those.
#[derive(Clone, Debug)]
pub struct EncoderTokenizer {
    tokenizer: Arc<dyn Tokenize>,
    max_length: Option<usize>,
    d_vocab: usize,
}

/// A batch of ids as an encoder reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderTokens {
    /// Ids and the mask of padding.
    pub tokens: Tokens,
    /// `[rows, columns]`: 1 for ids of the second text of a pair, else 0.
    pub token_type_ids: Vec<u32>,
}

impl EncoderTokenizer {
    /// Of a model's folder; see [`Tokenizer::from_folder`].
    ///
    /// # Errors
    /// As [`Tokenizer::from_folder`].
    #[cfg(feature = "formats")]
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<EncoderTokenizer> {
        Ok(EncoderTokenizer::new(Tokenizer::from_folder(folder)?))
    }

    /// Of a tokenizer as it was read; texts are cut where its files say.
    #[cfg(feature = "formats")]
    pub fn new(tokenizer: Tokenizer) -> EncoderTokenizer {
        let max_length = tokenizer.max_length();
        EncoderTokenizer { max_length, ..EncoderTokenizer::of(Arc::new(tokenizer)) }
    }

    /// Of a tokenizer of one's own, with [`Tokenize::encode_parts`]; texts are not cut.
    pub fn of(tokenizer: Arc<dyn Tokenize>) -> EncoderTokenizer {
        let d_vocab = tokenizer.vocab_size();
        EncoderTokenizer { tokenizer, max_length: None, d_vocab }
    }

    /// The same for a model of so many positions: texts are cut there at the latest.
    pub fn with_n_ctx(mut self, n_ctx: usize) -> EncoderTokenizer {
        self.max_length = Some(self.max_length.map_or(n_ctx, |length| length.min(n_ctx)));
        self
    }

    /// The same with the model's number of ids, which may be larger than the tokenizer's: ids that only the model has
    /// are nothing as text.
    ///
    /// # Errors
    /// If the model lacks ids that texts are divided into.
    pub fn with_d_vocab(mut self, d_vocab: usize) -> Result<EncoderTokenizer> {
        fits(d_vocab, &*self.tokenizer)?;
        self.d_vocab = d_vocab;
        Ok(self)
    }

    /// At how many ids texts are cut.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// What is behind it.
    pub fn tokenizer(&self) -> &dyn Tokenize {
        &*self.tokenizer
    }

    /// Ids of one text or several.
    ///
    /// # Errors
    /// If padding is needed and is not in the vocabulary, or the tokenizer fails on a text.
    pub fn to_tokens(&self, texts: impl Texts) -> Result<EncoderTokens> {
        let parts = |text: &&str| self.tokenizer.encode_parts(text, None, self.max_length);
        self.padded(texts.texts().iter().map(parts).collect::<Result<_>>()?)
    }

    /// Ids of pairs of texts.
    ///
    /// # Errors
    /// As [`to_tokens`](Self::to_tokens).
    pub fn pairs_to_tokens<A: AsRef<str>, B: AsRef<str>>(&self, pairs: &[(A, B)]) -> Result<EncoderTokens> {
        let parts = |(a, b): &(A, B)| self.tokenizer.encode_parts(a.as_ref(), Some(b.as_ref()), self.max_length);
        self.padded(pairs.iter().map(parts).collect::<Result<_>>()?)
    }

    fn padded(&self, all: Vec<Parts>) -> Result<EncoderTokens> {
        let columns = all.iter().map(|parts| parts.ids.len()).max().unwrap_or(0);
        let pad = match all.iter().all(|parts| parts.ids.len() == columns) {
            true => 0,
            false => self.pad()?,
        };
        let (mut ids, mut types, mut mask) = (Vec::new(), Vec::new(), Vec::new());
        for parts in &all {
            let fill = columns - parts.ids.len();
            ids.extend(parts.ids.iter().copied().chain(std::iter::repeat_n(pad, fill)));
            types.extend(parts.types.iter().copied().chain(std::iter::repeat_n(0, fill)));
            mask.extend(std::iter::repeat_n(1, parts.ids.len()).chain(std::iter::repeat_n(0, fill)));
        }
        let tokens = Tokens { ids, attention_mask: mask, rows: all.len(), columns };
        Ok(EncoderTokens { tokens, token_type_ids: types })
    }

    fn pad(&self) -> Result<u32> {
        let token = self.tokenizer.special_tokens().pad.as_ref();
        token.and_then(|token| token.id).ok_or_else(|| TokenizerError::NoSpecialToken {
            role: "padding",
            token: token.map(|token| token.text.clone()).unwrap_or_default(),
            advice: "give texts of one length, or name another in tokenizer_config.json",
        })
    }

    /// Text and id of the token that stands for a word to guess.
    ///
    /// # Errors
    /// If there is none.
    pub fn mask(&self) -> Result<(&str, u32)> {
        match &self.tokenizer.special_tokens().mask {
            Some(crate::SpecialToken { text, id: Some(id) }) => Ok((text, *id)),
            other => Err(TokenizerError::NoSpecialToken {
                role: "mask",
                token: other.as_ref().map(|token| token.text.clone()).unwrap_or_default(),
                advice: "name it in tokenizer_config.json as mask_token",
            }),
        }
    }

    /// Text of ids, special tokens included.
    ///
    /// # Errors
    /// If an id is beyond the vocabulary.
    pub fn to_string(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(&known(&*self.tokenizer, self.d_vocab, ids)?, false)
    }

    /// The text of each id alone: pieces within a word begin with `##`.
    ///
    /// # Errors
    /// If an id is beyond the vocabulary.
    pub fn to_str_tokens(&self, ids: &[u32]) -> Result<Vec<String>> {
        ids.iter().map(|&id| self.to_string(&[id])).collect()
    }
}
