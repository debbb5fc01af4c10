//! Signals that ask a training to stop.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use anyhow::{Result, anyhow};

use crate::say::say_aside;

/// Ctrl-C's number, on every Unix.
const SIGINT: usize = 2;

struct Signals {
    /// The one that asked to stop, or 0.
    asked: Arc<AtomicUsize>,
    /// Whether the next one ends the process: nothing is trained, or one has asked before.
    at_once: Arc<AtomicBool>,
    /// What the first Ctrl-C is answered with.
    answer: Arc<Mutex<&'static str>>,
}

/// The answer of a training.
const AFTER_THIS_STEP: &str = "\nstopping after this step; press Ctrl-C again to stop at once and lose it";

/// Handlers are installed once in a process.
static SIGNALS: LazyLock<Result<Signals, String>> = LazyLock::new(|| listen().map_err(|e| e.to_string()));

fn listen() -> Result<Signals> {
    let (asked, at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
    #[cfg(unix)]
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        use signal_hook::flag;
        // What `nohup` ignores stays ignored.
        if !is_ignored(signal) {
            // In this order: the first sees what earlier signals have set.
            flag::register_conditional_shutdown(signal, 128 + signal, at_once.clone())?;
            flag::register_usize(signal, asked.clone(), signal as usize)?;
            flag::register(signal, at_once.clone())?;
        }
    }
    let answer = Arc::new(Mutex::new(AFTER_THIS_STEP));
    let signals = Signals { asked: asked.clone(), at_once: at_once.clone(), answer: answer.clone() };
    ctrlc::set_handler(move || {
        if at_once.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        asked.store(SIGINT, Ordering::SeqCst);
        say_aside(*answer.lock().unwrap_or_else(PoisonError::into_inner));
    })?;
    Ok(signals)
}

/// Whether this process was started with a signal ignored, as Linux tells.
#[cfg(target_os = "linux")]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Whether this process may have been started with a signal ignored: `nohup` ignores the one of a terminal that closes,
/// and takes both outputs from the terminal.
#[cfg(all(unix, not(target_os = "linux")))]
fn is_ignored(signal: i32) -> bool {
    use std::io::IsTerminal;
    signal == signal_hook::consts::SIGHUP && !std::io::stdout().is_terminal() && !std::io::stderr().is_terminal()
}

/// While this lives, a first signal asks the training to stop, and a second ends the process; after it, the
/// first does.
pub struct Stop(&'static Signals);

impl Stop {
    /// Starts to listen.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn listen() -> Result<Stop> {
        Stop::answering(AFTER_THIS_STEP)
    }

    /// The same, for other work than a training: the first Ctrl-C is answered with a line of its own.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn answering(answer: &'static str) -> Result<Stop> {
        let signals = SIGNALS.as_ref().map_err(|e| anyhow!("cannot listen for Ctrl-C: {e}"))?;
        *signals.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
        signals.asked.store(0, Ordering::SeqCst);
        signals.at_once.store(false, Ordering::SeqCst);
        Ok(Stop(signals))
    }

    /// The signal that asked to stop, if one did.
    pub fn asked(&self) -> Option<Interrupted> {
        match self.0.asked.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(Interrupted { signal: signal as u8 }),
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.at_once.store(true, Ordering::SeqCst);
    }
}

/// A training that a signal ended, after it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    signal: u8,
}

impl Interrupted {
    /// The exit status that shells give to a process which this signal ended: 130 for Ctrl-C, 143 for SIGTERM.
    pub fn exit_status(self) -> u8 {
        128 + self.signal
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped by signal {}", self.signal)
    }
}

impl std::error::Error for Interrupted {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_training_is_asked() {
        let ends_at_once = || SIGNALS.as_ref().unwrap().at_once.load(Ordering::SeqCst);
        let stop = Stop::listen().unwrap();
        assert!(!ends_at_once() && stop.asked().is_none());
        stop.0.asked.store(15, Ordering::SeqCst);
        assert_eq!(stop.asked().unwrap().exit_status(), 143);
        drop(stop);
        assert!(ends_at_once());
        assert!(Stop::listen().unwrap().asked().is_none());
    }
}
