//! The HookedTransformer for Rust: build a transformer, name every activation in it, look at them,
//! change them, train it, and read what it learned.
//!
//! ```
//! use ironlens::prelude::*;
//!
//! # fn main() -> ironlens::Result<()> {
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
//! Whatever a part of the library refuses becomes an [`Error`] by `?`: `fn main() -> ironlens::Result<()>`.
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
//! [`transformer`], [`lens`], [`pretrained`], [`hub`](pretrained::hub), [`train`], [`study`], [`report`], [`tokenizer`],
//! [`files`].
//! The [guide] answers one question a chapter.

pub mod demo;
mod error;
pub mod guide;
pub mod plot;

pub use error::{Error, Result};
pub use ironlens_autograd as autograd;
pub use ironlens_files as files;
pub use ironlens_lens as lens;
pub use ironlens_nn as nn;
pub use ironlens_pretrained as pretrained;
pub use ironlens_report as report;
pub use ironlens_study as study;
pub use ironlens_tensor as tensor;
pub use ironlens_tokenizer as tokenizer;
pub use ironlens_train as train;
pub use ironlens_transformer as transformer;

/// Everything that a notebook needs, in one `use`. Names that mean something else elsewhere stay in their
/// modules, of which some are here: `ablation::Parts`, `einops::reduce`, `logits::Units`,
/// `patching::Cells`, `path::Sender`, `svd::Matrix`.
pub mod prelude {
    pub use crate::plot::{attention, imshow, line};
    pub use ironlens_autograd::{Tape, Var};
    pub use ironlens_lens::ablation::{self, Ablation, ablate, ablate_neurons};
    pub use ironlens_lens::attribution::{attribution_patch, edge_attribution};
    pub use ironlens_lens::heads::{DetectOptions, Detection, ErrorMeasure, HeadKind, detect_head, head_scores};
    pub use ironlens_lens::logits::{self, direct_logit_attribution, logit_lens, top_tokens};
    pub use ironlens_lens::patching::path::{self, direct_path_patch};
    pub use ironlens_lens::patching::{self, PatchOptions, Patching, generic_activation_patch};
    pub use ironlens_lens::patterns::{attention_distance, attention_entropy};
    pub use ironlens_lens::steering::{Reading, dose_response};
    pub use ironlens_lens::svd::{self, singular_vectors};
    pub use ironlens_lens::{
        CacheExt, Composition, FactoredMatrix, LensError, Metric, Processing, StackOptions, SteeringVector, Sublayers,
        WeightsExt, process_weights, test_prompt,
    };
    pub use ironlens_nn::optim::{Optimizer, clip_coefficient, grad_norm};
    pub use ironlens_nn::{
        Activations, Ctx, HookError, HookInfo, HookPoint, HookedRootModule, Init, Linear, Param, Params, Registry,
    };
    pub use ironlens_pretrained::{LoadOptions, Pretrained};
    pub use ironlens_report::{
        Colorscale, Figure, Page, Points, Series, bar, boxes, frames, histogram, panels, scatter,
    };
    pub use ironlens_study as study;
    pub use ironlens_tensor::einops::{self, einsum, rearrange};
    pub use ironlens_tensor::{DType, Device, IndexTensor, Rng, Tensor, UnaryOp};
    pub use ironlens_train::{
        Data, DataRecord, LanguageModel, Learner, LearnerRecord, Preset, RandomTokens, RunDir, Schedule, TokenBatch,
        TrainConfig, TrainError, Trainer, next_token_loss, previous_token_loss, train_step,
    };
    pub use ironlens_transformer::names::{act, get_act_name};
    pub use ironlens_transformer::{
        ActFn, ActivationCache, AttentionDir, AttnType, Config, GenerateOptions, HookedEncoder, HookedTransformer,
        Hooks, HooksOn, InitMode, KeyValueCache, Leaves, ModelError, NormalizationType, Occurrence, PaddingSide,
        PositionalEmbeddingType, ReturnType, Sequences, Slice, TokenOptions,
    };
}
