//! The training loop.

use std::borrow::Borrow;
use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use ironlens_autograd::Var;
use ironlens_nn::Params;
use ironlens_nn::optim::{Optimizer, clip_coefficient, grad_norm};
use ironlens_tensor::{Device, Tensor};
use ironlens_transformer::{HookedTransformer, Sequences};

use crate::config::TrainConfig;
use crate::data::Data;
use crate::error::TrainError;
use crate::learner::{LanguageModel, Learner, TokenBatch};
use crate::rundir::{Checkpoint, Eval, Lines, Lock, Own, Restored, RunConfig, RunDir, Snapshot, StepRecord};

/// Held-out sequences that attention is looked at on, at most.
const LOOKED_AT: usize = 8;

/// Steps whose numbers wait on a GPU, at most.
const MOST_WAITING: usize = 256;

/// What an [`Observer`] is told.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Training starts, or goes on, before this step; the run is kept here, if it is.
    Start(u64, Option<&'a RunDir>),
    /// A run goes on after this many steps.
    Resumed(u64),
    /// Something was damaged or lacking in the run, and passed over.
    Notice(&'a str),
    /// A step is done.
    Step(&'a StepRecord),
    /// The held-out loss was measured.
    Eval(&'a Eval),
    /// A checkpoint was written.
    Checkpoint(&'a Checkpoint),
}

/// What is trained, as an [`Observer`] sees it.
#[derive(Clone, Copy, Debug)]
pub struct Trained<'a> {
    /// The learner's weights.
    pub params: &'a Params,
    /// The transformer, if one is trained.
    pub transformer: Option<&'a HookedTransformer>,
}

/// Somebody who watches a training run, and may end it.
pub trait Observer {
    /// Called as things happen, with what is trained as it is then.
    fn on(&mut self, progress: Progress<'_>, trained: Trained<'_>);

    /// Asked after every step; if true, the run ends with a checkpoint.
    fn should_stop(&self) -> bool {
        false
    }
}

/// Nobody.
impl Observer for () {
    fn on(&mut self, _: Progress<'_>, _: Trained<'_>) {}
}

/// What training gave.
#[derive(Clone, Debug)]
pub struct Run {
    /// One entry per step, over all sittings.
    pub metrics: Vec<StepRecord>,
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

/// Trains a [`Learner`] on [`Data`]: batches, gradients, clipping, updates, held-out losses, and, with a
/// run directory, checkpoints and attention snapshots.
pub struct Trainer<'o> {
    config: TrainConfig,
    keep: Keep,
    command: Option<String>,
    seed: Option<u64>,
    optimizer: Option<Optimizer>,
    schedule: Option<Box<dyn Fn(u64) -> f64 + 'o>>,
    observer: Option<&'o mut dyn Observer>,
}

impl fmt::Debug for Trainer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = match &self.keep {
            Keep::Nothing => None,
            Keep::New(path) => Some(path.as_path()),
            Keep::Resumed(dir) => Some(dir.path()),
        };
        f.debug_struct("Trainer")
            .field("config", &self.config)
            .field("kept", &kept)
            .field("own_optimizer", &self.optimizer.is_some())
            .field("own_schedule", &self.schedule.is_some())
            .finish_non_exhaustive()
    }
}

/// What is kept on disk.
enum Keep {
    Nothing,
    New(PathBuf),
    Resumed(Box<RunDir>),
}

impl<'o> Trainer<'o> {
    /// A trainer that keeps nothing on disk.
    pub fn new(config: TrainConfig) -> Trainer<'o> {
        Trainer {
            config,
            keep: Keep::Nothing,
            command: None,
            seed: None,
            optimizer: None,
            schedule: None,
            observer: None,
        }
    }

    /// Goes on with a run from its newest whole checkpoint, or from its start, with its settings, to the
    /// same bits as if it had never stopped.
    pub fn resume(run: RunDir) -> Trainer<'o> {
        Trainer { keep: Keep::Resumed(Box::new(run.clone())), ..Trainer::new(run.config().train.clone()) }
    }

    /// Keeps the run in a directory that is new, empty, or was left before its first checkpoint. It is
    /// made when the training starts, after everything was checked.
    #[must_use]
    pub fn keep(mut self, path: impl Into<PathBuf>) -> Self {
        self.keep = Keep::New(path.into());
        self
    }

    /// The command that starts the run, for its record.
    #[must_use]
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// The seed that the transformer was built with. A run of one that has those very weights can start
    /// from the seed again; any other keeps its starting weights.
    #[must_use]
    pub fn drawn_from(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// An optimiser of its own, such as one with groups, in place of the configuration's. A run that goes
    /// on needs the same again.
    #[must_use]
    pub fn optimizer(mut self, optimizer: Optimizer) -> Self {
        self.optimizer = Some(optimizer);
        self
    }

    /// The learning rate by step (from 0), in place of the configuration's rate and schedule. A run that
    /// goes on needs the same again.
    #[must_use]
    pub fn schedule(mut self, lr_at: impl Fn(u64) -> f64 + 'o) -> Self {
        self.schedule = Some(Box::new(lr_at));
        self
    }

    /// Somebody to tell.
    #[must_use]
    pub fn observe(mut self, observer: &'o mut dyn Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Trains `learner` on `data`.
    ///
    /// # Errors
    /// For settings that cannot be, a run of other data or another learner, files that cannot be
    /// written, and a loss or gradient that stops being finite; the learner then has the weights before
    /// that step.
    pub fn fit<L, D>(self, learner: &mut L, data: &mut D) -> Result<Run, TrainError>
    where
        L: Learner,
        D: Data<Batch = L::Batch> + ?Sized,
    {
        let mut sitting = Sitting::begin(self, learner, data)?;
        while sitting.steps < sitting.trainer.config.steps && !sitting.run.stopped {
            sitting.step()?;
        }
        sitting.run.seconds = sitting.seconds();
        Ok(sitting.run)
    }

    /// Trains a transformer on `data` by `loss`: [`Trainer::fit`] of a [`LanguageModel`].
    ///
    /// # Errors
    /// As [`Trainer::fit`].
    pub fn fit_model<B, D>(
        self,
        model: &mut HookedTransformer,
        data: &mut D,
        loss: impl Fn(&Var, &B) -> Var,
    ) -> Result<Run, TrainError>
    where
        B: TokenBatch,
        D: Data<Batch = B> + ?Sized,
    {
        self.fit(&mut LanguageModel::new(model, loss), data)
    }

    /// Starts or goes on with what is to be kept; a run that goes on sets `learner`, `optimizer` and `run`.
    fn open<L, D>(
        &mut self,
        learner: &mut L,
        data: &D,
        held_out: &L::Batch,
        own: Own,
        optimizer: &mut Optimizer,
        run: &mut Run,
    ) -> Result<Option<Record>, TrainError>
    where
        L: Learner,
        D: Data<Batch = L::Batch> + ?Sized,
    {
        let keep = std::mem::replace(&mut self.keep, Keep::Nothing);
        let resumed = matches!(keep, Keep::Resumed(_));
        let sequences = learner.sequences(held_out).map(|s| s.first(LOOKED_AT));
        let (dir, lock, at) = match keep {
            Keep::Nothing => return Ok(None),
            Keep::New(path) => {
                let ran = RunConfig {
                    own,
                    references: data.references(held_out),
                    ..RunConfig::new(learner, data, &self.config, self.seed, self.command.take())?
                };
                let (dir, lock) = RunDir::create(path, ran)?;
                (dir, lock, Restored::default())
            }
            Keep::Resumed(dir) => {
                dir.check_same(learner, &data.describe(), &own)?;
                let lock = Lock::take(dir.path())?;
                lock.clean(dir.path());
                dir.make_folders()?;
                let at = dir.restore(learner, optimizer)?;
                run.metrics = dir.metrics_of(at.step)?;
                run.evals = dir.evals()?;
                // The last sitting may have ended with one that is not due.
                let (log_every, steps) = (self.config.log_every, self.config.steps);
                run.evals.retain(|e| e.step <= at.step && (e.step.is_multiple_of(log_every) || e.step == steps));
                (*dir, lock, at)
            }
        };
        if let Some(sequences) = &sequences {
            dir.save_sequences(sequences)?;
        }
        let metrics = dir.append("metrics.jsonl", &run.metrics)?;
        let evals = dir.append("evals.jsonl", &run.evals)?;
        run.dir = Some(dir.path().to_path_buf());
        Ok(Some(Record { dir, _lock: lock, resumed, at, metrics, evals, sequences }))
    }

    fn tell(&mut self, progress: Progress<'_>, learner: &impl Learner) {
        if let Some(observer) = &mut self.observer {
            observer.on(progress, Trained { params: learner.params(), transformer: learner.transformer() });
        }
    }
}

/// What is due after some steps.
struct Due {
    /// A held-out loss, and the lines so far in their files.
    log: bool,
    snapshot: bool,
    checkpoint: bool,
}

/// A run while it is trained, from its first step or the one that it goes on with.
struct Sitting<'t, 'o, L: Learner, D: ?Sized> {
    trainer: Trainer<'o>,
    learner: &'t mut L,
    data: &'t mut D,
    held_out: L::Batch,
    optimizer: Optimizer,
    record: Option<Record>,
    run: Run,
    /// Steps after which attention is kept.
    snapshots: Vec<u64>,
    /// Steps trained.
    steps: u64,
    /// Seconds of training in earlier sittings.
    before: f64,
    clock: Instant,
    /// Steps whose numbers are still on a GPU.
    waiting: Vec<Waiting>,
    /// See [`step_after`].
    trouble: Option<Tensor>,
}

impl<'t, 'o, L, D> Sitting<'t, 'o, L, D>
where
    L: Learner,
    D: Data<Batch = L::Batch> + ?Sized,
{
    /// Checks everything, starts or goes on with what is to be kept, and tells of it.
    fn begin(mut trainer: Trainer<'o>, learner: &'t mut L, data: &'t mut D) -> Result<Self, TrainError> {
        let config = &trainer.config;
        config.check()?;
        let held_out = data.held_out(config.eval_batch_size)?;
        learner.check(config, &held_out)?;

        let own = Own {
            optimizer: trainer.optimizer.as_ref().map(|o| o.describe(learner.params())),
            schedule: trainer.schedule.is_some(),
            frozen: learner.params().frozen().map(String::from).collect(),
            perma_hooks: learner.params().perma_hooks().map(String::from).collect(),
        };
        let mut optimizer = trainer.optimizer.take().unwrap_or_else(|| trainer.config.optimizer());
        let mut run = Run { metrics: vec![], evals: vec![], seconds: 0.0, stopped: false, dir: None };
        let record = trainer.open(learner, data, &held_out, own, &mut optimizer, &mut run)?;
        let (steps, before) = record.as_ref().map_or((0, 0.0), |r| (r.at.step, r.at.seconds));
        trainer.tell(Progress::Start(steps, record.as_ref().map(|r| &r.dir)), learner);
        if let Some(r) = &record {
            if r.resumed {
                trainer.tell(Progress::Resumed(steps), learner);
            }
            r.dir.notices().iter().for_each(|notice| trainer.tell(Progress::Notice(notice), learner));
        }
        let snapshots = trainer.config.snapshot_steps();
        let mut sitting = Sitting {
            trainer,
            learner,
            data,
            held_out,
            optimizer,
            record,
            run,
            snapshots,
            steps,
            before,
            clock: Instant::now(),
            waiting: Vec::new(),
            trouble: None,
        };
        if steps == 0 {
            sitting.keep_start()?;
        }
        sitting.data.seek(steps * sitting.trainer.config.accumulate);
        sitting.clock = Instant::now();
        Ok(sitting)
    }

    /// Keeps the state before the first step: its attention, and weights that no seed gives.
    fn keep_start(&mut self) -> Result<(), TrainError> {
        let Some(r) = &mut self.record else { return Ok(()) };
        let own_weights = r.dir.config().seed.is_none() && !r.resumed;
        if own_weights {
            r.check_finite(self.learner, &self.optimizer, 0)?;
        }
        r.snapshot(0, self.learner)?;
        if own_weights {
            let checkpoint = r.checkpoint(self.learner, &self.optimizer, 0, 0.0)?;
            self.trainer.tell(Progress::Checkpoint(&checkpoint), self.learner);
        }
        Ok(())
    }

    /// Seconds of training so far, over all sittings.
    fn seconds(&self) -> f64 {
        self.before + self.clock.elapsed().as_secs_f64()
    }

    fn should_stop(&self) -> bool {
        self.trainer.observer.as_ref().is_some_and(|o| o.should_stop())
    }

    /// What is due after the steps so far, if the run `ends` here or at its last step.
    fn due(&self, ends: bool) -> Due {
        let (config, steps) = (&self.trainer.config, self.steps);
        let last = ends || steps == config.steps;
        Due {
            log: last || steps.is_multiple_of(config.log_every),
            snapshot: self.snapshots.contains(&steps),
            checkpoint: last || (config.checkpoint_every > 0 && steps.is_multiple_of(config.checkpoint_every)),
        }
    }

    /// Takes a step and does what is due after it.
    fn step(&mut self) -> Result<(), TrainError> {
        self.update()?;
        let first_of_log = self.steps.is_multiple_of(self.trainer.config.log_every);
        self.steps += 1;
        let stop = self.should_stop();
        // Results on the CPU are at hand; a GPU is asked for them only now and then.
        let due = self.due(stop);
        let asked = first_of_log || due.log || due.snapshot || due.checkpoint || self.waiting.len() >= MOST_WAITING;
        let settled = asked || *self.learner.params().device() == Device::Cpu;
        if settled {
            self.settle()?;
        }
        // An observer may have seen in this step why to stop. What waits on a GPU is not left there: then the next
        // step asks.
        let ends = stop || (settled && self.should_stop());
        self.run.stopped = ends && self.steps < self.trainer.config.steps;
        self.keep(self.due(ends))
    }

    /// Trains on the next batches.
    fn update(&mut self) -> Result<(), TrainError> {
        let (config, step) = (&self.trainer.config, self.steps);
        let lr = self.trainer.schedule.as_ref().map_or_else(|| config.lr_at(step), |lr_at| lr_at(step));
        if !(0.0..f64::INFINITY).contains(&lr) {
            return Err(TrainError::LearningRate { step, given: lr });
        }
        let batches = (0..config.accumulate).map(|_| self.data.batch(config.batch_size));
        let (trouble, optimizer) = (&mut self.trouble, &mut self.optimizer);
        let Step { loss, grad_norm } = step_after(trouble, self.learner, optimizer, batches, lr, config.clip())?;
        let metric = StepRecord { step, loss: 0.0, lr, grad_norm: 0.0, seconds: self.seconds() };
        self.waiting.push(Waiting { metric, loss, grad_norm });
        Ok(())
    }

    /// Reads the numbers of the steps that wait for theirs, and tells them.
    fn settle(&mut self) -> Result<(), TrainError> {
        for metric in settle(&mut self.waiting) {
            let bad = [("loss", metric.loss), ("gradient norm", metric.grad_norm)];
            if let Some((what, value)) = bad.into_iter().find(|(_, x)| !x.is_finite()) {
                let step = metric.step;
                let checkpoint = last_good(self.record.as_ref().map(|r| &r.dir));
                // The batches of the step once more: they are by number. Of a GPU this may be an earlier step; the
                // weights are still those that it began with.
                let TrainConfig { accumulate, batch_size, .. } = self.trainer.config;
                self.data.seek(step * accumulate);
                let hook = first_not_finite(self.learner, (0..accumulate).map(|_| self.data.batch(batch_size)))?;
                return Err(TrainError::NotFinite { step, what, value, hook, checkpoint });
            }
            self.run.metrics.push(metric);
            if let Some(r) = &mut self.record {
                r.metrics.push(&metric)?;
            }
            self.trainer.tell(Progress::Step(&metric), self.learner);
        }
        Ok(())
    }

    /// Measures and keeps what is due.
    fn keep(&mut self, due: Due) -> Result<(), TrainError> {
        let step = self.steps;
        if due.log {
            let eval = Eval { step, loss: self.learner.loss(&self.held_out)?.item() };
            self.run.evals.push(eval);
            self.trainer.tell(Progress::Eval(&eval), self.learner);
            if let Some(r) = &mut self.record {
                r.evals.push(&eval)?;
                r.metrics.flush()?;
                r.evals.flush()?;
            }
        }
        let seconds = self.seconds();
        let Some(r) = &mut self.record else { return Ok(()) };
        if due.checkpoint {
            r.check_finite(self.learner, &self.optimizer, step)?;
        }
        if due.snapshot {
            r.snapshot(step, self.learner)?;
        }
        if due.checkpoint {
            let checkpoint = r.checkpoint(self.learner, &self.optimizer, step, seconds)?;
            self.trainer.tell(Progress::Checkpoint(&checkpoint), self.learner);
        }
        Ok(())
    }
}

/// A step whose numbers were not read yet.
struct Waiting {
    metric: StepRecord,
    loss: Tensor,
    grad_norm: Tensor,
}

/// The metrics of steps that wait for their numbers, read at once.
fn settle(waiting: &mut Vec<Waiting>) -> Vec<StepRecord> {
    let read = |pick: fn(&Waiting) -> &Tensor, waiting: &[Waiting]| {
        let all: Vec<Tensor> = waiting.iter().map(|w| pick(w).reshape(&[])).collect();
        if all.is_empty() { vec![] } else { Tensor::stack(&all, 0).to_vec_f64() }
    };
    let (losses, norms) = (read(|w| &w.loss, waiting), read(|w| &w.grad_norm, waiting));
    let numbers = losses.into_iter().zip(norms);
    waiting.drain(..).zip(numbers).map(|(w, (loss, grad_norm))| StepRecord { loss, grad_norm, ..w.metric }).collect()
}

/// What a step gave: one number each, which may still be on the device.
#[derive(Debug)]
pub struct Step {
    /// The loss before the update.
    pub loss: Tensor,
    /// The norm of the gradient before clipping.
    pub grad_norm: Tensor,
}

/// One step of training on a batch: gradients, clipping to the norm `clip`, an update at learning rate
/// `lr`. If loss or norm is not finite, weights and moments stay as they were, also on a GPU, which is not
/// waited for.
///
/// # Errors
/// If the batch does not fit the learner.
pub fn train_step<L: Learner>(
    learner: &mut L,
    optimizer: &mut Optimizer,
    batch: &L::Batch,
    lr: f64,
    clip: Option<f64>,
) -> Result<Step, TrainError> {
    train_step_of(learner, optimizer, std::slice::from_ref(batch), lr, clip)
}

/// As [`train_step`], by the mean of the losses of several batches.
///
/// # Errors
/// If a batch does not fit the learner.
///
/// # Panics
/// If there is no batch.
#[track_caller]
pub fn train_step_of<L: Learner>(
    learner: &mut L,
    optimizer: &mut Optimizer,
    batches: &[L::Batch],
    lr: f64,
    clip: Option<f64>,
) -> Result<Step, TrainError> {
    assert!(!batches.is_empty(), "a step needs a batch");
    step_after(&mut None, learner, optimizer, batches.iter().map(Ok), lr, clip)
}

/// As [`train_step_of`], one of several steps; each of its batches, at least one, is asked for when the gradients of
/// the one before are there. On a GPU `trouble` is one number, 0 until the loss or norm of a step is not finite, then
/// NaN: that step and those after it change nothing, so that the weights are those before it when it shows.
#[track_caller]
fn step_after<L: Learner>(
    trouble: &mut Option<Tensor>,
    learner: &mut L,
    optimizer: &mut Optimizer,
    batches: impl IntoIterator<Item = Result<impl Borrow<L::Batch>, TrainError>>,
    lr: f64,
    clip: Option<f64>,
) -> Result<Step, TrainError> {
    let mut batches = batches.into_iter();
    let first = batches.next().expect("a step has a batch")?;
    let (mut loss, mut grads) = learner.gradients(first.borrow())?;
    drop(first);
    let mut count = 1u32;
    for batch in batches {
        let (value, more) = learner.gradients(batch?.borrow())?;
        count += 1;
        loss += value.reshape(loss.shape());
        for (grad, more) in grads.iter_mut().zip(more) {
            *grad = match (grad.take(), more) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            };
        }
    }
    if count > 1 {
        let share = 1.0 / f64::from(count);
        loss *= share;
        grads.iter_mut().flatten().for_each(|grad| *grad *= share);
    }
    let grad_norm = grad_norm(&grads, learner.params().dtype(), learner.params().device());
    let scale = clip.map(|max| clip_coefficient(&grad_norm, max));
    if *learner.params().device() != Device::Cpu {
        let zero_or_nan = |x: &Tensor| x.reshape(&[]).affine(0.0, 0.0);
        let here = zero_or_nan(&loss) + zero_or_nan(&grad_norm);
        let so_far = trouble.take().map_or(here.clone(), |before| before + here);
        let scale = scale.map_or_else(|| so_far.affine(1.0, 1.0), |scale| scale + &so_far);
        *trouble = Some(so_far);
        optimizer.step(learner.params_mut(), &grads, lr, Some(&scale));
    } else if loss.item().is_finite() && grad_norm.item().is_finite() {
        optimizer.step(learner.params_mut(), &grads, lr, scale.as_ref());
    }
    learner.params().device().flush();
    Ok(Step { loss, grad_norm })
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
    /// What attention is looked at on, if the learner runs on sequences.
    sequences: Option<Sequences>,
}

