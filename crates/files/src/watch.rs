//! File operations that a test can watch, and make fail.

use std::cell::RefCell;
use std::io;
use std::path::Path;

type Watcher = Box<dyn FnMut(&'static str, &Path) -> io::Result<()>>;

thread_local! {
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// Does an operation on `path`, after whoever watches was told what it is; if that gives an error, it is the
/// operation's.
///
/// # Errors
/// Those of the operation.
pub fn operation<T>(what: &'static str, path: &Path, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    WATCHER.with_borrow_mut(|watcher| watcher.as_mut().map_or(Ok(()), |watch| watch(what, path)))?;
    run()
}

/// As [`operation`], for one that brings something to the disk: it is not done while somebody watches, since thousands
/// of them take minutes, and no test sees what they do.
pub(crate) fn sync(what: &'static str, path: &Path, run: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let watched = WATCHER.with_borrow(Option::is_some);
    operation(what, path, || if watched { Ok(()) } else { run() })
}

/// Tells `watcher` of every operation on files that `run` does on this thread: so a test of durability sees their
/// order, the state of the disk between any two, and what the failure of each leaves. Nothing is synced meanwhile.
pub fn watch<R>(watcher: impl FnMut(&'static str, &Path) -> io::Result<()> + 'static, run: impl FnOnce() -> R) -> R {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            WATCHER.set(None);
        }
    }
    WATCHER.set(Some(Box::new(watcher)));
    let _end = End;
    run()
}
