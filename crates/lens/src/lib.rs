//! Analyses of a transformer and its activations.
//!
//! ```
//! use ironlens_lens::heads::{DetectOptions, HeadKind, detect_head};
//! use ironlens_tensor::{Device, IndexTensor};
//! use ironlens_transformer::{ActFn, Config, HookedTransformer};
//!
//! let cfg = Config { d_model: 16, d_head: 4, n_layers: 2, n_ctx: 8, d_vocab: 10, act_fn: ActFn::Gelu, ..Config::default() };
//! let model = HookedTransformer::new(cfg, &Device::Cpu, 42)?;
//! let tokens = IndexTensor::from([[0, 3, 1, 4, 1, 5]]);
//! let scores = detect_head(&model, &tokens, &HeadKind::PreviousToken.into(), &DetectOptions::default())?;
//! assert_eq!(scores.shape(), [2, 4]);     // [layer, head]
//! # Ok::<(), ironlens_lens::LensError>(())
//! ```

// A new kind must not fall into a case that was made for others.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod ablation;
pub mod attribution;
mod components;
mod error;
pub mod evaluation;
mod factored;
pub mod heads;
pub mod logits;
pub mod metric;
pub mod patching;
pub mod patterns;
pub mod processing;
pub mod prompt;
pub mod residual;
pub mod steering;
pub mod svd;
pub mod weights;

pub use error::LensError;
pub use evaluation::{Evaluation, evaluate_text, induction_loss};
pub use factored::{FactoredMatrix, Svd};
pub use metric::Metric;
pub use processing::{Columns, Processing, ProcessingByParts, process_weights, process_weights_of};
pub use prompt::{AnswersTest, PromptOptions, PromptTest, test_answers, test_prompt, test_prompt_with};
pub use residual::{BatchItems, CacheExt, Stack, StackOptions, Sublayers};
pub use steering::SteeringVector;
pub use weights::{Composition, TokenNames, WeightsExt};
