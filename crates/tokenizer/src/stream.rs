//! Text of ids that come one at a time.

use crate::error::Result;
use crate::tokenize::Tokenize;

/// Turns ids into text as they are generated: each call gives what is certain by then, whole characters only.
///
/// The texts and [`finish`](Self::finish)'s are together what decoding all ids at once gives.
#[derive(Debug)]
pub struct Decoder<'t> {
    tokenizer: &'t dyn Tokenize,
    skip_special: bool,
    /// Ids whose text may still change, after those that give them their context: an id is decoded with the ids of
    /// the text before, since spaces at the beginning may be dropped.
    ids: Vec<u32>,
    /// How many of them are context.
    context: usize,
    /// Length in bytes of what they said.
    told: usize,
}

impl<'t> Decoder<'t> {
    /// For the text of `tokenizer`; `skip_special` leaves special tokens out.
    pub fn new(tokenizer: &'t dyn Tokenize, skip_special: bool) -> Decoder<'t> {
        Decoder { tokenizer, skip_special, ids: Vec::new(), context: 0, told: 0 }
    }

    /// The text that the next id completes; empty inside a character.
    ///
    /// # Errors
    /// If the id is beyond the vocabulary; it is then as if it had not been given.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = match self.tokenizer.decode(&self.ids, self.skip_special) {
            Ok(text) => text,
            Err(error) => {
                self.ids.pop();
                return Err(error);
            }
        };
        if text.len() <= self.told || text.ends_with('\u{FFFD}') {
            return Ok(String::new());
        }
        let new = text.get(self.told..).unwrap_or_default().to_owned();
        self.ids.drain(..self.context);
        self.context = self.ids.len();
        self.told = self.tokenizer.decode(&self.ids, self.skip_special)?.len();
        Ok(new)
    }

    /// What is left at the end: U+FFFD for a character that was not completed.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids, self.skip_special)?;
        Ok(text.get(self.told..).unwrap_or_default().to_owned())
    }
}
