//! TransformerLens's rules beyond the reference cases: tokenizers that add BOS themselves, left padding, odd sizes.

mod common;

use std::sync::Arc;

use common::{gpt2, gpt2_tokenizer, llama_model};
use ironlens_tokenizer::{
    Decoder, GgufVocabulary, HookedTokenizer, Occurrence, PaddingSide, TokenOptions, Tokenize, Tokenizer,
    TokenizerError,
};

fn llama() -> HookedTokenizer {
    HookedTokenizer::new(Tokenizer::from_sentencepiece_bytes(&llama_model()).unwrap()).unwrap()
}

fn small() -> HookedTokenizer {
    HookedTokenizer::new(gpt2_tokenizer()).unwrap()
}

fn ids(tokenizer: &HookedTokenizer, text: &str, prepend_bos: bool) -> Vec<u32> {
    tokenizer.to_tokens(text, &TokenOptions::prepend_bos(prepend_bos)).unwrap().ids
}

#[test]
fn bos_that_the_tokenizer_adds_is_there_once_or_cut() {
    let llama = llama();
    assert!(llama.tokenizer_prepends_bos() && !small().tokenizer_prepends_bos());
    let hi = llama.token_to_id("▁hi").unwrap();
    assert_eq!(ids(&llama, "hi", true), [1, hi]);
    assert_eq!(ids(&llama, "hi", false), [hi]);
    assert_eq!(ids(&llama, "", false), [0; 0]);
    assert_eq!(llama.to_single_token("hi").unwrap(), hi);
    // The context counts BOS, also where it is cut afterwards.
    let cut = llama.with_n_ctx(3);
    assert_eq!(ids(&cut, "hi hi hi hi", true), [1, hi, hi]);
    assert_eq!(ids(&cut, "hi hi hi hi", false), [hi, hi]);
    let whole = TokenOptions { truncate: false, ..TokenOptions::default() };
    assert_eq!(cut.to_tokens("hi hi hi hi", &whole).unwrap().columns, 5);
}

#[test]
fn what_the_tokenizer_adds_at_the_end_is_kept() {
    let vocabulary = GgufVocabulary { add_eos: Some(true), ..gpt2() };
    let tokenizer = HookedTokenizer::new(Tokenizer::from_gguf_parts(vocabulary).unwrap()).unwrap().with_n_ctx(3);
    assert!(tokenizer.tokenizer_prepends_bos(), "TransformerLens's rule: the empty text has ids");
    assert_eq!(ids(&tokenizer, "hi hi hi", false), [4, 5, 0]);
}

#[test]
fn defaults_are_the_tokenizer_s_and_calls_go_before() {
    let tokenizer = small().with_default_prepend_bos(false).with_padding_side(PaddingSide::Left);
    let tokens = tokenizer.to_tokens(["hi hi", "hi"], &TokenOptions::default()).unwrap();
    assert_eq!((tokens.row(0), tokens.row(1)), ([4, 5].as_slice(), [0, 4].as_slice()));
    assert_eq!(tokens.mask(1), [0, 1]);
    let right = TokenOptions { padding_side: Some(PaddingSide::Right), ..TokenOptions::prepend_bos(true) };
    let tokens = tokenizer.to_tokens(vec!["hi hi".to_owned(), "hi".to_owned()], &right).unwrap();
    assert_eq!((tokens.row(1), tokens.mask(1)), ([0, 4, 0].as_slice(), [1, 1, 0].as_slice()));
}

#[test]
fn bos_that_is_the_padding_token_is_attended_to() {
    let tokenizer = small();
    assert_eq!(tokenizer.attention_mask(&[0, 0, 0, 4], PaddingSide::Left, true), [0, 0, 1, 1]);
    assert_eq!(tokenizer.attention_mask(&[0, 0, 0, 4], PaddingSide::Left, false), [0, 0, 0, 1]);
    assert_eq!(tokenizer.attention_mask(&[4, 0, 4], PaddingSide::Left, true), [1, 1, 1]);
    assert_eq!(tokenizer.attention_mask(&[4, 0, 4, 0, 0], PaddingSide::Right, true), [1, 1, 1, 0, 0]);
    // Llama's padding is EOS and its BOS another.
    assert_eq!(llama().attention_mask(&[2, 2, 1, 7], PaddingSide::Left, true), [0, 0, 1, 1]);
}

