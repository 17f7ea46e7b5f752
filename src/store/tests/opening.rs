//! Opening a state: refusals and repairs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sqlx::Connection;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;

use super::super::migrate::{MIGRATIONS, known_schema};
use super::*;

#[tokio::test]
async fn state_has_one_process_and_one_tenant_pair() {
    let (dir, store) = store().await;
    let path = dir.path().join("state.db");
    assert!(matches!(Store::open(&path, &binding(), noon()).await.unwrap_err(), StoreError::Busy { .. }));
    assert!(is_in_use(&path).unwrap());
    let beside = Store::open_beside(&path, Access::Beside).await.unwrap();
    beside.close().await;
    store.bind_org("00o1").await.unwrap();
    assert!(store.bind_org("00o2").await.unwrap_err().to_string().contains("00o1"));
    store.close().await;
    // A child that another test forks holds a copy of the lock until its exec.
    while is_in_use(&path).unwrap() {
        std::thread::yield_now();
    }
    let other = Binding { okta_url: "https://other.okta.com".to_owned(), ..binding() };
    assert!(matches!(Store::open(&path, &other, noon()).await.unwrap_err(), StoreError::OtherTenant { .. }));
    let (store, opened) = Store::open(&path, &binding(), noon()).await.unwrap();
    assert!(!opened.created && opened.migrated_from.is_none());
    store.close().await;
}

/// The lock on the state itself remains.
#[tokio::test]
async fn removed_lock_file_leaves_state_in_use() {
    let (dir, store) = store().await;
    let path = dir.path().join("state.db");
    fs::remove_file(beside(&path, ".lock")).unwrap();
    assert!(is_in_use(&path).unwrap(), "removed");
    assert!(matches!(refused(&path).await, StoreError::Busy { .. }));
    assert!(is_in_use(&path).unwrap(), "replaced by a process that was refused");
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    store.close().await;
    while is_in_use(&path).unwrap() {
        std::thread::yield_now();
    }
}

/// A mistyped address must not bind a state that has done nothing yet.
#[tokio::test]
async fn state_is_bound_only_once_org_accepts_us() {
    let (dir, store) = store().await;
    let path = dir.path().join("state.db");
    store.require_org("00o1").await.unwrap();
    store.close().await;
    let right = Binding {
        okta_url: "https://right.okta.com".to_owned(),
        auth0_audience: "https://right.eu.auth0.com/api/v2/".to_owned(),
        ..binding()
    };
    let (store, _) = Store::open(&path, &right, noon()).await.unwrap();
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    store.close().await;
    assert!(matches!(refused(&path).await, StoreError::OtherTenant { .. }), "it knows a user of the org");
    let (store, _) = Store::open(&path, &right, noon()).await.unwrap();
    store.bind_org("00o2").await.unwrap();
    assert!(matches!(store.require_org("00o1").await.unwrap_err(), StoreError::OtherTenant { .. }));
    store.close().await;
    let error = refused(&path).await;
    assert!(matches!(error, StoreError::OtherTenant { .. }), "{error}");
    assert!(error.to_string().contains("then move"), "{error}");
    Store::open(&path, &right, noon()).await.unwrap().0.close().await;
}

#[tokio::test]
async fn check_refuses_what_open_refuses() {
    let (_dir, path) = closed().await;
    let found = Store::check(&path, &binding()).await.unwrap();
    assert_eq!((found.exists, found.migrates, found.group_can_write), (true, None, false));
    let (free, dir) = (beside(&path, ".free"), path.parent().unwrap().to_owned());
    assert!(!Store::check(&free, &binding()).await.unwrap().exists);
    let check = async |path: &Path| Store::check(path, &binding()).await.unwrap_err();
    assert!(matches!(check(&dir.join("none/state.db")).await, StoreError::Place { .. }));
    fs::hard_link(&path, beside(&path, ".link")).unwrap();
    assert!(check(&path).await.to_string().contains("hard links"));
    fs::remove_file(beside(&path, ".link")).unwrap();
    fs::write(&free, "not a database at all").unwrap();
    assert!(matches!(check(&free).await, StoreError::NotOurs { .. }));
    fs::write(&free, "").unwrap();
    assert!(check(&free).await.to_string().contains("it is empty"));
    fs::remove_file(&free).unwrap();
    fs::write(beside(&free, "-wal"), "x").unwrap();
    assert!(check(&free).await.to_string().contains("write-ahead log"));
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    assert!(check(&path).await.to_string().contains("every local user"));
    fs::set_permissions(&dir, Permissions::from_mode(0o770)).unwrap();
    assert!(Store::check(&path, &binding()).await.unwrap().group_can_write);
}

