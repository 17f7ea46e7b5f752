//! The other active users who hold a user's addresses, address by address.
//!
//! Candidates come from Okta's search (any case, but lagging) and from the store (all users who ever held an address); each
//! is confirmed by id, which does not lag. One confirmed holder settles an address. An address that stays unclear delays
//! the accounts at this address only, and its failure is recorded.

use std::collections::BTreeSet;

use super::{Rounds, Tenants};
use crate::domain::decide::Holders;
use crate::domain::{Address, OktaUser, OktaUserId, Verdict};
use crate::okta::HolderList;

/// The most candidates to read by id in one look.
const READS_MAX: usize = 50;

/// A user who may hold some of the addresses.
struct Candidate {
    id: OktaUserId,
    /// The keys of these addresses.
    keys: BTreeSet<String>,
}

impl<T: Tenants> Rounds<'_, T> {
    /// The other users with the verdict `Allow` who hold one of these addresses now.
    pub(super) async fn other_holders(&mut self, addresses: &[Address]) -> Result<Holders, T::Error> {
        let mut holders = Holders::default();
        match self.tenants.search_holders(addresses).await {
            Ok(list) if !list.more => self.confirm(addresses, list, &mut holders).await?,
            // Too many users, or a failure that one of the addresses may have caused: one address at a time.
            _ if addresses.len() > 1 => {
                for address in addresses {
                    let address = std::slice::from_ref(address);
                    let list = self.tenants.search_holders(address).await;
                    self.confirm_one(address, list, &mut holders).await?;
                }
            }
            list => self.confirm_one(addresses, list, &mut holders).await?,
        }
        Ok(holders)
    }

    async fn confirm_one(
        &mut self,
        address: &[Address],
        list: Result<HolderList, T::Error>,
        holders: &mut Holders,
    ) -> Result<(), T::Error> {
        match list {
            Ok(list) => self.confirm(address, list, holders).await,
            Err(failure) => {
                self.tenants.defer(failure)?;
                address.iter().for_each(|address| holders.note_unclear(&address.key()));
                Ok(())
            }
        }
    }

    /// Reads candidates until each address has a holder or no candidate is left.
    async fn confirm(
        &mut self,
        addresses: &[Address],
        list: HolderList,
        holders: &mut Holders,
    ) -> Result<(), T::Error> {
        let more = list.more;
        let mut failures = Vec::new();
        let mut unread = BTreeSet::new();
        let mut reads = 0;
        for candidate in self.candidates(addresses, list.users).await? {
            if candidate.keys.iter().all(|key| holders.is_held(key)) {
                continue;
            }
            if reads == READS_MAX {
                unread.extend(candidate.keys);
                continue;
            }
            reads += 1;
            match self.tenants.holder(&candidate.id).await {
                Ok(Some(user)) => self.note(addresses, &user, holders),
                Ok(None) => {}
                Err(failure) => failures.push((candidate.keys, failure)),
            }
        }
        if more {
            unread.extend(addresses.iter().map(Address::key));
        }
        if unread.iter().any(|key| !holders.is_held(key)) {
            failures.push((unread, self.tenants.too_many_holders()));
        }
        for (keys, failure) in failures {
            let unclear: Vec<String> = keys.into_iter().filter(|key| !holders.is_held(key)).collect();
            if !unclear.is_empty() {
                self.tenants.defer(failure)?;
                unclear.iter().for_each(|key| holders.note_unclear(key));
            }
        }
        Ok(())
    }

    fn note(&self, addresses: &[Address], user: &OktaUser, holders: &mut Holders) {
        for address in addresses.iter().filter(|address| self.rules.policy.is_shared_with(address, user)) {
            holders.note(address, &user.id);
        }
    }

    /// Other users who may log in and may hold one of these addresses; those that Okta's search found come first.
    async fn candidates(&self, addresses: &[Address], found: Vec<OktaUser>) -> Result<Vec<Candidate>, T::Error> {
        let (me, policy) = (&self.known.id, &self.rules.policy);
        let mut candidates: Vec<Candidate> = Vec::new();
        for user in found {
            if user.id != *me && policy.verdict(&user.status) == Verdict::Allow {
                let held = user.addresses();
                let is_one = |address: &&Address| held.iter().any(|held| address.same(held.as_str()));
                let keys = addresses.iter().filter(is_one).map(Address::key).collect();
                candidates.push(Candidate { id: user.id, keys });
            }
        }
        for (id, status, address) in self.tenants.known_holders(addresses, me).await? {
            if status.is_none_or(|status| policy.verdict(&status) == Verdict::Allow) {
                match candidates.iter_mut().find(|candidate| candidate.id == id) {
                    Some(candidate) => candidate.keys.extend([address]),
                    None => candidates.push(Candidate { id, keys: BTreeSet::from([address]) }),
                }
            }
        }
        Ok(candidates)
    }
}
