//! The run directory: everything that a report needs and a resumed run reads.
//!
//! ```text
//! config.json                  the model, the training, how it was started
//! metrics.jsonl                one line per step: loss, learning rate, gradient norm, seconds
//! evals.jsonl                  held-out losses
//! checkpoints/step-000500/     weights.safetensors, state.json; the newest also optimizer.safetensors
//! snapshots/step-000000.safetensors   attention patterns on one fixed batch, mean over it
//! ```
//!
//! Files appear whole or not at all (the two line files are appended to, and cut back to the
//! checkpoint when a run resumes).

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use ironlens_tensor::Tensor;
use ironlens_transformer::{Config, HookedTransformer, read_tensors, write_atomically, write_tensors};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::adamw::AdamW;
use crate::config::TrainConfig;
use crate::error::TrainError;

/// What `config.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Version of the format.
    pub format: u32,
    /// The model, resolved.
    pub model: Config,
    /// The training.
    pub train: TrainConfig,
    /// The device it ran on.
    pub device: String,
    /// The command that started it, if a command did.
    pub command: Option<String>,
    /// Version of this library.
    pub version: String,
}

impl RunConfig {
    /// The description of a run of `model`.
    pub fn new(model: &HookedTransformer, train: &TrainConfig, command: Option<String>) -> RunConfig {
        RunConfig {
            format: 1,
            model: model.config().clone(),
            train: train.clone(),
            device: model.device().to_string(),
            command,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// One step of training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// From 0.
    pub step: u64,
    /// Loss of the step's batch, before its update.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Seconds of training so far, over all sittings.
    pub seconds: f64,
}

/// A loss on the held-out batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eval {
    /// Steps trained.
    pub step: u64,
    /// The loss.
    pub loss: f64,
}

/// A saved state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Steps trained.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
}

impl Checkpoint {
    /// Its weights file.
    pub fn weights(&self) -> PathBuf {
        self.path.join("weights.safetensors")
    }

    fn optimizer(&self) -> PathBuf {
        self.path.join("optimizer.safetensors")
    }

    /// Whether a run can go on from it.
    pub fn is_resumable(&self) -> bool {
        self.optimizer().exists()
    }
}

/// Attention patterns at one moment, mean over the fixed batch.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Steps trained.
    pub step: u64,
    /// Per layer, `[head, query, key]`.
    pub patterns: Vec<Tensor>,
}

#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    optimizer_steps: u64,
    seconds: f64,
}

/// A run on disk.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    config: RunConfig,
}

