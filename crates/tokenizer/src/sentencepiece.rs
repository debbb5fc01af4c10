//! SentencePiece's own file (`tokenizer.model`, `spiece.model`): a protobuf message of pieces and settings.
//!
//! Numbers of fields are those of `sentencepiece_model.proto` (Apache-2.0, github.com/google/sentencepiece).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::engine::Engine;
use crate::error::{Result, TokenizerError};
use crate::pieces::{self, Algorithm, Kind, Normalisation, Piece};
use crate::protobuf::{Field, Fields};
use crate::settings::{Class, Settings};

/// What such a file says.
#[derive(Debug)]
pub(crate) struct SentencePiece {
    pieces: Vec<Piece>,
    algorithm: Algorithm,
    charsmap: Vec<u8>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    /// BOS, EOS, padding and unknown; negative for none.
    roles: [i64; 4],
}

impl SentencePiece {
    /// Reads a model.
    ///
    /// # Errors
    /// If the bytes are no whole model, or one that words or single characters were trained for.
    pub(crate) fn parse(bytes: &[u8]) -> Result<SentencePiece> {
        let mut model = SentencePiece {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            roles: [1, 2, -1, 0],
        };
        for field in Fields::of(bytes) {
            match field.map_err(broken)? {
                (1, piece) => model.pieces.push(read_piece(message(piece)?)?),
                (2, trainer) => model.read_trainer(message(trainer)?)?,
                (3, normalizer) => model.read_normalizer(message(normalizer)?)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(broken("it has no pieces"));
        }
        Ok(model)
    }

    fn read_trainer(&mut self, trainer: &[u8]) -> Result<()> {
        for field in Fields::of(trainer) {
            let (number, value) = field.map_err(broken)?;
            let int = || value.int().ok_or_else(|| broken("a setting is of another type"));
            match number {
                3 => {
                    self.algorithm = match int()? {
                        1 => Algorithm::Unigram,
                        2 => Algorithm::Bpe,
                        other => {
                            let kind = if other == 3 { "words".to_owned() } else { format!("kind {other}") };
                            return Err(broken(&format!("it divides text into {kind}; BPE and Unigram are read")));
                        }
                    }
                }
                24 if int()? != 0 => return Err(broken("it writes spaces at the end of words, which is not read")),
                40 => self.roles[3] = int()?,
                41 => self.roles[0] = int()?,
                42 => self.roles[1] = int()?,
                43 => self.roles[2] = int()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, normalizer: &[u8]) -> Result<()> {
        for field in Fields::of(normalizer) {
            let (number, value) = field.map_err(broken)?;
            let flag = || value.flag().ok_or_else(|| broken("a setting is of another type"));
            match number {
                2 => self.charsmap = message(value)?.to_vec(),
                3 => self.add_dummy_prefix = flag()?,
                4 => self.remove_extra_whitespaces = flag()?,
                5 if !flag()? => return Err(broken("it leaves spaces as they are, which is not read")),
                _ => {}
            }
        }
        Ok(())
    }

    /// The tokenizer that the class of `settings` makes of it. (As `LlamaConverter` and `GemmaConverter` of
    /// transformers, these classes obey nothing that the file says of its normaliser.)
    pub(crate) fn build(&self, settings: &Settings) -> Result<Engine> {
        let as_class = |dummy_prefix: bool| (dummy_prefix, false, None);
        let (dummy_prefix, remove_extra_spaces, charsmap) = match settings.class {
            Class::Llama => as_class(settings.adds_space()),
            Class::Gemma => as_class(false),
            _ => {
                let charsmap = (!self.charsmap.is_empty()).then(|| STANDARD.encode(&self.charsmap));
                (self.add_dummy_prefix, self.remove_extra_whitespaces, charsmap)
            }
        };
        let prefix_after_found = settings.flag("legacy").unwrap_or(true);
        let normalisation = Normalisation { dummy_prefix, prefix_after_found, remove_extra_spaces, charsmap };
        match settings.class {
            Class::Gemma => pieces::build(&self.pieces_of_gemma(), self.algorithm, normalisation),
            _ => pieces::build(&self.pieces, self.algorithm, normalisation),
        }
    }

    /// The pieces with what Gemma's class mends of its first files: marks of turns that are special, and a tab that is
    /// none of the bytes.
    fn pieces_of_gemma(&self) -> Vec<Piece> {
        let has_tab = self.pieces.iter().any(|piece| piece.text == "\t");
        let mut pieces = self.pieces.clone();
        for piece in &mut pieces {
            match piece.text.as_str() {
                "<start_of_turn>" | "<end_of_turn>" => piece.kind = Kind::Control,
                "<0x09>" if !has_tab => *piece = Piece { text: "\t".to_owned(), score: 0.0, kind: Kind::Normal },
                _ => {}
            }
        }
        pieces
    }

    /// Texts of BOS, EOS, padding and unknown.
    pub(crate) fn roles(&self) -> [Option<&str>; 4] {
        self.roles.map(|id| {
            let piece = self.pieces.get(usize::try_from(id).ok()?)?;
            matches!(piece.kind, Kind::Control | Kind::Unknown | Kind::UserDefined).then_some(piece.text.as_str())
        })
    }
}

fn read_piece(bytes: &[u8]) -> Result<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
    for field in Fields::of(bytes) {
        match field.map_err(broken)? {
            (1, text) => {
                let text = std::str::from_utf8(message(text)?).map_err(|_| broken("a piece is not UTF-8"))?;
                text.clone_into(&mut piece.text);
            }
            (2, score) => piece.score = score.float().ok_or_else(|| broken("a score is no number"))?,
            (3, kind) => piece.kind = Kind::of(kind.int().ok_or_else(|| broken("a kind is no number"))?)?,
            _ => {}
        }
    }
    match piece.score.is_finite() {
        true => Ok(piece),
        false => Err(broken("a score is not finite")),
    }
}

fn message(field: Field<'_>) -> Result<&[u8]> {
    field.bytes().ok_or_else(|| broken("a part of it is of another type"))
}

fn broken(reason: &str) -> TokenizerError {
    TokenizerError::vocabulary(format!("this is no SentencePiece model that can be read: {reason}"))
}
