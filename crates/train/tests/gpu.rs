//! Training on a GPU. Run with an adapter: `IRONLENS_ADAPTER=llvmpipe cargo test -p ironlens-train
//! --test gpu -- --ignored`; without one these tests fail.

#![cfg(feature = "gpu")]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Mutex;

use ironlens_autograd::Var;
use ironlens_tensor::{Device, GpuFailure, IndexTensor};
use ironlens_train::{
    Data, LanguageModel, Optimizer, RandomTokens, RunDir, TrainConfig, TrainError, Trainer, previous_token_loss,
    train_step,
};
use ironlens_transformer::{ActFn, Config, HookedTransformer, PositionalEmbeddingType};

fn gpu() -> Device {
    Device::gpu().expect("an adapter; IRONLENS_ADAPTER may name a software one")
}

/// The tests share the device, whose buffers one of them counts.
static ALONE: Mutex<()> = Mutex::new(());

fn config() -> Config {
    Config { d_model: 16, d_head: 8, n_layers: 1, n_ctx: 6, d_vocab: 9, act_fn: ActFn::Gelu, ..Config::default() }
}

#[test]
#[ignore = "needs an adapter"]
fn a_step_is_one_submission_and_its_memory_is_used_again() {
    let _alone = ALONE.lock();
    let device = gpu();
    let Device::Gpu(handle) = &device else { panic!("a GPU") };
    let mut model = HookedTransformer::new(config(), &device, 0).unwrap();
    let mut data = RandomTokens::new(model.config(), 1).unwrap();
    let mut optimizer = Optimizer::adamw((0.9, 0.95), 1e-8, 0.1);
    let mut step = || {
        let tokens = data.batch(2).unwrap();
        let mut learner = LanguageModel::new(&mut model, previous_token_loss);
        train_step(&mut learner, &mut optimizer, &tokens, 1e-3, Some(1.0)).unwrap();
    };
    (0..10).for_each(|_| step());
    let (memory, counts) = (handle.memory(), handle.counts());
    (0..200).for_each(|_| step());
    let (after, now) = (handle.memory(), handle.counts());
    assert_eq!(after.live_buffers, memory.live_buffers);
    assert_eq!(now.submits - counts.submits, 200, "one submission per step");
    assert_eq!(now.reads, counts.reads, "nothing is read back in a step");
    // Steps in flight need a few buffers more than one after the other.
    assert!(after.created <= memory.created + 32, "{memory:?} {after:?}");
}

#[test]
#[ignore = "needs an adapter"]
fn a_forward_pass_uploads_tokens_only_also_in_rotary_models() {
    let _alone = ALONE.lock();
    let device = gpu();
    let Device::Gpu(handle) = &device else { panic!("a GPU") };
    let positional_embedding_type = PositionalEmbeddingType::Rotary;
    let cfg = Config { n_ctx: 4096, n_layers: 3, positional_embedding_type, ..config() };
    let model = HookedTransformer::new(cfg, &device, 0).unwrap();
    let tokens = IndexTensor::from([[1, 2, 3, 4, 5, 6]]);
    model.forward(&tokens).unwrap().to_vec();
    let before = handle.counts().uploaded;
    model.forward(&tokens).unwrap().to_vec();
    // The tables of 4096 positions are 131 kB; what is left is ids and the kernels' arguments.
    let uploaded = handle.counts().uploaded - before;
    assert!(uploaded < 32_000, "{uploaded} bytes");
}

#[test]
#[ignore = "needs an adapter"]
fn thirty_steps_agree_with_the_cpu() {
    let _alone = ALONE.lock();
    let losses = |device: &Device| {
        let mut model = HookedTransformer::new(config(), device, 0).unwrap();
        let mut data = RandomTokens::new(model.config(), 1).unwrap();
        let train = TrainConfig { steps: 30, batch_size: 2, log_every: 10, ..TrainConfig::notebook() };
        let run = Trainer::new(train).fit_model(&mut model, &mut data, previous_token_loss).unwrap();
        assert_eq!(run.metrics.len(), 30);
        run.losses()
    };
    for (cpu, gpu) in losses(&Device::Cpu).into_iter().zip(losses(&gpu())) {
        assert!((cpu - gpu).abs() < 1e-5 * cpu, "{cpu} on the CPU, {gpu} on the GPU");
    }
}

