//! How an error is told on the terminal.

use std::fmt::Write;
use std::io::{self, ErrorKind};

use crate::hint::{Asked, hint};

/// The most characters of a line: a file's own text may be quoted in an error, and be of any length.
const LONGEST_LINE: usize = 500;

/// The error, the causes that its text does not name, and what helps: a flag, or something against a
/// failure of the system.
pub(crate) fn tell(error: &anyhow::Error, asked: Asked<'_>) -> String {
    let mut said = error.to_string();
    let mut told = format!("error: {said}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many messages end with their cause.
        if !said.contains(&cause) {
            // Writing to a string cannot fail.
            let _ = write!(told, "\n  because: {cause}");
        }
        said = cause;
    }
    let system = || error.chain().find_map(|e| e.downcast_ref::<io::Error>()).and_then(advice);
    let advice = hint(error, asked).or_else(|| system().map(str::to_string));
    if let Some(advice) = advice {
        let _ = write!(told, "\n  try: {advice}");
    }
    told.lines().map(shortened).collect::<Vec<_>>().join("\n")
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(LONGEST_LINE) {
        None => line.into(),
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

fn advice(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        ErrorKind::NotFound => "check the path; it is relative to the working directory",
        ErrorKind::PermissionDenied => "another place, or other permissions on this one",
        ErrorKind::ReadOnlyFilesystem => "a place that can be written to",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "making room, or another disk",
        ErrorKind::FileTooLarge => "a higher limit on the size of files (ulimit -f)",
        ErrorKind::IsADirectory => "the name of a file, not of a folder",
        ErrorKind::NotADirectory => "a path whose every part but the last is a folder",
        ErrorKind::InvalidData => "a file that is text in UTF-8",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn tell(error: &anyhow::Error) -> String {
        super::tell(error, Asked::default())
    }

    #[test]
    fn a_cause_is_told_once_and_a_way_out_follows() {
        let io = || io::Error::from(ErrorKind::StorageFull);
        let nested = |e: io::Error| anyhow::Error::new(io::Error::other(format!("x: writing failed: {e}")));
        let told = tell(&nested(io()).context(format!("x: writing failed: {}", io())));
        assert_eq!(told.matches("writing failed").count(), 1, "{told}");
        let told = tell(&Err::<(), _>(io()).context("cannot write x").unwrap_err());
        assert_eq!(told, format!("error: cannot write x\n  because: {}\n  try: making room, or another disk", io()));
    }

    #[test]
    fn long_lines_are_cut_and_lists_are_not() {
        let list = "name\n".repeat(1000);
        let told = tell(&anyhow::anyhow!("{}\n{list}", "🦀".repeat(1_000_000)));
        assert!(told.len() < 10_000 && told.matches("name").count() == 1000);
    }
}
