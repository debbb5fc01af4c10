//! Files, and nothing else that has a name in a folder.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Opens a file, and nothing else: opening a pipe would wait for somebody to write to it.
///
/// # Errors
/// If it cannot be opened, or is a folder, a pipe or a device.
pub fn open_ordinary(path: impl AsRef<Path>) -> io::Result<File> {
    let path = path.as_ref();
    match fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::other("it is not an ordinary file")),
    }
}
