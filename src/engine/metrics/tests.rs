//! The counters after a few looks.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::super::stage::Harness;
use super::*;
use crate::engine::applier::Until;

const DAY: Duration = Duration::from_secs(86_400);

/// The lines of a scrape that are not zero.
fn figures(metrics: &Metrics) -> Vec<String> {
    let mut registry = Registry::default();
    registry.register("looks", "", metrics.looks.clone());
    registry.register("writes", "", metrics.writes.clone());
    registry.register("lag", "", metrics.denial_lag.clone());
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let counts = |line: &&str| !line.starts_with('#') && !line.contains("_bucket") && !line.ends_with(" 0");
    text.lines().filter(counts).map(str::to_owned).collect()
}

#[tokio::test]
async fn denial_counts_look_write_and_lag() {
    let harness = Harness::with(|_| ()).await;
    let (ann, bob) = (harness.user("ann@example.com"), harness.user("bob@example.com"));
    harness.account("ann@example.com");
    harness.poll().await;
    harness.passes(DAY).await;
    assert_eq!(figures(harness.engine().metrics()), ["lag_sum 0.0"]);
    harness.okta().deactivate(&ann);
    harness.okta().deactivate(&bob);
    harness.passes(5 * Duration::from_secs(1)).await;
    harness.sync().await;
    let mut seen = figures(harness.engine().metrics());
    seen.sort();
    let expected = [
        "lag_count 1",
        "lag_sum 7.0",
        "looks_total{outcome=\"applied\"} 1",
        "looks_total{outcome=\"no_account\"} 1",
        "writes_total 1",
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn working_loop_stamps_its_own_heartbeat() {
    let harness = Harness::with(|_| ()).await;
    harness.passes(DAY).await;
    harness.engine().apply(Until::Idle(Duration::ZERO), &tokio_util::sync::CancellationToken::new()).await.unwrap();
    let clock = harness.engine().clock().as_ref();
    let ages = harness.engine().heartbeats().by_name().map(|(name, heartbeat)| (name, heartbeat.age(clock).as_secs()));
    assert_eq!(
        ages,
        [("poller", 86_400), ("applier", 0), ("reconciler", 86_400), ("watcher", 86_400), ("health check", 86_400)]
    );
}
