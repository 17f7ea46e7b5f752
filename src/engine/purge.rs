//! Lifts every mark before the program is uninstalled: on all accounts that the state knows, and on those that a search
//! finds (a lost state, a removed user).
//!
//! For each account it reads the account, removes all our data in one PATCH, and updates the state. Interruption is
//! harmless: the next purge continues with the remaining accounts.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::calls::{RetryPolicy, with_retries};
use super::error::CallError;
use super::smaller::read_account;
use crate::auth0::{self, AccountQuery, AccountRecord, Fields};
use crate::domain::account::Mirror;
use crate::domain::mark::{self, Removal};
use crate::domain::{Account, AccountId, Cause, DecisionOutcome};
use crate::http::pacing::Priority;
use crate::http::{Endpoint, Failure};
use crate::store::{Decision, MarkedByUs, StoreError};

/// Accounts read from the state at once.
const BATCH: u32 = 500;
/// Auth0 shows the first 1,000 hits of a search, 100 a page.
const SEARCH_PAGES_MAX: u32 = 10;
/// The search lags. After this many rounds without a new account, the purge ends.
const STALE_ROUNDS_MAX: u32 = 10;
const ROUND_PAUSE: Duration = Duration::from_secs(3);
/// Longer waits of the circuit breaker end the purge.
const RETRIES: RetryPolicy = RetryPolicy { attempts_max: 4, wait_max: Duration::from_secs(60) };

/// An account that was, or would be, cleared of our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearedAccount {
    /// Auth0's id.
    pub account: AccountId,
    /// Its address.
    pub email: Option<String>,
    /// Its state before.
    pub before: String,
    /// Its state after.
    pub after: String,
}

/// The result of a purge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purge {
    /// Accounts that were (in a dry run: would be) written.
    pub freed: u64,
    /// Accounts without our data.
    pub clean: u64,
    /// Accounts that could not be cleared, and why.
    pub left: Vec<(AccountId, String)>,
    /// Why the purge ended early.
    pub incomplete: Option<String>,
}

/// What a search shows.
#[derive(Default)]
struct FoundRange {
    found: Vec<AccountId>,
    listed: u64,
    /// The number of hits, shown or not.
    total: u64,
    /// When the last of them was created.
    last: Option<String>,
}

