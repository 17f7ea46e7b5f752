//! Connections to a state file, and the checks before it is used.

use std::io;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::StoreError;

/// Our `PRAGMA application_id`: "oa0s".
const APPLICATION_ID: i64 = 0x6f61_3073;
/// Number of read connections.
pub(super) const READERS: u32 = 3;
const BUSY: Duration = Duration::from_secs(10);
/// Older versions have the WAL-reset race (fixed in SQLite 3.51.3).
const SQLITE_MIN: [u32; 3] = [3, 51, 3];

/// Options of every connection: SQLite stores none of them in the file.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        .pragma("trusted_schema", "OFF")
        .pragma("temp_store", "MEMORY")
        // It would log the SQL of slow statements, such as those of a migration, at WARN.
        .disable_statement_logging()
}

/// Options of a connection that reads.
pub(super) fn reading(path: &Path) -> SqliteConnectOptions {
    options(path).read_only(true)
}

/// Options of the connection that writes.
pub(super) fn writing(path: &Path) -> SqliteConnectOptions {
    options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .optimize_on_close(true, None)
        // Deleted values are overwritten: `forget` and retention promise it.
        .pragma("secure_delete", "ON")
        // Large enough that pages changed repeatedly by a burst are checkpointed once; fits `journal_size_limit`.
        .pragma("wal_autocheckpoint", "4000")
        // Keeps the changes of one page of events in memory until the commit.
        .pragma("cache_size", "-4096")
        .pragma("journal_size_limit", "16777216")
}

/// Opens a pool of `connections`.
pub(super) async fn connect(
    path: &Path,
    options: SqliteConnectOptions,
    connections: u32,
) -> Result<SqlitePool, StoreError> {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(60))
        // A write waits for those before it: on a slow disk, more than the two seconds at which sqlx warns.
        .acquire_slow_threshold(Duration::from_secs(30))
        // There is no server that could close the connection.
        .test_before_acquire(false)
        // After some errors (a full disk) SQLite rolls back automatically while sqlx still counts an open transaction and
        // cannot begin another one. Replace such a connection.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_with(options)
        .await
        .map_err(StoreError::at(path))
}

/// Opens the read connections and checks the file. SQLite opens it only at this first read.
pub(super) async fn connect_readers(path: &Path, options: SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    let pool = connect(path, options, READERS).await?;
    require_ours(&pool, path).await?;
    Ok(pool)
}

/// Refuses an SQLite library that is too old.
pub(super) async fn require_sqlite(pool: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let version: String =
        sqlx::query_scalar("SELECT sqlite_version()").fetch_one(pool).await.map_err(StoreError::at(path))?;
    let numbers: Vec<u32> = version.split('.').filter_map(|part| part.parse().ok()).collect();
    if numbers.as_slice() >= SQLITE_MIN.as_slice() { Ok(()) } else { Err(StoreError::SqliteTooOld(version)) }
}

/// Refuses the database of another program.
pub(super) async fn require_ours(pool: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let error = StoreError::at(path);
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(pool).await.map_err(error)?;
    if application == APPLICATION_ID {
        return Ok(());
    }
    // An empty file is one that we created just now, or one whose first process died before its first migration. A kill
    // between sqlx's own table and our first migration leaves only that table, without rows.
    let only_ours: bool = sqlx::query_scalar(
        "SELECT count(*) = 0 FROM sqlite_schema WHERE name NOT LIKE '%sqlx_migrations%' AND name NOT LIKE 'sqlite_%'",
    )
    .fetch_one(pool)
    .await
    .map_err(error)?;
    if application == 0 && only_ours {
        return Ok(());
    }
    Err(StoreError::NotOurs { path: path.to_owned(), what: "a database of another program".to_owned() })
}

/// Refuses a file system without shared memory: SQLite silently keeps the old journal mode there.
pub(super) async fn require_wal(pool: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await.map_err(StoreError::at(path))?;
    if mode == "wal" {
        return Ok(());
    }
    let source = io::Error::other("its file system has no shared memory, which SQLite's WAL needs (a network share?)");
    Err(StoreError::Place { path: path.to_owned(), source })
}
