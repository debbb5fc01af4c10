//! From a name to a folder, or to the file of a checkpoint.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use ironlens_hub::{
    Hub, HubConfig, HubError, Progress, checkpoint_files, checkpoint_labels, checkpoint_revision, checkpoints_among,
    lookup, model_files, nearest, tokenizer_files,
};

use crate::error::PretrainedError;
use crate::families::not_read;
use crate::hf::HfConfig;
use crate::load::{LoadOptions, read_text};

/// Where a model is: `source` itself if it is a path that exists, or what [`fetch`] gives.
///
/// # Errors
/// As [`fetch`]; and if a revision or a checkpoint is asked of a path, which has none.
pub fn locate(
    source: &str,
    options: &LoadOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, PretrainedError> {
    let path = Path::new(source);
    if !path.exists() {
        return fetch(source, options, progress);
    }
    match options.revision.is_some() || options.asks_for_checkpoint() {
        false => Ok(path.to_path_buf()),
        true => Err(PretrainedError::Options(format!(
            "{source} is on this machine: revisions and checkpoints are of models at the hub, asked for by their name"
        ))),
    }
}

/// The folder of the model of this name, in the Hugging Face cache, or the file in it of a checkpoint that is one of its
/// own; with the feature `hub`, what is not there is fetched, and `progress` told of it.
///
/// # Errors
/// If nothing is known by this name, or it cannot be fetched, or there is no such checkpoint.
pub fn fetch(
    name: &str,
    options: &LoadOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, PretrainedError> {
    fetch_by(name, options, false, progress)
}

/// As [`fetch`], but of the newest commit of the revision: the hub is asked also where the cache has the model, and
/// what that lacks is fetched, such as a tokenizer that another tool left out.
///
/// # Errors
/// As [`fetch`], and without the feature `hub`.
pub fn download(
    name: &str,
    options: &LoadOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, PretrainedError> {
    fetch_by(name, options, true, progress)
}

fn fetch_by(
    name: &str,
    options: &LoadOptions,
    anew: bool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, PretrainedError> {
    let known = lookup(name);
    // Names of repositories have an owner; those without one are all known.
    let looks_like_a_path = name.starts_with(['/', '.', '~']) || name.matches('/').count() > 1;
    if known.is_none() && (looks_like_a_path || !name.contains('/')) {
        return Err(PretrainedError::Unknown { given: name.into(), nearest: nearest(name) });
    }
    let repo = known.as_ref().map_or(name, |n| n.official);
    // Before gigabytes are fetched that nothing reads.
    if let Some(refusal) = not_read(repo) {
        return Err(refusal);
    }
    let config = HubConfig::from_env()?;
    let hub = Hub::new(config.clone());
    if options.asks_for_checkpoint() && options.revision.is_some() {
        let text = "a revision and a checkpoint are asked for: a checkpoint is a revision, or a file of the newest one";
        return Err(PretrainedError::Options(text.into()));
    }
    if options.asks_for_checkpoint() && checkpoint_labels(repo).is_none() {
        return checkpoint_file(&hub, repo, options, progress);
    }
    let revision = revision(repo, options)?;
    let folder = match anew {
        true => match newest(&hub, repo, &revision, model_files, progress) {
            // Nobody is to be asked: what is here will do.
            Err(HubError::NotHere { .. }) => hub.snapshot(repo, &revision, model_files, progress)?,
            folder => folder?,
        },
        false => hub.snapshot(repo, &revision, model_files, progress)?,
    };
    if let Some(tokenizer) = own_tokenizer(&folder) {
        // Of a model that can be used with tokens, too: where its tokenizer cannot be had at once, it comes without.
        let once = Hub::new(HubConfig { attempts: 1, ..config });
        let _ = once.snapshot(&tokenizer, "main", tokenizer_files, progress);
    }
    Ok(folder)
}

/// The repository with the tokenizer of a model of TransformerLens's own, which has none beside it.
fn own_tokenizer(folder: &Path) -> Option<String> {
    let config = HfConfig::from_json(&read_text(&folder.join("config.json")).ok()?).ok()?;
    config.get("d_model")?;
    let name = config.text_if_given("tokenizer_name").ok()??;
    let has_one = folder.join("tokenizer.json").is_file() || folder.join("tokenizer_config.json").is_file();
    (!has_one).then(|| lookup(name).map_or(name, |known| known.official).to_string())
}

/// The folder in the cache with the tokenizer of this name, if it is there. No connection is made.
pub(crate) fn cached_tokenizer(name: &str) -> Option<PathBuf> {
    let repo = lookup(name).map_or(name, |known| known.official);
    let offline = HubConfig { offline: true, ..HubConfig::from_env().ok()? };
    Hub::new(offline).snapshot(repo, "main", tokenizer_files, &mut |_| {}).ok()
}

/// The file of a checkpoint that is one of its own, beside others in the same revision.
fn checkpoint_file(
    hub: &Hub,
    repo: &str,
    options: &LoadOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, PretrainedError> {
    // Of the list that was asked last, the cache's or the hub's: what there is, and what was chosen.
    let (listed, chosen) = (RefCell::new(None), RefCell::new(None));
    let wanted = |files: &[String]| {
        let all = checkpoints_among(files);
        let label = match (options.checkpoint_value, options.checkpoint_index) {
            (Some(value), _) => Some(value),
            (None, index) => index.and_then(|i| all.as_ref()?.labels.get(i).copied()),
        };
        *listed.borrow_mut() = Some(all);
        let files = checkpoint_files(files, label?)?;
        chosen.replace(files.last().cloned());
        Some(files)
    };
    let folder = match options.checkpoint_value {
        Some(_) => hub.snapshot(repo, "main", wanted, progress),
        // The cache has some of the checkpoints: which is the first of all, the hub knows.
        None => newest(hub, repo, "main", wanted, progress),
    };
    let folder = folder.map_err(|error| match (error, listed.into_inner()) {
        (HubError::NoModel { .. }, Some(all)) => PretrainedError::Options(match all {
            None => format!("{repo} has no checkpoints that are known: leave checkpoint_value and checkpoint_index out"),
            Some(all) => format!(
                "{repo} has {} checkpoints, by {}: {}; not what is asked for (checkpoint_value {:?}, checkpoint_index {:?})",
                all.labels.len(),
                all.unit.name(),
                all.labels.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
                options.checkpoint_value,
                options.checkpoint_index
            ),
        }),
        (error, _) => error.into(),
    })?;
    Ok(folder.join(chosen.into_inner().expect("there is a folder because a file was chosen")))
}

/// The folder of what `wanted` chooses from the list that the hub has.
fn newest(
    hub: &Hub,
    repo: &str,
    revision: &str,
    wanted: impl Fn(&[String]) -> Option<Vec<String>>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, HubError> {
    #[cfg(feature = "hub")]
    return hub.fetch(repo, revision, wanted, progress);
    // Nothing in the cache is the newest: this says that it is not here, and why it is not fetched.
    #[cfg(not(feature = "hub"))]
    hub.snapshot(repo, revision, |files| wanted(files).filter(|_| false), progress)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A cache with files of a repository, each of these bytes.
    fn cache(repo: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let cache = tempfile::tempdir().unwrap();
        let root = cache.path().join(format!("models--{}", repo.replace('/', "--")));
        let commit = "0123456789012345678901234567890123456789";
        fs::create_dir_all(root.join("refs")).unwrap();
        fs::write(root.join("refs/main"), commit).unwrap();
        for (name, text) in files {
            let path = root.join("snapshots").join(commit).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        cache
    }

    fn asked(value: Option<u64>, index: Option<usize>) -> LoadOptions {
        LoadOptions { checkpoint_value: value, checkpoint_index: index, ..LoadOptions::default() }
    }

    #[test]
    fn a_checkpoint_is_the_file_that_is_asked_for_and_no_other() {
        let repo = "NeelNanda/SoLU_1L";
        let files =
            [("config.json", "{}"), ("checkpoints/m_10.pth", ""), ("checkpoints/m_110.pth", ""), ("m_final.pth", "")];
        let cache = cache(repo, &files);
        let hub = Hub::new(HubConfig { offline: true, ..HubConfig::at(cache.path()) });
        let find = |options: &LoadOptions| checkpoint_file(&hub, repo, options, &mut |_| {});
        assert!(find(&asked(Some(110), None)).unwrap().ends_with("checkpoints/m_110.pth"));
        // The final weights, which are here, are none; and what the cache has says nothing of the first of all.
        for options in [asked(Some(7), None), asked(None, Some(0))] {
            let text = find(&options).unwrap_err().to_string();
            assert!(text.contains("cache"), "{text}");
        }
    }

    #[test]
    fn what_is_asked_of_a_path_or_twice_is_refused() {
        let refused = |source: &str, options: LoadOptions, words: &[&str]| {
            let text = locate(source, &options, &mut |_| {}).unwrap_err().to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        let revision = || Some("main".to_string());
        refused(".", asked(Some(3), None), &["on this machine", "checkpoints"]);
        refused(".", LoadOptions { revision: revision(), ..LoadOptions::default() }, &["on this machine", "revisions"]);
        let both = LoadOptions { revision: revision(), ..asked(Some(3000), None) };
        refused("pythia-70m", both.clone(), &["a revision and a checkpoint"]);
        assert_eq!(locate(".", &both.of_path(), &mut |_| {}).unwrap(), Path::new("."));
    }

    #[test]
    fn the_tokenizer_of_another_is_known_by_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(folder.path().join("config.json"), text).unwrap();
        assert_eq!(own_tokenizer(folder.path()), None);
        write(r#"{"d_model": 8, "tokenizer_name": "NeelNanda/gpt-neox-tokenizer-digits"}"#);
        assert_eq!(own_tokenizer(folder.path()).as_deref(), Some("NeelNanda/gpt-neox-tokenizer-digits"));
        fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        assert_eq!(own_tokenizer(folder.path()), None);
    }
}
