//! Searches in batches: one call for the users whose looks come next.
//!
//! Two calls of a denial can be shared: the search for accounts in Auth0, and the search for holders of an address in Okta.
//! Both read an index that lags, and only name candidates: a look reads an account by id before it writes, and a holder by
//! id before it skips a user. So a result as old as the lag is as good as a new one. A look that needs a search and finds no
//! cached result also searches for the next due users. A cached result is used once, except
//! for the holders of an address: several users may share it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::account::Identifier;
use crate::domain::{AccountId, OktaUser, OktaUserId};

/// How old a result of Auth0's search may be: its index lags by seconds.
const ACCOUNTS_FRESH: Duration = Duration::from_secs(10);
/// How old a result of Okta's search may be: its index lags "typically less than one second" (Okta docs: List all users). A
/// user who took an address over since then is in the log, and the log queues all users who share the address.
const HOLDERS_FRESH: Duration = Duration::from_secs(2);
/// How old another user's record may be. If the user has left or returned since then, the log has the event, and their
/// own look queues the users who share an address with them.
const USERS_FRESH: Duration = Duration::from_secs(10);
/// Addresses in one batch: a request line of about two kilobytes.
pub(super) const ADDRESSES_MAX: usize = 20;
/// Addresses and Okta ids in one batch.
pub(super) const IDENTIFIERS_MAX: usize = 40;

/// The results of searches for the users whose looks come next.
#[derive(Debug)]
pub(crate) struct SearchCaches {
    /// Accounts with an address, in Auth0.
    pub(super) accounts: SearchCache<AccountId>,
    /// Users who hold an address, in Okta.
    pub(super) holders: SearchCache<OktaUser>,
}

impl Default for SearchCaches {
    fn default() -> Self {
        Self { accounts: SearchCache::new(ACCOUNTS_FRESH), holders: SearchCache::shared(HOLDERS_FRESH) }
    }
}

/// The results for an address, and when we asked.
type Kept<T> = HashMap<String, (Duration, Vec<T>)>;

/// The results of one kind of search.
#[derive(Debug)]
pub(crate) struct SearchCache<T> {
    fresh: Duration,
    /// Whether one result serves several looks: users who share an address ask the same question.
    shared: bool,
    /// By the key of the identifier.
    kept: Mutex<Kept<T>>,
    /// Held while a batch is searched for: other looks wait for its results instead of searching for the same.
    pub(super) slot: tokio::sync::Mutex<()>,
}

/// A hit of a search, and the keys of the identifiers that it was found by.
#[derive(Debug)]
pub(super) struct Hit<T> {
    pub(super) keys: Vec<String>,
    pub(super) found: T,
}

impl<T: Clone + PartialEq> SearchCache<T> {
    fn new(fresh: Duration) -> Self {
        Self { fresh, shared: false, kept: Mutex::default(), slot: tokio::sync::Mutex::default() }
    }

    fn shared(fresh: Duration) -> Self {
        Self { shared: true, ..Self::new(fresh) }
    }

    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the results for these identifiers, if all of them are fresh.
    pub(super) fn take(&self, identifiers: &[Identifier], now: Duration) -> Option<Vec<T>> {
        let mut kept = self.lock();
        kept.retain(|_, (at, _)| now.saturating_sub(*at) < self.fresh);
        let keys: Vec<String> = identifiers.iter().map(Identifier::key).collect();
        if !keys.iter().all(|key| kept.contains_key(key)) {
            return None;
        }
        let of = |key: &String| if self.shared { kept.get(key).cloned() } else { kept.remove(key) };
        Some(each_once(keys.iter().filter_map(of).flat_map(|(_, found)| found)))
    }

    /// Stores the hits for these identifiers.
    pub(super) fn keep(&self, identifiers: &[Identifier], hits: &[Hit<T>], now: Duration) {
        let mut kept = self.lock();
        for identifier in identifiers {
            kept.insert(identifier.key(), (now, found_at(identifier, hits)));
        }
    }

    /// The slot for one search for `own` and the identifiers of other users, `max` in all. `None` if no other user is due.
    pub(super) fn batch<'a>(
        &'a self,
        slot: tokio::sync::MutexGuard<'a, ()>,
        own: &[Identifier],
        others: Vec<Identifier>,
        max: usize,
        now: Duration,
    ) -> Option<BatchSlot<'a, T>> {
        let mut identifiers = own.to_vec();
        for other in others {
            if identifiers.len() < max && !identifiers.iter().any(|known| known.key() == other.key()) {
                identifiers.push(other);
            }
        }
        (identifiers.len() > own.len()).then(|| BatchSlot {
            cache: self,
            identifiers,
            own: own.len(),
            at: now,
            _slot: slot,
        })
    }
}

/// How a look finds the results for its addresses.
pub(super) enum Lookup<'a, T> {
    /// A batch found them already.
    Cached(Vec<T>),
    /// It searches for them together with those of others.
    Batch(BatchSlot<'a, T>),
    /// It searches for them alone.
    Single,
}

/// The right to search for a batch. Looks that need the same results wait until it is dropped.
pub(super) struct BatchSlot<'a, T> {
    cache: &'a SearchCache<T>,
    /// The identifiers of the look's own user, then those of other users.
    identifiers: Vec<Identifier>,
    own: usize,
    at: Duration,
    _slot: tokio::sync::MutexGuard<'a, ()>,
}

