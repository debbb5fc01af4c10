//! What a call gives.

use std::fmt;
use std::sync::Arc;

use ironlens_autograd::Var;
use ironlens_nn::optim::grad_norm;
use ironlens_nn::{Params, Registry};
use ironlens_tensor::{DType, Device, Tensor};

/// What a call returns (TransformerLens's `return_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReturnType {
    /// Logits `[batch, pos, d_vocab_out]`.
    #[default]
    Logits,
    /// The next-token loss.
    Loss,
    /// Both.
    Both,
    /// Neither: the unembedding is not run.
    None,
}

/// Whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogitsAt {
    /// Those of every position.
    #[default]
    All,
    /// Those of the last position; of padded sequences, of the last token that is no padding.
    Last,
}

/// What a call gave. On a recorded call ([`Call::gradients`](crate::Call::gradients)) the values are on the tape.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// `[batch, pos, d_vocab_out]`, if asked for; of one position with [`LogitsAt::Last`].
    pub logits: Option<Var>,
    /// The next-token loss, `[]` or per token `[batch, pos - 1]`, if asked for.
    pub loss: Option<Var>,
    /// The residual stream `[batch, pos, d_model]`, if the call stopped at a layer.
    pub residual: Option<Var>,
}

impl Output {
    /// The logits.
    ///
    /// # Panics
    /// If the call did not return them.
    #[track_caller]
    pub fn logits(&self) -> &Var {
        self.logits.as_ref().expect("the call was not asked for logits: its return type or stop_at_layer excludes them")
    }

    /// The loss.
    ///
    /// # Panics
    /// If the call did not return it.
    #[track_caller]
    pub fn loss(&self) -> &Var {
        self.loss.as_ref().expect("the call was not asked for a loss: set return_type(ReturnType::Loss)")
    }

    /// The residual stream where the call stopped.
    ///
    /// # Panics
    /// If the call did not stop at a layer.
    #[track_caller]
    pub fn residual(&self) -> &Var {
        self.residual.as_ref().expect("the call ran to the end: set stop_at_layer for the residual stream")
    }
}

/// Gradients by the parameters of a model. They hold none of its weights: an optimiser that is handed
/// [`ParamGradients::slots`] updates in place.
pub struct ParamGradients {
    registry: Arc<Registry>,
    dtype: DType,
    device: Device,
    slots: Vec<Option<Tensor>>,
}

impl fmt::Debug for ParamGradients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.slots.iter().flatten().count();
        write!(f, "Gradients by {found} of {} stored tensors, {} on {}", self.slots.len(), self.dtype, self.device)
    }
}

impl ParamGradients {
    pub(crate) fn new(params: &Params, slots: Vec<Option<Tensor>>) -> ParamGradients {
        let (dtype, device) = (params.dtype(), params.device().clone());
        ParamGradients { registry: params.registry().clone(), dtype, device, slots }
    }

    /// The gradient by parameter `name`, in its shape; `None` if the loss does not depend on it, or
    /// [`Call::leaves`](crate::Call::leaves) leaves it out. Of a frozen one it is `None`, or 0 if it is stored together
    /// with one that is trained.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        let (slot, _) = self.registry.param_place(name)?;
        let grad = self.slots[slot].as_ref()?;
        self.registry.split_slot(slot, grad).into_iter().find(|(n, _)| *n == name).map(|(_, g)| g)
    }

    /// Gradients by stored tensor, for an optimiser.
    pub fn into_slots(self) -> Vec<Option<Tensor>> {
        self.slots
    }

    /// Gradients by stored tensor, for an optimiser.
    pub fn slots(&self) -> &[Option<Tensor>] {
        &self.slots
    }

    /// Euclidean norm over all parameters.
    pub fn norm(&self) -> f64 {
        self.norm_on_device().item()
    }

    /// Euclidean norm over all parameters, one number that stays on the device.
    pub fn norm_on_device(&self) -> Tensor {
        grad_norm(&self.slots, self.dtype, &self.device)
    }
}
