//! Reverse-mode differentiation over [`Tensor`](ironlens_tensor::Tensor)s.
//!
//! ```
//! use ironlens_autograd::{Tape, Var};
//! use ironlens_tensor::{Device, Tensor};
//!
//! let tape = Tape::new();
//! let w = tape.leaf(Tensor::from_vec(vec![1.0, 2.0], &[2, 1], &Device::Cpu));
//! let x = Var::from(Tensor::from_vec(vec![3.0, 4.0], &[1, 2], &Device::Cpu));
//! let loss = x.matmul(&w).square().sum_all();     // (3 * 1 + 4 * 2)^2
//! let mut grads = loss.backward();
//! assert_eq!(grads.take(&w).unwrap().to_vec(), [66.0, 88.0]);
//! ```
//!
//! A [`Var`] is a tensor and, if it depends on a leaf, its place on the [`Tape`]. Ops on values
//! without a place record nothing, so the same code evaluates and trains. A place can only be
//! made by [`Var::record`], which demands the derivative: no op can cut the graph.
//!
//! Variables have the methods of tensors: what is made of other methods is written once for both
//! (`ironlens-tensor`'s `ops/both.rs`). Tensors and numbers may stand on either side of an operator.
//!
//! ```
//! # use ironlens_autograd::{Tape, Var};
//! # use ironlens_tensor::{Tensor, einops::einsum};
//! let w = Tape::new().leaf(Tensor::from([[1.0, -2.0], [0.5, 3.0]]));
//! let x = Tensor::from([1.0, 2.0]);
//! let y = 1.0 - (&w * &x).relu();                  // [[0, 1], [0.5, -5]]
//! let loss = einsum("i j -> i", &[&y]).logsumexp(0) + w.abs().mean(-1).max(0);
//! let grads = loss.backward().take(&w);
//! # assert!(grads.is_some());
//! ```
//!
//! One file per family of ops, each with value and derivative side by side.

// A new op must not fall into a case that was made for others.
#![deny(clippy::wildcard_enum_match_arm)]

mod attention;
pub mod check;
mod elementwise;
mod index;
mod matmul;
mod reduce;
mod rows;
mod tape;
mod views;

pub use tape::{Gradients, Sink, Tape, Var};

ironlens_tensor::shared_methods!(Var, |x| x.value());
