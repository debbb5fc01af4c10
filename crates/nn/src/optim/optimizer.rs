//! An optimiser over stored weights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ironlens_tensor::{Device, Tensor};

use super::rule::{Pace, Rule};
use crate::error::ParamError;
use crate::params::{Params, check_shape};
use crate::registry::part_of;

/// What the state calls the steps at which a parameter was trained.
const COUNT: &str = "step";

type Names = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Updates weights by their gradients, all of them or group by group.
///
/// ```
/// # use ironlens_nn::optim::Optimizer;
/// // Embeddings learn slowly, and biases do not decay.
/// let optimizer = Optimizer::adamw((0.9, 0.999), 1e-8, 0.1)
///     .with_lr_factor(|name| name.starts_with("embed."), 0.1)
///     .with_weight_decay(|name| name.contains(".b_"), 0.0);
/// # assert_eq!(optimizer.steps(), 0);
/// ```
///
/// Weights that are frozen ([`Params::freeze`]) and those without a gradient stay as they are.
#[derive(Clone)]
pub struct Optimizer {
    rule: Rule,
    weight_decay: f64,
    /// Later ones win.
    groups: Vec<(Names, Setting)>,
    steps: u64,
    /// By stored tensor, for each parameter that is part of it: the steps at which it was trained, by which its bias is
    /// corrected, as PyTorch counts them.
    trained: Vec<Vec<u64>>,
    /// By stored tensor: one for each of the rule's moments, or none yet.
    moments: Vec<Vec<Tensor>>,
}

/// What a group of parameters has of its own.
#[derive(Clone, Copy)]
enum Setting {
    LrFactor(f64),
    WeightDecay(f64),
}

impl Optimizer {
    /// With no steps taken.
    pub fn new(rule: Rule, weight_decay: f64) -> Optimizer {
        Optimizer { rule, weight_decay, groups: Vec::new(), steps: 0, trained: Vec::new(), moments: Vec::new() }
    }

    /// PyTorch's `AdamW`.
    pub fn adamw(betas: (f64, f64), eps: f64, weight_decay: f64) -> Optimizer {
        Optimizer::new(Rule::AdamW { betas, eps }, weight_decay)
    }

    /// PyTorch's `Adam`.
    pub fn adam(betas: (f64, f64), eps: f64, weight_decay: f64) -> Optimizer {
        Optimizer::new(Rule::Adam { betas, eps }, weight_decay)
    }

    /// PyTorch's `SGD`.
    pub fn sgd(momentum: f64, weight_decay: f64) -> Optimizer {
        Optimizer::new(Rule::Sgd { momentum }, weight_decay)
    }

    /// The same, with another weight decay for parameters of whose full name `names` is true. Of several
    /// that name one parameter the last holds.
    #[must_use]
    pub fn with_weight_decay(mut self, names: impl Fn(&str) -> bool + Send + Sync + 'static, decay: f64) -> Self {
        self.groups.push((Arc::new(names), Setting::WeightDecay(decay)));
        self
    }

