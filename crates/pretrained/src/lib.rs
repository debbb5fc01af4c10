//! Pretrained models: from a folder as Hugging Face writes it, a GGUF file, a state dict of `torch.save`, or a name.
//!
//! ```
//! use ironlens_pretrained::{LoadOptions, Pretrained};
//! use ironlens_tensor::{Device, IndexTensor};
//! use ironlens_transformer::{ActFn, Config, HookedTransformer};
//!
//! # let cfg = Config { d_model: 16, d_head: 4, n_layers: 2, n_ctx: 8, d_vocab: 10, act_fn: ActFn::Gelu, ..Config::default() };
//! # let trained = HookedTransformer::new(cfg, &Device::Cpu, 42)?;
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path().join("model");
//! # trained.save_pretrained(&folder)?;
//! # let name = folder.to_str().unwrap();
//! // A name such as "gpt2" does, too, and so do paths.
//! let model = HookedTransformer::from_pretrained(name)?;
//! // Its norms are folded into the weights, as TransformerLens folds them.
//! assert_eq!(model.config().normalization_type.to_string(), "LNPre");
//!
//! let raw = HookedTransformer::from_pretrained_with(name, &LoadOptions::no_processing())?;
//! let tokens = IndexTensor::from([[0, 3, 1, 4]]);
//! assert_eq!(raw.forward(&tokens)?.to_vec(), trained.forward(&tokens)?.to_vec());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Numbers are Hugging Face's. Where TransformerLens 2.18 computes something else, [`LoadOptions::like_transformerlens`]
//! does as it does. A checkpoint is read one tensor at a time, and refused unless every tensor has its place: what
//! is missing, left over, of another shape or not finite is listed.

#![forbid(unsafe_code)]

mod arriving;
mod check;
mod conversion;
mod encoder;
mod encoder_check;
mod error;
mod families;
mod gguf;
mod hf;
mod like_transformerlens;
mod load;
mod names;
mod save;
mod sentences;
mod state_dict;
mod text;

use std::path::Path;

use ironlens_files::Checkpoint;
use ironlens_transformer::{HookedEncoder, HookedModel, HookedTransformer};

pub use check::{Check, check};
pub use encoder::is_encoder;
pub use encoder_check::check_encoder;
pub use error::PretrainedError;
pub use ironlens_hub as hub;
pub use load::LoadOptions;
pub use names::{download, fetch, locate};
pub use state_dict::Loaded;

/// What a family of models is called, and the classes of Hugging Face's that are of it.
pub fn families() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    families::FAMILIES.iter().chain(families::ENCODERS).map(|f| (f.name, f.architectures))
}

/// Why a model that TransformerLens has a name for is not read here; nothing for one that is, or that is unknown.
///
/// ```
/// use ironlens_pretrained::not_read;
/// assert!(not_read("t5-small").unwrap().to_string().contains("encoder-decoder"));
/// assert!(not_read("gpt2-small").is_none());
/// ```
pub fn not_read(name: &str) -> Option<PretrainedError> {
    families::not_read(hub::lookup(name)?.official)
}

/// Loading and saving of a [`HookedTransformer`], or of a [`HookedEncoder`], whose weights are never processed: its
/// norms come after what they would be folded into.
pub trait Pretrained: Sized {
    /// The model that `source` is, with TransformerLens's default processing of weights: a folder with a
    /// `config.json`, a `.gguf` file, a nanoGPT checkpoint, a `.pt` or `.safetensors` file with a `config.json`
    /// beside it, or the name of a model in the Hugging Face cache (with the feature `hub`: at the hub).
    ///
    /// # Errors
    /// If there is none, its family is not read here, a file cannot be read or is damaged, or the weights do not
    /// fit the configuration or the memory.
    fn from_pretrained(source: impl AsRef<str>) -> Result<Self, PretrainedError> {
        Self::from_pretrained_with(source, &LoadOptions::default())
    }

    /// The same, with weights as they are stored.
    ///
    /// # Errors
    /// As [`Pretrained::from_pretrained`].
    fn from_pretrained_no_processing(source: impl AsRef<str>) -> Result<Self, PretrainedError> {
        Self::from_pretrained_with(source, &LoadOptions::no_processing())
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As [`Pretrained::from_pretrained`], and if the model cannot have an option.
    fn from_pretrained_with(source: impl AsRef<str>, options: &LoadOptions) -> Result<Self, PretrainedError>;

    /// Writes configuration and weights into a folder, from which [`Pretrained::from_pretrained_no_processing`]
    /// gives the same bits.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save_pretrained(&self, folder: impl AsRef<Path>) -> Result<(), PretrainedError>;

    /// Takes the weights that a state dict (`.pt`, `.pth`, `.bin`, `.safetensors`) has under TransformerLens's
    /// names, and tells which it lacks and which the model has no place for.
    ///
    /// # Errors
    /// If the file cannot be read, or a tensor is of another shape or not finite; then nothing changes.
    fn load_state_dict(&mut self, path: impl AsRef<Path>) -> Result<Loaded, PretrainedError>;
}

impl Pretrained for HookedTransformer {
    fn from_pretrained_with(source: impl AsRef<str>, options: &LoadOptions) -> Result<Self, PretrainedError> {
        load::load(source.as_ref(), options)
    }

    fn save_pretrained(&self, folder: impl AsRef<Path>) -> Result<(), PretrainedError> {
        save::save(self, folder.as_ref())
    }

    fn load_state_dict(&mut self, path: impl AsRef<Path>) -> Result<Loaded, PretrainedError> {
        load_state_dict(self, path.as_ref())
    }
}

impl Pretrained for HookedEncoder {
    fn from_pretrained_with(source: impl AsRef<str>, options: &LoadOptions) -> Result<Self, PretrainedError> {
        encoder::load(source.as_ref(), options)
    }

    fn save_pretrained(&self, folder: impl AsRef<Path>) -> Result<(), PretrainedError> {
        encoder::save(self, folder.as_ref())
    }

    fn load_state_dict(&mut self, path: impl AsRef<Path>) -> Result<Loaded, PretrainedError> {
        load_state_dict(self, path.as_ref())
    }
}

/// Reads into a copy, which takes the model's place when all of it was read.
fn load_state_dict<M: HookedModel>(model: &mut M, path: &Path) -> Result<Loaded, PretrainedError> {
    let checkpoint = Checkpoint::open(path)?;
    let mut changed = model.clone();
    let (loaded, _) = state_dict::Weights::new(&checkpoint, model.config())?.write(&mut changed, None, false)?;
    *model = changed;
    Ok(loaded)
}