#[tokio::test]
async fn check_refuses_unwritable_folder() {
    if !runs_unprivileged("check_refuses_unwritable_folder") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    let error = Store::check(&dir.path().join("state.db"), &binding()).await.unwrap_err();
    assert!(error.to_string().contains("Permission denied") && error.is_configuration(), "{error}");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
}

const UNPRIVILEGED: &str = "OKTA_AUTH0_SYNC_TEST_UNPRIVILEGED";

/// Root ignores permissions. As root, runs the named test again in a process of an ordinary user and returns false.
fn runs_unprivileged(test: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return true;
    }
    assert!(std::env::var_os(UNPRIVILEGED).is_none(), "still root");
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    let program = dir.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = std::process::Command::new(&program);
    command.args([&format!("store::tests::opening::{test}"), "--exact"]).env(UNPRIVILEGED, "1");
    command.env("TMPDIR", dir.path()).current_dir(dir.path()).gid(65_534).uid(65_534);
    let done = loop {
        match command.output() {
            // A child that another test forks holds the copy open for writing until its exec.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            done => break done.unwrap(),
        }
    };
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    false
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// A closed state with some data.
async fn closed() -> (tempfile::TempDir, PathBuf) {
    let (dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    let path = store.path().to_owned();
    store.close().await;
    (dir, path)
}

async fn refused(path: &Path) -> StoreError {
    Store::open(path, &binding(), noon()).await.unwrap_err()
}

#[tokio::test]
async fn files_are_readable_by_owner_only() {
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    let path = store.path().to_owned();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&beside(&path, suffix)), 0o600, "{suffix}");
    }
    store.close().await;
    for suffix in ["", ".lock"] {
        fs::set_permissions(beside(&path, suffix), Permissions::from_mode(0o644)).unwrap();
    }
    let (store, opened) = Store::open(&path, &binding(), noon()).await.unwrap();
    assert!(opened.tightened);
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&beside(&path, suffix)), 0o600, "{suffix}");
    }
    store.close().await;
    let (_store, opened) = Store::open(&path, &binding(), noon()).await.unwrap();
    assert!(!opened.tightened, "the permissions were already right");
}

/// systemd restarts after a full disk, but not after a configuration error.
#[test]
fn full_disk_is_not_a_configuration_error() {
    let path = std::path::PathBuf::from("state.db");
    for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded] {
        let error = StoreError::Place { path: path.clone(), source: kind.into() };
        assert!(!error.is_configuration() && error.to_string().ends_with("make room"), "{error}");
    }
}

#[tokio::test]
async fn missing_folder_is_named_in_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = refused(&dir.path().join("none").join("state.db")).await;
    assert!(matches!(error, StoreError::Place { .. }) && error.is_configuration(), "{error}");
    let error = refused(dir.path()).await;
    assert!(matches!(error, StoreError::NotOurs { .. }) && error.is_configuration(), "{error}");
    let error = Store::open_beside(dir.path(), Access::Read).await.unwrap_err();
    assert!(matches!(error, StoreError::NotOurs { .. }), "{error}");
    assert!(!beside(dir.path(), ".lock").exists(), "no lock file was left");
    let error = Store::open_beside(&dir.path().join("state.db"), Access::Read).await.unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(!is_in_use(&dir.path().join("state.db")).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the check creates no files");
}

