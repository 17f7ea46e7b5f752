//! Opening: whose file it is, who else has it, which schema it has.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Row};

use super::StoreError;
use super::backup::copy_into;
use super::write::{COMPONENT, CREATE, MIGRATE, Write};
use crate::domain::{Timestamp, timestamp_text};
use crate::failpoint::{self, Phase};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// `PRAGMA application_id` of our files: "oa0s".
const APPLICATION_ID: i64 = 0x6f61_3073;
const READERS: u32 = 3;
const BUSY: Duration = Duration::from_secs(10);
/// How often a lock that somebody only asks about is tried for.
const LOCK_TRIES: u32 = 1000;
/// Older ones have the WAL-reset race (fixed in SQLite 3.51.3).
const SQLITE_MIN: [u32; 3] = [3, 51, 3];

/// How a state is opened that somebody else may be working with: see [`Store::open_beside`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Beside a process that works, to write requests into it.
    Beside,
    /// To read only: also a copy in a folder that cannot be written.
    Read,
}

/// What a state belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Origin of the Okta org.
    pub okta_url: String,
    /// Origin of the Auth0 tenant.
    pub auth0_url: String,
    /// Identifier of its Management API: the tenant's name, whatever domain it is reached by.
    pub auth0_audience: String,
    /// Are marks written?
    pub enforce: bool,
    /// [`crate::domain::Policy::fingerprint`].
    pub policy: String,
}

/// What [`Store::open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The file was made just now.
    pub created: bool,
    /// The copy made before a migration.
    pub migrated_from: Option<PathBuf>,
    /// `enforce` was off at the last run and is on now.
    pub enforcement_switched_on: bool,
    /// The policy is not the one that everybody was compared by. Said at every start until a sweep of all has begun.
    pub policy_changed: bool,
    /// The file could be read by others; it cannot any more.
    pub tightened: bool,
}

/// The state of one installation.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held for as long as the store lives; the system lets go of it when the process dies, however it dies.
    lock: Mutex<Option<File>>,
}

impl Store {
    /// Opens the state at `path` for the one process that works, making it if there is none.
    ///
    /// The file is locked (`path`.lock), created with mode 0600, checked to be ours, copied and migrated if its schema is
    /// older, and bound to the org and the tenant.
    ///
    /// # Errors
    /// Every [`StoreError`] that says why the state cannot be used; nothing was changed then.
    pub async fn open(path: &Path, binding: &Binding, now: Timestamp) -> Result<(Self, Opened), StoreError> {
        Self::open_with(path, binding, now, &MIGRATIONS).await
    }

    pub(super) async fn open_with(
        path: &Path,
        binding: &Binding,
        now: Timestamp,
        migrations: &Migrator,
    ) -> Result<(Self, Opened), StoreError> {
        require_regular(path)?;
        let lock = take_lock(path)?;
        failpoint::pass(COMPONENT, CREATE, Phase::Before);
        let created = create_if_missing(path)?;
        failpoint::pass(COMPONENT, CREATE, Phase::After);
        check_header(path)?;
        // Everything that may refuse the file looks at it without writing: opening a writer makes it a WAL database.
        inspect(path, binding, migrations).await?;
        let tightened = tighten(path)?;
        for suffix in ["-wal", "-shm", ".lock"] {
            let beside = sibling(path, suffix);
            if beside.exists() {
                tighten(&beside)?;
            }
        }
        let writer = connect(path, writing(path), 1).await?;
        let store_error = StoreError::at(path);
        require_wal(&writer, path).await?;
        let migrated_from = migrate(&writer, path, migrations).await?;
        // Readers come after the writer, which has made the WAL that they need.
        let readers = connect(path, reading(path), READERS).await?;
        let store = Self { path: path.to_owned(), writer, readers, lock: Mutex::new(Some(lock)) };

        let mut tx = store.begin(Write::Open).await?;
        let before: Option<(bool, String)> = sqlx::query_as("SELECT enforce, swept_policy FROM installation")
            .fetch_optional(&mut *tx)
            .await
            .map_err(store_error)?;
        sqlx::query(
            "INSERT INTO installation (id, okta_url, auth0_url, auth0_audience, enforce, policy, swept_policy, version,
                 first_run_at)
             VALUES (1, ?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7)
             ON CONFLICT (id) DO UPDATE SET auth0_url = excluded.auth0_url, enforce = excluded.enforce,
                 policy = excluded.policy, version = excluded.version",
        )
        .bind(&binding.okta_url)
        .bind(&binding.auth0_url)
        .bind(&binding.auth0_audience)
        .bind(binding.enforce)
        .bind(&binding.policy)
        .bind(env!("CARGO_PKG_VERSION"))
        .bind(timestamp_text(now))
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        let enforcement_switched_on = before.as_ref().is_some_and(|(enforced, _)| !enforced && binding.enforce);
        if enforcement_switched_on {
            // In the transaction that forgets that it was off: a crash between the two would leave them out for ever.
            store.look_at_unenforced(&mut tx, now).await?;
        }
        // We have the lock, so whoever began these has died.
        sqlx::query(
            "UPDATE run_log SET finished_at = ?, ok = 0, error = 'the process died before it came to an end'
             WHERE finished_at IS NULL",
        )
        .bind(timestamp_text(now))
        .execute(&mut *tx)
        .await
        .map_err(store_error)?;
        store.commit(tx).await?;

