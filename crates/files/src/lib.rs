//! Files, as bytes: nothing here knows a tensor of the library.
//!
//! ```
//! use ironlens_files::{Dtype, SafeTensorsFile, TensorInfo, write_safetensors};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("w.safetensors");
//! let tensors = [TensorInfo { name: "w".into(), dtype: Dtype::F32, shape: vec![2] }];
//! write_safetensors(&path, &tensors, |_, file| file.write_all(&[0; 8]))?;
//!
//! let file = SafeTensorsFile::open(&path)?;
//! assert_eq!(file.get("w").unwrap().shape, [2]);
//! assert_eq!(file.read("w")?, [0; 8]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
pub use atomic::{sync_folder, write_atomically, write_atomically_with};
pub use blocks::BlockType;
pub use checkpoint::{Checkpoint, CheckpointFile};
pub use error::FileError;
pub use gguf::{FromGguf, GgufArray, GgufFile, GgufMetadata, GgufValue, write_gguf};
pub use ordinary::open_ordinary;
pub use pickle::{TorchTensor, TorchValue};
pub use stored::{Stored, StoredTensor, TensorFile};
pub use torch::TorchFile;
