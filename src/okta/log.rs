//! The System Log, polled (Okta docs: System Log query, "Polling requests").
//!
//! Only polling requests (ascending, without `until`) return every event. Okta orders them by persistence time and always
//! links a next page; after an empty page that is the page just requested.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::endpoints::LOG;
use super::entry::LogEntry;
use super::{Failure, Okta};
use crate::domain::event::{PROFILE_UPDATED, transitions_of};
use crate::domain::{Policy, Timestamp, timestamp_text};
use crate::http::{headers, link};

/// Which events to request: all that can change a verdict under a policy, and those that can change an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter that a policy needs. The prefix `user.lifecycle.` also matches types that Okta adds later.
    pub fn of(policy: &Policy) -> Self {
        let mut filter = format!("eventType sw \"user.lifecycle.\" or eventType eq \"{PROFILE_UPDATED}\"");
        let types: BTreeSet<&str> = policy
            .deny_statuses
            .iter()
            .flat_map(|status| transitions_of(status).unwrap_or_default())
            .copied()
            .collect();
        for event_type in types {
            let _ = write!(filter, " or eventType sw \"{event_type}\"");
        }
        Self(filter)
    }

    /// The request parameters that a stored cursor depends on. Okta's next link repeats them, so a checkpoint with other
    /// parameters must not be resumed. The page size is not among them: the client sets it for each page.
    pub fn fingerprint(&self) -> String {
        format!("filter={}&sortOrder=ASCENDING", self.0)
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self::of(&Policy::default())
    }
}

const PATH: &str = "/api/v1/logs";
/// The largest page size that Okta accepts.
pub const LIMIT_MAX: u16 = 1000;
/// Limit for a cursor; Okta's are much shorter.
const NEXT_BYTES_MAX: usize = 8 << 10;

/// Where a page starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPosition {
    /// The first event persisted at or after this time, at most 180 days ago (otherwise Okta responds with 400).
    Since(Timestamp),
    /// The cursor of an earlier page: its [`LogPage::next`], path and query.
    Next(String),
}

/// A page of the System Log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// The entries in log order, which is not causal order.
    pub entries: Vec<LogEntry>,
    /// The cursor of the next page: path and query, to be stored.
    pub next: Option<String>,
    /// The next link repeats the request: Okta has no event behind this page yet.
    pub repeats: bool,
    /// The time of Okta's clock (`Date`).
    pub server_time: Option<Timestamp>,
    /// The host of the next link if it differs from the configured one. Only the link's query is used; the caller logs
    /// this once.
    pub foreign_next_host: Option<String>,
}

impl LogPage {
    /// Whether the log ends here for now. Okta promises nothing about how full a page is, so a short page is not the end.
    pub fn is_last(&self) -> bool {
        self.entries.is_empty() || self.repeats
    }

    /// Whether the page has entries but does not say where the log continues. Okta always does.
    pub fn is_unlinked(&self) -> bool {
        self.next.is_none() && !self.entries.is_empty()
    }
}

impl Okta {
    /// Reads one page of at most `limit` entries (1 to 1000) from `position`. A cursor carries the filter that it was created
    /// with.
    ///
    /// # Errors
    /// Classified. [`crate::http::Kind::Rejected`] with status 400 if Okta refuses the position;
    /// [`crate::http::Kind::Malformed`] for a body that is not an array and for a next link to another path. A failure
    /// [is partial](Failure::is_partial) if a smaller page may be readable.
    pub async fn log_page(&self, position: &LogPosition, filter: &LogFilter, limit: u16) -> Result<LogPage, Failure> {
        let mut url = self.url(PATH);
        let limit = limit.clamp(1, LIMIT_MAX);
        match position {
            LogPosition::Since(since) => {
                url.query_pairs_mut()
                    .append_pair("since", &timestamp_text(*since))
                    .append_pair("filter", &filter.0)
                    .append_pair("sortOrder", "ASCENDING")
                    .append_pair("limit", &limit.to_string());
            }
            LogPosition::Next(next) => {
                let query = next
                    .strip_prefix(PATH)
                    .and_then(|rest| rest.strip_prefix('?'))
                    .filter(|query| !query.is_empty() && next.len() <= NEXT_BYTES_MAX)
                    .ok_or_else(|| LOG.malformed("the stored cursor is not a System Log path"))?;
                url.set_query(Some(&with_limit(query, limit)));
            }
        }
        let asked = url.query().map(str::to_owned);
        let answer = self.get(LOG, url.clone()).await?;
        let answer = answer.success(self.clock.as_ref())?;
        // An invalid byte makes one entry unreadable, not the whole page.
        let text = String::from_utf8_lossy(&answer.body);
        let raw: Vec<&RawValue> = serde_json::from_str(&text)
            .map_err(|_| answer.malformed("a page of the System Log is not a JSON array"))?;
        let entries: Vec<LogEntry> = raw.into_iter().map(|raw| LogEntry::read(raw).redacted(&answer)).collect();
        let mut page = LogPage {
            entries,
            next: None,
            repeats: false,
            server_time: headers::date(&answer.headers),
            foreign_next_host: None,
        };
        if let Some(target) = link::target(&answer.headers, "next") {
            let next =
                url.join(target).ok().filter(|next| next.path() == PATH && next.as_str().len() <= NEXT_BYTES_MAX);
            let Some((next, query)) = next.as_ref().and_then(|next| Some((next, next.query()?))) else {
                return Err(answer.malformed("refused next link: it does not lead to the System Log"));
            };
            page.next = Some(format!("{PATH}?{query}"));
            page.repeats = asked.as_deref() == Some(query);
            if next.origin() != self.origin.origin() {
                page.foreign_next_host = Some(next.host_str().unwrap_or_default().to_owned());
            }
        }
        Ok(page)
    }
}

/// The query with this page size. Everything else stays as Okta wrote it.
fn with_limit(query: &str, limit: u16) -> String {
    let mut found = false;
    let mut parts: Vec<String> = Vec::new();
    for part in query.split('&') {
        if part.starts_with("limit=") {
            found = true;
            parts.push(format!("limit={limit}"));
        } else {
            parts.push(part.to_owned());
        }
    }
    if !found {
        parts.push(format!("limit={limit}"));
    }
    parts.join("&")
}
