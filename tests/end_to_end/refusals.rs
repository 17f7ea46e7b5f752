//! Clear errors: the right exit code, the cause and the remedy.
//!
//! `tests/cli.rs` tests errors of the configuration alone; these need a state or a remote that answers.

use std::fs;

use okta_auth0_sync_sandbox::{Effect, Fault, Recorded};
use serde_json::json;
use sqlx::Connection as _;
use tokio::task::JoinSet;

use crate::harness::{Harness, Ran, finish};

/// Runs a pass with the state at this path.
async fn sync_at(harness: &Harness, state: &str) -> Ran {
    let mut command = harness.program(&["sync"]);
    command.env("OKTA_AUTH0_SYNC__STORE__PATH", state);
    finish(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn unwritable_state_folder_is_refused() {
    let harness = Harness::start().await;
    fs::write(harness.folder().join("file"), "").unwrap();
    for place in ["nowhere/state.db", "file/state.db", "/proc/state.db"] {
        let ran = sync_at(&harness, place).await;
        assert!(ran.exits(78).err.contains("cannot open the state at"), "{place}: {}", ran.err);
        assert!(ran.err.contains("create the folder, or set [store] path"), "{place}: {}", ran.err);
    }
    assert_eq!(harness.sandbox.okta().journal().total(), 0, "no call was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_file_as_state_is_left_alone() {
    let harness = Harness::start().await;
    let text = "dear diary, ".repeat(1000);
    fs::write(harness.state(), &text).unwrap();
    let ran = harness.run(&["sync"]).await;
    assert!(ran.exits(78).err.contains("is not a state of okta-auth0-sync"), "{}", ran.err);
    assert_eq!(fs::read_to_string(harness.state()).unwrap(), text);

    let ran = sync_at(&harness, ".").await;
    assert!(ran.exits(78).err.contains("[store] path"), "a folder: {}", ran.err);
    assert_eq!(harness.sandbox.okta().journal().total(), 0, "no call was made");
}

/// The address identifies an Okta org; the audience identifies an Auth0 tenant, whose domain may change to a custom one.
#[tokio::test(flavor = "multi_thread")]
async fn state_of_other_tenants_is_refused() {
    let (one, other) = (Harness::start().await, Harness::start().await);
    let (ann, account) = one.user("ann");
    one.sync().await;
    one.sandbox.okta().deactivate(&ann);
    let foreign = other.account("ann@example.com");
    for (name, value, what) in [
        ("OKTA_AUTH0_SYNC__OKTA__URL", other.sandbox.okta().url().to_owned(), "belongs to the Okta org"),
        ("OKTA_AUTH0_SYNC__AUTH0__AUDIENCE", other.sandbox.auth0().audience(), "belongs to the Auth0 tenant"),
    ] {
        let mut command = one.program(&["sync"]);
        command.env(name, &value);
        let ran = finish(command).await;
        assert!(ran.exits(78).err.contains(what), "{name}: {}", ran.err);
        assert!(ran.err.contains(&value), "{name}: names the configured value: {}", ran.err);
    }
    assert!(other.mark(&foreign).is_null() && one.mark(&account).is_null());
    assert_eq!((one.writes(), other.writes()), (0, 0));
}

/// Any org tells its id; only one that accepts the credential is ours.
#[tokio::test(flavor = "multi_thread")]
async fn mistyped_address_can_be_corrected() {
    let (right, wrong) = (Harness::start().await, Harness::start().await);
    let (ann, account) = right.user("ann");
    right.sandbox.okta().deactivate(&ann);
    let mut command = right.program(&["sync"]);
    wrong.sandbox.okta().revoke_token();
    command.env("OKTA_AUTH0_SYNC__OKTA__URL", wrong.sandbox.okta().url());
    let ran = finish(command).await;
    assert!(ran.exits(1).all().contains("E0000011"), "{}", ran.all());
    let asked = wrong.sandbox.okta().journal().count("GET", "/.well-known/okta-organization");
    assert_eq!(asked, 1, "it knows the id of the wrong org");
    right.sync().await;
    assert!(!right.mark(&account).is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_org_at_same_address_is_refused() {
    let harness = Harness::start().await;
    let (ann, _) = harness.user("ann");
    harness.sync().await;
    let body = json!({ "id": "00oAnotherOrg0000000", "pipeline": "idx" });
    let other = Effect::Status { code: 200, body, headers: Vec::new() };
    harness.sandbox.okta().faults().add(Fault::new("GET", "/.well-known/okta-organization", other));
    harness.sandbox.okta().deactivate(&ann);
    let ran = harness.run(&["sync"]).await;
    assert!(ran.exits(78).err.contains("00oAnotherOrg0000000"), "{}", ran.err);
    assert_eq!(harness.writes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_report_and_lose_nothing() {
    let harness = Harness::start().await;
    let (ann, account) = harness.user("ann");
    harness.sandbox.okta().deactivate(&ann);

    harness.sandbox.okta().revoke_token();
    let ran = harness.run(&["sync"]).await;
    assert!(ran.exits(1).all().contains("E0000011"), "Okta's own code: {}", ran.all());
    harness.sandbox.okta().restore_token();

    let secret = harness.sandbox.auth0().client_secret();
    harness.sandbox.auth0().set_client_secret("another");
    let ran = harness.run(&["sync"]).await;
    assert!(ran.exits(1).all().contains("access_denied"), "Auth0's own code: {}", ran.all());
    assert!(harness.mark(&account).is_null());
    let store = harness.store().await;
    let status = store.status().await.unwrap().unwrap();
    store.close().await;
    assert!(status.pending > 0 && status.needs_attention, "{status:?}");
    assert!(status.last_auth0_error.is_some_and(|error| error.contains("access_denied")));

    // The next process waits too: a refused credential is tried once a minute.
    harness.sandbox.auth0().set_client_secret(&secret);
    let auth0 = harness.sandbox.auth0();
    let mut daemon = harness.daemon();
    let denied = auth0.journal().wait_for(|_| !auth0.login(&account).is_granted());
    daemon.until("the denial after the repair", denied).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unresolvable_host_is_reported() {
    let mut runs = JoinSet::new();
    for (section, host) in [("OKTA", "https://no-such-org.invalid"), ("AUTH0", "https://no-such-tenant.invalid")] {
        runs.spawn(async move {
            let harness = Harness::start().await;
            let (ann, account) = harness.user("ann");
            harness.sandbox.okta().deactivate(&ann);
            let mut command = harness.program(&["sync"]);
            command.env(format!("OKTA_AUTH0_SYNC__{section}__URL"), host);
            let ran = finish(command).await;
            let text = ran.exits(1).all();
            assert!(text.contains("unreachable"), "{section}: {text}");
            assert!(harness.mark(&account).is_null());
        });
    }
    runs.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_in_use_is_refused() {
    let harness = Harness::start().await;
    let (ann, account) = harness.user("ann");
    let (okta, auth0) = (harness.sandbox.okta(), harness.sandbox.auth0());
    let mut daemon = harness.daemon();
    daemon.until("its first request", okta.journal().wait_for(|requests| !requests.is_empty())).await;
    for arguments in [&["sync"][..], &["run"]] {
        let ran = harness.run(arguments).await;
        assert!(ran.exits(75).err.contains("is in use by another okta-auth0-sync process"), "{}", ran.err);
        let holder = format!("(pid {})", daemon.id());
        assert!(ran.err.contains(&holder), "names the holder: {holder}: {}", ran.err);
    }
    // The first process is not disturbed.
    okta.deactivate(&ann);
    daemon.until("a denial", auth0.journal().wait_for(|_| !auth0.login(&account).is_granted())).await;
    daemon.stop().await;
    harness.sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_state_is_refused() {
    let harness = Harness::start().await;
    harness.sync().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(harness.state());
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time)
         SELECT 9999, 'from the future', installed_on, success, checksum, execution_time FROM _sqlx_migrations LIMIT 1",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();

    let (ann, account) = harness.user("ann");
    harness.sandbox.okta().deactivate(&ann);
    let asked = harness.sandbox.okta().journal().total();
    for arguments in [&["sync"][..], &["run"], &["status"]] {
        let ran = harness.run(arguments).await;
        assert!(ran.exits(78).all().contains("schema 9999"), "{arguments:?}: {}", ran.all());
        assert!(
            ran.all().contains("newer okta-auth0-sync wrote it; install that version"),
            "{arguments:?}: {}",
            ran.all()
        );
    }
    assert_eq!(harness.sandbox.okta().journal().total(), asked, "no call was made");
    assert!(harness.mark(&account).is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn daemon_survives_revoked_credential() {
    let harness = Harness::start().await;
    let (ann, account) = harness.user("ann");
    let (okta, auth0) = (harness.sandbox.okta(), harness.sandbox.auth0());
    let mut daemon = harness.daemon();
    let read = |request: &Recorded| request.path.starts_with("/api/v1/logs") && request.status == Some(200);
    daemon.until("a page", okta.journal().wait_for(|requests| requests.iter().any(read))).await;

    okta.revoke_token();
    okta.deactivate(&ann);
    let refused = |request: &Recorded| request.status == Some(401);
    daemon.until("a refusal", okta.journal().wait_for(|requests| requests.iter().any(refused))).await;
    assert!(auth0.login(&account).is_granted(), "the event cannot be known yet");

    okta.restore_token();
    daemon.until("a denial", auth0.journal().wait_for(|_| !auth0.login(&account).is_granted())).await;
    daemon.stop().await;
}
