//! tiktoken's files: a line for each token, its bytes in base64 and its rank, which is its id.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::bytes::spell;
use crate::engine::{Engine, MAX_ID};
use crate::error::{Result, TokenizerError};
use crate::merges::merges;
use crate::patterns::of_tiktoken;
use crate::pipeline::{ByteLevelBpe, Found};

/// What a file of ranks does not say.
#[derive(Clone, Debug, Default)]
pub struct TiktokenOptions {
    /// How a text is cut into words: the name of an encoding (`gpt2`, `r50k_base`, `p50k_base`, `cl100k_base`,
    /// `o200k_base`, `llama3`, `qwen`) or a regular expression. If `None`, the file's name says it, and
    /// `llama3` is meant where that says nothing.
    pub pattern: Option<String>,
    /// Special tokens and their ids.
    pub special: Vec<(String, u32)>,
}

impl TiktokenOptions {
    pub(crate) fn expression(&self, file_stem: &str) -> String {
        match &self.pattern {
            Some(pattern) => of_tiktoken(pattern).unwrap_or(pattern).to_owned(),
            None => of_tiktoken(file_stem).or_else(|| of_tiktoken("llama3")).unwrap_or_default().to_owned(),
        }
    }
}

/// Whether a file's first line looks like one of ranks.
pub(crate) fn looks_like_ranks(bytes: &[u8]) -> bool {
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    let mut words = line.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let (Some(token), Some(rank), None) = (words.next(), words.next(), words.next()) else { return false };
    STANDARD.decode(token).is_ok() && rank.iter().all(u8::is_ascii_digit)
}

/// The tokenizer of a file of ranks.
pub(crate) fn build(bytes: &[u8], expression: String, special: &[(String, u32)]) -> Result<Engine> {
    let mut ranks = read_ranks(bytes)?;
    ranks.sort_by_key(|(_, rank)| *rank);
    let all: HashSet<&[u8]> = ranks.iter().map(|(token, _)| token.as_slice()).collect();
    if all.len() < ranks.len() {
        return Err(TokenizerError::vocabulary("a token occurs twice in the file of ranks"));
    }
    let pairs =
        merges(ranks.iter().map(|(token, _)| token.as_slice()), &all, |token, place| token.split_at_checked(place))?;
    let merges = pairs.iter().map(|(left, right)| (spell(left), spell(right))).collect();
    let mut vocab: Vec<_> = ranks.iter().map(|(token, rank)| (spell(token), *rank)).collect();
    vocab.extend(special.iter().cloned());
    let found = special.iter().map(|(text, _)| Found { text: text.clone(), special: true }).collect();
    ByteLevelBpe { vocab, merges, found, cuts: vec![expression], ignore_merges: true, ..ByteLevelBpe::default() }
        .build()
}

/// The special tokens of the first Qwen, which its own class puts behind the ranks (`tokenization_qwen.py` beside the
/// models).
pub(crate) fn special_of_qwen(bytes: &[u8]) -> Result<Vec<(String, u32)>> {
    let first = read_ranks(bytes)?.iter().map(|(_, rank)| rank + 1).max().unwrap_or(0);
    let named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from);
    let further = (0..205).map(|i| format!("<|extra_{i}|>"));
    Ok(named.into_iter().chain(further).zip(first..).collect())
}

fn read_ranks(bytes: &[u8]) -> Result<Vec<(Vec<u8>, u32)>> {
    let mut ranks = Vec::new();
    for (line, number) in bytes.split(|&b| b == b'\n').zip(1..) {
        let mut words = line.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
        let Some(token) = words.next() else { continue };
        let wrong =
            || TokenizerError::vocabulary(format!("line {number} of the ranks is not a token in base64 and a number"));
        let (Some(rank), None) = (words.next(), words.next()) else { return Err(wrong()) };
        let rank = std::str::from_utf8(rank).ok().and_then(|rank| rank.parse().ok()).filter(|&rank| rank < MAX_ID);
        let token = STANDARD.decode(token).map_err(|_| wrong())?;
        if token.is_empty() {
            return Err(wrong());
        }
        ranks.push((token, rank.ok_or_else(wrong)?));
    }
    Ok(ranks)
}
