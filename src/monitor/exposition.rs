//! The metrics as OpenMetrics text: gauges read from the state for each scrape, and counters of this process.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::domain::clock::parse_timestamp;
use crate::engine::Engine;
use crate::engine::metrics::Labels;
use crate::health::Obligation;
use crate::http::pacing::BucketSnapshot;
use crate::http::{Kind, Remote};
use crate::store::{AlarmKind, AlarmRow, StatusRow, StoreError};

/// OpenMetrics 1.0, supported by Prometheus since 2.5.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Number = Gauge<f64, AtomicU64>;
type Seconds = Counter<f64, AtomicU64>;

/// Why a scrape failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("failed to encode the metrics")]
    Format(#[from] std::fmt::Error),
}

/// Renders all metrics.
///
/// # Errors
/// When the state cannot be read.
pub(super) async fn render(engine: &Engine) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("okta_auth0_sync");
    registry.register(
        "build",
        "Version of the running program",
        Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
    );
    let health = engine.health().await?;
    if let Some(status) = &health.status {
        let is_healthy = health.violations().is_empty();
        register_state(&mut registry, status, is_healthy);
    }
    if let Some(guard) = &health.guard {
        let held: Gauge = Gauge::default();
        held.set(guard.held);
        let help = "Users that the guard holds: one open alarm of the kind guard, however many they are";
        registry.register("guard_held_users", help, held);
    }
    register_obligations(&mut registry, &health.obligations);
    register_alarms(&mut registry, &health.alarms);
    register_loops(&mut registry, engine);
    register_calls(&mut registry, engine);
    let clock = engine.clock().as_ref();
    let mut buckets = Vec::new();
    for remote in [Remote::Okta, Remote::Auth0] {
        buckets.extend(engine.breaker(remote).pacer().snapshot(clock));
    }
    register_limits(&mut registry, &buckets);
    let counters = engine.metrics();
    registry.register("looks", "Looks by outcome", counters.looks.clone());
    registry.register("account_writes", "Writes to Auth0 accounts", counters.writes.clone());
    registry.register_with_unit(
        "denial_lag",
        "Time from the publication of a deactivation to the mark on the account",
        Unit::Seconds,
        counters.denial_lag.clone(),
    );
    for (name, help, lags) in [
        ("sign_up_lag", "Time from the creation of an account to the mark on it", &counters.sign_up_lag),
        ("restore_lag", "Time from the removal of a mark to its restoration", &counters.restore_lag),
    ] {
        registry.register_with_unit(name, help, Unit::Seconds, lags.clone());
    }
    let help = "Events of Auth0's stream, by whether they made a user due";
    registry.register("account_events", help, counters.account_events.clone());
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn register_state(registry: &mut Registry, status: &StatusRow, is_healthy: bool) {
    for (name, help, count) in [
        ("pending_users", "Users that are due and not settled yet", status.pending),
        ("failed_users", "Users whose looks fail repeatedly", status.failed),
        ("held_users", "Users whose denial waits for approval by an operator", status.held),
        ("denied_accounts", "Accounts that carry the mark", status.denied),
        ("quarantined_events", "System Log events that could not be parsed", status.quarantined),
        ("needs_attention", "1 if an operator has to act, else 0", i64::from(!is_healthy)),
        ("enforcing", "1 if marks are written, 0 in a dry run", i64::from(status.enforce)),
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
        // Present from the start: an alert on its age must fire for a daemon that never succeeds.
        successes.get_or_create(&vec![("stage", stage)]).set(unix_seconds(at.as_deref()).unwrap_or_default());
    }
    let help = "Time of the last success of a stage; 0 if it never succeeded";
    registry.register_with_unit("last_success_timestamp", help, Unit::Seconds, successes);
    if let Some(at) = unix_seconds(status.oldest_pending_at.as_deref()) {
        let oldest = Number::default();
        oldest.set(at);
        let help = "Time at which the oldest unsettled user became due; absent if none is due";
        registry.register_with_unit("oldest_pending_timestamp", help, Unit::Seconds, oldest);
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of this age fit into 53 bits")]
fn unix_seconds(at: Option<&str>) -> Option<f64> {
    let at = parse_timestamp(at?).ok()?;
    Some(at.as_millisecond() as f64 / 1000.0)
}

fn register_obligations(registry: &mut Registry, obligations: &[Obligation]) {
    let met = Family::<Vec<(&'static str, String)>, Gauge>::default();
    let ages = Family::<Vec<(&'static str, String)>, Number>::default();
    for one in obligations {
        let labels = vec![("obligation", one.name.clone())];
        met.get_or_create(&labels).set(i64::from(one.is_met()));
        ages.get_or_create(&labels).set(one.age_s.unwrap_or_default());
    }
    let help = "1 if an obligation is met, 0 if it is missed or unknown; docs/operations.md lists the remedies";
    registry.register("obligation_met", help, met);
    let help = "Age of what an obligation is judged by, such as the last good poll; 0 if there is none";
    registry.register_with_unit("obligation_age", help, Unit::Seconds, ages);
}

fn register_alarms(registry: &mut Registry, open: &[AlarmRow]) {
    let alarms = Family::<Labels, Gauge>::default();
    for kind in AlarmKind::ALL.map(AlarmKind::as_str) {
        let count = open.iter().filter(|alarm| alarm.kind == kind).count();
        alarms.get_or_create(&vec![("kind", kind)]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register("open_alarms", "Open alarms by kind; docs/operations.md lists the remedies", alarms);
}

fn register_loops(registry: &mut Registry, engine: &Engine) {
    let loops = Family::<Labels, Number>::default();
    for (name, beat) in engine.heartbeats().by_name() {
        loops.get_or_create(&vec![("loop", name)]).set(beat.age(engine.clock().as_ref()).as_secs_f64());
    }
    let help = "Time since the last progress of a loop; a loop that waits for work counts as progressing";
    registry.register_with_unit("loop_progress_age", help, Unit::Seconds, loops);
}

fn register_calls(registry: &mut Registry, engine: &Engine) {
    let calls = Family::<Vec<(&'static str, String)>, Counter>::default();
    for (name, remote) in [("okta", Remote::Okta), ("auth0", Remote::Auth0)] {
        let counts = engine.breaker(remote).counts();
        for kind in Kind::ALL {
            let result = kind.as_str().replace(' ', "_");
            drop(calls.get_or_create(&vec![("remote", name.to_owned()), ("result", result)]));
        }
        let failed = counts.failed.iter().map(|(kind, count)| (kind.as_str().replace(' ', "_"), *count));
        for (result, count) in failed.chain([("ok".to_owned(), counts.ok)]) {
            calls.get_or_create(&vec![("remote", name.to_owned()), ("result", result)]).inc_by(count);
        }
    }
    registry.register("calls", "API calls by remote and result", calls);
}

fn register_limits(registry: &mut Registry, buckets: &[BucketSnapshot]) {
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
    registry.register("rate_limit_calls", "Limit of the bucket, from the last response headers", limits);
    registry.register("rate_limit_remaining_calls", "Estimated calls left in the current window", remaining);
    registry.register("rate_limit_waits", "Calls that waited for the rate limiter", waits);
    registry.register_with_unit(
        "rate_limit_wait",
        "Total time that calls waited for the rate limiter",
        Unit::Seconds,
        waited,
    );
    registry.register("rate_limit_refusals", "Calls refused with 429 Too Many Requests", refusals);
}
