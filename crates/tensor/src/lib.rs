//! N-dimensional arrays for building and studying transformers.
//!
//! ```
//! use ironlens_tensor::{Device, Tensor};
//!
//! let x = Tensor::from_vec(vec![0.0, 1.0, 2.0, 3.0], &[2, 2], &Device::Cpu);
//! let y = (&x * 2.0).softmax();                   // over the last axis
//! assert!(y.sum(&[1]).to_vec().iter().all(|s| (s - 1.0).abs() < 1e-6));
//! let a: ndarray::ArrayViewD<f32> = y.view();     // ndarray at the edge, without a copy
//! assert_eq!(a.shape(), [2, 2]);
//! ```
//!
//! One concrete [`Tensor`]: no generics for element, rank or device. Memory is shared by clones
//! and views and copied on write. Ops are methods; a device implements each of them or does not
//! compile. Results do not depend on the number of threads.

// A new op must not fall into a case that was made for others.
#![deny(clippy::wildcard_enum_match_arm)]

mod backend;
mod check;
mod cpu;
mod device;
mod dtype;
mod failure;
#[cfg(feature = "gpu")]
pub mod gpu;
mod index;
mod layout;
mod ops;
pub mod profile;
mod random;
mod tensor;

pub use backend::{AdamWStep, AttentionSpec, BinaryOp, ReduceOp, RotarySpec, UnaryOp};
pub use cpu::storage::{fresh_allocations, release_pooled_memory};
pub use device::{Device, DeviceError};
pub use dtype::DType;
pub use failure::GpuFailure;
pub use index::IndexTensor;
pub use layout::Layout;
pub use random::Rng;
pub use tensor::Tensor;
