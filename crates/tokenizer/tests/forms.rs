//! The forms in which tokenizers come, each with a small one made here.

mod common;

use std::fs;
use std::path::Path;

use base64::Engine;
use common::{PLAIN, UNIGRAM, gpt2, gpt2_tokenizer, llama_model, sentencepiece, with_words};
use ironlens_tokenizer::{GgufVocabulary, TiktokenOptions, Tokenize, Tokenizer};

fn spelt(tokenizer: &Tokenizer, text: &str, add_special: bool) -> Vec<String> {
    let ids = tokenizer.encode(text, add_special).unwrap();
    ids.iter().map(|&id| tokenizer.id_to_token(id).unwrap()).collect()
}

#[test]
fn sentencepiece_bpe_merges_the_best_score_first() {
    let tokenizer = Tokenizer::from_sentencepiece_bytes(&llama_model()).unwrap();
    assert_eq!(spelt(&tokenizer, "hi", true), ["<s>", "▁hi"]);
    // "ab" has a better score than "bc".
    assert_eq!(spelt(&tokenizer, "abc", false), ["▁", "ab", "c"]);
    // A space is put before the text, also before one that has some.
    assert_eq!(spelt(&tokenizer, " hi", false), ["▁", "▁hi"]);
    assert_eq!(spelt(&tokenizer, "", false), [""; 0]);
    // What has no piece is bytes, and comes back.
    assert_eq!(spelt(&tokenizer, "é", false), ["▁", "<0xC3>", "<0xA9>"]);
    for text in ["hi abc", "  hi", "é\n", "a<s>b", "\0"] {
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap().replace("<s> ", "<s>"), text);
    }
    assert_eq!(tokenizer.special_tokens().bos.as_ref().unwrap().id, Some(1));
    assert_eq!(tokenizer.special_tokens().unk.as_ref().unwrap().text, "<unk>");
}

#[test]
fn sentencepiece_unigram_takes_the_likeliest_division() {
    let pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("▁a", -1.0, 1), ("b", -2.0, 1)];
    let more = [("▁ab", -4.0, 1), ("a", -3.0, 1), ("▁", -3.0, 1), ("<x>", 0.0, 4)];
    // This normaliser drops extra spaces, as it does unless it is told.
    let file = sentencepiece(&[pieces.as_slice(), &more].concat(), UNIGRAM, &[]);
    let tokenizer = Tokenizer::from_sentencepiece_bytes(&file).unwrap();
    assert_eq!(spelt(&tokenizer, "ab", false), ["▁a", "b"]);
    assert_eq!(spelt(&tokenizer, "  ab   ab  ", false), ["▁a", "b", "▁a", "b"]);
    // Unknown text is one token, however long; what the user defined is found first.
    assert_eq!(spelt(&tokenizer, "azzz", false), ["▁a", "<unk>"]);
    assert_eq!(spelt(&tokenizer, "a<x>", false), ["▁a", "<x>"]);
}

#[test]
fn sentencepiece_settings_are_kept() {
    let pieces = [("<unk>", 0.0, 2), ("a", -1.0, 1), ("▁a", -1.0, 1), ("▁", -9.0, 1)];
    let bare = sentencepiece(&pieces, UNIGRAM, &[0x18, 0, 0x20, 0]);
    let tokenizer = Tokenizer::from_sentencepiece_bytes(&bare).unwrap();
    assert_eq!(spelt(&tokenizer, "a", true), ["a"], "no space before the text, and no BOS, which it lacks");
    let suffixed = sentencepiece(&pieces, &[0x18, 1, 0xC0, 0x01, 1], PLAIN);
    let error = Tokenizer::from_sentencepiece_bytes(&suffixed).unwrap_err().to_string();
    assert!(error.contains("spaces at the end of words"), "{error}");
    let words = sentencepiece(&pieces, &[0x18, 3], PLAIN);
    assert!(Tokenizer::from_sentencepiece_bytes(&words).unwrap_err().to_string().contains("words"));
}

/// A normaliser that puts no space before texts and removes those that are too many, with a table that is none.
const UNUSED_NORMALIZER: &[u8] = &[0x12, 2, 0xFF, 0xFF, 0x18, 0, 0x20, 1];

