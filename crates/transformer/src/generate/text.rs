//! The text of a sequence while it is written.

use ironlens_tokenizer::{Decoder, HookedTokenizer, TokenizerError};

/// Text of new tokens: whole characters, and up to a stop string.
pub(super) struct NewText<'t> {
    decoder: Option<Decoder<'t>>,
    stops: Vec<String>,
    /// What was told.
    text: String,
    /// What is held back: it may be how a stop string begins.
    held: String,
}

impl<'t> NewText<'t> {
    pub fn new(tokenizer: &'t HookedTokenizer, stops: &[String]) -> NewText<'t> {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        NewText { decoder: Some(Decoder::new(tokenizer, true)), stops, text: String::new(), held: String::new() }
    }

    /// What was told so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text that a token completes, and whether a stop string was met.
    pub fn push(&mut self, token: u32) -> Result<(String, bool), TokenizerError> {
        let new = match &mut self.decoder {
            Some(decoder) => decoder.push(token)?,
            None => String::new(),
        };
        self.held.push_str(&new);
        let met = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        let sure = met.unwrap_or_else(|| self.held.len() - self.may_begin_a_stop());
        let told: String = self.held.drain(..sure).collect();
        self.text.push_str(&told);
        if met.is_some() {
            self.held.clear();
            self.decoder = None;
        }
        Ok((told, met.is_some()))
    }

    /// What is left once nothing more comes.
    pub fn finish(&mut self) -> Result<String, TokenizerError> {
        let rest = self.decoder.take().map_or(Ok(String::new()), Decoder::finish)?;
        let told = std::mem::take(&mut self.held) + &rest;
        self.text.push_str(&told);
        Ok(told)
    }

    /// Length of the longest end of what is held that some stop string begins with.
    fn may_begin_a_stop(&self) -> usize {
        let ends = self.held.char_indices().map(|(at, _)| &self.held[at..]);
        ends.filter(|end| self.stops.iter().any(|stop| stop.starts_with(*end))).map(str::len).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_that_may_go_on_are_held_back() {
        let held = |held: &str| NewText {
            decoder: None,
            stops: vec!["\n\nQ:".into(), "END".into()],
            text: String::new(),
            held: held.into(),
        };
        let cases = [("a", 0), ("a\n", 1), ("a\n\nQ", 3), ("a E", 1), ("a EN ", 0), ("ENEN", 2), ("é\n", 1), ("", 0)];
        for (text, n) in cases {
            assert_eq!(held(text).may_begin_a_stop(), n, "{text:?}");
        }
    }
}
