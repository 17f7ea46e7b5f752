//! Polls the System Log page by page, from the checkpoint to the end.
//!
//! It uses polling mode only: ascending, no `until`. Polling mode orders by persistence time, and only its `next` links are
//! loss-free (Okta docs: System Log query, "Transferring data"). The poller reads the checkpoint before every page and moves
//! it in the transaction that stores the page, so a crash between two pages loses nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span, warn};

use super::error::PassError;
use super::page_limit::PageLimit;
use super::{Engine, Note};
use crate::domain::clock::{self, timestamp_text};
use crate::domain::{Event, Status, Timestamp};
use crate::http::pacing::Priority;
use crate::http::{Failure, Kind};
use crate::okta::{self, LogEntry, LogFilter, LogPage, LogPosition};
use crate::store::{Alarm, AlarmKind, Checkpoint, Page, QuarantinedEvent, RunCounts, RunKind};
use oversized::Skip;

/// Pages per pass. The caller starts the next pass at once.
const PAGES_MAX: u64 = 500;
/// How far before the end of the last complete pass to resume. Polling filters by persistence time, so this only has to
/// cover the difference between that and the response's `Date`.
const OVERLAP: Duration = Duration::from_secs(600);
/// A cursor that has not moved for this long approaches the end of Okta's retention.
const IDLE_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Okta keeps the log for 90 days; we assume a gap some time before that.
const GAP_AFTER: Duration = Duration::from_secs(80 * 86_400);
/// Okta's time is known from `Date` to the second, at some moment of a call. The local clock is more precise if it is right.
const DATE_PRECISION: SignedDuration = SignedDuration::from_secs(60);
/// Okta refuses `since` from 180 days on (E0000053).
const SINCE_MAX: Duration = Duration::from_secs(179 * 86_400);

/// The smallest page that the poller requests: a single event.
const LIMIT_MIN: u16 = 1;
/// Part of the fingerprint of versions that moved the anchor with every page.
const OLD_FINGERPRINT: &str = "&limit=";
const UNLINKED: &str = "a page with events has no next link, so the rest of the log cannot be read; check for a proxy that \
                        removes Link headers";

/// What one pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Pages stored.
    pub pages: u64,
    /// Events that were new.
    pub events: u64,
    /// Users queued for a look.
    pub made_due: u64,
    /// The pass reached its page limit; more pages may follow.
    pub more: bool,
}

/// What the poller remembers between passes.
#[derive(Debug)]
pub(super) struct Polling {
    /// Set once the org that answers is known to be the one that the state belongs to.
    org: OnceCell<String>,
    org_bound: OnceCell<()>,
    /// The size of the next page of the log.
    page_limit: Mutex<PageLimit>,
    /// An event that is too large is being stepped over.
    skip: Mutex<Option<Skip>>,
    /// An alarm about a `next` link to another host may be open.
    foreign_next: AtomicBool,
}

impl Default for Polling {
    fn default() -> Self {
        // A previous run may have raised the alarm.
        Self {
            org: OnceCell::new(),
            org_bound: OnceCell::new(),
            page_limit: Mutex::new(PageLimit::between(LIMIT_MIN, okta::LIMIT_MAX)),
            skip: Mutex::new(None),
            foreign_next: AtomicBool::new(true),
        }
    }
}

impl Engine {
    /// Reads the log from the checkpoint to its end.
    ///
    /// # Errors
    /// See [`PassError`]; the next pass resumes where this one stopped.
    pub async fn poll(&self, stop: &CancellationToken) -> Result<Pass, PassError> {
        let started = self.now();
        let mut pass = Pass::default();
        let result = self.poll_pages(&mut pass, stop).instrument(info_span!("pass", kind = "poll")).await;
        if let Err(error) = &result
            && !matches!(error, PassError::Store(_))
        {
            self.store.note_poll(self.now()).await?;
        }
        // A pass without events stores no run; the state has the time of the last good pass.
        if pass.events > 0 {
            let run = self.store.begin_run(RunKind::Poll, started).await?;
            let counts = RunCounts { pages: pass.pages, events: pass.events, ..RunCounts::default() };
            let error = result.as_ref().err().map(ToString::to_string);
            self.store.finish_run(run, counts, error.as_deref(), self.now()).await?;
        }
        result.map(|()| pass)
    }

