//! What can be wrong with the state, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sqlx::migrate::MigrateError;

use super::types::UnreadableValue;
use crate::domain::OktaUserId;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the state: a daemon, a `sync`.
    #[error(
        "the state {path} is in use by another okta-auth0-sync process{holder}; stop it, or use a command that works beside it (status, events, user, retry, approve)"
    )]
    Busy {
        /// The state file.
        path: PathBuf,
        /// ` (pid 123)`, or nothing.
        holder: String,
    },
    /// There is no state yet.
    #[error("there is no state at {path}: nothing has run yet with this configuration (start `run`, or try `sync`)")]
    Missing {
        /// The state file.
        path: PathBuf,
    },
    /// This user may not look at the state.
    #[error("cannot read the state {path}: {source}; it is the service's own, so do this as root")]
    Forbidden {
        /// The state file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder of the state file does not exist or cannot be written.
    #[error("cannot keep the state at {path}: {source}; {}", place_remedy(source))]
    Place {
        /// The state file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Some other file.
    #[error("{path} is not a state of okta-auth0-sync ({what}); set [store] path to another file, nothing was changed")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        what: String,
    },
    /// A later version wrote it.
    #[error(
        "the state {path} has schema {found}, and this version knows schemas up to {known}: it was written by a newer okta-auth0-sync; install that version, or restore the copy made before the upgrade ({path}.schema-*.bak)"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// An older version wrote it, and this command must not migrate.
    #[error(
        "the state {path} has schema {found}, this version needs {known}: start `run` or `sync` once, which migrates it"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The state belongs to another org or tenant.
    #[error(
        "the state {path} belongs to {what} {bound}, and the configuration names {configured}; a state is of one Okta org and one Auth0 tenant: set [store] path to a file of its own for each pair, or mend the configuration"
    )]
    OtherTenant {
        /// The file.
        path: PathBuf,
        /// `the Okta org`, `the Auth0 tenant`.
        what: &'static str,
        /// What the state is bound to.
        bound: String,
        /// What was asked for.
        configured: String,
    },
    /// The linked SQLite is too old to be trusted with WAL.
    #[error(
        "the linked SQLite is {0}; 3.51.3 or later is needed (before it, a race can corrupt a database in WAL mode)"
    )]
    SqliteTooOld(String),
    /// Somebody else moved the checkpoint.
    #[error(
        "the checkpoint was moved by another process (expected step {expected}): the page was not stored and will be asked for again"
    )]
    CheckpointMoved {
        /// The step that was read before.
        expected: i64,
    },
    /// A row that must be there is not.
    #[error("the state has no {what} {id}: it was removed while it was being worked on")]
    Gone {
        /// What is missing.
        what: &'static str,
        /// Which one.
        id: String,
    },
    /// A backup could not be made, or is not what it should be.
    #[error("no backup was made at {path}: {why}")]
    Backup {
        /// Where it was to be.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// What was deleted cannot be taken out of the WAL while somebody reads it.
    #[error(
        "the state {path} is being read by another program, which keeps its log from being emptied; end it and try again"
    )]
    StillRead {
        /// The state file.
        path: PathBuf,
    },
    /// The decisions are not what was written.
    #[error("the decisions were changed: {0}")]
    Tampered(String),
    /// A value in the database cannot be read.
    #[error("the state holds {what} that cannot be read: {value:?}; it was edited or is damaged: restore a backup")]
    Unreadable {
        /// What kind of value.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// SQLite refused.
    #[error("the state{}: {source}{}", file_name(path.as_deref()), remedy(source))]
    Sqlite {
        /// The file, where it may be another one than the process's state.
        path: Option<PathBuf>,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// A migration failed.
    #[error(
        "the state {path} could not be migrated: {source}; the copy {copy} is as it was before{}",
        migration_remedy(source)
    )]
    Migration {
        /// The file.
        path: PathBuf,
        /// The copy made before.
        copy: String,
        /// What happened.
        source: Box<MigrateError>,
    },
}

impl From<sqlx::Error> for StoreError {
    fn from(source: sqlx::Error) -> Self {
        if let sqlx::Error::ColumnDecode { source: cause, .. } | sqlx::Error::Decode(cause) = &source
            && let Some(UnreadableValue { what, value }) = cause.downcast_ref()
        {
            return Self::Unreadable { what, value: value.clone() };
        }
        Self::Sqlite { path: None, source }
    }
}

