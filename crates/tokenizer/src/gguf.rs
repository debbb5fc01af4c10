//! The vocabulary inside a GGUF file: the values under `tokenizer.ggml`.

use std::collections::HashSet;

use crate::engine::Engine;
use crate::error::{Result, TokenizerError};
use crate::patterns::of_pre;
use crate::pieces::{self, Algorithm, Kind, Normalisation, Piece};
use crate::pipeline::{ByteLevelBpe, Found, Merge};

/// The entries of a GGUF file's metadata that make up its tokenizer; the names are those under `tokenizer.ggml`.
#[derive(Clone, Debug, Default)]
pub struct GgufVocabulary {
    /// `model`: "gpt2" (byte-level BPE) or "llama" (SentencePiece's BPE).
    pub model: String,
    /// `pre`: how byte-level BPE cuts a text into words.
    pub pre: Option<String>,
    /// `tokens`, by id.
    pub tokens: Vec<String>,
    /// `scores`, by id ("llama").
    pub scores: Vec<f32>,
    /// `token_type`, by id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. None at all for normal
    /// ones.
    pub token_types: Vec<i32>,
    /// `merges` ("gpt2"): two tokens with a space between them.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos_id: Option<u32>,
    /// `eos_token_id`.
    pub eos_id: Option<u32>,
    /// `eot_token_id`: ends a turn of a chat.
    pub eot_id: Option<u32>,
    /// `eom_token_id`: ends a message that waits for what a tool answers.
    pub eom_id: Option<u32>,
    /// `unknown_token_id`.
    pub unk_id: Option<u32>,
    /// `padding_token_id`.
    pub pad_id: Option<u32>,
    /// `add_bos_token`; if `None`, as llama.cpp has it for the model and `pre`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`; false if `None`.
    pub add_eos: Option<bool>,
    /// `add_space_prefix` ("llama"): a space before the text; true if `None`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
    /// `tokenizer.chat_template.NAME` of each name in `tokenizer.chat_templates`: names and sources.
    pub named_chat_templates: Vec<(String, String)>,
}

impl GgufVocabulary {
    pub(crate) fn engine(&self) -> Result<Engine> {
        let n = self.tokens.len();
        for (name, length) in [("scores", self.scores.len()), ("token types", self.token_types.len())] {
            if length != n && length != 0 {
                return Err(TokenizerError::vocabulary(format!("it has {n} tokens and {length} {name}")));
            }
        }
        match self.model.as_str() {
            "gpt2" => self.byte_level(),
            "llama" => self.sentencepiece(),
            other => {
                let reason = format!("tokenizer.ggml.model is {other:?}; \"gpt2\" and \"llama\" are read");
                Err(TokenizerError::vocabulary(reason))
            }
        }
    }

    /// Ids that end what is generated: those that the file names, and tokens with the usual spellings, whatever their
    /// kind (those of llama.cpp's `special_eog_ids`).
    pub(crate) fn end_ids(&self) -> Vec<u32> {
        const CONTROL: i32 = 3;
        const SPELLINGS: [&str; 17] = [
            "<|eot_id|>",
            "<|im_end|>",
            "<|return|>",
            "<|call|>",
            "<|flush|>",
            "<|calls|>",
            "<end_of_turn>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<|eom_id|>",
            "<EOT>",
            "_<EOT>",
            "[EOT]",
            "[EOS]",
            "<｜end▁of▁sentence｜>",
            "<end_of_utterance>",
            "<eos>",
        ];
        let has = |text: &str| self.tokens.iter().any(|token| token == text);
        // In formats with channels it ends a message, and the answer goes on.
        let goes_on = has("<|call|>") && has("<|return|>") || has("<|calls|>") && has("<|flush|>");
        let kind = |id: usize| self.token_types.get(id).copied().unwrap_or(CONTROL);
        let ends = |(id, text): &(usize, &String)| match text.as_str() {
            "<|end|>" => !goes_on,
            // Gemma has it as a word, of HTML.
            "</s>" => kind(*id) == CONTROL,
            text => SPELLINGS.contains(&text),
        };
        let spelt = self.tokens.iter().enumerate().filter(ends).map(|(id, _)| id as u32);
        [self.eos_id, self.eot_id, self.eom_id].into_iter().flatten().chain(spelt).collect()
    }

    /// Whether BOS is put before every text.
    pub(crate) fn adds_bos(&self) -> bool {
        let pre = self.pre.as_deref().unwrap_or_default();
        self.add_bos.unwrap_or(match self.model.as_str() {
            "llama" => true,
            _ => of_pre(pre).is_some_and(|cuts| cuts.ignore_merges),
        })
    }

    fn kind(&self, id: usize) -> Result<Kind> {
        self.token_types.get(id).map_or(Ok(Kind::Normal), |&kind| Kind::of(i64::from(kind)))
    }

    fn byte_level(&self) -> Result<Engine> {
        let pre = self.pre.as_deref().unwrap_or("default");
        let cuts = of_pre(pre).ok_or_else(|| {
            TokenizerError::vocabulary(format!(
                "tokenizer.ggml.pre is {pre:?}, which is not known; give tokenizer.json"
            ))
        })?;
        let mut found = Vec::new();
        for (id, text) in self.tokens.iter().enumerate() {
            let special = match self.kind(id)? {
                Kind::Control | Kind::Unknown => true,
                Kind::UserDefined => false,
                Kind::Normal | Kind::Unused | Kind::Byte => continue,
            };
            found.push(Found { text: text.clone(), special });
        }
        let known: HashSet<&str> = self.tokens.iter().map(String::as_str).collect();
        ByteLevelBpe {
            vocab: self.tokens.iter().cloned().zip(0..).collect(),
            merges: self.merges.iter().map(|merge| split_merge(merge, &known)).collect::<Result<_>>()?,
            found,
            cuts: cuts.expressions.iter().map(|&cut| cut.to_owned()).collect(),
            ignore_merges: cuts.ignore_merges,
            ..ByteLevelBpe::default()
        }
        .build()
    }

    fn sentencepiece(&self) -> Result<Engine> {
        let piece = |(id, text): (usize, &String)| {
            let score = self.scores.get(id).copied().unwrap_or(0.0);
            if !score.is_finite() {
                return Err(TokenizerError::vocabulary(format!("the score of token {id} is {score}")));
            }
            Ok(Piece { text: text.clone(), score, kind: self.kind(id)? })
        };
        let pieces: Vec<Piece> = self.tokens.iter().enumerate().map(piece).collect::<Result<_>>()?;
        let normalisation = Normalisation {
            dummy_prefix: self.add_space_prefix.unwrap_or(true),
            prefix_after_found: true,
            remove_extra_spaces: false,
            charsmap: None,
        };
        pieces::build(&pieces, Algorithm::Bpe, normalisation)
    }
}

/// The two tokens of a merge. A token may itself have spaces, so each space is tried until both sides are known.
fn split_merge(merge: &str, known: &HashSet<&str>) -> Result<Merge> {
    let mut halves = merge.match_indices(' ').map(|(place, _)| (&merge[..place], &merge[place + 1..]));
    let both = halves.find(|(left, right)| known.contains(left) && known.contains(right));
    let (left, right) =
        both.ok_or_else(|| TokenizerError::vocabulary(format!("the merge {merge:?} is not of two tokens")))?;
    Ok((left.to_owned(), right.to_owned()))
}
