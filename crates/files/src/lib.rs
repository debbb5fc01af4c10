//! Files, as bytes and as numbers: nothing here knows a tensor of the library.
//!
//! [`Checkpoint`] reads a model's weights from whatever they are in: a folder, shards, or a file of
//! safetensors, GGUF or `torch.save`. It takes a header's word for nothing, runs nothing that a file asks for,
//! and reads a tensor, or some of its rows, when asked.
//!
//! ```
//! use ironlens_files::{Checkpoint, Dtype, TensorFile, TensorInfo, write_safetensors};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("model.safetensors");
//! let tensors = [TensorInfo { name: "w".into(), dtype: Dtype::BF16, shape: vec![2, 1] }];
//! write_safetensors(&path, &tensors, |_, file| file.write_all(&[0x80, 0x3f, 0, 0x40]))?;
//!
//! let weights = Checkpoint::open(folder.path())?;
//! assert_eq!(weights.get("w").unwrap().shape, [2, 1]);
//! assert_eq!(weights.read_f32("w")?, [1.0, 2.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | format | opened by itself | written |
//! |---|---|---|
//! | safetensors | [`SafeTensorsFile`] | [`write_safetensors`] |
//! | GGUF, versions 2 and 3, plain types and [`BlockType`]s | [`GgufFile`] | [`write_gguf`] |
//! | `torch.save`, zip and before torch 1.6 | [`TorchFile`] | |
//!
//! All files are written whole or not at all ([`write_atomically`]).

#![forbid(unsafe_code)]

mod atomic;
mod blocks;
mod checkpoint;
mod counted;
mod error;
mod gguf;
mod ordinary;
mod pickle;
mod safetensors;
mod source;
mod stored;
mod torch;
#[doc(hidden)]
pub mod watch;

pub use crate::safetensors::{Dtype, SafeTensorsFile, TensorInfo, write_safetensors};
pub use atomic::{sync_file, sync_folder, write_atomically, write_atomically_with};
pub use blocks::BlockType;
pub use checkpoint::{Checkpoint, CheckpointFile};
pub use error::FileError;
pub use gguf::{FromGguf, GgufArray, GgufFile, GgufMetadata, GgufValue, write_gguf};
pub use ordinary::open_ordinary;
pub use pickle::{TorchTensor, TorchValue};
pub use stored::{Stored, StoredTensor, TensorFile};
pub use torch::TorchFile;
