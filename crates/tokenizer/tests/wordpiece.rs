//! BERT's tokenizer against transformers' on odd texts (`golden/make_wordpiece.py`).

use std::fs;
use std::path::Path;

use ironlens_tokenizer::{EncoderTokenizer, Tokenize, Tokenizer};
use serde_json::{Value, json};

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wordpiece.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// A folder with `vocab.txt` and this configuration.
fn folder(golden: &Value, config: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tokens = golden["vocab"].as_array().unwrap().iter().map(|t| t.as_str().unwrap());
    let vocab: String = tokens.map(|token| format!("{token}\n")).collect();
    fs::write(folder.path().join("vocab.txt"), vocab).unwrap();
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn odd_texts_become_the_ids_that_transformers_gives() {
    let golden = golden();
    let texts: Vec<&str> = golden["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    assert!(texts.len() > 250);
    for case in golden["settings"].as_array().unwrap() {
        let (config, folder) = (&case["config"], folder(&golden, &case["config"]));
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        // As a tokenizer.json whose file says nothing of the setting, too.
        let saved = tempfile::tempdir().unwrap();
        tokenizer.save_into(saved.path()).unwrap();
        let again = Tokenizer::from_folder(saved.path()).unwrap();
        for (text, expected) in texts.iter().zip(case["ids"].as_array().unwrap()) {
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids(expected), "{text:?} with {config}");
            assert_eq!(again.encode(text, true).unwrap(), ids(expected), "{text:?} saved with {config}");
        }
        for (expected, encoded) in case["decoded"].as_array().unwrap().iter().zip(case["ids"].as_array().unwrap()) {
            assert_eq!(tokenizer.decode(&ids(encoded), false).unwrap(), expected.as_str().unwrap());
        }
    }
}

#[test]
fn the_settings_are_believed_before_tokenizer_json() {
    let golden = golden();
    let lower = folder(&golden, &json!({ "tokenizer_class": "BertTokenizer", "do_lower_case": true }));
    let saved = tempfile::tempdir().unwrap();
    Tokenizer::from_folder(lower.path()).unwrap().save_into(saved.path()).unwrap();
    let config = json!({ "tokenizer_class": "BertTokenizer", "do_lower_case": false });
    fs::write(saved.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let cased = &golden["settings"][1];
    assert_eq!(cased["config"], config);
    let tokenizer = Tokenizer::from_folder(saved.path()).unwrap();
    for (text, expected) in golden["texts"].as_array().unwrap().iter().zip(cased["ids"].as_array().unwrap()) {
        assert_eq!(tokenizer.encode(text.as_str().unwrap(), true).unwrap(), ids(expected), "{text}");
    }
}

#[test]
fn pairs_are_put_together_and_cut_as_transformers_does() {
    let golden = golden();
    let config = golden["settings"][3]["config"].clone();
    let folder = folder(&golden, &config);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let pairs = golden["pairs"].as_array().unwrap();
    assert!(pairs.len() >= 80);
    for pair in pairs {
        let (first, second) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        let length = pair[2].as_u64().map(|n| n as usize);
        let parts = tokenizer.encode_parts(first, Some(second), length).unwrap();
        assert_eq!((parts.ids, parts.types), (ids(&pair[3]), ids(&pair[4])), "{pair}");
        let one = tokenizer.encode_parts(first, None, length).unwrap();
        assert_eq!((one.types.iter().max(), one.ids), (Some(&0), ids(&pair[5])), "{pair}");
    }
}

#[test]
fn batches_are_padded_and_know_their_mask() {
    let golden = golden();
    let folder = folder(&golden, &json!({ "model_max_length": 9 }));
    let tokenizer = EncoderTokenizer::from_folder(folder.path()).unwrap();
    let batch = tokenizer.pairs_to_tokens(&[("the cat", "is"), ("hello", "the dog is [MASK] it it it")]).unwrap();
    assert_eq!((batch.tokens.rows, batch.tokens.columns), (2, 9));
    let text = |row| tokenizer.to_str_tokens(batch.tokens.row(row)).unwrap().join(" ");
    assert_eq!(text(0), "[CLS] the cat [SEP] is [SEP] [PAD] [PAD] [PAD]");
    assert_eq!(text(1), "[CLS] hello [SEP] the dog is [MASK] it [SEP]");
    assert_eq!(batch.tokens.mask(0), [1, 1, 1, 1, 1, 1, 0, 0, 0]);
    assert_eq!(batch.token_type_ids[..9], [0, 0, 0, 0, 1, 1, 0, 0, 0]);
    assert_eq!(batch.token_type_ids[9..], [0, 0, 0, 1, 1, 1, 1, 1, 1]);
    assert_eq!(tokenizer.mask().unwrap(), ("[MASK]", 4));
    assert_eq!((tokenizer.max_length(), tokenizer.clone().with_n_ctx(5).max_length()), (Some(9), Some(5)));
    // A model of more positions does not see more of a text.
    assert_eq!(tokenizer.with_n_ctx(512).max_length(), Some(9));
}

#[test]
fn a_vocabulary_without_its_special_tokens_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for missing in ["[UNK]", "[CLS]", "[SEP]"] {
        let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"].into_iter().filter(|t| *t != missing);
        fs::write(folder.path().join("vocab.txt"), tokens.collect::<Vec<_>>().join("\n")).unwrap();
        let text = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
        assert!(text.contains(missing) && text.contains("vocab.txt"), "{text}");
    }
    fs::write(folder.path().join("vocab.txt"), b"\xff\xfe").unwrap();
    assert!(Tokenizer::from_folder(folder.path()).unwrap_err().to_string().contains("UTF-8"));
    fs::write(folder.path().join("vocab.txt"), "").unwrap();
    assert!(Tokenizer::from_folder(folder.path()).is_err());
}
