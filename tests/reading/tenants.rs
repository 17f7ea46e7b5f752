//! `user --live`, `user --sync`, `retry`, `approve` against the stand-ins of both tenants, with a daemon and without.

use std::process::Stdio;

use okta_auth0_sync::auth0::ACTION_SOURCE;
use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync_sandbox::{NewUser, Options, Sandbox};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use super::filled::Folder;

/// Ann in both tenants, deactivated in Okta, and a configuration for the stand-ins.
async fn ann(more: &str) -> (Sandbox, Folder, OktaUserId, String) {
    let sandbox = Sandbox::start(Options::default(), ACTION_SOURCE).await.unwrap();
    let id = sandbox.okta().create_user(&NewUser::new("ann@example.com", "ann@example.com"));
    let account = sandbox.auth0().create_user(json!({
        "email": "ann@example.com", "email_verified": true, "connection": "Username-Password-Authentication",
    }));
    sandbox.okta().deactivate(&id);
    let config = format!("{}\n[store]\npath = \"state.db\"\n{more}", sandbox.config_toml());
    (sandbox, Folder::with(&config), OktaUserId::parse(id.as_str()).unwrap(), account)
}

fn is_denied(sandbox: &Sandbox, account: &str) -> bool {
    sandbox.auth0().user(account).unwrap()["app_metadata"]["okta_sync"]["deactivated"] == "true"
}