        let opened = Opened {
            created,
            migrated_from,
            enforcement_switched_on,
            policy_changed: before.as_ref().is_some_and(|(_, swept)| *swept != binding.policy),
            tightened,
        };
        Ok((store, opened))
    }

    /// Opens a state that exists, to read it or to write requests beside the process that works.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none; [`StoreError::Older`] and [`StoreError::Newer`] when its schema is not
    /// this version's.
    pub async fn open_beside(path: &Path, access: Access) -> Result<Self, StoreError> {
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing { path: path.to_owned() });
            }
            Err(source) => return Err(unseen(path, source)),
            Ok(metadata) if metadata.len() == 0 => return Err(StoreError::Missing { path: path.to_owned() }),
            Ok(_) => {
                require_regular(path)?;
                check_header(path).map_err(|error| match error {
                    StoreError::Place { path, source } => unseen(&path, source),
                    other => other,
                })?;
            }
        }
        let readers = match connect_to_ours(path, reading(path)).await {
            Ok(readers) => readers,
            // A copy in a read-only folder has no WAL index and cannot get one. Without a WAL there is nothing to index.
            Err(error) if error.is_refused_by_the_system() && !sibling(path, "-wal").exists() => {
                connect_to_ours(path, reading(path).immutable(true)).await?
            }
            Err(error) => return Err(error),
        };
        let (found, known) = (schema(&readers, path).await?, known_schema(&MIGRATIONS));
        match found.cmp(&known) {
            std::cmp::Ordering::Less => return Err(StoreError::Older { path: path.to_owned(), found, known }),
            std::cmp::Ordering::Greater => return Err(StoreError::Newer { path: path.to_owned(), found, known }),
            std::cmp::Ordering::Equal => {}
        }
        let writer = match access {
            Access::Read => return Ok(Self::over(path, readers)),
            Access::Beside => connect(path, writing(path), 1).await?,
        };
        Ok(Self { path: path.to_owned(), writer, readers, lock: Mutex::default() })
    }

    /// Refuses to go on when the state is bound to another org than the one that answered.
    ///
    /// # Errors
    /// [`StoreError::OtherTenant`].
    pub async fn bind_org(&self, org_id: &str) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::BindOrg).await?;
        let bound: Option<String> =
            sqlx::query_scalar("SELECT okta_org_id FROM installation").fetch_one(&mut *tx).await?;
        if let Some(bound) = bound {
            return require_bound(&self.path, "the Okta org with id", &bound, org_id);
        }
        sqlx::query("UPDATE installation SET okta_org_id = ?").bind(org_id).execute(&mut *tx).await?;
        self.commit(tx).await
    }

    /// A state that is only read, over connections that exist.
    pub(super) fn over(path: &Path, readers: SqlitePool) -> Self {
        Self { path: path.to_owned(), writer: readers.clone(), readers, lock: Mutex::default() }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets go of the file: readers first, so that the writer can fold the WAL in. Nothing can be asked afterwards.
    ///
    /// Not closing loses nothing; it leaves a WAL for the next life to read.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn reader(&self) -> &SqlitePool {
        &self.readers
    }

    pub(super) fn writer(&self) -> &SqlitePool {
        &self.writer
    }
}

