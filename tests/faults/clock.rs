//! A clock of the host that is wrong, or is set while the daemon runs.

use jiff::SignedDuration;
use okta_auth0_sync::domain::Clock;

use super::harness::{answer, s, start, start_with};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

#[tokio::test]
async fn first_start_with_clock_ahead_misses_no_user() {
    let mut world = start().await;
    // Further than the first poll looks back.
    world.host.set_ahead(24 * 30 * HOUR);
    world.folder = tempfile::tempdir().unwrap();
    world.restart_network(|_| ()).await;
    let ann = world.leaver("ann");
    world.denies(&[ann]).await;
}

#[tokio::test]
async fn step_of_the_clock_delays_no_retry() {
    for step in [-HOUR / 2, 24 * HOUR] {
        let world = start().await;
        let ann = world.leaver("ann");
        world.auth0_fault("PATCH", "/api/v2/users/", answer(503, serde_json::Value::Null), 1);
        world.try_poll().await.unwrap();
        let _ = world.look(&ann).await;
        assert!(!world.denied(&ann));
        world.host.set_ahead(step);
        let before = world.clock.monotonic();
        world.try_poll().await.unwrap();
        // Looks until no user is due within an hour.
        world.process_queue().await;
        assert!(world.denied(&ann), "{step}");
        assert!(world.clock.monotonic().saturating_sub(before) < s(600), "the retry waits for the clock, {step}");
    }
}

#[tokio::test]
async fn step_of_the_clock_does_not_reset_the_guard() {
    for step in [-24 * HOUR, 24 * HOUR] {
        let world = start_with(|setup| setup.options.guard.denials_max = 1.into()).await;
        world.denies(&[world.leaver("ann")]).await;
        world.host.set_ahead(step);
        let bob = world.leaver("bob");
        world.try_poll().await.unwrap();
        world.process_queue().await;
        assert!(!world.denied(&bob), "the guard counts ann's denial as an old one, {step}");
    }
}
