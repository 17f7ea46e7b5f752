//! Disk faults: failing, full or damaged disks and restored backups. The program works or reports the exact remedy; it never
//! starts partially, never silently starts empty, and loses no user.
//!
//! `OKTA_AUTH0_SYNC_DISK_STEP=1` fails every write of a run instead of a sample.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::harness::{Daemon, Harness, Ran, finish, within};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
/// More failing writes than any run makes.
const ALL_WRITES: u32 = 1_000_000;

/// Eight users, every second one deactivated.
async fn harness_with_users() -> (Harness, BTreeSet<String>) {
    let harness = Harness::start().await;
    let mut left = BTreeSet::new();
    for number in 0..8 {
        let (user, account) = harness.user(&format!("person{number}"));
        if number % 2 == 0 {
            harness.sandbox.okta().deactivate(&user);
            left.insert(account);
        }
    }
    (harness, left)
}

/// Removes every mark.
fn remove_all_marks(harness: &Harness, accounts: &BTreeSet<String>) {
    for account in accounts {
        harness.sandbox.auth0().set_user(account, |user| {
            user["app_metadata"] = serde_json::json!({});
            user["user_metadata"] = serde_json::json!({});
        });
    }
}

/// Deletes the state.
fn delete_state(harness: &Harness) {
    for suffix in ["", "-wal", "-shm", "-journal", ".lock"] {
        let _ = fs::remove_file(beside(&harness.state(), suffix));
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Asserts that the process exited with an error message, without panic or signal.
#[track_caller]
fn assert_reported(ran: &Ran, story: &str) {
    assert!(matches!(ran.code, Some(0 | 1 | 78)), "{story}: {ran:?}");
    assert!(!ran.all().contains("panicked"), "{story}: {ran:?}");
}

fn failing_disk(folder: &Path) -> PathBuf {
    let library = folder.join("failing.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk/failing.c");
    let made =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(made.unwrap().success(), "needs a C compiler, as the build does");
    library
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_write_loses_no_user() {
    let (harness, left) = harness_with_users().await;
    let library = failing_disk(harness.folder());
    let mark = harness.folder().join("failed");
    let step = std::env::var("OKTA_AUTH0_SYNC_DISK_STEP").map_or(61, |step| step.parse().unwrap());
    let mut tried = 0;
    for (errno, times, words) in [
        (ENOSPC, ALL_WRITES, &["disk is full", "or is full", "No space left"][..]),
        (EIO, ALL_WRITES, &["disk I/O error", "Input/output error"]),
        (EIO, 1, &["disk I/O error", "Input/output error"]),
    ] {
        for at in (1..).step_by(step) {
            delete_state(&harness);
            remove_all_marks(&harness, &left);
            let mut command = harness.program(&["sync"]);
            command
                .env("LD_PRELOAD", &library)
                .env("FAILING_FILE", "state.db")
                .env("FAILING_ERRNO", errno.to_string())
                .env("FAILING_AT", at.to_string())
                .env("FAILING_TIMES", times.to_string())
                .env("FAILING_MARK", &mark);
            let ran = finish(command).await;
            let story = format!("errno {errno} from write {at} on, {times} times");
            assert_reported(&ran, &story);
            let failed = fs::remove_file(&mark).is_ok();
            if !failed {
                ran.exits(0);
                break;
            }
            tried += 1;
            let named = words.iter().any(|word| ran.all().contains(word));
            assert!(named || ran.code == Some(0), "{story}: not named\n{}", ran.all());
            // Once the disk works, everything continues automatically.
            let again = harness.run(&["sync"]).await;
            assert_eq!(again.code, Some(0), "{story}, then well again\n{}", again.all());
            assert_eq!(harness.shut_out(), left, "{story}");
            harness.run(&["audit", "verify"]).await.exits(0);
        }
    }
    eprintln!("{tried} failures of the disk");
    assert!(tried > 20, "only {tried} failures: the preloaded disk is not asked");
}

/// The daemon as systemd runs it: restarted after any exit code but 78.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_recovers_from_failing_disk() {
    let (harness, left) = harness_with_users().await;
    let library = failing_disk(harness.folder());
    let mark = harness.folder().join("failed");
    let step = std::env::var("OKTA_AUTH0_SYNC_DISK_STEP").map_or(401, |step| step.parse().unwrap());
    let (mut tried, mut ended) = (0, 0);
    for errno in [ENOSPC, EIO] {
        for at in (1..).step_by(step) {
            delete_state(&harness);
            remove_all_marks(&harness, &left);
            let story = format!("errno {errno} at writes {at} to {}", at + 4);
            let mut life = 0;
            loop {
                life += 1;
                let mut command = harness.program(&["run"]);
                // The first restart finds the disk still failing.
                if life < 3 {
                    command
                        .env("LD_PRELOAD", &library)
                        .env("FAILING_FILE", "state.db")
                        .env("FAILING_ERRNO", errno.to_string())
                        .env("FAILING_AT", at.to_string())
                        .env("FAILING_TIMES", "5")
                        .env("FAILING_MARK", &mark);
                }
                let log = fs::File::create(harness.folder().join("daemon.log")).unwrap();
                let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
                let journal = harness.sandbox.auth0().journal();
                let settled = within(&story, journal.wait_for(|_| harness.shut_out() == left));
                let code = tokio::select! {
                    () = settled => None,
                    status = child.wait() => Some(status.unwrap().code()),
                };
                let log = fs::read_to_string(harness.folder().join("daemon.log")).unwrap();
                assert!(!log.contains("panicked"), "{story}, life {life}: {log}");
                let Some(code) = code else {
                    Daemon::from(child).stop().await;
                    break;
                };
                assert!(code == Some(1) && life < 3, "{story}, life {life}: {code:?}: {log}");
                ended += 1;
            }
            let failed = fs::remove_file(&mark).is_ok();
            harness.sync().await;
            assert_eq!(harness.shut_out(), left, "{story}");
            harness.run(&["audit", "verify"]).await.exits(0);
            if !failed {
                break;
            }
            tried += 1;
        }
    }
    eprintln!("{tried} failures of the disk; {ended} times the daemon ended and was started again");
    assert!(tried > 2, "only {tried} failures: the preloaded disk is not asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_disk_is_reported_and_readable() {
    let (harness, left) = harness_with_users().await;
    let library = failing_disk(harness.folder());
    let folder = harness.folder().join("state");
    fs::create_dir(&folder).unwrap();
    let there = [("OKTA_AUTH0_SYNC__STORE__PATH", folder.join("state.db").into_os_string())];
    let read_only = [("LD_PRELOAD", library.into_os_string()), ("READ_ONLY", folder.clone().into_os_string())];
    let run = async |arguments: &[&str], environment: &[(&str, std::ffi::OsString)]| {
        let mut command = harness.program(arguments);
        command.envs(there.clone()).envs(environment.iter().cloned());
        finish(command).await
    };
    // Before the state exists.
    let ran = run(&["sync"], &read_only).await;
    assert_reported(&ran, "nothing there yet");
    assert!(ran.code != Some(0) && ran.err.contains("ead-only"), "{ran:?}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing half started");

    run(&["sync"], &[]).await.exits(0);
    assert_eq!(harness.shut_out(), left);
    let (user, account) = harness.user("late");
    harness.sandbox.okta().deactivate(&user);
    let whole = fs::read(folder.join("state.db")).unwrap();
    for arguments in [
        &["sync"][..],
        &["run"],
        &["reconcile"],
        &["retry", "person0@example.com"],
        &["forget", "person0@example.com", "--yes"],
    ] {
        let ran = run(arguments, &read_only).await;
        assert_reported(&ran, &format!("{arguments:?}"));
        assert!(ran.code != Some(0) && ran.err.contains("ead-only"), "{arguments:?}: {ran:?}");
    }
    for arguments in
        [&["status"][..], &["events"], &["user", "person0@example.com"], &["audit", "verify"], &["audit", "export"]]
    {
        let ran = run(arguments, &read_only).await;
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
    }
    assert_eq!(fs::read(folder.join("state.db")).unwrap(), whole);
    run(&["sync"], &[]).await.exits(0);
    assert_eq!(harness.shut_out(), &left | &BTreeSet::from([account]));
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_state_is_reported_loses_no_user() {
    let (harness, left) = harness_with_users().await;
    harness.sync().await;
    let (user, account) = harness.user("late");
    harness.sandbox.okta().deactivate(&user);
    let mut other = SqliteConnectOptions::new().filename(harness.state()).connect().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let ran = harness.run(&["sync"]).await;
    ran.exits(1);
    assert!(ran.err.contains("another program has locked the database: end it"), "{}", ran.err);
    // Readers still work.
    harness.run(&["status"]).await.exits(0);
    assert_eq!(harness.shut_out(), left);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    harness.sync().await;
    assert_eq!(harness.shut_out(), &left | &BTreeSet::from([account]));
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_page_never_panics_or_empties_state() {
    let (harness, left) = harness_with_users().await;
    harness.sync().await;
    let whole = fs::read(harness.state()).unwrap();
    let pages = whole.len() / 4096;
    assert!(!beside(&harness.state(), "-wal").exists() && pages > 20, "{pages} pages");
    let (mut refused, mut unnoticed) = (0, 0);
    let step = std::env::var("OKTA_AUTH0_SYNC_DISK_STEP").map_or(3, |step| step.parse().unwrap());
    let mut tried = 0;
    for page in (0..pages).step_by(step) {
        tried += 1;
        delete_state(&harness);
        let mut damaged = whole.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(if page % 2 == 0 { 0 } else { 0xa5 });
        fs::write(harness.state(), &damaged).unwrap();
        let copy = harness.folder().join("copy.db");
        for arguments in [&["status"][..], &["audit", "verify"], &["backup", "copy.db"], &["sync"]] {
            let ran = harness.run(arguments).await;
            let story = format!("page {page} of {pages}, {arguments:?}");
            assert_reported(&ran, &story);
            if ran.code != Some(0) {
                refused += 1;
                // Whatever the damage, the message blames the file.
                assert!(ran.err.contains("state.db") || ran.err.contains("copy.db"), "{story}: {}", ran.err);
                continue;
            }
            match arguments[0] {
                // A verified copy has all users.
                "backup" => {
                    let options = SqliteConnectOptions::new().filename(&copy).immutable(true).read_only(true);
                    let mut copied = options.connect().await.unwrap();
                    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM accounts WHERE denied = 1")
                        .fetch_one(&mut copied)
                        .await
                        .unwrap();
                    assert_eq!(usize::try_from(users).unwrap(), left.len(), "{story}");
                    copied.close().await.unwrap();
                }
                "sync" => unnoticed += 1,
                _ => {}
            }
        }
        let _ = fs::remove_file(&copy);
        assert_eq!(harness.shut_out(), left, "page {page}: no account may be restored because of it");
    }
    eprintln!("{tried} of {pages} pages: {refused} commands refused, {unnoticed} passes had no need of the page");
    assert!(refused > tried, "damage is noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_state_opens_with_and_without_wal() {
    for with_wal in [true, false] {
        let (harness, left) = harness_with_users().await;
        let mut dying = harness.program(&["sync"]);
        dying.env("OKTA_AUTH0_SYNC_TEST_DIE_AT", "store::finish_look::after=2");
        assert_eq!(finish(dying).await.code, None);
        assert!(beside(&harness.state(), "-wal").exists(), "it died with a WAL");
        let moved = harness.folder().join("moved");
        fs::create_dir(&moved).unwrap();
        for suffix in if with_wal { &["", "-wal"][..] } else { &[""] } {
            fs::copy(beside(&harness.state(), suffix), beside(&moved.join("state.db"), suffix)).unwrap();
        }
        delete_state(&harness);
        for suffix in ["", "-wal"] {
            let _ = fs::copy(beside(&moved.join("state.db"), suffix), beside(&harness.state(), suffix));
        }
        if with_wal {
            let store = harness.store().await;
            assert!(store.checkpoint().await.unwrap().is_some(), "what was committed is there");
            store.close().await;
        }
        harness.sync().await;
        assert_eq!(harness.shut_out(), left, "with its WAL: {with_wal}");
        harness.run(&["audit", "verify"]).await.exits(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_backup_loses_no_user() {
    let (harness, mut left) = harness_with_users().await;
    let okta = harness.sandbox.okta();
    let (returns, open) = harness.user("returns");
    okta.deactivate(&returns);
    harness.sync().await;
    harness.run(&["backup", "yesterday.db"]).await.exits(0);
    // After the backup, one user is deactivated and one reactivated.
    let (leaves, account) = harness.user("leaves");
    okta.deactivate(&leaves);
    okta.activate(&returns);
    harness.sync().await;
    left.insert(account);
    assert_eq!(harness.shut_out(), left);
    // After the restore, another user is deactivated before the program runs again.
    delete_state(&harness);
    fs::copy(harness.folder().join("yesterday.db"), harness.state()).unwrap();
    let (leaves, account) = harness.user("leaves-then");
    okta.deactivate(&leaves);
    left.insert(account);
    let writes = harness.writes();
    harness.sync().await;
    assert_eq!(harness.shut_out(), left);
    assert!(harness.mark(&open)["deactivated"] != "true");
    assert_eq!(harness.writes() - writes, 1, "what was done before is found done");
    harness.run(&["audit", "verify"]).await.exits(0);
}