impl<T: Clone + PartialEq> BatchSlot<'_, T> {
    /// What to search for.
    pub(super) fn identifiers(&self) -> &[Identifier] {
        &self.identifiers
    }

    /// Stores the results for the others, and returns the look's own. `hits` are all hits of the search.
    pub(super) fn complete(self, hits: &[Hit<T>]) -> Vec<T> {
        let (own, others) = self.identifiers.split_at(self.own);
        let kept = if self.cache.shared { &self.identifiers[..] } else { others };
        self.cache.keep(kept, hits, self.at);
        each_once(own.iter().flat_map(|identifier| found_at(identifier, hits)))
    }
}

/// The hits for this identifier.
fn found_at<T: Clone>(identifier: &Identifier, hits: &[Hit<T>]) -> Vec<T> {
    let key = identifier.key();
    let by = |hit: &&Hit<T>| hit.keys.contains(&key);
    hits.iter().filter(by).map(|hit| hit.found.clone()).collect()
}

/// A user as Okta returned them, and when we asked.
type Read = (Duration, Option<OktaUser>);

/// Users as Okta returned them a moment ago, so that users who share an address do not each read all others.
///
/// Every read by id refreshes it. So a user whose own look found them active is active here too when the look queues the
/// users who share the address.
#[derive(Debug, Default)]
pub(crate) struct RecentUsers(Mutex<HashMap<OktaUserId, Read>>);

impl RecentUsers {
    fn lock(&self) -> MutexGuard<'_, HashMap<OktaUserId, Read>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user as read in the last seconds; `None` if they were not read.
    pub(super) fn get(&self, id: &OktaUserId, now: Duration) -> Option<Option<OktaUser>> {
        let users = self.lock();
        users.get(id).filter(|(at, _)| now.saturating_sub(*at) < USERS_FRESH).map(|(_, user)| user.clone())
    }

    /// Stores what Okta returned for a request that began at `asked`.
    pub(super) fn put(&self, id: &OktaUserId, user: Option<OktaUser>, asked: Duration) {
        let mut users = self.lock();
        users.retain(|_, (at, _)| asked.saturating_sub(*at) < USERS_FRESH);
        // Of two reads in flight, the one that began later counts.
        if users.get(id).is_none_or(|(at, _)| *at <= asked) {
            users.insert(id.clone(), (asked, user));
        }
    }
}

/// Without duplicates: one user or account can be found by several addresses.
fn each_once<T: PartialEq>(found: impl Iterator<Item = T>) -> Vec<T> {
    let mut all = Vec::new();
    for one in found {
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Address;

    fn addresses(texts: &[&str]) -> Vec<Identifier> {
        texts.iter().map(|text| Identifier::Address(Address::parse(text).unwrap())).collect()
    }

    #[tokio::test]
    async fn cached_results_are_used_once_while_fresh() {
        let at = Duration::from_secs(100);
        let cache = SearchCache::new(HOLDERS_FRESH);
        let own = addresses(&["own@example.com"]);
        let search = async || {
            let others = addresses(&["OWN@example.com", "Ann@example.com", "bob@example.com", "eve@example.com"]);
            let slot = cache.batch(cache.slot.lock().await, &own, others, ADDRESSES_MAX, at).unwrap();
            assert_eq!(
                slot.identifiers(),
                addresses(&["own@example.com", "Ann@example.com", "bob@example.com", "eve@example.com"])
            );
            let hits = [
                Hit { keys: vec!["ann@example.com".to_owned(), "bob@example.com".to_owned()], found: 7 },
                Hit { keys: vec!["own@example.com".to_owned()], found: 8 },
            ];
            assert_eq!(slot.complete(&hits), [8]);
        };
        let take = |texts: &[&str], now| cache.take(&addresses(texts), now);

        search().await;
        assert_eq!(take(&["own@example.com"], at), None, "the search returned it already");
        assert_eq!(take(&["ann@example.com", "cyd@example.com"], at), None, "the second address was not searched");
        assert_eq!(take(&["ann@example.com", "bob@example.com"], at), Some(vec![7]), "returned once");
        assert_eq!(take(&["ann@example.com"], at), None, "it was used");
        assert_eq!(take(&["eve@example.com"], at), Some(vec![]), "an empty result is cached too");

        search().await;
        let last = at + HOLDERS_FRESH - Duration::from_nanos(1);
        assert_eq!(take(&["bob@example.com"], last), Some(vec![7]));
        assert_eq!(take(&["ann@example.com"], at + HOLDERS_FRESH), None, "it is too old");
    }

    #[tokio::test]
    async fn batches_need_others_and_are_bounded() {
        let cache = SearchCache::<u8>::new(ACCOUNTS_FRESH);
        let own = addresses(&["own@example.com"]);
        assert!(cache.batch(cache.slot.lock().await, &own, own.clone(), ADDRESSES_MAX, Duration::ZERO).is_none());
        let others: Vec<Identifier> =
            (0..100).flat_map(|number| addresses(&[&format!("p{number}@example.com")])).collect();
        let slot = cache.batch(cache.slot.lock().await, &own, others, ADDRESSES_MAX, Duration::ZERO).unwrap();
        assert_eq!(slot.identifiers().len(), ADDRESSES_MAX);
    }
}
