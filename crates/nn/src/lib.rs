//! Modules with named parameters and hook points.
//!
//! ```
//! use ironlens_autograd::Var;
//! use ironlens_nn::{Ctx, Hooks, Linear, Params, Registry};
//! use ironlens_tensor::{Device, Tensor};
//!
//! // A module is built in a scope, which gives its parameters and hook points their names.
//! let mut registry = Registry::new("Toy");
//! let mut scope = registry.root();
//! let layer = Linear::new(&mut scope.child("layer", "Linear"), 2, 1, 0.1);
//! let hook = scope.hook("hook_out", "batch unit");
//! assert_eq!(registry.to_string(), "Toy(\n  (layer): Linear()\n  (hook_out): HookPoint()\n)");
//!
//! // Weights live apart from modules; hooks belong to one call.
//! let mut params = Params::initialised(registry, 42, &Device::Cpu);
//! params.set("layer.W", &Tensor::from_vec(vec![1.0, 2.0], &[2, 1], &Device::Cpu)).unwrap();
//! let mut seen = Vec::new();
//! let mut hooks = Hooks::new().fwd("hook_out", |out, info| {
//!     seen.push((info.name.to_string(), out.value().to_vec()));
//!     *out = &*out * 10.0;
//!     Ok(())
//! });
//! let mut ctx = Ctx::evaluate(&params, &mut hooks).unwrap();
//! let x = Var::from(Tensor::from_vec(vec![1.0, 1.0], &[1, 2], &Device::Cpu));
//! let y = layer.forward(&ctx, &x);
//! let y = hook.apply(&mut ctx, y).unwrap();
//! assert_eq!(y.value().to_vec(), [30.0]);
//! drop(ctx);
//! drop(hooks);
//! assert_eq!(seen, [("hook_out".to_string(), vec![3.0])]);
//! ```
//!
//! Names are written once, where a module is built; the [`Registry`] is the tree, and printing a
//! model, listing its parameters and listing its hooks all read it. A hook point that nobody
//! listens to costs one test of a bit.

// A new kind must not fall into a case that was made for others.
#![deny(clippy::wildcard_enum_match_arm)]

mod activations;
mod active;
mod attention;
mod ctx;
mod embed;
mod error;
mod hooks;
mod linear;
mod mlp;
mod module;
mod moe;
mod norm;
pub mod optim;
mod params;
mod perma;
mod registry;
mod rotary;
#[allow(clippy::wildcard_enum_match_arm, reason = "of another crate's many types, few are ours")]
mod weights;

pub use activations::Activations;
pub use attention::{Attention, AttentionConfig, AttentionInput, Padding, Past, PositionScheme, QkNorm, Rows, attend};
pub use ctx::{ByWeightsAndLeaves, Ctx, Leaves};
pub use embed::{Embed, PosEmbed, TokenTypeEmbed, Unembed};
pub use error::{HookError, HookFailure, ParamError, edits, nearest};
pub use hooks::{HookInfo, HookReturn, Hooks, Target, layer_of};
pub use linear::Linear;
pub use mlp::{Activation, Mlp, MlpConfig, OwnActivation};
pub use module::HookedRootModule;
pub use moe::{ExpertKind, Moe, MoeConfig};
pub use norm::{Norm, NormAxes, NormKind};
pub use params::Params;
pub use perma::PermaHooks;
pub use registry::{HookPoint, Init, Param, Registry, Scope};
pub use rotary::{RopeScaling, RotaryConfig, RotaryTable};
pub use weights::{WeightsError, read_tensors, read_tensors_where, tensor_info, write_tensors, write_values};
