//! The threads that compute.

use std::error::Error;

use anyhow::{Result, anyhow};

/// Starts them, so that a machine that refuses some says so before any work.
///
/// # Errors
/// If one cannot be started.
pub fn start() -> Result<()> {
    let Err(error) = rayon::ThreadPoolBuilder::new().build_global() else { return Ok(()) };
    match error.source() {
        // They have been started before.
        None => Ok(()),
        Some(cause) => Err(anyhow!(
            "cannot start the threads that compute: {cause}; set RAYON_NUM_THREADS to fewer (results have the same bits \
             for any number), or allow more threads (ulimit -u) and memory (ulimit -v)"
        )),
    }
}
