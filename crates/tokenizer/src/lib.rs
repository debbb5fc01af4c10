//! Text to token ids and back, with TransformerLens's rules.
//!
//! ```
//! use ironlens_tokenizer::{GgufVocabulary, HookedTokenizer, TokenOptions, Tokenizer};
//!
//! // A model's folder is read with `HookedTokenizer::from_folder(path)`. Here is a vocabulary made by hand.
//! let tokens = ["<|endoftext|>", "h", "i", "Ġ", "hi", "Ġhi"];
//! let tokenizer = Tokenizer::from_gguf_parts(GgufVocabulary {
//!     model: "gpt2".to_owned(),
//!     pre: Some("gpt-2".to_owned()),
//!     tokens: tokens.map(str::to_owned).to_vec(),
//!     token_types: vec![3, 1, 1, 1, 1, 1],
//!     merges: vec!["h i".to_owned(), "Ġ hi".to_owned()],
//!     eos_id: Some(0),
//!     ..GgufVocabulary::default()
//! })?;
//! let tokenizer = HookedTokenizer::new(tokenizer)?;
//!
//! // BOS first, and shorter texts padded, with the EOS token for want of others.
//! let tokens = tokenizer.to_tokens(["hi hi", "hi"], &TokenOptions::default())?;
//! assert_eq!(tokens.row(0), [0, 4, 5]);
//! assert_eq!(tokens.row(1), [0, 4, 0]);
//! assert_eq!(tokens.mask(1), [1, 1, 0]);
//! assert_eq!(tokenizer.to_str_tokens("hi hi", &TokenOptions::default())?, ["<|endoftext|>", "hi", " hi"]);
//! assert_eq!(tokenizer.to_single_token(" hi")?, 5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `Tokenizer` (feature `formats`, on by default) reads the forms in which tokenizers come and does what Hugging Face's does with them;
//! [`HookedTokenizer`] adds TransformerLens's rules for BOS and padding, [`EncoderTokenizer`] is the one of encoders
//! (texts, pairs of texts, masks); [`Decoder`] gives text while ids are generated.

#![forbid(unsafe_code)]

#[cfg(feature = "formats")]
mod bytes;
#[cfg(feature = "formats")]
mod chat;
#[cfg(feature = "formats")]
mod check;
mod encoder;
#[cfg(feature = "formats")]
mod engine;
mod error;
#[cfg(feature = "formats")]
mod gguf;
mod hooked;
#[cfg(feature = "formats")]
mod merges;
#[cfg(feature = "formats")]
mod patterns;
#[cfg(feature = "formats")]
mod pieces;
#[cfg(feature = "formats")]
mod pipeline;
mod prompt;
#[cfg(feature = "formats")]
mod protobuf;
#[cfg(feature = "formats")]
mod python;
mod rows;
#[cfg(feature = "formats")]
mod sentencepiece;
#[cfg(feature = "formats")]
mod settings;
mod stream;
#[cfg(feature = "formats")]
mod tiktoken;
mod tokenize;
#[cfg(feature = "formats")]
mod tokenizer;
#[cfg(feature = "formats")]
mod wordpiece;

#[cfg(feature = "formats")]
pub use chat::{ChatMessage, ChatOptions};
#[cfg(feature = "formats")]
pub use check::{Comparison, check_case};
pub use encoder::{EncoderTokenizer, EncoderTokens};
pub use error::TokenizerError;
#[cfg(feature = "formats")]
pub use gguf::GgufVocabulary;
pub use hooked::HookedTokenizer;
pub use prompt::{Occurrence, PaddingSide, Prompt, Single, Texts, TokenOptions, Tokens};
pub use stream::Decoder;
#[cfg(feature = "formats")]
pub use tiktoken::TiktokenOptions;
pub use tokenize::{Parts, SpecialToken, SpecialTokens, Tokenize};
#[cfg(feature = "formats")]
pub use tokenizer::Tokenizer;
