//! Optimisers against PyTorch's formulas, written out for one number; groups, freezing and what is kept.

use ironlens_nn::optim::{Optimizer, Rule};
use ironlens_nn::{Init, Params, Registry};
use ironlens_tensor::{DType, Device, Layout, Rng, Tensor};

/// Two matrices that are stored side by side, as W_Q and W_K are, and a bias.
fn params() -> Params {
    let mut registry = Registry::new("Toy");
    let mut scope = registry.root();
    let part = |start| Layout::strided(vec![3, 2], vec![4, 1], start);
    scope.packed(&[3, 4], &[("W_Q", part(0), Init::Normal(1.0)), ("W_K", part(2), Init::Normal(1.0))]);
    scope.param("b", &[4], Init::Normal(1.0));
    Params::initialised(registry, 5, &Device::Cpu).to_dtype(DType::F64)
}

/// Gradients of step `step`.
fn grads(params: &Params, step: u64) -> Vec<Option<Tensor>> {
    let draw = |(i, p): (usize, &Tensor)| {
        Some(Rng::new(step, i as u64).normal(p.shape(), 0.0, 1.0, &Device::Cpu).to_dtype(DType::F64))
    };
    params.slots().iter().enumerate().map(draw).collect()
}

fn steps(optimizer: &mut Optimizer, params: &mut Params, range: std::ops::Range<u64>) {
    let half = Tensor::from_vec_f64(vec![0.5], &[]);
    for step in range {
        let grads = grads(params, step);
        optimizer.step(params, &grads, 0.01 * (step + 1) as f64, Some(&half));
    }
}

fn values(params: &Params, name: &str) -> Vec<f64> {
    params.get(name).unwrap().to_vec_f64()
}

/// One weight by PyTorch's documentation of its optimisers.
fn by_hand(rule: Rule, decay: f64, mut weight: f64, grads: &[f64]) -> f64 {
    let (mut m, mut v) = (0.0, 0.0);
    for (step, grad) in grads.iter().enumerate() {
        let (lr, t) = (0.01 * (step + 1) as f64, step as i32 + 1);
        let mut g = grad * 0.5;
        match rule {
            Rule::AdamW { .. } => weight -= lr * decay * weight,
            _ => g += decay * weight,
        }
        weight -= match rule {
            Rule::AdamW { betas, eps } | Rule::Adam { betas, eps } => {
                m = betas.0 * m + (1.0 - betas.0) * g;
                v = betas.1 * v + (1.0 - betas.1) * g * g;
                let (m, v) = (m / (1.0 - betas.0.powi(t)), v / (1.0 - betas.1.powi(t)));
                lr * m / (v.sqrt() + eps)
            }
            Rule::Sgd { momentum } => {
                m = momentum * m + g;
                lr * m
            }
            _ => unreachable!(),
        };
    }
    weight
}

#[test]
fn rules_are_pytorchs() {
    let (betas, eps) = ((0.8, 0.95), 1e-6);
    let rules = [
        Rule::AdamW { betas, eps },
        Rule::Adam { betas, eps },
        Rule::Sgd { momentum: 0.0 },
        Rule::Sgd { momentum: 0.9 },
    ];
    for (rule, decay) in rules.into_iter().flat_map(|rule| [(rule, 0.0), (rule, 0.3)]) {
        let (before, mut after) = (params(), params());
        steps(&mut Optimizer::new(rule, decay), &mut after, 0..6);
        let all: Vec<Vec<f64>> = (0..6).map(|s| grads(&before, s)[1].as_ref().unwrap().to_vec_f64()).collect();
        for i in 0..4 {
            let wanted = by_hand(rule, decay, values(&before, "b")[i], &all.iter().map(|g| g[i]).collect::<Vec<_>>());
            let found = values(&after, "b")[i];
            assert!((wanted - found).abs() < 1e-12, "{rule} with decay {decay}: {found} is not {wanted}");
        }
    }
}

#[test]
fn one_of_two_matrices_of_one_tensor_is_frozen() {
    for optimizer in [Optimizer::adamw((0.9, 0.999), 1e-8, 0.1), Optimizer::sgd(0.9, 0.1)] {
        let (start, mut all, mut frozen) = (params(), params(), params());
        assert_eq!(frozen.freeze(|name| name == "W_Q"), 1);
        let (mut one, mut other) = (optimizer.clone(), optimizer);
        steps(&mut one, &mut all, 0..5);
        steps(&mut other, &mut frozen, 0..5);
        assert_eq!(values(&frozen, "W_Q"), values(&start, "W_Q"), "neither gradient nor decay moves it");
        for name in ["W_K", "b"] {
            assert_eq!(values(&frozen, name), values(&all, name));
        }
        assert!(other.state(&frozen).iter().all(|(name, _)| !name.ends_with("W_Q")));
        // Nothing is remembered that could move it when it is trained again.
        frozen.unfreeze(|_| true);
        let moments = other.state(&frozen);
        let of_frozen = moments.iter().filter(|(name, _)| name.ends_with("W_Q"));
        assert!(of_frozen.flat_map(|(_, m)| m.to_vec_f64()).all(|v| v == 0.0));
    }
}

