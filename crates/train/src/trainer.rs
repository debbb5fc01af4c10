//! The training loop.

use std::path::PathBuf;
use std::time::Instant;

use ironlens_autograd::Var;
use ironlens_tensor::{Device, IndexTensor, Tensor};
use ironlens_transformer::{Config, HookedTransformer, ModelError};

use crate::adamw::{AdamW, clip_coefficient};
use crate::config::TrainConfig;
use crate::data::{Data, RandomTokens};
use crate::error::TrainError;
use crate::rundir::{Checkpoint, Eval, Lines, Lock, Metric, Restored, RunConfig, RunDir, Snapshot};

/// Seed of held-out batches, apart from the data's.
const HELD_OUT: u64 = 0x5eed_4e1d_0047;

/// What an [`Observer`] is told.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A run goes on after this many steps.
    Resumed(u64),
    /// Something was damaged or lacking in the run, and passed over.
    Notice(&'a str),
    /// A step is done.
    Step(&'a Metric),
    /// The held-out loss was measured.
    Eval(&'a Eval),
    /// A checkpoint was written.
    Checkpoint(&'a Checkpoint),
}

/// Somebody who watches a training run, and may end it.
pub trait Observer {
    /// Called as things happen.
    fn on(&mut self, progress: Progress<'_>);

    /// Asked after every step; if true, the run ends with a checkpoint.
    fn should_stop(&self) -> bool {
        false
    }
}

/// Nobody.
impl Observer for () {
    fn on(&mut self, _: Progress<'_>) {}
}

/// What training gave.
#[derive(Clone, Debug)]
pub struct Run {
    /// One entry per step, over all sittings.
    pub metrics: Vec<Metric>,
    /// Held-out losses.
    pub evals: Vec<Eval>,
    /// Seconds of training, over all sittings.
    pub seconds: f64,
    /// Whether an observer ended it before its last step.
    pub stopped: bool,
    /// Where it is on disk, if it is.
    pub dir: Option<PathBuf>,
}

impl Run {
    /// Losses by step.
    pub fn losses(&self) -> Vec<f64> {
        self.metrics.iter().map(|m| m.loss).collect()
    }

    /// Loss of the last step.
    pub fn final_loss(&self) -> Option<f64> {
        self.metrics.last().map(|m| m.loss)
    }

    /// The last held-out loss.
    pub fn held_out_loss(&self) -> Option<f64> {
        self.evals.last().map(|e| e.loss)
    }
}

/// Trains a model: batches, gradients, clipping, AdamW, and, with a run directory, checkpoints and
/// attention snapshots.
pub struct Trainer<'o> {
    config: TrainConfig,
    keep: Keep,
    observer: Option<&'o mut dyn Observer>,
}

/// What is kept on disk.
enum Keep {
    Nothing,
    New { path: PathBuf, command: Option<String> },
    Resumed(RunDir),
}

impl<'o> Trainer<'o> {
    /// A trainer that keeps nothing on disk.
    pub fn new(config: TrainConfig) -> Trainer<'o> {
        Trainer { config, keep: Keep::Nothing, observer: None }
    }

    /// Keeps the run in a directory that is new, empty, or was left before its first checkpoint. It is
    /// made when the training starts, after everything was checked.
    ///
    /// # Errors
    /// If it holds anything else.
    pub fn keep(mut self, path: impl Into<PathBuf>, command: Option<String>) -> Result<Self, TrainError> {
        let path = path.into();
        RunDir::check_free(&path)?;
        self.keep = Keep::New { path, command };
        Ok(self)
    }

    /// Goes on with a run from its newest whole checkpoint, or from its start, with its settings, to the
    /// same bits as if it had never stopped.
    pub fn resume(run: RunDir) -> Trainer<'o> {
        Trainer { config: run.config().train.clone(), keep: Keep::Resumed(run), observer: None }
    }

    /// Somebody to tell.
    #[must_use]
    pub fn observe(mut self, observer: &'o mut dyn Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Trains `model` on `data`.
    ///
    /// # Errors
    /// For settings that cannot be, files that cannot be written, and a loss or gradient that stops
    /// being finite; the model then has the weights before that step.
    pub fn fit(
        mut self,
        model: &mut HookedTransformer,
        data: &mut dyn Data,
        loss: impl Fn(&Var, &IndexTensor) -> Var,
    ) -> Result<Run, TrainError> {
        let config = self.config.clone();
        config.check()?;
        let mut optimizer = AdamW::new(config.betas, config.eps, config.weight_decay);
        let held_out = RandomTokens::new(model.config(), HELD_OUT)?.batch(config.eval_batch_size)?;
        let mut run = Run { metrics: vec![], evals: vec![], seconds: 0.0, stopped: false, dir: None };
        let keep = std::mem::replace(&mut self.keep, Keep::Nothing);
        let mut record = Record::open(keep, &config, model, &mut optimizer, &mut run)?;
        let (mut start, mut before) = (0, 0.0);
        if let Some(r) = &record {
            (start, before) = (r.at.step, r.at.seconds);
            let notices = r.dir.notices();
            if r.resumed {
                self.tell(Progress::Resumed(start));
            }
            notices.iter().for_each(|notice| self.tell(Progress::Notice(notice)));
        }
        let snapshots = config.snapshot_steps();
        if start == 0
            && let Some(r) = &mut record
        {
            let own_weights = !r.dir.config().from_seed && !r.resumed;
            if own_weights {
                r.check_finite(model, &optimizer, 0)?;
            }
            r.snapshot(0, model)?;
            if own_weights {
                let checkpoint = r.checkpoint(model, &optimizer, 0, 0.0)?;
                self.tell(Progress::Checkpoint(&checkpoint));
            }
        }

        data.seek(start);
        let clock = Instant::now();
        let mut step = start;
        let mut waiting = Vec::new();
        while step < config.steps {
            let tokens = data.batch(config.batch_size)?;
            let lr = config.lr_at(step);
            let Step { loss: value, grad_norm } = train_step(model, &mut optimizer, &tokens, &loss, lr, config.clip())?;
            waiting.push(Waiting {
                metric: Metric { step, loss: 0.0, lr, grad_norm: 0.0, seconds: before + clock.elapsed().as_secs_f64() },
                loss: value,
                grad_norm,
            });
            // Results on the CPU are at hand; a GPU is asked for them only now and then.
            let next = step + 1;
            let log =
                next.is_multiple_of(config.log_every) || next == config.steps || step.is_multiple_of(config.log_every);
            let keep = snapshots.contains(&next)
                || (config.checkpoint_every > 0 && next.is_multiple_of(config.checkpoint_every))
                || self.observer.as_ref().is_some_and(|o| o.should_stop());
            if *model.device() == Device::Cpu || log || keep {
                for metric in settle(&mut waiting) {
                    let bad = [("loss", metric.loss), ("gradient norm", metric.grad_norm)];
                    if let Some((what, number)) = bad.into_iter().find(|(_, x)| !x.is_finite()) {
                        let checkpoint = last_good(record.as_ref().map(|r| &r.dir));
                        let hook = first_not_finite(model, &tokens)?;
                        return Err(TrainError::NotFinite { step: metric.step, what, value: number, hook, checkpoint });
                    }
                    run.metrics.push(metric);
                    if let Some(r) = &mut record {
                        r.metrics.push(&metric)?;
                    }
                    self.tell(Progress::Step(&metric));
                }
            }

            step += 1;
            run.stopped = self.observer.as_ref().is_some_and(|o| o.should_stop()) && step < config.steps;
            let last = step == config.steps || run.stopped;
            if step.is_multiple_of(config.log_every) || last {
                let value = loss(model.call(&held_out).output()?.logits(), &held_out).value().item();
                let eval = Eval { step, loss: value };
                run.evals.push(eval);
                self.tell(Progress::Eval(&eval));
                if let Some(r) = &mut record {
                    r.evals.push(&eval)?;
                    r.metrics.flush()?;
                    r.evals.flush()?;
                }
            }
            if let Some(r) = &mut record {
                let due = last || (config.checkpoint_every > 0 && step.is_multiple_of(config.checkpoint_every));
                if due {
                    r.check_finite(model, &optimizer, step)?;
                }
                if snapshots.contains(&step) {
                    r.snapshot(step, model)?;
                }
                if due {
                    let seconds = before + clock.elapsed().as_secs_f64();
                    let checkpoint = r.checkpoint(model, &optimizer, step, seconds)?;
                    self.tell(Progress::Checkpoint(&checkpoint));
                }
            }
            if run.stopped {
                break;
            }
        }
        run.seconds = before + clock.elapsed().as_secs_f64();
        Ok(run)
    }

    fn tell(&mut self, progress: Progress<'_>) {
        if let Some(observer) = &mut self.observer {
            observer.on(progress);
        }
    }
}

/// A step whose numbers were not read yet.
struct Waiting {
    metric: Metric,
    loss: Tensor,
    grad_norm: Tensor,
}

/// The metrics of steps that wait for their numbers, read at once.
fn settle(waiting: &mut Vec<Waiting>) -> Vec<Metric> {
    let read = |pick: fn(&Waiting) -> &Tensor, waiting: &[Waiting]| {
        let all: Vec<Tensor> = waiting.iter().map(|w| pick(w).reshape(&[])).collect();
        if all.is_empty() { vec![] } else { Tensor::stack(&all, 0).to_vec_f64() }
    };
    let (losses, norms) = (read(|w| &w.loss, waiting), read(|w| &w.grad_norm, waiting));
    let numbers = losses.into_iter().zip(norms);
    waiting.drain(..).zip(numbers).map(|(w, (loss, grad_norm))| Metric { loss, grad_norm, ..w.metric }).collect()
}

/// What a step gave: one number each, which may still be on the device.
pub struct Step {
    /// The loss before the update.
    pub loss: Tensor,
    /// The norm of the gradient before clipping.
    pub grad_norm: Tensor,
}

/// One step of training on `tokens` `[batch, pos]`: gradients of `loss`, clipping to the norm
/// `clip`, AdamW at learning rate `lr`. On the CPU, if loss or norm is not finite, the weights stay as
/// they were; a GPU is not waited for, and has them changed when that shows.
///
/// # Errors
/// If the model cannot be run on `tokens`.
pub fn train_step(
    model: &mut HookedTransformer,
    optimizer: &mut AdamW,
    tokens: &IndexTensor,
    loss: impl Fn(&Var, &IndexTensor) -> Var,
    lr: f64,
    clip: Option<f64>,
) -> Result<Step, ModelError> {
    let (value, grads) = model.call(tokens).gradients_on_device(|out| loss(out.logits(), tokens))?;
    let norm = grads.norm_on_device();
    let at_hand = *model.device() == Device::Cpu;
    if !at_hand || (value.item().is_finite() && norm.item().is_finite()) {
        optimizer.step(model.params_mut(), &grads.into_slots(), lr, &clip_coefficient(&norm, clip));
    }
    model.device().flush();
    Ok(Step { loss: value, grad_norm: norm })
}

/// What a run writes while it goes on, and the lock that says that it does.
struct Record {
    dir: RunDir,
    _lock: Lock,
    resumed: bool,
    /// Where it stands on disk.
    at: Restored,
    metrics: Lines,
    evals: Lines,
    batch: IndexTensor,
}

impl Record {
    /// Starts or goes on with what is to be kept; a run that goes on sets `model`, `optimizer` and `run`.
    fn open(
        keep: Keep,
        config: &TrainConfig,
        model: &mut HookedTransformer,
        optimizer: &mut AdamW,
        run: &mut Run,
    ) -> Result<Option<Record>, TrainError> {
        let batch = snapshot_batch(model.config())?;
        let resumed = matches!(keep, Keep::Resumed(_));
        let (dir, lock, at) = match keep {
            Keep::Nothing => return Ok(None),
            Keep::New { path, command } => {
                let (dir, lock) = RunDir::create(path, RunConfig::new(model, config, command)?)?;
                (dir, lock, Restored::default())
            }
            Keep::Resumed(dir) => {
                let lock = Lock::take(dir.path())?;
                lock.clean(dir.path());
                dir.make_folders()?;
                let at = dir.restore(model, optimizer)?;
                run.metrics = dir.metrics_of(at.step)?;
                run.evals = dir.evals()?;
                // The last sitting may have ended with one that is not due.
                run.evals.retain(|e| {
                    e.step <= at.step && (e.step.is_multiple_of(config.log_every) || e.step == config.steps)
                });
                (dir, lock, at)
            }
        };
        let metrics = dir.append("metrics.jsonl", &run.metrics)?;
        let evals = dir.append("evals.jsonl", &run.evals)?;
        run.dir = Some(dir.path().to_path_buf());
        Ok(Some(Record { dir, _lock: lock, resumed, at, metrics, evals, batch }))
    }

    fn snapshot(&mut self, step: u64, model: &HookedTransformer) -> Result<(), TrainError> {
        let (_, cache) = model.call(&self.batch).names(|n: &str| n.ends_with("hook_pattern")).cached()?;
        let patterns: Vec<Tensor> = cache.iter().map(|(_, p)| p.mean(&[0])).collect();
        self.dir.save_snapshot(&Snapshot { step, patterns }, &mut self.at.snapshots)
    }

    /// Refuses to keep weights or moments that are not finite.
    fn check_finite(&self, model: &HookedTransformer, optimizer: &AdamW, steps: u64) -> Result<(), TrainError> {
        match not_finite(model, optimizer) {
            None => Ok(()),
            Some(name) => Err(TrainError::WeightsNotFinite { steps, name, checkpoint: last_good(Some(&self.dir)) }),
        }
    }

    /// Writes a checkpoint. The lines of its steps are on the disk before it is.
    fn checkpoint(
        &mut self,
        model: &HookedTransformer,
        optimizer: &AdamW,
        step: u64,
        seconds: f64,
    ) -> Result<Checkpoint, TrainError> {
        self.metrics.sync()?;
        self.evals.sync()?;
        (self.at.step, self.at.seconds) = (step, seconds);
        self.dir.save_checkpoint(model, optimizer, &self.at)
    }
}

/// Where to go back to, in words.
fn last_good(dir: Option<&RunDir>) -> String {
    match dir.and_then(|d| d.last_checkpoint().ok()) {
        Some(c) => format!("the last good checkpoint is {}", c.path.display()),
        None => "there is no checkpoint yet".into(),
    }
}

/// The first weight or moment that has an element that is infinite or no number.
fn not_finite(model: &HookedTransformer, optimizer: &AdamW) -> Option<String> {
    // Stored tensors are few and whole; names are looked for only in a bad one.
    let params = model.params();
    if params.slots().iter().chain(optimizer.moments()).all(Tensor::all_finite) {
        return None;
    }
    let weights = params.iter().map(|(name, value)| (name.to_string(), value));
    weights.chain(optimizer.state(params)).find(|(_, value)| !value.all_finite()).map(|(name, _)| name)
}

/// The fixed batch on which attention is looked at, `[8, n_ctx]`.
pub(crate) fn snapshot_batch(cfg: &Config) -> Result<IndexTensor, TrainError> {
    let mut data = RandomTokens::new(cfg, HELD_OUT)?;
    data.seek(1);
    data.batch(8)
}

/// The first hook point whose activation is not finite, or a word that there is none. Hidden
/// attention scores are -inf by nature.
fn first_not_finite(model: &HookedTransformer, tokens: &IndexTensor) -> Result<String, TrainError> {
    let (_, cache) = model.call(tokens).cached()?;
    let bad = cache.iter().find(|(name, value)| {
        if name.ends_with("hook_attn_scores") {
            value.to_vec().iter().any(|v| v.is_nan() || *v == f32::INFINITY)
        } else {
            !value.all_finite()
        }
    });
    Ok(bad.map_or("none (it arises in the loss or on the way back)".into(), |(name, _)| format!("at {name}")))
}