/// Why an account was not cleared.
enum Trouble {
    /// This account failed; the purge continues.
    Account(String),
    /// The whole purge ends.
    All(String),
    /// The state cannot be used.
    Store(StoreError),
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Paused { why, .. } => Self::All(why),
            CallError::Failed(failure) => Self::Account(failure.to_string()),
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Engine {
    /// Clears every account of our mark and reports each to `on_cleared`. A dry run writes nothing to Auth0.
    ///
    /// # Errors
    /// When the state cannot be used. [`Purge`] has the accounts that failed.
    pub async fn purge(
        &self,
        dry_run: bool,
        stop: &CancellationToken,
        on_cleared: impl Fn(&ClearedAccount),
    ) -> Result<Purge, StoreError> {
        let mut purge = Purge::default();
        match self.purge_all(dry_run, stop, &on_cleared, &mut purge).await {
            Ok(()) => {}
            Err(Trouble::Store(error)) => return Err(error),
            Err(Trouble::All(why) | Trouble::Account(why)) => purge.incomplete = Some(why),
        }
        Ok(purge)
    }

    async fn purge_all(
        &self,
        dry_run: bool,
        stop: &CancellationToken,
        on_cleared: &impl Fn(&ClearedAccount),
        purge: &mut Purge,
    ) -> Result<(), Trouble> {
        let mut done = BTreeSet::new();
        let mut after: Option<AccountId> = None;
        loop {
            let batch = self.store.marked_by_us(after.as_ref(), BATCH).await?;
            let Some(last) = batch.last() else { break };
            after = Some(last.account.clone());
            for known in &batch {
                bail_if_cancelled(stop)?;
                done.insert(known.account.clone());
                self.purge_one(&known.account, Some(known), dry_run, on_cleared, purge).await?;
            }
        }
        let queries: [fn(Option<&str>) -> AccountQuery<'_>; 2] =
            [|since| AccountQuery::Marked { since }, |since| AccountQuery::FlaggedOnly { since }];
        for query in queries {
            self.purge_found(query, dry_run, stop, on_cleared, &mut done, purge).await?;
        }
        Ok(())
    }

    /// Clears the accounts that a search finds. Auth0 shows the first 1,000 hits, so they are searched in the order of their
    /// creation, in ranges: the marks of other installations stay, and must not hide ours.
    async fn purge_found(
        &self,
        query: fn(Option<&str>) -> AccountQuery<'_>,
        dry_run: bool,
        stop: &CancellationToken,
        on_cleared: &impl Fn(&ClearedAccount),
        done: &mut BTreeSet<AccountId>,
        purge: &mut Purge,
    ) -> Result<(), Trouble> {
        let (mut since, mut stale, mut is_new) = (None::<String>, 0, false);
        loop {
            let range = self.search_range(&query(since.as_deref()), stop).await?;
            let freed = purge.freed;
            for id in range.found {
                bail_if_cancelled(stop)?;
                if done.insert(id.clone()) {
                    self.purge_one(&id, None, dry_run, on_cleared, purge).await?;
                }
            }
            is_new |= purge.freed > freed;
            let more = range.total > range.listed;
            if more && range.last.is_some() && range.last != since {
                since = range.last;
                continue;
            }
            // Cleared accounts leave the search a little later, which makes room for the rest.
            stale = if is_new { 0 } else { stale + 1 };
            if !more && (dry_run || !is_new) {
                return Ok(());
            }
            if more && (dry_run || stale > STALE_ROUNDS_MAX) {
                return Err(Trouble::All(format!(
                    "Auth0's search shows {} of {} accounts that were created at the same time; run `purge` again for the \
                     rest",
                    range.listed, range.total
                )));
            }
            (since, is_new) = (if more { since } else { None }, false);
            self.clock.sleep(ROUND_PAUSE).await;
        }
    }

    /// The first 1,000 hits of a search.
    async fn search_range(&self, query: &AccountQuery<'_>, stop: &CancellationToken) -> Result<FoundRange, Trouble> {
        let mut range = FoundRange::default();
        for page in 0..SEARCH_PAGES_MAX {
            bail_if_cancelled(stop)?;
            let search = || self.auth0.search(query, page, Fields::Id);
            let hits =
                self.with_retries(auth0::endpoints::SEARCH, "purge", search).await.map_err(Trouble::of_search)?;
            range.total = hits.total;
            range.listed += hits.accounts.len() as u64;
            if let Some(last) = hits.accounts.last() {
                range.last.clone_from(&last.created_at);
            }
            let empty = hits.accounts.is_empty();
            range.found.extend(hits.accounts.into_iter().map(|record| record.account.id));
            if empty || range.listed >= range.total {
                break;
            }
        }
        Ok(range)
    }

    async fn purge_one(
        &self,
        id: &AccountId,
        known: Option<&MarkedByUs>,
        dry_run: bool,
        on_cleared: &impl Fn(&ClearedAccount),
        purge: &mut Purge,
    ) -> Result<(), Trouble> {
        match self.clear(id, known, dry_run).await {
            Ok(Some(freed)) => {
                purge.freed += 1;
                on_cleared(&freed);
                Ok(())
            }
            Ok(None) => {
                // A search also finds accounts with the marks and flags of others.
                purge.clean += u64::from(known.is_some());
                Ok(())
            }
            Err(Trouble::Account(why)) => {
                purge.left.push((id.clone(), why));
                Ok(())
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Clears one account. `None`: it had none of our data.
    async fn clear(
        &self,
        id: &AccountId,
        known: Option<&MarkedByUs>,
        dry_run: bool,
    ) -> Result<Option<ClearedAccount>, Trouble> {
        let subject = id.as_str();
        let mut record = self.read_any(id).await?;
        let org = self.store.okta_org().await?;
        record.iter_mut().for_each(|record| record.account.claim_marks(org.as_deref(), false));
        let ours = mark::Known {
            // The search found it by its mark, which may be unreadable.
            denied: known
                .map_or_else(|| record.as_ref().is_some_and(|record| record.account.unread), |known| known.denied),
            blocked: known.is_some_and(|known| known.blocked),
        };
        if let (None, Some(theirs)) =
            (&org, record.as_ref().and_then(|record| record.account.mark.as_ref()?.okta_org.as_ref()))
        {
            return Err(Trouble::Account(format!(
                "its mark is for the Okta org {theirs}, and the state does not know our org yet: run `sync` once, then \
                 `purge` again"
            )));
        }
        let planned = record.and_then(|record| Some((mark::removal(&record.account, ours, org.as_deref())?, record)));
        let Some((removal, record)) = planned else {
            if known.is_some() && !dry_run {
                self.store.purged(id, None, true, &self.policy_text, self.now()).await?;
            }
            return Ok(None);
        };
        let account = &record.account;
        let freed = |after: &Account| ClearedAccount {
            account: id.clone(),
            email: account.email.as_ref().map(|email| email.as_str().to_owned()),
            before: account.summary(),
            after: after.summary(),
        };
        if dry_run {
            return Ok(Some(freed(&without(account, &removal))));
        }
        let patched =
            self.with_retries(auth0::endpoints::PATCH, subject, || self.auth0.remove_mark(&record, &removal)).await?;
        let after = match patched.account {
            Some(record) => Some(record),
            None => self.read_any(id).await?,
        };
        // An account that is gone has none of our data.
        let after = after.map_or_else(|| without(account, &removal), |record| record.account);
        if !mark::is_removed(&after, &removal) {
            return Err(Trouble::Account(
                "Auth0 accepted the write but its response still has our mark; another program writes the same key"
                    .to_owned(),
            ));
        }
        let freed = freed(&after);
        let owner = account.mark.as_ref().and_then(|mark| mark.okta_user_id.as_ref());
        let decision = Decision {
            okta_user_id: owner.or(known.map(|known| &known.user)).map(|user| user.as_str().to_owned()),
            email: freed.email.clone(),
            auth0_user_id: Some(id.as_str().to_owned()),
            cause: Cause::Command.as_str().to_owned(),
            actor: Some("command".to_owned()),
            before: Some(freed.before.clone()),
            after: Some(freed.after.clone()),
            outcome: DecisionOutcome::Purged,
            request_id: patched.request_id,
            ..Decision::default()
        };
        // A mirror that cannot be read may still deny the account, so it stays known.
        let mirror_left = self.options.rules.mark.mirror && account.mirror == Mirror::Unread;
        self.store.purged(id, Some(decision), !mirror_left, &self.policy_text, self.now()).await?;
        if mirror_left {
            return Err(Trouble::Account(
                "the mark is removed, but user_metadata could not be read, because the account is too large; remove \
                 okta.deactivated from it in Auth0 if it is there"
                    .to_owned(),
            ));
        }
        Ok(Some(freed))
    }

    /// As much of the account as can be read.
    async fn read_any(&self, id: &AccountId) -> Result<Option<AccountRecord>, Trouble> {
        let read = |fields| async move {
            let attempt = || {
                self.auth0_breaker
                    .call(auth0::endpoints::ACCOUNT, Priority::Live, id.as_str(), || self.auth0.account(id, fields))
            };
            with_retries(RETRIES, self.clock.as_ref(), attempt).await
        };
        Ok(read_account(read).await?)
    }

    async fn with_retries<T, F, Fut>(&self, endpoint: Endpoint, subject: &str, call: F) -> Result<T, Trouble>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let attempt = || self.auth0_breaker.call(endpoint, Priority::Live, subject, &call);
        Ok(with_retries(RETRIES, self.clock.as_ref(), attempt).await?)
    }
}

impl Trouble {
    /// A failed search ends the purge: without it, the remaining accounts are unknown.
    fn of_search(self) -> Self {
        match self {
            Self::Account(why) => Self::All(why),
            other => other,
        }
    }
}

fn bail_if_cancelled(stop: &CancellationToken) -> Result<(), Trouble> {
    if stop.is_cancelled() { Err(Trouble::All("cancelled; run `purge` again for the rest".to_owned())) } else { Ok(()) }
}

/// The account after the removal.
fn without(account: &Account, removal: &Removal) -> Account {
    Account {
        mark: None,
        former_key: None,
        keeps_former: false,
        keyed: Vec::new(),
        mirror: if removal.mirror { Mirror::Absent } else { account.mirror },
        blocked: account.blocked && !removal.unblock,
        ..account.clone()
    }
}

#[cfg(test)]
mod tests;
