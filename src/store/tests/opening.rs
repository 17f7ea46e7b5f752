//! Opening: what is refused, and what is mended.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sqlx::Connection;
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;

use super::*;

#[tokio::test]
async fn a_state_is_used_by_one_process_and_belongs_to_one_pair() {
    let (dir, store) = store().await;
    let path = dir.path().join("state.db");
    assert!(matches!(Store::open(&path, &binding(), noon()).await.unwrap_err(), StoreError::Busy { .. }));
    assert!(is_in_use(&path).unwrap());
    let beside = Store::open_beside(&path, Access::Beside).await.unwrap();
    beside.close().await;
    store.bind_org("00o1").await.unwrap();
    assert!(store.bind_org("00o2").await.unwrap_err().to_string().contains("00o1"));
    store.close().await;
    assert!(!is_in_use(&path).unwrap());
    let other = Binding { okta_url: "https://other.okta.com".to_owned(), ..binding() };
    assert!(matches!(Store::open(&path, &other, noon()).await.unwrap_err(), StoreError::OtherTenant { .. }));
    let (store, opened) = Store::open(&path, &binding(), noon()).await.unwrap();
    assert!(!opened.created && opened.migrated_from.is_none());
    store.close().await;
}

const UNPRIVILEGED: &str = "OKTA_AUTH0_SYNC_TEST_UNPRIVILEGED";

/// Permissions bind everybody but root. As root this runs the named test once more as an ordinary user, in a process of
/// its own, and answers false: there is nothing left to do here.
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
    let done = std::process::Command::new(&program)
        .args([&format!("store::tests::opening::{test}"), "--exact"])
        .env(UNPRIVILEGED, "1")
        .env("TMPDIR", dir.path())
        .current_dir(dir.path())
        .gid(65_534)
        .uid(65_534)
        .output()
        .unwrap();
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

/// A state that has something in it, closed.
async fn closed() -> (tempfile::TempDir, PathBuf) {
    let (dir, store) = store().await;
    take_in(&store, &[event(1, "u1", "deactivate")]).await;
    let path = store.path().to_owned();
    store.close().await;
    (dir, path)
}

async fn refused(path: &Path) -> StoreError {
    Store::open(path, &binding(), noon()).await.unwrap_err()
}

#[tokio::test]
async fn nobody_else_can_read_any_of_the_files() {
    let (_dir, store) = store().await;
    take_in(&store, &[event(1, "u1", "deactivate")]).await;
    let path = store.path().to_owned();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&beside(&path, suffix)), 0o600, "{suffix}");
    }
    store.close().await;
    for suffix in ["", ".lock"] {
        fs::set_permissions(beside(&path, suffix), Permissions::from_mode(0o644)).unwrap();
    }
    let (_store, opened) = Store::open(&path, &binding(), noon()).await.unwrap();
    assert!(opened.tightened);
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&beside(&path, suffix)), 0o600, "{suffix}");
    }
}

/// systemd does not restart on a wrong configuration; it does on this, and the next start may find room.
#[test]
fn a_full_disk_is_no_matter_of_configuration() {
    let path = std::path::PathBuf::from("state.db");
    for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded] {
        let error = StoreError::Place { path: path.clone(), source: kind.into() };
        assert!(!error.is_configuration() && error.to_string().ends_with("make room"), "{error}");
    }
}

#[tokio::test]
async fn a_folder_that_is_missing_or_something_else_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = refused(&dir.path().join("none").join("state.db")).await;
    assert!(matches!(error, StoreError::Place { .. }) && error.is_configuration(), "{error}");
    let error = refused(dir.path()).await;
    assert!(matches!(error, StoreError::NotOurs { .. }) && error.is_configuration(), "{error}");
    let error = Store::open_beside(dir.path(), Access::Read).await.unwrap_err();
    assert!(matches!(error, StoreError::NotOurs { .. }), "{error}");
    assert!(!beside(dir.path(), ".lock").exists(), "nothing was left behind");
    let error = Store::open_beside(&dir.path().join("state.db"), Access::Read).await.unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(!is_in_use(&dir.path().join("state.db")).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "asking makes no files");
}

