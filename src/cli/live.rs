//! What both tenants say of a person now, beside what the state believes. Nothing is written anywhere.

use std::future::Future;
use std::sync::Arc;

use serde_json::{Value, json};

use super::wiring::Clients;
use super::{Error, screen, wiring};
use crate::auth0::{self, AccountQuery, AccountRecord};
use crate::config::Config;
use crate::domain::address::spellings;
use crate::domain::{Account, AccountId, Address, Clock, OktaUser, OktaUserId, Policy, Status, Verdict};
use crate::http::Endpoint;
use crate::http::Failure;
use crate::http::pacing::{Pacer, Priority};
use crate::okta;
use crate::store::{LookStart, Store};

/// Both tenants, to be asked.
pub(crate) struct Tenants<'a> {
    config: &'a Config,
    clients: Clients,
    clock: &'a Arc<dyn Clock>,
}

/// What they said of somebody whom the state knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    /// The status in Okta; `DELETED` for somebody who is gone and known to have left, `None` for one who is just gone.
    pub(crate) status: Option<Status>,
    /// The verdict on it.
    pub(crate) verdict: Verdict,
    /// Never denied, by configuration.
    pub(crate) exempt: bool,
    /// What came of each account.
    pub(crate) accounts: Vec<Seen>,
}

/// An account as Auth0 shows it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The account; `None`: it is gone.
    pub(crate) account: Option<Account>,
    /// Auth0's id.
    pub(crate) id: AccountId,
    /// Does the state believe that it carries our mark for this person?
    pub(crate) believed: bool,
    /// Configured to be left alone: another connection, or an address that is not verified.
    pub(crate) outside: bool,
}

/// What they said of somebody whom the state does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strangers {
    /// Users in Okta.
    pub(crate) users: Vec<OktaUser>,
    /// Accounts in Auth0.
    pub(crate) accounts: Vec<Account>,
}

impl<'a> Tenants<'a> {
    /// Reads the secrets; nothing is asked yet.
    ///
    /// # Errors
    /// When a secret cannot be used.
    pub(crate) fn new(config: &'a Config, clock: &'a Arc<dyn Clock>) -> Result<Self, Error> {
        Ok(Self { config, clients: wiring::clients(config, clock)?, clock })
    }

