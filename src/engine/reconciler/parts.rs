//! The requests of a reconcile, which tolerate failures: a failed page is retried, then split, then skipped and
//! counted.

use std::ops::Range;

use crate::auth0::{self, AccountQuery, AccountRecord, Fields, SearchPage};
use crate::domain::AccountId;
use crate::engine::Engine;
use crate::engine::calls::{RetryPolicy, with_retries};
use crate::engine::error::{CallError, PassError};
use crate::engine::smaller::{AsksForLess, read_account};
use crate::http::Failure;
use crate::http::pacing::Priority;
use std::time::Duration;

/// Auth0 shows the first 1,000 hits of a search, 100 a page.
const SEARCH_PAGES_MAX: u32 = 10;
/// A page is requested this often before it is split. A remote that pauses for longer ends the pass.
const TRIES: RetryPolicy = RetryPolicy { attempts_max: 3, wait_max: Duration::from_secs(5) };
/// After this many failures without an answer, the rest of a batch is not requested: the remote fails, not the batch.
const HOPELESS: usize = 4;

/// The results for the parts of a batch.
pub(super) struct Parts<R> {
    pub(super) answers: Vec<(Range<usize>, R)>,
    /// The positions without a result, and why.
    pub(super) failed: Vec<(usize, Failure)>,
}

impl<R> Parts<R> {
    /// Whether the failures are about single users, so that a look may still succeed. Otherwise the remote does not answer
    /// this kind of question, and looks would fail in the same way.
    pub(super) fn are_single_failures(&self) -> bool {
        !self.answers.is_empty() || self.failed.iter().all(|(_, failure)| failure.asks_for_less())
    }
}

/// Accounts with a mark, and those that could not be read.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) records: Vec<AccountRecord>,
    pub(super) unread: Vec<(AccountId, Failure)>,
    /// The number of hits, whatever was read.
    pub(super) hits: u64,
    pub(super) total: u64,
    /// When the last hit was created.
    pub(super) last: Option<String>,
}

impl Listed {
    /// Where the next range begins, if the search has more hits than it shows; `None` also if there is no smaller question.
    pub(super) fn next_range(&self, since: Option<&str>) -> Option<String> {
        self.last.clone().filter(|last| self.beyond() > 0 && Some(last.as_str()) != since)
    }

    /// The number of hits that the search does not show.
    pub(super) fn beyond(&self) -> u64 {
        self.total.saturating_sub(self.hits)
    }
}

impl Engine {
    /// Requests a batch, and where that fails, smaller and smaller parts of it.
    pub(super) async fn in_parts<R, F, Fut>(&self, count: usize, ask: F) -> Result<Parts<R>, PassError>
    where
        F: Fn(Range<usize>) -> Fut,
        Fut: Future<Output = Result<R, CallError>>,
    {
        let mut parts = Parts { answers: Vec::new(), failed: Vec::new() };
        let whole = 0..count;
        let mut waiting = Vec::from([whole]);
        while let Some(range) = waiting.pop() {
            self.heartbeats.reconciler.stamp(self.clock.as_ref());
            if range.is_empty() {
                continue;
            }
            if parts.answers.is_empty()
                && parts.failed.len() >= HOPELESS
                && let Some((_, failure)) = parts.failed.last().cloned()
            {
                parts.failed.extend(range.map(|place| (place, failure.clone())));
                continue;
            }
            let result =
                if range.len() == count { self.tried(|| ask(range.clone())).await } else { ask(range.clone()).await };
            match result {
                Ok(answer) => parts.answers.push((range, answer)),
                Err(CallError::Failed(failure)) if range.len() == 1 => parts.failed.push((range.start, failure)),
                Err(CallError::Failed(_)) => {
                    let middle = range.start + range.len() / 2;
                    waiting.push(middle..range.end);
                    waiting.push(range.start..middle);
                }
                Err(paused) => return Err(paused.into()),
            }
        }
        Ok(parts)
    }

    /// Retries a call for a short time.
    pub(super) async fn tried<R, F, Fut>(&self, call: F) -> Result<R, CallError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<R, CallError>>,
    {
        with_retries(TRIES, self.clock.as_ref(), call).await
    }

    /// All hits that Auth0 shows for a search, and their number.
    pub(super) async fn search_all(
        &self,
        query: &AccountQuery<'_>,
        fields: Fields,
    ) -> Result<(Vec<AccountRecord>, u64), CallError> {
        let (mut records, mut total) = (Vec::new(), 0);
        for page in 0..SEARCH_PAGES_MAX {
            let hits = self.search_page(query, page, fields).await?;
            total = hits.total;
            let empty = hits.accounts.is_empty();
            records.extend(hits.accounts);
            if empty || records.len() as u64 >= total {
                break;
            }
        }
        Ok((records, total))
    }

    async fn search_page(&self, query: &AccountQuery<'_>, page: u32, fields: Fields) -> Result<SearchPage, CallError> {
        let call = || self.auth0.search(query, page, fields);
        self.auth0_breaker.call(auth0::endpoints::SEARCH, Priority::Reconcile, "reconciler", call).await
    }

    /// As much of an account as can be read.
    pub(super) async fn read_account(&self, id: &AccountId) -> Result<Option<AccountRecord>, CallError> {
        let read = |fields| async move {
            let call = || self.auth0.account(id, fields);
            self.auth0_breaker.call(auth0::endpoints::ACCOUNT, Priority::Reconcile, "reconciler", call).await
        };
        read_account(read).await
    }

    /// The accounts with our mark that Auth0 shows for a search. Accounts that are too large together are read one by one.
    pub(super) async fn list_marked(&self, query: &AccountQuery<'_>) -> Result<Listed, CallError> {
        let mut listed = Listed::default();
        for page in 0..SEARCH_PAGES_MAX {
            self.heartbeats.reconciler.stamp(self.clock.as_ref());
            let page = match self.tried(|| self.search_page(query, page, Fields::Mark)).await {
                Err(failure) if failure.asks_for_less() => {
                    let ids = self.tried(|| self.search_page(query, page, Fields::Id)).await?;
                    self.read_each(&ids, &mut listed).await?;
                    SearchPage { accounts: ids.accounts, total: ids.total }
                }
                other => {
                    let page = other?;
                    listed.records.extend(page.accounts.iter().cloned());
                    page
                }
            };
            listed.total = page.total;
            listed.hits += page.accounts.len() as u64;
            if let Some(last) = page.accounts.last() {
                listed.last.clone_from(&last.created_at);
            }
            if page.accounts.is_empty() || listed.hits >= listed.total {
                break;
            }
        }
        Ok(listed)
    }

    /// Reads the accounts of a page by id.
    async fn read_each(&self, page: &SearchPage, listed: &mut Listed) -> Result<(), CallError> {
        for record in &page.accounts {
            self.heartbeats.reconciler.stamp(self.clock.as_ref());
            let id = &record.account.id;
            match self.tried(|| self.read_account(id)).await {
                Ok(read) => listed.records.extend(read),
                Err(CallError::Failed(failure)) => listed.unread.push((id.clone(), failure)),
                Err(paused) => return Err(paused),
            }
        }
        Ok(())
    }
}
