//! From a name to a folder.

use std::path::PathBuf;

use ironlens_hub::{
    Hub, HubConfig, Progress, checkpoint_files, checkpoint_labels, checkpoint_revision, checkpoints_among, lookup,
    model_files, nearest,
};

use crate::error::PretrainedError;
use crate::load::LoadOptions;

/// The folder of the model of this name, in the Hugging Face cache; with the feature `hub`, what is not
/// there is fetched, and `progress` told of it.
///
/// # Errors
/// If nothing is known by this name, or it cannot be fetched.
pub fn fetch(
    name: &str,
    options: &LoadOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, PretrainedError> {
    let known = lookup(name);
    // Names of repositories have an owner; those without one are all known.
    let looks_like_a_path = name.starts_with(['/', '.', '~']) || name.matches('/').count() > 1;
    if known.is_none() && (looks_like_a_path || !name.contains('/')) {
        return Err(PretrainedError::Unknown { given: name.into(), nearest: nearest(name) });
    }
    let repo = known.as_ref().map_or(name, |n| n.official);
    let hub = Hub::new(HubConfig::from_env()?);
    let revision = revision(repo, options)?;
    let wanted = |files: &[String]| match (checkpoints_among(files), options.checkpoint_value, options.checkpoint_index)
    {
        (Some(_), Some(value), _) => checkpoint_files(files, value),
        (Some(all), None, Some(index)) => checkpoint_files(files, *all.labels.get(index)?),
        _ => model_files(files),
    };
    Ok(hub.snapshot(repo, &revision, wanted, progress)?)
}

/// The revision that options ask for.
fn revision(repo: &str, options: &LoadOptions) -> Result<String, PretrainedError> {
    if let Some(revision) = &options.revision {
        return Ok(revision.clone());
    }
    let main = || Ok("main".to_string());
    // Checkpoints of others are files of the same revision.
    let Some(all) = checkpoint_labels(repo) else { return main() };
    let value = match (options.checkpoint_value, options.checkpoint_index) {
        (None, None) => return main(),
        (Some(value), _) => value,
        (None, Some(index)) => *all.labels.get(index).ok_or_else(|| {
            let text = format!("checkpoint_index is {index}, {repo} has {} checkpoints", all.labels.len());
            PretrainedError::Options(text)
        })?,
    };
    checkpoint_revision(repo, value).ok_or_else(|| {
        let distance = |label: &&u64| label.abs_diff(value);
        let near = all.labels.iter().min_by_key(distance).copied().unwrap_or_default();
        let text = format!("{repo} has no checkpoint at {} {value}; the nearest is at {near}", all.unit.name());
        PretrainedError::Options(text)
    })
}
