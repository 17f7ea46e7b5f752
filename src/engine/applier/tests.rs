//! What becomes of a look that ends in a defect of this program, and of the loop when the state fails.

use super::super::stage::{Stage, create_user, soon, ten_o_clock};
use super::*;
use crate::domain::mark::MarkOptions;
use crate::domain::{Clock, ManualClock, timestamp_text};
use okta_auth0_sync_sandbox::{Effect, Fault};

const PLAIN: MarkOptions = MarkOptions { mirror: true, block: false };
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_defect_is_a_failed_attempt_of_its_user_who_is_tried_daily_in_the_end() {
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
        assert!(engine.store().due(now, 10).await.unwrap().is_empty(), "it does not spin");
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
async fn a_state_that_fails_is_tried_again_until_told_to_stop() {
    let stage = Stage::new(PLAIN).await;
    let (engine, stop) = (stage.engine.clone(), CancellationToken::new());
    engine.store().close().await;
    let told = stop.clone();
    let applying = tokio::spawn(async move { engine.apply(Until::Stopped, &told).await });
    for _ in 0..100 {
        stage.engine.clock().sleep(STORE_AGAIN).await;
    }
    assert!(!applying.is_finished());
    stop.cancel();
    assert_eq!(applying.await.unwrap().unwrap(), Applied::default());
    // One pass alone ends with what it met.
    let stop = CancellationToken::new();
    stage.engine.apply(Until::Idle(Duration::from_secs(1)), &stop).await.unwrap_err();
}

/// So many who left are due.
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
async fn no_more_looks_are_under_way_than_may_be() {
    let stage = Stage::new(PLAIN).await;
    leavers(&stage, 10).await;
    let (mut running, mut under_way, mut ahead) = (JoinSet::new(), HashMap::new(), VecDeque::new());
    stage.engine.begin_looks(&mut running, &mut under_way, &mut ahead).await.unwrap();
    assert_eq!(running.len(), stage.engine.options.concurrency);
    drain(&mut running).await;
    assert!(running.is_empty(), "what was begun was waited for");
}

#[tokio::test]
async fn while_a_remote_is_paused_nobody_is_looked_at_and_then_one_finds_out() {
    let stage = Stage::with(PLAIN, ManualClock::new(ten_o_clock()), |engine, _| engine).await;
    leavers(&stage, 10).await;
    stage.sandbox.auth0().faults().add(Fault::status("GET", "/api/v2/users", 401));
    let apply = async || {
        let stop = CancellationToken::new();
        soon(stage.engine.apply(Until::Idle(Duration::ZERO), &stop)).await.unwrap().looks
    };
    assert_eq!(apply().await, 4, "those that were under way when it was found out");
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
async fn who_waits_for_a_remote_that_stays_away_gives_up_when_the_patience_is_over() {
    let stage = Stage::with(PLAIN, ManualClock::new(ten_o_clock()), |engine, _| engine).await;
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
    assert!(stage.clock.monotonic() > patience, "it was waited for");
}