/// Values of all weights.
fn weights(model: &HookedTransformer) -> Vec<f32> {
    model.params().slots().iter().flat_map(|slot| slot.to_vec()).collect()
}

#[test]
#[ignore = "needs an adapter"]
fn a_step_whose_loss_is_no_number_changes_no_weight() {
    let _alone = ALONE.lock();
    let betas = (0.9, 0.95);
    let adam = [Optimizer::adamw(betas, 1e-8, 0.1), Optimizer::adam(betas, 1e-8, 0.1)];
    for mut optimizer in adam.into_iter().chain([Optimizer::sgd(0.9, 0.1), Optimizer::sgd(0.0, 0.0)]) {
        let mut model = HookedTransformer::new(config(), &gpu(), 0).unwrap();
        let tokens = RandomTokens::new(model.config(), 1).unwrap().batch(2).unwrap();
        let mut step = |factor: f64, clip: Option<f64>| {
            let loss = |logits: &Var, tokens: &IndexTensor| previous_token_loss(logits, tokens) * factor;
            let before = weights(&model);
            train_step(&mut LanguageModel::new(&mut model, loss), &mut optimizer, &tokens, 1e-2, clip).unwrap();
            (before, weights(&model))
        };
        for clip in [None, Some(1.0)] {
            let (before, after) = step(1.0, clip);
            assert!(before != after && after.iter().all(|w| w.is_finite()));
            for factor in [f64::NAN, f64::INFINITY] {
                let (before, after) = step(factor, clip);
                assert_eq!(before, after);
            }
        }
    }
}

/// Nobody asks a GPU for its numbers in the 1000 steps between two logs, but so many may not wait. What is told is of
/// the step at fault, and the weights are those before it.
#[test]
#[ignore = "needs an adapter"]
fn a_run_ends_with_the_weights_before_the_step_at_fault() {
    let _alone = ALONE.lock();
    let trainer = |steps| {
        let train = TrainConfig { steps, batch_size: 2, log_every: 1000, ..TrainConfig::notebook() };
        Trainer::new(train).schedule(|_| 1e-3)
    };
    let data = || RandomTokens::new(&config(), 1).unwrap();
    let mut right = HookedTransformer::new(config(), &gpu(), 0).unwrap();
    trainer(5).fit_model(&mut right, &mut data(), previous_token_loss).unwrap();

    let mut model = HookedTransformer::new(config(), &gpu(), 0).unwrap();
    let mut from_here = data();
    from_here.seek(5);
    let bad = from_here.batch(2).unwrap();
    let asked = Cell::new(0);
    let failing = |logits: &Var, tokens: &IndexTensor| {
        asked.set(asked.get() + 1);
        previous_token_loss(logits, tokens) * if *tokens == bad { f64::NAN } else { 1.0 }
    };
    let error = trainer(400).fit_model(&mut model, &mut data(), failing).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { step: 5, what: "loss", .. }), "{error}");
    assert!(asked.get() < 300, "{} steps until it was noticed", asked.get());
    assert_eq!(weights(&model), weights(&right));
}

