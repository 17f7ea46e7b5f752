//! Online backup: copies the state while other processes write, then verifies the copy.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sqlx::sqlite::SqlitePool;

use super::connect::{connect, reading};
use super::{Store, StoreError, Verified};

/// Row counts, compared between the state and the copy.
const COUNTS: &str =
    "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM event_users), (SELECT count(*) FROM users),
        (SELECT count(*) FROM addresses), (SELECT count(*) FROM accounts), (SELECT count(*) FROM decision_log)";

type Counts = (i64, i64, i64, i64, i64, i64);

impl Store {
    /// Copies the state to the new file `target` (mode 0600) and verifies the copy: SQLite's integrity check, the decision
    /// chain and the row counts. The daemon may keep writing. Returns the result of the chain verification.
    ///
    /// # Errors
    /// [`StoreError::Backup`] when `target` exists, cannot be written, or fails verification; the copy is then removed.
    pub async fn backup(&self, target: &Path) -> Result<Verified, StoreError> {
        let before = self.counts(self.reader()).await?;
        copy_into(self.reader(), self.path(), target).await?;
        let after = self.counts(self.reader()).await?;
        let proven = self.prove(target, before, after).await;
        if proven.is_err() {
            let _ = fs::remove_file(target);
        }
        proven
    }

    pub(super) async fn prove(&self, target: &Path, before: Counts, after: Counts) -> Result<Verified, StoreError> {
        let refuse = |why: String| StoreError::Backup { path: target.to_owned(), why };
        // No other process has the copy open.
        let pool = connect(target, reading(target).immutable(true), 1).await?;
        let copy = Self::over(target, pool);
        let result = async {
            let integrity: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(copy.reader()).await?;
            if integrity != "ok" {
                return Err(refuse(format!("the copy is damaged: {integrity}")));
            }
            let copied = copy.counts(copy.reader()).await?;
            for (name, (before, after), copied) in [
                ("events", (before.0, after.0), copied.0),
                ("users of events", (before.1, after.1), copied.1),
                ("users", (before.2, after.2), copied.2),
                ("addresses", (before.3, after.3), copied.3),
                ("accounts", (before.4, after.4), copied.4),
                ("decisions", (before.5, after.5), copied.5),
            ] {
                // Another process may write between the counts; the copy was made between `before` and `after`.
                if copied < before.min(after) || copied > before.max(after) {
                    return Err(refuse(format!(
                        "the copy has {copied} {name}; the state had {before} before and {after} after"
                    )));
                }
            }
            copy.verify_decisions().await
        }
        .await;
        copy.close().await;
        result
    }

    pub(super) async fn counts(&self, pool: &SqlitePool) -> Result<Counts, StoreError> {
        Ok(sqlx::query_as(COUNTS).fetch_one(pool).await?)
    }
}

/// Writes a consistent copy of the database to the new file `target`, with mode 0600, and syncs it: `VACUUM INTO` does
/// neither.
pub(super) async fn copy_into(pool: &SqlitePool, path: &Path, target: &Path) -> Result<(), StoreError> {
    let refuse = |why: String| StoreError::Backup { path: target.to_owned(), why };
    // An absolute path is never parsed as a URI.
    let whole = std::path::absolute(target).map_err(|error| refuse(error.to_string()))?;
    let Some(name) = whole.to_str() else { return Err(refuse("its path is not valid UTF-8".to_owned())) };
    let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&whole) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(refuse("the file already exists; it was not changed".to_owned()));
        }
        Err(error) => return Err(refuse(error.to_string())),
    };
    let copied = match sqlx::query("VACUUM INTO ?").bind(name).execute(pool).await {
        Ok(_) => file.sync_all().and_then(|()| sync_folder(&whole)).map_err(|error| refuse(error.to_string())),
        Err(source) => Err(StoreError::at(path)(source)),
    };
    if copied.is_err() {
        let _ = fs::remove_file(&whole);
    }
    copied
}

/// Syncs the folder: a new file name is durable only then.
fn sync_folder(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