#[tokio::test]
async fn foreign_file_is_refused_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    fs::write(&text, "not a database, and longer than sixteen bytes").unwrap();
    let foreign = dir.path().join("foreign.db");
    let other = SqliteConnectOptions::new().filename(&foreign).create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&other).await.unwrap();
    sqlx::query("CREATE TABLE installation (id)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    // And a database that another program has just created.
    let begun = dir.path().join("begun.db");
    let other = SqliteConnectOptions::new().filename(&begun).create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&other).await.unwrap();
    sqlx::query("PRAGMA application_id = 7").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    for path in [&text, &foreign, &begun] {
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        let before = fs::read(path).unwrap();
        for error in [
            refused(path).await,
            Store::open_beside(path, Access::Beside).await.unwrap_err(),
            Store::open_beside(path, Access::Read).await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::NotOurs { .. }), "{error}");
        }
        assert_eq!(fs::read(path).unwrap(), before, "{}", path.display());
        assert_eq!(mode(path), 0o644, "{}", path.display());
        assert!(!beside(path, "-wal").exists());
    }
}

#[tokio::test]
async fn truncated_file_is_reported_as_damaged() {
    let (_dir, path) = closed().await;
    let whole = fs::read(&path).unwrap();
    for length in [whole.len() - 4096, whole.len() / 2, 4096, 1000, 17] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = refused(&path).await.to_string();
        assert!(error.contains("damaged") || error.contains("not an SQLite database"), "{length}: {error}");
        assert_eq!(fs::read(&path).unwrap(), whole[..length], "{length}");
    }
    fs::write(&path, &whole[..10]).unwrap();
    assert!(matches!(refused(&path).await, StoreError::NotOurs { .. }));
    fs::write(&path, &whole).unwrap();
    let (store, _) = Store::open(&path, &binding(), noon()).await.unwrap();
    assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
}

