//! Saved states, whole or not at all, and what tells a damaged one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ironlens_files::watch::operation;
use ironlens_files::{sync_folder, write_atomically};
use ironlens_nn::optim::Optimizer;
use ironlens_tensor::Device;
use ironlens_transformer::{Config, HookedTransformer, read_tensors, write_tensors};
use serde::{Deserialize, Serialize};

use super::sealed::{FileHash, read_sealed_json, to_sealed_json};
use super::{Hashes, RunDir};
use crate::error::TrainError;
use crate::learner::Learner;

const WEIGHTS: &str = "weights.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";

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
        self.path.join(WEIGHTS)
    }

    fn optimizer(&self) -> PathBuf {
        self.path.join(OPTIMIZER)
    }

    /// Whether it still has what a run needs to go on from it.
    pub fn is_resumable(&self) -> bool {
        self.optimizer().exists()
    }
}

/// What `state.json` holds.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    step: u64,
    optimizer_steps: u64,
    /// Of training so far, over all sittings.
    seconds: f64,
    /// The seal of the run's `config.json`. (Format 1 has neither this nor what follows.)
    #[serde(default)]
    config: String,
    /// The files of the checkpoint.
    #[serde(default)]
    files: Hashes,
    /// The snapshots so far.
    #[serde(default)]
    pub snapshots: Hashes,
}

/// Where a run goes on.
#[derive(Default)]
pub(crate) struct Restored {
    /// Steps trained.
    pub step: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// The snapshots so far.
    pub snapshots: Hashes,
}

impl RunDir {
    /// All folders of checkpoints, whole or not, oldest first.
    fn checkpoint_folders(&self) -> Result<Vec<Checkpoint>, TrainError> {
        let folder = self.path.join("checkpoints");
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(TrainError::io(&folder, "reading the folder"))?,
        };
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

    /// The state of a checkpoint whose files are there in their lengths, or what is wrong with it.
    fn state_of(&self, checkpoint: &Checkpoint) -> Result<State, String> {
        let (state, seal): (State, _) = read_sealed_json(&checkpoint.path.join("state.json"))?;
        let steps = self.config.train.steps;
        if state.step != checkpoint.step {
            return Err(format!("its state.json is of step {}", state.step));
        }
        if state.step > steps {
            return Err(format!("the run has {steps} steps only"));
        }
        if !(0.0..1e12).contains(&state.seconds) {
            return Err(format!("its state.json tells of {} seconds of training", state.seconds));
        }
        match seal {
            None if self.config.format > 1 => return Err("its state.json has no SHA-256".into()),
            // Format 1 knew no hashes.
            None if state.optimizer_steps != state.step => {
                return Err(format!("its state.json tells of {} steps of the optimiser", state.optimizer_steps));
            }
            None => {
                fs::metadata(checkpoint.weights()).map(drop).map_err(|e| format!("{WEIGHTS} cannot be read ({e})"))?
            }
            Some(_) if state.config != self.seal => return Err("it was made with another config.json".into()),
            Some(_) => {
                for file in [WEIGHTS, OPTIMIZER] {
                    let hash =
                        state.files.get(file).ok_or_else(|| format!("its state.json does not tell of {file}"))?;
                    // Of old checkpoints the optimiser's state is removed.
                    if file == WEIGHTS || checkpoint.is_resumable() {
                        hash.check_length(&checkpoint.path.join(file))?;
                    }
                }
            }
        }
        Ok(state)
    }

    /// Notes a checkpoint that is passed over.
    fn pass_over(&self, checkpoint: &Checkpoint, why: &str) {
        let name = checkpoint.path.file_name().unwrap_or_default().to_string_lossy();
        self.note(format!("the checkpoint {name} is damaged and left out: {why}"));
    }

