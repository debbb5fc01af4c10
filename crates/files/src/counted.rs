//! A writer that knows how much it has written.

use std::io::{self, Write};

/// Counts what is written to a file.
pub(crate) struct Counted<'w> {
    file: &'w mut dyn Write,
    bytes: u64,
}

impl<'w> Counted<'w> {
    pub(crate) fn new(file: &'w mut dyn Write) -> Counted<'w> {
        Counted { file, bytes: 0 }
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
