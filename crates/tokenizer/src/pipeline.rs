//! Pipelines for vocabularies that come in other forms than `tokenizer.json`: byte-level BPE, SentencePiece's pieces.
//!
//! What surrounds the model is told as that file tells it; the model itself, which is large, is built directly.

use serde_json::{Value, json};
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::{AddedToken, ModelWrapper};

use crate::engine::{Engine, guarded};
use crate::error::{Result, TokenizerError};

/// A pair of tokens that become one; earlier pairs first.
pub(crate) type Merge = (String, String);

type Vocab = tokenizers::models::bpe::Vocab;

/// A token that is found in a text before everything else.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its text, which is in the vocabulary.
    pub text: String,
    /// Left out when special tokens are skipped.
    pub special: bool,
}

/// Byte-level BPE (GPT-2's), spelt in the alphabet of [`crate::bytes`].
#[derive(Debug, Default)]
pub(crate) struct ByteLevelBpe {
    pub vocab: Vec<(String, u32)>,
    pub merges: Vec<Merge>,
    pub found: Vec<Found>,
    /// Expressions that cut a text into words, one after the other.
    pub cuts: Vec<String>,
    pub ignore_merges: bool,
    pub add_prefix_space: bool,
    /// Characters are composed first (Unicode's form C).
    pub compose: bool,
}

impl ByteLevelBpe {
    pub(crate) fn build(self) -> Result<Engine> {
        let mut steps: Vec<Value> = self.cuts.iter().map(|cut| split(cut)).collect();
        let byte_level = |use_regex| {
            json!({
                "type": "ByteLevel", "add_prefix_space": self.add_prefix_space, "trim_offsets": false,
                "use_regex": use_regex,
            })
        };
        steps.push(byte_level(false));
        let surroundings = json!({
            "version": "1.0",
            "normalizer": self.compose.then(|| json!({ "type": "NFC" })),
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": steps },
            "post_processor": byte_level(false),
            "decoder": byte_level(false),
            "model": no_model(),
        });
        let model = BPE::builder()
            .vocab_and_merges(self.vocab.into_iter().collect::<Vocab>(), self.merges)
            .ignore_merges(self.ignore_merges);
        build(surroundings, || model.build().map(ModelWrapper::from), &self.found)
    }
}

/// A cut at matches of an expression, which are pieces of their own, as what lies between them is.
fn split(expression: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": expression }, "behavior": "Isolated", "invert": false })
}

/// How SentencePiece divides a text.
#[derive(Debug)]
pub(crate) enum Division {
    Bpe(Vec<Merge>),
    /// The most likely division; the score of each piece is its log-probability.
    Unigram,
}

/// SentencePiece, the spaces of whose pieces are U+2581.
#[derive(Debug)]
pub(crate) struct Pieces {
    /// Text and score; ids are places in the list.
    pub vocab: Vec<(String, f64)>,
    pub division: Division,
    pub found: Vec<Found>,
    pub unk: Option<u32>,
    pub byte_fallback: bool,
    /// A space before the text, and after each token that is found in it.
    pub dummy_prefix: bool,
    /// Otherwise the space is put before the text alone, if it does not begin with one: what transformers does
    /// with `legacy: false`.
    pub prefix_after_found: bool,
    /// Spaces at the ends go, and only one of each run stays.
    pub remove_extra_spaces: bool,
    /// Compiled table of SentencePiece's normaliser, in base64.
    pub charsmap: Option<String>,
}

/// What SentencePiece writes for a space.
pub(crate) const SPACE: &str = "▁";

