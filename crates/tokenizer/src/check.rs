//! A folder's `expected.json`: what TransformerLens makes of texts with the tokenizer beside it.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Result, TokenizerError};
use crate::hooked::HookedTokenizer;
use crate::prompt::{Occurrence, PaddingSide, TokenOptions};
use crate::settings::read_bytes;
use crate::tokenize::Tokenize;

/// Context length of the cases.
const N_CTX: usize = 64;

#[derive(Deserialize)]
struct Expected {
    d_vocab: usize,
    bos_token_id: u32,
    eos_token_id: u32,
    pad_token_id: u32,
    tokenizer_prepends_bos: bool,
    texts: Vec<Text>,
    batches: Vec<Batch>,
    single_tokens: Vec<SingleToken>,
    positions: Vec<Position>,
    tokenize_and_concatenate: Concatenation,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    with_bos: Vec<u32>,
    without_bos: Vec<u32>,
    str_tokens_with_bos: Vec<String>,
    str_tokens_without_bos: Vec<String>,
    to_string_with_bos: String,
    to_string_without_bos: String,
}

#[derive(Deserialize)]
struct Batch {
    texts: Vec<String>,
    padding_side: Side,
    prepend_bos: bool,
    tokens: Vec<Vec<u32>>,
    attention_mask: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Left,
    Right,
}

#[derive(Deserialize)]
struct SingleToken {
    string: String,
    token: Option<u32>,
}

#[derive(Deserialize)]
struct Position {
    input: String,
    single_token: String,
    mode: Mode,
    prepend_bos: bool,
    position: usize,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    First,
    Last,
}

#[derive(Deserialize)]
struct Concatenation {
    texts: Vec<String>,
    max_length: usize,
    add_bos_token: bool,
    tokens: Vec<Vec<u32>>,
}

/// What was compared, and how it went.
pub type Comparison = (String, Result<(), String>);

/// Compares all that a tokenizer's folder expects, with the tokenizer that is read there.
///
/// # Errors
/// If the tokenizer or `expected.json` cannot be read; what differs is in the list.
pub fn check_case(folder: impl AsRef<Path>) -> Result<Vec<Comparison>> {
    let path = folder.as_ref().join("expected.json");
    let bytes = read_bytes(&path)?.ok_or_else(|| TokenizerError::format(&path, "there is no such file"))?;
    let expected: Expected = serde_json::from_slice(&bytes).map_err(|e| TokenizerError::format(&path, e))?;
    let tokenizer = HookedTokenizer::from_folder(folder)?.with_n_ctx(N_CTX);
    let mut list = Vec::new();
    numbers(&tokenizer, &expected, &mut list);
    expected.texts.iter().for_each(|text| list.extend(texts(&tokenizer, text)));
    list.extend(expected.batches.iter().zip(0..).map(|(case, i)| (format!("batch {i}"), batch(&tokenizer, case))));
    list.extend(expected.single_tokens.iter().map(|case| {
        (
            format!("to_single_token {:?}", case.string),
            compare(tokenizer.to_single_token(&case.string).ok(), case.token),
        )
    }));
    list.extend(expected.positions.iter().map(|case| {
        let what = format!("get_token_position {:?} in {:?}", case.single_token, case.input);
        (what, position(&tokenizer, case))
    }));
    let case = &expected.tokenize_and_concatenate;
    let rows = tokenizer.tokenize_and_concatenate(&case.texts, case.max_length, case.add_bos_token);
    list.push(("tokenize_and_concatenate".to_owned(), compare_result(rows, case.tokens.clone())));
    Ok(list)
}

fn numbers(tokenizer: &HookedTokenizer, expected: &Expected, list: &mut Vec<Comparison>) {
    let special = tokenizer.special_tokens();
    let roles = [
        ("bos_token_id", &special.bos, expected.bos_token_id),
        ("eos_token_id", &special.eos, expected.eos_token_id),
        ("pad_token_id", &special.pad, expected.pad_token_id),
    ];
    for (what, token, id) in roles {
        list.push((what.to_owned(), compare(token.as_ref().and_then(|token| token.id), Some(id))));
    }
    list.push(("d_vocab".to_owned(), compare(tokenizer.d_vocab(), expected.d_vocab)));
    let prepends = compare(tokenizer.tokenizer_prepends_bos(), expected.tokenizer_prepends_bos);
    list.push(("tokenizer_prepends_bos".to_owned(), prepends));
}

fn texts(tokenizer: &HookedTokenizer, case: &Text) -> Vec<Comparison> {
    let with = (true, &case.with_bos, &case.str_tokens_with_bos, &case.to_string_with_bos);
    let without = (false, &case.without_bos, &case.str_tokens_without_bos, &case.to_string_without_bos);
    let mut list = Vec::new();
    for (prepend_bos, ids, str_tokens, string) in [with, without] {
        let options = TokenOptions { truncate: false, ..TokenOptions::prepend_bos(prepend_bos) };
        let mut add = |name: &str, outcome| {
            list.push((format!("{name} {:?}, prepend_bos {prepend_bos}", case.text), outcome));
        };
        let tokens = tokenizer.to_tokens(&case.text, &options).map(|tokens| tokens.ids);
        add("to_tokens", compare_result(tokens, ids.clone()));
        add("to_str_tokens", compare_result(tokenizer.to_str_tokens(ids, &options), str_tokens.clone()));
        add("to_string", compare_result(tokenizer.to_string(ids), string.clone()));
    }
    list
}

fn batch(tokenizer: &HookedTokenizer, case: &Batch) -> Result<(), String> {
    let side = match case.padding_side {
        Side::Left => PaddingSide::Left,
        Side::Right => PaddingSide::Right,
    };
    let options = TokenOptions { padding_side: Some(side), ..TokenOptions::prepend_bos(case.prepend_bos) };
    let tokens = tokenizer.to_tokens(&case.texts, &options).map_err(|e| e.to_string())?;
    compare((0..tokens.rows).map(|row| tokens.row(row).to_vec()).collect(), case.tokens.clone())?;
    // TransformerLens's mask is one of ids, without a look at the texts.
    let mask = |row| tokenizer.attention_mask(tokens.row(row), side, case.prepend_bos);
    compare((0..tokens.rows).map(mask).collect(), case.attention_mask.clone())
}

fn position(tokenizer: &HookedTokenizer, case: &Position) -> Result<(), String> {
    let mode = match case.mode {
        Mode::First => Occurrence::First,
        Mode::Last => Occurrence::Last,
    };
    let options = TokenOptions::prepend_bos(case.prepend_bos);
    let place = tokenizer.get_token_position(case.single_token.as_str(), case.input.as_str(), mode, &options);
    compare_result(place, case.position)
}

fn compare_result<T: PartialEq + std::fmt::Debug>(got: Result<T>, expected: T) -> Result<(), String> {
    compare(got.map_err(|e| e.to_string())?, expected)
}

fn compare<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Result<(), String> {
    match got == expected {
        true => Ok(()),
        false => Err(format!("expected {expected:?}, got {got:?}")),
    }
}
