//! The run directory: everything that a report needs and a resumed run reads.
//!
//! ```text
//! config.json                  what was trained, on which data, how it was started
//! metrics.jsonl                one line per step: loss, learning rate, gradient norm, seconds
//! evals.jsonl                  held-out losses
//! checkpoints/step-000500/     weights.safetensors, state.json; the two newest also optimizer.safetensors
//! sequences.json               some of the data's held-out sequences, where a transformer is trained
//! snapshots/step-000000.safetensors   its attention patterns on them, mean over them
//! .lock                        locked while a process trains the run
//! ```
//!
//! Files appear whole or not at all (the two line files are appended to, and cut back to the
//! checkpoint when a run resumes). A run can always go on: from its newest whole checkpoint, or from
//! the start, which config.json knows. Damage is noticed when a file is read: config.json and
//! state.json hold the SHA-256 of their own fields, state.json those of config.json, of its
//! checkpoint's files and of the snapshots so far. Nothing names a file that is not on the disk, so
//! that a power cut leaves what a kill leaves.

mod checkpoint;
mod lines;
mod lock;
mod sealed;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ironlens_files::watch::operation;
use ironlens_files::{sync_folder, write_atomically};
use ironlens_tensor::Tensor;
use ironlens_transformer::{Config, HookedTransformer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::TrainConfig;
use crate::data::{Data, DataRecord, RandomTokens, Reference};
use crate::error::TrainError;
use crate::learner::{Learner, LearnerRecord};

pub use checkpoint::Checkpoint;
pub(crate) use checkpoint::Restored;
pub(crate) use lines::Lines;
pub(crate) use lock::Lock;
use sealed::{FileHash, open_sealed_json, read_ordinary, to_sealed_json};
use snapshot::SEQUENCES;
pub use snapshot::Snapshot;

/// The version of the format that is written. Version 1, which is still read, had no hashes.
const FORMAT: u32 = 2;

/// Hashes of files by name.
pub(crate) type Hashes = BTreeMap<String, FileHash>;

/// What `config.json` holds: what ran, as it really ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Version of the format.
    pub format: u32,
    /// What is trained, and by which loss.
    pub learner: LearnerRecord,
    /// What it is trained on.
    pub data: DataRecord,
    /// The transformer, resolved, if one is trained.
    pub model: Option<Config>,
    /// The element type of the weights. (Records of earlier versions do not have it.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// The training.
    pub train: TrainConfig,
    /// What else the training was given.
    #[serde(default, skip_serializing_if = "Own::is_nothing")]
    pub own: Own,
    /// The seed that, with the configuration, gives the transformer that the run starts from. A run
    /// that starts from other weights keeps them as a checkpoint of step 0.
    pub seed: Option<u64>,
    /// Losses on the held-out part to compare with ([`Data::references`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// The device it ran on.
    pub device: String,
    /// The command that started it, if a command did.
    pub command: Option<String>,
    /// Version of this library.
    pub version: String,
}

/// What a run was given that its configuration does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Own {
    /// An optimiser of its own, with its groups.
    pub optimizer: Option<String>,
    /// Whether a function gave the learning rate.
    pub schedule: bool,
    /// Parameters that were frozen.
    pub frozen: BTreeSet<String>,
    /// Hook points with permanent hooks, which no file holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub perma_hooks: Vec<String>,
}

impl Own {
    fn is_nothing(&self) -> bool {
        *self == Own::default()
    }
}

impl RunConfig {
    /// The description of a run that starts from `learner` as it is; `seed` may be what it was built
    /// with.
    ///
    /// # Errors
    /// If the transformer cannot be built a second time, to compare with.
    pub fn new<L, D>(
        learner: &L,
        data: &D,
        train: &TrainConfig,
        seed: Option<u64>,
        command: Option<String>,
    ) -> Result<RunConfig, TrainError>
    where
        L: Learner,
        D: Data<Batch = L::Batch> + ?Sized,
    {
        let model = learner.transformer();
        let seed = match (model, seed) {
            (Some(model), Some(seed)) if starts_from_seed(model, seed)? => Some(seed),
            _ => None,
        };
        Ok(RunConfig {
            format: FORMAT,
            learner: learner.describe(),
            data: data.describe(),
            model: model.map(|m| m.config().clone()),
            dtype: Some(learner.params().dtype().to_string()),
            train: train.clone(),
            own: Own::default(),
            seed,
            references: Vec::new(),
            device: learner.params().device().to_string(),
            command,
            version: env!("CARGO_PKG_VERSION").into(),
        })
    }
}

