//! Names of pretrained models to files on disk, through the cache that Python's `huggingface_hub` keeps: what one
//! has downloaded, the other finds. Knows no tensor.
//!
//! ```
//! use ironlens_hub::{Hub, HubConfig, lookup, model_files, nearest};
//!
//! // A name of TransformerLens's is a repository's.
//! let name = lookup("gpt2-small").unwrap().official;
//! assert_eq!((name, nearest("gtp2-medium")[0]), ("gpt2", "gpt2-medium"));
//!
//! // A cache, filled by hand here; HubConfig::from_env() finds the user's.
//! let cache = tempfile::tempdir()?;
//! let commit = "607a30d783dfa663caf39e06633721c8d4cfcd7e";
//! let snapshot = cache.path().join("models--gpt2/snapshots").join(commit);
//! std::fs::create_dir_all(&snapshot)?;
//! std::fs::write(snapshot.join("config.json"), "{}")?;
//! std::fs::write(snapshot.join("model.safetensors"), "")?;
//!
//! let hub = Hub::new(HubConfig::at(cache.path()));
//! assert_eq!(hub.snapshot(name, commit, model_files, &mut |_| ())?, snapshot);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The feature `download` fetches what the cache lacks. Without it nothing here can reach a network.

#![forbid(unsafe_code)]

mod cache;
mod checkpoints;
mod choice;
mod config;
#[cfg(feature = "download")]
mod download;
mod error;
mod hub;
mod names;
mod path;
mod progress;

pub use checkpoints::{Checkpoints, Unit, checkpoint_labels, checkpoint_revision, checkpoints_among};
pub use choice::{checkpoint_files, model_files, tokenizer_files};
pub use config::{HubConfig, Token};
pub use error::HubError;
pub use hub::{Cached, Hub};
pub use names::{Name, lookup, names, nearest};
pub use progress::Progress;
