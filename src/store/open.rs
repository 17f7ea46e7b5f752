//! Opening and closing the state.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sqlx::migrate::Migrator;
use sqlx::sqlite::SqlitePool;

use super::StoreError;
use super::connect::{
    READERS, connect, connect_readers, options, reading, require_ours, require_sqlite, require_wal, writing,
};
use super::files::{
    check_folder, check_header, create_if_missing, open_plain, require_plain, require_plain_beside, sibling,
    tighten_all,
};
use super::lock::{self, Lock};
use super::migrate::{MIGRATIONS, known_schema, migrate, schema};
use super::write::{COMPONENT, CREATE, Tx, Write};
use crate::domain::mark::MetadataKeys;
use crate::domain::{Timestamp, timestamp_text};
use crate::failpoint::{self, Phase};

/// How [`Store::open_beside`] opens a state that another process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and write requests, next to a running daemon.
    Beside,
    /// Read only; works for a copy in a read-only folder.
    Read,
}

/// What a state belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Origin of the Okta org.
    pub okta_url: String,
    /// Origin of the Auth0 tenant.
    pub auth0_url: String,
    /// Identifier of its Management API, which identifies the tenant whatever its custom domain.
    pub auth0_audience: String,
    /// Whether marks are written.
    pub enforce: bool,
    /// [`crate::domain::Policy::fingerprint`], and [`crate::domain::mark::MetadataKeys::fingerprint`] after it.
    pub policy: String,
    /// Keys of earlier configurations under which marks are found and rewritten.
    pub former_keys: Vec<String>,
}

/// What [`Store::open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The file is new.
    pub created: bool,
    /// The copy made before a migration.
    pub migrated_from: Option<PathBuf>,
    /// `enforce` was off during the last run and is now on.
    pub enforcement_switched_on: bool,
    /// The last full reconcile used another policy. Set at every start until a full reconcile begins.
    pub policy_changed: bool,
    /// Other users could read the file; they no longer can.
    pub tightened: bool,
    /// A group can write the folder.
    pub group_can_write: bool,
}

/// The state of one installation.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held while the store is open.
    lock: Mutex<Option<Lock>>,
}

/// Stores the binding. [`inspect`] has checked the org and the tenant, unless the state is not bound yet.
const BIND: &str = "
    INSERT INTO installation (id, okta_url, auth0_url, auth0_audience, enforce, policy, swept_policy, version,
        first_run_at)
    VALUES (1, ?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7)
    ON CONFLICT (id) DO UPDATE SET okta_url = excluded.okta_url, auth0_url = excluded.auth0_url,
        auth0_audience = excluded.auth0_audience, enforce = excluded.enforce, policy = excluded.policy,
        version = excluded.version";

/// What a state is bound to, and whether it is. A look at a single user needs no org id, but stores the user.
const BOUND: &str = "
    SELECT okta_url, auth0_audience, okta_org_id, okta_org_id IS NOT NULL OR EXISTS (SELECT 1 FROM users), policy,
        EXISTS (SELECT 1 FROM accounts WHERE denied)
    FROM installation";

/// The schema that records the key of each mark.
const MARK_KEYS_SCHEMA: i64 = 12;

/// How messages name the org that answers.
const ORG: &str = "the Okta org with id";

/// Ends the runs of dead processes: we hold the lock, so none of them is alive.
const END_DEAD_RUNS: &str = "
    UPDATE run_log SET finished_at = ?, ok = 0, error = 'the process died before it finished'
    WHERE finished_at IS NULL";

impl Store {
    /// Opens the state at `path` exclusively; creates it if it is missing.
    ///
    /// Locks the file, creates it with mode 0600 if it is missing, checks that it is ours, migrates an older schema after copying
    /// the file, and binds the state to the org and the tenant.
    ///
    /// # Errors
    /// When the state cannot be used; it is unchanged then.
    pub async fn open(path: &Path, binding: &Binding, now: Timestamp) -> Result<(Self, Opened), StoreError> {
        let (store, opened) = Self::open_with(path, binding, now, &MIGRATIONS).await?;
        store.note_dead_daemon().await?;
        store.seal_decisions().await?;
        Ok((store, opened))
    }

