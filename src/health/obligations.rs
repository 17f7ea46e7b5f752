//! Obligations: what the daemon promises, by when, and whether it keeps it. Pure.
//!
//! Health is progress against deadlines, never the absence of errors: a loop that waits forever raises no error. What is
//! not known is not met, and a time in the future is never fresh.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::config::Schedule;
use crate::domain::{Timestamp, clock};
use crate::store::ObligationFact;

/// How far ahead of the current time a stored time may be: another process may have written it a moment ago.
const AHEAD_MAX_MS: i64 = 5_000;
/// A good poll: this many firings may be missed …
const POLLS: usize = 3;
/// … but it may take at least this long.
const POLL_MIN_S: i64 = 120;
/// A reconcile: this many firings may pass.
const RECONCILES: usize = 2;

/// One obligation and whether it is met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Obligation {
    /// `daemon`, `enforcement`, `poll`, `pending`, `reconcile`, `action`, `notifications`, `clock`, `state` or
    /// `account_events`.
    pub name: String,
    /// `None`: unknown, which is not met.
    pub met: Option<bool>,
    /// How old `since` may be.
    pub deadline_s: Option<i64>,
    /// The age of `since`; negative if it is in the future.
    pub age_s: Option<f64>,
    /// When it was last kept, or what has waited for longest.
    pub since: Option<String>,
    /// What is known.
    pub detail: String,
    /// What an operator can do.
    pub remedy: String,
}

impl Obligation {
    /// Is it known to be met?
    pub fn is_met(&self) -> bool {
        self.met == Some(true)
    }

    /// Judges a fact whose `since` is this old.
    pub fn judge(fact: ObligationFact, age_ms: Option<i64>) -> Self {
        let deadline_ms = fact.deadline_s.map(|seconds| seconds.saturating_mul(1000));
        let in_time = match (age_ms, deadline_ms) {
            (Some(age), Some(deadline)) => (-AHEAD_MAX_MS..=deadline).contains(&age) && fact.since != fact.late_since,
            _ => false,
        };
        let met = match fact.judged.as_str() {
            "met" => Some(true),
            "failed" => Some(false),
            "timed" if in_time => Some(true),
            "timed" if fact.late == "failed" => Some(false),
            _ => None,
        };
        Self {
            name: fact.name,
            met,
            deadline_s: fact.deadline_s,
            age_s: age_ms.map(seconds),
            since: fact.since,
            detail: fact.detail,
            remedy: fact.remedy,
        }
    }

    /// Judges facts by the wall clock.
    pub fn judge_all(facts: Vec<ObligationFact>, now: Timestamp) -> Vec<Self> {
        let judged = facts.into_iter().map(|fact| {
            let age = wall_age_ms(&fact, now);
            Self::judge(fact, age)
        });
        judged.collect()
    }
}

/// `None`: there is no such time, or it cannot be parsed, which proves nothing.
fn wall_age_ms(fact: &ObligationFact, now: Timestamp) -> Option<i64> {
    let since = clock::parse_timestamp(fact.since.as_deref()?).ok()?;
    Some(now.as_millisecond() - since.as_millisecond())
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of an age fit into 53 bits")]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// When a `since` was first seen: by the monotonic clock, and how old it was then.
#[derive(Clone, Debug)]
struct Seen {
    since: Option<String>,
    at: Duration,
    age_ms: Option<i64>,
}

/// Ages by the monotonic clock, so that a step of the wall clock neither hides a missed deadline nor makes one up.
#[derive(Clone, Debug, Default)]
pub struct Stopwatches(BTreeMap<String, Seen>);

impl Stopwatches {
    /// Judges facts. A time that is first seen while it lies in the future stays unmet.
    pub fn judge_all(&mut self, facts: Vec<ObligationFact>, now: Timestamp, monotonic: Duration) -> Vec<Obligation> {
        let judged = facts.into_iter().map(|fact| {
            let age = self.age_ms(&fact, now, monotonic);
            // The result of the last evaluation says nothing about this one.
            Obligation::judge(ObligationFact { late_since: None, ..fact }, age)
        });
        judged.collect()
    }

    fn age_ms(&mut self, fact: &ObligationFact, now: Timestamp, monotonic: Duration) -> Option<i64> {
        let wall = wall_age_ms(fact, now);
        let known = self.0.get(&fact.name).filter(|seen| seen.since == fact.since);
        let seen = match known {
            Some(seen) => seen.clone(),
            None => {
                let seen = Seen { since: fact.since.clone(), at: monotonic, age_ms: wall };
                self.0.insert(fact.name.clone(), seen.clone());
                seen
            }
        };
        let elapsed = i64::try_from(monotonic.saturating_sub(seen.at).as_millis()).unwrap_or(i64::MAX);
        match seen.age_ms? {
            ahead if ahead < -AHEAD_MAX_MS => Some(ahead),
            age => Some(age.saturating_add(elapsed)),
        }
    }
}

/// The deadlines that follow from the schedules, in seconds.
#[derive(Clone, Debug)]
pub struct Deadlines {
    poll: Schedule,
    reconcile: Schedule,
}

impl Deadlines {
    /// For these schedules.
    pub fn new(poll: Schedule, reconcile: Schedule) -> Self {
        Self { poll, reconcile }
    }

    /// The deadline of an obligation whose `since` is given: schedules with pauses have longer deadlines then.
    pub fn of(&self, fact: &ObligationFact, now: Timestamp) -> Option<i64> {
        let since = fact.since.as_deref().and_then(|since| clock::parse_timestamp(since).ok());
        let from = since.unwrap_or(now).min(now);
        match fact.name.as_str() {
            "poll" => Some(span_s(&self.poll, from, POLLS).max(POLL_MIN_S)),
            "reconcile" => Some(span_s(&self.reconcile, from, RECONCILES)),
            _ => fact.deadline_s,
        }
    }
}

/// From `from` to the firing number `count` after it; `count` periods if the calendar ends before, or if that is longer.
fn span_s(schedule: &Schedule, from: Timestamp, count: usize) -> i64 {
    let period = i64::try_from(schedule.period().as_secs()).unwrap_or(i64::MAX);
    let periods = period.saturating_mul(i64::try_from(count).unwrap_or(i64::MAX));
    let last = schedule.next_runs(from, count).last().copied();
    last.map_or(periods, |last| last.as_second().saturating_sub(from.as_second()).max(periods))
}

#[cfg(test)]
mod tests;
