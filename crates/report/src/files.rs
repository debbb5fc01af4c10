//! Files appear whole or not at all.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::ReportError;

/// Writes to a temporary file in the same folder, then renames it into place:
/// a reader never sees half a file, and a failed write leaves the old one alone.
/// Missing folders are created.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|e| ReportError::io("create the folder", folder, e))?;
    if path.is_dir() {
        let error = std::io::Error::other("it is a folder, a file name is needed");
        return Err(ReportError::io("write", path, error));
    }
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".ironlens-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        // A temporary file is private; a report is meant to be read by others.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(path).map_or(0o644, |old| old.permissions().mode());
            file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        }
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    };
    write().map_err(|e| ReportError::io("write", path, e))
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
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1);
    }

    #[test]
    fn errors_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        for path in [file.join("below.png"), dir.path().to_path_buf()] {
            let error = write_atomic(&path, b"x").unwrap_err().to_string();
            assert!(
                error.contains(&file.display().to_string()) || error.contains(&path.display().to_string()),
                "{error}"
            );
        }
    }
}
