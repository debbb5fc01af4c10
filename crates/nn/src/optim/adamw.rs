//! AdamW over stored weights.

use std::collections::BTreeSet;

use ironlens_tensor::{AdamWStep, Tensor};

use crate::error::ParamError;
use crate::params::Params;

/// PyTorch's `AdamW`: decoupled decay on every parameter that has a gradient.
#[derive(Clone)]
pub struct AdamW {
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    steps: u64,
    moments: Vec<Option<[Tensor; 2]>>,
}

impl AdamW {
    /// With no steps taken.
    pub fn new(betas: (f64, f64), eps: f64, weight_decay: f64) -> AdamW {
        AdamW { betas, eps, weight_decay, steps: 0, moments: Vec::new() }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step at learning rate `lr` with gradients by stored tensor (see [`Params::slots`]); those
    /// are multiplied by the one number of `grad_scale`, if given (see [`clip_coefficient`]).
    ///
    /// W_Q, W_K and W_V of a layer are one stored tensor, and so are their biases.
    ///
    /// [`clip_coefficient`]: super::clip_coefficient
    ///
    /// # Panics
    /// If there is not one gradient or `None` for each stored tensor, or one has another shape.
    #[track_caller]
    pub fn step(&mut self, params: &mut Params, grads: &[Option<Tensor>], lr: f64, grad_scale: Option<&Tensor>) {
        assert!(
            grads.len() == params.slots().len(),
            "AdamW::step: {} gradients for {} stored tensors; give one, or None, for each of Params::slots",
            grads.len(),
            params.slots().len()
        );
        let one;
        let grad_scale = match grad_scale {
            Some(scale) => scale,
            None => {
                one = Tensor::scalar(1.0, params.dtype(), params.device());
                &one
            }
        };
        self.steps += 1;
        self.moments.resize_with(params.slots().len(), || None);
        let step = AdamWStep {
            lr,
            beta1: self.betas.0,
            beta2: self.betas.1,
            eps: self.eps,
            weight_decay: self.weight_decay,
            step: self.steps,
        };
        for ((param, grad), moments) in params.slots_mut().iter_mut().zip(grads).zip(&mut self.moments) {
            if let Some(grad) = grad {
                let [m, v] = moments.get_or_insert_with(|| [grad.zeros_like(), grad.zeros_like()]);
                param.adamw(grad, grad_scale, m, v, &step);
            }
        }
    }

    /// The moments as they are stored.
    pub fn moments(&self) -> impl Iterator<Item = &Tensor> {
        self.moments.iter().flatten().flatten()
    }

    /// The moments as named tensors, `m.NAME` and `v.NAME` for every parameter `NAME`; none before
    /// the first step. Those of a parameter that had no gradient yet are 0.
    pub fn state(&self, params: &Params) -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        for (slot, (moments, stored)) in self.moments.iter().zip(params.slots()).enumerate() {
            let moments = moments.clone().unwrap_or_else(|| [stored.zeros_like(), stored.zeros_like()]);
            for (kind, moment) in ["m", "v"].iter().zip(&moments) {
                all.extend(params.split_slot(slot, moment).into_iter().map(|(n, t)| (format!("{kind}.{n}"), t)));
            }
        }
        all
    }

    /// Takes up where `steps` steps and the moments of [`AdamW::state`] left off.
    ///
    /// # Errors
    /// If a name or shape is not the model's, or a moment is missing.
    pub fn restore<'a>(
        &mut self,
        params: &Params,
        steps: u64,
        state: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<(), ParamError> {
        let mut slots: [Vec<Tensor>; 2] =
            std::array::from_fn(|_| params.slots().iter().map(Tensor::zeros_like).collect());
        let mut missing: BTreeSet<String> = match steps {
            0 => BTreeSet::new(),
            _ => params.registry().params().flat_map(|(n, _)| [format!("m.{n}"), format!("v.{n}")]).collect(),
        };
        for (key, value) in state {
            let (which, name) = match key.split_at_checked(2) {
                Some(("m.", name)) => (0, name),
                Some(("v.", name)) => (1, name),
                _ => return Err(ParamError::Unknown { name: key.into(), nearest: vec!["m.NAME".into()] }),
            };
            params.set_in_slots(&mut slots[which], name, value)?;
            missing.remove(key);
        }
        if let Some(name) = missing.pop_first() {
            return Err(ParamError::Missing { name });
        }
        let [m, v] = slots;
        self.steps = steps;
        self.moments = match steps {
            0 => Vec::new(),
            _ => m.into_iter().zip(v).map(|(m, v)| Some([m, v])).collect(),
        };
        Ok(())
    }
}