    async fn paced<T>(
        &self,
        pacer: &Pacer,
        endpoint: Endpoint,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Error> {
        let _permit = pacer.acquire(endpoint.bucket, Priority::Live, self.clock.as_ref()).await;
        call.await.map_err(|failure| Error::Remote(Box::new(failure)))
    }

    async fn user(&self, id: &OktaUserId) -> Result<Option<OktaUser>, Error> {
        let (okta, pacer) = &self.clients.okta;
        self.paced(pacer, okta::endpoints::USER, okta.user(id)).await
    }

    async fn account(&self, id: &AccountId) -> Result<Option<AccountRecord>, Error> {
        let (auth0, pacer) = &self.clients.auth0;
        self.paced(pacer, auth0::endpoints::ACCOUNT, auth0.account(id)).await
    }

    /// The accounts with one of these addresses, each as it is and in lower case.
    async fn by_address(&self, addresses: &[Address]) -> Result<Vec<Account>, Error> {
        let (auth0, pacer) = &self.clients.auth0;
        let mut accounts: Vec<Account> = Vec::new();
        for spelling in spellings(addresses) {
            let records = self.paced(pacer, auth0::endpoints::BY_EMAIL, auth0.accounts_by_email(&spelling)).await?;
            for AccountRecord { account, .. } in records {
                if !accounts.iter().any(|known| known.id == account.id) {
                    accounts.push(account);
                }
            }
        }
        if self.config.auth0.search && !addresses.is_empty() {
            let query = AccountQuery::Emails(addresses);
            // The first page: a person with more than a hundred accounts is a mailing list.
            let hits = self.paced(pacer, auth0::endpoints::SEARCH, auth0.search(&query, 0)).await?;
            for hit in hits.accounts {
                // The search may lag: the account itself does not.
                if !accounts.iter().any(|known| known.id == hit.account.id)
                    && let Some(record) = self.account(&hit.account.id).await?
                {
                    accounts.push(record.account);
                }
            }
        }
        Ok(accounts)
    }

    /// Asks both about somebody whom the state knows.
    ///
    /// # Errors
    /// When a remote or the state cannot be asked.
    pub(crate) async fn look(&self, store: &Store, id: &OktaUserId) -> Result<Live, Error> {
        let start = store.begin_look(id, self.clock.now()).await?;
        let user = self.user(id).await?;
        let mut addresses = start.addresses.clone();
        for address in user.iter().flat_map(OktaUser::addresses) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let policy = &self.config.policy;
        let (status, verdict) = judged(policy, user.as_ref(), &start);
        let in_scope: Vec<Address> = policy.in_scope(&addresses).into_iter().cloned().collect();
        let mut accounts: Vec<Seen> = Vec::new();
        for account in self.by_address(&in_scope).await? {
            accounts.push(self.seen(account.id.clone(), Some(account), &start));
        }
        for marked in &start.accounts {
            if !accounts.iter().any(|seen| seen.id == marked.id) {
                let account = self.account(&marked.id).await?.map(|record| record.account);
                accounts.push(self.seen(marked.id.clone(), account, &start));
            }
        }
        Ok(Live { status, verdict, exempt: policy.is_exempt(id, &addresses), accounts })
    }

    fn seen(&self, id: AccountId, account: Option<Account>, start: &LookStart) -> Seen {
        let believed = start.accounts.iter().any(|known| known.denied && known.id == id);
        let wanted = &self.config.auth0.connections;
        let outside = account.as_ref().is_some_and(|account| {
            (!wanted.is_empty() && !account.connections.iter().any(|connection| wanted.contains(connection)))
                || (self.config.auth0.require_verified_email && !account.email_verified)
        });
        Seen { account, id, believed, outside: outside && !believed }
    }

    /// Looks for somebody whom the state does not know: in Okta by id or address, in Auth0 by address.
    ///
    /// # Errors
    /// When a remote cannot be asked.
    pub(crate) async fn search(&self, who: &str) -> Result<Strangers, Error> {
        let (okta, pacer) = &self.clients.okta;
        let mut users: Vec<OktaUser> = Vec::new();
        // Okta takes a login in this place too; only what looks like an id is meant as one.
        if let Some(id) = OktaUserId::parse(who.trim()).filter(|id| id.as_str().starts_with("00u")) {
            users.extend(self.user(&id).await?);
        }
        let mut addresses: Vec<Address> = Address::parse(who).into_iter().collect();
        if !addresses.is_empty() {
            users.extend(self.paced(pacer, okta::endpoints::USERS, okta.holders(&addresses)).await?);
        }
        addresses.extend(users.iter().flat_map(OktaUser::addresses));
        Ok(Strangers { accounts: self.by_address(&addresses).await?, users })
    }
}

/// The status and the verdict on it. Somebody who is gone is deleted only if they are known to have left: a narrowed role
/// shows the same.
fn judged(policy: &Policy, user: Option<&OktaUser>, start: &LookStart) -> (Option<Status>, Verdict) {
    let left = start.left_seen || start.status.as_ref().is_some_and(Status::has_left);
    let status = match user {
        Some(user) => Some(user.status.clone()),
        None if left => Some(Status::Deleted),
        None => None,
    };
    let verdict = status.as_ref().map_or(Verdict::Leave, |status| policy.verdict(status));
    (status, verdict)
}

impl Seen {
    /// Does it carry a mark of ours, for this person or for nobody named?
    fn is_marked_for(&self, me: &OktaUserId) -> bool {
        self.account
            .as_ref()
            .and_then(|account| account.mark.as_ref())
            .is_some_and(|mark| mark.deactivated && mark.okta_user_id.as_ref().is_none_or(|owner| owner == me))
    }

    /// Is it denied, for whomever?
    fn is_marked(&self) -> bool {
        self.account.as_ref().and_then(|account| account.mark.as_ref()).is_some_and(|mark| mark.deactivated)
    }
}

impl Live {
    /// The accounts that are not as Okta's word wants them.
    pub(crate) fn wrong(&self, me: &OktaUserId) -> Vec<&Seen> {
        let there = self.accounts.iter().filter(|seen| seen.account.is_some() && !seen.outside);
        match self.verdict {
            Verdict::Deny if !self.exempt => there.filter(|seen| !seen.is_marked()).collect(),
            Verdict::Deny | Verdict::Allow => there.filter(|seen| seen.is_marked_for(me)).collect(),
            Verdict::Leave => Vec::new(),
        }
    }

