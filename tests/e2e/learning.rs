//! Training of anything on its own data: text, labels beside tokens with padding, an autoencoder.

use std::fs;

use clap::Parser;
use ironlens::autograd::Tape;
use ironlens::nn::{Ctx, Linear, Params, Registry};
use ironlens::tensor::Rng;
use ironlens::train::{
    DataRecord, Induction, LanguageModel, Learner, LearnerRecord, Observer, Optimizer, Progress, RunDir, Sequences,
    TokenBatch, TrainError, Trained, labelled_loss, train_step_of,
};
use ironlens_cli::Cli;

use ironlens::prelude::*;

const WIDTH: usize = 12;

/// Windows of a text's bytes; the last fifth is held out.
struct Text {
    bytes: Vec<u8>,
    next: u64,
}

impl Text {
    fn new() -> Text {
        Text { bytes: b"the cat sat on the mat and the dog sat on the log; ".repeat(40), next: 0 }
    }

    fn split(&self) -> usize {
        self.bytes.len() * 4 / 5
    }

    fn windows(&self, size: usize, number: u64, part: std::ops::Range<usize>) -> IndexTensor {
        let starts = Rng::new(3, number).integers(&[size], part.start as u32, (part.end - WIDTH) as u32);
        let windows = starts.as_slice().iter().flat_map(|&s| &self.bytes[s as usize..][..WIDTH]);
        IndexTensor::new(windows.map(|&b| u32::from(b)).collect::<Vec<_>>(), &[size, WIDTH])
    }
}

impl Data for Text {
    type Batch = IndexTensor;

    fn batch(&mut self, size: usize) -> Result<IndexTensor, TrainError> {
        self.next += 1;
        Ok(self.windows(size, self.next - 1, 0..self.split()))
    }

    fn seek(&mut self, batch: u64) {
        self.next = batch;
    }

    fn held_out(&self, size: usize) -> Result<IndexTensor, TrainError> {
        Ok(self.windows(size, 0, self.split()..self.bytes.len()))
    }

    fn describe(&self) -> DataRecord {
        DataRecord { description: "bytes about cats and dogs".into(), seed: None }
    }
}

fn model(d_vocab: usize) -> HookedTransformer {
    let cfg = Config {
        d_model: 16,
        d_head: 8,
        n_heads: 2,
        n_layers: 1,
        n_ctx: WIDTH,
        d_mlp: 32,
        d_vocab,
        act_fn: ActFn::Gelu,
        ..Config::default()
    };
    HookedTransformer::new(cfg, &Device::Cpu, 1).unwrap()
}

fn config(steps: u64) -> TrainConfig {
    TrainConfig { steps, lr: 1e-2, checkpoint_every: 20, log_every: 20, ..TrainConfig::default() }
}

fn report(path: &std::path::Path) -> String {
    let cli = Cli::try_parse_from(["ironlens", "report", path.to_str().unwrap()]).unwrap();
    assert!(cli.run().unwrap());
    fs::read_to_string(path.join("report.html")).unwrap()
}

