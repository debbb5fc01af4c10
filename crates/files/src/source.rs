//! A file that is read by position, and parts of it from front to back.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::FileError;
use crate::ordinary::open_ordinary;

/// Bytes that an [`Input`] fetches at once.
const BUFFER: u64 = 1 << 16;

/// An open file of a known format.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    format: &'static str,
    /// A read moves the file's position.
    file: Mutex<File>,
    length: u64,
}

impl Source {
    pub(crate) fn open(path: &Path, format: &'static str) -> Result<Source, FileError> {
        let open = || {
            let file = open_ordinary(path)?;
            let length = file.metadata()?.len();
            Ok(Source { path: path.into(), format, file: Mutex::new(file), length })
        };
        open().map_err(FileError::io(path, "reading"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's length when it was opened, in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Fills `out` with the bytes from `start` on.
    pub(crate) fn read_at(&self, start: u64, out: &mut [u8]) -> Result<(), FileError> {
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(out));
        read.map_err(FileError::io(&self.path, "reading"))
    }

    /// The `N` bytes from `start` on.
    pub(crate) fn array<const N: usize>(&self, start: u64) -> Result<[u8; N], FileError> {
        self.check(start, self.length, N as u64)?;
        let mut out = [0; N];
        self.read_at(start, &mut out)?;
        Ok(out)
    }

    /// Checks that `count` bytes from `start` on are before `end`.
    fn check(&self, start: u64, end: u64, count: u64) -> Result<(), FileError> {
        match end.saturating_sub(start) {
            left if left < count => {
                Err(self.damaged(format!("{count} bytes should follow at byte {start}, {left} do")))
            }
            _ => Ok(()),
        }
    }

    /// The part from `start` to `end` (at most the file's own), to be read from front to back.
    pub(crate) fn input(&self, start: u64, end: u64) -> Input<'_> {
        Input { source: self, at: start, end: end.min(self.length), buffer: Vec::new(), used: 0 }
    }

    /// The error of a file that is not what its format says.
    pub(crate) fn damaged(&self, reason: impl ToString) -> FileError {
        FileError::Damaged { path: self.path.clone(), format: self.format, reason: reason.to_string() }
    }
}

/// A part of a file, read from front to back. Never takes more memory than the part has bytes.
pub(crate) struct Input<'s> {
    source: &'s Source,
    /// Where the next byte is.
    at: u64,
    end: u64,
    /// Bytes that were fetched; those before `used` were given.
    buffer: Vec<u8>,
    used: usize,
}

impl Input<'_> {
    pub(crate) fn source(&self) -> &Source {
        self.source
    }

    /// Where the next byte is in the file.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FileError> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: u64) -> Result<Vec<u8>, FileError> {
        self.source.check(self.at, self.end, count)?;
        let mut out = vec![0; usize::try_from(count).map_err(|e| self.source.damaged(e))?];
        self.fill(&mut out)?;
        Ok(out)
    }

    /// The next bytes up to an end of line, which is taken and not given. There are `most` at most.
    pub(crate) fn line(&mut self, most: usize) -> Result<Vec<u8>, FileError> {
        let mut line = Vec::new();
        loop {
            match self.array()? {
                [b'\n'] => return Ok(line),
                _ if line.len() == most => return Err(self.source.damaged("a name in it has no end")),
                [byte] => line.push(byte),
            }
        }
    }

    fn fill(&mut self, mut out: &mut [u8]) -> Result<(), FileError> {
        self.source.check(self.at, self.end, out.len() as u64)?;
        while !out.is_empty() {
            if self.used == self.buffer.len() {
                self.buffer.resize(self.left().min(BUFFER) as usize, 0);
                self.source.read_at(self.at, &mut self.buffer)?;
                self.used = 0;
            }
            let given = out.len().min(self.buffer.len() - self.used);
            out[..given].copy_from_slice(&self.buffer[self.used..self.used + given]);
            out = &mut out[given..];
            self.used += given;
            self.at += given as u64;
        }
        Ok(())
    }
}
