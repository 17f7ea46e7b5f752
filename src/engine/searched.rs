//! One search for many: what a search said lately of people whose turn is next.
//!
//! Two calls of a denial can be shared: the search for accounts in Auth0, and that for holders of an address in Okta. Both
//! are answered from an index that lags, and their hits are only names: an account is read before it is written, a holder is
//! asked for by id before somebody is spared for them. So an answer as old as the lag is worth as much as one of now. Whoever
//! needs a search and finds none here asks for the next in turn as well. What was kept is used once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::{AccountId, Address, OktaUser};

/// How old an answer of Auth0 may be: its index lags by seconds.
const ACCOUNTS_FRESH: Duration = Duration::from_secs(10);
/// How old an answer of Okta may be: its index lags "typically less than one second" (Okta docs: List all users). Who took
/// an address over since then, and came to it by an event of the log, makes everybody who shares it due.
const HOLDERS_FRESH: Duration = Duration::from_secs(2);
/// So many addresses are asked for at once: a request line of about two kilobytes.
pub(super) const ADDRESSES_MAX: usize = 20;

/// What searches for people who are looked at next have found.
#[derive(Debug)]
pub(crate) struct Searches {
    /// Accounts with an address, in Auth0.
    pub(super) accounts: Searched<AccountId>,
    /// Users who hold an address, in Okta.
    pub(super) holders: Searched<OktaUser>,
}

impl Default for Searches {
    fn default() -> Self {
        Self { accounts: Searched::new(ACCOUNTS_FRESH), holders: Searched::new(HOLDERS_FRESH) }
    }
}

/// What was found for an address, and when it was asked for.
type Kept<T> = HashMap<String, (Duration, Vec<T>)>;

/// What one kind of search has found.
#[derive(Debug)]
pub(crate) struct Searched<T> {
    fresh: Duration,
    /// By the key of the address.
    kept: Mutex<Kept<T>>,
    /// Held while a search for many is under way: who comes meanwhile waits for its answer instead of asking the same.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// A hit of a search, and the addresses that it was found by.
#[derive(Debug)]
pub(super) struct Hit<T> {
    pub(super) addresses: Vec<Address>,
    pub(super) found: T,
}

impl<T: Clone + PartialEq> Searched<T> {
    fn new(fresh: Duration) -> Self {
        Self { fresh, kept: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found for these addresses, if all of them were searched for lately. It is forgotten with that.
    pub(super) fn take(&self, addresses: &[Address], now: Duration) -> Option<Vec<T>> {
        let mut kept = self.lock();
        kept.retain(|_, (at, _)| now.saturating_sub(*at) < self.fresh);
        let keys: Vec<String> = addresses.iter().map(Address::key).collect();
        if !keys.iter().all(|key| kept.contains_key(key)) {
            return None;
        }
        Some(each_once(keys.iter().filter_map(|key| kept.remove(key)).flat_map(|(_, found)| found)))
    }

    /// The turn to search for these addresses and those of others as well, if there are others.
    pub(super) fn together<'a>(
        &'a self,
        turn: tokio::sync::MutexGuard<'a, ()>,
        own: &[Address],
        others: Vec<Address>,
        now: Duration,
    ) -> Option<Turn<'a, T>> {
        let mut addresses = own.to_vec();
        for other in others {
            if addresses.len() < ADDRESSES_MAX && !addresses.iter().any(|address| address.same(other.as_str())) {
                addresses.push(other);
            }
        }
        (addresses.len() > own.len()).then(|| Turn { searched: self, addresses, own: own.len(), at: now, _turn: turn })
    }
}

/// How addresses are searched for.
pub(super) enum Ahead<'a, T> {
    /// They were.
    Found(Vec<T>),
    /// Together with those of others.
    Many(Turn<'a, T>),
    /// Alone: there are no others.
    Alone,
}

/// The turn to search for many: whoever needs the same meanwhile waits for what comes of it.
pub(super) struct Turn<'a, T> {
    searched: &'a Searched<T>,
    /// One's own, and then those of others.
    addresses: Vec<Address>,
    own: usize,
    at: Duration,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl<T: Clone + PartialEq> Turn<'_, T> {
    /// What to search for.
    pub(super) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Keeps what was found for others, and tells what was for one's own. `hits` are all that there are.
    pub(super) fn answered(self, hits: &[Hit<T>]) -> Vec<T> {
        let of = |address: &Address| {
            let by = |hit: &&Hit<T>| hit.addresses.iter().any(|found_by| address.same(found_by.as_str()));
            hits.iter().filter(by).map(|hit| hit.found.clone()).collect::<Vec<_>>()
        };
        let (own, others) = self.addresses.split_at(self.own);
        let mut kept = self.searched.lock();
        for other in others {
            kept.insert(other.key(), (self.at, of(other)));
        }
        each_once(own.iter().flat_map(of))
    }
}

/// Who is found by several addresses is one all the same.
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

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| Address::parse(text).unwrap()).collect()
    }

    #[tokio::test]
    async fn what_was_found_for_others_is_used_once_while_it_is_fresh_and_only_if_all_was_asked_for() {
        let at = Duration::from_secs(100);
        let searched = Searched::new(HOLDERS_FRESH);
        let own = addresses(&["own@example.com"]);
        let search = async || {
            let others = addresses(&["OWN@example.com", "Ann@example.com", "bob@example.com", "eve@example.com"]);
            let turn = searched.together(searched.turn.lock().await, &own, others, at).unwrap();
            assert_eq!(
                turn.addresses(),
                addresses(&["own@example.com", "Ann@example.com", "bob@example.com", "eve@example.com"])
            );
            let hits = [
                Hit { addresses: addresses(&["ann@EXAMPLE.com", "bob@example.com"]), found: 7 },
                Hit { addresses: addresses(&["own@example.com"]), found: 8 },
            ];
            assert_eq!(turn.answered(&hits), [8]);
        };
        let take = |texts: &[&str], now| searched.take(&addresses(texts), now);

        search().await;
        assert_eq!(take(&["own@example.com"], at), None, "it was told at once");
        assert_eq!(take(&["ann@example.com", "cyd@example.com"], at), None, "nobody asked for the second address");
        assert_eq!(take(&["ann@example.com", "bob@example.com"], at), Some(vec![7]), "and told once");
        assert_eq!(take(&["ann@example.com"], at), None, "it was used");
        assert_eq!(take(&["eve@example.com"], at), Some(vec![]), "a search that finds nobody is an answer too");

        search().await;
        let last = at + HOLDERS_FRESH - Duration::from_nanos(1);
        assert_eq!(take(&["bob@example.com"], last), Some(vec![7]));
        assert_eq!(take(&["ann@example.com"], at + HOLDERS_FRESH), None, "it is too old");
    }

    #[tokio::test]
    async fn nobody_is_waited_for_and_no_more_is_asked_than_fits() {
        let searched = Searched::<u8>::new(ACCOUNTS_FRESH);
        let own = addresses(&["own@example.com"]);
        assert!(searched.together(searched.turn.lock().await, &own, own.clone(), Duration::ZERO).is_none());
        let others: Vec<Address> =
            (0..100).filter_map(|number| Address::parse(&format!("p{number}@example.com"))).collect();
        let turn = searched.together(searched.turn.lock().await, &own, others, Duration::ZERO).unwrap();
        assert_eq!(turn.addresses().len(), ADDRESSES_MAX);
    }
}