#[test]
fn a_text_model_is_judged_on_its_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut model = model(128);
    let trainer = Trainer::new(config(60)).keep(&path);
    let run = trainer.fit_model(&mut model, &mut Text::new(), next_token_loss).unwrap();
    // The held-out part is of the same language, so its loss is the training's; on random tokens it would not be
    // below that of guessing.
    let (train, held_out) = (run.final_loss().unwrap(), run.held_out_loss().unwrap());
    assert!(train < 2.5 && (held_out - train).abs() < 0.6, "{train} in training, {held_out} held out");
    let of_text = Text::new().held_out(10).unwrap();
    let again = next_token_loss(&Var::from(model.forward(&of_text).unwrap()), &of_text).value().item();
    assert_eq!(held_out, again);
    let random = RandomTokens::new(model.config(), 0).unwrap().held_out(10).unwrap();
    let of_random = next_token_loss(&Var::from(model.forward(&random).unwrap()), &random).value().item();
    assert!(of_random > 4.85, "{of_random} on random tokens");

    // What is kept says what ran, and brings the sequences that are looked at.
    let kept = RunDir::open(&path).unwrap();
    let record = kept.config();
    assert_eq!(record.data, Text::new().describe());
    assert_eq!(record.learner, LearnerRecord { kind: "HookedTransformer".into(), loss: "next-token".into() });
    assert_eq!(record.seed, None);
    assert_eq!(kept.sequences().unwrap(), Sequences::from(of_text.narrow(0, 0, 8)));
    let patterns = &kept.snapshots().unwrap().pop().unwrap().patterns[0];
    let (_, cache) = model.run_with_cache(&of_text.narrow(0, 0, 8)).unwrap();
    assert_eq!(patterns.to_vec(), cache.get(("pattern", 0)).unwrap().mean(&[0]).to_vec());
    let start = kept.initial_model(&Device::Cpu).unwrap();
    assert_eq!(start.param("embed.W_E").unwrap().to_vec(), self::model(128).param("embed.W_E").unwrap().to_vec());

    // So do the report and the analyses.
    let page = report(&path);
    for text in ["bytes about cats and dogs", "next-token", "held-out sequences of the data"] {
        assert!(page.contains(text), "the report lacks {text}");
    }
    assert!(!page.contains("random tokens") && !page.contains("previous-token") && !page.contains("data_seed"));
    let json = folder.path().join("a.json");
    let args = ["ironlens", "analyze", path.to_str().unwrap(), "--device", "cpu", "--json", json.to_str().unwrap()];
    assert!(Cli::try_parse_from(args).unwrap().run().unwrap());
    let analysis: serde_json::Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let entropy = &analysis["sections"][0]["pictures"][1];
    let expected = ironlens::lens::patterns::attention_entropy(&cache).unwrap().to_vec();
    let found: Vec<f32> = entropy["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
    assert_eq!(found, expected, "{}", entropy["title"]);
    // The command cannot make this data, and goes on with no other.
    let resume = Cli::try_parse_from(["ironlens", "train", "--resume", path.to_str().unwrap()]).unwrap();
    let error = resume.run().unwrap_err().to_string();
    assert!(error.contains("bytes about cats and dogs"), "{error}");
}

#[test]
fn a_run_goes_on_with_its_own_data_and_loss_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut m = model(128);
    let closure = |logits: &Var, tokens: &IndexTensor| next_token_loss(logits, tokens);
    let trainer = Trainer::new(config(20)).keep(&path);
    trainer.fit(&mut LanguageModel::new(&mut m, closure).named("my loss"), &mut Text::new()).unwrap();
    let run = || RunDir::open(&path).unwrap();
    assert_eq!(run().config().learner.loss, "my loss");
    let other = Trainer::resume(run()).fit_model(&mut model(128), &mut Text::new(), next_token_loss);
    let error = other.unwrap_err().to_string();
    assert!(error.contains("my loss") && error.contains("next-token"), "{error}");
    let mut random = RandomTokens::new(m.config(), 1).unwrap();
    let error = Trainer::resume(run()).fit_model(&mut model(128), &mut random, closure).unwrap_err().to_string();
    assert!(error.contains("bytes about cats") && error.contains("random tokens"), "{error}");

    // Nor does it go on as another model, whose weights have the same shapes.
    let relu = Config { act_fn: ActFn::Relu, ..m.config().clone() };
    let mut others = [relu, Config { eps: 1e-6, ..m.config().clone() }]
        .map(|cfg| HookedTransformer::new(cfg, &Device::Cpu, 1).unwrap())
        .to_vec();
    others.push(model(128).to_dtype(DType::F64));
    let told = [
        ["a model with act_fn = \"relu\"", "its model is one with act_fn = \"gelu\""],
        ["a model with eps = 1e-6", "its model is one with eps = 0.00001"],
        ["weights of type f64", "its type of weights is f32"],
    ];
    for (mut other, told) in others.into_iter().zip(told) {
        let resumed =
            Trainer::resume(run()).fit(&mut LanguageModel::new(&mut other, closure).named("my loss"), &mut Text::new());
        let error = resumed.unwrap_err().to_string();
        assert!(told.iter().all(|part| error.contains(part)), "{error}");
    }
    // Hook points that are switched on are no other model.
    let mut same = model(128);
    same.set_use_attn_result(true).unwrap();
    Trainer::resume(run()).fit(&mut LanguageModel::new(&mut same, closure).named("my loss"), &mut Text::new()).unwrap();

    // A closure has no name of its own, whatever it calls.
    let path = folder.path().join("closure");
    Trainer::new(config(1)).keep(&path).fit_model(&mut m, &mut Text::new(), closure).unwrap();
    assert_eq!(RunDir::open(&path).unwrap().config().learner.loss, "custom");
    assert!(!report(&path).contains("previous-token"));
}

