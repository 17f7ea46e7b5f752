//! The store against real files.

mod alarms;
mod backup;
mod evidence;
mod files;
mod forgetting;
mod full;
mod intake;
mod interleavings;
mod looks;
mod opening;
mod schema;
mod views;

use std::time::Duration;

use super::*;
use crate::domain::decide::Conclusion;
use crate::domain::event::EventUser;
use crate::domain::{Cause, Event, Lane, OktaUserId, Outcome, Status, Timestamp, UserRead, Wake, clock};

fn at(text: &str) -> Timestamp {
    clock::parse_timestamp(text).unwrap()
}

fn noon() -> Timestamp {
    at("2026-11-23T12:00:00Z")
}

fn id(text: &str) -> OktaUserId {
    OktaUserId::parse(text).unwrap()
}

fn binding() -> Binding {
    Binding {
        okta_url: "https://acme.okta.com".to_owned(),
        auth0_url: "https://acme.eu.auth0.com".to_owned(),
        auth0_audience: "https://acme.eu.auth0.com/api/v2/".to_owned(),
        enforce: true,
        policy: "deny=DEPROVISIONED".to_owned(),
        former_keys: Vec::new(),
    }
}

async fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let (store, opened) = Store::open(&dir.path().join("state.db"), &binding(), noon()).await.unwrap();
    assert!(opened.created);
    (dir, store)
}

fn event(number: u32, user: &str, kind: &str) -> Event {
    Event {
        id: format!("event-{number}"),
        event_type: format!("user.lifecycle.{kind}"),
        published: noon(),
        actor: Some("admin@example.com".to_owned()),
        users: vec![EventUser { id: id(user), login: Some(format!("{user}@example.com")) }],
        succeeded: true,
    }
}

fn page<'a>(expected_seq: i64, events: &'a [Event]) -> Page<'a> {
    Page {
        expected_seq,
        events,
        quarantined: &[],
        next: Some("/api/v1/logs?after=1"),
        fingerprint: "f",
        anchor_at: noon(),
        creation_matters: false,
        is_good: true,
    }
}

fn finish<'a>(user: &'a OktaUserId, claimed_seq: i64, outcome: &'a Outcome) -> LookFinish<'a> {
    LookFinish {
        user,
        claimed_seq,
        read: None,
        outcome,
        depends_on: None,
        decisions: &[],
        accounts: &[],
        belated_event: None,
        conclusion: Conclusion::default(),
        alarms: &[],
        policy: "p",
    }
}

/// The conclusion of a look whose only consequence is the next look.
fn again_at(next_look: Option<Timestamp>) -> Conclusion {
    Conclusion { next_look, ..Conclusion::default() }
}

/// The result of a look for an account, with default details.
fn account(id: &str, denied: bool) -> AccountChange {
    AccountChange {
        id: crate::domain::AccountId::new(id),
        email: None,
        connection: None,
        denied,
        blocked: denied,
        denied_at: None,
        event_id: None,
        published: None,
        lag_ms: None,
        sessions_owed: false,
        former_key: None,
    }
}

async fn execute(store: &Store, sql: &'static str) -> Result<u64, sqlx::Error> {
    sqlx::query(sql).execute(store.writer()).await.map(|done| done.rows_affected())
}

/// Records a page with these events after the current checkpoint.
async fn record_events(store: &Store, events: &[Event]) -> Recorded {
    let seq = store.checkpoint().await.unwrap().map_or(0, |checkpoint| checkpoint.seq);
    store.record_page(page(seq, events), noon()).await.unwrap()
}

/// Runs one look with this outcome.
async fn look_at(store: &Store, user: &str, outcome: &Outcome, now: Timestamp) -> Finished {
    let look = store.begin_look(&id(user), now).await.unwrap();
    let next_look = matches!(outcome, Outcome::Failed(_)).then(|| clock::add(now, Duration::from_secs(86_400)));
    let end = LookFinish { conclusion: again_at(next_look), ..finish(&look.id, look.claimed_seq, outcome) };
    store.finish_look(end, now).await.unwrap()
}

async fn user_row(store: &Store, user: &str) -> UserRow {
    store.find_users(user).await.unwrap().remove(0)
}

/// Approves every held user for the present reason.
async fn approve_held(store: &Store, now: Timestamp) -> Vec<Requested> {
    let held = store.held().await.unwrap();
    store.approve(Approval { held: &held, by: "command (tests)", reason: None, policy: "p" }, now).await.unwrap()
}
