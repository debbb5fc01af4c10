//! Training on a GPU. Run with an adapter: `IRONLENS_ADAPTER=llvmpipe cargo test -p ironlens-train
//! --test gpu -- --ignored`; without one these tests fail.

#![cfg(feature = "gpu")]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use ironlens_autograd::Var;
use ironlens_tensor::{Device, IndexTensor};
use ironlens_train::{
    AdamW, Data, LanguageModel, RandomTokens, RunDir, TrainConfig, Trainer, previous_token_loss, train_step,
};
use ironlens_transformer::{ActFn, Config, HookedTransformer};

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
    let mut optimizer = AdamW::new((0.9, 0.95), 1e-8, 0.1);
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

/// A GPU that fails ends the step it is in, as a panic; here the loss does.
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
        assert!(steps.get() <= 13, "the GPU failed");
        previous_token_loss(logits, tokens)
    };
    catch_unwind(AssertUnwindSafe(|| trainer.fit_model(&mut model, &mut data(), failing))).unwrap_err();

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
