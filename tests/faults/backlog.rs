//! A backlog of several pages: a pass reads it to the end, whatever size the pages have and wherever it is interrupted.

use okta_auth0_sync::engine::PassError;
use okta_auth0_sync_sandbox::{Effect, Fault, PathMatch};
use serde_json::json;

use super::harness::{LOGS, answer, s, start};
use crate::world::World;

/// Adds events about users that Okta does not have; they only fill pages.
fn fill(world: &World, count: usize) {
    let before = world.okta().log_entries().len();
    for number in before..before + count {
        world.okta().push_log_entry(json!({
            "uuid": format!("event-{number}"), "published": "2026-01-01T00:00:00.000Z", "outcome": { "result": "SUCCESS" },
            "eventType": "user.lifecycle.create", "target": [{ "type": "User", "id": format!("00u{number}") }],
        }));
    }
}

/// How many events of the log the store does not have.
async fn missing(world: &World) -> usize {
    let stored = world.store().recent_events(None, 100_000).await.unwrap();
    let stored: std::collections::BTreeSet<String> = stored.into_iter().map(|event| event.event_id).collect();
    let log = world.okta().log_entries();
    log.iter().filter(|entry| !stored.contains(entry["uuid"].as_str().unwrap())).count()
}

fn refused_cursor() -> Fault {
    let effect = answer(400, json!({ "errorCode": "E0000001", "errorSummary": "refused", "errorCauses": [] }));
    Fault { path: PathMatch::Contains("after=".to_owned()), ..Fault::new("GET", LOGS, effect) }
}

#[tokio::test]
async fn short_pages_are_read_to_the_end() {
    let world = start().await;
    world.okta().set_log_page_max(Some(6));
    let mut users = Vec::new();
    for number in 0..11 {
        users.push(world.leaver(&format!("user{number}")));
    }
    let pass = world.try_poll().await.unwrap();
    assert_eq!(missing(&world).await, 0, "one pass reads the whole log: {pass:?}");
    world.denies(&users).await;
}

#[tokio::test]
async fn unlinked_page_fails_the_pass() {
    let world = start().await;
    let ann = world.leaver("ann");
    world.try_poll().await.unwrap();
    let bob = world.leaver("bob");
    let before = world.store().checkpoint().await.unwrap().unwrap();
    let polled = world.store().status().await.unwrap().unwrap().last_poll_ok_at;
    world.clock.advance(s(60));
    world.okta_fault("GET", LOGS, Effect::ReplaceHeader { name: "link".to_owned(), value: None }, 1);
    let error = world.try_poll().await.unwrap_err();
    assert!(error.to_string().contains("no next link"), "{error}");
    let after = world.store().checkpoint().await.unwrap().unwrap();
    assert_eq!((after.next, after.anchor_at), (before.next, before.anchor_at));
    assert_eq!(world.store().status().await.unwrap().unwrap().last_poll_ok_at, polled, "not a good poll");
    world.process_queue().await;
    assert!(world.denied(&ann) && world.denied(&bob), "the events of the page count all the same");
}

#[tokio::test]
async fn lost_cursor_restarts_behind_the_backlog() {
    let world = start().await;
    world.try_poll().await.unwrap();
    // The daemon is off for a day, and a backlog of several pages arrives.
    fill(&world, 1200);
    world.clock.advance(s(86_400));
    fill(&world, 995);
    let ann = world.leaver("ann");
    world.okta().faults().add(Fault::status("GET", LOGS, 500).skip(1).times(2));
    for _ in 0..2 {
        assert!(world.try_poll().await.is_err());
        world.clock.advance(s(31));
    }
    assert!(missing(&world).await > 1000, "the pass stopped inside the backlog");
    world.okta().faults().add(refused_cursor().times(2));
    world.try_poll().await.unwrap();
    assert_eq!(missing(&world).await, 0);
    world.denies(&[ann]).await;
    assert_eq!(world.alarms_of_kind("gap").await.len(), 0, "nothing can have been missed");
}

#[tokio::test]
async fn cut_pages_are_requested_smaller() {
    let world = start().await;
    world.try_poll().await.unwrap();
    fill(&world, 1500);
    let ann = world.leaver("ann");
    // A proxy that lets no body of more than 20 KB through.
    world.okta().faults().add(Fault::new("GET", LOGS, Effect::CutBodyOver(20_000)));
    world.try_poll().await.unwrap();
    assert_eq!(missing(&world).await, 0);
    world.denies(&[ann]).await;
    world.okta().faults().clear();
    // Without the proxy, pages grow back.
    fill(&world, 9000);
    world.try_poll().await.unwrap();
    let last = world.pages().pop().unwrap().query;
    assert!(last.contains("limit=1000"), "{last}");
    assert_eq!(missing(&world).await, 0);
}

#[tokio::test]
async fn page_cut_at_any_size_fails_the_pass() {
    let world = start().await;
    world.try_poll().await.unwrap();
    let ann = world.leaver("ann");
    world.okta().faults().add(Fault::new("GET", LOGS, Effect::CutBodyOver(100)));
    let before = world.pages().len();
    let error = world.try_poll().await.unwrap_err();
    assert!(matches!(&error, PassError::Failed(_)), "{error}");
    assert_eq!(world.pages().len() - before, 10, "1000, 500, 250, 125, 62, 31, 15, 7, 3 and 1");
    let before = world.pages().len();
    assert!(world.try_poll().await.is_err());
    assert_eq!(world.pages().len() - before, 1, "the next pass does not begin with the largest page");
    world.okta().faults().clear();
    world.denies(&[ann]).await;
}

#[tokio::test]
async fn oversized_event_does_not_stop_the_log() {
    let world = start().await;
    world.try_poll().await.unwrap();
    fill(&world, 20);
    let huge = "x".repeat(65 << 20);
    world.okta().push_log_entry(json!({ "uuid": "huge", "eventType": "user.lifecycle.deactivate",
        "published": "2026-11-23T10:00:00.000Z", "outcome": { "result": "SUCCESS" }, "target": [],
        "debugContext": { "debugData": { "text": huge } } }));
    world.clock.advance(s(3600));
    fill(&world, 20);
    let ann = world.leaver("ann");
    world.try_poll().await.unwrap();
    world.denies(&[ann]).await;
    let gaps = world.alarms_of_kind("gap").await;
    assert!(gaps.len() == 1 && gaps[0].detail.contains("too large to read"), "the alarm names the range: {gaps:?}");
    assert!(world.store().current_reconcile().await.unwrap().is_some_and(|run| run.is_full()));
}
