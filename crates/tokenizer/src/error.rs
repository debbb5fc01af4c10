//! What can go wrong between text and ids.

#[cfg(feature = "formats")]
use std::path::Path;
use std::path::PathBuf;

use ironlens_files::FileError;

/// A tokenizer that cannot be read, or cannot do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file system said no.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that is not what its name or its first bytes say.
    #[error("{path}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder without any tokenizer.
    #[error(
        "{folder} has no tokenizer: expected tokenizer.json, vocab.json with merges.txt, vocab.txt, tokenizer.model or a \
         *.tiktoken file"
    )]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
    },
    /// A vocabulary that no tokenizer can be made of.
    #[error("the vocabulary cannot be used: {reason}")]
    Vocabulary {
        /// What is wrong with it.
        reason: String,
    },
    /// Text that cannot be turned into ids, or ids into text.
    #[error("{action} failed: {reason}")]
    Engine {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        reason: String,
    },
    /// An id that no token has.
    #[error("token id {id} is beyond the vocabulary, whose ids are below {vocab_size}")]
    UnknownId {
        /// The id.
        id: u32,
        /// One more than the largest id.
        vocab_size: usize,
    },
    /// A special token that is needed and that the vocabulary lacks.
    #[error("the {role} token {token:?} is not in the vocabulary; {advice}")]
    NoSpecialToken {
        /// BOS, EOS, padding or unknown.
        role: &'static str,
        /// The token's text.
        token: String,
        /// What can be done.
        advice: &'static str,
    },
    /// Text that should be one token and is not.
    #[error("{text:?} is not a single token: it has {count} ({tokens:?})")]
    NotSingle {
        /// The text.
        text: String,
        /// How many tokens it has.
        count: usize,
        /// Their texts, the first few.
        tokens: Vec<String>,
    },
    /// A token that was looked for and does not occur.
    #[error("token {token} ({text:?}) does not occur in the prompt of {length} tokens")]
    NotFound {
        /// Its id.
        token: u32,
        /// Its text.
        text: String,
        /// Length of the prompt that was searched.
        length: usize,
    },
    /// An argument that makes no sense.
    #[error("{0}")]
    Argument(String),
    /// No chat template of that name.
    #[error("there is no chat template {name:?}; this tokenizer has {}", if .known.is_empty() { "none: its model was not made for chats".into() } else { .known.join(", ") })]
    NoChatTemplate {
        /// The name.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// A chat template that does not compile, or refuses the messages.
    #[error("the chat template failed: {0}")]
    ChatTemplate(String),
}

/// Shorthand for results of this crate.
pub(crate) type Result<T, E = TokenizerError> = std::result::Result<T, E>;

#[cfg(feature = "formats")]
impl TokenizerError {
    pub(crate) fn format(path: &Path, reason: impl ToString) -> TokenizerError {
        TokenizerError::Format { path: path.to_path_buf(), reason: reason.to_string() }
    }

    pub(crate) fn vocabulary(reason: impl Into<String>) -> TokenizerError {
        TokenizerError::Vocabulary { reason: reason.into() }
    }

    /// The same error, of a file: what a vocabulary's bytes got wrong is told with their place.
    pub(crate) fn of_file(self, path: &Path) -> TokenizerError {
        match self {
            TokenizerError::Vocabulary { reason } => TokenizerError::format(path, reason),
            other => other,
        }
    }
}
