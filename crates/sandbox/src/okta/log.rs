//! The System Log: events in order of persistence, and the two kinds of requests for them.
//!
//! *Polling* (no `until`, ascending) returns every event by persistence, and always a next link. *Bounded* returns the
//! events of a period by `published`, and ends. (Okta docs: "System Log query".)

use std::time::Duration;

use crate::expression::Expression;
use okta_auth0_sync_clock::Timestamp;
use okta_auth0_sync_clock::sub;

use super::entry::Entry;
use super::problem::Problem;

/// The most events of a page.
pub(super) const PAGE_MAX: usize = 1000;
/// How far back `since` may be.
const SINCE_MAX: Duration = Duration::from_secs(180 * 24 * 60 * 60);
/// How far back a request without `since` reads.
const SINCE_DEFAULT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The log.
#[derive(Debug, Default)]
pub(super) struct SystemLog {
    /// By persistence.
    entries: Vec<Entry>,
    /// Events that happened and are not persisted yet.
    held: Option<Vec<Entry>>,
    /// The most events of a polled page, if that is less than the request's limit. Okta's documentation does not promise
    /// full pages, and its recorded ones are shorter although more events follow.
    pub(super) polled_page_max: Option<usize>,
}

/// A query of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    pub(super) after: Option<String>,
    pub(super) limit: usize,
    pub(super) filter: Option<Expression>,
    pub(super) keywords: Vec<String>,
    pub(super) descending: bool,
}

impl Query {
    /// Returns whether it is a polling request.
    pub(super) fn polls(&self) -> bool {
        self.until.is_none() && !self.descending
    }

    fn wants(&self, entry: &Entry) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.holds(entry))
            && self.keywords.iter().all(|keyword| entry.mentions(keyword))
    }
}

/// A page of events, and the cursor after it.
#[derive(Debug)]
pub(super) struct Page {
    /// The events, as a JSON array.
    pub(super) json: String,
    /// `None`: unchanged. For a polling request that means "repeat the request", for a bounded one "the end".
    pub(super) after: Option<String>,
}

impl SystemLog {
    /// Appends an event now.
    pub(super) fn append(&mut self, mut entry: Entry, now: Timestamp) {
        if let Some(held) = &mut self.held {
            held.push(entry);
            return;
        }
        let last = self.entries.last().map_or(i64::MIN, |last| last.persisted_ms);
        entry.persisted_ms = now.as_millisecond().max(last);
        self.entries.push(entry);
    }

    /// Stops persisting events.
    pub(super) fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Persists the held events in order of occurrence, or reversed.
    pub(super) fn release(&mut self, reversed: bool, now: Timestamp) {
        let mut held = self.held.take().unwrap_or_default();
        if reversed {
            held.reverse();
        }
        for entry in held {
            self.append(entry, now);
        }
    }

    /// Persists the event with this uuid again.
    pub(super) fn repeat(&mut self, uuid: &str, now: Timestamp) -> bool {
        let Some(entry) = self.entries.iter().rfind(|entry| entry.uuid() == uuid).cloned() else {
            return false;
        };
        self.append(entry, now);
        true
    }

    /// Every persisted event within the retention.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Handles a query.
    pub(super) fn page(&self, query: &Query, retention: Duration, now: Timestamp) -> Result<Page, Problem> {
        if query.since.is_some_and(|since| since < sub(now, SINCE_MAX)) {
            return Err(Problem::bad_parameter("The since parameter is over 180 days prior to the current day."));
        }
        let retained = sub(now, retention).as_millisecond();
        let retained = self.entries.partition_point(|entry| entry.persisted_ms < retained);
        if query.polls() { self.poll(query, retained, now) } else { self.bounded(query, retained, now) }
    }

    fn poll(&self, query: &Query, retained: usize, now: Timestamp) -> Result<Page, Problem> {
        let start = match &query.after {
            Some(_) if query.since.is_some() => {
                return Err(Problem::bad_parameter("The since and after parameters are mutually exclusive."));
            }
            Some(after) => self.position(after).ok_or_else(|| Problem::validation("after", "after: invalid cursor"))?,
            None => {
                let since = query.since.unwrap_or_else(|| sub(now, SINCE_DEFAULT)).as_millisecond();
                self.entries.partition_point(|entry| entry.persisted_ms < since)
            }
        };
        let mut json = String::from("[");
        let mut after = None;
        let wanted = self.entries.iter().enumerate().skip(start.max(retained)).filter(|(_, entry)| query.wants(entry));
        for (at, entry) in wanted.take(query.limit.min(self.polled_page_max.unwrap_or(query.limit))) {
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(&entry.json());
            after = Some(at);
        }
        json.push(']');
        Ok(Page { json, after: after.map(|at| self.cursor(at)) })
    }

    /// The cursor after the event at `at`: its time, and the number of events of that time before the cursor.
    fn cursor(&self, at: usize) -> String {
        let persisted = self.entries[at].persisted_ms;
        let first = self.entries.partition_point(|entry| entry.persisted_ms < persisted);
        format!("{persisted}_{}", at - first + 1)
    }

    /// The first event after a cursor. `None` if the text is not a cursor.
    fn position(&self, cursor: &str) -> Option<usize> {
        let (persisted, seen) = cursor.split_once('_')?;
        let persisted: i64 = persisted.parse().ok().filter(|ms| *ms >= 0)?;
        let seen: usize = seen.parse().ok()?;
        let first = self.entries.partition_point(|entry| entry.persisted_ms < persisted);
        let end = self.entries.partition_point(|entry| entry.persisted_ms <= persisted);
        Some(first.saturating_add(seen).min(end))
    }

