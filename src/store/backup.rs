//! A copy of the state, made while others write, and proven before it is called one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sqlx::sqlite::SqlitePool;

use super::connect::{connect, reading};
use super::{Store, StoreError, Verified};

/// What is counted here and there.
const COUNTS: &str =
    "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM event_users), (SELECT count(*) FROM users),
        (SELECT count(*) FROM addresses), (SELECT count(*) FROM accounts), (SELECT count(*) FROM decision_log)";

type Counts = (i64, i64, i64, i64, i64, i64);

impl Store {
    /// Copies the state to the new file `target` (mode 0600), and proves the copy: SQLite's integrity check, the chain of
    /// the decisions, and the number of rows. The state may be worked with meanwhile. Returns what the chain proved.
    ///
    /// # Errors
    /// [`StoreError::Backup`] when there is a file already, when it cannot be written, or when the copy is not what it
    /// should be; a copy that is not proven is removed.
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
        // The copy is one file that nobody else knows of.
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
                // Somebody may have written between the three counts: the copy is of a moment between the other two.
                if copied < before.min(after) || copied > before.max(after) {
                    return Err(refuse(format!(
                        "the copy has {copied} {name}, the state {before} before and {after} after"
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

/// Writes a consistent copy of the database behind `pool` to the new file `target`, and sees it onto the disk: SQLite does
/// not do so for a copy, and would make it readable for others.
pub(super) async fn copy_into(pool: &SqlitePool, path: &Path, target: &Path) -> Result<(), StoreError> {
    let refuse = |why: String| StoreError::Backup { path: target.to_owned(), why };
    // Absolute, so that no name is taken for a URI.
    let whole = std::path::absolute(target).map_err(|error| refuse(error.to_string()))?;
    let Some(name) = whole.to_str() else { return Err(refuse("its path is not valid UTF-8".to_owned())) };
    let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&whole) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(refuse("there is a file already; it is left as it is".to_owned()));
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

/// A new name is on the disk only when its folder is.
fn sync_folder(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
