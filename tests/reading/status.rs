//! `status`, `backup`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use okta_auth0_sync::cli::status::to_text;
use okta_auth0_sync::domain::{DenialsMax, timestamp_text};
use okta_auth0_sync::health::Health;
use okta_auth0_sync::store::{Access, Enforcement, Evaluation, GuardWindow, RemoteError, Store};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use super::filled::{Folder, ago, now, page};

/// The default.
const GUARD: GuardWindow =
    GuardWindow { denials_max: DenialsMax::Users(200), span: std::time::Duration::from_secs(3600) };

#[test]
fn missing_state_never_ran() {
    let folder = Folder::empty();
    let ran = folder.run(&["status"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.starts_with("Never ran\n"), "{}", ran.out);
    let ran = folder.run(&["status", "--check"]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.starts_with("never_ran: never ran"), "{}", ran.out);
    let ran = folder.run(&["status", "--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(ran.code, 0);
    assert_eq!((&json["never_ran"], &json["violations"][0]["rule"]), (&true.into(), &"never_ran".into()));
    assert!(!folder.state().exists(), "looking makes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_daemon_is_healthy() {
    let folder = Folder::quiet().await;
    let working = folder.daemon().await;
    let ran = folder.run(&["status", "--check"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "all well\n", ""));
    let ran = folder.run(&["status"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.starts_with("All well\n"), "{}", ran.out);

    let copy = Folder::empty();
    let target = copy.state().display().to_string();
    let ran = folder.run(&["backup", &target]);
    assert!(ran.code == 0 && ran.out.contains("verified"), "{}{}", ran.out, ran.err);
    let again = folder.run(&["backup", &target]);
    assert!(again.code == 1 && again.err.contains("the file already exists"), "{}", again.err);
    working.close().await;
    fs::set_permissions(copy.state(), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(copy.directory.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let ran = copy.run(&["status"]);
    fs::set_permissions(copy.directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(ran.code == 0 && ran.out.starts_with("The daemon is not running\n"), "{}{}", ran.out, ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_daemon_is_not_well() {
    let folder = Folder::quiet().await;
    let daemon = folder.daemon().await;
    // A clean stop says so; after a kill the lock tells.
    daemon.note_stopped(now()).await.unwrap();
    for killed in [false, true] {
        if killed {
            daemon.note_evaluation(&Evaluation::default(), now()).await.unwrap();
            daemon.close().await;
        }
        let ran = folder.run(&["status"]);
        assert!(ran.out.starts_with("The daemon is not running\n"), "{}", ran.out);
        let ran = folder.run(&["status", "--check"]);
        assert!(ran.code == 1 && ran.out.starts_with("daemon: the daemon is not running"), "{}", ran.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_daemon_that_holds_the_state_is_not_gone() {
    let folder = Folder::quiet().await;
    let daemon = folder.daemon().await;
    daemon.note_evaluation(&Evaluation::default(), ago(600)).await.unwrap();
    let ran = folder.run(&["status"]);
    assert!(ran.out.starts_with("A process holds the state and has stored no sign of life since "), "{}", ran.out);
    assert!(ran.out.contains("free space"), "{}", ran.out);
    let away = folder.state().with_extension("away");
    fs::rename(folder.state(), &away).unwrap();
    let ran = folder.run(&["status", "--check"]);
    assert!(ran.code == 1 && ran.err.contains("moved or deleted"), "{}{}", ran.out, ran.err);
    daemon.close().await;
    let ran = folder.run(&["status"]);
    assert!(ran.out.starts_with("Never ran\n"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn short_outage_is_not_called_well() {
    let folder = Folder::quiet().await;
    let daemon = folder.daemon().await;
    let error = RemoteError { remote: "auth0", kind: "unreachable", text: "no connection", next_call_at: None };
    daemon.note_remote_error(error, now()).await.unwrap();
    let ran = folder.run(&["status", "--check"]);
    daemon.close().await;
    assert!(ran.code == 0 && ran.out.starts_with("Auth0 unreachable since "), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_enforcement_is_not_well() {
    let folder = Folder::quiet().await;
    let daemon = folder.daemon().await;
    let mut state =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(folder.state())).await.unwrap();
    sqlx::query("UPDATE installation SET enforce = 0").execute(&mut state).await.unwrap();
    assert!(folder.run(&["status"]).out.starts_with("Enforcement is OFF\n"));
    let ran = folder.run(&["status", "--check"]);
    assert!(ran.code == 1 && ran.out.starts_with("enforcement: "), "{}", ran.out);
    daemon.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_problem_is_listed_with_remedy() {
    let folder = Folder::troubled().await;
    let ran = folder.run(&["status"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.starts_with("The daemon is not running, 1 denial waiting\n"), "{}", ran.out);
    for expected in [
        "users            1 pending, 1 failed, 2 held",
        "max 10.5 s",
        "okta-auth0-sync retry 00ubob",
        "the guard holds 2 users",
        "okta-auth0-sync approve q-1",
        "gone\\u{1b}[2J\\nbad",
    ] {
        assert!(ran.out.contains(expected), "expected: {expected}\n{}", ran.out);
    }
    let ran = folder.run(&["status", "--check"]);
    let rules: Vec<&str> = ran.out.lines().filter_map(|line| line.split(": ").next()).collect();
    let expected = ["daemon", "reconcile", "action", "clock", "state", "alarm", "failed", "held", "quarantined"];
    assert_eq!((ran.code, rules), (1, expected.to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_fits_eighty_columns() {
    let folder = Folder::troubled().await;
    let store = Store::open_beside(&folder.state(), Access::Read).await.unwrap();
    let health = Health::read(&store, GUARD, now()).await.unwrap();
    let text = to_text(&health, now(), Some(80));
    let plain = strip(&text);
    assert!(plain.lines().all(|line| line.chars().count() <= 80), "{plain}");
    assert!(text.contains('\u{1b}') && !plain.contains('\u{1b}'), "{text:?}");
    let wide = strip(&to_text(&health, now(), None));
    assert!(wide.lines().count() < plain.lines().count(), "{wide}");
}

/// Removes the program's own color codes.
fn strip(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').unwrap().1);
    }
    plain
}

#[tokio::test(flavor = "multi_thread")]
async fn status_json_has_every_view_column() {
    let folder = Folder::troubled().await;
    let store = folder.open().await;
    let refusal = RemoteError { remote: "auth0", kind: "forbidden", text: "insufficient_scope", next_call_at: None };
    store.note_remote_error(refusal, ago(5)).await.unwrap();
    store.close().await;
    let ran = folder.run(&["status", "--json", "--check"]);
    assert_eq!(ran.code, 1);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    for column in "version okta_url auth0_url enforce first_run_at last_poll_at last_poll_ok_at last_apply_ok_at \
                   last_reconcile_ok_at cursor_moved_at pending failed held quarantined denied lag_p50_s lag_p99_s \
                   lag_max_s oldest_pending_at last_okta_error last_auth0_error needs_attention enforcement \
                   enforcement_checked_at all_well"
        .split_whitespace()
    {
        assert!(json.get(column).is_some(), "{column}: {json:#}");
    }
    let (_, page) = include_str!("../../docs/json.md").split_once("\n## `status --json`\n").unwrap();
    let page = page.split("\n## ").next().unwrap();
    for member in json.as_object().unwrap().keys() {
        assert!(page.contains(&format!("`{member}`")), "docs/json.md does not know {member}");
    }
    assert_eq!((&json["held"], &json["enforce"], &json["lag_max_s"]), (&2.into(), &true.into(), &10.5.into()));
    let kinds: Vec<&str> =
        json["attention"].as_array().unwrap().iter().filter_map(|item| item["kind"].as_str()).collect();
    assert_eq!(kinds, ["daemon", "refused", "gap", "guard", "failed", "quarantined"]);
    assert_eq!(json["remotes"][1]["error"], "insufficient_scope");
    assert!(!ran.out.contains("eve@example.com"), "the text of an entry may hold personal data");
}

#[tokio::test(flavor = "multi_thread")]
async fn action_state_is_shown_with_age() {
    let folder = Folder::quiet().await;
    let action = |out: &str| out.lines().find(|line| line.starts_with("action ")).map(str::to_owned).unwrap();
    assert_eq!(action(&folder.run(&["status"]).out), "action           never checked");
    for (found, word) in [
        (Enforcement::Verified, "verified"),
        (Enforcement::Unverified, "unverified"),
        (Enforcement::Missing, "missing"),
    ] {
        let store = folder.open().await;
        let at = ago(180);
        store.note_enforcement(found, at).await.unwrap();
        let health = Health::read(&store, GUARD, now()).await.unwrap();
        store.close().await;
        let text = strip(&to_text(&health, now(), None));
        assert_eq!(action(&text), format!("action           {word}, 3 min ago"));
        let json: Value = serde_json::from_str(&folder.run(&["status", "--json"]).out).unwrap();
        assert_eq!((&json["enforcement"], &json["enforcement_checked_at"]), (&word.into(), &timestamp_text(at).into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_last_poll_is_overdue() {
    let folder = Folder::empty();
    let store = folder.open().await;
    page(&store, &[], &[], ago(3600)).await;
    store.close().await;
    let ran = folder.run(&["status", "--check"]);
    assert!(ran.code == 1 && ran.out.contains("\npoll_late: "), "{}", ran.out);
    let daemon = folder.daemon().await;
    let ran = folder.run(&["status"]);
    daemon.close().await;
    assert!(ran.out.starts_with("No successful poll since "), "{}", ran.out);
}