/// Is a process working with the state at `path` now? Asking changes nothing.
///
/// # Errors
/// When the lock file cannot be opened.
pub fn is_in_use(path: &Path) -> Result<bool, StoreError> {
    match File::open(sibling(path, ".lock")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(unseen(path, source)),
        // Shared: two who ask at once do not take each other for the one who works.
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(source)) => Err(unseen(path, source)),
        },
    }
}

/// Why somebody who only looks cannot.
fn unseen(path: &Path, source: io::Error) -> StoreError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => StoreError::Forbidden { path, source },
        _ => StoreError::Place { path, source },
    }
}

fn require_bound(path: &Path, what: &'static str, bound: &str, configured: &str) -> Result<(), StoreError> {
    if bound == configured {
        return Ok(());
    }
    Err(StoreError::OtherTenant {
        path: path.to_owned(),
        what,
        bound: bound.to_owned(),
        configured: configured.to_owned(),
    })
}

/// Refuses a file that is not ours, not this version's to open, or of another org or tenant. Changes nothing.
async fn inspect(path: &Path, binding: &Binding, migrations: &Migrator) -> Result<(), StoreError> {
    // A journal is left by a death in the first moments of the file; only a writing connection can undo that one.
    let hot = sibling(path, "-journal").exists();
    let pool = connect(path, if hot { options(path) } else { reading(path) }, 1).await?;
    let result = inspect_with(&pool, path, binding, migrations).await;
    pool.close().await;
    result
}

async fn inspect_with(
    pool: &SqlitePool,
    path: &Path,
    binding: &Binding,
    migrations: &Migrator,
) -> Result<(), StoreError> {
    require_sqlite(pool, path).await?;
    require_ours(pool, path).await?;
    let (found, known) = (schema(pool, path).await?, known_schema(migrations));
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    if found == 0 {
        return Ok(());
    }
    let bound: Option<(String, String)> = sqlx::query_as("SELECT okta_url, auth0_audience FROM installation")
        .fetch_optional(pool)
        .await
        .map_err(StoreError::at(path))?;
    if let Some((okta_url, audience)) = bound {
        require_bound(path, "the Okta org", &okta_url, &binding.okta_url)?;
        require_bound(path, "the Auth0 tenant", &audience, &binding.auth0_audience)?;
    }
    Ok(())
}

pub(super) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The lock is a file of its own: SQLite's locks come and go with transactions, and a lock on the database file itself
/// would be lost whenever SQLite closes any descriptor of it.
fn take_lock(path: &Path) -> Result<File, StoreError> {
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
    for _ in 0..LOCK_TRIES {
        // Only somebody who asks (`is_in_use`) shares it, for a moment; who works does not.
        if !matches!(taken, Err(fs::TryLockError::WouldBlock)) || file.try_lock_shared().is_err() {
            break;
        }
        file.unlock().map_err(place)?;
        std::thread::yield_now();
        taken = file.try_lock();
    }
    match taken {
        Ok(()) => {
            // For whoever finds it taken. Not being able to write a number is no reason not to work.
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

fn create_if_missing(path: &Path) -> Result<bool, StoreError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(StoreError::Place { path: path.to_owned(), source }),
    }
}

fn require_regular(path: &Path) -> Result<(), StoreError> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(StoreError::NotOurs { path: path.to_owned(), what: "not a regular file".to_owned() })
        }
        // What else can be wrong with it is said by whoever opens it.
        _ => Ok(()),
    }
}

/// The file holds names and addresses: nobody else may read it. SQLite gives its WAL the same mode.
fn tighten(path: &Path) -> Result<bool, StoreError> {
    let place = |source| StoreError::Place { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(place)?;
    if metadata.permissions().mode() & 0o077 == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(place)?;
    Ok(true)
}

fn check_header(path: &Path) -> Result<(), StoreError> {
    let mut header = Vec::with_capacity(16);
    File::open(path)
        .and_then(|file| file.take(16).read_to_end(&mut header))
        .map_err(|source| StoreError::Place { path: path.to_owned(), source })?;
    if header.is_empty() || header == b"SQLite format 3\0" {
        return Ok(());
    }
    Err(StoreError::NotOurs { path: path.to_owned(), what: "not an SQLite database".to_owned() })
}

/// What every connection is told: SQLite keeps none of it in the file.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        .pragma("trusted_schema", "OFF")
        .pragma("temp_store", "MEMORY")
}

