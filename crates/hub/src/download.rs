//! What the cache lacks is fetched from the hub, and put where Python's `huggingface_hub` would put it.
//!
//! A file comes to `blobs/<etag>.incomplete`, is checked against its size and hash, synced, renamed, and linked into
//! its snapshot; when all files are there, the reference follows. So whatever ends a download, and whenever, the
//! cache holds whole files only, and the next download goes on where this one stopped.

mod blob;
mod client;
mod digest;
mod failure;
mod url;

use std::fs;
use std::path::{Path, PathBuf};

use ironlens_files::watch::operation;
use ironlens_files::{FileError, sync_folder, write_atomically, write_atomically_with};

use crate::cache::{RepoCache, is_commit};
use crate::error::HubError;
use crate::hub::Hub;
use crate::path::check_path;
use crate::progress::Progress;
use blob::Blob;
pub(crate) use client::Client;
use client::{FileInfo, Listing};

/// How many characters of a repository's list of files an error quotes.
const QUOTED: usize = 300;

impl Hub {
    /// The folder of a repository's files, as [`Hub::snapshot`], but of the newest commit of the revision: the hub
    /// is always asked. Files that the cache has already are not downloaded again.
    ///
    /// Files of the large-file store are checked against their SHA-256, others against Git's SHA-1, where the hub
    /// says them (as it does; a mirror may not). A download that was cut off goes on where it stopped.
    ///
    /// # Errors
    /// [`HubError::NoModel`] if `wanted` is `None` for what the hub has, [`HubError::NotHere`] if downloads are off,
    /// and all that can go wrong with a connection or a disk.
    pub fn fetch(
        &self,
        repo: &str,
        revision: &str,
        wanted: impl Fn(&[String]) -> Option<Vec<String>>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, HubError> {
        let cache = RepoCache::new(&self.config.cache, repo)?;
        check_path("revision", revision)?;
        if self.config.offline {
            return Err(self.not_here("the newest commit", repo, revision, false));
        }
        let Listing { commit, files } = self.client.listing(repo, revision, progress)?;
        let chosen = wanted(&files).filter(|chosen| !chosen.is_empty()).ok_or_else(|| HubError::NoModel {
            repo: repo.into(),
            revision: revision.into(),
            files: files.join(", ").chars().filter(|c| !c.is_control()).take(QUOTED).collect(),
        })?;
        for file in &chosen {
            check_path("file", file)?;
        }
        for file in chosen.iter().filter(|file| cache.file(&commit, file).is_none()) {
            let info = self.client.file_info(repo, &commit, file, progress)?.ok_or_else(|| HubError::Answer {
                url: self.client.file_url(repo, &commit, file),
                reason: "the file is in the repository's list, and is not there".into(),
            })?;
            self.bring(&cache, repo, &commit, file, &info, progress)?;
        }
        refer(&cache, revision, &commit)?;
        Ok(cache.snapshot(&commit))
    }

    pub(crate) fn fetch_file(
        &self,
        repo: &str,
        revision: &str,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<PathBuf>, HubError> {
        let cache = RepoCache::new(&self.config.cache, repo)?;
        // Of the commit that other files are of, if there is one.
        let known = cache.commit(revision)?;
        let info = self.client.file_info(repo, known.as_deref().unwrap_or(revision), file, progress)?;
        let said = info.as_ref().and_then(|info| info.commit.clone());
        let Some(commit) = known.or(said) else {
            let url = self.client.file_url(repo, revision, file);
            let reason = "it does not say of which commit the file is".into();
            return info.map_or(Ok(None), |_| Err(HubError::Answer { url, reason }));
        };
        let Some(info) = &info else {
            // The mark only saves asking again: a cache that may only be read does without.
            let mark = cache.absent(&commit, file);
            let _ = make_folder_of(&mark).and_then(|_| write_atomically(&mark, b""));
            return Ok(None);
        };
        let path = self.bring(&cache, repo, &commit, file, info, progress)?;
        refer(&cache, revision, &commit)?;
        Ok(Some(path))
    }

    /// Puts a file of a commit into the cache.
    fn bring(
        &self,
        cache: &RepoCache,
        repo: &str,
        commit: &str,
        file: &str,
        info: &FileInfo,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, HubError> {
        Blob { client: &self.client, cache, repo, commit, file, info }.bring(progress)?;
        let path = cache.snapshot(commit).join(file);
        // `../..` leads from the commit's folder to the repository's.
        let up = "../".repeat(2 + file.matches('/').count());
        link(&format!("{up}blobs/{}", info.etag), &cache.blob(&info.etag), &path)?;
        Ok(path)
    }
}

/// Makes `path` a link to a blob, or a copy of it where links are not possible; what is there is replaced.
fn link(target: &str, blob: &Path, path: &Path) -> Result<(), HubError> {
    let folder = make_folder_of(path)?;
    let linked = operation("link", path, || {
        tempfile::Builder::new()
            .prefix(".ironlens-")
            .make_in(folder, |beside| symlink(target, beside))?
            .persist(path)?;
        Ok(())
    });
    match linked {
        Ok(()) => sync_folder(folder).map_err(FileError::io(folder, "syncing"))?,
        Err(_) => write_atomically_with(path, |copy| {
            std::io::copy(&mut fs::File::open(blob)?, copy)?;
            Ok(())
        })?,
    }
    Ok(())
}

#[cfg(unix)]
fn symlink(target: &str, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn symlink(target: &str, path: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target.replace('/', "\\"), path)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &str, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Writes down which commit a branch or tag is.
fn refer(cache: &RepoCache, revision: &str, commit: &str) -> Result<(), HubError> {
    // A cache that may only be read is no error where it says so already.
    if is_commit(revision) || cache.commit(revision)?.as_deref() == Some(commit) {
        return Ok(());
    }
    let path = cache.reference(revision);
    make_folder_of(&path)?;
    Ok(write_atomically(path, commit.as_bytes())?)
}

fn make_folder_of(path: &Path) -> Result<&Path, FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    operation("make folder", folder, || fs::create_dir_all(folder))
        .map_err(FileError::io(folder, "making a folder"))?;
    Ok(folder)
}