#[test]
fn only_what_was_filled_is_padding() {
    let tokenizer = small();
    let mask = |texts: &[&str], side, prepend| {
        let options = TokenOptions { padding_side: Some(side), ..TokenOptions::prepend_bos(prepend) };
        let tokens = tokenizer.to_tokens(texts, &options).unwrap();
        (0..tokens.rows).map(|row| (tokens.row(row).to_vec(), tokens.mask(row).to_vec())).collect::<Vec<_>>()
    };
    // BOS, EOS and padding are the same token: a text may be nothing else, or begin or end with it.
    for side in [PaddingSide::Right, PaddingSide::Left] {
        assert_eq!(mask(&[""], side, true), [(vec![0], vec![1])]);
        assert_eq!(mask(&["hi<|endoftext|>"], side, true), [(vec![0, 4, 0], vec![1, 1, 1])]);
        assert_eq!(mask(&["<|endoftext|>hi"], side, false), [(vec![0, 4], vec![1, 1])]);
    }
    let texts = ["hi hi hi", "hi<|endoftext|>", ""];
    let right = mask(&texts, PaddingSide::Right, true);
    assert_eq!(right[1..], [(vec![0, 4, 0, 0], vec![1, 1, 1, 0]), (vec![0; 4], vec![1, 0, 0, 0])]);
    let left = mask(&texts, PaddingSide::Left, true);
    assert_eq!(left[1..], [(vec![0, 0, 4, 0], vec![0, 1, 1, 1]), (vec![0; 4], vec![0, 0, 0, 1])]);
}

#[test]
fn empty_batches_and_texts_are_no_special_case() {
    let tokenizer = small();
    let none: [&str; 0] = [];
    let tokens = tokenizer.to_tokens(none, &TokenOptions::default()).unwrap();
    assert_eq!((tokens.rows, tokens.columns, tokens.ids.len()), (0, 0, 0));
    let tokens = tokenizer.to_tokens(["", ""], &TokenOptions::prepend_bos(false)).unwrap();
    assert_eq!((tokens.rows, tokens.columns), (2, 0));
    assert!(tokens.row(1).is_empty());
}

#[test]
fn single_tokens_and_places_are_found_or_refused() {
    let tokenizer = small();
    let options = TokenOptions::default();
    let error = tokenizer.to_single_token("hi hi").unwrap_err();
    assert!(matches!(&error, TokenizerError::NotSingle { count: 2, .. }), "{error:?}");
    assert!(tokenizer.to_single_token("").is_err());
    let at = |token: &str, mode| tokenizer.get_token_position(token, "hi hi hi", mode, &options);
    assert_eq!(at(" hi", Occurrence::First).unwrap(), 2);
    assert_eq!(at(" hi", Occurrence::Last).unwrap(), 3);
    assert!(matches!(at("ab", Occurrence::First).unwrap_err(), TokenizerError::NotFound { token: 13, length: 4, .. }));
    let ids = [7, 8, 7];
    assert_eq!(tokenizer.get_token_position(7, ids.as_slice(), Occurrence::Last, &options).unwrap(), 2);
    assert_eq!(tokenizer.to_str_tokens(ids.as_slice(), &options).unwrap(), ["\u{FFFD}"; 3]);
    assert_eq!(tokenizer.to_single_str_token(5).unwrap(), " hi");
}