/// What a run must go on with, in words.
fn told(learner: &LearnerRecord, data: &DataRecord, own: &Own) -> [(&'static str, String); 7] {
    let listed = |names: Vec<String>| if names.is_empty() { "none".into() } else { names.join(", ") };
    let of_settings = "that of its settings";
    [
        ("data", data.to_string()),
        ("learner", learner.kind.clone()),
        ("loss", learner.loss.clone()),
        ("optimiser", own.optimizer.clone().unwrap_or_else(|| of_settings.into())),
        ("learning rate", if own.schedule { "a function's" } else { of_settings }.into()),
        ("frozen parameters", listed(own.frozen.iter().cloned().collect())),
        ("hook points with permanent hooks", listed(own.perma_hooks.clone())),
    ]
}

/// What of a configuration changes nothing that is computed from weights: how they start, hook points that may be
/// switched on at any time, and names.
const OF_NO_MATTER: &[&str] = &[
    "init_weights",
    "init_mode",
    "initializer_range",
    "seed",
    "use_attn_result",
    "use_split_qkv_input",
    "use_attn_in",
    "use_hook_mlp_in",
    "use_hook_tokens",
    "ungroup_grouped_query_attention",
    "model_name",
    "original_architecture",
    "from_checkpoint",
    "checkpoint_index",
    "checkpoint_label_type",
    "checkpoint_value",
    "tokenizer_name",
    "default_prepend_bos",
    "tokenizer_prepends_bos",
];

/// The first field in which another model is computed, in words: as it is recorded and as it is given.
fn different_field(recorded: &Config, given: &Config) -> Option<(String, String)> {
    let fields = |config: &Config| match serde_json::to_value(config).expect("plain data is always JSON") {
        Value::Object(fields) => fields,
        _ => unreachable!("a configuration has fields"),
    };
    let (recorded, given) = (fields(recorded), fields(given));
    // Some fields are written only where they are not at their default.
    let mut compared = recorded.keys().chain(given.keys()).filter(|name| !OF_NO_MATTER.contains(&name.as_str()));
    let name = compared.find(|name| recorded.get(*name) != given.get(*name))?;
    let told = |fields: &Map<String, Value>| fields.get(name).map_or("its default".into(), Value::to_string);
    Some((format!("one with {name} = {}", told(&recorded)), format!("a model with {name} = {}", told(&given))))
}

/// Whether a model's weights are, bit for bit, those that it gets from `seed`.
fn starts_from_seed(model: &HookedTransformer, seed: u64) -> Result<bool, TrainError> {
    let start = HookedTransformer::new(model.config().clone(), model.device(), seed)?;
    let bits = |x: Tensor| x.to_vec().into_iter().map(f32::to_bits);
    Ok(model.params().dtype() == start.params().dtype()
        && model.params().iter().zip(start.params().iter()).all(|((_, x), (_, y))| bits(x).eq(bits(y))))
}

/// One step of training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
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
    /// The loss; NaN in a file if it was not finite, which JSON has no word for.
    #[serde(deserialize_with = "nan_if_null")]
    pub loss: f64,
}

fn nan_if_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// A run on disk.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    config: RunConfig,
    /// SHA-256 of the configuration; empty in format 1.
    seal: String,
    notices: Arc<Mutex<Vec<String>>>,
}

impl RunDir {
    /// Whether a run may be started in `path`: it does not exist, is empty, or holds nothing but a run that was left
    /// before its first checkpoint. What has the name of a run's file, but no `config.json` of a run beside it, is
    /// somebody else's.
    ///
    /// # Errors
    /// If it holds anything else.
    pub fn check_free(path: &Path) -> Result<(), TrainError> {
        let entries = match fs::read_dir(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(TrainError::io(path, "reading the folder"))?,
        };
        let is_run = RunDir::open(path).is_ok();
        for entry in entries {
            let entry = entry.map_err(TrainError::io(path, "reading the folder"))?;
            let ours = match entry.file_name().to_str() {
                // A run has these before it has its config.json; nobody loses anything by them.
                Some(lock::LOCK) => true,
                _ if lock::is_file_left(&entry) => true,
                Some("checkpoints") => {
                    let mut left = fs::read_dir(entry.path()).into_iter().flatten().flatten();
                    is_run && left.all(|e| lock::is_file_left(&e) || lock::is_checkpoint_left(&e))
                }
                Some("config.json" | "snapshots" | SEQUENCES | "metrics.jsonl" | "evals.jsonl") => is_run,
                _ => false,
            };
            if !ours {
                return Err(TrainError::Exists { path: path.into() });
            }
        }
        Ok(())
    }