/// Tokens and text of some texts as transformers 4.57.6 gives them for the same files, but for the table, which it
/// reads as little.
#[test]
fn llama_s_and_gemma_s_classes_obey_their_own_settings() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let all = |text: &str| {
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        let ids = tokenizer.encode(text, true).unwrap();
        let spelt: Vec<_> = ids.iter().map(|&id| tokenizer.id_to_token(id).unwrap()).collect();
        (spelt[1..].join("|"), tokenizer.decode(&ids, true).unwrap())
    };
    let is = |text: &str, tokens: &str, decoded: &str| assert_eq!(all(text), (tokens.to_owned(), decoded.to_owned()));
    let llama = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)];
    write("tokenizer.model", &with_words(&llama, UNUSED_NORMALIZER));
    write("tokenizer_config.json", br#"{"tokenizer_class": "LlamaTokenizer"}"#);
    is("hi  abc ", "▁hi|▁▁|ab|c|▁", "hi  abc ");
    is(" hi", "▁|▁hi", " hi");
    is("hi<s>hi", "▁hi|<s>|▁hi", "hi hi");
    write("tokenizer_config.json", br#"{"tokenizer_class": "LlamaTokenizer", "legacy": false}"#);
    is(" hi", "▁hi", "hi");
    is("hi<s>hi", "▁hi|<s>|h|i", "hihi");
    for told in ["false", "null"] {
        let config = format!(r#"{{"tokenizer_class": "LlamaTokenizer", "add_prefix_space": {told}}}"#);
        write("tokenizer_config.json", config.as_bytes());
        is("hi  abc ", "h|i|▁▁|ab|c|▁", "hi  abc ");
        is(" hi", "▁hi", " hi");
        is("hi<s>hi", "h|i|<s>|h|i", "hihi");
    }
    let gemma =
        [("<pad>", 0.0, 3), ("<eos>", 0.0, 3), ("<bos>", 0.0, 3), ("<unk>", 0.0, 2), ("<start_of_turn>", 0.0, 4)];
    write("tokenizer.model", &with_words(&gemma, &[0x18, 1, 0x20, 1]));
    write("tokenizer_config.json", br#"{"tokenizer_class": "GemmaTokenizer"}"#);
    is("hi  abc ", "h|i|▁▁|ab|c|▁", "hi  abc ");
    is(" hi", "▁hi", " hi");
    is("<start_of_turn>hi", "<start_of_turn>|h|i", "hi");
    is("\t", "\t", "\t");
}

#[test]
fn llama_s_class_reads_its_model_where_it_is_told_of_the_space_before_texts() {
    let folder = tempfile::tempdir().unwrap();
    gpt2_tokenizer().save_into(folder.path()).unwrap();
    fs::write(folder.path().join("tokenizer.model"), llama_model()).unwrap();
    let vocab_size = |config: &str| {
        fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::from_folder(folder.path()).unwrap().divided_vocab_size()
    };
    let of_json = gpt2_tokenizer().divided_vocab_size();
    let of_model = Tokenizer::from_sentencepiece_bytes(&llama_model()).unwrap().divided_vocab_size();
    for (class, told, size) in [
        ("LlamaTokenizer", "true", of_model),
        ("LlamaTokenizerFast", "false", of_model),
        ("LlamaTokenizer", "null", of_json),
        ("CodeLlamaTokenizer", "true", of_json),
        ("GPT2Tokenizer", "true", of_json),
    ] {
        assert_eq!(
            vocab_size(&format!(r#"{{"tokenizer_class": "{class}", "add_prefix_space": {told}}}"#)),
            size,
            "{class}"
        );
    }
    assert_eq!(vocab_size(r#"{"tokenizer_class": "LlamaTokenizer"}"#), of_json);
    fs::remove_file(folder.path().join("tokenizer.model")).unwrap();
    assert_eq!(vocab_size(r#"{"tokenizer_class": "LlamaTokenizer", "add_prefix_space": true}"#), of_json);
}

fn ranks() -> String {
    let tokens: [&[u8]; 7] = [b"a", b"b", b"c", b" ", b"\xE2", b"bc", b"ab"];
    let line = |(token, rank): (&&[u8], usize)| {
        format!("{} {rank}\n", base64::engine::general_purpose::STANDARD.encode(token))
    };
    tokens.iter().zip(0..).map(line).collect()
}

#[test]
fn tiktoken_merges_the_lowest_rank_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.tiktoken");
    fs::write(&path, ranks()).unwrap();
    let special = vec![("<|endoftext|>".to_owned(), 9)];
    let options = TiktokenOptions { pattern: Some("gpt2".to_owned()), special };
    let tokenizer = Tokenizer::from_tiktoken_file(&path, &options).unwrap();
    assert_eq!(tokenizer.encode("abc ab<|endoftext|>", true).unwrap(), [0, 5, 3, 6, 9]);
    assert_eq!(tokenizer.decode(&[0, 4, 9], true).unwrap(), "a\u{FFFD}");
    assert_eq!(tokenizer.special_tokens().eos.as_ref().unwrap().id, Some(9));
    // A folder with that file alone, and with it under Llama 3's name.
    assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().encode("abc", true).unwrap(), [0, 5]);
    fs::rename(&path, folder.path().join("tokenizer.model")).unwrap();
    assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().encode("abc", true).unwrap(), [0, 5]);
}

#[test]
fn gguf_says_what_is_put_around_texts() {
    let llama = GgufVocabulary {
        model: "llama".to_owned(),
        tokens: ["<unk>", "<s>", "</s>", "▁", "a", "▁a"].map(str::to_owned).to_vec(),
        scores: vec![0.0, 0.0, 0.0, -3.0, -2.0, -1.0],
        token_types: vec![2, 3, 3, 1, 1, 1],
        bos_id: Some(1),
        eos_id: Some(2),
        ..GgufVocabulary::default()
    };
    let ids = |vocabulary: &GgufVocabulary| {
        Tokenizer::from_gguf_parts(vocabulary.clone()).unwrap().encode("a", true).unwrap()
    };
    assert_eq!(ids(&llama), [1, 5]);
    assert_eq!(ids(&GgufVocabulary { add_bos: Some(false), add_eos: Some(true), ..llama.clone() }), [5, 2]);
    assert_eq!(ids(&GgufVocabulary { add_space_prefix: Some(false), ..llama }), [1, 4]);
    assert_eq!(gpt2_tokenizer().encode("hi hi", true).unwrap(), [4, 5]);
}

/// As llama.cpp has it, whatever kind a token has; but Gemma's "</s>" is a word of HTML.
#[test]
fn gguf_s_tokens_end_texts_by_role_or_spelling() {
    let ends = |tokens: &[&str], kinds: &[i32]| {
        let vocabulary = GgufVocabulary {
            tokens: tokens.iter().map(|&token| token.to_owned()).collect(),
            token_types: kinds.to_vec(),
            merges: vec![],
            eos_id: Some(0),
            eom_id: Some(1),
            ..gpt2()
        };
        let mut ends = Tokenizer::from_gguf_parts(vocabulary).unwrap().special_tokens().ends.clone();
        ends.sort_unstable();
        ends
    };
    let spelt = ["a", "b", "<|im_end|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "[EOT]", "c"];
    assert_eq!(ends(&spelt, &[1; 7]), [0, 1, 2, 3, 4, 5]);
    assert_eq!(ends(&spelt, &[]), [0, 1, 2, 3, 4, 5]);
    assert_eq!(ends(&["a", "b", "</s>", "</s>"], &[1, 1, 4, 3]), [0, 1, 3]);
    // In formats with channels "<|end|>" ends a message, and the answer goes on.
    assert_eq!(ends(&["a", "b", "<|end|>"], &[]), [0, 1, 2]);
    assert_eq!(ends(&["a", "b", "<|end|>", "<|return|>", "<|call|>"], &[]), [0, 1, 3, 4]);
}

#[test]
fn gguf_that_contradicts_itself_is_refused() {
    let wrong = [
        (GgufVocabulary { pre: Some("nobody-knows".to_owned()), ..gpt2() }, "tokenizer.ggml.pre"),
        (GgufVocabulary { model: "bert".to_owned(), ..gpt2() }, "\"bert\""),
        (GgufVocabulary { merges: vec!["h z".to_owned()], ..gpt2() }, "not of two tokens"),
        (GgufVocabulary { merges: vec!["i h".to_owned()], ..gpt2() }, "ih"),
        (GgufVocabulary { token_types: vec![1], ..gpt2() }, "14 tokens and 1 token types"),
        (GgufVocabulary { token_types: vec![9; 14], ..gpt2() }, "kind 9"),
        (GgufVocabulary { eos_id: Some(14), ..gpt2() }, "eos_token_id is 14"),
        (GgufVocabulary { model: "llama".to_owned(), scores: vec![f32::NAN; 14], ..gpt2() }, "score of token 0"),
        (GgufVocabulary::default(), "tokenizer.ggml.model"),
    ];
    for (vocabulary, word) in wrong {
        let error = Tokenizer::from_gguf_parts(vocabulary).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    // Known neither as a list of nothing.
    let empty = GgufVocabulary { tokens: vec![], token_types: vec![], merges: vec![], eos_id: None, ..gpt2() };
    assert!(Tokenizer::from_gguf_parts(empty).is_err());
}

/// What a tokenizer makes of texts, and what it says of itself.
fn outcome(tokenizer: &Tokenizer) -> String {
    let texts = ["hi abc", " hi<s> hi", "<|endoftext|>é\n", ""];
    let ids: Vec<_> = texts.iter().map(|text| tokenizer.encode(text, true).unwrap()).collect();
    let text: Vec<_> = ids.iter().map(|ids| tokenizer.decode(ids, true).unwrap()).collect();
    format!("{ids:?} {text:?} {:?} {:?}", tokenizer.special_tokens(), tokenizer.chat_templates())
}

#[test]
fn what_is_saved_is_read_again() {
    let llama = Tokenizer::from_sentencepiece_bytes(&llama_model()).unwrap();
    let template = Some("{{ messages }}".to_owned());
    let chatty = Tokenizer::from_gguf_parts(GgufVocabulary { chat_template: template, ..gpt2() }).unwrap();
    for tokenizer in [llama, chatty, gpt2_tokenizer()] {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("new");
        tokenizer.save_into(&inside).unwrap();
        assert_eq!(outcome(&Tokenizer::from_folder(&inside).unwrap()), outcome(&tokenizer));
        // Once more, over what is there.
        Tokenizer::from_folder(&inside).unwrap().save_into(&inside).unwrap();
        assert_eq!(outcome(&Tokenizer::from_folder(&inside).unwrap()), outcome(&tokenizer));
    }
}

fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    gpt2_tokenizer().save_into(folder.path()).unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn the_class_decides_over_bos_and_the_configuration_over_roles() {
    let roles = r#""bos_token": "<|endoftext|>", "eos_token": {"content": "<|endoftext|>"}, "unk_token": null"#;
    for (config, ids) in [
        (r#"{"tokenizer_class": "LlamaTokenizer", ROLES}"#, vec![0, 4]),
        (r#"{"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": false, ROLES}"#, vec![4]),
        (r#"{"tokenizer_class": "LlamaTokenizer", "add_eos_token": true, ROLES}"#, vec![0, 4, 0]),
        (r#"{"tokenizer_class": "GPT2Tokenizer", "add_bos_token": true, ROLES}"#, vec![4]),
    ] {
        let folder = folder_with(&[("tokenizer_config.json", &config.replace("ROLES", roles))]);
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(tokenizer.encode("hi", true).unwrap(), ids, "{config}");
        assert_eq!(tokenizer.special_tokens().unk, None, "{config}");
        assert_eq!(tokenizer.special_tokens().eos.as_ref().unwrap().id, Some(0), "{config}");
    }
    // Without a configuration, the kind of model says the class.
    let of_kind = |kind: &str| {
        let folder = folder_with(&[("config.json", &format!(r#"{{"model_type": "{kind}"}}"#))]);
        fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
        let special = Tokenizer::from_folder(folder.path()).unwrap().special_tokens().clone();
        [special.bos, special.eos, special.pad].map(|role| role.map(|token| token.text))
    };
    let end = || Some("<|endoftext|>".to_owned());
    for kind in ["gpt2", "starcoder2", "olmo2"] {
        assert_eq!(of_kind(kind), [end(), end(), None], "{kind}");
    }
    assert_eq!(of_kind("qwen3_moe"), [None, end(), end()]);
    assert_eq!(of_kind("phi3")[0], Some("<s>".to_owned()));
}

#[test]
fn tokens_that_the_vocabulary_lacks_get_ids_behind_it() {
    let config = r#"{"pad_token": "[PAD]", "additional_special_tokens": ["<turn>"]}"#;
    let folder = folder_with(&[("tokenizer_config.json", config)]);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.special_tokens().pad.as_ref().unwrap().id, Some(14));
    assert_eq!(tokenizer.encode("hi<turn>[PAD]", true).unwrap(), [4, 15, 14]);
    assert_eq!(tokenizer.vocab_size(), 16);
    assert_eq!(tokenizer.decode(&[4, 15], true).unwrap(), "hi");
}

#[test]
fn vocab_and_merges_are_gpt2_s() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vocab.json"), r#"{"h": 0, "i": 1, "hi": 2, "<|endoftext|>": 3}"#).unwrap();
    fs::write(folder.path().join("merges.txt"), "#version: 0.2\nh i\n").unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("hi<|endoftext|>h", true).unwrap(), [2, 3, 0]);
    assert_eq!(tokenizer.special_tokens().bos.as_ref().unwrap().id, Some(3));
    let config = r#"{"tokenizer_class": "GPT2Tokenizer", "add_bos_token": true}"#;
    fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().encode("hi", true).unwrap(), [3, 2]);
}

#[test]
fn a_space_before_the_first_word_is_kept_in_a_folder() {
    let json = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": {"a": 0, "Ġ": 1}, "merges": []}}"#;
    let tokenizer = Tokenizer::from_json(json.as_bytes()).unwrap();
    assert_eq!(spelt(&tokenizer, "a a", true), ["Ġ", "a", "Ġ", "a"]);
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save_into(folder.path()).unwrap();
    let again = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(spelt(&again, "a a", true), ["Ġ", "a", "Ġ", "a"]);
}

#[test]
fn tokens_that_were_added_are_read_from_their_own_file_in_older_folders() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("vocab.json", r#"{"h": 0, "i": 1, "hi": 2, "<|endoftext|>": 3}"#);
    write("merges.txt", "#version: 0.2\nh i\n");
    write("added_tokens.json", r#"{"<|user|>": 5, "<|pad|>": 4}"#);
    write("special_tokens_map.json", r#"{"pad_token": "<|pad|>"}"#);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("hi<|user|>hi<|pad|>", true).unwrap(), [2, 5, 2, 4]);
    assert_eq!(tokenizer.decode(&[2, 5, 4], true).unwrap(), "hi<|user|>", "one has a role, the other is text");
    // A newer folder says them elsewhere.
    write("tokenizer_config.json", r#"{"added_tokens_decoder": {"4": {"content": "<|pad|>", "special": true}}}"#);
    let newer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(newer.encode("<|pad|>", true).unwrap(), [4]);
    assert_ne!(newer.encode("<|user|>", true).unwrap(), [5]);
}

#[test]
fn the_first_qwen_has_its_special_tokens_behind_the_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    // "h", "i" and "hi".
    write("qwen.tiktoken", "aA== 0\naQ== 1\naGk= 2\n");
    write("tokenizer_config.json", r#"{"tokenizer_class": "QWenTokenizer"}"#);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("<|im_start|>hi<|im_end|><|endoftext|>", true).unwrap(), [4, 2, 5, 3]);
    assert_eq!(tokenizer.encode("<|extra_204|>", true).unwrap(), [210]);
    assert_eq!(tokenizer.special_tokens().eos.as_ref().unwrap().id, Some(3));
}
