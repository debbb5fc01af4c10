//! Files and ids that are wrong are errors that say so, and nothing panics.

mod common;

use std::fs;

use common::{gpt2_tokenizer, llama_model};
use ironlens_tokenizer::{Decoder, TiktokenOptions, Tokenize, Tokenizer, TokenizerError};

fn json() -> String {
    let folder = tempfile::tempdir().unwrap();
    gpt2_tokenizer().save_into(folder.path()).unwrap();
    fs::read_to_string(folder.path().join("tokenizer.json")).unwrap()
}

#[test]
fn a_tokenizer_json_that_is_none_is_refused_with_its_path() {
    let whole = json();
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let model = |model: &str| {
        format!(
            r#"{{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
                "post_processor": null, "decoder": null, "model": {model}}}"#
        )
    };
    let cases = [
        whole[..whole.len() / 2].to_owned(),
        String::new(),
        "no json".to_owned(),
        "[1, 2]".to_owned(),
        "{}".to_owned(),
        r#"{"model": {"type": "BPE", "vocab": 3}}"#.to_owned(),
        model(r#"{"type": "BPE", "vocab": {}, "merges": []}"#),
        model(r#"{"type": "BPE", "vocab": {"a": 4294967295}, "merges": []}"#),
        model(r#"{"type": "BPE", "vocab": {"a": -1}, "merges": []}"#),
        model(r#"{"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}"#),
        model(r#"{"type": "Unigram", "unk_id": 7, "vocab": [["a", 0.0]]}"#),
        model(&format!(r#"{{"type": "BPE", "vocab": {nested}, "merges": []}}"#)),
        nested,
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    for case in cases {
        fs::write(&path, &case).unwrap();
        let error = Tokenizer::from_folder(folder.path()).unwrap_err();
        let start: String = case.chars().take(60).collect();
        assert!(matches!(error, TokenizerError::Format { .. }), "{start}: {error:?}");
        assert!(error.to_string().contains("tokenizer.json"), "{start}: {error}");
    }
    fs::write(&path, [b'"', 0xFF]).unwrap();
    assert!(Tokenizer::from_folder(folder.path()).is_err());
}

#[test]
fn files_beside_it_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    gpt2_tokenizer().save_into(folder.path()).unwrap();
    for (name, text) in [
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("special_tokens_map.json", "null"),
        ("config.json", "x"),
    ] {
        let path = folder.path().join(name);
        let before = fs::read(&path).ok();
        fs::write(&path, text).unwrap();
        let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        match before {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    fs::write(folder.path().join("chat_template.jinja"), [0xFF]).unwrap();
    assert!(Tokenizer::from_folder(folder.path()).unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn folders_without_a_tokenizer_say_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_folder(folder.path()).unwrap_err();
    assert!(matches!(error, TokenizerError::NoTokenizer { .. }));
    assert!(error.to_string().contains("vocab.json with merges.txt"), "{error}");
    assert!(Tokenizer::from_folder(folder.path().join("nowhere")).is_err());
    fs::write(folder.path().join("vocab.json"), r#"{"a": 0}"#).unwrap();
    fs::write(folder.path().join("merges.txt"), "#version: 0.2\nalone\n").unwrap();
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("merges.txt") && error.contains("line 2"), "{error}");
    fs::write(folder.path().join("vocab.json"), r#"{"a": "b"}"#).unwrap();
    assert!(Tokenizer::from_folder(folder.path()).unwrap_err().to_string().contains("vocab.json"));
}

#[test]
fn a_sentencepiece_model_cut_anywhere_is_read_or_refused() {
    let whole = llama_model();
    let read = |bytes: &[u8]| Tokenizer::from_sentencepiece_bytes(bytes).is_ok();
    assert!(read(&whole));
    let mut refused = 0;
    for end in (0..whole.len()).step_by(7) {
        refused += usize::from(!read(&whole[..end]));
    }
    assert!(refused > 300, "{refused}");
    for place in (0..whole.len()).step_by(11) {
        let mut changed = whole.clone();
        changed[place] ^= 0x55;
        let _ = read(&changed);
    }
    assert!(!read(b"version https://git-lfs.github.com/spec/v1\n"));
    let folder = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_sentencepiece_file(folder.path().join("none.model")).unwrap_err().to_string();
    assert!(error.contains("none.model"), "{error}");
}

#[test]
fn ranks_that_are_none_are_refused_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tiktoken");
    let cases =
        ["YQ== 0\nYg==\n", "YQ== 0\n!! 1\n", "YQ== 0\nYg== 1 2\n", "YQ== 0\nYg== x\n", "YQ== 0\nYg== 4294967295\n"];
    for text in cases {
        fs::write(&path, text).unwrap();
        let error = Tokenizer::from_tiktoken_file(&path, &TiktokenOptions::default()).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("x.tiktoken"), "{error}");
    }
    for text in ["", "YQ== 0\nYQ== 1\n"] {
        fs::write(&path, text).unwrap();
        assert!(Tokenizer::from_tiktoken_file(&path, &TiktokenOptions::default()).is_err(), "{text:?}");
    }
    fs::write(&path, "YQ== 0\n").unwrap();
    let broken = TiktokenOptions { pattern: Some("(".to_owned()), special: vec![] };
    assert!(Tokenizer::from_tiktoken_file(&path, &broken).is_err());
}

#[test]
fn ids_beyond_the_vocabulary_are_errors() {
    let tokenizer = gpt2_tokenizer();
    for id in [14, 1000, u32::MAX] {
        let error = tokenizer.decode(&[4, id], false).unwrap_err();
        assert!(matches!(error, TokenizerError::UnknownId { vocab_size: 14, .. }), "{error:?}");
        assert!(error.to_string().contains(&id.to_string()), "{error}");
    }
    let mut decoder = Decoder::new(&tokenizer, false);
    assert_eq!(decoder.push(4).unwrap(), "hi");
    assert!(decoder.push(99).is_err());
    assert_eq!(decoder.push(5).unwrap(), " hi", "as if the wrong id had not been given");
}

#[test]
fn any_text_goes_in_and_lone_bytes_come_out_as_marks() {
    let tokenizer = Tokenizer::from_sentencepiece_bytes(&llama_model()).unwrap();
    let long = "\0 \n".repeat(5000);
    for text in ["\0", "a\0b", "\u{FEFF}", "\u{10FFFF}", long.as_str()] {
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
    let gpt2 = gpt2_tokenizer();
    assert_eq!(gpt2.decode(&[6, 7, 8], false).unwrap(), "€");
    assert_eq!(gpt2.decode(&[6, 7], false).unwrap(), "\u{FFFD}");
}

#[test]
fn two_tokens_of_one_id_are_not_written() {
    let vocabulary = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 0, "ab": 2}, "merges": ["a b"]}}"#;
    let tokenizer = Tokenizer::from_json(vocabulary.as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = tokenizer.save_into(folder.path().join("saved")).unwrap_err();
    assert!(matches!(error, TokenizerError::Vocabulary { .. }), "{error:?}");
    assert!(error.to_string().contains(r#""a" and "b" have the same id 0"#), "{error}");
    assert!(!folder.path().join("saved").exists(), "nothing is half-written");
}