/// The state of this process. A process works with one, so that not every error needs to carry its path.
static STATE: OnceLock<PathBuf> = OnceLock::new();

/// Names the state of this process, for the messages of SQLite errors. Only the first call counts.
pub fn name_state(path: &Path) {
    let _ = STATE.set(path.to_owned());
}

/// The file's path behind a space, if it is known.
fn file_name(path: Option<&Path>) -> String {
    path.or(STATE.get().map(PathBuf::as_path)).map_or_else(String::new, |path| format!(" {}", path.display()))
}

impl StoreError {
    /// The user was removed.
    pub(super) fn gone_user(id: &OktaUserId) -> Self {
        Self::Gone { what: "user", id: id.to_string() }
    }

    /// Why a command that only reads cannot read the file at `path`.
    pub(super) fn unreadable(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Forbidden { path, source },
            _ => Self::Place { path, source },
        }
    }

    /// A SQLite error about the file at `path`.
    pub(super) fn at(path: &Path) -> impl Fn(sqlx::Error) -> Self + Copy {
        move |source| Self::Sqlite { path: Some(path.to_owned()), source }
    }

    /// Did the system refuse to open or write a file (SQLite's CANTOPEN, READONLY)?
    pub(super) fn is_refused_by_the_system(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if matches!(primary_code(source), Some(8 | 14)))
    }

    /// Is this a matter of the configuration (exit code 78), not of the moment?
    pub fn is_configuration(&self) -> bool {
        match self {
            // A full disk is mended by making room, and the next start finds it.
            Self::Place { source, .. } => !is_full(source),
            Self::NotOurs { .. } | Self::Newer { .. } | Self::OtherTenant { .. } | Self::SqliteTooOld(_) => true,
            _ => false,
        }
    }
}

/// Is there no room for a file?
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What to do where a file cannot be made.
fn place_remedy(error: &io::Error) -> &'static str {
    if is_full(error) {
        "the disk is full: make room"
    } else {
        "create the folder, or set [store] path to a place that this user can write"
    }
}

/// SQLite's primary result code: the low byte of the extended one.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<u32>().ok().map(|code| code & 0xff)
}

/// What to do about a migration that an administrator can let go on.
fn migration_remedy(error: &MigrateError) -> &'static str {
    match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => remedy(source),
        _ => "",
    }
}

/// What to do about the SQLite errors that an administrator can mend.
fn remedy(error: &sqlx::Error) -> &'static str {
    match primary_code(error) {
        Some(5 | 6) => "; another program holds the database locked: end it",
        Some(8) => "; the file or its folder is read-only",
        Some(10) => "; the disk reported an error or is full: look at `df` and the kernel log, nothing is lost",
        Some(11) => "; the file is damaged: stop the service and restore a backup",
        Some(13) => "; the disk is full: make room, nothing is lost and work goes on by itself",
        Some(14) => {
            "; check the permissions of the file and its folder, and whether the file system is mounted read-only"
        }
        Some(26) => "; the file is no SQLite database, or is encrypted",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    /// What SQLite reports, by its number alone: a disk that fails, for one, cannot be had here.
    #[derive(Debug, thiserror::Error)]
    #[error("SQLite says {0}")]
    struct Reported(u32);

    impl DatabaseError for Reported {
        fn message(&self) -> &str {
            "reported"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.to_string().into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn reported(code: u32) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Reported(code)))
    }

    #[test]
    fn what_an_administrator_can_mend_is_told_with_what_to_do() {
        // Extended codes too: SQLITE_BUSY_SNAPSHOT, SQLITE_READONLY_DBMOVED, SQLITE_IOERR_WRITE.
        for (codes, told) in [
            (&[5, 6, 517][..], "end it"),
            (&[8, 1032], "read-only"),
            (&[10, 778], "look at `df`"),
            (&[11, 267], "restore a backup"),
            (&[13], "make room"),
            (&[14], "check the permissions"),
            (&[26], "no SQLite database"),
        ] {
            for code in codes {
                assert!(remedy(&reported(*code)).contains(told), "{code}");
                // The same where the schema is being made.
                assert!(migration_remedy(&MigrateError::Execute(reported(*code))).contains(told), "{code}");
            }
        }
        assert_eq!(remedy(&reported(19)), "", "a constraint is ours");
        assert_eq!(remedy(&sqlx::Error::PoolClosed), "");
        assert_eq!(migration_remedy(&MigrateError::VersionMissing(3)), "");
    }
}