    /// All checkpoints whose files are there in their lengths, oldest first; others are noted.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>, TrainError> {
        let mut found = self.checkpoint_folders()?;
        found.retain(|c| self.state_of(c).inspect_err(|why| self.pass_over(c, why)).is_ok());
        Ok(found)
    }

    /// The newest checkpoint whose weights are those that were written; damaged ones after it are noted.
    ///
    /// # Errors
    /// If there is none.
    pub fn last_checkpoint(&self) -> Result<Checkpoint, TrainError> {
        self.newest_checkpoint(|state, checkpoint| self.check_weights(state, checkpoint))?.map(|(c, _)| c).ok_or_else(
            || {
                let reason = "it has no whole checkpoint yet; a training that resumes it goes on with it";
                TrainError::NotARun { path: self.path.clone(), reason: reason.into() }
            },
        )
    }

    /// The newest checkpoint that is whole as far as its lengths tell and `check` says, with its state.
    fn newest_checkpoint(
        &self,
        check: impl Fn(&State, &Checkpoint) -> Result<(), String>,
    ) -> Result<Option<(Checkpoint, State)>, TrainError> {
        for checkpoint in self.checkpoint_folders()?.into_iter().rev() {
            match self.state_of(&checkpoint).and_then(|state| check(&state, &checkpoint).map(|()| state)) {
                Ok(state) => return Ok(Some((checkpoint, state))),
                Err(why) => self.pass_over(&checkpoint, &why),
            }
        }
        Ok(None)
    }

    /// The state of the newest checkpoint, if there is one.
    pub(super) fn newest_state(&self) -> Option<State> {
        self.newest_checkpoint(|_, _| Ok(())).ok()?.map(|(_, state)| state)
    }

    fn check_weights(&self, state: &State, checkpoint: &Checkpoint) -> Result<(), String> {
        state.files.get(WEIGHTS).map_or(Ok(()), |hash| hash.check(&checkpoint.weights()))
    }

    /// The transformer as a checkpoint holds it.
    ///
    /// # Errors
    /// If the run trained something else or a model with permanent hooks, or its weights cannot be read, were changed after they were written, or are not this model's.
    pub fn model_at(&self, checkpoint: &Checkpoint, device: &Device) -> Result<HookedTransformer, TrainError> {
        self.check_unhooked()?;
        let bad = |reason| TrainError::NotARun { path: checkpoint.path.clone(), reason };
        self.state_of(checkpoint).and_then(|state| self.check_weights(&state, checkpoint)).map_err(bad)?;
        let cfg = Config { init_weights: false, ..self.model_config()?.clone() };
        let mut model = HookedTransformer::new(cfg, device, 0)?;
        model.load_weights(checkpoint.weights())?;
        Ok(model)
    }

    /// The transformer before the first step.
    ///
    /// # Errors
    /// If the run trained something else, or the transformer cannot be built, or started from weights of its own that are damaged.
    pub fn initial_model(&self, device: &Device) -> Result<HookedTransformer, TrainError> {
        match self.checkpoints()?.first() {
            Some(first) if first.step == 0 => self.model_at(first, device),
            _ => self.model_from_seed(device),
        }
    }

    fn model_from_seed(&self, device: &Device) -> Result<HookedTransformer, TrainError> {
        self.check_unhooked()?;
        let seed = self.config.seed.ok_or_else(|| self.start_is_lost())?;
        Ok(HookedTransformer::new(self.model_config()?.clone(), device, seed)?)
    }

    fn start_is_lost(&self) -> TrainError {
        let reason = "it started from weights of its own, and the checkpoint of step 0 that held them is not whole";
        TrainError::NotARun { path: self.path.clone(), reason: reason.into() }
    }

    /// Writes a checkpoint, whole or not at all, and drops the optimiser's state of all but the two newest.
    ///
    /// Nothing has the checkpoint's name before all of its files are on the disk.
    pub(crate) fn save_checkpoint<L: Learner>(
        &self,
        learner: &L,
        optimizer: &Optimizer,
        at: &Restored,
    ) -> Result<Checkpoint, TrainError> {
        let folder = self.path.join("checkpoints");
        let path = folder.join(format!("step-{:06}", at.step));
        let beside = path.with_extension("tmp");
        let written = self.write_checkpoint(&beside, learner, optimizer, at).and_then(|()| {
            // One that is there is damaged, or the run would have gone on from it.
            remove(&path)?;
            operation("rename", &path, || fs::rename(&beside, &path)).map_err(TrainError::io(&path, "writing"))?;
            sync_folder(&folder).map_err(TrainError::io(&folder, "writing"))
        });
        if let Err(e) = written {
            // The error of the write is the one to tell.
            let _ = fs::remove_dir_all(&beside);
            return Err(e);
        }
        self.drop_old_moments()?;
        Ok(Checkpoint { step: at.step, path })
    }

    /// Removes the optimiser's state of all checkpoints but the two newest that have it.
    fn drop_old_moments(&self) -> Result<(), TrainError> {
        let resumable = self.checkpoint_folders()?.into_iter().rev().filter(Checkpoint::is_resumable);
        for old in resumable.skip(2) {
            // One that stays costs space only.
            let _ = operation("remove", &old.optimizer(), || fs::remove_file(old.optimizer()));
        }
        Ok(())
    }

    fn write_checkpoint<L: Learner>(
        &self,
        folder: &Path,
        learner: &L,
        optimizer: &Optimizer,
        at: &Restored,
    ) -> Result<(), TrainError> {
        remove(folder)?;
        operation("create", folder, || fs::create_dir_all(folder))
            .map_err(TrainError::io(folder, "making the folder"))?;
        learner.save_weights(&folder.join(WEIGHTS))?;
        let moments = optimizer.state(learner.params());
        write_tensors(&folder.join(OPTIMIZER), moments.iter().map(|(n, t)| (n.as_str(), t.clone())))?;
        let mut files = BTreeMap::new();
        for file in [WEIGHTS, OPTIMIZER] {
            let path = folder.join(file);
            files.insert(file.to_string(), FileHash::of(&path).map_err(TrainError::io(&path, "reading"))?);
        }
        let state = State {
            step: at.step,
            optimizer_steps: optimizer.steps(),
            seconds: at.seconds,
            config: self.seal.clone(),
            files,
            snapshots: at.snapshots.clone(),
        };
        Ok(write_atomically(folder.join("state.json"), to_sealed_json(&state).0.as_bytes())?)
    }

    /// Sets a learner and an optimiser to the newest whole checkpoint, or to the start if there is none. Damaged
    /// checkpoints after it are set aside under another name, and noted.
    pub(crate) fn restore<L: Learner>(
        &self,
        learner: &mut L,
        optimizer: &mut Optimizer,
    ) -> Result<Restored, TrainError> {
        let whole = self.newest_checkpoint(|state, checkpoint| {
            self.check_weights(state, checkpoint)?;
            if !checkpoint.is_resumable() {
                return Err(format!("it has no {OPTIMIZER}"));
            }
            state.files.get(OPTIMIZER).map_or(Ok(()), |hash| hash.check(&checkpoint.optimizer()))
        })?;
        let from = whole.as_ref().map(|(checkpoint, _)| checkpoint.step);
        let restored = match whole {
            Some((checkpoint, state)) => {
                learner.load_weights(&checkpoint.weights())?;
                let moments = read_tensors(&checkpoint.optimizer())?;
                let moments = moments.iter().map(|(n, t)| (n.as_str(), t));
                optimizer
                    .restore(learner.params(), state.optimizer_steps, moments)
                    .map_err(|e| TrainError::NotARun { path: checkpoint.optimizer(), reason: e.to_string() })?;
                Restored { step: state.step, seconds: state.seconds, snapshots: state.snapshots }
            }
            None => {
                if let Ok(last) = self.last_checkpoint() {
                    let reason = format!("it can be read but not gone on with: no checkpoint has a whole {OPTIMIZER}");
                    return Err(TrainError::NotARun { path: last.path, reason });
                }
                let start = self.model_from_seed(learner.params().device())?;
                for (name, value) in start.params().iter() {
                    learner.params_mut().set(name, &value)?;
                }
                Restored::default()
            }
        };
        for damaged in self.checkpoint_folders()?.iter().filter(|c| from.is_none_or(|step| c.step > step)) {
            let aside = damaged.path.with_extension("damaged");
            remove(&aside)?;
            operation("rename", &aside, || fs::rename(&damaged.path, &aside))
                .map_err(TrainError::io(&aside, "setting aside"))?;
        }
        self.drop_old_moments()?;
        Ok(restored)
    }
}

/// Removes a folder or a file of its name, if there is one.
fn remove(path: &Path) -> Result<(), TrainError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => operation("remove", path, || fs::remove_dir_all(path)),
        Ok(_) => operation("remove", path, || fs::remove_file(path)),
        Err(_) => Ok(()),
    };
    removed.map_err(TrainError::io(path, "removing"))
}