    /// One line: what Okta says, what follows, and whether it is so.
    pub(crate) fn line(&self, me: &OktaUserId) -> String {
        let there = self.accounts.iter().filter(|seen| seen.account.is_some() && !seen.outside).count();
        let wrong = self.wrong(me).len();
        let Some(status) = &self.status else {
            return "Okta does not show this person, and nothing says that they left: nothing is written".to_owned();
        };
        match self.verdict {
            Verdict::Deny if self.exempt => format!("Okta says {status}, and they are exempt: no account is denied"),
            Verdict::Deny => {
                let so = match (there, wrong) {
                    (0, _) => "there are none".to_owned(),
                    (_, 0) => "they are".to_owned(),
                    (_, wrong) if wrong == there => "they are NOT".to_owned(),
                    (there, wrong) => format!("{wrong} of {there} are NOT"),
                };
                format!("Okta says {status} → accounts should be denied: {so}")
            }
            Verdict::Allow => {
                let so = if wrong == 0 { "none is".to_owned() } else { format!("{wrong} of {there} still ARE") };
                format!("Okta says {status} → no account should be denied for them: {so}")
            }
            Verdict::Leave => format!("Okta says {status} → nothing is written, in either direction"),
        }
    }

    /// The member `live` of `user --live --json`.
    pub(crate) fn to_json(&self, me: &OktaUserId) -> Value {
        let accounts: Vec<Value> = self
            .accounts
            .iter()
            .map(|seen| match &seen.account {
                Some(account) => {
                    let mut object = account_json(account);
                    object["believed_denied"] = seen.believed.into();
                    object["out_of_scope"] = seen.outside.into();
                    object
                }
                None => json!({ "auth0_user_id": seen.id.as_str(), "gone": true, "believed_denied": seen.believed }),
            })
            .collect();
        json!({
            "status": self.status.as_ref().map(Status::as_str), "verdict": self.verdict.as_str(),
            "exempt": self.exempt, "accounts": accounts, "agrees": self.wrong(me).is_empty(),
        })
    }

    /// For people, on a screen of `width` columns.
    pub(crate) fn to_text(&self, me: &OktaUserId, width: Option<u16>) -> String {
        let mut text = format!("\n{}\n", screen::paint(screen::STRONG, "Both tenants, now"));
        if !self.accounts.is_empty() {
            text.push_str(&screen::table_of_width(
                ["ACCOUNT", "ADDRESS", "AUTH0 SAYS", "MARKED FOR", "THE STATE BELIEVES"],
                self.accounts.iter().map(|seen| {
                    let believed = if seen.believed { "denied" } else { "open" }.to_owned();
                    let Some(account) = &seen.account else {
                        return [seen.id.to_string(), "-".to_owned(), "gone".to_owned(), "-".to_owned(), believed];
                    };
                    let said = if seen.outside { "out of scope, " } else { "" };
                    [
                        seen.id.to_string(),
                        account.email.as_ref().map_or_else(|| "-".to_owned(), |email| email.as_str().to_owned()),
                        format!("{said}{}", account.summary()),
                        marked_for(account),
                        believed,
                    ]
                }),
                width,
            ));
        }
        let style = if self.wrong(me).is_empty() { screen::GOOD } else { screen::BAD };
        let line = screen::paragraph("", &self.line(me), width);
        text.push_str(&screen::paint(style, line.trim_end()));
        text.push('\n');
        text
    }
}

impl Strangers {
    /// Is there really nobody?
    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.accounts.is_empty()
    }

    /// The member `live` of `user --live --json` for somebody whom the state does not know.
    pub(crate) fn to_json(&self) -> Value {
        let users: Vec<Value> = self
            .users
            .iter()
            .map(|user| {
                let email = user.email.as_ref().map(Address::as_str);
                json!({ "okta_user_id": user.id.as_str(), "login": user.login, "email": email,
                        "status": user.status.as_str() })
            })
            .collect();
        json!({ "users": users, "accounts": self.accounts.iter().map(account_json).collect::<Vec<_>>() })
    }

