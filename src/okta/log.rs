//! The System Log, polled (Okta docs: System Log query, "Polling requests").
//!
//! Only polling requests return every event: no `until`, ascending. They are ordered by when they were persisted, and
//! always name a next page, which for an empty page is the one just asked for.

use serde_json::value::RawValue;
use url::Url;

use super::endpoints::LOG;
use super::entry::LogEntry;
use super::{Failure, Okta};
use crate::domain::{Timestamp, timestamp_text};
use crate::http::{headers, link};

/// Which events are asked for. New lifecycle types come unasked.
pub const FILTER: &str = "eventType sw \"user.lifecycle.\"";

const PATH: &str = "/api/v1/logs";
/// Okta takes at most this many events a page.
const LIMIT_MAX: u16 = 1000;
/// A stored position longer than this is none of Okta's.
const NEXT_BYTES_MAX: usize = 8 << 10;

/// What a stored position depends on besides the org. The link of a position carries the filter and the limit of the
/// request it came from: with others, the log has to be anchored anew.
pub fn filter_fingerprint() -> String {
    format!("filter={FILTER}&limit={LIMIT_MAX}&sortOrder=ASCENDING")
}

/// Where in the log a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPosition {
    /// At the first event persisted at or after this moment. At most 180 days back (Okta answers 400 otherwise).
    Since(Timestamp),
    /// Where an earlier page ended: its [`LogPage::next`], path and query.
    Next(String),
}

/// A page of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// Its entries, in log order, which is not causal order.
    pub entries: Vec<LogEntry>,
    /// Where the next page begins: path and query, to be stored.
    pub next: Option<String>,
    /// Has it as many entries as were asked for, so that there may be more at once?
    pub full: bool,
    /// Okta's own time.
    pub server_time: Option<Timestamp>,
    /// The host of `next`, if it is another than the configured one. Only its query is used; say so once.
    pub foreign_next_host: Option<String>,
}

impl Okta {
    /// One page of the log: at most `limit` entries (1 to 1000) from `position` on. A stored position carries its own
    /// limit.
    ///
    /// # Errors
    /// Classified. [`crate::http::Kind::Rejected`] with status 400 for a refused position;
    /// [`crate::http::Kind::Malformed`] for a body that is no list, and for a next link that leads out of the log.
    pub async fn log_page(&self, position: &LogPosition, limit: u16) -> Result<LogPage, Failure> {
        let mut url = self.address(PATH);
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
                    .ok_or_else(|| LOG.malformed("the stored position is no place in the log"))?;
                url.set_query(Some(query));
                limit_of(&url).unwrap_or(limit)
            }
        };
        let answer = self.get(LOG, url.clone()).await?;
        let answer = answer.success(self.clock.as_ref())?;
        // An invalid byte belongs to one entry, and shall not cost the others.
        let text = String::from_utf8_lossy(&answer.body);
        let raw: Vec<&RawValue> =
            serde_json::from_str(&text).map_err(|_| answer.malformed("a page of the log is not a JSON list"))?;
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
                return Err(answer.malformed("refused next link: it leads to another place than the log"));
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
