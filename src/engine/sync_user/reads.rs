//! The reads of a look, through the circuit breakers and the shared searches.

use super::batch::{ADDRESSES_MAX, Hit, IDENTIFIERS_MAX, Lookup, SearchCache, SearchCaches};
use super::gather::Tenants;
use super::{SyncError, UserSync};
use crate::auth0::{self, AccountQuery, AccountRecord, Fields, SearchPage};
use crate::domain::account::{Identifier, addresses_among};
use crate::domain::decide::{Assessment, Plan};
use crate::domain::{Account, AccountId, Address, Lane, OktaUser, OktaUserId, Status, Timestamp};
use crate::engine::error::CallError;
use crate::engine::smaller::read_account;
use crate::okta::{self, HolderList};

/// Auth0 shows the first 1,000 hits of a search, 100 a page.
const SEARCH_PAGES_MAX: u32 = 10;

impl Tenants for UserSync<'_> {
    type Error = SyncError;

    fn now(&self) -> Timestamp {
        self.engine.now()
    }

    async fn okta_user(&self, id: &OktaUserId) -> Result<Option<OktaUser>, SyncError> {
        let okta = &self.engine.okta;
        let breaker = &self.engine.okta_breaker;
        let asked = self.engine.clock.monotonic();
        let user = breaker.call(okta::endpoints::USER, self.priority, self.subject(), || okta.user(id)).await?;
        self.engine.recent_users.put(id, user.clone(), asked);
        Ok(user)
    }

    async fn holder(&self, id: &OktaUserId) -> Result<Option<OktaUser>, SyncError> {
        match self.engine.recent_users.get(id, self.engine.clock.monotonic()) {
            Some(user) => Ok(user),
            None => self.okta_user(id).await,
        }
    }

    async fn search_holders(&self, addresses: &[Address]) -> Result<HolderList, SyncError> {
        let cache = &self.caches().holders;
        let identifiers: Vec<Identifier> = addresses.iter().cloned().map(Identifier::Address).collect();
        match self.lookup(cache, &identifiers, false).await? {
            Lookup::Cached(users) => return Ok(HolderList { users, more: false }),
            Lookup::Batch(slot) => match self.holders(&addresses_among(slot.identifiers())).await {
                Ok(list) if !list.more => {
                    let users = slot.complete(&hits(list.users));
                    return Ok(HolderList { users, more: false });
                }
                // Too much at once for Okta: search for these addresses alone, after releasing the slot.
                Ok(_) | Err(CallError::Failed(_)) => {}
                Err(paused) => return Err(paused.into()),
            },
            Lookup::Single => {}
        }
        let asked = self.engine.clock.monotonic();
        let list = self.holders(addresses).await?;
        if !list.more {
            cache.keep(&identifiers, &hits(list.users.clone()), asked);
        }
        Ok(list)
    }

    fn too_many_holders(&self) -> SyncError {
        CallError::Failed(self.engine.okta.too_many_holders()).into()
    }

    async fn known_holders(
        &self,
        addresses: &[Address],
        except: &OktaUserId,
    ) -> Result<Vec<(OktaUserId, Option<Status>, String)>, SyncError> {
        Ok(self.engine.store.known_holders(addresses, except).await?)
    }

    async fn accounts_by_email(&self, spelling: &str, fields: Fields) -> Result<Vec<AccountRecord>, SyncError> {
        let (auth0, breaker) = (&self.engine.auth0, &self.engine.auth0_breaker);
        let call = || auth0.accounts_by_email(spelling, fields);
        Ok(breaker.call(auth0::endpoints::BY_EMAIL, self.priority, self.subject(), call).await?)
    }

    async fn account(&self, id: &AccountId) -> Result<Option<AccountRecord>, SyncError> {
        Ok(read_account(|fields| self.account_with(id, fields)).await?)
    }

    async fn search_accounts(&self, identifiers: &[Identifier]) -> Result<Vec<AccountId>, SyncError> {
        if !self.engine.options.search || identifiers.is_empty() {
            return Ok(Vec::new());
        }
        match self.lookup(&self.caches().accounts, identifiers, true).await? {
            Lookup::Cached(ids) => return Ok(ids),
            Lookup::Batch(slot) => match self.search_page(slot.identifiers(), 0, Fields::Identities).await {
                Ok(page) if u64::try_from(page.accounts.len()).unwrap_or(u64::MAX) >= page.total => {
                    let of = |account: &Account| -> Vec<String> {
                        let is_of = |one: &&Identifier| account.is_identified_by(std::slice::from_ref(*one));
                        slot.identifiers().iter().filter(is_of).map(Identifier::key).collect()
                    };
                    let hits: Vec<Hit<AccountId>> = page
                        .accounts
                        .into_iter()
                        .map(|AccountRecord { account, .. }| Hit { keys: of(&account), found: account.id })
                        .collect();
                    return Ok(slot.complete(&hits));
                }
                // Too much for one page, or for Auth0: search for these identifiers alone.
                Ok(_) | Err(CallError::Failed(_)) => {}
                Err(paused) => return Err(paused.into()),
            },
            Lookup::Single => {}
        }
        self.search_alone(identifiers).await
    }

    async fn search_marked(&self, user: &OktaUserId) -> Result<Vec<AccountId>, SyncError> {
        let (auth0, breaker) = (&self.engine.auth0, &self.engine.auth0_breaker);
        let query = AccountQuery::MarkedFor(user);
        let call = || auth0.search(&query, 0, Fields::Id);
        let page = breaker.call(auth0::endpoints::SEARCH, self.priority, self.subject(), call).await?;
        Ok(page.accounts.into_iter().map(|record| record.account.id).collect())
    }

    async fn search_linked(&self, id: &AccountId) -> Result<Vec<AccountId>, SyncError> {
        let (auth0, breaker) = (&self.engine.auth0, &self.engine.auth0_breaker);
        let query = AccountQuery::Linked(id);
        let call = || auth0.search(&query, 0, Fields::Id);
        let page = breaker.call(auth0::endpoints::SEARCH, self.priority, self.subject(), call).await?;
        Ok(page.accounts.into_iter().map(|record| record.account.id).collect())
    }

    fn named_accounts(&self) -> Vec<AccountId> {
        self.start.named.iter().map(|named| named.id.clone()).collect()
    }

    async fn is_blocked_by_us(&self, id: &AccountId) -> Result<bool, SyncError> {
        Ok(self.engine.store.is_blocked_by_us(id).await?)
    }

    fn defer(&mut self, failure: SyncError) -> Result<(), SyncError> {
        match failure {
            SyncError::Call(CallError::Failed(_)) => {
                let outcome = self.failure_outcome(failure);
                self.results.merge(outcome);
                Ok(())
            }
            paused => Err(paused),
        }
    }

    async fn carry_out(
        &mut self,
        assessment: &Assessment<'_>,
        plan: Plan,
        records: Vec<AccountRecord>,
    ) -> Result<(), SyncError> {
        for step in plan.steps {
            let record = records.iter().find(|record| record.account.id == step.id);
            self.apply(assessment, step, record).await?;
        }
        Ok(())
    }
}