/// SQLite rolls back on its own when the disk is full or fails.
#[tokio::test]
async fn writer_recovers_after_sqlite_rollback() {
    let (_dir, store) = store().await;
    for write in [Write::RecordPage, Write::FinishLook] {
        let mut tx = store.begin(write).await.unwrap();
        sqlx::query("ROLLBACK").execute(&mut *tx).await.unwrap();
        store.commit(tx).await.unwrap_err();
        let mut tx = store.begin(write).await.unwrap();
        sqlx::query("ROLLBACK").execute(&mut *tx).await.unwrap();
        drop(tx);
    }
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn open_recovers_from_crash_during_creation() {
    for statements in [
        &["PRAGMA journal_mode = WAL"][..],
        &[
            "PRAGMA journal_mode = WAL",
            "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, execution_time BIGINT NOT NULL)",
        ],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        fs::write(&path, "").unwrap();
        let options = SqliteConnectOptions::new().filename(&path);
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        for statement in statements {
            sqlx::query(*statement).execute(&mut connection).await.unwrap();
        }
        // As after a kill: with a WAL that was not checkpointed.
        let copy = dir.path().join("copy.db");
        fs::copy(&path, &copy).unwrap();
        if beside(&path, "-wal").exists() {
            fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
        }
        if statements.len() < 2 {
            let error = Store::open_beside(&copy, Access::Read).await.unwrap_err();
            assert!(matches!(error, StoreError::Older { found: 0, .. }), "{error}");
        }
        let (store, opened) = Store::open(&copy, &binding(), noon()).await.unwrap();
        assert!(!opened.created && opened.migrated_from.is_none());
        assert!(store.status().await.unwrap().is_some());
    }
}

#[tokio::test]
async fn newer_schema_is_refused_unchanged() {
    let (_dir, path) = closed().await;
    let mut connection =
        sqlx::SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9998, 'later', 1, x'00', 0)")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let before = fs::read(&path).unwrap();
    for error in [
        refused(&path).await,
        Store::open_beside(&path, Access::Beside).await.unwrap_err(),
        Store::check(&path, &binding()).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Newer { found: 9998, .. }), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// The migrations of this version plus one of a later version.
async fn later(next: &str) -> (tempfile::TempDir, Migrator) {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    fs::write(dir.path().join("9999_later.sql"), next).unwrap();
    let migrator = Migrator::new(dir.path()).await.unwrap();
    (dir, migrator)
}

#[tokio::test]
async fn older_schema_is_copied_then_migrated() {
    let (_dir, path) = closed().await;
    let (_migrations, migrator) = later("ALTER TABLE users ADD COLUMN nickname TEXT;").await;
    let before = fs::read(&path).unwrap();
    let other = Binding { auth0_audience: "https://other.eu.auth0.com/api/v2/".to_owned(), ..binding() };
    let error = Store::open_with(&path, &other, noon(), &migrator).await.unwrap_err();
    assert!(matches!(error, StoreError::OtherTenant { .. }) && error.is_configuration(), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);

    // A failed attempt leaves the state unchanged, and its copy does not block the next attempt.
    let (_broken, broken) = later("ALTER TABLE users ADD COLUMN nickname TEXT; SELECT * FROM nowhere;").await;
    let error = Store::open_with(&path, &binding(), noon(), &broken).await.unwrap_err();
    assert!(matches!(error, StoreError::Migration { .. }), "{error}");
    let (store, _) = Store::open(&path, &binding(), noon()).await.unwrap();
    store.close().await;

    let (store, opened) = Store::open_with(&path, &binding(), noon(), &migrator).await.unwrap();
    let copy = opened.migrated_from.unwrap();
    assert_eq!(
        (copy.clone(), mode(&copy)),
        (beside(&path, &format!(".schema-{}.bak", known_schema(&MIGRATIONS))), 0o600)
    );
    execute(&store, "UPDATE users SET nickname = 'ann'").await.unwrap();
    assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
    store.close().await;
    assert!(matches!(refused(&path).await, StoreError::Newer { found: 9999, .. }));
    // Rolling back: the copy is a complete state of the old schema.
    let (store, _) = Store::open(&copy, &binding(), noon()).await.unwrap();
    assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
}

/// Every row of every view.
async fn view_rows(store: &Store) -> Vec<String> {
    let mut all = Vec::new();
    for view in ["status", "pending", "failed", "held", "skipped", "denied", "recent_events", "decisions", "runs"] {
        // Columns that later migrations added have nothing to compare with.
        let columns: Vec<String> =
            sqlx::query_scalar("SELECT name FROM pragma_table_info(?) WHERE name NOT IN ('all_well')")
                .bind(view)
                .fetch_all(store.reader())
                .await
                .unwrap();
        let row = format!("SELECT '{view} ' || json_array({}) FROM {view} ORDER BY 1", columns.join(", "));
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(row)).fetch_all(store.reader()).await.unwrap();
        assert!(!rows.is_empty(), "{view}: nothing to compare");
        all.extend(rows);
    }
    all
}

