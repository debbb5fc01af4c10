//! SentencePiece models: read or refused, and what was read turns any text into ids below its size and back.

#![no_main]

use ironlens_tokenizer::{Tokenize, Tokenizer};
use libfuzzer_sys::fuzz_target;

// Panics of the libraries behind are errors by the time they come here, but libfuzzer's own hook would end the
// process first; one of ours still ends it, when it leaves the target.
fuzz_target!(init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))), |input: (&[u8], &str)| {
    let (model, text) = input;
    let Ok(tokenizer) = Tokenizer::from_sentencepiece_bytes(model) else { return };
    // A table of the normaliser may be wrong in a way that only a text shows: an error, no panic.
    let Ok(ids) = tokenizer.encode(text, true) else { return };
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    tokenizer.decode(&ids, false).expect("its own ids");
});
