//! What can go wrong with a model on the hub, or in its cache.

use std::path::PathBuf;
use std::time::Duration;

use ironlens_files::FileError;

/// A model that is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Nothing says where the cache is.
    #[error("there is no home folder to find the Hugging Face cache in; set HF_HOME or HF_HUB_CACHE to a folder")]
    NoCache,
    /// A name that no repository, revision or file can have. Names of files come from the hub too, and those that
    /// would leave their folder are refused before anything is written.
    #[error("{given:?} is no name of a {what}: {why}")]
    BadName {
        /// What it was to name.
        what: &'static str,
        /// The name.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not in the cache, and not to be downloaded.
    #[error("{what} of {repo} at revision {revision} is not {}in the cache {cache}, and {why}", if *.part { "whole " } else { "" })]
    NotHere {
        /// A file, or the model.
        what: String,
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// Whether some of it is there.
        part: bool,
        /// The cache.
        cache: PathBuf,
        /// Why it is not downloaded, and what to do.
        why: &'static str,
    },
    /// The repository holds no model that can be read.
    #[error("{repo} at revision {revision} does not hold what was asked for; its files: {files}")]
    NoModel {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// Some of what it holds.
        files: String,
    },
    /// The hub knows no such repository, revision or file.
    #[error("{endpoint} has no {what}{said}; check the name{hint}")]
    NotFound {
        /// The hub.
        endpoint: String,
        /// What was asked for.
        what: String,
        /// What the hub says, if anything.
        said: String,
        /// What else may be the reason.
        hint: &'static str,
    },
    /// The hub wants to know who is asking, or who asks may not have it.
    #[error("{endpoint} does not give {repo}{said}; {advice}")]
    Denied {
        /// The hub.
        endpoint: String,
        /// The repository.
        repo: String,
        /// What the hub says, if anything.
        said: String,
        /// What to do.
        advice: String,
    },
    /// The hub asks for a longer wait than [`longest_wait`](crate::HubConfig::longest_wait), or still says so after
    /// every attempt.
    #[error("{url} is asked too often{}; try again later, or with a token (HF_TOKEN), which may ask more often", .wait.map(|w| format!(" (it wants a wait of {} s)", w.as_secs())).unwrap_or_default())]
    Busy {
        /// What was asked for.
        url: String,
        /// The wait that it asks for.
        wait: Option<Duration>,
    },
    /// A token that cannot be sent.
    #[error(
        "the token (HF_TOKEN, or the file that HF_TOKEN_PATH names) has spaces or other characters that no token has"
    )]
    BadToken,
    /// An answer that is none of the above.
    #[error("{url} answers with status {status}{said}")]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP's code.
        status: u16,
        /// What the answer says, if anything.
        said: String,
    },
    /// No connection, or one that broke, in every attempt. What came of a file is kept, and goes on from there.
    #[error("{url} cannot be reached: {cause}; check the network, and HF_ENDPOINT and HTTPS_PROXY if they are set")]
    Network {
        /// What was asked for.
        url: String,
        /// Why not.
        cause: String,
    },
    /// An answer that is not what the hub's interface says.
    #[error("{url} gives an answer that is not understood: {reason}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The bytes that came are not the file's: they were thrown away.
    #[error(
        "{file} of {repo} did not come as it is: its {what} should be {expected}, and is {found}; it was removed, try again"
    )]
    Damaged {
        /// The repository.
        repo: String,
        /// The file.
        file: String,
        /// Its size, or which hash.
        what: &'static str,
        /// What the hub says.
        expected: String,
        /// What came.
        found: String,
    },
    /// No room in the cache. What came is kept, and goes on from there.
    #[error(
        "{path}: the disk is full{need}; make room, or set HF_HUB_CACHE to a folder on another disk, and try again (what came is kept)"
    )]
    DiskFull {
        /// The file that could not be written.
        path: PathBuf,
        /// How much more was to come.
        need: String,
    },
    /// The cache cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}
