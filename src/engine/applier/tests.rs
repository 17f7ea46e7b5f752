//! Looks that panic, and the loop while the store fails.

use super::super::stage::{Stage, create_user, soon, start_time};
use super::*;
use crate::domain::mark::MarkOptions;
use crate::domain::{Clock, ManualClock, timestamp_text};
use okta_auth0_sync_sandbox::{Effect, Fault};

const PLAIN: MarkOptions = MarkOptions { mirror: true, block: false };
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn panic_counts_as_failed_attempt() {
    let stage = Stage::new(PLAIN).await;
    let (engine, stop) = (&stage.engine, CancellationToken::new());
    let ann = create_user(stage.sandbox.okta(), "ann@example.com", "ann@example.com");
    stage.sandbox.okta().deactivate(&ann);
    engine.poll(&stop).await.unwrap();
    let row = async || engine.store().find_users(ann.as_str()).await.unwrap().remove(0);
    for attempt in 1..=engine.options.max_attempts {
        let now = engine.clock().now();
        let start = engine.store().begin_look(&ann, now).await.unwrap();
        assert!(engine.note_panic(Some(&start)).await.unwrap().is_none());
        assert!(engine.store().due(now, 10).await.unwrap().is_empty(), "not retried at once");
        let expected = if attempt < engine.options.max_attempts { "retry" } else { "failed" };
        let row = row().await;
        assert_eq!(row.outcome.map(|outcome| outcome.as_str()), Some(expected), "attempt {attempt}");
        assert!(row.why.is_some_and(|why| why.contains("a bug in okta-auth0-sync")));
    }
    let tomorrow = clock::add(engine.clock().now(), DAY);
    assert_eq!(row().await.due_at, Some(timestamp_text(tomorrow)));
    engine.clock().sleep(DAY).await;
    engine.apply(Until::Idle(Duration::from_secs(1)), &stop).await.unwrap();
    assert_eq!(row().await.outcome.map(|outcome| outcome.as_str()), Some("no_account"));
}

#[tokio::test]
async fn store_failure_is_retried_until_cancelled() {
    let stage = Stage::new(PLAIN).await;
    let (engine, stop) = (stage.engine.clone(), CancellationToken::new());
    engine.store().close().await;
    let token = stop.clone();
    let applying = tokio::spawn(async move { engine.apply(Until::Stopped, &token).await });
    for _ in 0..100 {
        stage.engine.clock().sleep(STORE_AGAIN).await;
    }
    assert!(!applying.is_finished());
    stop.cancel();
    assert_eq!(applying.await.unwrap().unwrap(), Applied::default());
    // With `Until::Idle` it returns the error.
    let stop = CancellationToken::new();
    stage.engine.apply(Until::Idle(Duration::from_secs(1)), &stop).await.unwrap_err();
}

/// Makes `many` deactivated users due.
async fn leavers(stage: &Stage, many: usize) -> Vec<OktaUserId> {
    let okta = stage.sandbox.okta();
    let ids: Vec<OktaUserId> = (0..many)
        .map(|number| {
            let address = format!("leaver{number}@example.com");
            let id = create_user(okta, &address, &address);
            okta.deactivate(&id);
            id
        })
        .collect();
    stage.engine.poll(&CancellationToken::new()).await.unwrap();
    ids
}

#[tokio::test]
async fn looks_keep_to_the_concurrency_limit() {
    let stage = Stage::new(PLAIN).await;
    leavers(&stage, 10).await;
    let (mut running, mut under_way, mut ahead) = (JoinSet::new(), HashMap::new(), VecDeque::new());
    stage.engine.begin_looks(&mut running, &mut under_way, &mut ahead).await.unwrap();
    assert_eq!(running.len(), stage.engine.options.concurrency);
    drain(&mut running).await;
    assert!(running.is_empty(), "all started looks have ended");
}

#[tokio::test]
async fn open_breaker_delays_looks_then_one_probes() {
    let stage = Stage::with(PLAIN, ManualClock::new(start_time()), |engine, _| engine).await;
    leavers(&stage, 10).await;
    stage.sandbox.auth0().faults().add(Fault::status("GET", "/api/v2/users", 401));
    let apply = async || {
        let stop = CancellationToken::new();
        soon(stage.engine.apply(Until::Idle(Duration::ZERO), &stop)).await.unwrap().looks
    };
    assert_eq!(apply().await, 4, "only the looks that were in progress when the circuit opened");
    assert_eq!(apply().await, 0);
    let (mut running, mut under_way, mut ahead) = (JoinSet::new(), HashMap::new(), VecDeque::new());
    let begun = stage.engine.begin_looks(&mut running, &mut under_way, &mut ahead).await.unwrap();
    assert!(matches!(begun, Begun::Paused(_)) && running.is_empty());
    stage.clock.advance(Duration::from_secs(60));
    stage.engine.begin_looks(&mut running, &mut under_way, &mut ahead).await.unwrap();
    assert_eq!(running.len(), 1);
    soon(drain(&mut running)).await;
}

#[tokio::test]
async fn idle_apply_gives_up_after_patience() {
    let stage = Stage::with(PLAIN, ManualClock::new(start_time()), |engine, _| engine).await;
    leavers(&stage, 1).await;
    stage.sandbox.auth0().faults().add(Fault::new("GET", "/api/v2/users", Effect::Drop));
    let (stop, patience) = (CancellationToken::new(), Duration::from_secs(600));
    let time_passes = async {
        loop {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            stage.clock.advance(Duration::from_millis(100));
        }
    };
    tokio::select! {
        applied = soon(stage.engine.apply(Until::Idle(patience), &stop)) => assert_eq!(applied.unwrap().writes, 0),
        () = time_passes => {}
    }
    assert!(stage.clock.monotonic() > patience, "waited for the whole time");
}
