//! Store errors, each with its remedy.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sqlx::migrate::MigrateError;

use super::types::UnreadableValue;
use crate::domain::OktaUserId;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process (a daemon or a `sync`) has locked the state.
    #[error(
        "the state {path} is in use by another okta-auth0-sync process{holder}; stop it, or use a command that works beside it (status, events, user, retry, approve)"
    )]
    Busy {
        /// The state file.
        path: PathBuf,
        /// ` (pid 123)`, or empty.
        holder: String,
    },
    /// The state file does not exist.
    #[error("there is no state at {path}: nothing has run yet with this configuration (start `run`, or try `sync`)")]
    Missing {
        /// The state file.
        path: PathBuf,
    },
    /// The current system user may not read the state.
    #[error("cannot read the state {path}: {source}; it belongs to the service's user: run this command as root")]
    Forbidden {
        /// The state file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The folder of the state file does not exist or cannot be written.
    #[error("cannot open the state at {path}: {source}; {}", place_remedy(source))]
    Place {
        /// The state file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Using the file is unsafe: a link, an empty file, a folder that every user can write.
    #[error("the state was not opened and nothing was changed: {path}: {what}; {remedy}")]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The file is not a state of this program.
    #[error("{path} is not a state of okta-auth0-sync ({what}); nothing was changed; set [store] path to another file")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        what: String,
    },
    /// A newer version wrote the state.
    #[error(
        "the state {path} has schema {found}, but this version supports schemas up to {known}: a newer okta-auth0-sync wrote it; install that version, or restore the copy made before the upgrade ({path}.schema-*.bak)"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// An older version wrote the state, and this command must not migrate it.
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
        "the state {path} belongs to {what} {bound}, but the configuration names {configured}; a state is for one Okta org and one Auth0 tenant: set [store] path to a separate file for each pair, or fix the configuration; if the configuration was wrong when this state was created, lift its marks with the old configuration (`purge`), then move {path} and the files beside it away: the next start creates a new one"
    )]
    OtherTenant {
        /// The file.
        path: PathBuf,
        /// `the Okta org`, `the Auth0 tenant`.
        what: &'static str,
        /// The value in the state.
        bound: String,
        /// The configured value.
        configured: String,
    },
    /// Accounts are denied by marks under a key that the configuration no longer names.
    #[error(
        "auth0.metadata_key is {now:?}, but accounts are denied by marks under {last:?}: list {last:?} in auth0.former_metadata_keys until every mark has moved (`check` and `status` say when), and run `action deploy`, which binds the Action for {now:?} beside the other one"
    )]
    KeyChanged {
        /// The key of the last run.
        last: String,
        /// The configured key.
        now: String,
    },
    /// The linked SQLite is too old for WAL mode.
    #[error(
        "the linked SQLite is {0}; 3.51.3 or later is needed (before it, a race can corrupt a database in WAL mode)"
    )]
    SqliteTooOld(String),
    /// Another process moved the checkpoint.
    #[error(
        "another process moved the checkpoint (expected step {expected}); the page was not stored and will be requested again"
    )]
    CheckpointMoved {
        /// The step that was read before the request.
        expected: i64,
    },
    /// There is no file at the path, but a running process has the state open.
    #[error(
        "there is no state at {}, but a running process has it open: its file was moved or deleted; stop the daemon, put the file \
         back (or a backup of it), and start the daemon",
        path.display()
    )]
    Displaced {
        /// The path.
        path: PathBuf,
    },
    /// A required row is missing.
    #[error("the state has no {what} {id}: it was removed during the operation")]
    Gone {
        /// What is missing.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The backup failed, or its copy failed verification.
    #[error("no backup was made at {path}: {why}")]
    Backup {
        /// The target file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A reader prevents truncating the WAL, which still holds deleted data.
    #[error(
        "another program is reading the state {path}, so its WAL cannot be truncated; end that program and try again"
    )]
    StillRead {
        /// The state file.
        path: PathBuf,
    },
    /// The decision log fails verification.
    #[error("the decision log was changed: {0}")]
    Tampered(String),
    /// The operating system has no random bytes.
    #[error("the operating system returned no random bytes; nothing was changed")]
    NoRandomness,
    /// The user left, and their denial is not finished: without their addresses it could not be.
    #[error(
        "user {0} left and is not denied yet, so nothing was deleted: without their addresses, their accounts would stay open; finish the denial first (`user {0}` says what it waits for), then run `forget` again"
    )]
    Unfinished(OktaUserId),
    /// A value in the database cannot be read.
    #[error("the state holds {what} that cannot be read: {value:?}; it was edited or is damaged: restore a backup")]
    Unreadable {
        /// The kind of value.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// SQLite returned an error.
    #[error("the state{}: {source}{}", file_name(path.as_deref()), remedy(source))]
    Sqlite {
        /// The file, if it may differ from the process's state.
        path: Option<PathBuf>,
        /// SQLite's error.
        source: sqlx::Error,
    },
    /// A migration failed.
    #[error(
        "failed to migrate the state {path}: {source}; the copy made before the migration is {copy}{}",
        migration_remedy(source)
    )]
    Migration {
        /// The file.
        path: PathBuf,
        /// The copy made before.
        copy: String,
        /// The cause.
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

/// The path of this process's only state, so that not every error has to carry it.
static STATE: OnceLock<PathBuf> = OnceLock::new();

/// Sets the path shown in SQLite errors. Only the first call has an effect.
pub fn name_state(path: &Path) {
    let _ = STATE.set(path.to_owned());
}

/// The file's path with a leading space, if known.
fn file_name(path: Option<&Path>) -> String {
    path.or(STATE.get().map(PathBuf::as_path)).map_or_else(String::new, |path| format!(" {}", path.display()))
}

impl StoreError {
    /// The user was removed.
    pub(super) fn gone_user(id: &OktaUserId) -> Self {
        Self::Gone { what: "user", id: id.to_string() }
    }

    /// The error of a read-only command that cannot read the file at `path`.
    pub(super) fn unreadable(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Forbidden { path, source },
            _ => Self::Place { path, source },
        }
    }

    /// An SQLite error about the file at `path`.
    pub(super) fn at(path: &Path) -> impl Fn(sqlx::Error) -> Self + Copy {
        move |source| Self::Sqlite { path: Some(path.to_owned()), source }
    }

    /// Did the operating system refuse to open or write a file (SQLite's CANTOPEN, READONLY)?
    pub(super) fn is_open_refused(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if matches!(primary_code(source), Some(8 | 14)))
    }

    /// Is this a configuration error (exit code 78), not a transient one?
    pub fn is_configuration(&self) -> bool {
        match self {
            // A full disk may have room at the next start.
            Self::Place { source, .. } => !is_full(source),
            Self::Unsafe { .. }
            | Self::NotOurs { .. }
            | Self::Newer { .. }
            | Self::OtherTenant { .. }
            | Self::KeyChanged { .. }
            | Self::SqliteTooOld(_) => true,
            _ => false,
        }
    }
}

