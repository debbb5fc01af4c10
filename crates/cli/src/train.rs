//! `ironlens train`: trains a model and keeps the run.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use ironlens::tensor::Device;
use ironlens::train::{
    Experiment, LanguageModel, Observer, Progress, RandomTokens, Run, RunDir, StepRecord, Task, TaskData, TrainError,
    Trained, Trainer, labelled_loss,
};
use ironlens::transformer::HookedTransformer;

use crate::device::DeviceArg;
use crate::say::say;
use crate::settings::{Recipe, Settings};
use crate::signals::Stop;
use crate::{quoted, threads};

/// Where runs go unless told otherwise.
pub const RUNS: &str = "runs";

const AFTER_HELP: &str = "\
Ctrl-C stops after the step in progress and keeps a checkpoint, from which --resume goes on to the same bits. \
The exit status is then 130, or 143 after SIGTERM. A run that was killed goes on from its last checkpoint, and \
lines of output that nobody takes are no reason to stop.";

/// Flags of `train`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    device: DeviceArg,
    /// Folder of the run: new, empty, or left before its first checkpoint [default: runs/PRESET-N]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with a run from its newest whole checkpoint, or its start, with its own settings
    #[arg(long, value_name = "RUN", conflicts_with_all = [
        "preset", "config", "steps", "batch_size", "lr", "schedule", "warmup_steps", "seed", "checkpoint_every", "log_every", "out",
    ])]
    resume: Option<PathBuf>,
}

/// Trains; gives the folder of the run.
///
/// # Errors
/// [`Interrupted`](crate::Interrupted) if a signal ended it early; for settings, devices and folders that cannot be, and what goes wrong in training.
pub fn run(args: &Args) -> Result<PathBuf> {
    let (device, no_gpu) = args.device.device.open()?;
    threads::start()?;
    let (trainer, path, recipe) = match &args.resume {
        Some(path) => {
            let run = RunDir::open(path)?;
            let recipe = recipe_of(&run, args.settings.text.as_deref())?;
            let steps = recipe.train.steps;
            if run.last_checkpoint().is_ok_and(|last| last.step >= steps) {
                bail!("{} is complete: all {steps} steps are done; nothing to resume", path.display());
            }
            (Trainer::resume(run), path.clone(), recipe)
        }
        None => {
            let recipe = args.settings.resolve()?;
            let path = args.out.clone().unwrap_or_else(|| free_folder(Path::new(RUNS), args.settings.preset.name()));
            let words = std::env::args_os().skip(1).map(|word| quoted(&word.to_string_lossy()));
            let command = words.collect::<Vec<_>>().join(" ");
            let command = format!("{} {command}", crate::command_name());
            let trainer = Trainer::new(recipe.train.clone()).keep(&path).command(command).drawn_from(recipe.seed);
            (trainer, path, recipe)
        }
    };
    if let Some(reason) = no_gpu {
        say!("{reason}");
    }
    let mut model = HookedTransformer::new(recipe.model, &device, recipe.seed)?;
    let data = match recipe.experiment {
        None => Source::Random(RandomTokens::new(model.config(), recipe.data_seed)?),
        Some(e) => Source::Task(e, e.data(model.config(), recipe.data_seed, recipe.text.as_deref())?),
    };
    let mut console = Console::new(recipe.train.steps, recipe.train.log_every)?;
    let result = fit(trainer.observe(&mut console), &mut model, recipe.task, data);
    console.finish();
    summarise(&result?, &path, args.settings.text.as_deref(), &device);
    match console.stop.asked() {
        Some(interrupted) => Err(interrupted.into()),
        None => Ok(path),
    }
}

/// What is learned from.
enum Source {
    Random(RandomTokens),
    Task(Experiment, TaskData),
}

fn fit(trainer: Trainer<'_>, model: &mut HookedTransformer, task: Task, data: Source) -> Result<Run, TrainError> {
    match data {
        Source::Random(mut data) => trainer.fit(&mut LanguageModel::of_task(model, task), &mut data),
        Source::Task(experiment, mut data) => {
            trainer.fit(&mut LanguageModel::new(model, labelled_loss).named(experiment.name()), &mut data)
        }
    }
}

