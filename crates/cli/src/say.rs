//! Standard output, whose reader may go away while a training goes on.

use std::fmt::{Arguments, Display};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a line could not be written; no other is tried then.
static UNHEARD: AtomicBool = AtomicBool::new(false);

/// As `println!`; but a line that nobody takes (a closed pipe, a full disk) is no reason to end the work, which
/// goes on quietly.
macro_rules! say {
    ($($text:tt)*) => { $crate::say::print(format_args!($($text)*)) };
}
pub(crate) use say;

pub(crate) fn print(line: Arguments<'_>) {
    if !UNHEARD.load(Ordering::Relaxed) && writeln!(io::stdout(), "{line}").is_err() {
        UNHEARD.store(true, Ordering::Relaxed);
    }
}

/// Prints a line on standard error, if that can be.
pub fn say_aside(line: impl Display) {
    // There is no other place to tell it.
    let _ = writeln!(io::stderr(), "{line}");
}
