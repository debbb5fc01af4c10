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
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
        // A leftover that stays is in nobody's way.
        for folder in [run.to_path_buf(), run.join("checkpoints"), run.join("snapshots")] {
            entries(&folder).filter(is_file_left).for_each(|file| drop(fs::remove_file(file.path())));
        }
        let checkpoints = entries(&run.join("checkpoints")).filter(is_checkpoint_left);
        checkpoints.for_each(|folder| drop(fs::remove_dir_all(folder.path())));
    }
}

/// Whether this is a file that was being written, and was to be renamed, when its process ended.
pub(super) fn is_file_left(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|t| !t.is_dir()) && entry.file_name().to_str().is_some_and(is_name_of_file)
}

/// Whether this is the folder of a checkpoint that was being written when its process ended.
pub(super) fn is_checkpoint_left(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|t| t.is_dir()) && entry.file_name().to_str().is_some_and(is_name_of_checkpoint)
}

fn is_name_of_file(name: &str) -> bool {
    name.starts_with(".ironlens-")
}

fn is_name_of_checkpoint(name: &str) -> bool {
    let step = name.strip_prefix("step-").and_then(|n| n.strip_suffix(".tmp"));
    step.is_some_and(|n| n.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_known_by_their_names() {
        assert!(is_name_of_file(".ironlens-7") && !is_name_of_checkpoint(".ironlens-7"));
        assert!(is_name_of_checkpoint("step-000004.tmp") && !is_name_of_file("step-000004.tmp"));
        for kept in [
            "step-000004",
            "step-000004.damaged",
            "step-by-step.tmp",
            "config.json",
            "config.json.tmp",
            "notes.tmp",
            "tmp",
            "ironlens",
            ".lock",
            ".tmp",
            ".tmpAb3",
            "",
        ] {
            assert!(!is_name_of_file(kept) && !is_name_of_checkpoint(kept), "{kept}");
        }
    }
}