impl Record {
    /// Keeps the attention patterns of a transformer on its held-out sequences.
    fn snapshot<L: Learner>(&mut self, step: u64, learner: &L) -> Result<(), TrainError> {
        let (Some(model), Some(sequences)) = (learner.transformer(), &self.sequences) else { return Ok(()) };
        let (_, cache) = sequences.call(model).names(|n: &str| n.ends_with("hook_pattern")).cached()?;
        let patterns: Vec<Tensor> = cache.iter().map(|(_, p)| p.mean(&[0])).collect();
        self.dir.save_snapshot(&Snapshot { step, patterns }, &mut self.at.snapshots)
    }

    /// Refuses to keep weights or moments that are not finite.
    fn check_finite<L: Learner>(&self, learner: &L, optimizer: &Optimizer, steps: u64) -> Result<(), TrainError> {
        match not_finite(learner.params(), optimizer) {
            None => Ok(()),
            Some(name) => Err(TrainError::WeightsNotFinite { steps, name, checkpoint: last_good(Some(&self.dir)) }),
        }
    }

    /// Writes a checkpoint. The lines of its steps are on the disk before it is.
    fn checkpoint<L: Learner>(
        &mut self,
        learner: &L,
        optimizer: &Optimizer,
        step: u64,
        seconds: f64,
    ) -> Result<Checkpoint, TrainError> {
        self.metrics.sync()?;
        self.evals.sync()?;
        (self.at.step, self.at.seconds) = (step, seconds);
        self.dir.save_checkpoint(learner, optimizer, &self.at)
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
fn not_finite(params: &Params, optimizer: &Optimizer) -> Option<String> {
    // Stored tensors are few and whole; names are looked for only in a bad one.
    if params.slots().iter().chain(optimizer.moments()).all(Tensor::all_finite) {
        return None;
    }
    let weights = params.iter().map(|(name, value)| (name.to_string(), value));
    weights.chain(optimizer.state(params)).find(|(_, value)| !value.all_finite()).map(|(name, _)| name)
}

/// The first hook point of a transformer whose activation is not finite, or a word that there is none.
fn first_not_finite<L: Learner>(
    learner: &L,
    batches: impl Iterator<Item = Result<L::Batch, TrainError>>,
) -> Result<String, TrainError> {
    for batch in batches {
        let (Some(model), Some(sequences)) = (learner.transformer(), learner.sequences(&batch?)) else {
            return Ok("unknown (only a transformer names its activations)".into());
        };
        if let Some(name) = sequences.call(model).cached()?.1.first_not_finite() {
            return Ok(format!("at {name}"));
        }
    }
    Ok("none (it arises in the loss or on the way back)".into())
}
