//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::error::FileError;
use crate::watch::{operation, sync};

/// Writes a file whole or not at all: see [`write_atomically_with`].
///
/// # Errors
/// As [`write_atomically_with`].
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<(), FileError> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// Lets `write` fill a file that then takes its place at `path`: a reader sees the old file or the
/// new one, also after a power cut, and on an error the old one stays and nothing is left beside it.
///
/// The bytes go to a new file of a name of its own in the same folder (no link is followed there),
/// which is brought to the disk and renamed; then the folder is. A file that is replaced keeps its
/// permissions, a new one has those that the umask leaves. A symbolic link at `path` is replaced by
/// the file.
///
/// # Errors
/// If the folder does not exist, `path` is something other than a file, the disk is full, or `write`
/// fails.
pub fn write_atomically_with(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), FileError> {
    let path = path.as_ref();
    replace(path, write).map_err(FileError::io(path, "writing"))
}

fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let old = fs::metadata(path).ok();
    // A folder, a pipe or a device (root may write to /dev) must not be renamed over.
    if let Some(other) = old.as_ref().filter(|m| !m.is_file()) {
        let kind = if other.is_dir() { "it is a folder" } else { "it is not an ordinary file" };
        return Err(io::Error::other(format!("{kind}; a file name is needed")));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ironlens-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut beside = operation("create", path, || builder.tempfile_in(folder))?;
    operation("write", path, || {
        let mut buffered = BufWriter::with_capacity(1 << 16, beside.as_file_mut());
        write(&mut buffered)?;
        buffered.flush()
    })?;
    if let Some(old) = old {
        beside.as_file().set_permissions(old.permissions())?;
    }
    sync_file(path, beside.as_file())?;
    operation("rename", path, || beside.persist(path).map_err(|e| e.error))?;
    sync_folder(folder)
}

/// Brings a file that is open, and lies at `path`, to the disk: a power cut does not undo what was written. Where the
/// system cannot do so (some network drives), nothing happens.
///
/// # Errors
/// If the disk fails.
pub fn sync_file(path: &Path, file: &File) -> io::Result<()> {
    sync("sync", path, || where_it_can_be(file.sync_all()))
}

/// What a sync gave, but for the answers of systems that have none for such a file.
fn where_it_can_be(synced: io::Result<()>) -> io::Result<()> {
    // macOS's ENOTTY and ENOTSUP, which is what drives of other systems answer to its `F_FULLFSYNC`.
    let numbers: &[i32] = if cfg!(target_os = "macos") { &[25, 45] } else { &[] };
    match synced {
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        Err(e) if e.raw_os_error().is_some_and(|number| numbers.contains(&number)) => Ok(()),
        done => done,
    }
}

/// Brings the names in a folder to the disk: after a file was made, renamed or removed there, a power
/// cut does not undo it. Where the system cannot do so (Windows, some network drives), nothing happens.
///
/// # Errors
/// If the folder cannot be opened or the disk fails.
pub fn sync_folder(folder: impl AsRef<Path>) -> io::Result<()> {
    let folder = folder.as_ref();
    sync("sync folder", folder, || match cfg!(unix) {
        true => where_it_can_be(File::open(folder)?.sync_all()),
        false => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let failed = write_atomically_with(&path, |file| {
            file.write_all(b"three")?;
            Err(io::Error::other("no more"))
        });
        assert!(failed.unwrap_err().to_string().contains("a.txt: writing failed: no more"));
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn what_cannot_be_synced_is_no_error_and_a_disk_that_fails_is() {
        let kind = |kind: io::ErrorKind| where_it_can_be(Err(io::Error::from(kind))).is_ok();
        assert!(kind(io::ErrorKind::Unsupported) && kind(io::ErrorKind::InvalidInput));
        assert!(!kind(io::ErrorKind::StorageFull) && !kind(io::ErrorKind::Other));
        // EIO, everywhere.
        assert!(where_it_can_be(Err(io::Error::from_raw_os_error(5))).is_err());
        let on_a_mac = [25, 45].map(|number| where_it_can_be(Err(io::Error::from_raw_os_error(number))).is_ok());
        assert!(!cfg!(target_os = "macos") || on_a_mac == [true; 2]);
    }

    #[test]
    fn errors_name_the_path_and_the_cause_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        for (path, word) in [
            (file.join("below.png"), "below.png"),
            (folder.path().join("no/such/a.txt"), "a.txt"),
            (folder.path().to_path_buf(), "it is a folder"),
        ] {
            let error = write_atomically(&path, b"x").unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert!(std::error::Error::source(&error).is_none());
        }
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_the_umask_s_or_those_of_the_old_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        // What the umask leaves is seen at a file that is made the usual way.
        let (usual, path) = (folder.path().join("usual"), folder.path().join("a.txt"));
        File::create(&usual).unwrap();
        write_atomically(&path, b"x").unwrap();
        assert_eq!(mode(&path), mode(&usual));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write_atomically(&path, b"y").unwrap();
        assert_eq!(mode(&path), 0o640);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_replaced_and_never_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join("link.tmp")).unwrap();
        write_atomically(&link, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"kept");
        assert_eq!(fs::read(&link).unwrap(), b"new");
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = write_atomically(&socket, b"x").unwrap_err().to_string();
        assert!(error.contains("not an ordinary file"), "{error}");
    }
}
