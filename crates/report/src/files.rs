//! Files appear whole or not at all.

use std::path::Path;

use ironlens_files::FileError;

use crate::ReportError;

/// Writes a file whole or not at all; missing folders are created.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(FileError::io(folder, "making the folder"))?;
    }
    Ok(ironlens_files::write_atomically(path, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/a.html");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1);
    }

    #[test]
    fn errors_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for path in [file.join("below.png"), dir.path().to_path_buf()] {
            let error = write_atomic(&path, b"x").unwrap_err().to_string();
            assert!(
                error.contains(&file.display().to_string()) || error.contains(&path.display().to_string()),
                "{error}"
            );
        }
    }
}
