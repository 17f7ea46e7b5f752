//! Gathering: which accounts a look reads, and in which order.
//!
//! Exact lookups come first, and their hits are decided at once. Then come the accounts that already carry our mark, one by
//! one, and last the search, which finds any spelling but lags.

mod holders;

use std::collections::BTreeSet;

use crate::auth0::{AccountRecord, Fields};
use crate::domain::account::{Identifier, addresses_among};
use crate::domain::address::spellings;
use crate::domain::decide::{self, Assessment, Course, Evidence, Found, FoundBy, Holders, Plan};
use crate::domain::{AccountId, Address, KnownUser, MarkedAccount, OktaUser, OktaUserId, Rules, Status, Timestamp};
use crate::engine::smaller::AsksForLess;
use crate::okta::HolderList;

/// Both tenants and the store as a look reads them, and the consumer of its plans.
pub(in crate::engine) trait Tenants {
    /// Why a read failed.
    type Error: AsksForLess;

    /// The time of a decision.
    fn now(&self) -> Timestamp;
    /// A user of Okta by id.
    async fn okta_user(&self, id: &OktaUserId) -> Result<Option<OktaUser>, Self::Error>;
    /// Another user of Okta by id, possibly as read a moment ago.
    async fn holder(&self, id: &OktaUserId) -> Result<Option<OktaUser>, Self::Error>;
    /// Okta's search for users who hold one of these addresses; it lags.
    async fn search_holders(&self, addresses: &[Address]) -> Result<HolderList, Self::Error>;
    /// The failure to determine the holders of an address that many users share.
    fn too_many_holders(&self) -> Self::Error;
    /// Users in the store who ever held one of these addresses, and the key of the address.
    async fn known_holders(
        &self,
        addresses: &[Address],
        except: &OktaUserId,
    ) -> Result<Vec<(OktaUserId, Option<Status>, String)>, Self::Error>;
    /// Auth0's exact lookup.
    async fn accounts_by_email(&self, spelling: &str, fields: Fields) -> Result<Vec<AccountRecord>, Self::Error>;
    /// An account of Auth0 by id, or as much of it as can be read.
    async fn account(&self, id: &AccountId) -> Result<Option<AccountRecord>, Self::Error>;
    /// Auth0's search for accounts with one of these identifiers; it lags. Empty if the search is switched off.
    async fn search_accounts(&self, identifiers: &[Identifier]) -> Result<Vec<AccountId>, Self::Error>;
    /// Auth0's search for accounts whose mark names this user; it lags.
    async fn search_marked(&self, user: &OktaUserId) -> Result<Vec<AccountId>, Self::Error>;
    /// Auth0's search for the account into which this one was linked; it lags.
    async fn search_linked(&self, id: &AccountId) -> Result<Vec<AccountId>, Self::Error>;
    /// Accounts that Auth0's events named as a reason for this look.
    fn named_accounts(&self) -> Vec<AccountId> {
        Vec::new()
    }
    /// Does the store say that a block on this account is ours?
    async fn is_blocked_by_us(&self, id: &AccountId) -> Result<bool, Self::Error>;
    /// Records a failed read that must not stop the decisions about other accounts.
    ///
    /// # Errors
    /// The failure itself, when no other read would succeed either.
    fn defer(&mut self, failure: Self::Error) -> Result<(), Self::Error>;
    /// Consumes a round's plan. `records` has the plan's accounts.
    async fn carry_out(
        &mut self,
        assessment: &Assessment<'_>,
        plan: Plan,
        records: Vec<AccountRecord>,
    ) -> Result<(), Self::Error>;
}

/// Reads and decides, round by round.
pub(in crate::engine) async fn run_rounds<T: Tenants>(
    tenants: &mut T,
    known: &KnownUser,
    assessment: &Assessment<'_>,
    rules: &Rules,
) -> Result<(), T::Error> {
    let mut rounds = Rounds { tenants, known, assessment, rules, done: BTreeSet::new(), holders: None };
    match &assessment.course {
        Course::Vanished | Course::Leave | Course::Skip(_) => rounds.move_marks().await,
        Course::Allow { .. } => rounds.allow().await,
        Course::Deny(identifiers) => rounds.deny(identifiers).await,
    }
}

/// The rounds of one look.
struct Rounds<'a, T> {
    tenants: &'a mut T,
    known: &'a KnownUser,
    assessment: &'a Assessment<'a>,
    rules: &'a Rules,
    /// Accounts decided in earlier rounds.
    done: BTreeSet<AccountId>,
    /// The other holders of the user's addresses, once read.
    holders: Option<Holders>,
}

