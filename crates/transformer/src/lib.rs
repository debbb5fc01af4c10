//! The HookedTransformer: build one, name every activation in it, look at them, change them.
//!
//! ```
//! use ironlens_tensor::{Device, IndexTensor};
//! use ironlens_transformer::{ActFn, Config, Hooks, HookedTransformer};
//!
//! let cfg = Config { d_model: 16, d_head: 4, n_layers: 2, n_ctx: 8, d_vocab: 10, act_fn: ActFn::Gelu, ..Config::default() };
//! let model = HookedTransformer::new(cfg, &Device::Cpu, 42)?;
//! let tokens = IndexTensor::from([[0, 3, 1, 4]]);
//!
//! let (logits, cache) = model.run_with_cache(&tokens)?;
//! assert_eq!(logits.shape(), [1, 4, 10]);
//! assert_eq!(cache.get(("attn", 0))?.shape(), [1, 4, 4, 4]);      // blocks.0.attn.hook_pattern
//!
//! // Zero one head's output and run again.
//! let mut ablate = Hooks::new().fwd("blocks.0.attn.hook_z", |z, _| {
//!     z.assign(|z| z.select(2, 1), 0.0);
//!     Ok(())
//! });
//! assert_ne!(model.run_with_hooks(&tokens, &mut ablate)?.to_vec(), logits.to_vec());
//! # Ok::<(), ironlens_transformer::ModelError>(())
//! ```
//!
//! Names, shapes, firing order and numbers are TransformerLens 2.18's. [`HookedEncoder`] is the same for BERT.

// A new kind must not fall into a case that was made for others.
#![deny(clippy::wildcard_enum_match_arm)]

mod block;
mod cache;
mod call;
mod checked;
pub mod config;
mod encoder;
mod error;
mod fit;
mod generate;
mod hooked;
mod input;
mod key_value_cache;
mod loss;
mod model;
mod modules;
pub mod names;
mod net;
mod output;
mod parts;
mod passes;
mod rerun;
mod sequences;
mod slice;
mod text;
mod weights;

pub use cache::{ActivationCache, CacheError};
pub use call::Call;
pub use config::{
    ActFn, AttentionDir, AttnType, Config, ConfigError, InitMode, NormalizationType, PositionalEmbeddingType,
};
pub use encoder::{
    BertNextSentencePrediction, EncoderCall, EncoderInputs, EncoderOutput, Guesses, Head, Heads, HookedEncoder,
    NextSentence, Pooling, Sentences,
};
pub use error::ModelError;
pub use generate::{Finish, GenerateOptions, Generated, Generation, HooksOn, NewToken, Sampling, Step, Stream};
pub use hooked::HookedModel;
pub use input::Input;
pub use ironlens_nn::{HookError, HookFailure, HookInfo, Hooks, Leaves, ParamError, Params, Target, layer_of};
pub use ironlens_tokenizer::{
    EncoderTokenizer, HookedTokenizer, Occurrence, PaddingSide, Prompt, Single, TokenOptions,
};
pub use key_value_cache::KeyValueCache;
pub use loss::{next_token_accuracies, next_token_accuracy, next_token_loss, next_token_losses};
pub use model::HookedTransformer;
pub use modules::Part;
pub use output::{LogitsAt, Output, ParamGradients, ReturnType};
pub use rerun::{Change, Reached, Rerun, Site};
pub use sequences::Sequences;
pub use slice::{Slice, SliceError};
pub use text::{IntoPrompt, TextTokens};
pub use weights::{WeightsError, is_buffer, load_params, read_tensors, save_params, write_atomically, write_tensors};
