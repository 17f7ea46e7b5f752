//! The state's files: creating them, their permissions, and the lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;

/// How often to retry the lock while another process only tests it.
const LOCK_ATTEMPTS: u32 = 1000;

/// A file next to the state.
pub(super) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Is another process using the state at `path`? Changes nothing.
///
/// # Errors
/// When the lock file cannot be opened.
pub fn is_in_use(path: &Path) -> Result<bool, StoreError> {
    match File::open(sibling(path, ".lock")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(StoreError::unreadable(path, source)),
        // Shared, so that two processes that test at once do not see each other as the user.
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(source)) => Err(StoreError::unreadable(path, source)),
        },
    }
}

/// Takes the lock. It is a separate file: SQLite's locks last only for a transaction, and closing any descriptor of the
/// database file would release a lock on it.
pub(super) fn take_lock(path: &Path) -> Result<File, StoreError> {
    let place = |source| StoreError::Place { path: path.to_owned(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(sibling(path, ".lock"))
        .map_err(place)?;
    let mut taken = file.try_lock();
    for _ in 0..LOCK_ATTEMPTS {
        // `is_in_use` holds a shared lock for a moment; a working process holds an exclusive one.
        if !matches!(taken, Err(fs::TryLockError::WouldBlock)) || file.try_lock_shared().is_err() {
            break;
        }
        file.unlock().map_err(place)?;
        std::thread::yield_now();
        taken = file.try_lock();
    }
    match taken {
        Ok(()) => {
            // For the other process's error message; best effort.
            let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
            Ok(file)
        }
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.take(20).read_to_string(&mut holder);
            let holder = holder.parse::<u32>().map_or_else(|_| String::new(), |pid| format!(" (pid {pid})"));
            Err(StoreError::Busy { path: path.to_owned(), holder })
        }
        Err(fs::TryLockError::Error(source)) => Err(place(source)),
    }
}

/// Creates the file with mode 0600. Returns whether it was missing.
pub(super) fn create_if_missing(path: &Path) -> Result<bool, StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(StoreError::Place { path: path.to_owned(), source }),
    }
}

/// Refuses a folder, a device or a pipe.
pub(super) fn require_regular(path: &Path) -> Result<(), StoreError> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(StoreError::NotOurs { path: path.to_owned(), what: "not a regular file".to_owned() })
        }
        // Opening it reports any other problem.
        _ => Ok(()),
    }
}

/// Refuses a file that is not an SQLite database.
pub(super) fn check_header(path: &Path) -> Result<(), StoreError> {
    let mut header = Vec::with_capacity(16);
    File::open(path)
        .and_then(|file| file.take(16).read_to_end(&mut header))
        .map_err(|source| StoreError::Place { path: path.to_owned(), source })?;
    if header.is_empty() || header == b"SQLite format 3\0" {
        return Ok(());
    }
    Err(StoreError::NotOurs { path: path.to_owned(), what: "not an SQLite database".to_owned() })
}

/// Restricts the state and its siblings, which hold personal data, to their owner. SQLite gives the WAL the mode of the
/// state. Returns whether others could read the state.
pub(super) fn tighten_all(path: &Path) -> Result<bool, StoreError> {
    let tightened = tighten(path)?;
    for suffix in ["-wal", "-shm", ".lock"] {
        let beside = sibling(path, suffix);
        if beside.exists() {
            tighten(&beside)?;
        }
    }
    Ok(tightened)
}

fn tighten(path: &Path) -> Result<bool, StoreError> {
    let place = |source| StoreError::Place { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(place)?;
    if metadata.permissions().mode() & 0o077 == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(place)?;
    Ok(true)
}
