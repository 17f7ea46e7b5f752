//! Schedules: a cron pattern in UTC, parsed exactly as the scheduler parses it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds};

use crate::domain::Timestamp;

/// How many firings are compared to find the shortest gap. Covers a whole month of a daily schedule.
const FIRINGS_COMPARED: usize = 64;

/// A cron pattern that fires at least twice: six fields, seconds first; UTC.
///
/// The parser and its settings are those of tokio-cron-scheduler 0.15 (`Seconds::Required`, day of month and day of
/// week both must match), so a pattern accepted here is valid there.
#[derive(Clone)]
pub struct Schedule {
    pattern: String,
    cron: Cron,
    period: Duration,
}

impl Schedule {
    /// A default schedule.
    #[expect(clippy::expect_used, reason = "a test builds every default")]
    pub(super) fn built_in(pattern: &'static str) -> Self {
        pattern.parse().expect("built-in schedules are valid")
    }

    /// The pattern with six fields, as the scheduler expects it.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The first `count` firings after `after`, in UTC. Fewer only at the end of the calendar.
    pub fn next_runs(&self, after: Timestamp, count: usize) -> Vec<Timestamp> {
        runs(&self.cron, after, count)
    }

    /// The shortest time between two firings.
    ///
    /// A schedule with pauses (`0 * 9-17 * * *`) also has longer gaps. To find out whether a firing was missed, use
    /// [`Schedule::next_runs`].
    pub const fn period(&self) -> Duration {
        self.period
    }
}

fn runs(cron: &Cron, after: Timestamp, count: usize) -> Vec<Timestamp> {
    let Some(start) = DateTime::<Utc>::from_timestamp(after.as_second(), 0) else { return Vec::new() };
    cron.iter_after(start).map_while(|at| Timestamp::from_second(at.timestamp()).ok()).take(count).collect()
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let pattern = match fields.len() {
            5 => format!("0 {}", fields.join(" ")),
            6 => fields.join(" "),
            count => {
                return Err(format!(
                    "must have six fields (second minute hour day month weekday), not {count}, such as \
                     \"*/15 * * * * *\" for every 15 seconds or \"0 0 3 * * *\" for 03:00 UTC"
                ));
            }
        };
        let cron = CronParser::builder()
            .seconds(Seconds::Required)
            .dom_and_dow(true)
            .build()
            .parse(&pattern)
            .map_err(|error| format!("is not a cron pattern: {error}"))?;
        // Without a year field, a pattern that fires once fires again and again.
        let firings = runs(&cron, Timestamp::UNIX_EPOCH, FIRINGS_COMPARED);
        let period = firings
            .windows(2)
            .filter_map(|pair| Duration::try_from(pair[1].duration_since(pair[0])).ok())
            .min()
            .ok_or("never fires: no date has this day, month and weekday")?;
        Ok(Self { pattern, cron, period })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({:?})", self.pattern)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for Schedule {}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs_of(pattern: &str, after: &str, count: usize) -> Vec<String> {
        let schedule: Schedule = pattern.parse().unwrap();
        schedule.next_runs(after.parse().unwrap(), count).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn six_fields_start_with_seconds_in_utc() {
        assert_eq!(
            runs_of("*/15 * * * * *", "2026-11-23T10:00:00.5Z", 3),
            ["2026-11-23T10:00:15Z", "2026-11-23T10:00:30Z", "2026-11-23T10:00:45Z"]
        );
        assert_eq!(runs_of("0 0 3 * * *", "2026-11-23T03:00:00Z", 1), ["2026-11-24T03:00:00Z"]);
    }

    #[test]
    fn five_fields_fire_at_second_zero() {
        let schedule: Schedule = "*/5  * * * *".parse().unwrap();
        assert_eq!(schedule.pattern(), "0 */5 * * * *");
        assert_eq!(schedule.period(), Duration::from_secs(300));
    }

    #[test]
    fn day_and_weekday_must_both_match() {
        assert_eq!(runs_of("0 0 0 13 * FRI", "2026-11-23T00:00:00Z", 1), ["2027-08-13T00:00:00Z"]);
    }

    #[test]
    fn period_is_the_shortest_gap() {
        for (pattern, seconds) in [
            ("*/15 * * * * *", 15),
            ("0 0 3 * * *", 86_400),
            ("0 0,20 9-17 * * MON-FRI", 1200),
            ("0 0 0 29 2 MON", 378_604_800),
            ("*/40 * * * * *", 20),
        ] {
            assert_eq!(pattern.parse::<Schedule>().unwrap().period().as_secs(), seconds, "{pattern}");
        }
    }

    #[test]
    fn invalid_patterns_are_rejected() {
        for (pattern, expected) in [
            ("0 0 0 30 2 *", "never fires"),
            ("0 0 0 31 4,6,9,11 *", "never fires"),
            ("", "not 0"),
            ("@daily", "not 1"),
            ("0 0 0 1 1 * 2020", "not 7"),
            ("61 * * * * *", "is not a cron pattern"),
            ("x * * * * *", "is not a cron pattern"),
        ] {
            let error = pattern.parse::<Schedule>().unwrap_err();
            assert!(error.contains(expected), "{pattern}: {error}");
        }
    }
}