    fn bounded(&self, query: &Query, retained: usize, now: Timestamp) -> Result<Page, Problem> {
        let until = query.until.unwrap_or(now);
        let since = query.since.unwrap_or_else(|| sub(until, SINCE_DEFAULT));
        let mut wanted: Vec<&Entry> = self.entries[retained..]
            .iter()
            .filter(|entry| entry.published >= since && entry.published < until && query.wants(entry))
            .collect();
        wanted.sort_by_key(|entry| entry.published);
        if query.descending {
            wanted.reverse();
        }
        let start = match &query.after {
            None => 0,
            Some(after) => {
                let last = wanted.iter().position(|entry| entry.uuid() == after.as_str());
                1 + last.ok_or_else(|| Problem::validation("after", "after: invalid cursor"))?
            }
        };
        let page = &wanted[start..wanted.len().min(start + query.limit)];
        let texts: Vec<_> = page.iter().map(|entry| entry.json()).collect();
        let more = start + page.len() < wanted.len();
        let after = page.last().filter(|_| more).map(|entry| entry.uuid().into_owned());
        Ok(Page { json: format!("[{}]", texts.join(",")), after })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::okta::entry::Content;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn entry(uuid: &str, published: Timestamp) -> Entry {
        let text: Arc<str> = format!(r#"{{"uuid":"{uuid}","eventType":"user.lifecycle.{uuid}"}}"#).into();
        Entry { persisted_ms: 0, published, content: Content::Raw(text) }
    }

    /// a and b in one second, c published before both and persisted after them, then d.
    fn log() -> SystemLog {
        let mut log = SystemLog::default();
        log.append(entry("a", at(1)), at(10));
        log.append(entry("b", at(2)), at(10));
        log.append(entry("c", at(0)), at(10));
        log.append(entry("d", at(3)), at(20));
        log
    }

    fn uuids(page: &Page) -> String {
        let entries: Vec<serde_json::Value> = serde_json::from_str(&page.json).unwrap();
        entries.iter().map(|entry| entry["uuid"].as_str().unwrap()).collect()
    }

    fn ask(log: &SystemLog, query: &Query) -> Result<Page, Problem> {
        log.page(query, 90 * DAY, at(30))
    }

    #[test]
    fn polling_never_loses_a_late_event() {
        let log = log();
        let mut query = Query { since: Some(at(0)), limit: 2, ..Query::default() };
        let first = ask(&log, &query).unwrap();
        assert_eq!(uuids(&first), "ab");
        assert_eq!(first.after.as_deref(), Some("1700000010000_2"));
        query = Query { after: first.after, since: None, ..query };
        let second = ask(&log, &query).unwrap();
        assert_eq!(uuids(&second), "cd");
        query.after = second.after;
        let third = ask(&log, &query).unwrap();
        assert_eq!((uuids(&third).as_str(), third.after), ("", None));
    }

    #[test]
    fn since_compares_persistence_when_polling() {
        let log = log();
        let polling = Query { since: Some(at(10)), limit: 10, ..Query::default() };
        assert_eq!(uuids(&ask(&log, &polling).unwrap()), "abcd");
        let bounded = Query { until: Some(at(3)), since: Some(at(0)), limit: 2, ..Query::default() };
        let first = ask(&log, &bounded).unwrap();
        assert_eq!(uuids(&first), "ca");
        let last = ask(&log, &Query { after: first.after, ..bounded }).unwrap();
        assert_eq!((uuids(&last).as_str(), last.after), ("b", None));
        let newest = Query { descending: true, limit: 10, ..Query::default() };
        assert_eq!(uuids(&ask(&log, &newest).unwrap()), "dbac");
    }

    #[test]
    fn invalid_queries_are_refused() {
        let log = log();
        let too_old = Query { since: Some(sub(at(30), 181 * DAY)), limit: 1, ..Query::default() };
        assert_eq!(ask(&log, &too_old).unwrap_err().code, "E0000053");
        let both = Query { since: Some(at(0)), after: Some("1_1".into()), limit: 1, ..Query::default() };
        assert_eq!(ask(&log, &both).unwrap_err().status, 400);
        for cursor in ["", "x", "1", "1_", "_1", "-1_1", "1_-1"] {
            let query = Query { after: Some(cursor.into()), limit: 1, ..Query::default() };
            assert_eq!(ask(&log, &query).unwrap_err().status, 400, "{cursor}");
        }
    }

    #[test]
    fn events_expire_after_the_retention() {
        let log = log();
        let query = Query { since: Some(at(0)), limit: 10, ..Query::default() };
        assert_eq!(uuids(&log.page(&query, Duration::from_secs(15), at(30)).unwrap()), "d");
    }

    #[test]
    fn the_filter_is_applied_before_the_limit() {
        let filter = Expression::parse(r#"eventType sw "user.lifecycle.c" or uuid eq "d""#).unwrap();
        let query = Query { since: Some(at(0)), limit: 1, filter: Some(filter), ..Query::default() };
        let page = ask(&log(), &query).unwrap();
        assert_eq!((uuids(&page).as_str(), page.after.as_deref()), ("c", Some("1700000010000_3")));
    }

    #[test]
    fn held_events_may_be_released_reversed() {
        let mut log = log();
        log.hold();
        log.append(entry("e", at(31)), at(31));
        log.append(entry("f", at(32)), at(32));
        assert_eq!(log.entries().len(), 4);
        log.release(true, at(40));
        assert!(log.repeat("e", at(41)));
        let query = Query { since: Some(at(35)), limit: 10, ..Query::default() };
        assert_eq!(uuids(&log.page(&query, 90 * DAY, at(50)).unwrap()), "fee");
    }
}
