//! The state's files: opening, creating and checking them.
//!
//! Root runs commands in a folder that the service's user can write. So no path in the folder is followed, truncated or
//! given other permissions through a link: each file is opened with `O_NOFOLLOW` and checked by its descriptor. SQLite
//! opens its own files with `O_NOFOLLOW` too.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteJournalMode;

use super::StoreError;
use super::connect::{connect, options};

/// The files that SQLite keeps beside the state.
const SQLITE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];
/// The name suffix of a new state until it is complete.
pub(super) const NEW: &str = ".new";

/// A file next to the state.
pub(super) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn place(path: &Path) -> impl Fn(io::Error) -> StoreError + Copy {
    move |source| StoreError::Place { path: path.to_owned(), source }
}

/// Refuses a folder that every user can write. Returns whether a group can write it.
///
/// # Errors
/// [`StoreError::Unsafe`], and [`StoreError::Place`] when the folder does not exist.
pub(super) fn check_folder(path: &Path) -> Result<bool, StoreError> {
    let mode = fs::metadata(folder(path)).map_err(place(path))?.permissions().mode();
    if mode & 0o002 != 0 {
        let folder = folder(path).display();
        return Err(StoreError::Unsafe {
            path: path.to_owned(),
            what: format!("every local user can write to its folder {folder}"),
            remedy: format!("`chmod o-w {folder}`, or set [store] path to a file in a folder of the service's user"),
        });
    }
    Ok(mode & 0o020 != 0)
}

/// The options of every file that we open: links are not followed, and a planted pipe does not block.
fn no_follow() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).mode(0o600);
    options
}

/// Refuses anything but a regular file with one name.
fn check_plain(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
    let refuse =
        |what: String, remedy: &str| StoreError::Unsafe { path: path.to_owned(), what, remedy: remedy.to_owned() };
    if metadata.is_symlink() {
        let target = fs::read_link(path).map_or_else(|_| String::new(), |target| format!(" to {}", target.display()));
        return Err(refuse(
            format!("it is a symbolic link{target}"),
            "if it is [store] path, set that to the file itself; otherwise remove the link",
        ));
    }
    if !metadata.is_file() {
        return Err(StoreError::NotOurs { path: path.to_owned(), what: "not a regular file".to_owned() });
    }
    if metadata.nlink() > 1 {
        return Err(refuse(
            format!("it has {} hard links, so other names lead to the same file", metadata.nlink()),
            "remove the other names; if you need two files, copy it",
        ));
    }
    Ok(())
}

/// Refuses a path that is not a regular file with one name. A missing file passes; opening it reports any other problem.
pub(super) fn require_plain(path: &Path) -> Result<(), StoreError> {
    fs::symlink_metadata(path).map_or(Ok(()), |metadata| check_plain(path, &metadata))
}

/// Opens a regular file with one name, without following a link.
pub(super) fn open_plain(path: &Path, write: bool, create: bool) -> Result<File, StoreError> {
    let opened = no_follow().read(true).write(write).create(create).truncate(false).open(path);
    let file = match opened {
        Ok(file) => file,
        // Opening a link fails with ELOOP; the check names the link.
        Err(source) => return Err(require_plain(path).err().unwrap_or_else(|| place(path)(source))),
    };
    check_plain(path, &file.metadata().map_err(place(path))?)?;
    Ok(file)
}

/// Refuses a file that is empty or not an SQLite database.
pub(super) fn check_header(path: &Path, file: &File) -> Result<(), StoreError> {
    let mut header = Vec::with_capacity(16);
    file.take(16).read_to_end(&mut header).map_err(place(path))?;
    if header.is_empty() {
        return Err(empty(path));
    }
    if header == b"SQLite format 3\0" {
        return Ok(());
    }
    Err(StoreError::NotOurs { path: path.to_owned(), what: "not an SQLite database".to_owned() })
}

/// A state of 0 bytes lost its data; SQLite would take it for a new one and delete its WAL.
fn empty(path: &Path) -> StoreError {
    StoreError::Unsafe {
        path: path.to_owned(),
        what: "it is empty (0 bytes), so its data was lost".to_owned(),
        remedy: "restore a backup; to start with a new state, remove this file and those beside it".to_owned(),
    }
}

/// Creates the state if it is missing, with mode 0600. Returns whether it was missing.
///
/// The file gets its name only when it is a database, so an empty file is always a damaged one. The caller holds the lock.
pub(super) async fn create_if_missing(path: &Path) -> Result<bool, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(place(path)(source)),
    }
    require_log_of_state(path)?;
    let new = sibling(path, NEW);
    for suffix in [""].iter().chain(&SQLITE_FILES) {
        // Left by a process that died here.
        let _ = fs::remove_file(sibling(&new, suffix));
    }
    let file = no_follow().write(true).create_new(true).open(&new).map_err(place(path))?;
    give_to_folder_owner(path, &file)?;
    // Setting the journal mode writes the header.
    let pool = connect(&new, options(&new).journal_mode(SqliteJournalMode::Wal), 1).await?;
    pool.close().await;
    file.sync_all().and_then(|()| fs::rename(&new, path)).map_err(place(path))?;
    Ok(true)
}

/// Refuses a write-ahead log whose state is missing.
pub(super) fn require_log_of_state(path: &Path) -> Result<(), StoreError> {
    let wal = sibling(path, "-wal");
    if fs::symlink_metadata(&wal).is_ok_and(|metadata| metadata.len() > 0) {
        return Err(StoreError::Unsafe {
            path: path.to_owned(),
            what: format!("the file is missing, but its write-ahead log {} is there", wal.display()),
            remedy: "restore a backup; to start with a new state, remove the log".to_owned(),
        });
    }
    Ok(())
}

/// A file that root creates belongs to the owner of its folder, so that the service can use it. SQLite does the same.
pub(super) fn give_to_folder_owner(path: &Path, file: &File) -> Result<(), StoreError> {
    let (folder, metadata) =
        fs::metadata(folder(path)).and_then(|folder| Ok((folder, file.metadata()?))).map_err(place(path))?;
    if metadata.uid() == 0 && folder.uid() != 0 {
        std::os::unix::fs::fchown(file, Some(folder.uid()), Some(folder.gid())).map_err(place(path))?;
    }
    Ok(())
}

/// Restricts the state and SQLite's files, which hold personal data, to their owner. SQLite gives the WAL the mode of the
/// state. Returns whether others could read the state.
///
/// Called before SQLite opens them: closing a descriptor would release SQLite's locks on the file.
pub(super) fn tighten_all(path: &Path, state: &File) -> Result<bool, StoreError> {
    let tightened = tighten(path, state)?;
    for suffix in SQLITE_FILES {
        let beside = sibling(path, suffix);
        require_plain(&beside)?;
        if let Ok(file) = open_plain(&beside, false, false) {
            tighten(&beside, &file)?;
        }
    }
    Ok(tightened)
}

/// Refuses links in place of SQLite's files. SQLite does not follow them either, but its error does not name the cause.
pub(super) fn require_plain_beside(path: &Path) -> Result<(), StoreError> {
    SQLITE_FILES.iter().try_for_each(|suffix| require_plain(&sibling(path, suffix)))
}

/// Restricts an open file to its owner. Returns whether others could read it.
pub(super) fn tighten(path: &Path, file: &File) -> Result<bool, StoreError> {
    let metadata = file.metadata().map_err(place(path))?;
    if metadata.permissions().mode() & 0o077 == 0 {
        return Ok(false);
    }
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(place(path))?;
    Ok(true)
}