    /// The same, with the learning rate times `factor` for parameters of whose full name `names` is true.
    #[must_use]
    pub fn with_lr_factor(mut self, names: impl Fn(&str) -> bool + Send + Sync + 'static, factor: f64) -> Self {
        self.groups.push((Arc::new(names), Setting::LrFactor(factor)));
        self
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Factor of the learning rate, and weight decay, of parameter `name`.
    fn settings(&self, name: &str) -> (f64, f64) {
        let mut found = (1.0, self.weight_decay);
        for (_, setting) in self.groups.iter().filter(|(names, _)| names(name)) {
            match setting {
                Setting::LrFactor(factor) => found.0 = *factor,
                Setting::WeightDecay(decay) => found.1 = *decay,
            }
        }
        found
    }

    /// What this is, in words that two optimisers of the same settings for these parameters share.
    pub fn describe(&self, params: &Params) -> String {
        let mut text = format!("{}, weight decay {}", self.rule, self.weight_decay);
        for (name, _) in params.registry().params() {
            let (factor, decay) = self.settings(name);
            if factor != 1.0 {
                text += &format!("; {name}: learning rate times {factor}");
            }
            if decay != self.weight_decay {
                text += &format!("; {name}: weight decay {decay}");
            }
        }
        text
    }

    /// One step at learning rate `lr` with gradients by stored tensor (see [`Params::slots`]); those
    /// are multiplied by the one number of `grad_scale`, if given (see [`clip_coefficient`]). If that is not
    /// finite, no weight and no moment changes.
    ///
    /// [`clip_coefficient`]: super::clip_coefficient
    ///
    /// # Panics
    /// If there is not one gradient or `None` for each stored tensor, or one has another shape.
    #[track_caller]
    pub fn step(&mut self, params: &mut Params, grads: &[Option<Tensor>], lr: f64, grad_scale: Option<&Tensor>) {
        assert!(
            grads.len() == params.slots().len(),
            "Optimizer::step: {} gradients for {} stored tensors; give one, or None, for each of Params::slots",
            grads.len(),
            params.slots().len()
        );
        self.steps += 1;
        self.moments.resize_with(params.slots().len(), Vec::new);
        self.trained.resize_with(params.slots().len(), Vec::new);
        let one;
        let grad_scale = match grad_scale {
            Some(scale) => scale,
            None => {
                one = Tensor::scalar(1.0, params.dtype(), params.device());
                &one
            }
        };
        // On a GPU the rules look at it, for it is not known here.
        if *params.device() == Device::Cpu && !grad_scale.item().is_finite() {
            return;
        }
        let pace = |((factor, weight_decay), step)| Pace { grad_scale, lr: lr * factor, weight_decay, step };
        for (slot, grad) in grads.iter().enumerate() {
            let Some(grad) = grad else { continue };
            // Parameters of one stored tensor mostly fare alike, and are updated in one go.
            let names = params.registry().names_of(slot);
            let fares: Vec<_> = names.map(|n| (!params.is_frozen(n)).then(|| self.settings(n))).collect();
            let trained = &mut self.trained[slot];
            trained.resize(fares.len(), 0);
            let step = |(fare, trained): (Option<_>, &mut u64)| {
                fare.map(|fare| {
                    *trained += 1;
                    (fare, *trained)
                })
            };
            let fares: Vec<_> = fares.into_iter().zip(trained).map(step).collect();
            let moments = &mut self.moments[slot];
            if moments.is_empty() && fares.iter().any(Option::is_some) {
                moments.resize_with(self.rule.moments().len(), || grad.zeros_like());
            }
            if fares.iter().any(|fare| *fare != fares[0]) {
                for (part, fare) in fares.into_iter().enumerate() {
                    if let Some(fare) = fare {
                        update_part(&self.rule, params, (slot, part), grad, moments, pace(fare));
                    }
                }
            } else if let Some(&Some(fare)) = fares.first() {
                let param = &mut params.slots_mut()[slot];
                self.rule.update(param, grad, moments, pace(fare));
            }
        }
    }

    /// The moments as they are stored.
    pub fn moments(&self) -> impl Iterator<Item = &Tensor> {
        self.moments.iter().flatten()
    }

    /// Forgets what is remembered of the elements `indices` along `axis` of parameter `name`, such as those
    /// of dead features of an autoencoder that start anew.
    ///
    /// # Errors
    /// If there is no such parameter.
    ///
    /// # Panics
    /// If the axis or an index does not exist.
    #[track_caller]
    pub fn reset_at(&mut self, params: &Params, name: &str, axis: usize, indices: &[usize]) -> Result<(), ParamError> {
        let (slot, layout) = params.place(name)?;
        for moment in self.moments.get_mut(slot).into_iter().flatten() {
            for &index in indices {
                let place = |m: &Tensor| m.with_layout(layout.clone()).select(axis, index);
                let nothing = place(moment).zeros_like();
                moment.assign(place, &nothing);
            }
        }
        Ok(())
    }

    /// The moments as named tensors, `m.NAME` and `v.NAME` for every parameter `NAME` that is not frozen;
    /// none before the first step. Those of a parameter that had no gradient yet are 0. `step.NAME`, one number in
    /// `f64`, is how many steps trained a parameter that had no gradient at some of [`Optimizer::steps`].
    pub fn state(&self, params: &Params) -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        for (slot, (moments, stored)) in self.moments.iter().zip(params.slots()).enumerate() {
            for (i, kind) in self.rule.moments().iter().enumerate() {
                let moment = moments.get(i).cloned().unwrap_or_else(|| stored.zeros_like());
                let named = params.split_slot(slot, &moment).into_iter().filter(|(n, _)| !params.is_frozen(n));
                all.extend(named.map(|(n, t)| (format!("{kind}.{n}"), t)));
            }
            if self.rule.corrects_bias() {
                let names = params.registry().names_of(slot);
                let counted = names.enumerate().map(|(i, n)| (n, self.trained[slot].get(i).copied().unwrap_or(0)));
                let fewer = counted.filter(|(n, trained)| *trained != self.steps && !params.is_frozen(n));
                let count = |trained| Tensor::from_vec_f64(vec![trained as f64], &[]);
                all.extend(fewer.map(|(n, trained)| (format!("{COUNT}.{n}"), count(trained))));
            }
        }
        all
    }

