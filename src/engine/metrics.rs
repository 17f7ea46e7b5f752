//! Counters since the start of the process, for `/metrics`. Figures from the state are not counted here.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::domain::{Change, Outcome};

/// A label and its value.
pub type Labels = Vec<(&'static str, &'static str)>;

/// From a second to a day; the target is a minute.
const LAG_BUCKETS_S: [f64; 14] =
    [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 86_400.0];

/// From a tenth of a second to a day; the target is two seconds.
const FOLLOW_BUCKETS_S: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0];

/// The words of [`Outcome::as_str`], so that every series exists from the start.
const OUTCOMES: [&str; 8] = ["applied", "unchanged", "no_account", "skipped", "held", "retry", "snooze", "failed"];

/// The counters. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Seconds from the event's publication to the mark on the account, for each denial that an event caused.
    pub denial_lag: Histogram,
    /// Seconds from the creation of an account to the mark on it, for accounts of users who had left.
    pub sign_up_lag: Histogram,
    /// Seconds from the removal of a mark to its restoration.
    pub restore_lag: Histogram,
    /// Events of Auth0's stream, by whether they made a user due.
    pub account_events: Family<Labels, Counter>,
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
        let account_events = Family::<Labels, Counter>::default();
        for result in ["due", "irrelevant"] {
            drop(account_events.get_or_create(&vec![("result", result)]));
        }
        Self {
            denial_lag: Histogram::new(LAG_BUCKETS_S),
            sign_up_lag: Histogram::new(FOLLOW_BUCKETS_S),
            restore_lag: Histogram::new(FOLLOW_BUCKETS_S),
            account_events,
            looks,
            writes: Counter::default(),
        }
    }
}

impl Metrics {
    /// Counts events of Auth0's stream.
    pub(super) fn watched(&self, due: u64, irrelevant: u64) {
        for (result, count) in [("due", due), ("irrelevant", irrelevant)] {
            self.account_events.get_or_create(&vec![("result", result)]).inc_by(count);
        }
    }

    /// A mark was written because of an event about the account, this long after it.
    pub(super) fn followed(&self, change: Change, lag: Duration) {
        match change {
            Change::Created => self.sign_up_lag.observe(lag.as_secs_f64()),
            Change::Updated => self.restore_lag.observe(lag.as_secs_f64()),
            Change::Deleted => {}
        }
    }

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