impl Pieces {
    pub(crate) fn build(self) -> Result<Engine> {
        let (first_only, everywhere) = match (self.dummy_prefix, self.prefix_after_found) {
            (true, true) => (false, true),
            (true, false) => (true, false),
            (false, _) => (false, false),
        };
        let mut normalizers = Vec::new();
        if let Some(charsmap) = &self.charsmap {
            normalizers.push(json!({ "type": "Precompiled", "precompiled_charsmap": charsmap }));
        }
        if self.remove_extra_spaces {
            normalizers.push(replace(json!({ "Regex": r"\A +| +\z" }), ""));
            normalizers.push(replace(json!({ "Regex": " {2,}" }), " "));
        }
        if everywhere {
            normalizers.push(json!({ "type": "Prepend", "prepend": SPACE }));
        }
        normalizers.push(replace(json!({ "String": " " }), SPACE));
        let pre_tokenizer = match first_only {
            true => json!({ "type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": false }),
            false => Value::Null,
        };
        let mut decoders = vec![replace(json!({ "String": SPACE }), " ")];
        if self.byte_fallback {
            decoders.push(json!({ "type": "ByteFallback" }));
        }
        decoders.push(json!({ "type": "Fuse" }));
        if self.dummy_prefix {
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        let surroundings = json!({
            "version": "1.0",
            "normalizer": { "type": "Sequence", "normalizers": normalizers },
            "pre_tokenizer": pre_tokenizer,
            "post_processor": null,
            "decoder": { "type": "Sequence", "decoders": decoders },
            "model": no_model(),
        });
        let model = || match self.division {
            Division::Unigram => {
                Unigram::from(self.vocab, self.unk.map(|id| id as usize), self.byte_fallback).map(ModelWrapper::from)
            }
            Division::Bpe(merges) => {
                let unk = self.unk.and_then(|id| self.vocab.get(id as usize)).map(|(text, _)| text.clone());
                let vocab: Vocab = self.vocab.into_iter().map(|(text, _)| text).zip(0..).collect();
                let model = BPE::builder().vocab_and_merges(vocab, merges).fuse_unk(true);
                let model = model.byte_fallback(self.byte_fallback);
                let model = if let Some(unk) = unk { model.unk_token(unk) } else { model };
                model.build().map(ModelWrapper::from)
            }
        };
        build(surroundings, model, &self.found)
    }
}

fn replace(pattern: Value, content: &str) -> Value {
    json!({ "type": "Replace", "pattern": pattern, "content": content })
}

/// A template that puts BOS and EOS around a text, as `tokenizer.json` spells it; `null` for neither.
pub(crate) fn template(bos: Option<&(String, u32)>, eos: Option<&(String, u32)>) -> Value {
    let around = |token: Option<&(String, u32)>, text: u8| {
        token.map(|(token, _)| json!({ "SpecialToken": { "id": token, "type_id": text } }))
    };
    let one = |name: &str, text: u8| -> Vec<Value> {
        let body = json!({ "Sequence": { "id": name, "type_id": text } });
        [around(bos, text), Some(body), around(eos, text)].into_iter().flatten().collect()
    };
    let tokens: serde_json::Map<_, _> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|(token, id)| (token.clone(), json!({ "id": token, "ids": [id], "tokens": [token] })))
        .collect();
    let pair = [one("A", 0), one("B", 1)].concat();
    json!({ "type": "TemplateProcessing", "single": one("A", 0), "pair": pair, "special_tokens": tokens })
}

/// The model of a pipeline that is yet to get one.
fn no_model() -> Value {
    json!({ "type": "BPE", "vocab": { "": 0 }, "merges": [] })
}

fn build(
    surroundings: Value,
    model: impl FnOnce() -> tokenizers::Result<ModelWrapper>,
    found: &[Found],
) -> Result<Engine> {
    let bytes = serde_json::to_vec(&surroundings).map_err(|e| TokenizerError::vocabulary(e.to_string()))?;
    let mut engine = Engine::from_json(&bytes)?;
    let model = guarded("building the model", model).map_err(|e| TokenizerError::vocabulary(e.to_string()))?;
    engine.set_model(model)?;
    let found: Vec<AddedToken> =
        found.iter().map(|token| AddedToken::from(token.text.as_str(), token.special).normalized(false)).collect();
    engine.add_tokens(&found)?;
    Ok(engine)
}