impl RunDir {
    /// Starts a run in a new or empty folder.
    ///
    /// # Errors
    /// If the folder is not empty or cannot be written.
    pub fn create(path: impl Into<PathBuf>, config: RunConfig) -> Result<RunDir, TrainError> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(TrainError::io(&path, "making the run directory"))?;
        let mut entries = fs::read_dir(&path).map_err(TrainError::io(&path, "reading the folder"))?;
        if entries.next().is_some() {
            return Err(TrainError::Exists { path });
        }
        for sub in ["checkpoints", "snapshots"] {
            let sub = path.join(sub);
            fs::create_dir(&sub).map_err(TrainError::io(&sub, "making the folder"))?;
        }
        let run = RunDir { path, config };
        run.write_json("config.json", &run.config)?;
        Ok(run)
    }

    /// Opens a run.
    ///
    /// # Errors
    /// If the folder is not a run, or its description cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<RunDir, TrainError> {
        let path = path.into();
        let bad = |reason: String| TrainError::NotARun { path: path.clone(), reason };
        let file = path.join("config.json");
        if !file.is_file() {
            return Err(bad("it has no config.json; give the folder that `train` printed, such as runs/tiny-1".into()));
        }
        let text = fs::read_to_string(&file).map_err(TrainError::io(&file, "reading"))?;
        let config: RunConfig =
            serde_json::from_str(&text).map_err(|e| bad(format!("config.json cannot be read ({e}); train again")))?;
        if config.format != 1 {
            return Err(bad(format!("it is of format {}, this version reads format 1", config.format)));
        }
        Ok(RunDir { path, config })
    }

    /// The newest run below `runs`.
    ///
    /// # Errors
    /// If there is none.
    pub fn newest(runs: &Path) -> Result<RunDir, TrainError> {
        let none = || TrainError::NotARun {
            path: runs.into(),
            reason: "there is no run in it; train one first, or name a run".into(),
        };
        let modified = |p: &Path| fs::metadata(p.join("config.json")).and_then(|m| m.modified()).ok();
        let entries = fs::read_dir(runs).map_err(|_| none())?;
        let newest = entries.flatten().filter_map(|e| Some((modified(&e.path())?, e.path()))).max().ok_or_else(none)?;
        RunDir::open(newest.1)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its description.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), TrainError> {
        let text = serde_json::to_string_pretty(value).expect("plain data is always JSON");
        Ok(write_atomically(&self.path.join(name), text.as_bytes())?)
    }

    // ---- lines --------------------------------------------------------------------------

    /// Steps so far. A last line that was cut short by a crash is left out.
    ///
    /// # Errors
    /// If the file cannot be read, or another line is no metric.
    pub fn metrics(&self) -> Result<Vec<Metric>, TrainError> {
        self.read_lines("metrics.jsonl")
    }

    /// Held-out losses so far.
    ///
    /// # Errors
    /// As [`RunDir::metrics`].
    pub fn evals(&self) -> Result<Vec<Eval>, TrainError> {
        self.read_lines("evals.jsonl")
    }

    fn read_lines<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, TrainError> {
        let path = self.path.join(name);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = fs::read_to_string(&path).map_err(TrainError::io(&path, "reading"))?;
        let count = text.lines().count();
        let mut all = Vec::with_capacity(count);
        for (i, line) in text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(value) => all.push(value),
                Err(_) if i + 1 == count && !text.ends_with('\n') => break,
                Err(e) => {
                    return Err(TrainError::NotARun {
                        path: self.path.clone(),
                        reason: format!("line {} of {name} cannot be read: {e}", i + 1),
                    });
                }
            }
        }
        Ok(all)
    }

    /// Opens a line file to go on with, without the lines that `keep` refuses.
    pub(crate) fn append<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        keep: impl Fn(&T) -> bool,
    ) -> Result<Lines, TrainError> {
        let path = self.path.join(name);
        let kept: Vec<T> = self.read_lines(name)?.into_iter().filter(keep).collect();
        let text: String =
            kept.iter().map(|v| serde_json::to_string(v).expect("plain data is always JSON") + "\n").collect();
        write_atomically(&path, text.as_bytes())?;
        let file = fs::OpenOptions::new().append(true).open(&path).map_err(TrainError::io(&path, "opening"))?;
        Ok(Lines { path, file: BufWriter::new(file) })
    }

    // ---- checkpoints --------------------------------------------------------------------

    /// All checkpoints, oldest first.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>, TrainError> {
        let folder = self.path.join("checkpoints");
        let entries = fs::read_dir(&folder).map_err(|e| TrainError::NotARun {
            path: self.path.clone(),
            reason: format!("its folder checkpoints cannot be read ({e})"),
        })?;
        let mut found: Vec<Checkpoint> = entries
            .flatten()
            .filter_map(|e| {
                let step = e.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
                Some(Checkpoint { step, path: e.path() })
            })
            .collect();
        found.sort_by_key(|c| c.step);
        Ok(found)
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// If there is none.
    pub fn last_checkpoint(&self) -> Result<Checkpoint, TrainError> {
        self.checkpoints()?.pop().ok_or_else(|| TrainError::NotARun {
            path: self.path.clone(),
            reason: "it has no checkpoint: training stopped before the first was written; train again".into(),
        })
    }

    /// The model as a checkpoint holds it.
    ///
    /// # Errors
    /// If its weights cannot be read or are not this model's.
    pub fn model_at(
        &self,
        checkpoint: &Checkpoint,
        device: &ironlens_tensor::Device,
    ) -> Result<HookedTransformer, TrainError> {
        let cfg = Config { init_weights: false, ..self.config.model.clone() };
        let mut model = HookedTransformer::new(cfg, device, 0)?;
        model.load_weights(checkpoint.weights())?;
        Ok(model)
    }

    /// The model before the first step.
    ///
    /// # Errors
    /// If the model cannot be built.
    pub fn initial_model(&self, device: &ironlens_tensor::Device) -> Result<HookedTransformer, TrainError> {
        match self.checkpoints()?.first() {
            Some(first) if first.step == 0 => self.model_at(first, device),
            _ => Ok(HookedTransformer::new(self.config.model.clone(), device, self.config.train.seed)?),
        }
    }

    /// Writes a checkpoint, whole or not at all, and drops the optimiser state of earlier ones.
    pub(crate) fn save_checkpoint(
        &self,
        step: u64,
        model: &HookedTransformer,
        optimizer: &AdamW,
        seconds: f64,
    ) -> Result<Checkpoint, TrainError> {
        let path = self.path.join("checkpoints").join(format!("step-{step:06}"));
        let beside = path.with_extension("tmp");
        let _ = fs::remove_dir_all(&beside);
        fs::create_dir_all(&beside).map_err(TrainError::io(&beside, "making the folder"))?;
        let new = Checkpoint { step, path: beside.clone() };
        let written = || -> Result<(), TrainError> {
            model.save_weights(new.weights())?;
            let state = optimizer.state(model.params());
            write_tensors(&new.optimizer(), state.iter().map(|(n, t)| (n.as_str(), t.clone())))?;
            let state = State { step, optimizer_steps: optimizer.steps(), seconds };
            let text = serde_json::to_string_pretty(&state).expect("plain data is always JSON");
            write_atomically(&beside.join("state.json"), text.as_bytes())?;
            let _ = fs::remove_dir_all(&path);
            fs::rename(&beside, &path).map_err(TrainError::io(&path, "writing"))
        };
        if let Err(e) = written() {
            let _ = fs::remove_dir_all(&beside);
            return Err(e);
        }
        for old in self.checkpoints()?.iter().filter(|c| c.step < step) {
            let _ = fs::remove_file(old.optimizer());
        }
        Ok(Checkpoint { step, path })
    }

    /// Loads a checkpoint into a model and an optimiser; gives its step and seconds.
    pub(crate) fn restore(
        &self,
        checkpoint: &Checkpoint,
        model: &mut HookedTransformer,
        optimizer: &mut AdamW,
    ) -> Result<(u64, f64), TrainError> {
        let bad = |reason: String| TrainError::NotARun { path: checkpoint.path.clone(), reason };
        let file = checkpoint.path.join("state.json");
        let text = fs::read_to_string(&file).map_err(|e| bad(format!("state.json cannot be read ({e})")))?;
        let state: State = serde_json::from_str(&text).map_err(|e| bad(format!("state.json cannot be read ({e})")))?;
        if !checkpoint.is_resumable() {
            return Err(bad(
                "it has no optimizer.safetensors; only the newest checkpoint of a run can be resumed".into()
            ));
        }
        model.load_weights(checkpoint.weights())?;
        let moments = read_tensors(&checkpoint.optimizer())?;
        let moments = moments.iter().map(|(n, t)| (n.as_str(), t));
        optimizer.restore(model.params(), state.optimizer_steps, moments).map_err(|e| bad(e.to_string()))?;
        Ok((state.step, state.seconds))
    }

    // ---- snapshots ----------------------------------------------------------------------

    /// The fixed batch `[8, n_ctx]` that snapshots are taken on.
    ///
    /// # Errors
    /// If the model's vocabulary is too small to draw one.
    pub fn snapshot_batch(&self) -> Result<ironlens_tensor::IndexTensor, TrainError> {
        crate::trainer::snapshot_batch(&self.config.model)
    }

    pub(crate) fn save_snapshot(&self, snapshot: &Snapshot) -> Result<(), TrainError> {
        let path = self.path.join("snapshots").join(format!("step-{:06}.safetensors", snapshot.step));
        let names: Vec<String> =
            (0..snapshot.patterns.len()).map(|l| format!("blocks.{l}.attn.hook_pattern")).collect();
        Ok(write_tensors(&path, names.iter().map(String::as_str).zip(snapshot.patterns.iter().cloned()))?)
    }

    /// All snapshots, oldest first.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, TrainError> {
        let folder = self.path.join("snapshots");
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(TrainError::io(&folder, "reading the folder"))?.flatten() {
            let name = entry.file_name();
            let step = name.to_str().and_then(|n| n.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok());
            let Some(step) = step else { continue };
            let tensors = read_tensors(&entry.path())?;
            let patterns = (0..self.config.model.n_layers)
                .map(|l| {
                    let name = format!("blocks.{l}.attn.hook_pattern");
                    tensors.get(&name).cloned().ok_or_else(|| TrainError::NotARun {
                        path: entry.path(),
                        reason: format!("the snapshot lacks {name}"),
                    })
                })
                .collect::<Result<_, _>>()?;
            found.push(Snapshot { step, patterns });
        }
        found.sort_by_key(|s| s.step);
        Ok(found)
    }
}

/// A file of JSON lines that is being added to.
pub(crate) struct Lines {
    path: PathBuf,
    file: BufWriter<fs::File>,
}

impl Lines {
    pub fn push(&mut self, value: &impl Serialize) -> Result<(), TrainError> {
        let line = serde_json::to_string(value).expect("plain data is always JSON");
        writeln!(self.file, "{line}").map_err(TrainError::io(&self.path, "writing"))
    }

    pub fn flush(&mut self) -> Result<(), TrainError> {
        self.file.flush().map_err(TrainError::io(&self.path, "writing"))
    }
}
