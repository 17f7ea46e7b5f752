//! Finding: which accounts are this person's, and who else holds their addresses.

use std::collections::{BTreeMap, BTreeSet};

use super::error::CallError;
use super::look::{Interrupted, Looking};
use super::searched::{ADDRESSES_MAX, Ahead, Hit, Searched, Searches};
use super::write;
use crate::auth0::{self, AccountQuery, AccountRecord, SearchPage};
use crate::domain::address::spellings;
use crate::domain::mark::{self, Difference};
use crate::domain::{AccountId, Address, DecisionOutcome, Held, Lane, OktaUser, OktaUserId, Outcome, Skipped, Verdict};
use crate::okta;
use crate::store::Decision;

/// The most other holders of an address that are asked for by id: more people on one address are a mailing list.
const HOLDERS_MAX: usize = 50;
/// Auth0 shows the first 1,000 hits of a search, 100 a page.
const SEARCH_PAGES_MAX: u32 = 10;

impl<'a> Looking<'a> {
    /// Makes every account of these addresses, and every account already marked for this user, denied.
    pub(super) async fn deny_accounts(&mut self, addresses: &[Address]) -> Result<(), Interrupted> {
        let mut done: BTreeSet<AccountId> = BTreeSet::new();
        let mut sharers = None;

        // First the immediately consistent look-up, and its hits at once: it is exact about upper and lower case, and only
        // Auth0's own database connections store lower case, so both spellings are asked for.
        let mut found = Vec::new();
        for spelling in spellings(addresses) {
            let answer = self.by_email(&spelling).await;
            found.extend(self.or_again(answer)?.unwrap_or_default());
        }
        self.deny_each(found, addresses, &mut done, &mut sharers).await?;

        // Then what carries our mark already, whatever its address has become.
        let marked: Vec<AccountId> = self
            .start
            .accounts
            .iter()
            .filter(|account| {
                (account.denied || account.unconfirmed || account.sessions_owed) && !done.contains(&account.id)
            })
            .map(|account| account.id.clone())
            .collect();
        for id in marked {
            let answer = self.account(&id).await;
            match self.or_again(answer)? {
                Some(Some(record)) => {
                    done.insert(id);
                    // Its address may have become another person's, which none of this user's addresses tells.
                    match record.account.email.clone() {
                        Some(email) if !addresses.iter().any(|address| address.same(email.as_str())) => {
                            let others = self.sharers(&[email]).await?;
                            self.deny_account(record, Some(&others)).await?;
                        }
                        _ => {
                            self.share(&mut sharers, addresses).await?;
                            self.deny_account(record, sharers.as_ref()).await?;
                        }
                    }
                }
                Some(None) => self.account_is_gone(&id),
                None => {}
            }
        }

        // Then the search, which finds any spelling but lags: it only names accounts, each is read before it is written.
        if self.engine.options.search && !addresses.is_empty() {
            let mut late = Vec::new();
            for id in self.search(addresses).await? {
                if !done.contains(&id)
                    && let Some(record) = self.account(&id).await?
                {
                    late.push(record);
                }
            }
            self.deny_each(late, addresses, &mut done, &mut sharers).await?;
        }
        if self.changes.is_empty() {
            self.weigh(Outcome::NoAccount);
        }
        Ok(())
    }

    async fn deny_each(
        &mut self,
        records: Vec<AccountRecord>,
        addresses: &[Address],
        done: &mut BTreeSet<AccountId>,
        sharers: &mut Option<Sharers>,
    ) -> Result<(), Interrupted> {
        for record in records {
            let account = &record.account;
            let by_address = account
                .email
                .as_ref()
                .is_some_and(|email| addresses.iter().any(|address| address.same(email.as_str())));
            if !by_address || !done.insert(account.id.clone()) {
                continue;
            }
            let options = &self.engine.options;
            let outside = !options.rules.connections.is_empty()
                && !account.connections.iter().any(|connection| options.rules.connections.contains(connection));
            let unverified = options.rules.require_verified_email && !account.email_verified;
            let ours = self.start.accounts.iter().any(|known| known.denied && known.id == account.id);
            if (outside || unverified) && !ours {
                let why = if outside { "connection_out_of_scope" } else { "email_not_verified" };
                self.decisions.push(Decision {
                    auth0_user_id: Some(account.id.as_str().to_owned()),
                    before: Some(account.summary()),
                    after: Some(account.summary()),
                    outcome: DecisionOutcome::Skipped,
                    why: Some(why.to_owned()),
                    ..Decision::default()
                });
                continue;
            }
            self.share(sharers, addresses).await?;
            self.deny_account(record, sharers.as_ref()).await?;
        }
        Ok(())
    }