/// Sequences of two lengths, and which of two letters came more often in each.
struct Labelled {
    tokens: IndexTensor,
    mask: IndexTensor,
    labels: IndexTensor,
}

impl TokenBatch for Labelled {
    fn sequences(&self) -> Sequences {
        Sequences { tokens: self.tokens.clone(), mask: Some(self.mask.clone()) }
    }
}

#[derive(Default)]
struct Majority(u64);

impl Majority {
    /// Even numbers are trained on, odd ones held out.
    fn draw(&self, size: usize, number: u64) -> Labelled {
        let letters = Rng::new(9, number).integers(&[size, WIDTH], 1, 3);
        let lengths = Rng::new(10, number).integers(&[size], 0, 2);
        let (mut tokens, mut mask, mut labels) = (letters.as_slice().to_vec(), vec![1; size * WIDTH], vec![]);
        for (row, long) in lengths.as_slice().iter().enumerate() {
            let length = if *long == 1 { WIDTH } else { WIDTH - 4 };
            let start = row * WIDTH;
            // The question, in place 0, is answered there.
            tokens[start] = 3;
            tokens[start + length..start + WIDTH].fill(0);
            mask[start + length..start + WIDTH].fill(0);
            let twos = tokens[start + 1..start + length].iter().filter(|t| **t == 2).count();
            labels.push(u32::from(2 * twos >= length));
        }
        let tensor = |ids| IndexTensor::new(ids, &[size, WIDTH]);
        Labelled { tokens: tensor(tokens), mask: tensor(mask), labels: IndexTensor::new(labels, &[size]) }
    }
}

impl Data for Majority {
    type Batch = Labelled;

    fn batch(&mut self, size: usize) -> Result<Labelled, TrainError> {
        self.0 += 1;
        Ok(self.draw(size, 2 * (self.0 - 1)))
    }

    fn seek(&mut self, batch: u64) {
        self.0 = batch;
    }

    fn held_out(&self, size: usize) -> Result<Labelled, TrainError> {
        Ok(self.draw(size, 1))
    }

    fn describe(&self) -> DataRecord {
        DataRecord { description: "which letter comes more often".into(), seed: Some(9) }
    }
}

fn majority_loss(logits: &Var, batch: &Labelled) -> Var {
    logits.mean(&[1]).cross_entropy(&batch.labels).mean_all()
}

