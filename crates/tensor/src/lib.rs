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
//! # From PyTorch
//!
//! | PyTorch | here |
//! |---|---|
//! | `x[:, -1]`, `x[:, 2:5]`, `W_U[:, t]` | `x.select(1, n - 1)`, `x.narrow(1, 2, 3)`, `w_u.index_select(1, &t)` |
//! | `x.gather(-1, ids)`, `F.one_hot(ids, n)` | `x.gather(-1, &ids)`, [`Tensor::one_hot`]`(&ids, n, dtype, &device)` |
//! | `x[0, 1] = 3`, `x[:, 2] = y` | `x.assign(\|x\| x.select(0, 0).select(0, 1), 3.0)`, `x.set_at(1, 2, &y)` |
//! | `torch.where(x > 0, x, 0)`, `x.masked_fill(m, v)` | `Tensor::where_(x.gt(0), &x, 0)`, `x.masked_fill(&m, v)` |
//! | `x.clamp(min=0)`, `torch.maximum(x, y)`, `x.amin(1)` | `x.clamp(0.0, f64::INFINITY)`, `x.maximum(&y)`, `x.min(1)` |
//! | `x.tril(-1)`, `x.diagonal(1, -2, -1)` | `x.tril(-1)`, `x.diagonal(1)` |
//! | `x.sum((0, 2))`, `x.mean(-1, keepdim=True)`, `x.std(1)` | `x.sum(&[0, 2])`, `x.mean_keepdim(-1)`, `x.std(1)` |
//! | `x.max()`, `x.sum()` | `x.max_all()`, `x.sum_all()`, each a scalar tensor, `.item()` a number |
//! | `x.norm()`, `x.norm(dim=-1)` | `x.norm()`, `x.vector_norm(-1)` |
//! | `x.sort(descending=True)`, `x.topk(k)`, `x.argmax(-1)` | `x.sort(-1, true)`, `x.topk(k, -1)`, `x.argmax(-1)` |
//! | `x.cumsum(0)`, `x.flip(0)` | `x.cumsum(0)`, `x.flip(0)` |
//! | `x @ w`, `x @ direction` | `x.matmul(&w)`, `x.matmul(&direction)` |
//! | `einsum("bqhe,bkhe->bhqk", q, k)` | [`einops::einsum`]`("bqhe,bkhe->bhqk", &[&q, &k])` |
//! | `rearrange(x, "b (h e) -> b h e", h=4)` | [`einops::rearrange`]`(&x, "b (h e) -> b h e", &[("h", 4)])` |
//! | `torch.arange(n)`, `torch.linspace(a, b, n)` | [`Tensor::arange`]`(n, dtype, &device)`, [`Tensor::linspace`] |
//! | `torch.randperm(n)`, `torch.bernoulli(p)` | [`Rng::permutation`]`(n)`, `rng.uniform(shape, 0.0, 1.0, &device).lt(p)` |
//! | `Categorical(probs=p).sample()` | [`Rng::categorical`]`(&p)` |
//! | `torch.linalg.lstsq(a, b).solution`, `svd(x)` | `a.lstsq(&b)`, `x.svd()` |
//! | `F.relu(x)`, `F.gelu(x)`, `x.item()`, `x.tolist()` | `x.relu()`, `x.gelu()`, `x.item()`, `x.to_vec()` |
//!
//! Gathering, choosing, statistics and order are methods of `ironlens-autograd`'s `Var`, too.
//!
//! One concrete [`Tensor`]: no generics for element, rank or device. Memory is shared by clones
//! and views and copied on write. Ops are methods; a device implements each of them or does not
//! compile. Results do not depend on the number of threads (on macOS where Apple's products are not used: [`Products`]).

// A new op must not fall into a case that was made for others.
#![deny(clippy::wildcard_enum_match_arm)]

mod axis;
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
mod machine;
mod ops;
pub mod profile;
mod random;
mod storage;
mod tensor;

pub use axis::{Axes, Axis};
pub use backend::{AdamWStep, Alibi, AttentionSpec, BinaryOp, ReduceOp, RotarySpec, UnaryOp};
pub use cpu::library::{ACCELERATE_VARIABLE, Products, products};
pub use cpu::storage::{fresh_allocations, release_if_large, release_pooled_memory};
pub use device::{Device, DeviceError};
pub use dtype::DType;
pub use failure::GpuFailure;
pub use index::IndexTensor;
pub use layout::Layout;
pub use ops::einops;
#[doc(hidden)]
pub use ops::index::{check_inner, check_set_at, gather_rows, select_rows};
pub use ops::operators::{Operand, Right};
pub use random::Rng;
pub use tensor::Tensor;