    pub(super) async fn open_with(
        path: &Path,
        binding: &Binding,
        now: Timestamp,
        migrations: &Migrator,
    ) -> Result<(Self, Opened), StoreError> {
        require_plain(path)?;
        let group_can_write = check_folder(path)?;
        let name = lock::take_name(path)?;
        failpoint::pass(COMPONENT, CREATE, Phase::Before);
        let created = create_if_missing(path).await?;
        failpoint::pass(COMPONENT, CREATE, Phase::After);
        let state = open_plain(path, true, false)?;
        let lock = lock::take_inode(path, state, name)?;
        check_header(path, &lock.state)?;
        require_plain_beside(path)?;
        // Checks come first and only read: opening a writer would already convert the file to WAL mode.
        inspect(path, binding, migrations).await?;
        let tightened = tighten_all(path, &lock.state)?;
        let writer = connect(path, writing(path), 1).await?;
        let opened = async {
            require_wal(&writer, path).await?;
            let migrated_from = migrate(&writer, path, migrations).await?;
            // Readers need the WAL, which the writer has created by now.
            Ok((migrated_from, connect(path, reading(path), READERS).await?))
        };
        let (migrated_from, readers) = match opened.await {
            Ok(opened) => opened,
            Err(error) => {
                // Before the lock's descriptor closes, which would release SQLite's locks.
                writer.close().await;
                return Err(error);
            }
        };
        let store = Self { path: path.to_owned(), writer, readers, lock: Mutex::new(Some(lock)) };
        let (enforcement_switched_on, policy_changed) = match store.take_over(binding, now).await {
            Ok(changes) => changes,
            Err(error) => {
                store.close().await;
                return Err(error);
            }
        };
        let opened =
            Opened { created, migrated_from, enforcement_switched_on, policy_changed, tightened, group_can_write };
        Ok((store, opened))
    }

    /// Binds the state to the configuration and ends the runs of dead processes. Returns whether enforcement was enabled
    /// and whether the policy changed.
    async fn take_over(&self, binding: &Binding, now: Timestamp) -> Result<(bool, bool), StoreError> {
        let mut tx = self.begin(Write::Open).await?;
        let before: Option<(bool, String)> =
            sqlx::query_as("SELECT enforce, swept_policy FROM installation").fetch_optional(&mut *tx).await?;
        bind(&mut tx, binding, now).await?;
        let enforcement_switched_on = before.as_ref().is_some_and(|(enforced, _)| !enforced && binding.enforce);
        if enforcement_switched_on {
            // In the same transaction: a crash in between would lose the skipped users.
            self.queue_unenforced(&mut tx, now).await?;
        }
        sqlx::query(END_DEAD_RUNS).bind(timestamp_text(now)).execute(&mut *tx).await?;
        self.commit(tx).await?;
        Ok((enforcement_switched_on, before.is_some_and(|(_, swept)| swept != binding.policy)))
    }

    /// Opens an existing state, to read it or to write requests next to a running daemon.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the file does not exist; [`StoreError::Older`] and [`StoreError::Newer`] when its schema
    /// is not this version's.
    pub async fn open_beside(path: &Path, access: Access) -> Result<Self, StoreError> {
        require_present(path)?;
        let readers = match connect_readers(path, reading(path)).await {
            Ok(readers) => readers,
            // SQLite cannot create a WAL index in a read-only folder; without a WAL it needs none.
            Err(error) if error.is_open_refused() && !sibling(path, "-wal").exists() => {
                connect_readers(path, reading(path).immutable(true)).await?
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

    /// Refuses an Okta org that the state does not belong to.
    ///
    /// # Errors
    /// [`StoreError::OtherTenant`] when it is bound to another org.
    pub async fn require_org(&self, org_id: &str) -> Result<(), StoreError> {
        match self.okta_org().await? {
            Some(bound) => require_bound(&self.path, ORG, &bound, org_id),
            None => Ok(()),
        }
    }

    /// Binds the state to the Okta org that has accepted our credential.
    ///
    /// # Errors
    /// [`StoreError::OtherTenant`] when it is bound to another org.
    pub async fn bind_org(&self, org_id: &str) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::BindOrg).await?;
        let bound: Option<String> =
            sqlx::query_scalar("SELECT okta_org_id FROM installation").fetch_one(&mut *tx).await?;
        if let Some(bound) = bound {
            return require_bound(&self.path, ORG, &bound, org_id);
        }
        sqlx::query("UPDATE installation SET okta_org_id = ?").bind(org_id).execute(&mut *tx).await?;
        self.commit(tx).await
    }

    /// The id of the Okta org that the state belongs to; `None` until it has accepted our credential.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn okta_org(&self) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar("SELECT okta_org_id FROM installation").fetch_optional(self.reader()).await?.flatten())
    }

