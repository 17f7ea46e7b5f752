//! One stored state of each schema version: the current program opens it, answers from it, and continues from it.
//!
//! `tests/golden/state-NNNN.db` is a state after migration NNNN. `OKTA_AUTH0_SYNC_GOLDEN=write` rewrites the one of the last
//! migration; the others never change.

use std::fs;
use std::path::{Path, PathBuf};

use okta_auth0_sync::domain::{Clock, OktaUserId, SystemClock};
use okta_auth0_sync::store::{Binding, Store};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::harness::Harness;

/// The users of every golden state, in the order of their creation. The stand-ins derive ids from a seed, so the users are
/// the same each time.
struct Cast {
    denied: (OktaUserId, String),
    returned: (OktaUserId, String),
    without_account: OktaUserId,
    unknown_status: OktaUserId,
    stays: (OktaUserId, String),
}

impl Cast {
    fn enter(harness: &Harness) -> Self {
        Self {
            denied: harness.user("denied"),
            returned: harness.user("returned"),
            without_account: harness.okta_user("without-account@example.com"),
            unknown_status: harness.user("unknown-status").0,
            stays: harness.user("stays"),
        }
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The numbers of the migrations, in order.
fn migrations() -> Vec<String> {
    let folder = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut numbers: Vec<String> =
        names.filter(|name| name.ends_with(".sql")).map(|name| name.split('_').next().unwrap().to_owned()).collect();
    numbers.sort();
    numbers
}

/// Writes a golden state: a denial, a return, and everything else that the state stores.
async fn write(file: &Path) {
    let harness = Harness::start().await;
    let cast = Cast::enter(&harness);
    let okta = harness.sandbox.okta();
    harness.sync().await;
    for id in [&cast.denied.0, &cast.returned.0, &cast.without_account] {
        okta.deactivate(id);
    }
    harness.sync().await;
    okta.activate(&cast.returned.0);
    okta.set_status(&cast.unknown_status, "ON_LEAVE", None);
    okta.push_log_entry(json!({ "uuid": "unreadable", "published": "never", "target": null,
        "eventType": "user.lifecycle.deactivate" }));
    harness.run(&["reconcile", "--all"]).await;
    harness.run(&["sync"]).await;
    let _ = fs::remove_file(file);
    harness.run(&["backup", file.to_str().unwrap()]).await.exits(0);
}

fn user(story: &str) -> Value {
    serde_json::from_str::<Value>(story).unwrap()["person"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_states_of_each_schema_open() {
    let numbers = migrations();
    if std::env::var_os("OKTA_AUTH0_SYNC_GOLDEN").is_some_and(|value| value == "write") {
        fs::create_dir_all(golden()).unwrap();
        write(&golden().join(format!("state-{}.db", numbers.last().unwrap()))).await;
    }
    for number in &numbers {
        let kept = golden().join(format!("state-{number}.db"));
        let harness = Harness::start().await;
        let cast = Cast::enter(&harness);
        fs::copy(&kept, harness.state()).unwrap_or_else(|error| panic!("{}: {error}", kept.display()));
        bind(&harness).await;
        if Some(number) != numbers.last() {
            // Only `run` and `sync` migrate a state.
            let told = harness.run(&["status"]).await;
            assert!(told.exits(1).err.contains("start `run` or `sync` once, which migrates it"), "{}", told.all());
            take_up(&harness).await;
        }

        // What it answers without a call to a tenant.
        let status = harness.run(&["status", "--json"]).await;
        let status: Value = serde_json::from_str(&status.exits(0).out).unwrap();
        assert_eq!((&status["denied"], &status["quarantined"]), (&1.into(), &1.into()), "{number}: {status:#}");
        let story = harness.run(&["user", "denied@example.com", "--json"]).await;
        let told = user(&story.exits(0).out);
        assert_eq!((&told["okta_user_id"], &told["status"]), (&cast.denied.0.as_str().into(), &"DEPROVISIONED".into()));
        assert!(story.out.contains(&cast.denied.1), "{number}: {}", story.out);
        let proven = harness.run(&["audit", "verify"]).await;
        assert!(proven.exits(0).out.contains("decisions are unchanged"), "{number}: {}", proven.out);
        let before = harness.run(&["audit", "export", "--format", "jsonl"]).await.out;
        assert!(before.lines().count() >= 4, "{number}: {before}");

        // What the program does with it: these tenants do not have the marks of the old ones.
        let okta = harness.sandbox.okta();
        for id in [&cast.denied.0, &cast.without_account] {
            okta.deactivate_silently(id);
        }
        let reconciled = harness.run(&["reconcile", "--all"]).await.out;
        assert_eq!(
            harness.shut_out(),
            [cast.denied.1.clone()].into(),
            "{number}: exactly the denied users are denied again\n{reconciled}"
        );
        okta.deactivate(&cast.stays.0);
        okta.activate(&cast.denied.0);
        okta.activate(&cast.without_account);
        harness.run(&["sync"]).await;
        assert_eq!(harness.shut_out(), [cast.stays.1.clone()].into(), "{number}: the log continues");
        assert!(harness.mark(&cast.returned.1)["deactivated"] != "true", "{number}");

        let after = harness.run(&["audit", "export", "--format", "jsonl"]).await.out;
        assert!(after.starts_with(&before), "{number}: the old decisions are unchanged");
        harness.run(&["audit", "verify"]).await.exits(0);
    }
}

/// Migrates the state, as a start does before the first call.
async fn take_up(harness: &Harness) {
    let mut state = SqliteConnectOptions::new().filename(harness.state()).connect().await.unwrap();
    let (okta_url, auth0_url, auth0_audience, enforce, policy): (String, String, String, bool, String) =
        sqlx::query_as("SELECT okta_url, auth0_url, auth0_audience, enforce, policy FROM installation")
            .fetch_one(&mut state)
            .await
            .unwrap();
    state.close().await.unwrap();
    let binding = Binding { okta_url, auth0_url, auth0_audience, enforce, policy, former_keys: Vec::new() };
    let (store, opened) = Store::open(&harness.state(), &binding, SystemClock::new().now()).await.unwrap();
    assert!(opened.migrated_from.is_some_and(|copy| copy.exists()));
    store.close().await;
}

/// The stand-ins have new addresses each time: binds the state to them.
async fn bind(harness: &Harness) {
    let url = |text: &str| text.trim_end_matches('/').to_owned();
    let (okta, auth0) = (url(harness.sandbox.okta().url()), url(harness.sandbox.auth0().url()));
    let mut state = SqliteConnectOptions::new().filename(harness.state()).connect().await.unwrap();
    sqlx::query("UPDATE installation SET okta_url = ?1, auth0_url = ?2, auth0_audience = ?2 || '/api/v2/'")
        .bind(okta)
        .bind(auth0)
        .execute(&mut state)
        .await
        .unwrap();
    state.close().await.unwrap();
}