#[tokio::test]
async fn schema_1_reads_the_same_after_migration() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let migrations = tempfile::tempdir().unwrap();
    fs::write(migrations.path().join("0001_state.sql"), include_bytes!("../../../migrations/0001_state.sql")).unwrap();
    let first = Migrator::new(migrations.path()).await.unwrap();
    let (store, _) = Store::open_with(&path, &binding(), noon(), &first).await.unwrap();
    sqlx::query(
        "INSERT INTO users (okta_user_id, login, login_key, email, due_seq, settled_seq, due_at, lane, cause, due_since,
             outcome, why, attempts, depends_on, last_error, since) VALUES
             ('z-due', 'z@example.com', 'z@example.com', NULL, 3, 1, 't1', 0, 'event', 't0', NULL, NULL, 0, NULL, NULL, 's'),
             ('y-held', 'Yves', 'yves', 'y@example.com', 1, 0, NULL, 1, 'event', 't0', 'held', 'guard', 0, NULL, NULL, 's'),
             ('x-failed', 'x@example.com', 'x@example.com', NULL, 2, 1, 't2', 2, 'sweep', 't1', 'failed', 'x', 12, NULL, 'e', 's'),
             ('w-skipped', 'w@example.com', 'w@example.com', NULL, 1, 1, NULL, 2, 'event', 't0', 'skipped', 'shared_address',
                 0, 'z-due', NULL, 's'),
             ('v-done', 'v', 'v', NULL, 7, 7, NULL, 2, 'event', NULL, 'applied', NULL, 0, NULL, NULL, 's');
         INSERT INTO events (seq, event_id, event_type, published, actor, received_at, state, why, raw) VALUES
             (1, 'e1', 't', 'p1', 'admin', 'r1', 'recorded', NULL, NULL),
             (4, 'e4', 't', 'p4', NULL, 'r4', 'recorded', NULL, NULL),
             (5, 'dc9fd3c0-598c-11ef-8478-2b7584bf8d5a', 'create', 'p5', NULL, 'r5', 'ignored', NULL, NULL),
             (6, 'e6', '', NULL, NULL, 'r6', 'quarantined', 'why', 'raw'),
             (7, 'e7', 't', 'p7', NULL, 'r7', 'recorded', NULL, NULL),
             (9, 'gone', 't', 'p9', NULL, 'r9', 'recorded', NULL, NULL);
         DELETE FROM events WHERE event_id = 'gone';
         INSERT INTO event_users (event_seq, okta_user_id, login, due_seq, settled_at, outcome) VALUES
             (1, 'z-due', 'z@example.com', 1, 's1', 'applied'), (4, 'z-due', 'z@example.com', 3, NULL, NULL),
             (4, 'y-held', 'Yves', 1, NULL, NULL), (5, 'only-created', 'new@example.com', 0, 's5', 'ignored'),
             (7, 'x-failed', 'x@example.com', 2, NULL, NULL);
         INSERT INTO addresses VALUES ('z-due', 'Z@example.com', 'z@example.com', 't0'), ('z-due', 'a@b', 'a@b', 't1'),
             ('x-failed', 'x@example.com', 'x@example.com', 't0'), ('v-done', 'v@example.com', 'v@example.com', 't0');
         INSERT INTO accounts (auth0_user_id, okta_user_id, email, denied, denied_at, event_id, lag_ms, changed_at)
             VALUES ('auth0|v', 'v-done', 'v@example.com', 1, 'd', 'e1', 1500, 'c');
         INSERT INTO decision_log (at, cause, outcome, version, policy, digest, chain)
             VALUES ('d', 'event', 'applied', '0', 'p', zeroblob(32), zeroblob(32));
         UPDATE installation SET seq_floor = 5",
    )
    .execute(store.writer())
    .await
    .unwrap();
    store.begin_run(RunKind::Run, noon()).await.unwrap();
    store.close().await;
    let (store, _) = Store::open_with(&path, &binding(), noon(), &first).await.unwrap();
    let before = view_rows(&store).await;
    let (events, event_users, users, addresses, accounts, decisions) = store.counts(store.reader()).await.unwrap();
    store.close().await;

    let (store, opened) = Store::open(&path, &binding(), noon()).await.unwrap();
    assert_eq!(opened.migrated_from, Some(beside(&path, ".schema-1.bak")));
    assert_eq!(view_rows(&store).await, before);
    // Users that only ignored events name are now in the table.
    let expected = (events, event_users, users + 1, addresses, accounts, decisions);
    assert_eq!(store.counts(store.reader()).await.unwrap(), expected);
    let broken: Option<(String, i64)> = sqlx::query_as("SELECT \"table\", rowid FROM pragma_foreign_key_check")
        .fetch_optional(store.reader())
        .await
        .unwrap();
    assert_eq!(broken, None);
    for (text, found) in [
        ("Z@EXAMPLE.COM", "z-due"),
        ("A@b", "z-due"),
        ("yves", "y-held"),
        ("W@example.com", "w-skipped"),
        ("V", "v-done"),
    ] {
        assert_eq!(user_row(&store, text).await.okta_user_id, found, "{text}");
    }
    assert_eq!(store.addresses_of(&id("z-due")).await.unwrap(), ["Z@example.com", "a@b"]);
    let open: Vec<String> =
        store.events(EventSelection::Pending, 10).await.unwrap().into_iter().map(|row| row.event_id).collect();
    assert_eq!(open, ["e7", "e4", "e4"]);

    // A page continues after the highest number ever used and recognizes known events.
    let known = Event { id: "dc9fd3c0-598c-11ef-8478-2b7584bf8d5a".to_owned(), ..event(5, "only-created", "create") };
    let page = [known, event(10, "only-created", "activate"), event(11, "z-due", "deactivate")];
    assert_eq!(store.record_page(super::page(0, &page), noon()).await.unwrap().new_events, 2);
    let seqs: Vec<i64> =
        sqlx::query_scalar("SELECT seq FROM events ORDER BY seq").fetch_all(store.reader()).await.unwrap();
    assert_eq!(seqs, [1, 4, 5, 6, 7, 11, 12]);
    assert_eq!(store.begin_look(&id("only-created"), noon()).await.unwrap().claimed_seq, 6);
    store.finish_look(finish(&id("z-due"), 4, &Outcome::Applied), noon()).await.unwrap();
    let open: Vec<String> =
        store.events(EventSelection::Pending, 10).await.unwrap().into_iter().map(|row| row.event_id).collect();
    assert_eq!(open, ["event-10", "e7", "e4"]);
}