    /// The policy of the process that opened the state last: [`Binding::policy`].
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn policy(&self) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar("SELECT policy FROM installation").fetch_optional(self.reader()).await?)
    }

    /// A read-only store over an existing pool.
    pub(super) fn over(path: &Path, readers: SqlitePool) -> Self {
        Self { path: path.to_owned(), writer: readers.clone(), readers, lock: Mutex::default() }
    }

    /// What happened to the file at the path, if it is no longer the one that is open: all that is written then is lost with
    /// the end of the process, or goes to a file of another name.
    pub fn displacement(&self) -> Option<&'static str> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let open = lock.as_ref()?.state.metadata().ok()?;
        match fs::symlink_metadata(&self.path) {
            Ok(named) if (named.dev(), named.ino()) == (open.dev(), open.ino()) => None,
            Ok(_) => Some("the file of the state was replaced while the daemon uses it"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("the file of the state was moved or deleted while the daemon uses it")
            }
            // Says nothing about the file.
            Err(_) => None,
        }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the connections, readers first, so that the writer can checkpoint the WAL. The store is unusable afterwards.
    ///
    /// Skipping this loses nothing; it leaves a WAL for the next process.
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

async fn bind(tx: &mut Tx, binding: &Binding, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(BIND)
        .bind(&binding.okta_url)
        .bind(&binding.auth0_url)
        .bind(&binding.auth0_audience)
        .bind(binding.enforce)
        .bind(&binding.policy)
        .bind(env!("CARGO_PKG_VERSION"))
        .bind(timestamp_text(now))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Refuses a state that is missing, unreadable or not an SQLite database.
pub(super) fn require_present(path: &Path) -> Result<(), StoreError> {
    if let Err(error) = fs::symlink_metadata(path)
        && error.kind() == io::ErrorKind::NotFound
    {
        return Err(StoreError::Missing { path: path.to_owned() });
    }
    require_plain(path)?;
    require_plain_beside(path)?;
    open_plain(path, false, false).and_then(|file| check_header(path, &file)).map_err(|error| match error {
        StoreError::Place { path, source } => StoreError::unreadable(&path, source),
        other => other,
    })
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

/// Refuses a new metadata key if the configuration no longer names the one of the last run: an Action that reads only
/// the new key would admit the users whose marks are under the old one.
fn require_known_key(last_policy: &str, binding: &Binding) -> Result<(), StoreError> {
    let (last, now) = (MetadataKeys::current_of(last_policy), MetadataKeys::current_of(&binding.policy));
    match (last, now) {
        (Some(last), Some(now)) if last != now && !binding.former_keys.iter().any(|key| key == last) => {
            Err(StoreError::KeyChanged { last: last.to_owned(), now: now.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Refuses a configuration that names neither as its key nor as a former one a key that still holds marks: new denials would not
/// be written under it, and the Action that reads it is perhaps the only one that is bound.
async fn require_known_marks(pool: &SqlitePool, path: &Path, schema: i64, binding: &Binding) -> Result<(), StoreError> {
    let Some(now) = MetadataKeys::current_of(&binding.policy).filter(|_| schema >= MARK_KEYS_SCHEMA) else {
        return Ok(());
    };
    let keys: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT mark_key FROM accounts WHERE denied = 1 AND mark_key IS NOT NULL")
            .fetch_all(pool)
            .await
            .map_err(StoreError::at(path))?;
    match keys.into_iter().find(|key| key != now && !binding.former_keys.contains(key)) {
        Some(last) => Err(StoreError::KeyChanged { last, now: now.to_owned() }),
        None => Ok(()),
    }
}

/// Refuses a file that is not ours, has a newer schema, or belongs to another org or tenant. Changes nothing.
async fn inspect(path: &Path, binding: &Binding, migrations: &Migrator) -> Result<(), StoreError> {
    // A process that died while creating the file left a journal; only a write connection can roll it back.
    let has_journal = sibling(path, "-journal").exists();
    let pool = connect(path, if has_journal { options(path) } else { reading(path) }, 1).await?;
    let result = inspect_with(&pool, path, binding, migrations).await;
    pool.close().await;
    result.map(|_| ())
}

/// As [`inspect`]. Returns the org that the state is bound to.
pub(super) async fn inspect_with(
    pool: &SqlitePool,
    path: &Path,
    binding: &Binding,
    migrations: &Migrator,
) -> Result<Option<String>, StoreError> {
    require_sqlite(pool, path).await?;
    require_ours(pool, path).await?;
    let (found, known) = (schema(pool, path).await?, known_schema(migrations));
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    if found == 0 {
        return Ok(None);
    }
    let bound: Option<(String, String, Option<String>, bool, String, bool)> =
        sqlx::query_as(BOUND).fetch_optional(pool).await.map_err(StoreError::at(path))?;
    // Until Okta has accepted our credential, no user was looked at: a mistyped address can be corrected.
    let Some((okta_url, audience, org, true, policy, denies)) = bound else { return Ok(None) };
    require_bound(path, "the Okta org", &okta_url, &binding.okta_url)?;
    require_bound(path, "the Auth0 tenant", &audience, &binding.auth0_audience)?;
    if denies {
        require_known_key(&policy, binding)?;
        require_known_marks(pool, path, found, binding).await?;
    }
    Ok(org)
}
