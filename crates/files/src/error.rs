//! What can go wrong with a file.

use std::path::PathBuf;

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file system said no. (The cause is part of the message, so it is no source of its own.)
    #[error("{path}: {action} failed: {cause}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// Not a safetensors file, or cut short.
    #[error("{path} is not a whole safetensors file: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Not a file of the format that it should have, or cut short.
    #[error("{path} is not a whole {format} file: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The format, such as `GGUF`.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The file or folder does not have, or may not give, what was asked of it.
    #[error("{path}: {reason}")]
    Refused {
        /// The file or folder.
        path: PathBuf,
        /// What is missing or not allowed, and what would be.
        reason: String,
    },
}

impl FileError {
    /// An [`FileError::Io`] of an action on `path`, for `map_err`.
    pub fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> FileError {
        let path = path.into();
        move |cause| FileError::Io { path, action, cause }
    }

    pub(crate) fn format(path: impl Into<PathBuf>, reason: impl ToString) -> FileError {
        FileError::Format { path: path.into(), reason: reason.to_string() }
    }

    pub(crate) fn refused(path: impl Into<PathBuf>, reason: impl ToString) -> FileError {
        FileError::Refused { path: path.into(), reason: reason.to_string() }
    }
}