#[tokio::test]
async fn unreadable_state_suggests_root() {
    if !runs_unprivileged("unreadable_state_suggests_root") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    Store::open(&path, &binding(), noon()).await.unwrap().0.close().await;
    for (shut, open) in [(&path, 0o600), (&dir.path().to_owned(), 0o700)] {
        fs::set_permissions(shut, Permissions::from_mode(0o0)).unwrap();
        let error = Store::open_beside(&path, Access::Read).await.unwrap_err();
        assert!(matches!(error, StoreError::Forbidden { .. }) && !error.is_configuration(), "{error}");
        assert!(error.to_string().ends_with("run this command as root"), "{error}");
        // A hidden lock does not count as free.
        let in_use = is_in_use(&path);
        assert!(matches!(in_use, Err(StoreError::Forbidden { .. })), "{in_use:?}");
        fs::set_permissions(shut, Permissions::from_mode(open)).unwrap();
    }
}

#[tokio::test]
async fn unwritable_folder_is_named_in_error() {
    if !runs_unprivileged("unwritable_folder_is_named_in_error") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    let error = refused(&dir.path().join("state.db")).await;
    assert!(matches!(error, StoreError::Place { .. }) && error.is_configuration(), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    // Also if a stale lock file can be locked.
    fs::write(beside(&dir.path().join("state.db"), ".lock"), "").unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    let error = refused(&dir.path().join("state.db")).await;
    assert!(matches!(error, StoreError::Place { .. }) && error.is_configuration(), "{error}");
    assert!(error.to_string().contains("Permission denied"), "the error names the cause: {error}");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
}

/// As on a network share: this SQLite VFS has no shared memory.
#[tokio::test]
async fn no_shared_memory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = |options| sqlx::SqlitePool::connect_with(options);
    let shared_nothing = options.clone().vfs("unix-dotfile").pragma("journal_mode", "WAL");
    let error = connect::require_wal(&pool(shared_nothing).await.unwrap(), &path).await.unwrap_err();
    assert!(error.to_string().contains("no shared memory") && error.is_configuration(), "{error}");
    let shared = options.pragma("journal_mode", "WAL");
    connect::require_wal(&pool(shared).await.unwrap(), &path).await.unwrap();
}

