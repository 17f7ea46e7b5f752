//! The store against a real file.

use std::time::Duration;

use super::*;
use crate::domain::event::EventUser;
use crate::domain::{Cause, Event, Lane, OktaUserId, Outcome, Status, Timestamp, clock};

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
    }
}

fn page<'a>(expected_seq: i64, events: &'a [Event]) -> Page<'a> {
    Page {
        expected_seq,
        events,
        quarantined: &[],
        next: Some("/api/v1/logs?after=1"),
        fingerprint: "f",
        server_time: noon(),
    }
}

fn finish<'a>(user: &'a OktaUserId, claimed_seq: i64, outcome: &'a Outcome) -> LookFinish<'a> {
    LookFinish {
        user,
        claimed_seq,
        read: None,
        outcome,
        depends_on: None,
        next_look: None,
        recheck_step: 0,
        decisions: &[],
        accounts: &[],
        belated_event: None,
        wake_dependants: false,
        wake_sharers: false,
        forget_guard: false,
        alarms: &[],
        policy: "p",
    }
}

#[tokio::test]
async fn a_page_makes_its_users_due_once_and_a_second_time_nothing() {
    let (_dir, store) = store().await;
    let events = [
        event(1, "u1", "deactivate"),
        event(2, "u2", "activate"),
        event(3, "u1", "delete.initiated"),
        event(4, "u3", "create"),
    ];
    let recorded = store.record_page(page(0, &events), noon()).await.unwrap();
    assert_eq!((recorded.seq, recorded.new_events, recorded.made_due), (1, 4, 2));
    let again = store.record_page(page(1, &events), noon()).await.unwrap();
    assert_eq!((again.new_events, again.made_due), (0, 0));

    let due = store.due(noon(), 10).await.unwrap();
    assert_eq!(
        due,
        [DueUser { id: id("u1"), lane: Lane::Deactivation }, DueUser { id: id("u2"), lane: Lane::Reactivation }]
    );
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    assert_eq!((look.claimed_seq, look.events.len(), look.cause, look.left_seen), (2, 2, Cause::Event, true));
    assert_eq!(look.addresses.len(), 1);
    let status = store.status().await.unwrap().unwrap();
    assert_eq!((status.pending, status.failed, status.needs_attention), (2, 0, false));
}

#[tokio::test]
async fn a_page_on_an_outdated_checkpoint_stores_nothing() {
    let (_dir, store) = store().await;
    store.record_page(page(0, &[]), noon()).await.unwrap();
    for outdated in [0, 5] {
        let error = store.record_page(page(outdated, &[event(1, "u1", "deactivate")]), noon()).await.unwrap_err();
        assert!(matches!(error, StoreError::CheckpointMoved { .. }), "{error}");
    }
    assert_eq!(store.due(noon(), 10).await.unwrap(), []);
    assert_eq!(store.checkpoint().await.unwrap().unwrap().seq, 1);
}

