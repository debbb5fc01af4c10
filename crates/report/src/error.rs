use std::path::PathBuf;

use ironlens_files::FileError;

/// What can go wrong when drawing a figure or writing a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Data whose shape is not what the figure or report needs.
    #[error("{what}: got {got}, expected {expected}")]
    Shape {
        /// Which data.
        what: String,
        /// The shape it should have.
        expected: String,
        /// The shape it has.
        got: String,
    },
    /// An option that means nothing for its figure, or has a value that cannot be.
    #[error("{what}: the option `{option}` cannot be used: {reason}")]
    Option {
        /// Which figure.
        what: String,
        /// The method of [`Figure`](crate::Figure) that set it.
        option: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
    /// A file name that says no known format.
    #[error("cannot tell the format of `{path}` from its extension: name it .html (interactive), .png or .svg")]
    Format {
        /// The path given.
        path: PathBuf,
    },
    /// A file or folder that could not be written.
    #[error("{0}; check that the folder can be written to and has space")]
    File(FileError),
    /// The picture could not be drawn.
    #[error("cannot draw the figure `{figure}`: {reason}")]
    Draw {
        /// The figure's title.
        figure: String,
        /// What the drawing library said.
        reason: String,
    },
}

impl From<FileError> for ReportError {
    fn from(error: FileError) -> Self {
        ReportError::File(error)
    }
}
