//! One search for many: what Auth0's search said lately of people whose turn is next.
//!
//! The search is the one call of a denial that can be shared. Its index lags by seconds anyway, and its hits only name
//! accounts, each of which is read before it is written: so an answer of a few seconds ago is worth as much as one of now.
//! Whoever needs a search and finds none here asks for the next in turn as well. What was kept is used once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::auth0::SearchPage;
use crate::domain::{AccountId, Address};

/// How old an answer may be. The index itself is allowed to lag by as much.
const FRESH: Duration = Duration::from_secs(10);
/// So many addresses are asked for at once: a request line of about two kilobytes.
pub(super) const ADDRESSES_MAX: usize = 20;

/// Found accounts by the key of the address, each with the time of its search.
type Kept = HashMap<String, (Duration, Vec<AccountId>)>;

/// What was searched for people who are looked at next.
#[derive(Debug, Default)]
pub(crate) struct Searched {
    kept: Mutex<Kept>,
    /// Held while a search for many is under way: who comes meanwhile waits for its answer instead of asking the same.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl Searched {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The accounts of these addresses, if all of them were searched for lately. They are forgotten with that.
    pub(super) fn take(&self, addresses: &[Address], now: Duration) -> Option<Vec<AccountId>> {
        let mut kept = self.lock();
        kept.retain(|_, (at, _)| now.saturating_sub(*at) < FRESH);
        let keys: Vec<String> = addresses.iter().map(Address::key).collect();
        if !keys.iter().all(|key| kept.contains_key(key)) {
            return None;
        }
        Some(keys.iter().filter_map(|key| kept.remove(key)).flat_map(|(_, ids)| ids).collect())
    }

    /// Keeps the answer to a search for these addresses that was sent at `at`. `false`: it has more hits than fit a page,
    /// so nothing was kept.
    pub(super) fn keep(&self, addresses: &[Address], page: &SearchPage, at: Duration) -> bool {
        if u64::try_from(page.accounts.len()).unwrap_or(u64::MAX) < page.total {
            return false;
        }
        let mut kept = self.lock();
        for address in addresses {
            let of_address = page
                .accounts
                .iter()
                .filter(|hit| hit.account.email.as_ref().is_some_and(|email| address.same(email.as_str())));
            kept.insert(address.key(), (at, of_address.map(|hit| hit.account.id.clone()).collect()));
        }
        true
    }
}
