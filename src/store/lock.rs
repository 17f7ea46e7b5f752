//! The lock on the state: one process uses it at a time.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write as _};
use std::path::Path;

use super::StoreError;
use super::files::{give_to_folder_owner, open_plain, sibling, tighten};

/// How often to ask for a lock before it counts as taken: milliseconds. A process that only tests the lock holds it for a
/// moment, and so does a child between its fork and its exec.
const ATTEMPTS: u32 = 20_000;

/// The locks of a process that uses the state. The operating system releases them even if the process is killed.
///
/// The lock on the state's inode decides: it holds whatever name leads to the file. It is a `flock`, which is independent
/// of the locks that SQLite takes with `fcntl`. The lock on `state.db.lock` covers the time in which the state does not
/// exist yet, or another file was moved to its name, and answers [`is_in_use`]: a process must not open and close the state
/// only to ask, because closing any descriptor of a file releases all `fcntl` locks of the process on it.
#[derive(Debug)]
pub(super) struct Lock {
    /// The state. Must stay open for as long as SQLite has the file open.
    pub(super) state: File,
    _name: NameLock,
}

/// The lock on `state.db.lock`.
#[derive(Debug)]
pub(super) struct NameLock {
    _file: File,
}

/// Is another process using the state at `path`? Changes nothing.
///
/// # Errors
/// When the lock file cannot be opened.
pub fn is_in_use(path: &Path) -> Result<bool, StoreError> {
    let lock = sibling(path, ".lock");
    match open_plain(&lock, false, false) {
        Err(StoreError::Place { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(StoreError::Place { source, .. }) => Err(StoreError::unreadable(path, source)),
        Err(error) => Err(error),
        // Shared, so that two processes that test at once do not see each other as the user.
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(StoreError::unreadable(path, source)),
        },
    }
}

/// Takes the lock on the name.
pub(super) fn take_name(path: &Path) -> Result<NameLock, StoreError> {
    let place = |source| StoreError::Place { path: path.to_owned(), source };
    let lock = sibling(path, ".lock");
    let mut file = open_plain(&lock, true, true).map_err(|error| match error {
        StoreError::Place { source, .. } => place(source),
        other => other,
    })?;
    if !try_to_lock(&file).map_err(place)? {
        return Err(busy(path));
    }
    give_to_folder_owner(path, &file)?;
    tighten(&lock, &file)?;
    // For the other process's error message; best effort.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    Ok(NameLock { _file: file })
}

/// Takes the lock on the inode of the opened `state`.
pub(super) fn take_inode(path: &Path, state: File, name: NameLock) -> Result<Lock, StoreError> {
    match try_to_lock(&state) {
        Ok(true) => Ok(Lock { state, _name: name }),
        Ok(false) => Err(StoreError::Busy { path: path.to_owned(), holder: String::new() }),
        Err(source) => Err(StoreError::Place { path: path.to_owned(), source }),
    }
}

/// Takes the lock on `file`. `false`: another process keeps it.
fn try_to_lock(file: &File) -> io::Result<bool> {
    for _ in 0..ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(source)) => return Err(source),
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    Ok(false)
}

fn busy(path: &Path) -> StoreError {
    let mut holder = String::new();
    if let Ok(file) = open_plain(&sibling(path, ".lock"), false, false) {
        let _ = file.take(20).read_to_string(&mut holder);
    }
    let holder = holder.parse::<u32>().map_or_else(|_| String::new(), |pid| format!(" (pid {pid})"));
    StoreError::Busy { path: path.to_owned(), holder }
}
