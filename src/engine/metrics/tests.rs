//! What the figures say of what was done.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::super::stage::House;
use super::*;
use crate::engine::applier::Until;

const DAY: Duration = Duration::from_secs(86_400);

/// The lines of a scrape that count something.
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
async fn a_denial_is_a_look_a_write_and_the_time_that_it_took() {
    let house = House::with(|_| ()).await;
    let (ann, bob) = (house.person("ann@example.com"), house.person("bob@example.com"));
    house.account("ann@example.com");
    house.poll().await;
    house.passes(DAY).await;
    assert_eq!(figures(house.engine().metrics()), ["lag_sum 0.0"]);
    house.okta().deactivate(&ann);
    house.okta().deactivate(&bob);
    house.passes(5 * Duration::from_secs(1)).await;
    house.sync().await;
    let mut seen = figures(house.engine().metrics());
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
async fn a_loop_that_works_is_seen_to_live_and_the_others_are_not() {
    let house = House::with(|_| ()).await;
    house.passes(DAY).await;
    house.engine().apply(Until::Idle(Duration::ZERO), &tokio_util::sync::CancellationToken::new()).await.unwrap();
    let clock = house.engine().clock().as_ref();
    let ages = house.engine().heartbeats().by_name().map(|(name, beat)| (name, beat.age(clock).as_secs()));
    assert_eq!(ages, [("poller", 86_400), ("applier", 0), ("reconciler", 86_400)]);
}