/// How a run was made, if this command can go on with it.
fn recipe_of(run: &RunDir, text: Option<&Path>) -> Result<Recipe> {
    let (config, path) = (run.config(), run.path().display());
    let theirs = "go on with the run in the program that made it";
    let (task, experiment) = (Task::from_name(&config.learner.loss), Experiment::from_name(&config.learner.loss));
    if task.is_none() && experiment.is_none() {
        bail!("{path} was trained on the loss `{}`, which this command does not know; {theirs}", config.learner.loss);
    }
    if experiment == Some(Experiment::Text) && text.is_none() {
        bail!("{path} was trained on a text; name it with --text FILE");
    }
    if experiment != Some(Experiment::Text) && text.is_some() {
        bail!("{path} was not trained on a text; leave --text out");
    }
    let Some(data_seed) = config.data.seed else {
        bail!("{path} was trained on {}, which this command cannot make; {theirs}", config.data.description);
    };
    let model = run.model_config()?.clone();
    // Without the seed of its start, a run begins with a checkpoint, whose weights replace any.
    Ok(Recipe {
        model,
        train: config.train.clone(),
        task: task.unwrap_or_default(),
        experiment,
        text: text.map(Path::to_path_buf),
        seed: config.seed.unwrap_or(0),
        data_seed,
    })
}

fn summarise(run: &Run, path: &Path, text: Option<&Path>, device: &Device) {
    let number = |x: Option<f64>| x.map_or("none".into(), |x| format!("{:?}", x as f32));
    if run.stopped {
        say!("stopped after {} steps", run.metrics.last().map_or(0, |m| m.step + 1));
    }
    say!("final loss         {}", number(run.final_loss()));
    say!("held-out loss      {}", number(run.held_out_loss()));
    say!("time               {}", HumanDuration(Duration::from_secs_f64(run.seconds)));
    if let Some(bytes) = crate::bench::peak_memory() {
        say!("peak memory        {} MiB", bytes >> 20);
    }
    #[cfg(feature = "gpu")]
    if let Device::Gpu(gpu) = device {
        say!("peak GPU memory    {:.1} MiB", gpu.memory().peak_bytes as f64 / 1048576.0);
    }
    let _ = device;
    say!("run                {}", path.display());
    let word = |path: &Path| quoted(&path.to_string_lossy());
    if run.stopped {
        let text = text.map_or_else(String::new, |text| format!(" --text {}", word(text)));
        say!("to go on           {} train --resume {}{text}", crate::command_name(), word(path));
    }
    say!("to see it          {} report {}", crate::command_name(), word(path));
}

/// `runs/NAME-1`, or with the next number that is free.
fn free_folder(runs: &Path, name: &str) -> PathBuf {
    (1..).map(|n| runs.join(format!("{name}-{n}"))).find(|p| !p.exists()).expect("some number is free")
}

/// Progress on the terminal, lines in a pipe, and Ctrl-C.
struct Console {
    bar: Option<ProgressBar>,
    log_every: u64,
    steps: u64,
    stop: Stop,
}

impl Console {
    fn new(steps: u64, log_every: u64) -> Result<Console> {
        let stop = Stop::listen()?;
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{bar:30} {pos}/{len} steps  {msg}  {rate}  {elapsed} elapsed, {eta} left",
            );
            let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // A line that cannot be drawn is no reason to stop training.
                let _ = write!(out, "{:.2} it/s", state.per_sec());
            };
            let bar = ProgressBar::new(steps);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("rate", rate));
            bar
        });
        Ok(Console { bar, log_every, steps, stop })
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say!("{text}")),
            None => say!("{text}"),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn step(&self, m: &StepRecord) {
        if let Some(bar) = &self.bar {
            if bar.position() == 0 && m.step > 0 {
                // A resumed run: the rate counts from here.
                bar.set_position(m.step);
                bar.reset_eta();
            }
            bar.set_message(format!("loss {:.3e}", m.loss));
            bar.set_position(m.step + 1);
        }
        if m.step.is_multiple_of(self.log_every) {
            self.line(&format!("Epoch: {}: {:?}", m.step, m.loss as f32));
        }
    }
}

impl Observer for Console {
    fn on(&mut self, progress: Progress<'_>, trained: Trained<'_>) {
        match progress {
            Progress::Resumed(step) => self.line(&format!("going on at step {step} of {}", self.steps)),
            Progress::Notice(notice) => self.line(&format!("warning: {notice}")),
            Progress::Start(step, run) => {
                if let (0, Some(model)) = (step, trained.transformer) {
                    say!("{model}");
                }
                let (params, threads) = (trained.params, rayon::current_num_threads());
                say!("{} weights on {}, {threads} threads", params.count(), params.device());
                if let Some(run) = run {
                    let (config, path) = (run.config(), run.path().display());
                    say!("{} steps of batch {}; run {path}", config.train.steps, config.train.batch_size);
                    say!("loss {}, on {}", config.learner.loss, config.data);
                }
            }
            Progress::Step(m) => self.step(m),
            Progress::Checkpoint(c) if c.step < self.steps => {
                self.line(&format!("checkpoint at step {}: {}", c.step, c.path.display()));
            }
            Progress::Checkpoint(_) | Progress::Eval(_) => {}
        }
    }

    fn should_stop(&self) -> bool {
        self.stop.asked().is_some()
    }
}