/// Removes the mark and the mirror.
fn remove_mark(sandbox: &Sandbox, account: &str) {
    assert!(sandbox.auth0().set_user(account, |user| {
        user["app_metadata"] = json!({});
        user["user_metadata"] = json!({});
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn live_shows_drift_and_look_repairs_it() {
    let (sandbox, folder, id, account) = ann("").await;
    let ran = folder.run(&["user", "Ann@Example.com", "--live"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("is not in the state") && ran.out.contains(&account), "{}", ran.out);
    assert!(ran.out.contains(&format!("{id} ann@example.com is DEPROVISIONED")), "{}", ran.out);
    assert!(!folder.state().exists());
    let ran = folder.run(&["user", "nobody@example.com", "--live"]);
    assert!(ran.code == 1 && ran.out.contains("not found in Okta or Auth0"), "{}", ran.out);

    assert_eq!(folder.run(&["sync"]).code, 0);
    let ran = folder.run(&["user", id.as_str(), "--live"]);
    assert!(ran.code == 0 && ran.out.contains("accounts should be denied: they are\n"), "{}{}", ran.out, ran.err);

    remove_mark(&sandbox, &account);
    let ran = folder.run(&["user", id.as_str(), "--live", "--json"]);
    let story: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &story["live"]["agrees"]), (1, &false.into()));
    assert_eq!(
        (&story["live"]["accounts"][0]["denied"], &story["live"]["accounts"][0]["believed_denied"]),
        (&false.into(), &true.into())
    );
    let ran = folder.run(&["user", "ann@example.com", "--live"]);
    assert!(ran.code == 1 && ran.out.contains("they are NOT"), "{}", ran.out);
    let row = ran.out.lines().rfind(|line| line.contains(&account));
    assert!(row.is_some_and(|row| row.contains("ann@example.com  open")), "{}", ran.out);

    let before = std::fs::read(folder.state()).unwrap();
    let ran = folder.run(&["user", "ann@example.com", "--sync", "--dry-run"]);
    assert!(ran.code == 0 && ran.out.contains("open → denied"), "{}{}", ran.out, ran.err);
    assert!(!is_denied(&sandbox, &account) && before == std::fs::read(folder.state()).unwrap(), "a rehearsal");

    let ran = folder.run(&["user", "ann@example.com", "--sync", "--live"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("processed now: applied") && ran.out.contains("denied: they are\n"), "{}", ran.out);
    assert!(is_denied(&sandbox, &account));
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_approve_releases_held_users() {
    let (sandbox, folder, id, account) = ann("[guard]\nmax_denials = 0\n").await;
    assert_eq!(folder.run(&["sync"]).code, 1);
    let ran = folder.run(&["retry", id.as_str()]);
    assert!(ran.code == 1 && ran.out.contains("held") && ran.out.contains("guard"), "{}{}", ran.out, ran.err);
    assert!(!is_denied(&sandbox, &account));
    let ran = folder.run(&["approve", "--all", "--yes"]);
    assert!(ran.code == 0 && ran.out.contains("1 processed, all settled"), "{}{}", ran.out, ran.err);
    assert!(is_denied(&sandbox, &account));
    sandbox.stop().await;
}

/// One import that goes wrong is one incident, whoever it concerns.
#[tokio::test(flavor = "multi_thread")]
async fn users_held_by_guard_are_one_issue() {
    let (sandbox, folder, _, _) = ann("[guard]\nmax_denials = 1\n[engine]\nconcurrency = 1\n").await;
    for name in ["bob", "eve", "kim"] {
        let address = format!("{name}@example.com");
        let user = sandbox.okta().create_user(&NewUser::new(&address, &address));
        sandbox.auth0().create_user(json!({
            "email": address, "email_verified": true, "connection": "Username-Password-Authentication",
        }));
        sandbox.okta().deactivate(&user);
    }
    assert_eq!(folder.run(&["sync"]).code, 1);
    let ran = folder.run(&["status"]);
    let issues: Vec<&str> =
        ran.out.lines().filter(|line| line.contains(" guard  ") || line.contains(" held  ")).collect();
    assert_eq!(issues.len(), 1, "{}", ran.out);
    for expected in [
        "the guard holds 3 users, the first since",
        "1 of 1 first denials in 1h are used",
        "in Okta by admin@sandbox.example (3)",
        "okta-auth0-sync approve --all",
        "okta-auth0-sync audit export --since",
    ] {
        assert!(ran.out.contains(expected), "expected: {expected}\n{}", ran.out);
    }
    let status: Value = serde_json::from_str(&folder.run(&["status", "--json"]).out).unwrap();
    let attention = status["attention"].as_array().unwrap();
    let kinds: Vec<&str> = attention.iter().filter_map(|one| one["kind"].as_str()).collect();
    assert!(kinds.contains(&"guard") && !kinds.contains(&"held"), "{status:#}");
    assert_eq!((&status["guard"]["held"], &status["guard"]["limit"]), (&3.into(), &1.into()), "{status:#}");
    sandbox.stop().await;
}

/// Ann left, and her account stays open because Kim has her address.
#[tokio::test(flavor = "multi_thread")]
async fn shared_address_is_not_agreement() {
    let (sandbox, folder, id, account) = ann("").await;
    let kim = NewUser::new("kim@example.com", "ann@example.com");
    sandbox.okta().create_user(&kim);
    folder.run(&["sync"]);
    assert!(!is_denied(&sandbox, &account));
    let ran = folder.run(&["user", id.as_str(), "--live"]);
    assert!(ran.code == 1 && ran.out.contains("shared_address") && ran.out.contains("NOT"), "{}{}", ran.out, ran.err);
    let status = folder.run(&["status"]);
    assert!(status.out.contains("1 user who left shares an address with an active user"), "{}", status.out);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_account_shows_when_it_was_opened() {
    let (sandbox, folder, id, account) = ann("").await;
    assert_eq!(folder.run(&["sync"]).code, 0);
    let mut state =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(folder.state())).await.unwrap();
    sqlx::query("UPDATE accounts SET denied_at = '2026-01-01T00:00:00.000Z'").execute(&mut state).await.unwrap();
    state.close().await.unwrap();
    sandbox.okta().activate(&id);
    assert_eq!(folder.run(&["sync"]).code, 0);
    let ran = folder.run(&["user", id.as_str()]);
    let row = ran.out.lines().find(|line| line.contains(&account) && line.contains(" open ")).unwrap();
    assert!(!row.contains(" days ago"), "{}", ran.out);
    sandbox.stop().await;
}

/// Bob is held as vanished, Ann by the guard. Only Ann's denial is what `--all` is for.
#[tokio::test(flavor = "multi_thread")]
async fn approve_all_means_the_guard_only() {
    let (sandbox, folder, ann, account) = ann("[guard]\nmax_denials = 0\n").await;
    let bob = sandbox.okta().create_user(&NewUser::new("bob@example.com", "bob@example.com"));
    let bobs = sandbox.auth0().create_user(json!({
        "email": "bob@example.com", "email_verified": true, "connection": "Username-Password-Authentication",
    }));
    assert_eq!(folder.run(&["sync"]).code, 1);
    folder.run(&["user", bob.as_str(), "--sync"]);
    sandbox.okta().hide(&bob);
    folder.run(&["user", bob.as_str(), "--sync"]);
    let status = folder.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["held"], 2, "{status:#}");

    // A script has to say that it means it.
    let ran = folder.run(&["approve", "--all"]);
    assert!(ran.code == 1 && ran.err.contains("--yes"), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("deny 1") && !ran.out.contains("bob@example.com"), "{}", ran.out);
    assert!(!is_denied(&sandbox, &account) && !is_denied(&sandbox, &bobs));

    let ran = folder.run(&["approve", "--all", "--yes", "--reason", "CR-17"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("denied") && !ran.out.contains("applied"), "{}", ran.out);
    assert!(ran.out.contains("1 user is held for another reason"), "{}", ran.out);
    assert!(is_denied(&sandbox, &account) && !is_denied(&sandbox, &bobs), "an active user is not denied by --all");

    // The operator is in the audit trail, apart from the Okta administrator.
    let audit = folder.run(&["audit", "export", "--format", "jsonl"]);
    let rows: Vec<Value> = audit.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let approved = rows.iter().find(|row| row["outcome"] == "approved").unwrap();
    assert_eq!((&approved["okta_user_id"], &approved["why"]), (&ann.as_str().into(), &"guard; reason: CR-17".into()));
    assert!(approved["actor"].as_str().unwrap().starts_with("command"), "{approved}");

    // Named users are approved for what holds them, several at once.
    let ran = folder.run(&["approve", "bob@example.com", ann.as_str()]);
    assert!(ran.out.contains("is not held"), "{}{}", ran.out, ran.err);
    // The look met another reason, which no operator has approved.
    assert!(ran.code == 1 && ran.out.contains("guard") && !is_denied(&sandbox, &bobs), "{}{}", ran.out, ran.err);
    let ran = folder.run(&["approve", "bob@example.com"]);
    assert!(ran.code == 0 && is_denied(&sandbox, &bobs), "{}{}", ran.out, ran.err);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusing_remote_is_reported_as_failure() {
    let (sandbox, folder, id, account) = ann("").await;
    assert_eq!(folder.run(&["sync"]).code, 0);
    remove_mark(&sandbox, &account);
    sandbox.okta().revoke_token();
    let ran = folder.run(&["retry", id.as_str()]);
    assert!(ran.code == 1 && ran.out.contains("1 of 1 not settled"), "{}{}", ran.out, ran.err);
    let ran = folder.run(&["user", id.as_str(), "--live"]);
    assert!(ran.code == 1 && ran.err.contains("401"), "{}{}", ran.out, ran.err);
    let ran = folder.run(&["status", "--check"]);
    assert!(ran.code == 1 && ran.out.contains("refused: Okta refuses our calls"), "{}", ran.out);
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_serves_request_and_caller_waits() {
    let (sandbox, folder, id, account) = ann("").await;
    let mut daemon = tokio::process::Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"))
        .current_dir(folder.directory.path())
        .env_clear()
        .arg("run")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let journal = sandbox.auth0().journal();
    tokio::select! {
        () = journal.wait_for(|requests| requests.iter().any(|sent| sent.method == "PATCH" && sent.status.is_some())) => {}
        ended = daemon.wait() => panic!("the daemon has ended: {ended:?}"),
    }
    remove_mark(&sandbox, &account);
    let ran = folder.run(&["retry", "ann@example.com"]);
    assert!(ran.code == 0 && ran.out.contains("1 processed, all settled"), "{}{}", ran.out, ran.err);
    assert!(is_denied(&sandbox, &account), "the daemon has looked");
    assert!(!ran.err.contains("another configuration"), "{}", ran.err);
    folder.configure("[scope]\nexempt = [\"ann@example.com\"]\n");
    let ran = folder.run(&["user", "ann@example.com", "--sync"]);
    assert!(ran.out.contains("unchanged") && ran.err.contains("started with another configuration"), "{}", ran.err);
    let ran = folder.run(&["sync"]);
    assert_eq!(ran.code, 75, "the state is in use: {}", ran.err);
    let ran = folder.run(&["user", id.as_str(), "--sync", "--json"]);
    let story: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &story["look"]["outcome"]), (0, &"unchanged".into()), "{}", ran.err);
    daemon.kill().await.unwrap();
    sandbox.stop().await;
}
