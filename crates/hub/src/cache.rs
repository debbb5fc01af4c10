//! The folders of one repository in the cache, as Python's `huggingface_hub` lays them out:
//!
//! ```text
//! models--owner--name/
//!   refs/main                    the commit that `main` was when it was last asked for
//!   snapshots/<commit>/config.json -> ../../blobs/<etag>   (a copy where links are not possible)
//!   blobs/<etag>                 the bytes; <etag>.incomplete while they come
//!   .no_exist/<commit>/<file>    files that were asked for, and that the commit does not have
//! .locks/models--owner--name/<etag>.lock                   locked while somebody downloads it
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ironlens_files::FileError;

use crate::error::HubError;
use crate::path::{check_path, check_repo};

/// The most folders that are opened within each other while a snapshot is listed.
const DEEPEST: usize = 16;

/// The folders of one repository.
pub(crate) struct RepoCache {
    /// `models--owner--name`.
    root: PathBuf,
    /// `.locks/models--owner--name`.
    #[cfg(feature = "download")]
    locks: PathBuf,
}

impl RepoCache {
    pub fn new(cache: &Path, repo: &str) -> Result<RepoCache, HubError> {
        check_repo(repo)?;
        let folder = format!("models--{}", repo.replace('/', "--"));
        Ok(RepoCache {
            root: cache.join(&folder),
            #[cfg(feature = "download")]
            locks: cache.join(".locks").join(&folder),
        })
    }

    /// The commit that a revision is, as far as the cache knows.
    pub fn commit(&self, revision: &str) -> Result<Option<String>, HubError> {
        check_path("revision", revision)?;
        if is_commit(revision) {
            return Ok(Some(revision.into()));
        }
        let path = self.reference(revision);
        // A folder stands for `refs/pr` where there is a `refs/pr/1`.
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(FileError::io(path, "reading"))?;
        Ok(Some(text.trim().to_string()).filter(|commit| is_commit(commit)))
    }

    pub fn reference(&self, revision: &str) -> PathBuf {
        self.root.join("refs").join(revision)
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The file in a snapshot, if its bytes are there too.
    pub fn file(&self, commit: &str, name: &str) -> Option<PathBuf> {
        Some(self.snapshot(commit).join(name)).filter(|path| path.is_file())
    }

    /// The mark that a commit does not have a file.
    pub fn absent(&self, commit: &str, name: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit).join(name)
    }

    /// The names of the files in a snapshot, sorted, with `/` between folders. Links to bytes that are gone are not
    /// among them.
    pub fn names(&self, commit: &str) -> Result<Vec<String>, HubError> {
        let folder = self.snapshot(commit);
        let mut names = Vec::new();
        list(&folder, "", DEEPEST, &mut names).map_err(FileError::io(folder, "listing"))?;
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(feature = "download")]
impl RepoCache {
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    pub fn lock(&self, etag: &str) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }
}

/// Whether a revision is a commit's full hash.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn list(folder: &Path, before: &str, deeper: usize, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // No file of a repository that this library asks for has another name.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = format!("{before}{name}");
        if entry.file_type()?.is_dir() {
            if deeper > 0 {
                list(&entry.path(), &format!("{name}/"), deeper - 1, names)?;
            }
        } else if entry.path().is_file() {
            names.push(name);
        }
    }
    Ok(())
}
