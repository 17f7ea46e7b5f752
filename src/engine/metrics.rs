//! Counters since the start of the process, for `/metrics`. Figures from the state are not counted here.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::domain::Outcome;

/// A label and its value.
pub type Labels = Vec<(&'static str, &'static str)>;

/// From a second to a day; the target is a minute.
const LAG_BUCKETS_S: [f64; 14] =
    [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 86_400.0];

/// The words of [`Outcome::as_str`], so that every series exists from the start.
const OUTCOMES: [&str; 8] = ["applied", "unchanged", "no_account", "skipped", "held", "retry", "snooze", "failed"];

/// The counters. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Seconds from the event's publication to the mark on the account, for each denial that an event caused.
    pub denial_lag: Histogram,
    /// Looks by `outcome`.
    pub looks: Family<Labels, Counter>,
    /// Accounts written in Auth0.
    pub writes: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let looks = Family::<Labels, Counter>::default();
        for outcome in OUTCOMES {
            drop(looks.get_or_create(&vec![("outcome", outcome)]));
        }
        Self { denial_lag: Histogram::new(LAG_BUCKETS_S), looks, writes: Counter::default() }
    }
}

impl Metrics {
    pub(super) fn looked(&self, outcome: &Outcome, writes: u64, lags: impl Iterator<Item = Duration>) {
        self.looks.get_or_create(&vec![("outcome", outcome.as_str())]).inc();
        self.writes.inc_by(writes);
        for lag in lags {
            self.denial_lag.observe(lag.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests;