#[tokio::test]
async fn in_use_check_does_not_block_open() {
    let (_dir, path) = closed().await;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking = std::thread::spawn({
        let (path, done) = (path.clone(), done.clone());
        move || {
            let mut asked = 0_u64;
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                is_in_use(&path).unwrap();
                asked += 1;
            }
            asked
        }
    });
    for _ in 0..50 {
        let (store, _) = Store::open(&path, &binding(), noon()).await.unwrap();
        store.close().await;
    }
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(asking.join().unwrap() > 50);
}

#[tokio::test]
async fn copy_in_read_only_folder_is_readable() {
    if !runs_unprivileged("copy_in_read_only_folder_is_readable") {
        return;
    }
    let (_state, path) = closed().await;
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("state.db");
    fs::copy(&path, &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    let store = Store::open_beside(&copy, Access::Read).await.unwrap();
    assert_eq!(store.status().await.unwrap().unwrap().pending, 1);
    assert!(store.request_look(Who::Failed, noon()).await.is_err(), "the copy is read-only");
    store.close().await;
    // The WAL cannot be read here and may hold the last writes: an error is better than stale data.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    fs::write(beside(&copy, "-wal"), [0; 32]).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    let error = Store::open_beside(&copy, Access::Read).await.unwrap_err();
    assert!(error.to_string().contains("check the permissions"), "{error}");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn configuration_change_survives_crash() {
    let (_dir, path) = closed().await;
    let lax = Binding { enforce: false, ..binding() };
    let (store, opened) = Store::open(&path, &lax, noon()).await.unwrap();
    assert!(!opened.enforcement_switched_on && !opened.policy_changed);
    look_at(&store, "u1", &Outcome::Skipped(crate::domain::Skipped::NotEnforced), noon()).await;
    let run = store.begin_run(RunKind::Run, noon()).await.unwrap();
    store.close().await;

    let strict = Binding { policy: "deny=DEPROVISIONED,SUSPENDED".to_owned(), ..binding() };
    let (store, opened) = Store::open(&path, &strict, noon()).await.unwrap();
    assert!(opened.enforcement_switched_on && opened.policy_changed);
    assert!(store.finish_run(run + 1, RunCounts::default(), None, noon()).await.is_err());
    let ended: Vec<(bool, String)> =
        sqlx::query_as("SELECT ok, error FROM runs").fetch_all(store.reader()).await.unwrap();
    assert_eq!(ended, [(false, "the process died before it finished".to_owned())]);
    // The process dies here, before it acts on either change.
    store.close().await;

    let (store, opened) = Store::open(&path, &strict, noon()).await.unwrap();
    assert!(!opened.enforcement_switched_on && opened.policy_changed);
    assert_eq!(store.due(noon(), 10).await.unwrap(), [DueUser { id: id("u1"), lane: Lane::Deactivation }]);
    store.begin_reconcile("2026-08-23T12:00:00Z", "nightly", "listing", noon()).await.unwrap();
    store.begin_reconcile("all", "policy", "listing", noon()).await.unwrap();
    store.advance_reconcile("known", Some("x"), 200, 3).await.unwrap();
    store.close().await;

    let (store, opened) = Store::open(&path, &strict, noon()).await.unwrap();
    assert!(!opened.policy_changed, "the running reconcile resumes");
    let reconcile = store.current_reconcile().await.unwrap().unwrap();
    assert_eq!(
        (reconcile.scope.as_str(), reconcile.stage.as_str(), reconcile.listed, reconcile.made_due),
        ("all", "known", 200, 3)
    );
    store.finish_reconcile(true, noon()).await.unwrap();
    assert_eq!(store.last_reconcile_ok_at().await.unwrap(), Some(noon()));
    assert!(matches!(store.advance_reconcile("x", None, 0, 0).await.unwrap_err(), StoreError::Gone { .. }));
}