    /// For people, on a screen of `width` columns.
    pub(crate) fn to_text(&self, who: &str, width: Option<u16>) -> String {
        let mut text = screen::paragraph("", &format!("{who} is not known to the state"), width);
        for user in &self.users {
            let said = format!("{} {} is {}", user.id, user.login, user.status);
            text.push_str(&screen::paragraph("Okta   ", &said, width));
        }
        for account in &self.accounts {
            let email = account.email.as_ref().map_or("-", Address::as_str);
            let said = format!("{} {email} is {}, marked for {}", account.id, account.summary(), marked_for(account));
            text.push_str(&screen::paragraph("Auth0  ", &said, width));
        }
        if self.is_empty() {
            text.push_str("neither does Okta nor Auth0 know them\n");
        }
        text
    }
}

fn marked_for(account: &Account) -> String {
    match account.mark.as_ref().filter(|mark| mark.deactivated) {
        None => "-".to_owned(),
        Some(mark) => mark.okta_user_id.as_ref().map_or_else(|| "nobody named".to_owned(), ToString::to_string),
    }
}

fn account_json(account: &Account) -> Value {
    let mark = account.mark.as_ref();
    json!({
        "auth0_user_id": account.id.as_str(), "email": account.email.as_ref().map(Address::as_str),
        "connections": account.connections, "blocked": account.blocked,
        "denied": mark.is_some_and(|mark| mark.deactivated),
        "marked_for": mark.and_then(|mark| mark.okta_user_id.as_ref()).map(OktaUserId::as_str),
        "summary": account.summary(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::Mirror;
    use crate::domain::mark::Mark;

    fn me() -> OktaUserId {
        OktaUserId::parse("00ume").unwrap()
    }

    fn seen(id: &str, marked_for: Option<&str>) -> Seen {
        let mark = marked_for.map(|owner| Mark {
            deactivated: true,
            okta_user_id: OktaUserId::parse(owner),
            status: None,
            at: None,
            event_id: None,
            blocked: false,
        });
        let account = Account {
            id: AccountId::new(id),
            email: Address::parse("ann@example.com"),
            email_verified: true,
            connections: vec!["db".to_owned()],
            blocked: false,
            mark,
            mirror: Mirror::Absent,
        };
        Seen { account: Some(account), id: AccountId::new(id), believed: true, outside: false }
    }

    fn live(status: Status, accounts: Vec<Seen>) -> Live {
        let verdict = Policy::default().verdict(&status);
        Live { status: Some(status), verdict, exempt: false, accounts }
    }

    #[test]
    fn the_line_says_whether_accounts_are_as_okta_wants_them() {
        let both = || vec![seen("a", Some("00ume")), seen("b", None)];
        let outside = Seen { outside: true, ..seen("c", None) };
        let gone = Seen { account: None, ..seen("d", None) };
        for (live, expected, wrong) in [
            (live(Status::Deprovisioned, both()), "denied: 1 of 2 are NOT", 1),
            (live(Status::Deprovisioned, vec![seen("b", None)]), "denied: they are NOT", 1),
            (live(Status::Deprovisioned, vec![seen("a", Some("00ume")), outside, gone]), "denied: they are", 0),
            (live(Status::Deprovisioned, vec![seen("a", Some("00uother"))]), "denied: they are", 0),
            (live(Status::Deleted, Vec::new()), "Okta says DELETED → accounts should be denied: there are none", 0),
            (live(Status::Active, both()), "for them: 1 of 2 still ARE", 1),
            (live(Status::Active, vec![seen("a", Some("00uother"))]), "for them: none is", 0),
            (live(Status::Staged, both()), "nothing is written", 0),
            (Live { exempt: true, ..live(Status::Deprovisioned, both()) }, "exempt", 1),
            (Live { status: None, verdict: Verdict::Leave, ..live(Status::Active, both()) }, "does not show", 0),
        ] {
            let line = live.line(&me());
            assert!(line.ends_with(expected) || (line.contains(expected) && !expected.starts_with("denied")), "{line}");
            assert_eq!(live.wrong(&me()).len(), wrong, "{line}");
        }
    }

    #[test]
    fn the_table_fits_eighty_columns() {
        let live =
            live(Status::Deprovisioned, vec![seen("auth0|65f0c0ffee0123456789abcd", Some("00ud384zryL1GFAg30h7"))]);
        let text = live.to_text(&me(), Some(80));
        let widest = text.lines().filter(|line| !line.contains('\u{1b}')).map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{text}");
    }
}
