//! What an auditor reads: each decision with its evidence, and how to find it in Okta's log and in Auth0's.

use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync::engine::reconciler::Scope;
use okta_auth0_sync::store::DecisionRow;
use okta_auth0_sync_sandbox::Fault;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio_util::sync::CancellationToken;

use crate::world::{DAY, World};

/// The decisions about this user with this outcome.
async fn decisions(world: &World, who: &OktaUserId, outcome: &str) -> Vec<DecisionRow> {
    let mut rows = world.store().decisions(Some(who), None, 0, 100).await.unwrap();
    rows.retain(|row| row.outcome == outcome);
    rows
}

/// The latest decision with this outcome.
async fn decision(world: &World, who: &OktaUserId, outcome: &str) -> DecisionRow {
    decisions(world, who, outcome).await.pop().unwrap_or_else(|| panic!("nothing was {outcome} for {who}"))
}

/// The id of the last entry of this type about this user in Okta's log.
fn logged(world: &World, who: &OktaUserId, kind: &str) -> String {
    let entries = world.okta().log_entries();
    let entry =
        entries.iter().rev().find(|entry| entry["eventType"] == kind && entry["target"][0]["id"] == who.as_str());
    entry.unwrap()["uuid"].as_str().unwrap().to_owned()
}

fn states(row: &DecisionRow) -> (&str, &str) {
    (row.before.as_deref().unwrap(), row.after.as_deref().unwrap())
}

#[tokio::test]
async fn decision_links_okta_event_to_auth0_log() {
    let world = World::with(|setup| setup.options.rules.mark.block = true).await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.sync().await;
    for (kind, outcome, before, after, status, verdict) in [
        ("user.lifecycle.deactivate", "applied", "open", "denied, blocked", "DEPROVISIONED", "deny"),
        ("user.lifecycle.activate", "applied", "denied, blocked", "open", "ACTIVE", "allow"),
    ] {
        world.clear_journals();
        if kind.ends_with("deactivate") {
            world.leaves(&ann).await
        } else {
            world.returns(&ann).await
        };
        let row = decision(&world, &ann, outcome).await;
        assert_eq!(states(&row), (before, after), "{row:?}");
        assert_eq!((row.status.as_deref(), row.verdict.as_deref()), (Some(status), Some(verdict)), "{row:?}");
        assert_eq!(row.auth0_user_id.as_deref(), Some(account.as_str()));
        assert_eq!(row.email.as_deref(), Some("ann@example.com"));
        assert_eq!(row.why, None, "{row:?}");
        assert!(row.actor.is_some(), "who did it in Okta: {row:?}");
        assert_eq!(row.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(row.policy, world.options.rules.policy.fingerprint());
        // The entry in Okta's log, and the write in Auth0's log: by its request id and by our correlation id.
        assert_eq!(row.event_id.as_deref(), Some(logged(&world, &ann, kind).as_str()));
        let requests = world.auth0().journal().requests();
        let writes: Vec<_> = requests.iter().filter(|request| request.method == "PATCH").collect();
        assert_eq!(writes.len(), 1);
        assert!(row.request_id.is_some() && row.request_id == writes[0].request_id, "{row:?}: {:?}", writes[0]);
        assert_eq!(writes[0].correlation_id, row.event_id);
    }
}

#[tokio::test]
async fn eventless_write_correlates_by_user() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.auth0().set_user(&account, |user| user["app_metadata"] = json!({}));
    world.clear_journals();
    world.passes(DAY);
    world.reconcile().await;
    let row = decision(&world, &ann, "restored").await;
    assert_eq!(states(&row), ("denied by mirror only", "denied"), "{row:?}");
    let requests = world.auth0().journal().requests();
    let write = requests.iter().find(|request| request.method == "PATCH").unwrap();
    assert_eq!(row.request_id, write.request_id);
    // The mark names the event of the denial if it is still known, otherwise the user.
    let mark = world.mark(&account);
    let named = mark["event_id"].as_str().unwrap_or(ann.as_str());
    assert_eq!(write.correlation_id.as_deref(), Some(named));
}

#[tokio::test]
async fn skipped_accounts_have_reasons() {
    let world = World::with(|setup| {
        setup.options.rules.connections = vec!["Username-Password-Authentication".to_owned()];
        setup.options.rules.require_verified_email = true;
    })
    .await;
    let ann = world.user("ann@example.com");
    let outside = world.auth0().create_user(json!({
        "connection": "google-oauth2", "email": "ann@example.com", "email_verified": true,
    }));
    let unverified = world.auth0().create_user(json!({ "email": "ann@example.com", "email_verified": false }));
    world.leaves(&ann).await;
    let mut skipped: Vec<_> = decisions(&world, &ann, "skipped")
        .await
        .into_iter()
        .map(|row| {
            assert_eq!(states(&row), ("open", "open"), "{row:?}");
            assert_eq!(row.request_id, None, "nothing was written: {row:?}");
            (row.auth0_user_id.unwrap(), row.why.unwrap())
        })
        .collect();
    skipped.sort();
    let mut expected =
        vec![(outside, "connection_out_of_scope".to_owned()), (unverified, "email_not_verified".to_owned())];
    expected.sort();
    assert_eq!(skipped, expected);
    assert_eq!(world.writes(), 0);
}

