//! A model's files, by the name of its repository.

use std::path::PathBuf;

use crate::cache::RepoCache;
use crate::config::HubConfig;
use crate::error::HubError;
use crate::names::other_name;
use crate::path::check_path;
use crate::progress::Progress;

/// The hub, behind its cache: what is in the cache is there at once, without a connection.
#[derive(Debug)]
pub struct Hub {
    pub(crate) config: HubConfig,
    #[cfg(feature = "download")]
    pub(crate) client: crate::download::Client,
}

/// What the cache knows of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached {
    /// It is here.
    Here(PathBuf),
    /// The repository does not have it: somebody asked before.
    Absent,
    /// It was never asked for, or its bytes are gone.
    Unknown,
}

impl Hub {
    /// A hub of that configuration. Nothing is read or asked yet.
    pub fn new(config: HubConfig) -> Hub {
        Hub {
            #[cfg(feature = "download")]
            client: crate::download::Client::new(&config),
            config,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &HubConfig {
        &self.config
    }

    /// The folder in the cache that holds files of a repository at a revision: a branch or tag that was asked for
    /// before (`main`, `step3000`), or the full hash of a commit. No connection is made. Whoever filled the cache
    /// may have taken some of the files only.
    ///
    /// The five repositories that moved to an owner (`gpt2` is `openai-community/gpt2`) are found by either name.
    ///
    /// # Errors
    /// If the repository or revision is no possible name, or the cache cannot be read.
    pub fn find(&self, repo: &str, revision: &str) -> Result<Option<PathBuf>, HubError> {
        for cache in self.caches(repo)? {
            if let Some(folder) = cache.commit(revision)?.map(|commit| cache.snapshot(&commit)).filter(|f| f.is_dir()) {
                return Ok(Some(folder));
            }
        }
        Ok(None)
    }

    /// What the cache knows of one file of a repository, given by its path there. No connection is made.
    ///
    /// # Errors
    /// If one of the names is not possible, or the cache cannot be read.
    pub fn cached(&self, repo: &str, revision: &str, file: &str) -> Result<Cached, HubError> {
        check_path("file", file)?;
        let mut known = Cached::Unknown;
        for cache in self.caches(repo)? {
            let Some(commit) = cache.commit(revision)? else { continue };
            if let Some(path) = cache.file(&commit, file) {
                return Ok(Cached::Here(path));
            }
            if cache.absent(&commit, file).is_file() {
                known = Cached::Absent;
            }
        }
        Ok(known)
    }

    /// Whether the cache has all that `wanted` chooses from the names of a repository's files. No connection is made.
    ///
    /// # Errors
    /// If one of the names is not possible, or the cache cannot be read.
    pub fn holds(
        &self,
        repo: &str,
        revision: &str,
        wanted: impl Fn(&[String]) -> Option<Vec<String>>,
    ) -> Result<bool, HubError> {
        Ok(self.kept(repo, revision, &wanted)?.0.is_some())
    }

    /// The folder in the cache that has all of it, and whether there is one that has some.
    fn kept(
        &self,
        repo: &str,
        revision: &str,
        wanted: impl Fn(&[String]) -> Option<Vec<String>>,
    ) -> Result<(Option<PathBuf>, bool), HubError> {
        let mut part = false;
        for cache in self.caches(repo)? {
            let Some(commit) = cache.commit(revision)?.filter(|c| cache.snapshot(c).is_dir()) else { continue };
            if wanted(&cache.names(&commit)?).is_some() {
                return Ok((Some(cache.snapshot(&commit)), true));
            }
            part = true;
        }
        Ok((None, part))
    }

    /// The folder of a repository's files at a revision, of which `wanted` chooses from the list of all names:
    /// [`model_files`](crate::model_files), [`tokenizer_files`](crate::tokenizer_files) or a choice of your own,
    /// which is `None` if the list lacks what it needs.
    ///
    /// If `wanted` has what it needs in the cache, that is taken as it is, without a connection; the hub may have a
    /// newer commit by then (`Hub::fetch` asks it). Otherwise the files are downloaded, with the feature `download`.
    /// What else the hub may have of them is not noticed: for a file that models have or have not, ask with
    /// `Hub::file`.
    ///
    /// # Errors
    /// [`HubError::NotHere`] if the cache lacks something and nothing can be downloaded; those of a download.
    pub fn snapshot(
        &self,
        repo: &str,
        revision: &str,
        wanted: impl Fn(&[String]) -> Option<Vec<String>>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, HubError> {
        let part = match self.kept(repo, revision, &wanted)? {
            (Some(folder), _) => return Ok(folder),
            (None, part) => part,
        };
        #[cfg(feature = "download")]
        if !self.config.offline {
            return self.fetch(repo, revision, wanted, progress);
        }
        #[cfg(not(feature = "download"))]
        let _ = progress;
        Err(self.not_here("the model", repo, revision, part))
    }

    /// One file of a repository: from the cache, or downloaded into it. `None` if the repository does not have it,
    /// which the cache keeps in mind too. If the revision is in the cache, the file is of the commit that it is there.
    ///
    /// # Errors
    /// [`HubError::NotHere`] if the cache lacks it and nothing can be downloaded; those of a download.
    pub fn file(
        &self,
        repo: &str,
        revision: &str,
        file: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Option<PathBuf>, HubError> {
        match self.cached(repo, revision, file)? {
            Cached::Here(path) => return Ok(Some(path)),
            Cached::Absent => return Ok(None),
            Cached::Unknown => {}
        }
        #[cfg(feature = "download")]
        if !self.config.offline {
            return self.fetch_file(repo, revision, file, progress);
        }
        #[cfg(not(feature = "download"))]
        let _ = progress;
        Err(self.not_here(file, repo, revision, false))
    }

    /// The error of what is not in the cache, and why it is not downloaded.
    pub(crate) fn not_here(&self, what: &str, repo: &str, revision: &str, part: bool) -> HubError {
        let why = match cfg!(feature = "download") {
            true => "downloads are off (HF_HUB_OFFLINE)",
            false => {
                "this build cannot download (it lacks the feature `download`); `hf download` of Python's \
                 huggingface_hub puts it there"
            }
        };
        let (what, repo, revision) = (what.into(), repo.into(), revision.into());
        HubError::NotHere { what, repo, revision, part, cache: self.config.cache.clone(), why }
    }

    /// The repository's folders: under the name given, then under the other that it may have.
    fn caches(&self, repo: &str) -> Result<Vec<RepoCache>, HubError> {
        std::iter::once(repo).chain(other_name(repo)).map(|r| RepoCache::new(&self.config.cache, r)).collect()
    }
}