fn hits(users: Vec<OktaUser>) -> Vec<Hit<OktaUser>> {
    users
        .into_iter()
        .map(|user| Hit { keys: user.addresses().iter().map(Address::key).collect(), found: user })
        .collect()
}

impl<'a> UserSync<'a> {
    pub(super) async fn account_with(
        &self,
        id: &AccountId,
        fields: Fields,
    ) -> Result<Option<AccountRecord>, CallError> {
        let (auth0, breaker) = (&self.engine.auth0, &self.engine.auth0_breaker);
        let call = || auth0.account(id, fields);
        breaker.call(auth0::endpoints::ACCOUNT, self.priority, self.subject(), call).await
    }

    async fn search_alone(&self, identifiers: &[Identifier]) -> Result<Vec<AccountId>, SyncError> {
        let mut ids = Vec::new();
        for page in 0..SEARCH_PAGES_MAX {
            let hits = self.search_page(identifiers, page, Fields::Id).await?;
            let last = hits.accounts.is_empty();
            ids.extend(hits.accounts.into_iter().map(|record| record.account.id));
            if last || u64::try_from(ids.len()).unwrap_or(u64::MAX) >= hits.total {
                break;
            }
        }
        Ok(ids)
    }

    fn caches(&self) -> &'a SearchCaches {
        let [live, reconcile] = &self.engine.searches;
        match self.start.lane {
            Lane::Deactivation | Lane::Reactivation => live,
            Lane::Reconcile => reconcile,
        }
    }

    /// How to search for these identifiers: not at all, if a batch has found them; in a batch with those of the next users, if
    /// there are any; or alone. `of_accounts` says whether Okta ids are among them.
    async fn lookup<T: Clone + PartialEq>(
        &self,
        cache: &'a SearchCache<T>,
        identifiers: &[Identifier],
        of_accounts: bool,
    ) -> Result<Lookup<'a, T>, SyncError> {
        let clock = &self.engine.clock;
        if let Some(found) = cache.take(identifiers, clock.monotonic()) {
            return Ok(Lookup::Cached(found));
        }
        let slot = cache.slot.lock().await;
        if let Some(found) = cache.take(identifiers, clock.monotonic()) {
            return Ok(Lookup::Cached(found));
        }
        let next = self.engine.store.next_leavers(self.start.lane, self.engine.now(), ADDRESSES_MAX).await?;
        let (others, max) = if of_accounts {
            let policy = &self.engine.options.rules.policy;
            let of = |(user, address): &(_, _)| policy.identifiers(user, std::slice::from_ref(address));
            // Each connection name adds a term to each Okta id.
            let connections = self.engine.options.rules.named_connections().len();
            (next.iter().flat_map(of).collect(), IDENTIFIERS_MAX / (1 + connections))
        } else {
            (next.into_iter().map(|(_, address)| Identifier::Address(address)).collect(), ADDRESSES_MAX)
        };
        Ok(cache.batch(slot, identifiers, others, max, clock.monotonic()).map_or(Lookup::Single, Lookup::Batch))
    }

    async fn search_page(
        &self,
        identifiers: &[Identifier],
        page: u32,
        fields: Fields,
    ) -> Result<SearchPage, CallError> {
        let (auth0, breaker) = (&self.engine.auth0, &self.engine.auth0_breaker);
        let connections = self.engine.options.rules.named_connections();
        let query = AccountQuery::Identities { identifiers, connections: &connections };
        let call = || auth0.search(&query, page, fields);
        breaker.call(auth0::endpoints::SEARCH, self.priority, self.subject(), call).await
    }

    async fn holders(&self, addresses: &[Address]) -> Result<HolderList, CallError> {
        let (okta, breaker) = (&self.engine.okta, &self.engine.okta_breaker);
        breaker.call(okta::endpoints::USERS, self.priority, self.subject(), || okta.holders(addresses)).await
    }
}
