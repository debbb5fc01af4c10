//! Files of ranks: read or refused, and what was read turns any text into ids below its size and back.
//!
//! The text follows the file, after a byte 0.

#![no_main]

use ironlens_tokenizer::{TiktokenOptions, Tokenize, Tokenizer};
use libfuzzer_sys::fuzz_target;

// As in `sentencepiece`: panics of the library behind are errors by the time they come here.
fuzz_target!(init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))), |input: &[u8]| {
    let mut parts = input.splitn(2, |&b| b == 0);
    let ranks = parts.next().unwrap_or_default();
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), ranks).expect("a temporary file");
    let special = TiktokenOptions { special: vec![("<|end|>".to_owned(), 300)], pattern: None };
    for options in [TiktokenOptions::default(), special] {
        let Ok(tokenizer) = Tokenizer::from_tiktoken_file(file.path(), &options) else { continue };
        let ids = tokenizer.encode(&text, true).expect("any text is cut into bytes");
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        tokenizer.decode(&ids, false).expect("its own ids");
    }
});