/// Is the disk or quota full?
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The remedy when a file cannot be created.
fn place_remedy(error: &io::Error) -> &'static str {
    if is_full(error) {
        "the disk is full: make room"
    } else {
        "create the folder, or set [store] path to a location that this user can write"
    }
}

/// SQLite's primary result code: the low byte of the extended one.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<u32>().ok().map(|code| code & 0xff)
}

/// The remedy for a failed migration, if an operator can fix the cause.
fn migration_remedy(error: &MigrateError) -> &'static str {
    match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => remedy(source),
        _ => "",
    }
}

/// The remedy for SQLite errors that an operator can fix.
fn remedy(error: &sqlx::Error) -> &'static str {
    match primary_code(error) {
        Some(5 | 6) => "; another program has locked the database: end it",
        Some(8) => "; the file or its folder is read-only",
        Some(10) => "; the disk reported an error or is full: check `df` and the kernel log; nothing is lost",
        Some(11) => "; the file is damaged: stop the service and restore a backup",
        Some(13) => "; the disk is full: make room; nothing is lost and work resumes automatically",
        Some(14) => {
            "; check the permissions of the file and its folder, and whether the file system is mounted read-only"
        }
        Some(26) => "; the file is not an SQLite database, or is encrypted",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    /// An SQLite error that has only a code, to simulate failures such as a broken disk.
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
    fn sqlite_errors_come_with_remedies() {
        // Extended codes too: SQLITE_BUSY_SNAPSHOT, SQLITE_READONLY_DBMOVED, SQLITE_IOERR_WRITE.
        for (codes, remedy_text) in [
            (&[5, 6, 517][..], "end it"),
            (&[8, 1032], "read-only"),
            (&[10, 778], "check `df`"),
            (&[11, 267], "restore a backup"),
            (&[13], "make room"),
            (&[14], "check the permissions"),
            (&[26], "not an SQLite database"),
        ] {
            for code in codes {
                assert!(remedy(&reported(*code)).contains(remedy_text), "{code}");
                let migration = MigrateError::Execute(reported(*code));
                assert!(migration_remedy(&migration).contains(remedy_text), "{code} during a migration");
            }
        }
        assert_eq!(remedy(&reported(19)), "", "a violated constraint is our bug");
        assert_eq!(remedy(&sqlx::Error::PoolClosed), "");
        assert_eq!(migration_remedy(&MigrateError::VersionMissing(3)), "");
    }
}