#[test]
fn a_bos_that_the_vocabulary_lacks_is_an_error_where_it_is_needed() {
    let tokens = ["a", "b", "ab"].map(str::to_owned).to_vec();
    let vocabulary = GgufVocabulary { tokens, token_types: vec![], merges: vec![], eos_id: None, ..gpt2() };
    let tokenizer = HookedTokenizer::new(Tokenizer::from_gguf_parts(vocabulary).unwrap()).unwrap();
    let special = tokenizer.special_tokens();
    assert_eq!(special.bos.as_ref().unwrap().text, "<|endoftext|>");
    assert_eq!((&special.bos, &special.pad), (&special.eos, &special.eos));
    let error = tokenizer.to_tokens("a", &TokenOptions::default()).unwrap_err();
    assert!(matches!(error, TokenizerError::NoSpecialToken { role: "BOS", .. }), "{error:?}");
    assert_eq!(ids(&tokenizer, "ab", false), [0, 1]);
    let error = tokenizer.to_tokens(["a", "ab"], &TokenOptions::prepend_bos(false)).unwrap_err();
    assert!(matches!(error, TokenizerError::NoSpecialToken { role: "padding", .. }), "{error:?}");
}

#[test]
fn ids_that_only_the_model_has_are_nothing_as_text() {
    let tokenizer = small();
    assert!(tokenizer.to_string(&[4, 14]).is_err());
    assert!(small().with_d_vocab(13).is_err());
    let padded = tokenizer.with_d_vocab(16).unwrap();
    assert_eq!((padded.d_vocab(), padded.vocab_size()), (16, 16));
    assert_eq!(padded.to_string(&[4, 14, 5]).unwrap(), "hi hi");
    assert!(padded.to_string(&[16]).is_err());
}

#[test]
fn running_text_is_cut_into_rows() {
    let tokenizer = small();
    // 20 chunks: each letter here is a chunk of its own, so nothing merges.
    let rows = tokenizer.tokenize_and_concatenate(["aaaa"], 3, true).unwrap();
    assert_eq!(rows, [[0, 11, 11], [0, 11, 11]]);
    let rows = tokenizer.tokenize_and_concatenate(["aaaa"], 3, false).unwrap();
    assert_eq!(rows, [[11, 11, 11]], "what fills no row is left out");
    let rows = tokenizer.tokenize_and_concatenate(["aaaa"], 6, false).unwrap();
    assert_eq!(rows, [[11, 11, 11, 11, 0, 0]], "unless there is no other");
    assert!(tokenizer.tokenize_and_concatenate([" ", "\n\x1f"].join(""), 4, true).unwrap().is_empty());
    assert!(matches!(tokenizer.tokenize_and_concatenate("a", 1, true), Err(TokenizerError::Argument(_))));
    // A chunk of 40 characters may grow by 4 to end at white space.
    let text = "ab ".repeat(267);
    let rows = tokenizer.tokenize_and_concatenate(text.as_str(), 10, false).unwrap();
    assert!(rows.iter().flatten().all(|id| [3, 13].contains(id)), "no word is cut: {rows:?}");
}

#[test]
fn streams_give_whole_characters_and_all_of_the_text() {
    let tokenizer = small();
    let mut decoder = Decoder::new(&tokenizer, true);
    let told: Vec<String> = [4, 6, 7, 8, 0, 5].iter().map(|&id| decoder.push(id).unwrap()).collect();
    assert_eq!(told, ["hi", "", "", "€", "", " hi"]);
    assert_eq!(decoder.finish().unwrap(), "");
    // What is never completed is told at the end.
    let mut decoder = Decoder::new(&tokenizer, true);
    assert_eq!((decoder.push(4).unwrap(), decoder.push(6).unwrap()), ("hi".to_owned(), String::new()));
    assert_eq!(decoder.finish().unwrap(), "\u{FFFD}");
    // Spaces at the beginning of words stay, though a word alone has none.
    let llama = llama();
    for text in ["hi hi  hi", "é hi é\n\nhi", " hi ", "a<s>hi</s> b"] {
        let ids = ids(&llama, text, true);
        let mut decoder = Decoder::new(&llama, false);
        let mut told: String = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
        told += &decoder.finish().unwrap();
        assert_eq!(told, llama.to_string(&ids).unwrap());
    }
}

