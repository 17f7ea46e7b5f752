//! The private folder in which a dry run keeps its copy of the state.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use super::{Error, screen};

/// The prefix of the folders' names.
const PREFIX: &str = "okta-auth0-sync-dry-run-";

/// The folder of a running dry run. Dropping it, and a signal that ends the process, remove the copy.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: TempDir,
    /// Locked while the dry run lives, so that no other process takes the copy for abandoned.
    _lock: File,
}

/// The folders that killed dry runs left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Abandoned {
    /// They held a copy and were removed.
    pub(crate) removed: Vec<PathBuf>,
    /// In use, or owned by another user: they stay.
    pub(crate) left: Vec<PathBuf>,
}

impl Folder {
    /// Creates the folder for its owner only, removes those of killed dry runs, and handles the signals that end a process.
    ///
    /// # Errors
    /// When the folder cannot be created, or the signal handlers cannot be installed.
    pub(crate) fn create(state: &Path) -> Result<Self, Error> {
        remove_abandoned(state);
        let folder = Self::create_in(&std::env::temp_dir(), &prefix(state))
            .map_err(|error| Error::Setup(format!("cannot create a directory for the copy of the state: {error}")))?;
        folder.remove_on_signal().map_err(|error| Error::Setup(format!("cannot listen for signals: {error}")))?;
        Ok(folder)
    }

    fn create_in(parent: &Path, prefix: &str) -> io::Result<Self> {
        let folder =
            tempfile::Builder::new().prefix(prefix).permissions(Permissions::from_mode(0o700)).tempdir_in(parent)?;
        let lock = open(folder.path())?;
        lock.try_lock()?;
        Ok(Self { folder, _lock: lock })
    }

    /// The file for the copy.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state.db")
    }

    /// A dry run has nothing to finish, so the first signal ends it. A closed terminal sends SIGHUP.
    fn remove_on_signal(&self) -> io::Result<()> {
        for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()] {
            let mut received = signal(kind)?;
            let folder = self.folder.path().to_owned();
            tokio::spawn(async move {
                if received.recv().await.is_some() {
                    let _ = fs::remove_dir_all(&folder);
                    screen::remark("stopped: the dry run wrote nothing, and its copy of the state is removed");
                    std::process::exit(1);
                }
            });
        }
        Ok(())
    }
}

/// The name of a folder starts with the inode of its state.
fn prefix(state: &Path) -> String {
    format!("{PREFIX}{}-", fs::metadata(state).map_or(0, |metadata| metadata.ino()))
}

/// Removes the folders that killed dry runs left in the directory for temporary files. Returns those of this state.
pub(crate) fn remove_abandoned(state: &Path) -> Abandoned {
    let prefix = prefix(state);
    let is_of_state = |folder: &PathBuf| {
        folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix))
    };
    let mut abandoned = remove_abandoned_in(&std::env::temp_dir());
    abandoned.removed.retain(is_of_state);
    abandoned.left.retain(is_of_state);
    abandoned
}

fn remove_abandoned_in(parent: &Path) -> Abandoned {
    let mut abandoned = Abandoned::default();
    let Ok(entries) = fs::read_dir(parent) else { return abandoned };
    for entry in entries.flatten() {
        if !entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            continue;
        }
        let folder = entry.path();
        let lock = open(&folder).and_then(|lock| lock.try_lock().map(|()| lock).map_err(io::Error::from));
        // An empty folder holds no data: its dry run may be about to lock it.
        if lock.is_ok() && fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_none()) {
            continue;
        }
        let gone = lock.is_ok() && fs::remove_dir_all(&folder).is_ok();
        if gone { abandoned.removed.push(folder) } else { abandoned.left.push(folder) }
    }
    abandoned.removed.sort();
    abandoned.left.sort();
    abandoned
}

/// Opens a folder without following a link.
fn open(folder: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY).open(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_is_for_its_owner_only() {
        let parent = tempfile::tempdir().unwrap();
        let dry_run = Folder::create_in(parent.path(), PREFIX).unwrap();
        let path = dry_run.folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(dry_run.state(), "ann@example.com").unwrap();
        drop(dry_run);
        assert!(!path.exists());
    }

    #[test]
    fn killed_dry_runs_leave_no_copy() {
        let parent = tempfile::tempdir().unwrap();
        let running = Folder::create_in(parent.path(), PREFIX).unwrap();
        fs::write(running.state(), "ann@example.com").unwrap();
        let killed = Folder::create_in(parent.path(), PREFIX).unwrap();
        fs::write(killed.state(), "ann@example.com").unwrap();
        let Folder { folder, _lock: lock } = killed;
        let killed = folder.keep();
        drop(lock);
        let victim = parent.path().join("victim");
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("file"), "a file of another program").unwrap();
        let link = parent.path().join(format!("{PREFIX}link"));
        std::os::unix::fs::symlink(&victim, &link).unwrap();

        let abandoned = remove_abandoned_in(parent.path());
        assert_eq!(abandoned.removed, std::slice::from_ref(&killed));
        let mut left = vec![running.folder.path().to_owned(), link];
        left.sort();
        assert_eq!(abandoned.left, left, "a running dry run keeps its copy, and a link is not followed");
        assert!(running.state().exists() && victim.join("file").exists() && !killed.exists());
    }
}