    /// Takes up where `steps` steps and what [`Optimizer::state`] gave left off. A parameter of which it has no count
    /// was trained at all of them.
    ///
    /// # Errors
    /// If a name or shape is not the model's, or a moment is missing.
    pub fn restore<'a>(
        &mut self,
        params: &Params,
        steps: u64,
        state: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<(), ParamError> {
        let kinds = self.rule.moments();
        let mut stored: Vec<Vec<Tensor>> =
            kinds.iter().map(|_| params.slots().iter().map(Tensor::zeros_like).collect()).collect();
        let trained = || params.registry().params().map(|(n, _)| n).filter(|n| !params.is_frozen(n));
        let mut missing: BTreeSet<String> = match steps {
            0 => BTreeSet::new(),
            _ => trained().flat_map(|n| kinds.iter().map(move |kind| format!("{kind}.{n}"))).collect(),
        };
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (key, value) in state {
            if let Some(name) = key.strip_prefix(COUNT).and_then(|n| n.strip_prefix('.'))
                && self.rule.corrects_bias()
            {
                params.place(name)?;
                check_shape(key, &[], value)?;
                counts.insert(name, value.item() as u64);
                continue;
            }
            let place =
                key.split_once('.').and_then(|(kind, name)| Some((kinds.iter().position(|k| *k == kind)?, name)));
            let Some((kind, name)) = place else {
                let nearest = kinds.iter().map(|kind| format!("{kind}.NAME")).collect();
                return Err(ParamError::Unknown { name: key.into(), nearest });
            };
            params.set_in_slots(&mut stored[kind], name, value)?;
            missing.remove(key);
        }
        if let Some(name) = missing.pop_first() {
            return Err(ParamError::Missing { name });
        }
        self.steps = steps;
        let slots = 0..params.slots().len();
        // What is frozen was not trained: nothing is remembered of it.
        let trained_at = |name: &str| match params.is_frozen(name) {
            true => 0,
            false => counts.get(name).copied().unwrap_or(steps),
        };
        self.trained = slots.clone().map(|slot| params.registry().names_of(slot).map(trained_at).collect()).collect();
        self.moments = match steps {
            0 => Vec::new(),
            _ => {
                let of = |slot: usize| match self.trained[slot].iter().all(|trained| *trained == 0) {
                    true => Vec::new(),
                    false => stored.iter().map(|of| of[slot].clone()).collect(),
                };
                slots.map(of).collect()
            }
        };
        Ok(())
    }
}

impl std::fmt::Debug for Optimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let groups = self.groups.len();
        write!(f, "Optimizer({}, weight decay {}, {groups} groups, {} steps)", self.rule, self.weight_decay, self.steps)
    }
}

/// A step of one parameter of several that are stored in one tensor: on copies, written back.
fn update_part(
    rule: &Rule,
    params: &mut Params,
    (slot, part): (usize, usize),
    grad: &Tensor,
    moments: &mut [Tensor],
    pace: Pace<'_>,
) {
    let layout = params.registry().layout_of(slot, part).clone();
    let copy = |stored: &Tensor| part_of(&stored.contiguous(), &layout).contiguous();
    let (mut param, grad) = (copy(&params.slots()[slot]), copy(grad));
    let mut own: Vec<Tensor> = moments.iter().map(copy).collect();
    rule.update(&mut param, &grad, &mut own, pace);
    params.slots_mut()[slot].assign(|s| s.with_layout(layout.clone()), &param);
    for (moment, own) in moments.iter_mut().zip(&own) {
        moment.assign(|s| s.with_layout(layout.clone()), own);
    }
}