    async fn poll_pages(&self, pass: &mut Pass, stop: &CancellationToken) -> Result<(), PassError> {
        let filter = LogFilter::of(&self.options.rules.policy);
        let fingerprint = format!("{} {}", self.options.okta_url, filter.fingerprint());
        let (mut refused_once, mut reanchored) = (false, false);
        while pass.pages < PAGES_MAX {
            self.heartbeats.poller.stamp(self.clock.as_ref());
            if stop.is_cancelled() {
                return Ok(());
            }
            // Before the position, which needs the time of Okta's clock.
            let org = self.org("poller").await?;
            let checkpoint = self.store.checkpoint().await?;
            let Some((position, expected_seq)) = self.position(checkpoint.as_ref(), &fingerprint).await? else {
                continue;
            };
            let page = match self.page(&position, &filter).await {
                Ok(page) => page,
                Err(PassError::Failed(failure)) if self.may_read_smaller(&failure) => continue,
                Err(PassError::Failed(failure)) if failure.kind == Kind::TooLarge => {
                    if self.step_over_oversized(&failure, checkpoint.as_ref(), &fingerprint).await? {
                        continue;
                    }
                    return Err(failure.into());
                }
                Err(PassError::Failed(failure)) if failure.kind == Kind::Rejected => {
                    // Retry once, in case the refusal was a glitch. Then give up the cursor and resume by timestamp.
                    if !refused_once {
                        refused_once = true;
                        continue;
                    }
                    match checkpoint {
                        // If Okta refuses the new cursor too, another one will not help.
                        Some(checkpoint) if checkpoint.next.is_some() && !reanchored => {
                            self.reanchor(&checkpoint, &fingerprint, &format!("Okta refused the cursor: {failure}"))
                                .await?;
                            (refused_once, reanchored) = (false, true);
                            continue;
                        }
                        _ => return Err(failure.into()),
                    }
                }
                Err(error) => return Err(error),
            };
            refused_once = false;
            self.bind_org(org).await?;
            self.note_good_page();
            let from = Start { checkpoint: checkpoint.as_ref(), position: &position, expected_seq };
            let (is_unlinked, is_last) = (page.is_unlinked(), page.is_last());
            let recorded = self.record(page, from, &fingerprint).await?;
            if let (None, LogPosition::Since(since)) = (&checkpoint, &position) {
                info!(event = "first_poll", since = %timestamp_text(*since), "first poll of the System Log succeeded");
            }
            pass.pages += 1;
            pass.events += recorded.new_events;
            pass.made_due += recorded.made_due;
            if recorded.new_events > 0 {
                self.wakes.apply.notify_one();
            }
            self.note(Note::Page { new_events: recorded.new_events });
            if is_unlinked {
                return Err(okta::endpoints::LOG.malformed(UNLINKED).into());
            }
            if is_last {
                return Ok(());
            }
        }
        pass.more = true;
        Ok(())
    }

    /// Whether the page is to be requested again with a smaller limit: it could not be read whole, or not in time.
    fn may_read_smaller(&self, failure: &Failure) -> bool {
        if !failure.asks_for_less() {
            return false;
        }
        let mut limit = self.page_limit();
        let (before, shrunk) = (limit.get(), limit.shrink());
        if shrunk {
            let limit = limit.get();
            warn!(event = "page_shrunk", limit, "{failure}; requesting {limit} events a page instead of {before}");
        }
        shrunk
    }

    fn note_good_page(&self) {
        *self.skip() = None;
        if let Some(limit) = self.page_limit().note_good() {
            info!(event = "page_grown", limit, "requesting {limit} events a page again");
        }
    }

