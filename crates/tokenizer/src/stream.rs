//! Text of ids that come one at a time.

use crate::error::Result;
use crate::tokenize::Tokenize;

/// Turns ids into text as they are generated: each call gives what is certain by then, whole characters only.
///
/// The texts and [`finish`](Self::finish)'s are together what [`Tokenize::decode_uncleaned`] of all ids at once gives.
/// There is one exception: where SentencePiece's byte tokens say a whole character and then bytes that are none,
/// decoding all at once marks the whole run as broken, and here the character was told already.
#[derive(Debug)]
pub struct Decoder<'t> {
    tokenizer: &'t dyn Tokenize,
    skip_special: bool,
    /// Ids whose text may still change, after those that give them their context: an id is decoded with the ids of
    /// the text before, since spaces at the beginning may be dropped.
    ids: Vec<u32>,
    /// How many of them are context.
    context: usize,
    /// What they said.
    told: String,
}

impl<'t> Decoder<'t> {
    /// For the text of `tokenizer`; `skip_special` leaves special tokens out.
    pub fn new(tokenizer: &'t dyn Tokenize, skip_special: bool) -> Decoder<'t> {
        Decoder { tokenizer, skip_special, ids: Vec::new(), context: 0, told: String::new() }
    }

    /// The text that the next id completes; empty inside a character.
    ///
    /// # Errors
    /// If the id is beyond the vocabulary; it is then as if it had not been given.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = match self.tokenizer.decode_uncleaned(&self.ids, self.skip_special) {
            Ok(text) => text,
            Err(error) => {
                self.ids.pop();
                return Err(error);
            }
        };
        if text.ends_with('\u{FFFD}') {
            return Ok(String::new());
        }
        let new = self.beyond_told(&text)?;
        if new.is_empty() {
            // Ids that say nothing are no context: the next one would be decoded as the first of a text.
            return Ok(new);
        }
        self.ids.drain(..self.context);
        self.context = self.ids.len();
        self.told = self.tokenizer.decode_uncleaned(&self.ids, self.skip_special)?;
        Ok(new)
    }

    /// What `text`, that of all ids, says beyond the context.
    fn beyond_told(&self, text: &str) -> Result<String> {
        match text.strip_prefix(&self.told) {
            Some(new) => Ok(new.to_owned()),
            None => self.tokenizer.decode_uncleaned(&self.ids[self.context..], self.skip_special),
        }
    }

    /// What is left at the end: U+FFFD for a character that was not completed.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode_uncleaned(&self.ids, self.skip_special)?;
        self.beyond_told(&text)
    }
}