pub(super) fn reading(path: &Path) -> SqliteConnectOptions {
    options(path).read_only(true)
}

fn writing(path: &Path) -> SqliteConnectOptions {
    options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .optimize_on_close(true, None)
        // What is deleted is overwritten: `forget` and retention mean it.
        .pragma("secure_delete", "ON")
        // So many pages that the WAL just fits into that: what a burst changes again and again is copied into the file once.
        .pragma("wal_autocheckpoint", "4000")
        // What a page of the log changes stays in memory until it is committed.
        .pragma("cache_size", "-4096")
        .pragma("journal_size_limit", "16777216")
}

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
        // There is no server that could have hung up.
        .test_before_acquire(false)
        // After some errors (a full disk) SQLite ends the transaction by itself, and sqlx goes on counting one: nothing
        // could ever be begun on that connection again. It is closed, and another one opened.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .connect_with(options)
        .await
        .map_err(StoreError::at(path))
}

async fn require_sqlite(pool: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let version: String =
        sqlx::query_scalar("SELECT sqlite_version()").fetch_one(pool).await.map_err(StoreError::at(path))?;
    let numbers: Vec<u32> = version.split('.').filter_map(|part| part.parse().ok()).collect();
    if numbers.as_slice() >= SQLITE_MIN.as_slice() { Ok(()) } else { Err(StoreError::SqliteTooOld(version)) }
}

async fn require_ours(pool: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let error = StoreError::at(path);
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(pool).await.map_err(error)?;
    if application == APPLICATION_ID {
        return Ok(());
    }
    // An empty file is one that we made just now, or died over before its first migration. A kill between sqlx's own
    // table and our first migration leaves just that table, without rows.
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

/// A file system without shared memory keeps the old journal mode, and says nothing.
pub(super) async fn require_wal(pool: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await.map_err(StoreError::at(path))?;
    if mode == "wal" {
        return Ok(());
    }
    let source = io::Error::other("its file system has no shared memory, which SQLite's WAL needs (a network share?)");
    Err(StoreError::Place { path: path.to_owned(), source })
}

/// Connections to a state of ours that was read from at least once: SQLite opens a file only then.
async fn connect_to_ours(path: &Path, options: SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    let pool = connect(path, options, READERS).await?;
    require_ours(&pool, path).await?;
    Ok(pool)
}

fn known_schema(migrations: &Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap_or(0)
}

async fn schema(pool: &SqlitePool, path: &Path) -> Result<i64, StoreError> {
    let error = StoreError::at(path);
    let exists: bool =
        sqlx::query_scalar("SELECT count(*) > 0 FROM sqlite_schema WHERE name = '_sqlx_migrations' AND type = 'table'")
            .fetch_one(pool)
            .await
            .map_err(error)?;
    if !exists {
        return Ok(0);
    }
    sqlx::query("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
        .fetch_one(pool)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(error)
}

/// Brings the schema up to date. A state that has data is copied first, beside itself.
async fn migrate(pool: &SqlitePool, path: &Path, migrations: &Migrator) -> Result<Option<PathBuf>, StoreError> {
    let (found, known) = (schema(pool, path).await?, known_schema(migrations));
    let mut copy = None;
    if found > 0 && found < known {
        let target = sibling(path, &format!(".schema-{found}.bak"));
        // A copy of the same schema that an earlier, failed attempt left is replaced: it holds less.
        let _ = fs::remove_file(&target);
        copy_into(pool, path, &target).await?;
        copy = Some(target);
    }
    failpoint::pass(COMPONENT, MIGRATE, Phase::Before);
    migrations.run(pool).await.map_err(|source| StoreError::Migration {
        path: path.to_owned(),
        copy: copy.as_ref().map_or_else(|| "(none: it was empty)".to_owned(), |copy| copy.display().to_string()),
        source: Box::new(source),
    })?;
    failpoint::pass(COMPONENT, MIGRATE, Phase::After);
    Ok(copy)
}