    fn page_limit(&self) -> MutexGuard<'_, PageLimit> {
        self.polling.page_limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn skip(&self) -> MutexGuard<'_, Option<Skip>> {
        self.polling.skip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The position of the next page. `None`: the checkpoint was just re-anchored; read it again.
    async fn position(
        &self,
        checkpoint: Option<&Checkpoint>,
        fingerprint: &str,
    ) -> Result<Option<(LogPosition, i64)>, PassError> {
        let now = self.okta_now();
        let Some(checkpoint) = checkpoint else {
            let since = clock::sub(now, self.options.initial_lookback);
            return Ok(Some((LogPosition::Since(since), 0)));
        };
        let is_moving = checkpoint.next.is_some() && clock::since(now, checkpoint.moved_at) <= IDLE_MAX;
        // A pass through an old backlog moves the cursor, and the anchor only at its end.
        if clock::since(now, checkpoint.anchor_at) > GAP_AFTER && !is_moving {
            self.note_gap(checkpoint.anchor_at, now).await?;
        }
        if let Some(next) = &checkpoint.next {
            let why = if checkpoint.fingerprint != fingerprint {
                "the cursor belongs to another org address or event filter".to_owned()
            } else if clock::since(now, checkpoint.moved_at) > IDLE_MAX {
                "the cursor has not moved for 30 days".to_owned()
            } else {
                return Ok(Some((LogPosition::Next(next.clone()), checkpoint.seq)));
            };
            self.reanchor(checkpoint, fingerprint, &why).await?;
            return Ok(None);
        }
        let oldest = clock::sub(now, SINCE_MAX);
        Ok(Some((LogPosition::Since(checkpoint.anchor_at.max(oldest)), checkpoint.seq)))
    }

    /// The time of Okta's clock, which stamps the log. By a local clock that is days ahead, the first poll would start in
    /// the future and miss everything before.
    fn okta_now(&self) -> Timestamp {
        let local = self.now();
        self.okta.now().filter(|theirs| theirs.duration_since(local).abs() > DATE_PRECISION).unwrap_or(local)
    }

    async fn page(&self, position: &LogPosition, filter: &LogFilter) -> Result<LogPage, PassError> {
        let limit = self.page_limit().get();
        self.okta_breaker
            .call(okta::endpoints::LOG, Priority::Live, "poller", || self.okta.log_page(position, filter, limit))
            .await
            .map_err(PassError::from)
    }

    /// The id of this org, after checking once per process that the state does not belong to another one: a custom domain may
    /// be moved. `asker` is the loop that waits for it.
    pub(super) async fn org(&self, asker: &str) -> Result<&str, PassError> {
        let known = self.polling.org.get_or_try_init(|| async {
            let org =
                self.okta_breaker.call(okta::endpoints::ORG, Priority::Live, asker, || self.okta.org_id()).await?;
            self.store.require_org(&org).await.map_err(PassError::Store)?;
            Ok(org)
        });
        known.await.map(String::as_str)
    }

    /// Binds the state to `org`. Called after this org has accepted our credential: anyone can ask any org for its id, so
    /// that a mistyped address would bind the state for good.
    pub(super) async fn bind_org(&self, org: &str) -> Result<(), PassError> {
        let bind = || async { self.store.bind_org(org).await.map_err(PassError::Store) };
        self.polling.org_bound.get_or_try_init(bind).await.copied()
    }

    async fn record(
        &self,
        mut page: LogPage,
        from: Start<'_>,
        fingerprint: &str,
    ) -> Result<crate::store::Recorded, PassError> {
        let now = self.now();
        let (anchor_at, is_good) = (from.anchor_after(&page), !page.is_unlinked());
        let (events, quarantined) = split(std::mem::take(&mut page.entries));
        let recorded = self
            .store
            .record_page(
                Page {
                    expected_seq: from.expected_seq,
                    events: &events,
                    quarantined: &quarantined,
                    next: from.next(&page),
                    fingerprint,
                    anchor_at,
                    creation_matters: self.options.rules.policy.deny_statuses.contains(&Status::Staged),
                    is_good,
                },
                now,
            )
            .await?;
        if recorded.new_quarantined > 0 {
            let first =
                quarantined.first().map_or(String::new(), |entry| format!("; {}: {}", entry.event_id, entry.why));
            error!(
                event = "quarantined",
                count = recorded.new_quarantined,
                "failed to read events of the System Log{first}"
            );
            let alarm = Alarm::quarantined(recorded.new_quarantined, &first);
            self.store.raise_alarm(&alarm, now).await?;
        }
        if let Some(host) = &page.foreign_next_host {
            let alarm = Alarm::foreign_next(host, &self.options.okta_url);
            if self.store.raise_alarm(&alarm, now).await? {
                warn!(event = "foreign_next", %host, "{}", alarm.detail);
            }
            self.polling.foreign_next.store(true, Ordering::Relaxed);
        } else if page.next.is_some() && self.polling.foreign_next.swap(false, Ordering::Relaxed) {
            self.store.clear_alarms(AlarmKind::ForeignNext, now).await?;
        }
        Ok(recorded)
    }

