//! What every tokenizer can do, and the tokens that have a role.

use std::fmt;
use std::path::Path;

use crate::error::{Result, TokenizerError};

/// Text to ids and back.
pub trait Tokenize: fmt::Debug + Send + Sync {
    /// Ids of a text. `add_special` adds what the tokenizer puts around every text by itself (BOS for Llama,
    /// nothing for GPT-2). Special tokens that are spelt out in the text are found in either case.
    ///
    /// # Errors
    /// If the tokenizer fails on the text.
    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>>;

    /// Text of ids, U+FFFD for incomplete characters; `skip_special` leaves special tokens out. Where a folder's
    /// `clean_up_tokenization_spaces` is true, spaces that English has not are taken out (before a full stop).
    ///
    /// # Errors
    /// If an id is beyond the vocabulary. Ids below its end that no token has are nothing, as in Hugging Face's.
    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String>;

    /// The same with all spaces: what TransformerLens's `to_string` gives, and what can be told a token at a time: a
    /// space that the next token would take out is told by then.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn decode_uncleaned(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.decode(ids, skip_special)
    }

    /// Id of a token in its stored spelling (`Ġthe`, `▁the`).
    fn token_to_id(&self, token: &str) -> Option<u32>;

    /// Stored spelling of the token with an id.
    fn id_to_token(&self, id: u32) -> Option<String>;

    /// One more than the largest id.
    fn vocab_size(&self) -> usize;

    /// One more than the largest id that a text is divided into, without tokens that were added to the vocabulary: a
    /// model may lack these (Gemma 3 of text alone has none for pictures).
    fn divided_vocab_size(&self) -> usize {
        self.vocab_size()
    }

    /// The tokens that have a role.
    fn special_tokens(&self) -> &SpecialTokens;

    /// The text that the model's chat template makes of messages `(role, content)`; with `add_generation_prompt`, up to
    /// where the model answers. It names special tokens itself: tokenize it without adding any.
    ///
    /// # Errors
    /// If there is no template, or it fails, or refuses the messages.
    fn chat_text(&self, _messages: &[(&str, &str)], _add_generation_prompt: bool) -> Result<String> {
        Err(TokenizerError::NoChatTemplate { name: "default".to_owned(), known: Vec::new() })
    }

    /// Ids of one text or of two together, and to which of the two each belongs, with what the tokenizer puts around
    /// them: what encoders read (`[CLS] first [SEP] second [SEP]`). More than `max_length` ids are cut, of the longer
    /// text first.
    ///
    /// # Errors
    /// If the tokenizer fails on a text, or is of one's own and puts no texts together, as it is unless told.
    fn encode_parts(&self, _first: &str, _second: Option<&str>, _max_length: Option<usize>) -> Result<Parts> {
        let reason = "this tokenizer puts no texts together for an encoder: it has no encode_parts";
        Err(TokenizerError::Argument(reason.to_owned()))
    }

    /// Writes files into a folder from which the tokenizer can be read again; false if it is of a kind that has
    /// none.
    ///
    /// # Errors
    /// If the disk refuses.
    fn save_into(&self, _folder: &Path) -> Result<bool> {
        Ok(false)
    }
}

/// One text as an encoder reads it, or two together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Ids.
    pub ids: Vec<u32>,
    /// 0 for each id of the first text and what is around it, 1 for the second.
    pub types: Vec<u32>,
}

/// A token with a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialToken {
    /// Its text.
    pub text: String,
    /// Its id; `None` for a text that the vocabulary lacks.
    pub id: Option<u32>,
}

/// The tokens that have a role; `None` where a tokenizer names none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<SpecialToken>,
    /// Ends a text.
    pub eos: Option<SpecialToken>,
    /// Fills shorter rows of a batch.
    pub pad: Option<SpecialToken>,
    /// Stands for what cannot be spelt.
    pub unk: Option<SpecialToken>,
    /// Ids that end what is generated, beside EOS: of a turn in a chat, for instance.
    pub ends: Vec<u32>,
    /// Comes before what an encoder reads.
    pub cls: Option<SpecialToken>,
    /// Comes after each text that an encoder reads.
    pub sep: Option<SpecialToken>,
    /// Stands for a word that an encoder shall guess.
    pub mask: Option<SpecialToken>,
}
