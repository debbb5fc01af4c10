//! One process holds a run, and cleans up what others left.

use std::fs::{self, DirEntry, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use crate::error::TrainError;

/// The file whose lock is the run's.
pub(super) const LOCK: &str = ".lock";

/// Held while a run is trained. The system gives it up when the process ends, however it ends; the file stays,
/// since removing it would let two processes lock two files of its name.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Option<File>,
}

impl Lock {
    /// Takes the lock of the run in `folder`.
    pub fn take(folder: &Path) -> Result<Lock, TrainError> {
        let path = folder.join(LOCK);
        if fs::symlink_metadata(&path).is_ok_and(|m| !m.is_file()) {
            let error = io::Error::other("it is not an ordinary file");
            return Err(TrainError::io(&path, "opening")(error));
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(TrainError::io(&path, "opening"))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(TrainError::Busy { path: folder.into() }),
            // Some network drives have no locks; that is no reason not to train there.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => Ok(Lock { _file: None }),
            Err(TryLockError::Error(e)) => Err(TrainError::io(&path, "locking")(e)),
        }
    }

    /// Removes the files that killed processes left half-written in the run's folders.
    pub fn clean(&self, run: &Path) {
        for folder in [run.to_path_buf(), run.join("checkpoints"), run.join("snapshots")] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if is_leftover(&entry) {
                    // A leftover that stays is in nobody's way.
                    let _ = match entry.file_type().is_ok_and(|t| t.is_dir()) {
                        true => fs::remove_dir_all(entry.path()),
                        false => fs::remove_file(entry.path()),
                    };
                }
            }
        }
    }
}

/// Whether this was being written by a run when its process ended: a file that was to be renamed, or the folder of a
/// checkpoint.
pub(super) fn is_leftover(entry: &DirEntry) -> bool {
    let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
    entry.file_name().to_str().is_some_and(|name| is_name_of_leftover(name, is_folder))
}

fn is_name_of_leftover(name: &str, is_folder: bool) -> bool {
    let step = name.strip_prefix("step-").and_then(|n| n.strip_suffix(".tmp"));
    match is_folder {
        true => step.is_some_and(|n| n.parse::<u64>().is_ok()),
        // The latter three are of earlier versions.
        false => {
            name.starts_with(".ironlens-")
                || ["config.json.tmp", "metrics.jsonl.tmp", "evals.jsonl.tmp"].contains(&name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_name_of_leftover;

    #[test]
    fn leftovers_are_known_by_their_names() {
        for file in [".ironlens-7", "config.json.tmp", "metrics.jsonl.tmp", "evals.jsonl.tmp"] {
            assert!(is_name_of_leftover(file, false) && !is_name_of_leftover(file, true), "{file}");
        }
        assert!(is_name_of_leftover("step-000004.tmp", true) && !is_name_of_leftover("step-000004.tmp", false));
        for kept in [
            "step-000004",
            "config.json",
            "notes.tmp",
            "tmp",
            "ironlens",
            "step-000004.damaged",
            ".lock",
            "",
            ".tmp",
            ".tmpAb3",
            "step-by-step.tmp",
        ] {
            assert!(!is_name_of_leftover(kept, false) && !is_name_of_leftover(kept, true), "{kept}");
        }
    }
}