#[test]
fn streams_of_any_ids_say_what_the_whole_says() {
    let mut state = 1u32;
    let mut random = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    // Llama's ids of single bytes are left out: see below.
    for (tokenizer, known) in [(small(), (0..14).collect()), (llama(), (0..3).chain(259..270).collect::<Vec<u32>>())] {
        for _ in 0..300 {
            let ids: Vec<u32> = (0..random(12)).map(|_| known[random(known.len() as u32) as usize]).collect();
            for skip_special in [false, true] {
                let mut decoder = Decoder::new(&tokenizer, skip_special);
                let mut told: String = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
                told += &decoder.finish().unwrap();
                assert_eq!(told, tokenizer.decode(&ids, skip_special).unwrap(), "{ids:?}");
            }
        }
    }
}

#[test]
fn broken_bytes_in_a_stream_lose_nothing_else() {
    let llama = llama();
    let byte = |byte: u32| 3 + byte;
    let hi = llama.token_to_id("▁hi").unwrap();
    let mut decoder = Decoder::new(&llama, false);
    let ids = [hi, byte(u32::from(b'e')), byte(0xC3), byte(0xA9), byte(0xFF), byte(0xC3), hi];
    let told: Vec<String> = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
    assert_eq!(told, ["hi", "e", "", "é", "", "", "\u{FFFD}\u{FFFD} hi"]);
}

#[test]
fn threads_share_one() {
    let tokenizer: Arc<dyn Tokenize> = Arc::new(small());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let tokenizer = tokenizer.clone();
            std::thread::spawn(move || tokenizer.encode("hi hi", false).unwrap())
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == [4, 5]));
}

/// Gemma 3 of text alone: its tokenizer has a token for pictures behind the last row of the model's embedding.
#[test]
fn added_tokens_may_be_beyond_the_model() {
    let json = br#"{ "version": "1.0", "model": { "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": [] },
        "added_tokens": [{ "id": 2, "content": "<picture>", "single_word": false, "lstrip": false, "rstrip": false,
                           "normalized": false, "special": true }] }"#;
    let tokenizer = || HookedTokenizer::new(Tokenizer::from_json(json).unwrap()).unwrap();
    let fitted = tokenizer().with_d_vocab(2).unwrap();
    assert_eq!(ids(&fitted, "ab", false), [0, 1]);
    let error = fitted.to_tokens("a<picture>", &TokenOptions::prepend_bos(false)).unwrap_err().to_string();
    assert!(error.contains("token id 2") && error.contains("below 2"), "{error}");
    assert_eq!(ids(&tokenizer(), "a<picture>", false), [0, 2]);
    assert!(tokenizer().with_d_vocab(1).is_err(), "a token of the text would have no row");
}

/// As transformers 4.57.6 (`decode`) and TransformerLens (`to_string`, which asks for all spaces).
#[test]
fn spaces_are_cleaned_up_where_a_folder_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = ["<|endoftext|>", "h", "i", "Ġ", ".", "'", "s"];
    let vocabulary = GgufVocabulary {
        tokens: tokens.map(str::to_owned).to_vec(),
        token_types: vec![3, 1, 1, 1, 1, 1, 1],
        merges: vec![],
        ..gpt2()
    };
    Tokenizer::from_gguf_parts(vocabulary).unwrap().save_into(folder.path()).unwrap();
    let text = "hi 's hi . ";
    for (cleans, cleaned) in [("false", text), ("true", "hi's hi. "), ("null", text)] {
        let config = format!(r#"{{"tokenizer_class": "GPT2Tokenizer", "clean_up_tokenization_spaces": {cleans}}}"#);
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        let plain = Tokenizer::from_folder(folder.path()).unwrap();
        let ids = plain.encode(text, false).unwrap();
        assert_eq!(plain.decode(&ids, false).unwrap(), cleaned);
        let hooked = HookedTokenizer::new(plain).unwrap();
        assert_eq!(
            (hooked.decode(&ids, true).unwrap(), hooked.to_string(&ids).unwrap()),
            (cleaned.into(), text.into())
        );
        let mut decoder = Decoder::new(&hooked, true);
        let mut told: String = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
        told += &decoder.finish().unwrap();
        assert_eq!(told, text);
    }
}
