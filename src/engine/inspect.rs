//! Reads a user in both tenants and reports what a look would do. It writes nothing.
//!
//! It gathers and decides with the code of a look, and stops there.

use crate::auth0::{self, AccountQuery, AccountRecord, Auth0, Fields};
use crate::domain::account::{Identifier, addresses_among};
use crate::domain::address::spellings;
use crate::domain::decide::{self, Action, Assessment, Course, Plan};
use crate::domain::{
    Account, AccountId, Address, Clock, KnownUser, OktaUser, OktaUserId, Rules, Status, Timestamp, Verdict,
};
use crate::http::Failure;
use crate::http::pacing::Pacer;
use crate::okta::{self, HolderList, Okta};
use crate::store::{Store, StoreError};

use super::calls::paced;
use super::smaller::{AsksForLess, read_account};
use super::sync_user::gather::{Tenants, run_rounds};

/// Why an inspection has no result.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A remote cannot be read.
    #[error(transparent)]
    Remote(Box<Failure>),
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AsksForLess for InspectError {
    fn asks_for_less(&self) -> bool {
        matches!(self, Self::Remote(failure) if failure.asks_for_less())
    }
}

impl From<Failure> for InspectError {
    fn from(failure: Failure) -> Self {
        Self::Remote(Box::new(failure))
    }
}

/// A known user as both tenants show them now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The user.
    pub user: OktaUserId,
    /// The status in Okta. `DELETED`: Okta does not find the user, and the log says that they left. `None`: Okta does not
    /// find them.
    pub status: Option<Status>,
    /// The verdict on it.
    pub verdict: Verdict,
    /// The configuration exempts them from denial.
    pub exempt: bool,
    /// Their accounts.
    pub accounts: Vec<Seen>,
}

impl Inspection {
    /// The accounts that do not match the verdict.
    pub fn wrong(&self) -> impl Iterator<Item = &Seen> {
        self.accounts.iter().filter(|seen| seen.wrong)
    }
}

/// An account as Auth0 shows it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Auth0's id.
    pub id: AccountId,
    /// The account. `None`: it no longer exists.
    pub account: Option<Account>,
    /// The state has it as marked for this user.
    pub believed: bool,
    /// The configuration excludes it: another connection, or an unverified address.
    pub outside: bool,
    /// A look would write it, or would hold it for an operator.
    pub wrong: bool,
}

/// Users and accounts that the state does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strangers {
    /// Users in Okta.
    pub users: Vec<OktaUser>,
    /// Accounts in Auth0.
    pub accounts: Vec<Account>,
}

/// Both tenants and the rules.
#[derive(Debug)]
pub struct Inspector<'a> {
    /// Okta, with the pacer that it reports to.
    pub okta: (&'a Okta, &'a Pacer),
    /// Auth0, with the pacer that it reports to.
    pub auth0: (&'a Auth0, &'a Pacer),
    /// What a decision depends on.
    pub rules: &'a Rules,
    /// Also use the case-insensitive search.
    pub search: bool,
    /// The clock for waits.
    pub clock: &'a dyn Clock,
}

