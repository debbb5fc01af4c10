//! Analyses in files.

use std::io::Read;
use std::path::{Path, PathBuf};

use ironlens_files::{open_ordinary, write_atomically};
use ironlens_train::RunDir;

use crate::error::StudyError;
use crate::picture::Analysis;

/// Where a run keeps its analysis.
const FILE: &str = "analysis.json";

/// More than any analysis has, in bytes.
const LARGEST: u64 = 256 << 20;

impl Analysis {
    /// The analysis that a run keeps, if it was made.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn kept(run: &RunDir) -> Result<Option<Analysis>, StudyError> {
        let path = run.path().join(FILE);
        if path.exists() { Analysis::read(&path).map(Some) } else { Ok(None) }
    }

    /// Keeps it in the run, in `analysis.json`, whose path is given.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn keep(&self, run: &RunDir) -> Result<PathBuf, StudyError> {
        let path = run.path().join(FILE);
        self.write(&path)?;
        Ok(path)
    }

    /// Reads the JSON that [`Analysis::write`] wrote.
    ///
    /// # Errors
    /// If the file cannot be read or holds something else.
    pub fn read(path: impl AsRef<Path>) -> Result<Analysis, StudyError> {
        let path = path.as_ref();
        let mut text = String::new();
        open_ordinary(path)
            .and_then(|file| file.take(LARGEST).read_to_string(&mut text))
            .map_err(|source| StudyError::Read { path: path.into(), source })?;
        serde_json::from_str(&text).map_err(|source| StudyError::NotAnAnalysis { path: path.into(), source })
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), StudyError> {
        let text = serde_json::to_string(self).expect("plain data is always JSON");
        Ok(write_atomically(path, text.as_bytes())?)
    }
}
