//! BERT's tokenizer from a `vocab.txt`: words are cut into the longest pieces that the vocabulary has.
//!
//! How texts are cleaned and cut into words, and what is put around them, is that of transformers' `BertTokenizer`
//! (4.57), whose settings are read from `tokenizer_config.json`.

use serde_json::{Value, json};
use tokenizers::normalizers::BertNormalizer;

use crate::engine::Engine;
use crate::error::{Result, TokenizerError};
use crate::settings::Settings;

/// How `BertTokenizer` cleans texts: what it is told, or its defaults; a `tokenizer.json` that says otherwise is not
/// believed.
pub(crate) struct Cleaning {
    lowercase: bool,
    /// Whether accents go; as `lowercase` if it is not told.
    strip_accents: Option<bool>,
    /// Whether each CJK ideograph is a word.
    handle_chinese_chars: bool,
}

impl Cleaning {
    pub(crate) fn of(settings: &Settings) -> Cleaning {
        Cleaning {
            lowercase: settings.flag("do_lower_case").unwrap_or(true),
            strip_accents: settings.flag("strip_accents"),
            handle_chinese_chars: settings.flag("tokenize_chinese_chars").unwrap_or(true),
        }
    }

    /// `clean_text` is whether control characters go and all white space is a space.
    pub(crate) fn normalizer(&self, clean_text: bool) -> BertNormalizer {
        BertNormalizer::new(clean_text, self.handle_chinese_chars, self.strip_accents, self.lowercase)
    }
}

/// The setting that asks for [`clean_up`].
pub(crate) const CLEAN_UP: &str = "clean_up_tokenization_spaces";

/// A decoded text without the spaces that English has not: transformers' `clean_up_tokenization`.
pub(crate) fn clean_up(text: &str) -> String {
    let pairs = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    pairs.into_iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The pipeline of a `vocab.txt`, a token a line, whose number from 0 is its id.
pub(crate) fn build(vocab: &str, settings: &Settings) -> Result<Engine> {
    let vocab = vocab.replace("\r\n", "\n").replace('\r', "\n");
    let ids: serde_json::Map<String, Value> = vocab.split_terminator('\n').zip(0..).map(entry).collect();
    let token = |role: &str, token: &Option<tokenizers::AddedToken>| {
        let text = token.as_ref().map(|t| t.content.as_str()).unwrap_or_default();
        match ids.get(text).and_then(Value::as_u64) {
            Some(id) => Ok((text.to_owned(), id)),
            None => Err(TokenizerError::vocabulary(format!("it has no {role} token {text:?}, as every BERT has"))),
        }
    };
    let (unk, _) = token("unknown", &settings.unk)?;
    let (cls, cls_id) = token("first", &settings.cls)?;
    let (sep, sep_id) = token("separating", &settings.sep)?;
    let cleaning = Cleaning::of(settings);
    let special = |token: &str, part: u8| json!({ "SpecialToken": { "id": token, "type_id": part } });
    let text = |name: &str, part: u8| json!({ "Sequence": { "id": name, "type_id": part } });
    let entry = |token: &str, id: u64| json!({ "id": token, "ids": [id], "tokens": [token] });
    let one = [special(&cls, 0), text("A", 0), special(&sep, 0)];
    let two = [text("B", 1), special(&sep, 1)];
    let pipeline = json!({
        "version": "1.0",
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": cleaning.handle_chinese_chars,
            "strip_accents": cleaning.strip_accents, "lowercase": cleaning.lowercase,
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": {
            "type": "TemplateProcessing", "single": one, "pair": one.iter().chain(&two).collect::<Vec<_>>(),
            "special_tokens": { &cls: entry(&cls, cls_id), &sep: entry(&sep, sep_id) },
        },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    });
    let bytes = serde_json::to_vec(&pipeline).map_err(|e| TokenizerError::vocabulary(e.to_string()))?;
    Engine::from_json(&bytes)
}

/// A token that is there twice has the later id, as in a Python dictionary.
fn entry((token, id): (&str, u32)) -> (String, Value) {
    (token.to_owned(), json!(id))
}
