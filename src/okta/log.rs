//! The System Log, polled (Okta docs: System Log query, "Polling requests").
//!
//! Only polling requests (ascending, without `until`) return every event. Okta orders them by persistence time and always
//! links a next page; after an empty page that is the page just requested.

use serde_json::value::RawValue;
use url::Url;

use super::endpoints::LOG;
use super::entry::LogEntry;
use super::{Failure, Okta};
use crate::domain::{Timestamp, timestamp_text};
use crate::http::{headers, link};

/// The events to request. The prefix also matches lifecycle types that Okta adds later.
pub const FILTER: &str = "eventType sw \"user.lifecycle.\"";

const PATH: &str = "/api/v1/logs";
/// The largest page size that Okta accepts.
const LIMIT_MAX: u16 = 1000;
/// Limit for a cursor; Okta's are much shorter.
const NEXT_BYTES_MAX: usize = 8 << 10;

/// The request parameters that a stored cursor depends on. Okta's next link repeats them, so a checkpoint with other
/// parameters must not be resumed.
pub fn filter_fingerprint() -> String {
    format!("filter={FILTER}&limit={LIMIT_MAX}&sortOrder=ASCENDING")
}

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
    /// Whether the page reached its limit, so that more events may be available already.
    pub full: bool,
    /// The time of Okta's clock (`Date`).
    pub server_time: Option<Timestamp>,
    /// The host of the next link if it differs from the configured one. Only the link's query is used; the caller logs
    /// this once.
    pub foreign_next_host: Option<String>,
}

impl Okta {
    /// Reads one page of at most `limit` entries (1 to 1000) from `position`. A cursor carries its own limit.
    ///
    /// # Errors
    /// Classified. [`crate::http::Kind::Rejected`] with status 400 if Okta refuses the position;
    /// [`crate::http::Kind::Malformed`] for a body that is not an array and for a next link to another path.
    pub async fn log_page(&self, position: &LogPosition, limit: u16) -> Result<LogPage, Failure> {
        let mut url = self.url(PATH);
        let limit = match position {
            LogPosition::Since(since) => {
                let limit = limit.clamp(1, LIMIT_MAX);
                url.query_pairs_mut()
                    .append_pair("since", &timestamp_text(*since))
                    .append_pair("filter", FILTER)
                    .append_pair("sortOrder", "ASCENDING")
                    .append_pair("limit", &limit.to_string());
                limit
            }
            LogPosition::Next(next) => {
                let query = next
                    .strip_prefix(PATH)
                    .and_then(|rest| rest.strip_prefix('?'))
                    .filter(|query| !query.is_empty() && next.len() <= NEXT_BYTES_MAX)
                    .ok_or_else(|| LOG.malformed("the stored cursor is not a System Log path"))?;
                url.set_query(Some(query));
                limit_of(&url).unwrap_or(limit)
            }
        };
        let answer = self.get(LOG, url.clone()).await?;
        let answer = answer.success(self.clock.as_ref())?;
        // An invalid byte makes one entry unreadable, not the whole page.
        let text = String::from_utf8_lossy(&answer.body);
        let raw: Vec<&RawValue> = serde_json::from_str(&text)
            .map_err(|_| answer.malformed("a page of the System Log is not a JSON array"))?;
        let entries: Vec<LogEntry> = raw.into_iter().map(|raw| LogEntry::read(raw).redacted(&answer)).collect();
        let mut page = LogPage {
            full: entries.len() >= usize::from(limit.max(1)),
            entries,
            next: None,
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
            if next.origin() != self.origin.origin() {
                page.foreign_next_host = Some(next.host_str().unwrap_or_default().to_owned());
            }
        }
        Ok(page)
    }
}

fn limit_of(url: &Url) -> Option<u16> {
    url.query_pairs().find(|(name, _)| name == "limit").and_then(|(_, value)| value.parse().ok())
}