impl Inspector<'_> {
    /// Inspects a user that the state knows.
    ///
    /// # Errors
    /// When a remote or the state cannot be read.
    pub async fn inspect(&self, store: &Store, id: &OktaUserId) -> Result<Inspection, InspectError> {
        let known = store.begin_look(id, self.clock.now()).await?.known_user();
        let assessment = decide::assess(&known, self.user(id).await?, &self.rules.policy);
        let addresses = assessment.read.as_ref().map_or(&known.addresses, |read| &read.addresses);
        let identifiers = self.rules.policy.identifiers(id, addresses);
        let mut look = Gathering { inspector: self, store, known: &known, identifiers, seen: Vec::new() };
        run_rounds(&mut look, &known, &assessment, self.rules).await?;
        look.add_others(&assessment).await?;
        let accounts = look.seen;
        Ok(Inspection {
            user: id.clone(),
            status: assessment.read.map(|read| read.status),
            verdict: assessment.verdict.unwrap_or(Verdict::Leave),
            exempt: matches!(assessment.course, Course::Allow { exempt: true }),
            accounts,
        })
    }

    /// Searches for a user that the state does not know: in Okta by id or address, in Auth0 by address. `org` is our Okta org,
    /// if it is known.
    ///
    /// # Errors
    /// When a remote cannot be read.
    pub async fn search(&self, who: &str, org: Option<&str>) -> Result<Strangers, InspectError> {
        let mut users: Vec<OktaUser> = Vec::new();
        // Okta accepts a login here too, so only text that looks like an id is used as one.
        if let Some(id) = OktaUserId::parse(who.trim()).filter(|id| id.as_str().starts_with("00u")) {
            users.extend(self.user(&id).await?);
        }
        let mut addresses: Vec<Address> = Address::parse(who).into_iter().collect();
        if !addresses.is_empty() {
            users.extend(self.holders(&addresses).await?.users);
        }
        addresses.extend(users.iter().flat_map(OktaUser::addresses));
        let by_id = users.iter().map(|user| Identifier::OktaId(user.id.clone()));
        let identifiers: Vec<Identifier> = addresses.into_iter().map(Identifier::Address).chain(by_id).collect();
        Ok(Strangers { accounts: self.accounts(&identifiers, org).await?, users })
    }

    /// The accounts that one of these identifies.
    async fn accounts(&self, identifiers: &[Identifier], org: Option<&str>) -> Result<Vec<Account>, InspectError> {
        let mut accounts: Vec<Account> = Vec::new();
        for spelling in spellings(&addresses_among(identifiers)) {
            for AccountRecord { account, .. } in self.all_by_email(&spelling).await? {
                if !accounts.iter().any(|known| known.id == account.id) {
                    accounts.push(account);
                }
            }
        }
        for id in self.search_accounts(identifiers).await? {
            // The search may lag; a read by id does not.
            if !accounts.iter().any(|known| known.id == id)
                && let Some(record) = self.account(&id).await?
            {
                accounts.push(record.account);
            }
        }
        accounts.iter_mut().for_each(|account| account.claim_marks(org, false));
        Ok(accounts)
    }

    async fn user(&self, id: &OktaUserId) -> Result<Option<OktaUser>, InspectError> {
        let (okta, pacer) = self.okta;
        Ok(paced(pacer, okta::endpoints::USER, self.clock, || okta.user(id)).await?)
    }

    async fn holders(&self, addresses: &[Address]) -> Result<HolderList, InspectError> {
        let (okta, pacer) = self.okta;
        Ok(paced(pacer, okta::endpoints::USERS, self.clock, || okta.holders(addresses)).await?)
    }

    /// As much of the account as can be read.
    async fn account(&self, id: &AccountId) -> Result<Option<AccountRecord>, InspectError> {
        let (auth0, pacer) = self.auth0;
        let read = |fields| paced(pacer, auth0::endpoints::ACCOUNT, self.clock, move || auth0.account(id, fields));
        Ok(read_account(read).await?)
    }

    async fn by_email(&self, spelling: &str, fields: Fields) -> Result<Vec<AccountRecord>, InspectError> {
        let (auth0, pacer) = self.auth0;
        let call = || auth0.accounts_by_email(spelling, fields);
        Ok(paced(pacer, auth0::endpoints::BY_EMAIL, self.clock, call).await?)
    }

    /// The accounts of an exact lookup, one by one if they are too large together.
    async fn all_by_email(&self, spelling: &str) -> Result<Vec<AccountRecord>, InspectError> {
        match self.by_email(spelling, Fields::All).await {
            Err(failure) if failure.asks_for_less() => {}
            other => return other,
        }
        let mut records = Vec::new();
        for record in self.by_email(spelling, Fields::Account).await? {
            records.extend(self.account(&record.account.id).await?);
        }
        Ok(records)
    }

    /// The first page of the search: a user with more than a hundred accounts is a mailing list.
    async fn search_accounts(&self, identifiers: &[Identifier]) -> Result<Vec<AccountId>, InspectError> {
        if !self.search || identifiers.is_empty() {
            return Ok(Vec::new());
        }
        let (auth0, pacer) = self.auth0;
        let connections = self.rules.named_connections();
        let query = AccountQuery::Identities { identifiers, connections: &connections };
        let page = paced(pacer, auth0::endpoints::SEARCH, self.clock, || auth0.search(&query, 0, Fields::Id)).await?;
        Ok(page.accounts.into_iter().map(|record| record.account.id).collect())
    }
}

/// One inspection: the rounds of a look that end with the plan.
struct Gathering<'a> {
    inspector: &'a Inspector<'a>,
    store: &'a Store,
    known: &'a KnownUser,
    /// The identifiers that find the user's accounts.
    identifiers: Vec<Identifier>,
    seen: Vec<Seen>,
}

