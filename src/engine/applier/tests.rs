//! What becomes of a look that ends in a defect of this program, and of the loop when the state fails.

use super::super::stage::Stage;
use super::*;
use crate::domain::mark::MarkOptions;
use crate::domain::timestamp_text;
use crate::sandbox::NewUser;

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_defect_is_a_failed_attempt_of_its_user_who_is_tried_daily_in_the_end() {
    let stage = Stage::new(MarkOptions { mirror: true, block: false }).await;
    let (engine, stop) = (&stage.engine, CancellationToken::new());
    let ann = stage.sandbox.okta().create_user(&NewUser::new("ann@example.com", "ann@example.com"));
    stage.sandbox.okta().deactivate(&ann);
    engine.poll(&stop).await.unwrap();
    let row = async || engine.store().find_people(ann.as_str()).await.unwrap().remove(0);
    for attempt in 1..=engine.options.max_attempts {
        let now = engine.clock().now();
        let start = engine.store().begin_look(&ann, now).await.unwrap();
        assert!(engine.note_panic(Some(&start)).await.unwrap().is_none());
        assert!(engine.store().due(now, 10).await.unwrap().is_empty(), "it does not spin");
        let expected = if attempt < engine.options.max_attempts { "retry" } else { "failed" };
        let row = row().await;
        assert_eq!(row.outcome.as_deref(), Some(expected), "attempt {attempt}");
        assert!(row.why.is_some_and(|why| why.contains("a defect of okta-auth0-sync")));
    }
    let tomorrow = clock::add(engine.clock().now(), DAY);
    assert_eq!(row().await.due_at, Some(timestamp_text(tomorrow)));
    engine.clock().sleep(DAY).await;
    engine.apply(Until::Idle(Duration::from_secs(1)), &stop).await.unwrap();
    assert_eq!(row().await.outcome.as_deref(), Some("no_account"));
}

#[tokio::test]
async fn a_state_that_fails_is_tried_again_until_told_to_stop() {
    let stage = Stage::new(MarkOptions { mirror: true, block: false }).await;
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
