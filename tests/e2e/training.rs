//! Training runs: what they keep, how they stop and go on.

use ironlens::prelude::*;
use ironlens::train::{Observer, Progress, RunDir, TrainError, Trained};
use ironlens_tests::small_model;

fn config(steps: u64) -> TrainConfig {
    TrainConfig { steps, batch_size: 4, lr: 3e-3, checkpoint_every: 5, log_every: 4, ..TrainConfig::notebook() }
}

struct StopAt(u64, u64);

impl Observer for StopAt {
    fn on(&mut self, progress: Progress<'_>, _: Trained<'_>) {
        if let Progress::Step(m) = progress {
            self.1 = m.step + 1;
        }
    }

    fn should_stop(&self) -> bool {
        self.1 >= self.0
    }
}

#[test]
fn a_resumed_run_has_the_bits_of_one_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let parts = folder.path().join("parts");
    let mut a = small_model();
    let data = || RandomTokens::new(small_model().config(), 2).unwrap();
    Trainer::new(config(20)).keep(&whole).fit_model(&mut a, &mut data(), previous_token_loss).unwrap();

    let mut b = small_model();
    let mut stop = StopAt(7, 0);
    let first = Trainer::new(config(20))
        .keep(&parts)
        .observe(&mut stop)
        .fit_model(&mut b, &mut data(), previous_token_loss)
        .unwrap();
    assert!(first.stopped && first.metrics.len() == 7);
    let run = RunDir::open(&parts).unwrap();
    assert_eq!(run.last_checkpoint().unwrap().step, 7);

    let mut c = HookedTransformer::new(run.model_config().unwrap().clone(), &Device::Cpu, 99).unwrap();
    let second = Trainer::resume(run.clone()).fit_model(&mut c, &mut data(), previous_token_loss).unwrap();
    assert_eq!(second.metrics.len(), 20);
    assert!(!second.stopped);
    // Seconds are of all sittings.
    let seconds: Vec<f64> = second.metrics.iter().map(|m| m.seconds).collect();
    assert!(seconds[0] > 0.0 && seconds.is_sorted() && first.seconds > 0.0, "{seconds:?}");
    assert!(second.seconds >= first.seconds && second.seconds >= seconds[19], "{} {seconds:?}", second.seconds);
    for ((name, x), (_, y)) in a.params().iter().zip(c.params().iter()) {
        assert_eq!(x.to_vec(), y.to_vec(), "{name}");
    }
    let losses = |path| RunDir::open(path).unwrap().metrics().unwrap().iter().map(|m| m.loss).collect::<Vec<_>>();
    assert_eq!(losses(&whole), losses(&parts));
    let snapshots = run.snapshots().unwrap();
    assert_eq!(snapshots.iter().map(|s| s.step).collect::<Vec<_>>(), [0, 10, 20]);
    assert_eq!(snapshots[0].patterns[1].shape(), [3, 12, 12]);
    assert_eq!(run.checkpoints().unwrap().iter().map(|c| c.step).collect::<Vec<_>>(), [0, 5, 7, 10, 15, 20]);
}

#[test]
fn a_run_that_is_asked_to_stop_after_its_last_step_is_done() {
    let (mut model, mut stop) = (small_model(), StopAt(3, 0));
    let mut data = RandomTokens::new(model.config(), 2).unwrap();
    let run = Trainer::new(config(3)).observe(&mut stop).fit_model(&mut model, &mut data, previous_token_loss).unwrap();
    assert_eq!((run.stopped, run.metrics.len()), (false, 3));
}

#[test]
fn runs_are_not_overwritten_and_broken_ones_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = small_model();
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let mut data = RandomTokens::new(model.config(), 2).unwrap();
    let trainer = Trainer::new(config(2)).keep(folder.path());
    let exists = trainer.fit_model(&mut model.clone(), &mut data, previous_token_loss).unwrap_err().to_string();
    assert!(exists.contains("is not empty") && exists.contains("resume the run in it"), "{exists}");
    let none = RunDir::open(folder.path()).unwrap_err().to_string();
    assert!(none.contains("config.json"), "{none}");

    let path = folder.path().join("run");
    let mut trained = model.clone();
    let mut data = RandomTokens::new(model.config(), 2).unwrap();
    Trainer::new(config(6)).keep(&path).fit_model(&mut trained, &mut data, previous_token_loss).unwrap();
    let run = RunDir::open(&path).unwrap();
    // A crash in the middle of a line loses that line only.
    let lines = path.join("metrics.jsonl");
    let text = std::fs::read_to_string(&lines).unwrap();
    std::fs::write(&lines, &text[..text.len() - 9]).unwrap();
    assert_eq!(run.metrics().unwrap().len(), 5);
    std::fs::write(&lines, text.replacen("{\"step\":2", "{\"stop\":2", 1)).unwrap();
    assert_eq!(run.metrics().unwrap().len(), 5);
    assert_eq!(run.notices(), ["metrics.jsonl: 1 lines cannot be read and are left out"]);
    let last = run.last_checkpoint().unwrap();
    std::fs::write(last.weights(), &std::fs::read(last.weights()).unwrap()[..100]).unwrap();
    let cut = run.model_at(&last, &Device::Cpu).unwrap_err().to_string();
    assert!(cut.contains("weights.safetensors has 100 bytes"), "{cut}");
    assert_eq!(run.last_checkpoint().unwrap().step, 5);
    assert!(run.notices()[1].contains("the checkpoint step-000006 is damaged"), "{:?}", run.notices());
    assert!(RunDir::newest(&folder.path().join("nothing")).is_err());
    assert_eq!(RunDir::newest(folder.path()).unwrap().path(), path);
}

#[test]
fn a_loss_that_is_no_number_stops_training_and_names_the_place() {
    let mut model = small_model();
    let bad = Tensor::full(&[24], f64::NAN, DType::F32, &Device::Cpu);
    model.params_mut().set("blocks.1.attn.b_O", &bad).unwrap();
    let before = model.param("embed.W_E").unwrap().to_vec();
    let folder = tempfile::tempdir().unwrap();
    let mut data = RandomTokens::new(model.config(), 2).unwrap();
    let kept = Trainer::new(config(3)).keep(folder.path().join("run"));
    match kept.fit_model(&mut model, &mut data, previous_token_loss) {
        Err(TrainError::WeightsNotFinite { steps: 0, name, .. }) => assert_eq!(name, "blocks.1.attn.b_O"),
        other => panic!("{other:?}"),
    }
    assert_eq!(RunDir::open(folder.path().join("run")).unwrap().checkpoints().unwrap(), []);
    match Trainer::new(config(3)).fit_model(&mut model, &mut data, previous_token_loss) {
        Err(TrainError::NotFinite { step: 0, what: "loss", hook, checkpoint, .. }) => {
            assert_eq!(hook, "at blocks.1.hook_attn_out");
            assert!(checkpoint.contains("no checkpoint"), "{checkpoint}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(model.param("embed.W_E").unwrap().to_vec(), before);
}

#[test]
fn the_small_model_learns_the_task() {
    let mut model = small_model();
    let mut data = RandomTokens::new(model.config(), 2).unwrap();
    let config = TrainConfig { steps: 200, batch_size: 16, lr: 3e-3, ..TrainConfig::notebook() };
    let run = Trainer::new(config).fit_model(&mut model, &mut data, previous_token_loss).unwrap();
    assert!(run.held_out_loss().unwrap() < 0.2, "held-out loss {:?}", run.held_out_loss());
}