/// A GPU that fails ends the step it is in, by a panic; here the loss does as if it were one.
#[test]
#[ignore = "needs an adapter"]
fn a_run_whose_gpu_failed_goes_on_on_the_cpu() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let train = TrainConfig { steps: 20, batch_size: 2, checkpoint_every: 5, log_every: 1, ..TrainConfig::notebook() };
    let data = || RandomTokens::new(&config(), 1).unwrap();

    let whole = folder.path().join("whole");
    let mut model = HookedTransformer::new(config(), &Device::Cpu, 0).unwrap();
    let trainer = Trainer::new(train.clone()).keep(&whole);
    let right = trainer.fit_model(&mut model, &mut data(), previous_token_loss).unwrap().losses();

    let parts = folder.path().join("parts");
    let mut model = HookedTransformer::new(config(), &gpu(), 0).unwrap();
    let trainer = Trainer::new(train).keep(&parts);
    let steps = Cell::new(0);
    let failing = |logits: &Var, tokens: &IndexTensor| {
        steps.set(steps.get() + 1);
        if steps.get() > 13 {
            panic_any(GpuFailure::Failed { adapter: "Card".into(), what: "it was lost".into() });
        }
        previous_token_loss(logits, tokens)
    };
    let told = catch_unwind(AssertUnwindSafe(|| trainer.fit_model(&mut model, &mut data(), failing))).unwrap_err();
    assert!(matches!(told.downcast_ref(), Some(GpuFailure::Failed { adapter, .. }) if adapter == "Card"));

    let run = RunDir::open(&parts).unwrap();
    let at = run.last_checkpoint().unwrap().step;
    assert!((5..20).contains(&at), "the last checkpoint is of step {at}");
    let mut model = HookedTransformer::new(run.model_config().unwrap().clone(), &Device::Cpu, 9).unwrap();
    let sound = |logits: &Var, tokens: &IndexTensor| previous_token_loss(logits, tokens);
    let losses = Trainer::resume(run).fit_model(&mut model, &mut data(), sound).unwrap().losses();
    assert_eq!(losses.len(), 20);
    for (right, found) in right.into_iter().zip(losses) {
        assert!((right - found).abs() < 1e-5 * right, "{right} on the CPU, {found} in parts");
    }
}

#[test]
#[ignore = "needs an adapter"]
fn what_is_too_large_for_the_gpu_is_refused_before_anything_is_done() {
    let _alone = ALONE.lock();
    let device = gpu();
    let limit = device.max_tensor_bytes().expect("GPUs have limits") as usize;
    let created = || {
        let Device::Gpu(handle) = &device else { panic!("a GPU") };
        handle.memory().created
    };

    let before = created();
    let wide = Config { d_vocab: limit / 64 + 1, ..config() };
    let error = HookedTransformer::new(wide, &device, 0).unwrap_err().to_string();
    assert!(error.contains("embed.W_E would be a tensor of shape") && error.contains("use the CPU"), "{error}");
    assert_eq!(created(), before, "no weight was made");

    // A pattern of two heads, 512 queries and 512 keys takes 2 MiB.
    let model = HookedTransformer::new(Config { n_ctx: 512, ..config() }, &device, 0).unwrap();
    let (fits, before) = (limit >> 21, created());
    let expected = format!("the attention pattern of {} sequences would be a tensor", fits + 1);
    let tokens = IndexTensor::new(vec![0; 512 * (fits + 1)], &[fits + 1, 512]);
    let error = model.forward(&tokens).unwrap_err().to_string();
    assert!(error.contains(&expected) && error.contains(&format!("{fits} at a time fit")), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    for (batch_size, eval_batch_size) in [(fits + 1, 1), (1, fits + 1)] {
        let train = TrainConfig { steps: 1, batch_size, eval_batch_size, ..TrainConfig::notebook() };
        let mut data = RandomTokens::new(model.config(), 1).unwrap();
        let error =
            Trainer::new(train).keep(&run).fit_model(&mut model.clone(), &mut data, previous_token_loss).unwrap_err();
        assert!(error.to_string().contains(&expected) && !run.exists(), "{error}");
    }
    assert_eq!(created(), before, "no activation was made");
    assert!(model.check_fits(fits, 512).is_ok());
    // As many sequences fit if they are short.
    let short = IndexTensor::new(vec![0; fits + 1], &[fits + 1, 1]);
    assert!(model.forward(&short).is_ok());
}
