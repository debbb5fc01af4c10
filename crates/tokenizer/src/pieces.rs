//! Pieces with scores and kinds, as SentencePiece's models and GGUF's "llama" vocabularies have them.

use std::collections::HashSet;

use crate::engine::Engine;
use crate::error::{Result, TokenizerError};
use crate::merges::merges;
use crate::pipeline::{Division, Found, Merge, Pieces, SPACE};

/// A piece; its id is its place in the list.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub text: String,
    pub score: f32,
    pub kind: Kind,
}

/// What a piece is for: the numbers of `sentencepiece_model.proto` and of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Unknown,
    /// Stands for no text.
    Control,
    /// Found in a text before everything else.
    UserDefined,
    Unused,
    /// `<0x0A>`: a byte of a character that has no piece.
    Byte,
}

impl Kind {
    /// # Errors
    /// If no kind has the number.
    pub(crate) fn of(number: i64) -> Result<Kind> {
        Ok(match number {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return Err(TokenizerError::vocabulary(format!("a token has kind {number}; kinds are 1 to 6"))),
        })
    }
}

/// The two kinds of models that text can be divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Bpe,
    Unigram,
}

/// What is done to a text before it is divided.
#[derive(Clone, Debug)]
pub(crate) struct Normalisation {
    pub dummy_prefix: bool,
    pub prefix_after_found: bool,
    pub remove_extra_spaces: bool,
    pub charsmap: Option<String>,
}

/// The tokenizer of a list of pieces.
pub(crate) fn build(pieces: &[Piece], algorithm: Algorithm, normalisation: Normalisation) -> Result<Engine> {
    let division = match algorithm {
        Algorithm::Bpe => Division::Bpe(merges_of_scores(pieces)?),
        Algorithm::Unigram => Division::Unigram,
    };
    let unk = pieces.iter().position(|piece| piece.kind == Kind::Unknown).map(|id| id as u32);
    if unk.is_none() && algorithm == Algorithm::Unigram {
        return Err(TokenizerError::vocabulary("it has no piece for unknown text"));
    }
    let Normalisation { dummy_prefix, prefix_after_found, remove_extra_spaces, charsmap } = normalisation;
    Pieces {
        vocab: pieces.iter().map(|piece| (spelling(piece), f64::from(piece.score))).collect(),
        division,
        found: found(pieces),
        unk,
        byte_fallback: pieces.iter().any(|piece| piece.kind == Kind::Byte),
        dummy_prefix,
        prefix_after_found,
        remove_extra_spaces,
        charsmap,
    }
    .build()
}

/// Pieces that are found in a text are spelt as that text is: with spaces.
fn spelling(piece: &Piece) -> String {
    match piece.kind {
        Kind::UserDefined => piece.text.replace(SPACE, " "),
        _ => piece.text.clone(),
    }
}

fn found(pieces: &[Piece]) -> Vec<Found> {
    let token = |piece: &Piece| {
        let special = match piece.kind {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => false,
            Kind::Normal | Kind::Unused | Kind::Byte => return None,
        };
        Some(Found { text: spelling(piece), special })
    };
    pieces.iter().filter_map(token).collect()
}

/// SentencePiece merges the two neighbours whose union has the best score.
fn merges_of_scores(pieces: &[Piece]) -> Result<Vec<Merge>> {
    let parts = |piece: &&Piece| match piece.kind {
        Kind::Normal | Kind::Unused => true,
        Kind::UserDefined => !piece.text.contains(SPACE),
        Kind::Unknown | Kind::Control | Kind::Byte => false,
    };
    let all: HashSet<&str> = pieces.iter().filter(parts).map(|piece| piece.text.as_str()).collect();
    let mut made: Vec<&Piece> = pieces.iter().filter(|piece| piece.kind == Kind::Normal).collect();
    made.sort_by(|a, b| b.score.total_cmp(&a.score));
    let pairs = merges(made.iter().map(|piece| piece.text.as_str()), &all, |text, place| {
        text.is_char_boundary(place).then(|| text.split_at(place))
    })?;
    Ok(pairs.into_iter().map(|(left, right)| (left.to_owned(), right.to_owned())).collect())
}