#[test]
fn labels_and_padding_lie_beside_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut m = model(4);
    let config = TrainConfig { eval_batch_size: 64, batch_size: 32, ..config(80) };
    let trainer = Trainer::new(config).keep(&path);
    let run = trainer.fit_model(&mut m, &mut Majority::default(), majority_loss).unwrap();
    assert!(run.losses()[0] > 0.6 && run.held_out_loss().unwrap() < 0.5, "{:?}", run.evals);
    let kept = RunDir::open(&path).unwrap();
    assert_eq!(kept.config().learner.loss, "e2e::learning::majority_loss");
    // The snapshots are taken with the padding hidden, as the model was trained.
    let sequences = kept.sequences().unwrap();
    assert_eq!(sequences, Majority::default().held_out(8).unwrap().sequences());
    let (_, cache) = m.call(&sequences.tokens).attention_mask(sequences.mask.as_ref().unwrap()).cached().unwrap();
    let patterns = &kept.snapshots().unwrap().pop().unwrap().patterns[0];
    assert_eq!(patterns.to_vec(), cache.get(("pattern", 0)).unwrap().mean(&[0]).to_vec());
    let page = report(&path);
    assert!(page.contains("which letter comes more often") && page.contains("majority_loss"));
    // Padding counts for nothing in what the page says of heads, and in what `analyze` does.
    let subject = ironlens::study::Subject::of_run(&kept, &Device::Cpu).unwrap();
    let (rows, width) = (subject.tokens.shape()[0], subject.tokens.shape()[1]);
    let real = |item: &usize| sequences.real(*item).len() >= width;
    assert_eq!((0..8).filter(real).count(), rows, "{:?}", subject.tokens);
    assert!(!page.contains("are left out"), "head detectors and their baselines");
}

/// Codes of 2 numbers for points of 6 that lie in a plane.
struct Autoencoder {
    params: Params,
    encoder: Linear,
    decoder: Linear,
}

impl Autoencoder {
    fn new(seed: u64) -> Autoencoder {
        let mut registry = Registry::new("Autoencoder");
        let mut scope = registry.root();
        let encoder = Linear::new(&mut scope.child("encoder", "Linear"), 6, 2, 0.3);
        let decoder = Linear::new(&mut scope.child("decoder", "Linear"), 2, 6, 0.3);
        Autoencoder { params: Params::initialised(registry, seed, &Device::Cpu), encoder, decoder }
    }

    fn error(&self, ctx: &Ctx, points: &Tensor) -> Var {
        let points = Var::from(points.clone());
        (self.decoder.forward(ctx, &self.encoder.forward(ctx, &points)) - &points).square().mean_all()
    }
}

impl Learner for Autoencoder {
    type Batch = Tensor;

    fn params(&self) -> &Params {
        &self.params
    }

    fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    fn gradients(&self, points: &Tensor) -> Result<(Tensor, Vec<Option<Tensor>>), TrainError> {
        let (tape, mut hooks) = (Tape::new(), Hooks::new());
        let mut ctx = Ctx::record(&self.params, &tape, &mut hooks)?;
        let loss = self.error(&ctx, points);
        let gradients = ctx.backward(&loss)?;
        Ok((loss.into_value(), gradients))
    }

    fn loss(&self, points: &Tensor) -> Result<Tensor, TrainError> {
        Ok(self.error(&Ctx::evaluate(&self.params, &mut Hooks::new())?, points).into_value())
    }

    fn describe(&self) -> LearnerRecord {
        LearnerRecord { kind: "an autoencoder, 6 to 2".into(), loss: "mean squared error".into() }
    }
}

#[derive(Default)]
struct Plane(u64);

impl Plane {
    fn points(&self, size: usize, number: u64) -> Tensor {
        let plane = Rng::new(4, 0).normal(&[2, 6], 0.0, 1.0, &Device::Cpu);
        Rng::new(5, number).normal(&[size, 2], 0.0, 1.0, &Device::Cpu).matmul(&plane)
    }
}

impl Data for Plane {
    type Batch = Tensor;

    fn batch(&mut self, size: usize) -> Result<Tensor, TrainError> {
        self.0 += 1;
        Ok(self.points(size, self.0))
    }

    fn seek(&mut self, batch: u64) {
        self.0 = batch;
    }

    fn held_out(&self, size: usize) -> Result<Tensor, TrainError> {
        Ok(self.points(size, 0))
    }

    fn describe(&self) -> DataRecord {
        DataRecord { description: "points of a plane".into(), seed: Some(5) }
    }
}

