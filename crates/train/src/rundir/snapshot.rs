//! Attention patterns of a transformer on some of the data's held-out sequences, as training goes on.

use std::fs;

use ironlens_files::write_atomically;
use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{Config, Sequences, read_tensors, write_tensors};
use serde::{Deserialize, Serialize};

use super::sealed::{FileHash, read_sealed_json, to_sealed_json};
use super::{Hashes, RunDir};
use crate::data::RandomTokens;
use crate::error::TrainError;

pub(super) const SEQUENCES: &str = "sequences.json";

/// What `sequences.json` holds.
#[derive(Serialize, Deserialize)]
struct KeptSequences {
    tokens: Vec<Vec<u32>>,
    /// 0 at padding.
    mask: Option<Vec<Vec<u32>>>,
}

/// Attention patterns at one moment, mean over the run's [`RunDir::sequences`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Steps trained.
    pub step: u64,
    /// Per layer, `[head, query, key]`.
    pub patterns: Vec<Tensor>,
}

fn pattern_name(layer: usize) -> String {
    format!("blocks.{layer}.attn.hook_pattern")
}

impl RunDir {
    /// The held-out sequences that snapshots are taken on.
    ///
    /// # Errors
    /// If the run trained no transformer, or the file cannot be read, or was changed after it was written.
    pub fn sequences(&self) -> Result<Sequences, TrainError> {
        let cfg = self.model_config()?;
        let bad = |reason: String| TrainError::NotARun { path: self.path.clone(), reason };
        let path = self.path.join(SEQUENCES);
        if self.config.format == 1 && !path.exists() {
            return Ok(RandomTokens::looked_at_by_format_1(cfg)?.into());
        }
        let (kept, _) = read_sealed_json::<KeptSequences>(&path).map_err(bad)?;
        let width = kept.tokens.first().map_or(0, Vec::len);
        let even = |rows: &[Vec<u32>]| rows.len() == kept.tokens.len() && rows.iter().all(|row| row.len() == width);
        if width == 0 || !even(&kept.tokens) || !kept.mask.as_deref().is_none_or(even) {
            return Err(bad(format!("the sequences of {SEQUENCES} differ in length")));
        }
        let tensor = |rows: &Vec<Vec<u32>>| IndexTensor::new(rows.concat(), &[rows.len(), width]);
        Ok(Sequences { tokens: tensor(&kept.tokens), mask: kept.mask.as_ref().map(tensor) })
    }

    /// Keeps the sequences that snapshots are taken on.
    pub(crate) fn save_sequences(&self, sequences: &Sequences) -> Result<(), TrainError> {
        let rows = |t: &IndexTensor| t.as_slice().chunks(t.shape()[1]).map(<[u32]>::to_vec).collect();
        let kept = KeptSequences { tokens: rows(&sequences.tokens), mask: sequences.mask.as_ref().map(rows) };
        let path = self.path.join(SEQUENCES);
        Ok(write_atomically(path, to_sealed_json(&kept).0.as_bytes())?)
    }

    /// Writes a snapshot, and adds it to the `hashes` of snapshots.
    pub(crate) fn save_snapshot(&self, snapshot: &Snapshot, hashes: &mut Hashes) -> Result<(), TrainError> {
        let name = format!("step-{:06}.safetensors", snapshot.step);
        let path = self.path.join("snapshots").join(&name);
        let names: Vec<String> = (0..snapshot.patterns.len()).map(pattern_name).collect();
        write_tensors(&path, names.iter().map(String::as_str).zip(snapshot.patterns.iter().cloned()))?;
        hashes.insert(name, FileHash::of(&path).map_err(TrainError::io(&path, "reading"))?);
        Ok(())
    }

    /// All snapshots that are whole, oldest first; others are noted.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, TrainError> {
        let folder = self.path.join("snapshots");
        let Some(cfg) = &self.config.model else { return Ok(Vec::new()) };
        // A damaged checkpoint says nothing of snapshots; then only their shapes are checked.
        let hashes = self.newest_state().map(|s| s.snapshots).unwrap_or_default();
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(TrainError::io(&folder, "reading the folder"))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let step = name.strip_prefix("step-").and_then(|n| n.strip_suffix(".safetensors")?.parse().ok());
            let Some(step) = step else { continue };
            match self.read_snapshot(cfg, &name, hashes.get(&name)) {
                Ok(patterns) => found.push(Snapshot { step, patterns }),
                Err(why) => self.note(format!("the snapshot {name} is left out: {why}")),
            }
        }
        found.sort_by_key(|s| s.step);
        Ok(found)
    }

    fn read_snapshot(&self, cfg: &Config, name: &str, hash: Option<&FileHash>) -> Result<Vec<Tensor>, String> {
        let path = self.path.join("snapshots").join(name);
        let fits = |shape: &[usize]| matches!(*shape, [heads, query, key] if heads == cfg.n_heads && query == key && key <= cfg.n_ctx);
        match hash {
            Some(hash) => hash.check(&path)?,
            None => {
                // Nothing much longer than its patterns is read into memory.
                let file = fs::metadata(&path).map_err(|e| e.to_string())?;
                let pattern = [cfg.n_heads, cfg.n_ctx, cfg.n_ctx].iter().fold(4u64, |n, d| n.saturating_mul(*d as u64));
                let most = pattern.saturating_add(1024).saturating_mul(cfg.n_layers as u64).saturating_add(1024);
                if !file.is_file() || file.len() > most {
                    return Err(format!("it is no ordinary file of at most {most} bytes"));
                }
            }
        }
        let mut tensors = read_tensors(&path).map_err(|e| e.to_string())?;
        (0..cfg.n_layers)
            .map(|layer| {
                let name = pattern_name(layer);
                match tensors.remove(&name) {
                    Some(pattern) if fits(pattern.shape()) => Ok(pattern),
                    Some(other) => Err(format!(
                        "{name} has shape {:?}, expected {} heads of at most {} positions",
                        other.shape(),
                        cfg.n_heads,
                        cfg.n_ctx
                    )),
                    None => Err(format!("it lacks {name}")),
                }
            })
            .collect()
    }
}
