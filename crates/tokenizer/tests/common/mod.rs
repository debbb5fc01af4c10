//! Small vocabularies, made by hand.

#![allow(dead_code, missing_docs)] // each test file uses some of them

use ironlens_tokenizer::{GgufVocabulary, Tokenizer};

/// A SentencePiece model as its file has it: pieces of text, score and kind, and the settings' bytes.
pub fn sentencepiece(pieces: &[(&str, f32, u8)], trainer: &[u8], normalizer: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for (text, score, kind) in pieces {
        let mut piece = vec![0x0A, text.len() as u8];
        piece.extend(text.as_bytes());
        piece.push(0x15);
        piece.extend(score.to_le_bytes());
        piece.extend([0x18, *kind]);
        field(&mut file, 1, &piece);
    }
    field(&mut file, 2, trainer);
    field(&mut file, 3, normalizer);
    file
}

fn field(file: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    file.extend([number << 3 | 2, u8::try_from(bytes.len()).expect("short")]);
    file.extend(bytes);
}

/// Settings of a trainer: BPE, the usual ids.
pub const BPE: &[u8] = &[0x18, 2];
/// Settings of a trainer: Unigram.
pub const UNIGRAM: &[u8] = &[0x18, 1];
/// Settings of a normaliser that leaves extra spaces alone.
pub const PLAIN: &[u8] = &[0x20, 0];

/// Llama's kind: BPE, BOS before texts, bytes for what has no piece.
pub fn llama_model() -> Vec<u8> {
    with_words(&[("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)], PLAIN)
}

/// A model of BPE: these pieces, then all bytes, a few words and letters.
pub fn with_words(first: &[(&str, f32, u8)], normalizer: &[u8]) -> Vec<u8> {
    let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut pieces = first.to_vec();
    pieces.extend(bytes.iter().map(|byte| (byte.as_str(), 0.0, 6)));
    let merged = ["▁h", "▁hi", "ab", "bc", "▁▁"];
    pieces.extend(merged.iter().zip(1..).map(|(piece, rank)| (*piece, -(rank as f32), 1)));
    pieces.extend(["▁", "h", "i", "a", "b", "c"].iter().map(|piece| (*piece, -100.0, 1)));
    sentencepiece(&pieces, BPE, normalizer)
}

/// GPT-2's kind: `<|endoftext|>` 0, a few letters and words, and the three bytes of "€".
pub fn gpt2() -> GgufVocabulary {
    let tokens = ["<|endoftext|>", "h", "i", "Ġ", "hi", "Ġhi", "â", "Ĥ", "¬", "ĠÂ", "Â", "a", "b", "ab"];
    GgufVocabulary {
        model: "gpt2".to_owned(),
        pre: Some("gpt-2".to_owned()),
        tokens: tokens.map(str::to_owned).to_vec(),
        token_types: [vec![3], vec![1; tokens.len() - 1]].concat(),
        merges: ["h i", "Ġ hi", "a b"].map(str::to_owned).to_vec(),
        eos_id: Some(0),
        ..GgufVocabulary::default()
    }
}

pub fn gpt2_tokenizer() -> Tokenizer {
    Tokenizer::from_gguf_parts(gpt2()).unwrap()
}