/// Ends after some steps; remembers how a weight changed.
#[derive(Default)]
struct Watching {
    stop_at: Option<u64>,
    steps: u64,
    weights: Vec<f32>,
}

impl Observer for Watching {
    fn on(&mut self, progress: Progress<'_>, trained: Trained<'_>) {
        if let Progress::Step(m) = progress {
            self.steps = m.step + 1;
            assert!(trained.transformer.is_none());
            self.weights.push(trained.params.get("encoder.W").unwrap().to_vec()[0]);
        }
    }

    fn should_stop(&self) -> bool {
        self.stop_at.is_some_and(|at| self.steps >= at)
    }
}

#[test]
fn an_autoencoder_is_trained_kept_and_resumed_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let mut a = Autoencoder::new(1);
    let mut watching = Watching::default();
    let trainer = Trainer::new(config(200)).keep(&whole).observe(&mut watching);
    let run = trainer.fit(&mut a, &mut Plane::default()).unwrap();
    assert!(run.losses()[0] > 1.0 && run.held_out_loss().unwrap() < 0.02, "{:?}", run.evals);
    assert_eq!(run.held_out_loss().unwrap(), a.loss(&Plane::default().held_out(10).unwrap()).unwrap().item());
    assert_eq!(watching.weights.len(), 200);
    assert_eq!(*watching.weights.last().unwrap(), a.params.get("encoder.W").unwrap().to_vec()[0]);

    let mut stop = Watching { stop_at: Some(33), ..Watching::default() };
    let trainer = Trainer::new(config(200)).keep(&parts).observe(&mut stop);
    assert!(trainer.fit(&mut Autoencoder::new(1), &mut Plane::default()).unwrap().stopped);
    let mut b = Autoencoder::new(2);
    let resumed = Trainer::resume(RunDir::open(&parts).unwrap()).fit(&mut b, &mut Plane::default()).unwrap();
    assert_eq!(resumed.losses(), run.losses());
    for ((name, x), (_, y)) in a.params.iter().zip(b.params.iter()) {
        assert_eq!(x.to_vec(), y.to_vec(), "{name}");
    }

    let kept = RunDir::open(&whole).unwrap();
    assert_eq!(kept.config().learner, a.describe());
    assert_eq!(kept.config().model, None);
    assert_eq!(kept.snapshots().unwrap().len(), 0);
    let error = kept.initial_model(&Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("an autoencoder, 6 to 2, not a HookedTransformer"), "{error}");
    let page = report(&whole);
    for text in ["an autoencoder, 6 to 2", "points of a plane", "mean squared error", "encoder.W"] {
        assert!(page.contains(text), "the report lacks {text}");
    }
    for text in ["random tokens", "previous", "blocks.0", "guessing"] {
        assert!(!page.contains(text), "the report speaks of {text}");
    }
}

#[test]
fn batches_beyond_memory_are_refused_before_the_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    for (batch_size, eval_batch_size, name) in [
        (1_000_000_000_000, 10, "batch_size"),
        (9_223_372_036_854_775_808, 10, "batch_size"),
        (2, 1_000_000_000_000, "the size of a batch"),
        (2, usize::MAX, "the size of a batch"),
    ] {
        let config = TrainConfig { batch_size, eval_batch_size, ..config(1) };
        let mut m = model(7);
        let mut data = RandomTokens::new(m.config(), 1).unwrap();
        let refused = Trainer::new(config).keep(&path).fit_model(&mut m, &mut data, previous_token_loss).unwrap_err();
        assert!(matches!(refused, TrainError::Setting { name: n, .. } if n == name), "{name}: {refused}");
        assert!(refused.to_string().contains("memory") && !path.exists(), "{refused}");
    }
    let out = path.to_str().unwrap();
    for (flag, size) in [("--batch-size", "9223372036854775808"), ("--batch-size", "1000000000000")] {
        let args = ["ironlens", "train", "--preset", "tiny", flag, size, "--out", out];
        let error = Cli::try_parse_from(args).unwrap().run().unwrap_err().to_string();
        assert!(error.contains(&format!("batch_size = {size} cannot be")) && !path.exists(), "{error}");
    }
}

