//! How one tensor is updated.

use ironlens_tensor::{AdamWStep, Device, Operand, Tensor};

/// The rule by which an [`Optimizer`](super::Optimizer) updates weights: PyTorch's optimisers of these
/// names.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// Adam with decoupled weight decay (Loshchilov & Hutter, 2019).
    AdamW {
        /// Decay of the first and of the second moment.
        betas: (f64, f64),
        /// Added to the root of the second moment.
        eps: f64,
    },
    /// Adam (Kingma & Ba, 2015); weight decay is added to the gradient.
    Adam {
        /// Decay of the first and of the second moment.
        betas: (f64, f64),
        /// Added to the root of the second moment.
        eps: f64,
    },
    /// Gradient descent; weight decay is added to the gradient.
    Sgd {
        /// Share of the last update that the next one keeps; 0 for none.
        momentum: f64,
    },
}

/// The numbers of one step of one tensor.
#[derive(Clone, Copy)]
pub(super) struct Pace<'s> {
    /// One number by which the gradient is multiplied first; if it is not finite, nothing changes.
    pub grad_scale: &'s Tensor,
    pub lr: f64,
    pub weight_decay: f64,
    /// Of this tensor; 1 for the first.
    pub step: u64,
}

impl Rule {
    /// What it remembers of every weight, by name.
    pub(super) fn moments(&self) -> &'static [&'static str] {
        match self {
            Rule::AdamW { .. } | Rule::Adam { .. } => &["m", "v"],
            Rule::Sgd { momentum: 0.0 } => &[],
            Rule::Sgd { .. } => &["m"],
        }
    }

    /// Whether its steps depend on how many there were before.
    pub(super) fn corrects_bias(&self) -> bool {
        matches!(self, Rule::AdamW { .. } | Rule::Adam { .. })
    }

    /// One step of `param` and its `moments`, which are of its shape.
    #[track_caller]
    pub(super) fn update(&self, param: &mut Tensor, grad: &Tensor, moments: &mut [Tensor], pace: Pace<'_>) {
        let Pace { grad_scale, lr, weight_decay, step } = pace;
        let adamw = |(beta1, beta2), eps, weight_decay| AdamWStep { lr, beta1, beta2, eps, weight_decay, step };
        match (*self, moments) {
            (Rule::AdamW { betas, eps }, [m, v]) => {
                param.adamw(grad, grad_scale, m, v, &adamw(betas, eps, weight_decay));
            }
            (Rule::Adam { betas, eps }, [m, v]) if weight_decay == 0.0 => {
                param.adamw(grad, grad_scale, m, v, &adamw(betas, eps, 0.0));
            }
            (Rule::Adam { betas, eps }, [m, v]) => {
                let grad = with_decay(param, grad, grad_scale, weight_decay);
                // Which it was multiplied by: 1, or NaN.
                let one = grad_scale.affine(0.0, 1.0);
                param.adamw(&grad, &one, m, v, &adamw(betas, eps, 0.0));
            }
            (Rule::Sgd { momentum }, moments) => {
                let grad = with_decay(param, grad, grad_scale, weight_decay);
                let change = match moments {
                    [m] => {
                        *m = if_finite(grad_scale, &*m * momentum + &grad, &*m);
                        m.clone()
                    }
                    _ => grad,
                };
                *param -= if_finite(grad_scale, change * lr, 0);
            }
            (Rule::AdamW { .. } | Rule::Adam { .. }, _) => unreachable!("Adam has two moments"),
        }
    }
}

/// The gradient of the loss and of `weight_decay / 2 * |param|^2`.
fn with_decay(param: &Tensor, grad: &Tensor, grad_scale: &Tensor, weight_decay: f64) -> Tensor {
    let grad = grad * grad_scale.to_dtype(grad.dtype());
    if weight_decay == 0.0 { grad } else { grad + param * weight_decay }
}

/// `new` if `grad_scale` is finite, else `old`. On the CPU it is: [`Optimizer::step`](super::Optimizer::step) has
/// seen to that.
fn if_finite(grad_scale: &Tensor, new: Tensor, old: impl Operand<Tensor>) -> Tensor {
    match new.device() == Device::Cpu {
        true => new,
        false => Tensor::where_(grad_scale.affine(0.0, 0.0).eq(0.0), new, old),
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Rule::AdamW { betas, eps } => write!(f, "AdamW with betas {betas:?} and eps {eps}"),
            Rule::Adam { betas, eps } => write!(f, "Adam with betas {betas:?} and eps {eps}"),
            Rule::Sgd { momentum } => write!(f, "SGD with momentum {momentum}"),
        }
    }
}