impl<T: Tenants> Rounds<'_, T> {
    async fn deny(&mut self, identifiers: &[Identifier]) -> Result<(), T::Error> {
        // The lookup is case-sensitive, and only Auth0's own database connections store lower case.
        let mut found = Vec::new();
        for spelling in spellings(&addresses_among(identifiers)) {
            match self.tenants.accounts_by_email(&spelling, Fields::All).await {
                Ok(records) => found.extend(records),
                Err(failure) if failure.asks_for_less() => found.extend(self.one_by_one(&spelling, identifiers).await?),
                Err(failure) => self.tenants.defer(failure)?,
            }
        }
        self.by_identity(found, identifiers).await?;
        self.named(identifiers).await?;
        for id in self.marked() {
            if self.done.contains(&id) {
                continue;
            }
            match self.tenants.account(&id).await {
                Ok(None) => self.vanished(id, identifiers).await?,
                Ok(record) => self.decide_one(id, record, FoundBy::Mark, identifiers).await?,
                Err(failure) => self.tenants.defer(failure)?,
            }
        }
        // The search only names accounts: each is read before it is written.
        let mut late = Vec::new();
        for id in self.tenants.search_accounts(identifiers).await? {
            if !self.done.contains(&id) {
                late.extend(self.read_or_defer(&id).await?);
            }
        }
        self.by_identity(late, identifiers).await
    }

    /// The accounts of an exact lookup whose answer is too large: listed without their metadata, then read one by one, so
    /// that no account hides another.
    async fn one_by_one(&mut self, spelling: &str, identifiers: &[Identifier]) -> Result<Vec<AccountRecord>, T::Error> {
        let listed = match self.tenants.accounts_by_email(spelling, Fields::Account).await {
            Ok(listed) => listed,
            Err(failure) => {
                self.tenants.defer(failure)?;
                return Ok(Vec::new());
            }
        };
        let mut found = Vec::new();
        for record in listed {
            if decide::is_candidate(&record.account, identifiers, self.known, self.rules) {
                found.extend(self.read_or_defer(&record.account.id).await?);
            } else {
                found.push(record);
            }
        }
        Ok(found)
    }

    /// An account by id. If it cannot be read, the others still are.
    async fn read_or_defer(&mut self, id: &AccountId) -> Result<Option<AccountRecord>, T::Error> {
        match self.tenants.account(id).await {
            Ok(record) => Ok(record),
            Err(failure) => {
                self.tenants.defer(failure)?;
                Ok(None)
            }
        }
    }

    async fn allow(&mut self) -> Result<(), T::Error> {
        let mut marked = self.marked();
        // The store may be older than the mark: a restored backup, or a mark that the log no longer explains.
        if marked.is_empty() && decide::may_have_unknown_mark(self.known) {
            match self.tenants.search_marked(&self.known.id).await {
                Ok(found) if found.is_empty() => return self.allow_under_any_key().await,
                Ok(found) => marked = found,
                Err(failure) => self.tenants.defer(failure)?,
            }
        }
        for id in self.tenants.named_accounts() {
            if !marked.contains(&id) {
                marked.push(id);
            }
        }
        for id in marked {
            let record = match self.tenants.account(&id).await {
                Ok(record) => record,
                Err(failure) => {
                    self.tenants.defer(failure)?;
                    continue;
                }
            };
            self.allow_one(id, record).await?;
        }
        Ok(())
    }

    /// Moves marks under a former metadata key of a user about whom nothing is decided.
    async fn move_marks(&mut self) -> Result<(), T::Error> {
        for id in self.marked() {
            if let Some(record) = self.read_or_defer(&id).await? {
                self.round(vec![(id, Some(record))], FoundBy::Mark, Holders::default()).await?;
            }
        }
        Ok(())
    }

    async fn allow_one(&mut self, id: AccountId, record: Option<AccountRecord>) -> Result<(), T::Error> {
        let holders = self.holders_beside(record.as_ref(), &[]).await?;
        self.round(vec![(id, record)], FoundBy::Mark, holders).await
    }

    /// The user's accounts with our mark under a key that the configuration does not list: Auth0 has no search over all keys,
    /// so the accounts are found by the user's identifiers.
    async fn allow_under_any_key(&mut self) -> Result<(), T::Error> {
        let addresses = self.assessment.read.as_ref().map_or(&self.known.addresses, |read| &read.addresses);
        let identifiers = self.rules.policy.identifiers(&self.known.id, addresses);
        let found = match self.tenants.search_accounts(&identifiers).await {
            Ok(found) => found,
            Err(failure) => return self.tenants.defer(failure),
        };
        for id in found {
            let Some(mut record) = self.read_or_defer(&id).await? else { continue };
            record.account.claim_marks(self.known.okta_org.as_deref(), !self.known.may_move_marks);
            if decide::is_marked_for(&record.account, self.known) {
                self.allow_one(id, Some(record)).await?;
            }
        }
        Ok(())
    }

    /// The accounts that Auth0's events named: the search may not have them yet.
    async fn named(&mut self, identifiers: &[Identifier]) -> Result<(), T::Error> {
        for id in self.tenants.named_accounts() {
            if self.done.contains(&id) || self.known.accounts.iter().any(|account| account.denied && account.id == id) {
                continue;
            }
            let Some(record) = self.read_or_defer(&id).await? else { continue };
            let is_linked = |account: &MarkedAccount| account.denied && record.account.has_linked(&account.id);
            if self.known.accounts.iter().any(is_linked) {
                self.decide_one(id, Some(record), FoundBy::Link, identifiers).await?;
            } else {
                self.by_identity(vec![record], identifiers).await?;
            }
        }
        Ok(())
    }

    fn marked(&self) -> Vec<AccountId> {
        let marked = decide::marked_accounts(self.known, &self.assessment.course);
        marked.into_iter().map(|account| account.id.clone()).collect()
    }

    async fn by_identity(&mut self, records: Vec<AccountRecord>, identifiers: &[Identifier]) -> Result<(), T::Error> {
        if records.is_empty() {
            return Ok(());
        }
        let mut holders = Holders::default();
        for record in &records {
            if !self.done.contains(&record.account.id)
                && decide::is_candidate(&record.account, identifiers, self.known, self.rules)
            {
                holders.extend(self.holders_beside(Some(record), identifiers).await?);
            }
        }
        let found = records.into_iter().map(|record| (record.account.id.clone(), Some(record))).collect();
        self.round(found, FoundBy::Identity, holders).await
    }

    /// An account with our mark that no longer exists: it was deleted, or linked into another account, which Auth0 leaves
    /// without the mark. In the second case the other account is denied.
    async fn vanished(&mut self, id: AccountId, identifiers: &[Identifier]) -> Result<(), T::Error> {
        let linked = match self.tenants.search_linked(&id).await {
            Ok(linked) => linked,
            // The store keeps the account as denied, so the next look searches again.
            Err(failure) => return self.tenants.defer(failure),
        };
        for primary in linked {
            if self.done.contains(&primary) {
                continue;
            }
            match self.tenants.account(&primary).await {
                Ok(Some(record)) if record.account.has_linked(&id) => {
                    self.decide_one(primary, Some(record), FoundBy::Link, identifiers).await?;
                }
                Ok(_) => {}
                Err(failure) => return self.tenants.defer(failure),
            }
        }
        self.round(vec![(id, None)], FoundBy::Mark, Holders::default()).await
    }

    async fn decide_one(
        &mut self,
        id: AccountId,
        record: Option<AccountRecord>,
        by: FoundBy,
        identifiers: &[Identifier],
    ) -> Result<(), T::Error> {
        let holders = self.holders_beside(record.as_ref(), identifiers).await?;
        self.round(vec![(id, record)], by, holders).await
    }

    /// The other holders of the account's addresses. Those of the user's own addresses are read once per look.
    async fn holders_beside(
        &mut self,
        record: Option<&AccountRecord>,
        identifiers: &[Identifier],
    ) -> Result<Holders, T::Error> {
        let Some(record) = record else { return Ok(Holders::default()) };
        let own = addresses_among(identifiers);
        let beside = record.account.addresses_beside(&self.known.id).into_iter().cloned();
        // The other addresses may belong to another user by now.
        let (shared, others): (Vec<Address>, Vec<Address>) =
            beside.partition(|address| own.iter().any(|own| own.same(address.as_str())));
        let mut holders = if shared.is_empty() { Holders::default() } else { self.shared_holders(&own).await? };
        if !others.is_empty() {
            holders.extend(self.other_holders(&others).await?);
        }
        Ok(holders)
    }

    /// Runs one round: evidence, plan, and its consumption.
    async fn round(
        &mut self,
        mut found: Vec<(AccountId, Option<AccountRecord>)>,
        by: FoundBy,
        holders: Holders,
    ) -> Result<(), T::Error> {
        let denies = matches!(self.assessment.course, Course::Deny(_));
        let mut accounts = Vec::with_capacity(found.len());
        for (id, record) in &mut found {
            if let Some(record) = record {
                record.account.claim_marks(self.known.okta_org.as_deref(), !self.known.may_move_marks);
            }
            let account = record.as_ref().map(|record| record.account.clone());
            let may_hide = account.as_ref().is_some_and(|account| decide::may_hide_our_block(account, self.known));
            let blocked_by_us = denies && may_hide && self.tenants.is_blocked_by_us(id).await?;
            accounts.push(Found { id: id.clone(), account, by, blocked_by_us });
        }
        let evidence = Evidence { known: self.known, assessment: self.assessment, accounts, holders, done: &self.done };
        let plan = decide::decide(&evidence, self.rules, self.tenants.now());
        self.done.extend(plan.steps.iter().map(|step| step.id.clone()));
        let records = found.into_iter().filter_map(|(_, record)| record).collect();
        self.tenants.carry_out(self.assessment, plan, records).await
    }

    /// The other holders of the user's addresses, read once per look.
    async fn shared_holders(&mut self, addresses: &[Address]) -> Result<Holders, T::Error> {
        if self.holders.is_none() {
            self.holders = Some(self.other_holders(addresses).await?);
        }
        Ok(self.holders.clone().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