#[test]
fn an_optimiser_a_schedule_and_frozen_weights_of_its_own_go_on_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    fn with_own(trainer: Trainer<'_>) -> Trainer<'_> {
        trainer
            .optimizer(Optimizer::sgd(0.9, 0.0).with_lr_factor(|name| name == "decoder.W", 0.5))
            .schedule(|step| 0.1 / (1.0 + step as f64 / 10.0))
    }
    let learner = |seed| {
        let mut a = Autoencoder::new(seed);
        a.params_mut().freeze(|name| name == "encoder.W");
        a
    };
    let mut a = learner(1);
    let settings = TrainConfig { accumulate: 2, ..config(40) };
    let run = with_own(Trainer::new(settings.clone()).keep(&whole)).fit(&mut a, &mut Plane::default()).unwrap();
    assert_eq!([run.metrics[0].lr, run.metrics[10].lr], [0.1, 0.05]);
    assert!(run.final_loss().unwrap() < 0.7 * run.losses()[0], "{:?}", run.losses());
    let bias = |a: &Autoencoder| a.params.get("encoder.W").unwrap().to_vec();
    assert_eq!(bias(&a), bias(&Autoencoder::new(1)));

    let mut stop = Watching { stop_at: Some(13), ..Watching::default() };
    let trainer = with_own(Trainer::new(settings).keep(&parts).observe(&mut stop));
    assert!(trainer.fit(&mut learner(1), &mut Plane::default()).unwrap().stopped);
    let resume = || Trainer::resume(RunDir::open(&parts).unwrap());
    for (trainer, mut learner, what) in [
        (resume().schedule(|_| 0.1), learner(1), "optimiser"),
        (with_own(resume()), Autoencoder::new(1), "encoder.W"),
        (resume().optimizer(Optimizer::sgd(0.9, 0.0)), learner(1), "learning rate times 0.5"),
    ] {
        let error = trainer.fit(&mut learner, &mut Plane::default()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    let mut b = learner(2);
    let resumed = with_own(resume()).fit(&mut b, &mut Plane::default()).unwrap();
    assert_eq!(resumed.losses(), run.losses());
    for ((name, x), (_, y)) in a.params.iter().zip(b.params.iter()) {
        assert_eq!(x.to_vec(), y.to_vec(), "{name}");
    }

    // A rate that is none is refused, and says so.
    let error = Trainer::new(config(5)).schedule(|step| 1.0 - step as f64).fit(&mut learner(1), &mut Plane::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("step 2") && error.contains("-1"), "{error}");
}

#[test]
fn batches_of_a_step_are_one_batch() {
    struct Halves(Plane);
    impl Data for Halves {
        type Batch = Tensor;
        /// The half of a batch twice as large.
        fn batch(&mut self, size: usize) -> Result<Tensor, TrainError> {
            let number = self.0.0;
            self.0.0 = number / 2;
            let batch = self.0.batch(2 * size)?;
            self.0.0 = number + 1;
            Ok(batch.narrow(0, (number % 2) as usize * size, size).contiguous())
        }
        fn seek(&mut self, batch: u64) {
            self.0.seek(batch);
        }
        fn held_out(&self, size: usize) -> Result<Tensor, TrainError> {
            self.0.held_out(size)
        }
        fn describe(&self) -> DataRecord {
            self.0.describe()
        }
    }
    let run = |config: TrainConfig, data: &mut dyn Data<Batch = Tensor>| {
        Trainer::new(config).fit(&mut Autoencoder::new(1), data).unwrap().losses()
    };
    let whole = run(TrainConfig { batch_size: 16, ..config(10) }, &mut Plane::default());
    let halves = run(TrainConfig { batch_size: 8, accumulate: 2, ..config(10) }, &mut Halves(Plane::default()));
    for (a, b) in whole.iter().zip(&halves) {
        assert!((a - b).abs() < 1e-5 * a, "{whole:?} {halves:?}");
    }
}

#[test]
fn what_cannot_be_told_of_a_task_is_left_out_of_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("induction");
    let mut m = model(13);
    let mut data = Induction::new(m.config(), 1).unwrap();
    let mut learner = LanguageModel::new(&mut m, labelled_loss).named("induction");
    Trainer::new(config(2)).keep(&path).fit(&mut learner, &mut data).unwrap();
    assert!(report(&path).contains("Loss by position"));
    for damage in [Some("{}"), None] {
        match damage {
            Some(text) => fs::write(path.join("sequences.json"), text).unwrap(),
            None => fs::remove_file(path.join("sequences.json")).unwrap(),
        }
        let page = report(&path);
        assert!(page.contains("What is told of the task is left out") && page.contains("sequences.json"));
        assert!(!page.contains("Loss by position"));
    }

    // A loss of one's own may have the name of a task's.
    for (name, d_vocab) in [("text", 300), ("modular-addition", 128), ("induction", 128), ("markov", 128)] {
        let path = folder.path().join(format!("own-{name}"));
        let mut m = model(d_vocab);
        let mut learner = LanguageModel::new(&mut m, next_token_loss).named(name);
        Trainer::new(config(1)).keep(&path).fit(&mut learner, &mut Text::new()).unwrap();
        let page = report(&path);
        for told in ["What it writes", "Waves over the numbers", "Loss by position", "is left out"] {
            assert!(!page.contains(told), "{name}: {told}");
        }
    }
}

/// An autoencoder whose encoder learns from some batches, and whose decoder from the others.
struct OddAndEven(Autoencoder);

impl Learner for OddAndEven {
    type Batch = (bool, Tensor);

    fn params(&self) -> &Params {
        self.0.params()
    }

    fn params_mut(&mut self) -> &mut Params {
        self.0.params_mut()
    }

    fn gradients(&self, (odd, points): &(bool, Tensor)) -> Result<(Tensor, Vec<Option<Tensor>>), TrainError> {
        let (loss, mut gradients) = self.0.gradients(points)?;
        let (of_decoder, _) = self.params().registry().param_place("decoder.W").expect("it has one");
        for (slot, gradient) in gradients.iter_mut().enumerate() {
            if (slot >= of_decoder) == *odd {
                *gradient = None;
            }
        }
        Ok((loss, gradients))
    }

    fn loss(&self, (_, points): &(bool, Tensor)) -> Result<Tensor, TrainError> {
        self.0.loss(points)
    }

    fn describe(&self) -> LearnerRecord {
        self.0.describe()
    }
}

#[test]
fn a_weight_that_some_batches_of_a_step_do_not_use_has_its_share_of_the_others() {
    let batch = |number: u64| (number % 2 == 1, Plane::default().points(6, number));
    let step = |batches: &[(bool, Tensor)], lr: f64| {
        let mut learner = OddAndEven(Autoencoder::new(1));
        train_step_of(&mut learner, &mut Optimizer::sgd(0.0, 0.0), batches, lr, None).unwrap();
        ["encoder.W", "decoder.W"].map(|name| learner.params().get(name).unwrap().to_vec())
    };
    let start = ["encoder.W", "decoder.W"].map(|name| Autoencoder::new(1).params.get(name).unwrap().to_vec());
    let ([encoder, _], [_, decoder]) = (step(&[batch(1)], 0.1), step(&[batch(2)], 0.1));
    assert!(encoder != start[0] && decoder != start[1]);
    for batches in [[batch(1), batch(2)], [batch(2), batch(1)]] {
        for (found, expected) in step(&batches, 0.2).iter().zip([&encoder, &decoder]) {
            assert!(found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-6), "{found:?} {expected:?}");
        }
    }
}
