//! Line files: one JSON value per line, added to as training goes on.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use ironlens_files::watch::operation;
use ironlens_files::{sync_file, write_atomically};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RunDir;
use super::sealed::read_ordinary;
use crate::error::TrainError;

impl RunDir {
    /// The values of a line file. What is no value was torn by a crash or damaged: it is left out, and noted but
    /// for a last line that was cut short, which every kill may leave.
    pub(super) fn read_lines<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, TrainError> {
        let path = self.path.join(name);
        let bytes = match read_ordinary(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(TrainError::io(&path, "reading"))?,
        };
        let mut values = Vec::new();
        let mut unreadable = 0;
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            match serde_json::from_slice(line) {
                Ok(value) => values.push(value),
                Err(_) if !line.ends_with(b"\n") => {}
                Err(_) => unreadable += 1,
            }
        }
        if unreadable > 0 {
            self.note(format!("{name}: {unreadable} lines cannot be read and are left out"));
        }
        Ok(values)
    }

    /// Opens a line file to go on with `kept` values.
    pub(crate) fn append<T: Serialize>(&self, name: &str, kept: &[T]) -> Result<Lines, TrainError> {
        let path = self.path.join(name);
        let text: String =
            kept.iter().map(|v| serde_json::to_string(v).expect("plain data is always JSON") + "\n").collect();
        write_atomically(&path, text.as_bytes())?;
        let file = fs::OpenOptions::new().append(true).open(&path).map_err(TrainError::io(&path, "opening"))?;
        Ok(Lines { path, file: BufWriter::new(file) })
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

    /// Gives the lines to the system: a killed process does not lose them.
    pub fn flush(&mut self) -> Result<(), TrainError> {
        operation("write", &self.path, || self.file.flush()).map_err(TrainError::io(&self.path, "writing"))
    }

    /// Brings the lines to the disk: a power cut does not lose them.
    pub fn sync(&mut self) -> Result<(), TrainError> {
        self.flush()?;
        sync_file(&self.path, self.file.get_ref()).map_err(TrainError::io(&self.path, "writing"))
    }
}
