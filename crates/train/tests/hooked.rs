//! Training of a model with permanent hooks, and on padded sequences.

use ironlens_autograd::Var;
use ironlens_tensor::{Device, IndexTensor, Rng};
use ironlens_train::{Data, DataRecord, OptimizerName, RunDir, TrainConfig, TrainError, Trainer};
use ironlens_transformer::{ActFn, Config, HookedTransformer, Sequences, next_token_loss};

fn model() -> HookedTransformer {
    let cfg =
        Config { d_model: 8, d_head: 4, n_layers: 2, n_ctx: 6, d_vocab: 7, act_fn: ActFn::Relu, ..Config::default() };
    HookedTransformer::new(cfg, &Device::Cpu, 3).unwrap()
}

/// Sequences of 4 tokens, with `padding` more that are hidden.
struct Padded {
    padding: usize,
    next: u64,
}

impl Padded {
    fn sequences(&self, size: usize, number: u64) -> Sequences {
        let tokens = Rng::new(1, number).integers(&[size, 4], 0, 7);
        let fill = |id: u32| IndexTensor::new(vec![id; size * self.padding], &[size, self.padding]);
        let ones = IndexTensor::new(vec![1; size * 4], &[size, 4]);
        Sequences { tokens: IndexTensor::cat(&[tokens, fill(6)], 1), mask: Some(IndexTensor::cat(&[ones, fill(0)], 1)) }
    }
}

impl Data for Padded {
    type Batch = Sequences;

    fn batch(&mut self, size: usize) -> Result<Sequences, TrainError> {
        self.next += 1;
        Ok(self.sequences(size, self.next))
    }

    fn seek(&mut self, batch: u64) {
        self.next = batch;
    }

    fn held_out(&self, size: usize) -> Result<Sequences, TrainError> {
        Ok(self.sequences(size, 0))
    }

    fn describe(&self) -> DataRecord {
        DataRecord { description: "random tokens with padding".into(), seed: Some(1) }
    }
}

fn loss(logits: &Var, batch: &Sequences) -> Var {
    next_token_loss(logits, &batch.tokens, batch.mask.as_ref())
}

fn config() -> TrainConfig {
    TrainConfig { steps: 5, batch_size: 3, lr: 1e-2, weight_decay: 0.0, ..TrainConfig::default() }
}

#[test]
fn padding_is_trained_on_by_nobody() {
    let train = |padding| {
        let mut model = model();
        let run = Trainer::new(config()).fit_model(&mut model, &mut Padded { padding, next: 0 }, loss).unwrap();
        (run.losses(), run.held_out_loss().unwrap(), model.param("blocks.1.mlp.W_in").unwrap().to_vec())
    };
    let (alone, padded) = (train(0), train(2));
    assert!(alone.0.iter().zip(&padded.0).all(|(a, b)| (a - b).abs() < 1e-5), "{:?}, {:?}", alone.0, padded.0);
    assert!((alone.1 - padded.1).abs() < 1e-5);
    assert!(alone.2.iter().zip(&padded.2).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn a_model_is_trained_with_its_permanent_hooks() {
    let mut model = model();
    let before = model.param("blocks.0.attn.W_V").unwrap();
    model.add_perma_hook("blocks.0.attn.hook_z", |z, _| z.zero_at(2, 1)).unwrap();
    let config = TrainConfig { optimizer: OptimizerName::Sgd, ..config() };
    Trainer::new(config).fit_model(&mut model, &mut Padded { padding: 1, next: 0 }, loss).unwrap();
    let after = model.param("blocks.0.attn.W_V").unwrap();
    assert_eq!(after.select(0, 1).to_vec(), before.select(0, 1).to_vec(), "nothing reaches the ablated head");
    assert_ne!(after.select(0, 0).to_vec(), before.select(0, 0).to_vec());
}

#[test]
fn a_run_says_where_the_hooks_were_and_goes_on_with_them_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let hooked = || {
        let mut model = model();
        model.add_perma_hook("blocks.0.attn.hook_z", |z, _| z.zero_at(2, 1)).unwrap();
        model
    };
    let mut data = Padded { padding: 1, next: 0 };
    Trainer::new(config()).keep(&path).fit_model(&mut hooked(), &mut data, loss).unwrap();
    let run = || RunDir::open(&path).unwrap();
    assert_eq!(run().config().own.perma_hooks, ["blocks.0.attn.hook_z"]);
    let error = Trainer::resume(run()).fit_model(&mut model(), &mut data, loss).unwrap_err().to_string();
    assert!(error.contains("permanent hooks") && error.contains("blocks.0.attn.hook_z"), "{error}");
    Trainer::resume(run()).fit_model(&mut hooked(), &mut data, loss).unwrap();

    // The model without them is another.
    let last = run().last_checkpoint().unwrap();
    let error = run().model_at(&last, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("blocks.0.attn.hook_z") && error.contains("load_weights"), "{error}");
    hooked().load_weights(last.weights()).unwrap();
}