    async fn deny_account(&mut self, record: AccountRecord, sharers: Option<&Sharers>) -> Result<(), Interrupted> {
        let account = &record.account;
        let other = account.email.as_ref().and_then(|email| sharers.and_then(|sharers| sharers.holder(email)));
        let Some(other) = other.cloned() else { return self.write_denial(record).await };
        // Also where the mark was wiped and something of ours is left: a block, the mirror.
        let known = self.known(&account.id);
        let something_is_ours = matches!(mark::allow(account, &self.reason(), known), Difference::Patch(_));
        if !something_is_ours {
            if known.denied {
                self.accounts.push(write::open(account));
            }
            let skipped = Skipped::SharedAddress(other);
            self.decide(account, account.summary(), DecisionOutcome::Skipped, Some(skipped.to_string()), None);
            self.skipped(skipped);
            return Ok(());
        }
        if self.start.approved {
            self.write_lift(record).await?;
            self.skipped(Skipped::SharedAddress(other));
            return Ok(());
        }
        let held = Held::AddressReused(other);
        self.decide(account, account.summary(), DecisionOutcome::Held, Some(held.to_string()), None);
        self.keep_denied(account);
        self.held(&held);
        Ok(())
    }

    /// Lifts what is marked for this user, and nothing else.
    pub(super) async fn allow(&mut self) -> Result<(), Interrupted> {
        let marked: Vec<AccountId> = self
            .start
            .accounts
            .iter()
            .filter(|account| account.denied || account.blocked || account.unconfirmed)
            .map(|account| account.id.clone())
            .collect();
        self.weigh(Outcome::Unchanged);
        for id in marked {
            let Some(record) = self.account(&id).await? else {
                self.account_is_gone(&id);
                continue;
            };
            let reused = match &record.account.email {
                Some(email) if !self.start.approved => {
                    let sharers = self.sharers(std::slice::from_ref(email)).await?;
                    sharers.holder(email).cloned()
                }
                _ => None,
            };
            match reused {
                Some(other) => {
                    let held = Held::AddressReused(other);
                    let account = &record.account;
                    self.decide(account, account.summary(), DecisionOutcome::Held, Some(held.to_string()), None);
                    self.keep_denied(account);
                    self.held(&held);
                }
                None => self.write_lift(record).await?,
            }
        }
        Ok(())
    }