#[tokio::test]
async fn correct_account_is_unchanged() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.request(&ann).await;
    let row = decision(&world, &ann, "unchanged").await;
    assert_eq!((states(&row), row.request_id.as_deref()), (("denied", "denied"), None), "{row:?}");
    // Deleted in Auth0 since: there is nothing left to deny.
    assert!(world.auth0().delete_user(&account));
    world.request(&ann).await;
    let row = decision(&world, &ann, "unchanged").await;
    assert_eq!(row.auth0_user_id.as_deref(), Some(account.as_str()), "{row:?}");
    assert_eq!(row.after.as_deref(), Some("gone"), "{row:?}");
    assert_eq!(row.why.as_deref(), Some("the account no longer exists"), "{row:?}");
}

#[tokio::test]
async fn unknown_mark_is_confirmed() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    world.sync().await;
    world.okta().deactivate(&ann);
    let event = logged(&world, &ann, "user.lifecycle.deactivate");
    // Written by a process that died before it could record it.
    let account = world.auth0().create_user(json!({
        "email": "ann@example.com", "email_verified": true,
        "app_metadata": { "okta_sync": {
            "deactivated": "true", "okta_user_id": ann.as_str(), "status": "DEPROVISIONED",
            "at": "2026-03-02T08:00:05.000Z", "event_id": event,
        } },
        "user_metadata": { "okta": { "deactivated": "true" } },
    }));
    world.sync().await;
    assert_eq!(world.writes(), 0);
    let row = decision(&world, &ann, "confirmed").await;
    assert_eq!((states(&row), row.auth0_user_id.as_deref()), (("denied", "denied"), Some(account.as_str())), "{row:?}");
    let known = world.store().accounts_of(&ann).await.unwrap().remove(0);
    assert!(known.denied);
    assert_eq!(known.denied_at.as_deref(), Some("2026-03-02T08:00:05.000Z"), "since when the mark says");
    assert!(known.lag_s.is_some_and(|lag| (0.0..6.0).contains(&lag)), "{known:?}");
    assert_eq!(known.event_id.as_deref(), Some(event.as_str()));
}

/// The view `runs`, oldest first: kind, work and end of each run.
async fn runs(world: &World) -> Vec<(String, i64, i64, i64, bool, Option<String>)> {
    let options = SqliteConnectOptions::new().filename(world.store().path()).read_only(true);
    let mut state = options.connect().await.unwrap();
    let rows =
        sqlx::query_as("SELECT kind, pages, events, looks, ok, error FROM runs ORDER BY started_at, finished_at")
            .fetch_all(&mut state)
            .await
            .unwrap();
    state.close().await.unwrap();
    rows
}

#[tokio::test]
async fn pass_with_work_records_counts() {
    let world = World::new().await;
    let users: Vec<_> = (0..3).map(|number| world.user(&format!("p{number}@example.com"))).collect();
    world.sync().await;
    let before = runs(&world).await.len();
    world.sync().await;
    world.engine().reconcile(&CancellationToken::new()).await.unwrap();
    assert_eq!(
        runs(&world).await.len(),
        before,
        "a quiet pass records no run, and neither does a reconcile that did not start"
    );
    world.passes(DAY);
    for who in &users[..2] {
        world.okta().deactivate(who);
    }
    world.sync().await;
    let row = runs(&world).await.pop().unwrap();
    assert_eq!((row.0.as_str(), row.1, row.4, row.5), ("poll", 2, true, None));
    assert_eq!(row.2, 2, "events");
    // One user left unseen: the reconcile queues one look.
    world.passes(DAY);
    world.account("p2@example.com");
    world.okta().deactivate_silently(&users[2]);
    world.reconcile().await;
    let row = runs(&world).await.pop().unwrap();
    assert_eq!((row.0.as_str(), row.3, row.4), ("reconcile", 1, true));
    // A run that failed says why.
    world.passes(DAY);
    world.okta().faults().add(Fault::status("GET", "/api/v1/users", 403));
    world.engine().begin_reconcile(Scope::All, "a test").await.unwrap();
    world.engine().reconcile(&CancellationToken::new()).await.unwrap_err();
    let row = runs(&world).await.pop().unwrap();
    assert_eq!((row.0.as_str(), row.4), ("reconcile", false));
    assert!(row.5.as_deref().is_some_and(|error| error.contains("403")), "{row:?}");
}