#[test]
fn a_factor_of_the_gradient_that_is_not_finite_changes_nothing() {
    let betas = (0.9, 0.999);
    let adam = [Optimizer::adamw(betas, 1e-8, 0.1), Optimizer::adam(betas, 1e-8, 0.1)];
    for optimizer in adam.into_iter().chain([Optimizer::sgd(0.9, 0.1), Optimizer::sgd(0.0, 0.0)]) {
        for factor in [f64::NAN, f64::INFINITY] {
            let (start, mut after, mut optimizer) = (params(), params(), optimizer.clone());
            let factor = Tensor::from_vec_f64(vec![factor], &[]);
            optimizer.step(&mut after, &grads(&start, 0), 0.1, Some(&factor));
            for name in ["W_Q", "W_K", "b"] {
                assert_eq!(values(&after, name), values(&start, name));
            }
            assert!(optimizer.moments().flat_map(|m| m.to_vec_f64()).all(|m| m == 0.0));
        }
    }
}

#[test]
fn a_frozen_tensor_has_no_moments() {
    let mut params = params();
    params.freeze(|name| name.starts_with("W_"));
    let mut optimizer = Optimizer::adamw((0.9, 0.999), 1e-8, 0.1);
    steps(&mut optimizer, &mut params, 0..2);
    assert_eq!(optimizer.moments().count(), 2, "those of `b`");
    let state = optimizer.state(&params);
    let mut restored = Optimizer::adamw((0.9, 0.999), 1e-8, 0.1);
    restored.restore(&params, 2, state.iter().map(|(name, value)| (name.as_str(), value))).unwrap();
    assert_eq!(restored.moments().count(), 2, "nor those of a run that goes on");
}

#[test]
fn groups_have_their_own_rate_and_decay() {
    let (mut groups, mut slow, mut plain) = (params(), params(), params());
    let base = Optimizer::adamw((0.9, 0.999), 1e-8, 0.2);
    let own = base
        .clone()
        .with_weight_decay(|name| name.starts_with("W_"), 0.5)
        .with_weight_decay(|name| name == "W_K", 0.0)
        .with_lr_factor(|name| name == "W_Q", 0.1);
    assert_ne!(own.describe(&groups), base.describe(&groups));
    steps(&mut own.clone(), &mut groups, 0..4);
    steps(&mut Optimizer::adamw((0.9, 0.999), 1e-8, 0.0), &mut plain, 0..4);
    assert_eq!(values(&groups, "W_K"), values(&plain, "W_K"), "the last that names it holds");
    let mut tenth = Optimizer::adamw((0.9, 0.999), 1e-8, 0.5);
    let half = Tensor::from_vec_f64(vec![0.5], &[]);
    for step in 0..4 {
        let grads = grads(&slow, step);
        tenth.step(&mut slow, &grads, 0.01 * (step + 1) as f64 * 0.1, Some(&half));
    }
    assert_eq!(values(&groups, "W_Q"), values(&slow, "W_Q"));
    let mut same = params();
    steps(&mut base.clone(), &mut same, 0..4);
    assert_eq!(values(&groups, "b"), values(&same, "b"));
}

#[test]
fn what_is_kept_goes_on_to_the_same_bits() {
    for optimizer in [
        Optimizer::adamw((0.9, 0.999), 1e-8, 0.1),
        Optimizer::adam((0.9, 0.999), 1e-8, 0.1),
        Optimizer::sgd(0.9, 0.1),
        Optimizer::sgd(0.0, 0.1),
    ] {
        let (mut whole, mut parts) = (params(), params());
        parts.freeze(|name| name == "W_K");
        whole.freeze(|name| name == "W_K");
        let (mut one, mut first) = (optimizer.clone(), optimizer.clone());
        steps(&mut one, &mut whole, 0..6);
        steps(&mut first, &mut parts, 0..3);
        let state = first.state(&parts);
        let named = || state.iter().map(|(name, value)| (name.as_str(), value));
        let mut second = optimizer.clone();
        second.restore(&parts, 3, named()).unwrap();
        steps(&mut second, &mut parts, 3..6);
        for name in ["W_Q", "W_K", "b"] {
            assert_eq!(values(&whole, name), values(&parts, name));
        }
        if !state.is_empty() {
            let error = optimizer.clone().restore(&parts, 3, named().skip(1)).unwrap_err().to_string();
            assert!(error.contains("m.W_Q"), "{error}");
            let error = optimizer.clone().restore(&parts, 3, [("u.b", &state[0].1)]).unwrap_err().to_string();
            assert!(error.contains("`u.b`") && error.contains("m.NAME"), "{error}");
        }
    }
}

