//! Rows of ids for training, out of a running text.

use crate::error::{Result, TokenizerError};
use crate::hooked::HookedTokenizer;
use crate::prompt::Texts;
use crate::tokenize::Tokenize;

impl HookedTokenizer {
    /// Rows of `max_length` ids out of a running text: TransformerLens's `tokenize_and_concatenate`, in one process.
    ///
    /// Each thousand texts are joined by EOS and cut into 20 chunks of about one length, at white space if there is
    /// some within a tenth of it; the chunks are tokenized alone, padding tokens dropped (which are the EOS tokens
    /// too, if they are the same), and what fills no row is left out, unless there is no other row: then it is filled
    /// with padding. `add_bos` puts BOS first in each row.
    ///
    /// # Errors
    /// If BOS or padding is needed and is not in the vocabulary, or `max_length` has no room for text.
    pub fn tokenize_and_concatenate(
        &self,
        texts: impl Texts,
        max_length: usize,
        add_bos: bool,
    ) -> Result<Vec<Vec<u32>>> {
        let length = max_length.saturating_sub(usize::from(add_bos));
        if length == 0 {
            let reason = format!("rows of {max_length} tokens have no room for text; give at least 2");
            return Err(TokenizerError::Argument(reason));
        }
        let pad = self.pad()?;
        let bos = if add_bos { Some(self.bos()?.1) } else { None };
        let eos = self.special_tokens().eos.as_ref().map_or("", |token| &token.text);
        let mut rows = Vec::new();
        for batch in texts.texts().chunks(1000) {
            let text = batch.join(eos);
            if text.chars().all(is_space) {
                continue;
            }
            let mut ids = Vec::new();
            for chunk in chunks(&text) {
                ids.extend(self.encode(chunk, true)?);
            }
            ids.retain(|&id| id != pad);
            if ids.len() < length {
                ids.resize(length, pad);
            }
            rows.extend(ids.chunks_exact(length).map(|row| bos.iter().chain(row).copied().collect()));
        }
        Ok(rows)
    }
}

/// What Python's `str.isspace` takes for white space.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// 20 chunks, the last ones maybe empty. Lengths count characters.
fn chunks(text: &str) -> Vec<&str> {
    const CHUNKS: usize = 20;
    let length = text.chars().count().saturating_sub(1) / CHUNKS + 1;
    let mut rest = text;
    let mut chunks = Vec::with_capacity(CHUNKS);
    for _ in 0..CHUNKS {
        // A chunk grows by at most a tenth, to end before white space.
        let mut places = rest.char_indices().skip(length).zip(0..);
        let end = places.find(|((_, c), grown)| *grown == length / 10 || is_space(*c));
        let end = end.map_or(rest.len(), |((place, _), _)| place);
        let (chunk, after) = rest.split_at(end);
        chunks.push(chunk);
        rest = after;
    }
    chunks
}