    /// Gives up the cursor and resumes by time, where the last complete pass ended. Nothing is lost unless Okta may have
    /// removed events since then, or the anchor is of a version that moved it in the middle of a backlog.
    async fn reanchor(&self, checkpoint: &Checkpoint, fingerprint: &str, why: &str) -> Result<(), PassError> {
        let now = self.now();
        let since = clock::sub(checkpoint.anchor_at, OVERLAP);
        let is_doubtful = checkpoint.fingerprint.contains(OLD_FINGERPRINT);
        let may_be_incomplete = is_doubtful || clock::since(now, since) > GAP_AFTER;
        warn!(event = "reanchored", since = %timestamp_text(since), "{why}; resuming by timestamp, duplicates are ignored");
        self.store.reanchor(checkpoint.seq, fingerprint, since, now).await?;
        let alarm = if may_be_incomplete {
            let until = if is_doubtful { since } else { clock::sub(now, GAP_AFTER) };
            Alarm::reanchored_with_gap(why, since, (!is_doubtful).then_some(since), until)
        } else {
            Alarm::reanchored(why, since)
        };
        self.store.raise_alarm(&alarm, now).await?;
        if may_be_incomplete && !self.is_full_reconcile_running().await? {
            self.request_reconcile_all("the System Log could not be read without a gap").await?;
        }
        Ok(())
    }

    async fn is_full_reconcile_running(&self) -> Result<bool, PassError> {
        let run = self.store.current_reconcile().await?;
        Ok(run.is_some_and(|run| run.is_full()))
    }

    /// Events may have expired before we read them. Only a full reconcile finds their users.
    async fn note_gap(&self, complete_until: Timestamp, now: Timestamp) -> Result<(), PassError> {
        let alarm = Alarm::gap(complete_until, clock::sub(now, GAP_AFTER));
        if self.store.raise_alarm(&alarm, now).await? {
            error!(event = "gap", "{}", alarm.detail);
            self.request_reconcile_all("a gap in the log").await?;
        }
        Ok(())
    }
}

/// Where a page was requested.
#[derive(Clone, Copy)]
struct Start<'a> {
    checkpoint: Option<&'a Checkpoint>,
    position: &'a LogPosition,
    expected_seq: i64,
}

impl Start<'_> {
    /// The cursor to store: a page that does not lead further keeps the old one.
    fn next<'a>(&'a self, page: &'a LogPage) -> Option<&'a str> {
        let asked = match self.position {
            LogPosition::Next(next) => Some(next.as_str()),
            LogPosition::Since(_) => None,
        };
        if page.repeats { asked.or(page.next.as_deref()) } else { page.next.as_deref().or(asked) }
    }

    /// The anchor to store. Only the end of the log moves it, to Okta's time: an anchor in the middle of a backlog
    /// would skip the rest of it, and an anchor from a wrong local clock would skip events too.
    fn anchor_after(&self, page: &LogPage) -> Timestamp {
        let before = match (self.checkpoint, self.position) {
            (Some(checkpoint), _) => checkpoint.anchor_at,
            (None, LogPosition::Since(since)) => *since,
            // A cursor without a checkpoint does not exist.
            (None, LogPosition::Next(_)) => Timestamp::UNIX_EPOCH,
        };
        page.server_time.filter(|_| page.entries.is_empty()).unwrap_or(before)
    }
}

/// The events of a page, and those that cannot be read.
fn split(entries: Vec<LogEntry>) -> (Vec<Event>, Vec<QuarantinedEvent>) {
    let mut events = Vec::with_capacity(entries.len());
    let mut quarantined = Vec::new();
    for entry in entries {
        match entry {
            LogEntry::Event(event) => events.push(event),
            LogEntry::Unreadable { event_id, event_type, published, raw, why } => {
                let event_id = event_id.unwrap_or_else(|| id_of_text(&raw));
                quarantined.push(QuarantinedEvent { event_id, event_type, published, raw, why });
            }
        }
    }
    (events, quarantined)
}

/// An id derived from the text, so that the same unreadable event is stored once.
fn id_of_text(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("unreadable-{hex}")
}

mod oversized;
#[cfg(test)]
mod tests;