#[tokio::test]
async fn a_reason_that_arrives_during_a_look_is_not_settled_by_it() {
    let (_dir, store) = store().await;
    store.record_page(page(0, &[event(1, "u1", "activate")]), noon()).await.unwrap();
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    store.record_page(page(1, &[event(2, "u1", "deactivate")]), noon()).await.unwrap();
    let finished = store.finish_look(finish(&id("u1"), look.claimed_seq, &Outcome::Unchanged), noon()).await.unwrap();
    assert!(finished.due_again);
    assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
    let outcomes: Vec<String> =
        store.recent_events(None, 10).await.unwrap().into_iter().map(|event| event.outcome).collect();
    assert_eq!(outcomes, ["pending", "unchanged"]);
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    let finished = store.finish_look(finish(&id("u1"), look.claimed_seq, &Outcome::Applied), noon()).await.unwrap();
    assert!(!finished.due_again);
    assert_eq!(store.due(noon(), 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_failed_look_comes_back_when_it_said() {
    let (_dir, store) = store().await;
    store.record_page(page(0, &[event(1, "u1", "deactivate")]), noon()).await.unwrap();
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    let later = clock::add(noon(), Duration::from_secs(60));
    let outcome = Outcome::Retry { after: Duration::from_secs(60), why: "auth0 said 500".to_owned() };
    let end = LookFinish { next_look: Some(later), ..finish(&look.id, look.claimed_seq, &outcome) };
    store.finish_look(end, noon()).await.unwrap();
    assert_eq!(store.due(noon(), 10).await.unwrap(), []);
    assert_eq!(store.due(later, 10).await.unwrap().len(), 1);
    assert_eq!(store.begin_look(&look.id, later).await.unwrap().attempts, 1);
    // A clock that was set back by a day must not make anybody wait a day.
    assert_eq!(store.due(at("2026-11-22T12:00:00Z"), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_held_user_waits_for_a_person_and_is_approved() {
    let (_dir, store) = store().await;
    store.record_page(page(0, &[event(1, "u1", "deactivate")]), noon()).await.unwrap();
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    let outcome = Outcome::Held(crate::domain::Held::Guard);
    store.finish_look(finish(&look.id, look.claimed_seq, &outcome), noon()).await.unwrap();
    assert_eq!(store.due(at("2027-11-23T12:00:00Z"), 10).await.unwrap(), []);
    let status = store.status().await.unwrap().unwrap();
    assert_eq!((status.pending, status.held, status.needs_attention), (0, 1, true));
    let made = store.approve(Who::Held, noon()).await.unwrap();
    assert_eq!(made.len(), 1);
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    assert!(look.approved);
    store.finish_look(finish(&look.id, look.claimed_seq, &Outcome::Applied), noon()).await.unwrap();
    assert!(!store.begin_look(&id("u1"), noon()).await.unwrap().approved);
    assert!(store.progress(&[id("u1")]).await.unwrap()[0].looked_seq >= made[0].due_seq);
}

#[tokio::test]
async fn the_guard_counts_a_user_once_in_a_window() {
    let (_dir, store) = store().await;
    let events: Vec<Event> = (1..=3).map(|n| event(n, &format!("u{n}"), "deactivate")).collect();
    store.record_page(page(0, &events), noon()).await.unwrap();
    let guard = looks::GuardWindow { denials_max: 1, span: Duration::from_secs(3600) };
    let read = looks::UserRead { login: None, email: None, status: Status::Deprovisioned, addresses: vec![] };
    let later = clock::add(noon(), Duration::from_secs(3601));
    assert_eq!(store.prepare_denial(&id("u1"), &read, false, false, guard, noon()).await.unwrap(), Admission::Admitted);
    assert_eq!(store.prepare_denial(&id("u1"), &read, false, false, guard, noon()).await.unwrap(), Admission::Admitted);
    assert_eq!(
        store.prepare_denial(&id("u2"), &read, false, false, guard, noon()).await.unwrap(),
        Admission::Refused(1)
    );
    assert_eq!(store.prepare_denial(&id("u2"), &read, true, false, guard, noon()).await.unwrap(), Admission::Admitted);
    assert_eq!(store.prepare_denial(&id("u3"), &read, false, true, guard, noon()).await.unwrap(), Admission::Admitted);
    assert_eq!(store.prepare_denial(&id("u3"), &read, false, false, guard, later).await.unwrap(), Admission::Admitted);
}

#[tokio::test]
async fn decisions_are_only_appended_and_proven() {
    let (_dir, store) = store().await;
    store.record_page(page(0, &[event(1, "u1", "deactivate")]), noon()).await.unwrap();
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    let decisions: Vec<Decision> = (0..3)
        .map(|n| Decision {
            okta_user_id: Some("u1".to_owned()),
            cause: "event".to_owned(),
            auth0_user_id: Some(format!("auth0|{n}")),
            outcome: "applied".to_owned(),
            lag_ms: Some(n),
            ..Decision::default()
        })
        .collect();
    let end = LookFinish { decisions: &decisions, ..finish(&look.id, look.claimed_seq, &Outcome::Applied) };
    store.finish_look(end, noon()).await.unwrap();
    assert_eq!(store.verify_decisions().await.unwrap().rows, 3);
    for tampering in ["UPDATE decision_log SET outcome = 'x' WHERE id = 2", "DELETE FROM decision_log WHERE id = 2"] {
        assert!(
            sqlx::query(tampering).execute(store.writer()).await.unwrap_err().to_string().contains("only appended")
        );
    }
    sqlx::query("UPDATE decision_log_gate SET open = 1").execute(store.writer()).await.unwrap();
    sqlx::query("UPDATE decision_log SET outcome = 'x' WHERE id = 2").execute(store.writer()).await.unwrap();
    assert!(store.verify_decisions().await.unwrap_err().to_string().contains("row 2"));
    sqlx::query("DELETE FROM decision_log WHERE id = 2").execute(store.writer()).await.unwrap();
    assert!(store.verify_decisions().await.unwrap_err().to_string().contains("row 3"));
    let status = store.status().await.unwrap().unwrap();
    assert_eq!(status.lag_max_s, Some(0.002));
}

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