#[tokio::test]
async fn a_file_of_another_kind_is_left_exactly_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    fs::write(&text, "not a database, and longer than sixteen bytes").unwrap();
    let foreign = dir.path().join("foreign.db");
    let other = SqliteConnectOptions::new().filename(&foreign).create_if_missing(true);
    let mut connection = sqlx::SqliteConnection::connect_with(&other).await.unwrap();
    sqlx::query("CREATE TABLE installation (id)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    for path in [&text, &foreign] {
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
async fn a_truncated_file_is_told_to_be_damaged() {
    let (_dir, path) = closed().await;
    let whole = fs::read(&path).unwrap();
    for length in [whole.len() - 4096, whole.len() / 2, 4096, 1000, 17] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = refused(&path).await.to_string();
        assert!(error.contains("damaged") || error.contains("no SQLite database"), "{length}: {error}");
        assert_eq!(fs::read(&path).unwrap(), whole[..length], "{length}");
    }
    fs::write(&path, &whole[..10]).unwrap();
    assert!(matches!(refused(&path).await, StoreError::NotOurs { .. }));
    fs::write(&path, &whole).unwrap();
    let (store, _) = Store::open(&path, &binding(), noon()).await.unwrap();
    assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
}

/// As SQLite does when the disk is full, or fails.
#[tokio::test]
async fn a_transaction_that_sqlite_ended_by_itself_does_not_stand_in_the_way_of_the_next() {
    let (_dir, store) = store().await;
    for write in [Write::RecordPage, Write::FinishLook] {
        let mut tx = store.begin(write).await.unwrap();
        sqlx::query("ROLLBACK").execute(&mut *tx).await.unwrap();
        store.commit(tx).await.unwrap_err();
        let mut tx = store.begin(write).await.unwrap();
        sqlx::query("ROLLBACK").execute(&mut *tx).await.unwrap();
        drop(tx);
    }
    take_in(&store, &[event(1, "u1", "deactivate")]).await;
    assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn whoever_dies_while_making_the_file_can_begin_again() {
    for statements in [
        &[][..],
        &["PRAGMA journal_mode = WAL"],
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
        // As a death leaves it: with its WAL, and nobody to fold it in.
        let copy = dir.path().join("copy.db");
        fs::copy(&path, &copy).unwrap();
        if beside(&path, "-wal").exists() {
            fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
        }
        if statements.len() < 2 {
            let error = Store::open_beside(&copy, Access::Read).await.unwrap_err();
            let none = matches!(error, StoreError::Missing { .. });
            let older = !statements.is_empty() && matches!(error, StoreError::Older { found: 0, .. });
            assert!(none || older, "{error}");
        }
        let (store, opened) = Store::open(&copy, &binding(), noon()).await.unwrap();
        assert!(!opened.created && opened.migrated_from.is_none());
        assert!(store.status().await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_state_of_a_newer_version_is_refused_and_left_alone() {
    let (_dir, path) = closed().await;
    let mut connection =
        sqlx::SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&path)).await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', 1, x'00', 0)")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let before = fs::read(&path).unwrap();
    for error in [refused(&path).await, Store::open_beside(&path, Access::Beside).await.unwrap_err()] {
        assert!(matches!(error, StoreError::Newer { found: 99, known: 1, .. }), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// The migrations of this version, and one that a later version may bring.
async fn later(second: &str) -> (tempfile::TempDir, Migrator) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("0001_state.sql"), include_bytes!("../../../migrations/0001_state.sql")).unwrap();
    fs::write(dir.path().join("0002_later.sql"), second).unwrap();
    let migrator = Migrator::new(dir.path()).await.unwrap();
    (dir, migrator)
}

#[tokio::test]
async fn an_older_state_is_copied_then_migrated_and_of_another_tenant_it_is_not_touched() {
    let (_dir, path) = closed().await;
    let (_migrations, migrator) = later("ALTER TABLE users ADD COLUMN nickname TEXT;").await;
    let before = fs::read(&path).unwrap();
    let other = Binding { auth0_audience: "https://other.eu.auth0.com/api/v2/".to_owned(), ..binding() };
    let error = Store::open_with(&path, &other, noon(), &migrator).await.unwrap_err();
    assert!(matches!(error, StoreError::OtherTenant { .. }) && error.is_configuration(), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);

    // An attempt that fails leaves the state as it was, and its copy is in nobody's way.
    let (_broken, broken) = later("ALTER TABLE users ADD COLUMN nickname TEXT; SELECT * FROM nowhere;").await;
    let error = Store::open_with(&path, &binding(), noon(), &broken).await.unwrap_err();
    assert!(matches!(error, StoreError::Migration { .. }), "{error}");
    let (store, _) = Store::open(&path, &binding(), noon()).await.unwrap();
    store.close().await;

    let (store, opened) = Store::open_with(&path, &binding(), noon(), &migrator).await.unwrap();
    let copy = opened.migrated_from.unwrap();
    assert_eq!((copy.clone(), mode(&copy)), (beside(&path, ".schema-1.bak"), 0o600));
    execute(&store, "UPDATE users SET nickname = 'ann'").await.unwrap();
    assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
    store.close().await;
    assert!(matches!(refused(&path).await, StoreError::Newer { found: 2, known: 1, .. }));
    // The way back: the copy is a whole state of the old schema.
    let (store, _) = Store::open(&copy, &binding(), noon()).await.unwrap();
    assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_may_not_look_at_the_state_is_sent_to_root() {
    if !runs_unprivileged("who_may_not_look_at_the_state_is_sent_to_root") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    Store::open(&path, &binding(), noon()).await.unwrap().0.close().await;
    for (shut, open) in [(&path, 0o600), (&dir.path().to_owned(), 0o700)] {
        fs::set_permissions(shut, Permissions::from_mode(0o0)).unwrap();
        let error = Store::open_beside(&path, Access::Read).await.unwrap_err();
        assert!(matches!(error, StoreError::Forbidden { .. }) && !error.is_configuration(), "{error}");
        assert!(error.to_string().ends_with("do this as root"), "{error}");
        // Only the folder hides whether it is in use; what cannot be seen is not taken for free.
        let in_use = is_in_use(&path);
        let hidden = matches!(in_use, Err(StoreError::Forbidden { .. }));
        assert!(if shut == &path { matches!(in_use, Ok(false)) } else { hidden }, "{in_use:?}");
        fs::set_permissions(shut, Permissions::from_mode(open)).unwrap();
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    if !runs_unprivileged("a_folder_that_cannot_be_written_is_named") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    let error = refused(&dir.path().join("state.db")).await;
    assert!(matches!(error, StoreError::Place { .. }) && error.is_configuration(), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn a_copy_in_a_folder_that_cannot_be_written_can_be_read() {
    if !runs_unprivileged("a_copy_in_a_folder_that_cannot_be_written_can_be_read") {
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
    assert!(store.request_look(Who::Failed, noon()).await.is_err(), "reading is all it can do");
    store.close().await;
    // What was written last may stand in a WAL, which cannot be read here: no answer is better than an old one.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    fs::write(beside(&copy, "-wal"), [0; 32]).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    let error = Store::open_beside(&copy, Access::Read).await.unwrap_err();
    assert!(error.to_string().contains("check the permissions"), "{error}");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn what_has_to_follow_a_changed_configuration_is_not_lost_by_a_crash() {
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
    assert_eq!(ended, [(false, "the process died before it came to an end".to_owned())]);
    // And here it dies, before it has done anything about either.
    store.close().await;

    let (store, opened) = Store::open(&path, &strict, noon()).await.unwrap();
    assert!(!opened.enforcement_switched_on && opened.policy_changed);
    assert_eq!(store.due(noon(), 10).await.unwrap(), [DueUser { id: id("u1"), lane: Lane::Deactivation }]);
    store.begin_sweep("2026-08-23T12:00:00Z", "nightly", "listing", noon()).await.unwrap();
    store.begin_sweep("all", "policy", "listing", noon()).await.unwrap();
    store.move_sweep("known", Some("x"), 200, 3).await.unwrap();
    store.close().await;

    let (store, opened) = Store::open(&path, &strict, noon()).await.unwrap();
    assert!(!opened.policy_changed, "the sweep is under way, and goes on by itself");
    let sweep = store.sweep_under_way().await.unwrap().unwrap();
    assert_eq!((sweep.scope.as_str(), sweep.stage.as_str(), sweep.listed, sweep.made_due), ("all", "known", 200, 3));
    store.finish_sweep(noon()).await.unwrap();
    assert_eq!(store.last_reconcile_ok_at().await.unwrap(), Some(noon()));
    assert!(matches!(store.move_sweep("x", None, 0, 0).await.unwrap_err(), StoreError::Gone { .. }));
}
