//! Deliveries to addresses that work, and to one that does not.

use std::future::Future;
use std::sync::Arc;

use super::super::stage::{CapturedLogs, Stage, soon, start_time};
use super::*;
use crate::domain::ManualClock;
use crate::domain::mark::MarkOptions;
use crate::http::{Http, HttpOptions};
use crate::store::{Alarm, Evaluation};
use okta_auth0_sync_sandbox::{Fault, Sandbox};

/// A path that accepts messages, and one that does not exist.
const INBOX: &str = "/_sandbox/inbox";
const NOWHERE: &str = "/nowhere";

async fn stage(webhook: &'static str) -> Stage {
    let alert = |sandbox: &Sandbox| {
        let http = Http::new(&HttpOptions { user_agent: "test".to_owned(), ..HttpOptions::default() }).unwrap();
        let address = |path: &str| Some(format!("{}{path}", sandbox.auth0().url()).into());
        Alert::new(http, address(webhook), address("/beat"))
    };
    let clock = ManualClock::stepping(start_time());
    Stage::with(MarkOptions { mirror: true, block: false }, clock, |engine, sandbox| engine.with_alert(alert(sandbox)))
        .await
}

async fn raise(stage: &Stage) {
    let alarm = Alarm {
        momentary: false,
        kind: AlarmKind::PollLate,
        subject: String::new(),
        detail: "the log could not be read".to_owned(),
        remedy: "look".to_owned(),
    };
    stage.engine.store().raise_alarm(&alarm, start_time()).await.unwrap();
}

/// Runs the notifier until `seen` completes.
async fn notify_until(stage: &Stage, seen: impl Future<Output = ()>) {
    let (stop, engine) = (CancellationToken::new(), Arc::clone(&stage.engine));
    let token = stop.clone();
    tokio::join!(soon(engine.notify_loop(&stop)), async {
        soon(seen).await;
        token.cancel();
    });
}

async fn holds(condition: impl AsyncFn() -> bool) {
    while !condition().await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn alarm_is_delivered_once() {
    let stage = stage(INBOX).await;
    raise(&stage).await;
    let asked = || async { stage.engine.store().pending_notification().await.unwrap().is_none() };
    notify_until(&stage, holds(asked)).await;
    assert!(matches!(stage.engine.deliver_next(&mut Refusals::default()).await, Ok(Delivery::Nothing)));
}

#[tokio::test]
async fn failing_webhook_is_logged_once_and_retried() {
    let (stage, logs) = (stage(NOWHERE).await, CapturedLogs::new());
    stage.sandbox.auth0().faults().add(Fault::status("POST", NOWHERE, 503));
    raise(&stage).await;
    let journal = stage.sandbox.auth0().journal();
    notify_until(&stage, holds(async || journal.count("POST", NOWHERE) >= 4)).await;
    assert_eq!(logs.count("webhook_failed"), 1);
    assert!(stage.engine.store().pending_notification().await.unwrap().is_some());
}

#[tokio::test]
async fn refused_message_is_skipped_and_shown() {
    let (stage, logs) = (stage(NOWHERE).await, CapturedLogs::new());
    let store = stage.engine.store();
    store.note_evaluation(&Evaluation { webhook: true, ..Evaluation::default() }, start_time()).await.unwrap();
    raise(&stage).await;
    let journal = stage.sandbox.auth0().journal();
    let none_left = async || store.pending_notification().await.unwrap().is_none();
    notify_until(&stage, holds(none_left)).await;
    assert_eq!((journal.count("POST", NOWHERE), logs.count("webhook_refused")), (3, 1));
    let notifications = async || {
        let health = stage.engine.health().await.unwrap();
        health.obligations.into_iter().find(|one| one.name == "notifications").unwrap()
    };
    let missed = notifications().await;
    assert_eq!(missed.met, Some(false));
    assert!(missed.detail.contains("the webhook refused 1 message"), "{}", missed.detail);
    // The next one is not blocked, and its delivery ends it.
    stage.sandbox.auth0().faults().add(Fault::status("POST", NOWHERE, 200));
    store.clear_alarm(AlarmKind::PollLate, "", start_time()).await.unwrap();
    notify_until(&stage, holds(none_left)).await;
    assert_eq!(notifications().await.met, Some(true));
}

#[tokio::test]
async fn failing_heartbeat_is_one_warning() {
    let (stage, logs) = (stage(INBOX).await, CapturedLogs::new());
    let journal = stage.sandbox.auth0().journal();
    notify_until(&stage, async {
        for beats in 1..=3 {
            stage.engine.wakes.beat.notify_one();
            holds(async || journal.count("GET", "/beat") == beats).await;
        }
    })
    .await;
    assert_eq!(logs.count("heartbeat_failed"), 1);
}

#[tokio::test]
async fn each_good_pass_sends_a_heartbeat() {
    let stage = stage(INBOX).await;
    let journal = stage.sandbox.auth0().journal();
    notify_until(&stage, async {
        for beats in 1..=3 {
            stage.engine.wakes.beat.notify_one();
            holds(async || journal.count("GET", "/beat") == beats).await;
        }
    })
    .await;
}