#[test]
fn chosen_rows_forget() {
    let mut params = params();
    let mut optimizer = Optimizer::adamw((0.9, 0.999), 1e-8, 0.1);
    steps(&mut optimizer, &mut params, 0..3);
    let before = optimizer.state(&params);
    optimizer.reset_at(&params, "W_K", 0, &[0, 2]).unwrap();
    for ((name, before), (_, after)) in before.iter().zip(optimizer.state(&params)) {
        let (mut before, after) = (before.to_vec_f64(), after.to_vec_f64());
        if name.ends_with("W_K") {
            for i in [0, 1, 4, 5] {
                before[i] = 0.0;
            }
        }
        assert_eq!(before, after, "{name}");
    }
    assert!(optimizer.reset_at(&params, "W_V", 0, &[0]).unwrap_err().to_string().contains("W_V"));
}

/// PyTorch counts for each parameter the steps at which it had a gradient.
#[test]
fn the_first_gradient_is_the_first_step_of_its_parameter() {
    let (betas, eps) = ((0.8, 0.95), 1e-6);
    for (rule, decay) in [(Rule::AdamW { betas, eps }, 0.3), (Rule::Adam { betas, eps }, 0.3)] {
        let (start, mut params) = (params(), params());
        let mut optimizer = Optimizer::new(rule, decay);
        for step in 0..50 {
            let mut grads = grads(&start, step);
            grads[1] = None;
            optimizer.step(&mut params, &grads, 0.01, None);
        }
        assert_eq!(values(&params, "b"), values(&start, "b"), "without a gradient nothing moves it, decay included");
        // As in a run that was stopped here, and gone on with.
        let state = optimizer.state(&params);
        let names: Vec<&str> = state.iter().map(|(n, _)| n.as_str()).filter(|n| n.starts_with("step.")).collect();
        assert_eq!(names, ["step.b"], "those that were always trained need no count");
        let mut restored = Optimizer::new(rule, decay);
        restored.restore(&params, 50, state.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
        assert_eq!(restored.moments().count(), optimizer.moments().count());
        let mut of_restored = params.clone();
        let (all, half) = (grads(&start, 50), Tensor::from_vec_f64(vec![0.5], &[]));
        optimizer.step(&mut params, &all, 0.01, Some(&half));
        restored.step(&mut of_restored, &all, 0.01, Some(&half));
        let grad = all[1].as_ref().unwrap().to_vec_f64();
        for (i, found) in values(&params, "b").into_iter().enumerate() {
            let wanted = by_hand(rule, decay, values(&start, "b")[i], &grad[i..=i]);
            assert!((wanted - found).abs() < 1e-12, "{rule}: {found} is not {wanted}");
        }
        for name in ["W_Q", "W_K", "b"] {
            assert_eq!(values(&params, name), values(&of_restored, name));
        }
        // A state of an earlier version has no counts.
        let old = state.iter().filter(|(n, _)| *n != "step.b").map(|(n, t)| (n.as_str(), t));
        let mut restored = Optimizer::new(rule, decay);
        restored.restore(&params, 50, old).unwrap();
        assert!(restored.state(&params).iter().all(|(n, _)| !n.starts_with("step.")));
        let error = restored.restore(&params, 50, [("step.c", &state[0].1)]).unwrap_err().to_string();
        assert!(error.contains("`c`"), "{error}");
    }
}

/// What is trained again after it was frozen starts with its first step, whether or not it lies beside others.
#[test]
fn a_frozen_parameter_takes_no_steps() {
    let (start, mut params) = (params(), params());
    params.freeze(|name| name == "W_Q");
    let mut optimizer = Optimizer::adamw((0.8, 0.95), 1e-6, 0.3);
    steps(&mut optimizer, &mut params, 0..5);
    params.unfreeze(|_| true);
    let (grads, half) = (grads(&start, 5), Tensor::from_vec_f64(vec![0.5], &[]));
    optimizer.step(&mut params, &grads, 0.01, Some(&half));
    let mut fresh = start.clone();
    Optimizer::adamw((0.8, 0.95), 1e-6, 0.3).step(&mut fresh, &grads, 0.01, Some(&half));
    assert_eq!(values(&params, "W_Q"), values(&fresh, "W_Q"));
}
