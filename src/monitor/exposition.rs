//! The figures as OpenMetrics text: what the state knows, read for each scrape, and what the process has counted.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::config::Schedule;
use crate::domain::clock::parse_timestamp;
use crate::engine::Engine;
use crate::engine::metrics::Labels;
use crate::health::Health;
use crate::http::Remote;
use crate::http::pacing::BucketSnapshot;
use crate::store::{AlarmKind, AlarmRow, StatusRow, StoreError};

/// OpenMetrics 1.0, which Prometheus reads since 2.5.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Number = Gauge<f64, AtomicU64>;
type Seconds = Counter<f64, AtomicU64>;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the figures cannot be written as text")]
    Format(#[from] std::fmt::Error),
}

/// Everything, as of now.
///
/// # Errors
/// When the state cannot be read.
pub(super) async fn of(engine: &Engine, poll: &Schedule) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("okta_auth0_sync");
    registry.register("build", "The program", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
    let health = Health::counts(engine.store()).await?;
    if let Some(status) = &health.status {
        let is_well = health.violations(poll, engine.clock().now()).is_empty();
        of_state(&mut registry, status, is_well);
    }
    of_alarms(&mut registry, &health.alarms);
    of_loops(&mut registry, engine);
    of_calls(&mut registry, engine);
    let clock = engine.clock().as_ref();
    let mut buckets = Vec::new();
    for remote in [Remote::Okta, Remote::Auth0] {
        buckets.extend(engine.breaker(remote).pacer().snapshot(clock));
    }
    of_limits(&mut registry, &buckets);
    let counted = engine.metrics();
    registry.register("looks", "People looked at, by how it ended", counted.looks.clone());
    registry.register("account_writes", "Accounts written in Auth0", counted.writes.clone());
    registry.register_with_unit(
        "denial_lag",
        "From the publication of a deactivation to the mark on an account",
        Unit::Seconds,
        counted.denial_lag.clone(),
    );
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn of_state(registry: &mut Registry, status: &StatusRow, is_well: bool) {
    for (name, help, count) in [
        ("pending_users", "People who are due for a reason that is not settled", status.pending),
        ("failed_users", "People whose looks keep failing", status.failed),
        ("held_users", "People who wait for a person's decision", status.held),
        ("denied_accounts", "Accounts that carry our mark", status.denied),
        ("quarantined_events", "Entries of the log that could not be read", status.quarantined),
        ("needs_attention", "1 if a person is needed", i64::from(!is_well)),
        ("enforcing", "1 if marks are written, 0 for a rehearsal", i64::from(status.enforce)),
    ] {
        let gauge: Gauge = Gauge::default();
        gauge.set(count);
        registry.register(name, help, gauge);
    }
    let successes = Family::<Labels, Number>::default();
    for (stage, at) in [
        ("poll", &status.last_poll_ok_at),
        ("apply", &status.last_apply_ok_at),
        ("reconcile", &status.last_reconcile_ok_at),
    ] {
        if let Some(at) = unix_seconds(at.as_deref()) {
            successes.get_or_create(&vec![("stage", stage)]).set(at);
        }
    }
    let help = "When a stage last succeeded; missing if it never did";
    registry.register_with_unit("last_success_timestamp", help, Unit::Seconds, successes);
    if let Some(at) = unix_seconds(status.oldest_pending_at.as_deref()) {
        let oldest = Number::default();
        oldest.set(at);
        let help = "Since when the oldest unsettled reason waits; missing if there is none";
        registry.register_with_unit("oldest_pending_timestamp", help, Unit::Seconds, oldest);
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of this age fit into 53 bits")]
fn unix_seconds(at: Option<&str>) -> Option<f64> {
    let at = parse_timestamp(at?).ok()?;
    Some(at.as_millisecond() as f64 / 1000.0)
}

fn of_alarms(registry: &mut Registry, open: &[AlarmRow]) {
    let alarms = Family::<Labels, Gauge>::default();
    for kind in AlarmKind::ALL.map(AlarmKind::as_str) {
        let count = open.iter().filter(|alarm| alarm.kind == kind).count();
        alarms.get_or_create(&vec![("kind", kind)]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register("open_alarms", "Alarms that are not over, by kind; docs/operations.md has what to do", alarms);
}

fn of_loops(registry: &mut Registry, engine: &Engine) {
    let loops = Family::<Labels, Number>::default();
    for (name, beat) in engine.heartbeats().by_name() {
        loops.get_or_create(&vec![("loop", name)]).set(beat.age(engine.clock().as_ref()).as_secs_f64());
    }
    let help = "Since a loop last made progress; waiting is progress, hanging is not";
    registry.register_with_unit("loop_progress_age", help, Unit::Seconds, loops);
}

fn of_calls(registry: &mut Registry, engine: &Engine) {
    let calls = Family::<Vec<(&'static str, String)>, Counter>::default();
    for (name, remote) in [("okta", Remote::Okta), ("auth0", Remote::Auth0)] {
        let counts = engine.breaker(remote).counts();
        let failed = counts.failed.iter().map(|(kind, count)| (kind.as_str().replace(' ', "_"), *count));
        for (result, count) in failed.chain([("ok".to_owned(), counts.ok)]) {
            calls.get_or_create(&vec![("remote", name.to_owned()), ("result", result)]).inc_by(count);
        }
    }
    registry.register("calls", "Calls by remote, and how they ended", calls);
}

fn of_limits(registry: &mut Registry, buckets: &[BucketSnapshot]) {
    let limits = Family::<Labels, Gauge>::default();
    let remaining = Family::<Labels, Gauge>::default();
    let waits = Family::<Labels, Counter>::default();
    let waited = Family::<Labels, Seconds>::default();
    let refusals = Family::<Labels, Counter>::default();
    for bucket in buckets {
        let labels = vec![("bucket", bucket.bucket.as_str())];
        for (gauges, value) in [(&limits, bucket.limit), (&remaining, bucket.remaining)] {
            if let Some(value) = value {
                gauges.get_or_create(&labels).set(i64::from(value));
            }
        }
        waits.get_or_create(&labels).inc_by(bucket.waits);
        waited.get_or_create(&labels).inc_by(bucket.waited.as_secs_f64());
        refusals.get_or_create(&labels).inc_by(bucket.refusals);
    }
    registry.register("rate_limit_calls", "The limit of a bucket, as its remote last showed it", limits);
    registry.register("rate_limit_remaining_calls", "What is thought to be left of it", remaining);
    registry.register("rate_limit_waits", "Calls that had to wait for their turn", waits);
    registry.register_with_unit("rate_limit_wait", "How long they waited", Unit::Seconds, waited);
    registry.register("rate_limit_refusals", "Calls that were refused for their rate (429)", refusals);
}