    /// What could not be asked is asked again by the next look, and must not keep the person's other accounts open now.
    fn or_again<T>(&mut self, answer: Result<T, Interrupted>) -> Result<Option<T>, Interrupted> {
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(Interrupted::Remote(CallError::Failed(failure))) => {
                let outcome = self.interrupted(Interrupted::Remote(CallError::Failed(failure)));
                self.weigh(outcome);
                Ok(None)
            }
            Err(stopped) => Err(stopped),
        }
    }

    async fn by_email(&self, spelling: &str) -> Result<Vec<AccountRecord>, Interrupted> {
        let auth0 = &self.engine.auth0;
        Ok(self
            .engine
            .auth0_breaker
            .call(auth0::endpoints::BY_EMAIL, self.priority, self.start.id.as_str(), || {
                auth0.accounts_by_email(spelling)
            })
            .await?)
    }

    pub(super) async fn account(&self, id: &AccountId) -> Result<Option<AccountRecord>, Interrupted> {
        let auth0 = &self.engine.auth0;
        Ok(self
            .engine
            .auth0_breaker
            .call(auth0::endpoints::ACCOUNT, self.priority, self.start.id.as_str(), || auth0.account(id))
            .await?)
    }

    /// The accounts with one of these addresses in any case.
    async fn search(&self, addresses: &[Address]) -> Result<Vec<AccountId>, Interrupted> {
        match self.searched(&self.searches().accounts, addresses).await? {
            Ahead::Found(ids) => return Ok(ids),
            Ahead::Many(turn) => match self.search_page(turn.addresses(), 0).await {
                Ok(page) if u64::try_from(page.accounts.len()).unwrap_or(u64::MAX) >= page.total => {
                    let hits = page.accounts.into_iter().map(|AccountRecord { account, .. }| Hit {
                        addresses: account.email.into_iter().collect(),
                        found: account.id,
                    });
                    return Ok(turn.answered(&hits.collect::<Vec<_>>()));
                }
                // Too much for one page, or for Auth0: each for themselves.
                Ok(_) | Err(CallError::Failed(_)) => {}
                Err(stopped) => return Err(stopped.into()),
            },
            Ahead::Alone => {}
        }
        let mut ids = Vec::new();
        for page in 0..SEARCH_PAGES_MAX {
            let hits = self.search_page(addresses, page).await?;
            let last = hits.accounts.is_empty();
            ids.extend(hits.accounts.into_iter().map(|record| record.account.id));
            if last || u64::try_from(ids.len()).unwrap_or(u64::MAX) >= hits.total {
                break;
            }
        }
        Ok(ids)
    }

    fn searches(&self) -> &'a Searches {
        let [live, sweeps] = &self.engine.searches;
        match self.start.lane {
            Lane::Deactivation | Lane::Reactivation => live,
            Lane::Reconcile => sweeps,
        }
    }

    /// How these addresses are searched for: not at all, if that was done lately for many; together with those of others
    /// whose turn is next, if there are any; or alone.
    async fn searched<T: Clone + PartialEq>(
        &self,
        searched: &'a Searched<T>,
        addresses: &[Address],
    ) -> Result<Ahead<'a, T>, Interrupted> {
        let clock = &self.engine.clock;
        if let Some(found) = searched.take(addresses, clock.monotonic()) {
            return Ok(Ahead::Found(found));
        }
        let turn = searched.turn.lock().await;
        if let Some(found) = searched.take(addresses, clock.monotonic()) {
            return Ok(Ahead::Found(found));
        }
        let next = self.engine.store.next_leavers(self.start.lane, self.engine.now(), ADDRESSES_MAX).await?;
        Ok(searched.together(turn, addresses, next, clock.monotonic()).map_or(Ahead::Alone, Ahead::Many))
    }

    async fn search_page(&self, addresses: &[Address], page: u32) -> Result<SearchPage, CallError> {
        let auth0 = &self.engine.auth0;
        let query = AccountQuery::Emails(addresses);
        self.engine
            .auth0_breaker
            .call(auth0::endpoints::SEARCH, self.priority, self.start.id.as_str(), || auth0.search(&query, page))
            .await
    }

    /// Finds out who shares, if that is not known yet.
    async fn share(&self, sharers: &mut Option<Sharers>, addresses: &[Address]) -> Result<(), Interrupted> {
        if sharers.is_none() {
            *sharers = Some(self.sharers(addresses).await?);
        }
        Ok(())
    }

    /// Who else, someone to let in, holds one of these addresses now? Asked of Okta's search (any case, but lagging) and of
    /// the store (everybody who ever had it), each confirmed by id (never lagging).
    async fn sharers(&self, addresses: &[Address]) -> Result<Sharers, Interrupted> {
        let me = &self.start.id;
        let (okta, policy) = (&self.engine.okta, &self.engine.options.rules.policy);
        let together = match self.searched(&self.searches().holders, addresses).await? {
            Ahead::Found(users) => Some(users),
            Ahead::Many(turn) => match self.holders(turn.addresses()).await {
                Ok(users) => {
                    let hits = users.into_iter().map(|user| Hit { addresses: user.addresses(), found: user });
                    Some(turn.answered(&hits.collect::<Vec<_>>()))
                }
                // Too much at once for Okta: each for themselves, and nobody waits for anybody's turn.
                Err(CallError::Failed(_)) => None,
                Err(stopped) => return Err(stopped.into()),
            },
            Ahead::Alone => None,
        };
        let searched = match together {
            Some(users) => users,
            None => self.holders(addresses).await?,
        };
        let may_be_let_in = |user: &OktaUser| policy.verdict(&user.status) == Verdict::Allow;
        let mut candidates: Vec<OktaUserId> =
            searched.iter().filter(|user| user.id != *me && may_be_let_in(user)).map(|user| user.id.clone()).collect();
        for (id, status) in self.engine.store.known_holders(addresses, me).await? {
            let maybe = status.is_none_or(|status| policy.verdict(&status) == Verdict::Allow);
            if maybe && !candidates.contains(&id) {
                candidates.push(id);
            }
        }
        let mut sharers = Sharers::default();
        for id in candidates.iter().take(HOLDERS_MAX) {
            let user = self
                .engine
                .okta_breaker
                .call(okta::endpoints::USER, self.priority, me.as_str(), || okta.user(id))
                .await?;
            if let Some(user) = user {
                for address in addresses.iter().filter(|address| policy.is_shared_with(address, &user)) {
                    sharers.0.entry(address.key()).or_insert_with(|| user.id.clone());
                }
            }
        }
        Ok(sharers)
    }

    async fn holders(&self, addresses: &[Address]) -> Result<Vec<OktaUser>, CallError> {
        let okta = &self.engine.okta;
        self.engine
            .okta_breaker
            .call(okta::endpoints::USERS, self.priority, self.start.id.as_str(), || okta.holders(addresses))
            .await
    }
}

/// Who else, someone to let in, holds an address: by the address's key.
#[derive(Debug, Default)]
pub(super) struct Sharers(BTreeMap<String, OktaUserId>);

impl Sharers {
    fn holder(&self, address: &Address) -> Option<&OktaUserId> {
        self.0.get(&address.key())
    }
}

#[cfg(test)]
mod tests;