    /// Starts a run in a folder that is free, see [`RunDir::check_free`], and holds its lock.
    ///
    /// # Errors
    /// If the folder is not free, cannot be written, or another process trains in it.
    pub(crate) fn create(path: impl Into<PathBuf>, config: RunConfig) -> Result<(RunDir, Lock), TrainError> {
        let path = path.into();
        RunDir::check_free(&path)?;
        fs::create_dir_all(&path).map_err(TrainError::io(&path, "making the run directory"))?;
        let lock = Lock::take(&path)?;
        // Another process may have trained in it meanwhile.
        RunDir::check_free(&path)?;
        lock.clean(&path);
        for file in ["metrics.jsonl", "evals.jsonl", SEQUENCES].map(|name| path.join(name)) {
            if fs::symlink_metadata(&file).is_ok() {
                operation("remove", &file, || fs::remove_file(&file)).map_err(TrainError::io(&file, "removing"))?;
            }
        }
        let snapshots = path.join("snapshots");
        if fs::symlink_metadata(&snapshots).is_ok() {
            operation("remove", &snapshots, || fs::remove_dir_all(&snapshots))
                .map_err(TrainError::io(&snapshots, "removing"))?;
        }
        let (text, seal) = to_sealed_json(&config);
        write_atomically(path.join("config.json"), text.as_bytes())?;
        let run = RunDir { path, config, seal, notices: Arc::default() };
        run.make_folders()?;
        let parent = run.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(parent).map_err(TrainError::io(parent, "writing"))?;
        Ok((run, lock))
    }

    /// Makes the folders that are lacking.
    pub(crate) fn make_folders(&self) -> Result<(), TrainError> {
        for folder in ["checkpoints", "snapshots"].map(|name| self.path.join(name)) {
            operation("create", &folder, || fs::create_dir_all(&folder))
                .map_err(TrainError::io(&folder, "making the folder"))?;
        }
        sync_folder(&self.path).map_err(TrainError::io(&self.path, "writing"))
    }

