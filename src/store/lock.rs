//! The lock on the state: one process uses it at a time.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::StoreError;
use super::files::{give_to_folder_owner, open_plain, sibling, tighten};

/// How often to ask for a lock before it counts as taken: milliseconds. A process that only tests the lock holds it for a
/// moment, and so does a child between its fork and its exec.
const ATTEMPTS: u32 = 20_000;

/// The locks of a process that uses the state. The operating system releases them even if the process is killed.
///
/// The lock on the state's inode decides: it holds whatever name leads to the file. It is a `flock`, which is independent
/// of the locks that SQLite takes with `fcntl`. The lock on `state.db.lock` covers the time in which the state does not
/// exist yet, or another file was moved to its name.
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
/// When the lock file or the state cannot be opened.
pub fn is_in_use(path: &Path) -> Result<bool, StoreError> {
    let lock = sibling(path, ".lock");
    if let Some(file) = open_if_present(&lock, path)?
        && is_locked(path, &file)?
    {
        return Ok(true);
    }
    // The lock file may have been removed or replaced. The lock on the state decides.
    let mut probes = PROBES.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(state) = probe(&mut probes, path)? else { return Ok(false) };
    is_locked(path, state)
}

/// States that [`is_in_use`] has opened. They stay open until the process ends: closing one would release SQLite's locks
/// on it.
static PROBES: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// The descriptor of the state at `path`, opened if none of `probes` is of this file.
fn probe<'a>(probes: &'a mut Vec<File>, path: &Path) -> Result<Option<&'a File>, StoreError> {
    let Ok(wanted) = fs::symlink_metadata(path) else { return Ok(None) };
    let is_wanted = |file: &File| {
        file.metadata().is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (wanted.dev(), wanted.ino()))
    };
    let index = match probes.iter().position(is_wanted) {
        Some(index) => index,
        None => {
            let Some(file) = open_if_present(path, path)? else { return Ok(None) };
            probes.push(file);
            probes.len() - 1
        }
    };
    Ok(probes.get(index))
}

/// Opens `file`, which belongs to `state`, to read it. `None`: it is missing.
fn open_if_present(file: &Path, state: &Path) -> Result<Option<File>, StoreError> {
    match open_plain(file, false, false) {
        Err(StoreError::Place { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(StoreError::Place { source, .. }) => Err(StoreError::unreadable(state, source)),
        other => other.map(Some),
    }
}

/// Does another process hold the lock on `file`?
fn is_locked(path: &Path, file: &File) -> Result<bool, StoreError> {
    // Shared, so that two processes that test at once do not see each other as the user.
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| false).map_err(|source| StoreError::unreadable(path, source)),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => Err(StoreError::unreadable(path, source)),
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