impl Gathering<'_> {
    fn note(&mut self, id: AccountId, account: Option<Account>, wrong: bool) {
        let believed = self.known.accounts.iter().any(|known| known.denied && known.id == id);
        let rules = self.inspector.rules;
        let outside =
            !believed && account.as_ref().is_some_and(|account| rules.accepts(account, &self.identifiers).is_err());
        self.seen.push(Seen { id, account, believed, outside, wrong });
    }

    /// Adds the accounts that a look would not read, so that an operator sees them too: those that the user's identifiers find, and
    /// those that once carried our mark.
    async fn add_others(&mut self, assessment: &Assessment<'_>) -> Result<(), InspectError> {
        let allows = matches!(assessment.course, Course::Allow { .. });
        let org = self.known.okta_org.as_deref();
        if !matches!(assessment.course, Course::Deny(_)) {
            for account in self.inspector.accounts(&self.identifiers, org).await? {
                if !self.seen.iter().any(|seen| seen.id == account.id) {
                    // The store does not know this mark; the next reconcile finds it.
                    let wrong = allows && decide::is_marked_for(&account, self.known);
                    self.note(account.id.clone(), Some(account), wrong);
                }
            }
        }
        for known in &self.known.accounts {
            if !self.seen.iter().any(|seen| seen.id == known.id) {
                let mut account = self.inspector.account(&known.id).await?.map(|record| record.account);
                account.iter_mut().for_each(|account| account.claim_marks(org, false));
                self.note(known.id.clone(), account, false);
            }
        }
        Ok(())
    }
}

impl Tenants for Gathering<'_> {
    type Error = InspectError;

    fn now(&self) -> Timestamp {
        self.inspector.clock.now()
    }

    async fn okta_user(&self, id: &OktaUserId) -> Result<Option<OktaUser>, InspectError> {
        self.inspector.user(id).await
    }

    async fn holder(&self, id: &OktaUserId) -> Result<Option<OktaUser>, InspectError> {
        self.inspector.user(id).await
    }

    async fn search_holders(&self, addresses: &[Address]) -> Result<HolderList, InspectError> {
        self.inspector.holders(addresses).await
    }

    fn too_many_holders(&self) -> InspectError {
        self.inspector.okta.0.too_many_holders().into()
    }

    async fn known_holders(
        &self,
        addresses: &[Address],
        except: &OktaUserId,
    ) -> Result<Vec<(OktaUserId, Option<Status>, String)>, InspectError> {
        Ok(self.store.known_holders(addresses, except).await?)
    }

    async fn accounts_by_email(&self, spelling: &str, fields: Fields) -> Result<Vec<AccountRecord>, InspectError> {
        self.inspector.by_email(spelling, fields).await
    }

    async fn account(&self, id: &AccountId) -> Result<Option<AccountRecord>, InspectError> {
        self.inspector.account(id).await
    }

    async fn search_accounts(&self, identifiers: &[Identifier]) -> Result<Vec<AccountId>, InspectError> {
        self.inspector.search_accounts(identifiers).await
    }

    async fn search_linked(&self, id: &AccountId) -> Result<Vec<AccountId>, InspectError> {
        let (auth0, pacer) = self.inspector.auth0;
        let query = AccountQuery::Linked(id);
        let call = || auth0.search(&query, 0, Fields::Id);
        let page = paced(pacer, auth0::endpoints::SEARCH, self.inspector.clock, call).await?;
        Ok(page.accounts.into_iter().map(|record| record.account.id).collect())
    }

    async fn search_marked(&self, user: &OktaUserId) -> Result<Vec<AccountId>, InspectError> {
        let (auth0, pacer) = self.inspector.auth0;
        let query = AccountQuery::MarkedFor(user);
        let call = || auth0.search(&query, 0, Fields::Id);
        let page = paced(pacer, auth0::endpoints::SEARCH, self.inspector.clock, call).await?;
        Ok(page.accounts.into_iter().map(|record| record.account.id).collect())
    }

    async fn is_blocked_by_us(&self, id: &AccountId) -> Result<bool, InspectError> {
        Ok(self.store.is_blocked_by_us(id).await?)
    }

    fn defer(&mut self, failure: InspectError) -> Result<(), InspectError> {
        Err(failure)
    }

    async fn carry_out(
        &mut self,
        _assessment: &Assessment<'_>,
        plan: Plan,
        records: Vec<AccountRecord>,
    ) -> Result<(), InspectError> {
        for step in plan.steps {
            let account = records.iter().find(|record| record.account.id == step.id);
            let wrong = step.action.writes() || matches!(step.action, Action::Hold(_));
            self.note(step.id, account.map(|record| record.account.clone()), wrong);
        }
        Ok(())
    }
}
