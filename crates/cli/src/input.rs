//! What a user gives by name or number.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// More than any configuration or analysis has.
const LARGEST: u64 = 256 << 20;

/// The text of an ordinary file, or of `/dev/stdin`. Opening anything else might never end.
///
/// # Errors
/// If it cannot be read, is no ordinary file, too large, or not UTF-8.
pub fn read_text(path: &Path, what: &str) -> Result<String> {
    let cannot = || format!("cannot read {what} {}", path.display());
    let mut text = String::new();
    // By its Unix name on every system.
    let mut input: Box<dyn Read> = if path == Path::new("/dev/stdin") {
        Box::new(std::io::stdin())
    } else if std::fs::metadata(path).with_context(cannot)?.is_file() {
        Box::new(File::open(path).with_context(cannot)?)
    } else {
        bail!("{}: it is not an ordinary file", cannot())
    };
    input.by_ref().take(LARGEST + 1).read_to_string(&mut text).with_context(cannot)?;
    if text.len() as u64 > LARGEST {
        bail!("{}: it is larger than {} MiB", cannot(), LARGEST >> 20);
    }
    Ok(text)
}

/// A flag's whole number from `least` up.
fn whole<T: TryFrom<u64>>(text: &str, least: u64) -> Result<T, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|n| *n >= least).and_then(|n| T::try_from(n).ok());
    number.ok_or_else(|| match digits && text.bytes().any(|b| b != b'0') {
        true => "expected a whole number below 2^64".into(),
        false => format!("expected a whole number from {least}"),
    })
}

/// A flag's whole number from 1.
pub fn from_one<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    whole(text, 1)
}

/// A flag's whole number from 0.
pub fn from_zero<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    whole(text, 0)
}

/// A flag's finite number.
pub fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|x: &f64| x.is_finite()).ok_or_else(|| "expected a finite number".into())
}

/// A flag's finite number above 0.
pub fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0);
    number.ok_or_else(|| "expected a finite number above 0".into())
}
