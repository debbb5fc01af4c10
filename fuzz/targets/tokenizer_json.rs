//! `tokenizer.json`: read or refused; what was read turns any text into ids below its size and back, and is read
//! again from what it is written as.
//!
//! The text follows the file, after a byte 0.

#![no_main]

use ironlens_tokenizer::{Tokenize, Tokenizer};
use libfuzzer_sys::fuzz_target;

// As in `sentencepiece`: panics of the library behind are errors by the time they come here.
fuzz_target!(init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))), |input: &[u8]| {
    let mut parts = input.splitn(2, |&b| b == 0);
    let json = parts.next().unwrap_or_default();
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let Ok(tokenizer) = Tokenizer::from_json(json) else { return };
    let Ok(ids) = tokenizer.encode(&text, true) else { return };
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    let Ok(back) = tokenizer.decode(&ids, false) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    // What the library cannot write is refused when it is asked to.
    let Ok(()) = tokenizer.save_into(folder.path()) else { return };
    let again = Tokenizer::from_folder(folder.path()).expect("it was written here");
    assert_eq!(again.encode(&text, true).expect("as before"), ids);
    assert_eq!(again.decode(&ids, false).expect("as before"), back);
});
