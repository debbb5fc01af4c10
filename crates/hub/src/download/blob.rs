//! The bytes of one file, from the hub to `blobs/<etag>`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::Path;

use ironlens_files::watch::operation;
use ironlens_files::{FileError, sync_file, sync_folder};
use ureq::http::StatusCode;

use super::client::{Client, FileInfo};
use super::digest::Hasher;
use super::failure::Failure;
use super::make_folder_of;
use crate::cache::RepoCache;
use crate::error::HubError;
use crate::progress::Progress;

/// How many bytes are read at once.
const PIECE: usize = 1 << 18;

/// A file to bring.
pub struct Blob<'a> {
    pub client: &'a Client,
    pub cache: &'a RepoCache,
    pub repo: &'a str,
    pub commit: &'a str,
    pub file: &'a str,
    pub info: &'a FileInfo,
}

/// What is here of a file: `blobs/<etag>.incomplete`.
struct Part {
    file: File,
    /// Its length.
    done: u64,
    /// The hash of its bytes.
    hasher: Hasher,
    /// The most that was here since the download began: a server that ignores ranges makes it begin anew, and only
    /// what is beyond this counts as a gain.
    furthest: u64,
}

impl Blob<'_> {
    /// Brings the bytes, unless they are here, and checks them.
    pub fn bring(&self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), HubError> {
        let path = self.cache.blob(&self.info.etag);
        if path.is_file() {
            return Ok(());
        }
        let _lock = self.lock(progress)?;
        if path.is_file() {
            return Ok(()); // somebody else has brought them by now
        }
        let incomplete = self.cache.incomplete(&self.info.etag);
        let folder = make_folder_of(&incomplete)?;
        let mut part = self.open(&incomplete).map_err(FileError::io(&incomplete, "opening"))?;
        self.client.patiently(progress, |progress| self.go_on(&mut part, &incomplete, progress))?;
        self.check(&part, &incomplete)?;
        let finished = sync_file(&incomplete, &part.file)
            .and_then(|()| operation("rename", &path, || fs::rename(&incomplete, &path)))
            .and_then(|()| sync_folder(folder));
        finished.map_err(|e| self.not_written(&incomplete, part.done, e))
    }

    /// Waits until nobody else brings the file. The lock is that of Python's `filelock`, which is the system's too,
    /// and ends with the process that has it.
    fn lock(&self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<File, HubError> {
        let path = self.cache.lock(&self.info.etag);
        make_folder_of(&path)?;
        let open = || OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open().map_err(FileError::io(&path, "opening"))?;
        let mut locked = file.try_lock();
        if matches!(locked, Err(TryLockError::WouldBlock)) {
            progress(Progress::Locked { file: self.file });
            locked = file.lock().map_err(TryLockError::Error);
        }
        while matches!(&locked, Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Interrupted) {
            locked = file.lock().map_err(TryLockError::Error);
        }
        // Other errors are those of drives that have no locks: there, two downloads at once are noticed by the hash.
        Ok(file)
    }

    /// What an earlier download left, or an empty file.
    fn open(&self, path: &Path) -> io::Result<Part> {
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        let (mut done, mut hasher) = (0, self.hasher());
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(Part { file, done, hasher, furthest: done }),
                count => {
                    hasher.update(&piece[..count]);
                    done += count as u64;
                }
            }
        }
    }

    fn hasher(&self) -> Hasher {
        Hasher::new(&self.info.etag, self.info.size)
    }

    /// Asks for what is missing, and appends it.
    fn go_on(&self, part: &mut Part, path: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), Failure> {
        let not_written = |done| move |e| Failure::from(self.not_written(path, done, e));
        if self.info.size.is_some_and(|size| part.done > size) {
            self.begin_anew(part).map_err(not_written(0))?;
        }
        let mut tell = |done| progress(Progress::Bytes { file: self.file, done, total: self.info.size });
        if self.info.size == Some(part.done) && part.done > 0 {
            tell(part.done);
            return Ok(());
        }
        // The address is asked for each time: that of the store, to which it leads, is signed for some minutes only.
        let url = self.client.file_url(self.repo, self.commit, self.file);
        let reply = self.client.get(&url, Some(part.done).filter(|&done| done > 0))?;
        let goes_on = match reply.status() {
            StatusCode::OK => false,
            StatusCode::PARTIAL_CONTENT => begins_at(reply.header("content-range")) == Some(part.done),
            StatusCode::RANGE_NOT_SATISFIABLE if part.done > 0 => false,
            _ => {
                let what = format!("file {} of {} at revision {}", self.file, self.repo, self.commit);
                return Err(self.client.refusal(&reply, self.repo, &what));
            }
        };
        if !goes_on && part.done > 0 {
            self.begin_anew(part).map_err(not_written(0))?;
        }
        if !goes_on && reply.status() != StatusCode::OK {
            return Err(Failure::network(&reply.url, "it does not give the rest of the file", false));
        }

        tell(part.done);
        let mut body = reply.response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut piece = vec![0; PIECE];
        loop {
            let count = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failure::network(&reply.url, e, part.gained())),
            };
            if self.info.size.is_some_and(|size| part.done + count as u64 > size) {
                return Err(self.damaged(path, "size", &self.size(), "more than that".into()).into());
            }
            part.append(path, &piece[..count]).map_err(not_written(part.done))?;
            tell(part.done);
        }
        match self.info.size {
            Some(size) if part.done < size => {
                let cause = format!("{} ended after {} of {size} bytes", self.file, part.done);
                Err(Failure::network(&reply.url, cause, part.gained()))
            }
            _ => Ok(()),
        }
    }

    fn begin_anew(&self, part: &mut Part) -> io::Result<()> {
        part.file.set_len(0)?;
        part.file.rewind()?;
        (part.done, part.hasher) = (0, self.hasher());
        Ok(())
    }

    fn check(&self, part: &Part, path: &Path) -> Result<(), HubError> {
        match part.hasher.clone().finish() {
            Some((hash, found)) if found != self.info.etag => Err(self.damaged(path, hash, &self.info.etag, found)),
            _ => Ok(()),
        }
    }

    fn size(&self) -> String {
        self.info.size.map(|size| format!("{size} bytes")).unwrap_or_default()
    }

    /// Removes what came, and says what is wrong with it.
    fn damaged(&self, path: &Path, what: &'static str, expected: &str, found: String) -> HubError {
        match operation("remove", path, || fs::remove_file(path)) {
            Err(e) => FileError::io(path, "removing")(e).into(),
            Ok(()) => HubError::Damaged {
                repo: self.repo.into(),
                file: self.file.into(),
                what,
                expected: expected.into(),
                found,
            },
        }
    }

    fn not_written(&self, path: &Path, done: u64, error: io::Error) -> HubError {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => HubError::DiskFull {
                path: path.into(),
                need: self
                    .info
                    .size
                    .map(|size| format!(" ({} more bytes are to come)", size - done.min(size)))
                    .unwrap_or_default(),
            },
            _ => FileError::io(path, "writing")(error).into(),
        }
    }
}

impl Part {
    fn append(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        operation("append", path, || self.file.write_all(bytes))?;
        self.hasher.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    /// Whether there is more than ever before.
    fn gained(&mut self) -> bool {
        let gained = self.done > self.furthest;
        self.furthest = self.furthest.max(self.done);
        gained
    }
}

/// The first byte of `bytes 100-199/200`.
fn begins_at(range: Option<&str>) -> Option<u64> {
    range?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
