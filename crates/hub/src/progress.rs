//! What a caller is told while it waits.

use std::time::Duration;

/// What a caller is told while it waits. The library draws nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// So much of a file is here. Told first when its download begins (or goes on from `done`), last when
    /// `done == total`.
    Bytes {
        /// The file's name in the repository.
        file: &'a str,
        /// How many bytes are on this machine.
        done: u64,
        /// How many there will be, where the server says it.
        total: Option<u64>,
    },
    /// Something did not work, and is tried again after a time.
    Again {
        /// What did not work.
        why: &'a str,
        /// For how long nothing is done.
        wait: Duration,
    },
    /// Somebody else downloads the file: this waits until they have it, or stop.
    Locked {
        /// The file's name in the repository.
        file: &'a str,
    },
}
