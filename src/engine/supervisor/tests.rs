//! What the loops do besides their rounds.

use super::super::stage::Stage;
use super::*;
use crate::domain::mark::MarkOptions;
use crate::domain::timestamp_text;
use crate::sandbox::NewUser;

const PLAIN: MarkOptions = MarkOptions { mirror: true, block: false };
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn the_nightly_comparison_asks_for_the_changes_of_the_last_days() {
    let stage = Stage::new(PLAIN).await;
    assert!(stage.engine.store().sweep_under_way().await.unwrap().is_none());
    let now = stage.engine.clock().now();
    stage.engine.begin_nightly().await.unwrap();
    let sweep = stage.engine.store().sweep_under_way().await.unwrap().unwrap();
    let since = clock::parse_timestamp(&sweep.scope).unwrap();
    assert!(
        clock::add(since, DAY) < now,
        "the last one may have been missed: {} at {}",
        sweep.scope,
        timestamp_text(now)
    );
}

#[tokio::test]
async fn what_is_older_than_the_retention_goes_and_nothing_else() {
    let stage = Stage::new(PLAIN).await;
    let (engine, stop) = (&stage.engine, CancellationToken::new());
    let okta = stage.sandbox.okta();
    okta.create_user(&NewUser::new("ann@example.com", "ann@example.com"));
    engine.poll(&stop).await.unwrap();
    engine.apply(Until::Idle(Duration::from_secs(1)), &stop).await.unwrap();
    let events = async || engine.store().recent_events(None, 100).await.unwrap().len();
    let before = events().await;
    assert!(before > 0);
    engine.tidy(&stop).await;
    assert_eq!(events().await, before);
    engine.clock().sleep(engine.options.retention).await;
    okta.create_user(&NewUser::new("bob@example.com", "bob@example.com"));
    engine.clock().sleep(Duration::from_secs(5)).await;
    engine.poll(&stop).await.unwrap();
    engine.apply(Until::Idle(Duration::from_secs(1)), &stop).await.unwrap();
    let told = CancellationToken::new();
    told.cancel();
    engine.tidy(&told).await;
    assert_eq!(events().await, 2 * before, "not when it is told to stop");
    engine.tidy(&stop).await;
    assert_eq!(events().await, before);
}
