//! Looks in progress: at most one per user and per address.
//!
//! Looks at two users with the same address run one after the other, so that the second sees what the first wrote. Claims
//! live in memory, since only one process uses the state at a time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::{Address, OktaUserId};

#[derive(Debug, Default)]
struct Held {
    users: BTreeSet<OktaUserId>,
    address_keys: BTreeSet<String>,
}

/// The claims of one process.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<Held>);

/// A claim; released on drop.
#[derive(Debug)]
pub(crate) struct Claim {
    claims: Arc<Claims>,
    user: OktaUserId,
    address_keys: BTreeSet<String>,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a user and their known addresses. `None`: another look holds one of them; nothing is claimed.
    pub(crate) fn claim(self: &Arc<Self>, user: &OktaUserId, addresses: &[Address]) -> Option<Claim> {
        let keys: BTreeSet<String> = addresses.iter().map(Address::key).collect();
        let mut held = self.lock();
        if held.users.contains(user) || keys.iter().any(|key| held.address_keys.contains(key)) {
            return None;
        }
        held.users.insert(user.clone());
        held.address_keys.extend(keys.iter().cloned());
        drop(held);
        Some(Claim { claims: self.clone(), user: user.clone(), address_keys: keys })
    }
}

impl Claim {
    /// Claims more addresses for the same look. `false`: another look holds one of them; nothing is claimed.
    ///
    /// It does not wait for the address: two looks that wait for each other would deadlock.
    pub(crate) fn extend(&mut self, addresses: &[Address]) -> bool {
        let new: BTreeSet<String> =
            addresses.iter().map(Address::key).filter(|key| !self.address_keys.contains(key)).collect();
        let mut held = self.claims.lock();
        if new.iter().any(|key| held.address_keys.contains(key)) {
            return false;
        }
        held.address_keys.extend(new.iter().cloned());
        self.address_keys.extend(new);
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut held = self.claims.lock();
        held.users.remove(&self.user);
        for key in &self.address_keys {
            held.address_keys.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> OktaUserId {
        OktaUserId::parse(id).unwrap()
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn user_and_address_are_claimed_once() {
        let claims = Arc::new(Claims::default());
        let first = claims.claim(&user("u1"), &[address("a@x")]);
        assert!(first.is_some());
        assert!(claims.claim(&user("u1"), &[]).is_none(), "the user is taken");
        assert!(claims.claim(&user("u2"), &[address("A@X")]).is_none(), "the address is taken, in any case");
        let mut second = claims.claim(&user("u2"), &[address("b@x")]).unwrap();
        assert!(!second.extend(&[address("c@x"), address("a@x")]));
        drop(first);
        assert!(second.extend(&[address("c@x"), address("a@x")]));
        assert!(claims.claim(&user("u1"), &[address("c@x")]).is_none());
        drop(second);
        assert!(claims.claim(&user("u1"), &[address("c@x")]).is_some());
    }
}
