//! Single steps of training: what is applied, and what is refused.

use std::collections::BTreeMap;

use ironlens::prelude::*;
use ironlens::train::{LanguageModel, Optimizer, Step, TrainError, clip_coefficient, train_step};
use ironlens_tests::{small_model, tokens};

fn weights(model: &HookedTransformer) -> BTreeMap<String, Vec<f32>> {
    model.params().iter().map(|(name, value)| (name.to_string(), value.to_vec())).collect()
}

/// A step on the notebook's loss.
fn step_of(
    model: &mut HookedTransformer,
    optimizer: &mut Optimizer,
    tokens: &IndexTensor,
    lr: f64,
    clip: Option<f64>,
) -> Step {
    train_step(&mut LanguageModel::new(model, previous_token_loss), optimizer, tokens, lr, clip).unwrap()
}

fn optimizer() -> Optimizer {
    Optimizer::adamw((0.9, 0.95), 1e-8, 0.1)
}

#[test]
fn a_step_applies_the_clipped_gradient() {
    let tokens = tokens(4, 12);
    let stepped = |clip: Option<f64>| {
        let (mut model, mut optimizer) = (small_model(), optimizer());
        let step = step_of(&mut model, &mut optimizer, &tokens, 1e-2, clip);
        (weights(&model), step.grad_norm)
    };
    // Clipped far below epsilon, a gradient moves the weights by far less than the learning rate.
    let clip = 1e-8;
    let (clipped, grad_norm) = stepped(Some(clip));
    let (free, same_norm) = stepped(None);
    let norm = grad_norm.item();
    assert!(norm > 0.1 && norm == same_norm.item(), "{norm}");
    let start = weights(&small_model());
    let moved = |to: &BTreeMap<String, Vec<f32>>| {
        // Less the decay.
        let of = |name: &String| start[name].iter().zip(&to[name]).map(|(x, y)| f64::from((x * 0.999 - y).abs()));
        start.keys().flat_map(of).fold(0.0, f64::max)
    };
    assert!(moved(&free) > 9e-3 && moved(&clipped) < 5e-3, "{} {}", moved(&free), moved(&clipped));

    // And it is the step of AdamW on the gradient times clip / norm.
    let mut model = small_model();
    let (_, grads) = model.call(&tokens).gradients_on_device(|out| previous_token_loss(out.logits(), &tokens)).unwrap();
    let scale = clip_coefficient(&grad_norm, clip);
    assert!((scale.item() / (clip / (norm + 1e-6)) - 1.0).abs() < 1e-5);
    optimizer().step(model.params_mut(), &grads.into_slots(), 1e-2, Some(&scale));
    assert!(weights(&model) == clipped);
}

#[test]
fn each_step_has_its_own_learning_rate() {
    let config = TrainConfig { steps: 3, batch_size: 4, schedule: Schedule::Warmup, ..TrainConfig::notebook() };
    let mut trained = small_model();
    let mut data = RandomTokens::new(trained.config(), 2).unwrap();
    let run = Trainer::new(config.clone()).fit_model(&mut trained, &mut data, previous_token_loss).unwrap();
    let rates: Vec<f64> = run.metrics.iter().map(|m| m.lr).collect();
    assert_eq!(rates, [0.0, 1.0, 2.0].map(|step| config.lr * (step / 100.0)));

    let (mut model, mut optimizer) = (small_model(), optimizer());
    let mut data = RandomTokens::new(model.config(), 2).unwrap();
    for (step, rate) in rates.into_iter().enumerate() {
        let batch = data.batch(4).unwrap();
        step_of(&mut model, &mut optimizer, &batch, rate, config.clip());
        assert_eq!(step > 0, weights(&model) != weights(&small_model()), "the warm-up begins at 0");
    }
    assert!(weights(&model) == weights(&trained));
}

#[test]
fn a_gradient_that_is_no_number_is_not_applied_though_the_loss_is_fine() {
    // The square root of 0 has an infinite slope, and that times 0 is no number.
    let steep = |logits: &Var, tokens: &IndexTensor| {
        previous_token_loss(logits, tokens) + logits.mean_all().affine(0.0, 0.0).sqrt()
    };
    let mut model = small_model();
    let mut data = RandomTokens::new(model.config(), 2).unwrap();
    let config = TrainConfig { steps: 3, batch_size: 4, ..TrainConfig::notebook() };
    match Trainer::new(config).fit_model(&mut model, &mut data, steep) {
        Err(TrainError::NotFinite { step: 0, what: "gradient norm", value, .. }) => assert!(value.is_nan()),
        other => panic!("{other:?}"),
    }
    assert!(weights(&model) == weights(&small_model()));
}

#[test]
fn an_optimizer_goes_on_with_all_of_its_moments_or_not_at_all() {
    let (mut model, mut first) = (small_model(), optimizer());
    let tokens = tokens(4, 12);
    step_of(&mut model, &mut first, &tokens, 1e-2, None);
    let state = first.state(model.params());
    let names = |state: &[(String, Tensor)]| state.iter().map(|(n, t)| (n.clone(), t.clone())).collect::<Vec<_>>();
    let restore = |state: &[(String, Tensor)], steps| {
        let mut second = optimizer();
        second.restore(model.params(), steps, state.iter().map(|(n, t)| (n.as_str(), t))).map(|()| second)
    };
    let mut second = restore(&state, 1).unwrap();
    let mut other = model.clone();
    step_of(&mut other, &mut second, &tokens, 1e-2, None);
    let mut same = model.clone();
    step_of(&mut same, &mut first, &tokens, 1e-2, None);
    assert!(weights(&other) == weights(&same));

    for i in 0..state.len() {
        let mut lacking = names(&state);
        let (name, _) = lacking.remove(i);
        let error = restore(&lacking, 1).err().unwrap().to_string();
        assert_eq!(error, format!("`{name}` is missing"));
    }
    for odd in ["a🦀x", "", "m", "m.", "w.embed.W_E", "é"] {
        let mut state = names(&state);
        state[0].0 = odd.into();
        assert!(restore(&state, 1).is_err(), "{odd:?}");
    }
}

#[test]
#[should_panic(expected = "Optimizer::step: 2 gradients for ")]
fn gradients_of_another_number_are_refused() {
    let mut model = small_model();
    optimizer().step(model.params_mut(), &[None, None], 1e-2, None);
}
