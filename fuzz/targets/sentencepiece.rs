//! SentencePiece models: read or refused, and what was read turns any text into ids below its size and back.

#![no_main]

use ironlens_tokenizer::{Tokenize, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &str)| {
    let (model, text) = input;
    let Ok(tokenizer) = Tokenizer::from_sentencepiece_bytes(model) else { return };
    // A table of the normaliser may be wrong in a way that only a text shows: an error, no panic.
    let Ok(ids) = tokenizer.encode(text, true) else { return };
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    tokenizer.decode(&ids, false).expect("its own ids");
});