    /// Opens a run.
    ///
    /// # Errors
    /// If the folder is not a run, or its description cannot be read or was changed after it was written.
    pub fn open(path: impl Into<PathBuf>) -> Result<RunDir, TrainError> {
        let path = path.into();
        let bad = |reason: String| TrainError::NotARun { path: path.clone(), reason };
        let file = path.join("config.json");
        if !file.exists() {
            return Err(bad("it has no config.json; give the folder that `train` printed, such as runs/tiny-1".into()));
        }
        let cannot = |e: String| bad(format!("config.json cannot be read ({e}); put the one back that `train` wrote"));
        let bytes = read_ordinary(&file).map_err(TrainError::io(&file, "reading"))?;
        let (mut fields, seal) = open_sealed_json(&bytes).map_err(cannot)?;
        match (fields["format"].as_u64(), &seal) {
            (Some(1), None) => complete_format_1(&mut fields).map_err(cannot)?,
            (Some(2), Some(_)) => {}
            (Some(2), None) => return Err(cannot("it has no SHA-256".into())),
            _ => {
                let given = &fields["format"];
                return Err(bad(format!("it is of format {given}, this version reads the formats 1 and {FORMAT}")));
            }
        }
        let config: RunConfig = serde_json::from_value(fields).map_err(|e| cannot(e.to_string()))?;
        Ok(RunDir { path, config, seal: seal.unwrap_or_default(), notices: Arc::default() })
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

    /// The configuration of the transformer that was trained.
    ///
    /// # Errors
    /// If the run trained something else.
    pub fn model_config(&self) -> Result<&Config, TrainError> {
        self.config.model.as_ref().ok_or_else(|| TrainError::NotARun {
            path: self.path.clone(),
            reason: format!("it trained {}, not a HookedTransformer", self.config.learner.kind),
        })
    }

    /// Refuses to give a model that had permanent hooks without them.
    pub(crate) fn check_unhooked(&self) -> Result<(), TrainError> {
        let hooks = &self.config.own.perma_hooks;
        if hooks.is_empty() {
            return Ok(());
        }
        Err(TrainError::NotARun {
            path: self.path.clone(),
            reason: format!(
                "it trained a model with permanent hooks at {}, which no file holds; give a model of its configuration \
                 those hooks, and read a checkpoint's weights into it with load_weights",
                hooks.join(", ")
            ),
        })
    }

    /// Refuses to go on with other data or another learner than the run's.
    pub(crate) fn check_same(&self, learner: &impl Learner, data: &DataRecord, own: &Own) -> Result<(), TrainError> {
        let was = &self.config;
        let recorded = told(&was.learner, &was.data, &was.own);
        let differs = recorded.into_iter().zip(told(&learner.describe(), data, own)).find(|(was, given)| was != given);
        let differs = differs.map(|((what, recorded), (_, given))| (what, recorded, given)).or_else(|| {
            let (recorded, given) = different_field(was.model.as_ref()?, learner.transformer()?.config())?;
            Some(("model", recorded, given))
        });
        let differs = differs.or_else(|| {
            let (recorded, given) = (was.dtype.as_ref()?, learner.params().dtype().to_string());
            (*recorded != given).then(|| ("type of weights", recorded.clone(), format!("weights of type {given}")))
        });
        match differs {
            Some((what, recorded, given)) => {
                Err(TrainError::OtherRun { path: self.path.clone(), what, recorded, given })
            }
            None => Ok(()),
        }
    }

    /// What was found damaged, or lacking, in the files that were read so far, and was passed over.
    pub fn notices(&self) -> Vec<String> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what somebody should be told, once.
    fn note(&self, notice: String) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if !notices.contains(&notice) {
            notices.push(notice);
        }
    }

    /// Steps so far. Lines that cannot be read are left out, and noted.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn metrics(&self) -> Result<Vec<StepRecord>, TrainError> {
        self.read_lines("metrics.jsonl")
    }

    /// Held-out losses so far.
    ///
    /// # Errors
    /// As [`RunDir::metrics`].
    pub fn evals(&self) -> Result<Vec<Eval>, TrainError> {
        self.read_lines("evals.jsonl")
    }

    /// Of the first `steps` steps, those whose metrics are there, in order; lacking ones are noted.
    ///
    /// # Errors
    /// As [`RunDir::metrics`].
    pub fn metrics_of(&self, steps: u64) -> Result<Vec<StepRecord>, TrainError> {
        let mut metrics = self.metrics()?;
        metrics.retain(|m| m.step < steps);
        metrics.sort_by_key(|m| m.step);
        metrics.dedup_by_key(|m| m.step);
        let lacking = steps - metrics.len() as u64;
        if lacking > 0 {
            self.note(format!("metrics.jsonl lacks {lacking} of the {steps} steps that were trained"));
        }
        Ok(metrics)
    }
}

/// Format 1 was of transformers on random tokens, from the seed, with the notebook's settings where none
/// were given.
fn complete_format_1(fields: &mut Value) -> Result<(), String> {
    let model: Config = serde_json::from_value(fields["model"].clone()).map_err(|e| e.to_string())?;
    let train = fields["train"].as_object_mut().ok_or("it has no field train")?;
    let task = train.remove("task").unwrap_or_else(|| "previous-token".into());
    let seed = train.remove("seed").unwrap_or_else(|| 42.into());
    let data_seed = train.remove("data_seed").unwrap_or_else(|| 137.into());
    let defaults = serde_json::to_value(TrainConfig::notebook()).expect("plain data is always JSON");
    for (name, value) in defaults.as_object().into_iter().flatten() {
        train.entry(name).or_insert_with(|| value.clone());
    }
    let data_seed = data_seed.as_u64().ok_or("train.data_seed is no seed")?;
    let data = RandomTokens::new(&model, data_seed).map_err(|e| e.to_string())?.describe();
    fields["learner"] = serde_json::json!({ "kind": "HookedTransformer", "loss": task });
    fields["data"] = serde_json::json!(data);
    fields["seed"] = seed;
    Ok(())
}
