//! The HookedTransformer for Rust: build a transformer, name every activation in it, look at them,
//! change them, train it, and read what it learned.
//!
//! ```
//! use ironlens::prelude::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cfg = Config { d_model: 32, d_head: 8, n_layers: 2, n_ctx: 8, d_vocab: 20, act_fn: ActFn::Gelu, ..Config::default() };
//! let mut model = HookedTransformer::new(cfg, &Device::best(), 42)?;
//! println!("{model}");                                            // the module tree with every hook point
//!
//! let mut data = RandomTokens::new(model.config(), 137)?;
//! let (logits, cache) = model.run_with_cache(&data.batch(1)?)?;
//! assert_eq!(logits.shape(), [1, 8, 20]);
//! for (name, act) in &cache {
//!     println!("{name} {:?}", act.shape());
//! }
//! let mean_pattern = cache.get(("attn", 0))?.mean(&[0, 1]);         // over batch and heads
//! let figure = imshow(&mean_pattern).title("Layer 0 attention pattern");
//! # let _ = figure;
//!
//! let train = TrainConfig { steps: 5, ..TrainConfig::notebook() };
//! let run = Trainer::new(train).fit_model(&mut model, &mut data, previous_token_loss)?;
//! assert_eq!(run.losses().len(), 5);
//! # Ok(())
//! # }
//! ```
//!
//! In debug builds, dependencies are not optimised unless your crate says so: training is then 12 to 30
//! times slower. Put this into the `Cargo.toml` of your crate, or of your workspace's root:
//!
//! ```toml
//! [profile.dev.package."*"]
//! opt-level = 3
//! ```
//!
//! The parts are crates of their own, each useful alone: [`tensor`], [`autograd`], [`nn`],
//! [`transformer`], [`lens`], [`pretrained`], [`train`], [`report`], [`tokenizer`], [`files`].

pub mod plot;

pub use ironlens_autograd as autograd;
pub use ironlens_files as files;
pub use ironlens_lens as lens;
pub use ironlens_nn as nn;
pub use ironlens_pretrained as pretrained;
pub use ironlens_report as report;
pub use ironlens_tensor as tensor;
pub use ironlens_tokenizer as tokenizer;
pub use ironlens_train as train;
pub use ironlens_transformer as transformer;

/// Everything that a notebook needs, in one `use`.
pub mod prelude {
    pub use crate::plot::{attention, imshow, line};
    pub use ironlens_autograd::{Tape, Var};
    pub use ironlens_lens::heads::{DetectOptions, HeadKind, detect_head, head_scores};
    pub use ironlens_lens::patching::{self, PatchOptions, Patching};
    pub use ironlens_lens::{
        Composition, Decompose, FactoredMatrix, Metric, Processing, StackOptions, Sublayers, Weights, process_weights,
        test_prompt,
    };
    pub use ironlens_pretrained::{LoadOptions, Pretrained};
    pub use ironlens_report::{
        Colorscale, Figure, Page, Points, Series, bar, boxes, frames, histogram, panels, scatter,
    };
    pub use ironlens_tensor::{DType, Device, IndexTensor, Tensor};
    pub use ironlens_train::{
        Data, LanguageModel, Learner, Preset, RandomTokens, Schedule, TrainConfig, Trainer, next_token_loss,
        previous_token_loss,
    };
    pub use ironlens_transformer::{
        ActFn, ActivationCache, AttentionDir, AttnType, Config, HookedTransformer, Hooks, InitMode, Leaves,
        NormalizationType, Occurrence, PaddingSide, PosSlice, PositionalEmbeddingType, ReturnType, TokenOptions,
    };
}
