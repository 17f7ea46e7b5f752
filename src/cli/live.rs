//! Prints a user's current data in both tenants next to the stored data.

use std::sync::Arc;

use serde_json::{Value, json};

use super::wiring::Clients;
use super::{Error, screen, wiring};
use crate::config::Config;
use crate::domain::{Account, Address, Clock, OktaUserId, Status, Verdict};
use crate::engine::Options;
use crate::engine::inspect::{InspectError, Inspection, Inspector, Strangers};
use crate::store::Store;

impl From<InspectError> for Error {
    fn from(error: InspectError) -> Self {
        match error {
            InspectError::Remote(failure) => Self::Remote(failure),
            InspectError::Store(error) => Self::Store(error),
        }
    }
}

/// `user --live` for a stored user.
pub(crate) struct Live(pub(crate) Inspection);

/// `user --live` for a user that is not in the state.
pub(crate) struct Unknown(pub(crate) Strangers);

/// Inspects a stored user.
///
/// # Errors
/// If a secret cannot be used, or a remote or the state cannot be read.
pub(crate) async fn inspect(
    config: &Config,
    clock: &Arc<dyn Clock>,
    store: &Store,
    id: &OktaUserId,
) -> Result<Live, Error> {
    let (clients, options) = (wiring::clients(config, clock)?, wiring::options(config));
    Ok(Live(inspector(&clients, &options, clock).inspect(store, id).await?))
}

/// Searches both tenants for a user that is not in the state.
///
/// # Errors
/// If a secret cannot be used, or a remote cannot be read.
pub(crate) async fn search(
    config: &Config,
    clock: &Arc<dyn Clock>,
    who: &str,
    org: Option<&str>,
) -> Result<Unknown, Error> {
    let (clients, options) = (wiring::clients(config, clock)?, wiring::options(config));
    Ok(Unknown(inspector(&clients, &options, clock).search(who, org).await?))
}

fn inspector<'a>(clients: &'a Clients, options: &'a Options, clock: &'a Arc<dyn Clock>) -> Inspector<'a> {
    Inspector {
        okta: (&clients.okta.0, &clients.okta.1),
        auth0: (&clients.auth0.0, &clients.auth0.1),
        rules: &options.rules,
        search: options.search,
        clock: clock.as_ref(),
    }
}

impl Live {
    /// An account that stays open because another user has its address is open to a user who left all the same.
    pub(crate) fn expect_denied(&mut self) {
        for seen in self.0.accounts.iter_mut().filter(|seen| !seen.outside) {
            let is_denied =
                |account: &Account| account.blocked || account.mark.as_ref().is_some_and(|mark| mark.deactivated);
            seen.wrong |= seen.account.as_ref().is_some_and(|account| !is_denied(account));
        }
    }

    /// Does every account match the verdict?
    pub(crate) fn agrees(&self) -> bool {
        self.0.wrong().next().is_none()
    }

    /// One line: the status in Okta, the verdict, and whether the accounts match it.
    fn line(&self) -> String {
        let there = self.0.accounts.iter().filter(|seen| seen.account.is_some() && !seen.outside).count();
        let wrong = self.0.wrong().count();
        let Some(status) = &self.0.status else {
            return "Okta does not return this user and no deletion is recorded → nothing is written".to_owned();
        };
        match self.0.verdict {
            Verdict::Deny if self.0.exempt => {
                format!("Okta says {status}, but the user is exempt → no account is denied")
            }
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
                format!("Okta says {status} → no account should be denied for this user: {so}")
            }
            Verdict::Leave => format!("Okta says {status} → nothing is written, in either direction"),
        }
    }

    /// The member `live` of `user --live --json`.
    pub(crate) fn to_json(&self) -> Value {
        let accounts: Vec<Value> = self
            .0
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
            "status": self.0.status.as_ref().map(Status::as_str), "verdict": self.0.verdict.as_str(),
            "exempt": self.0.exempt, "accounts": accounts, "agrees": self.agrees(),
        })
    }

    /// Renders the result for a terminal of `width` columns.
    pub(crate) fn to_text(&self, width: Option<u16>) -> String {
        let mut text = format!("\n{}\n", screen::paint(screen::STRONG, "Both tenants, now"));
        if !self.0.accounts.is_empty() {
            text.push_str(&screen::table_of_width(
                ["ACCOUNT", "ADDRESS", "AUTH0 SAYS", "MARKED FOR", "STATE SAYS"],
                self.0.accounts.iter().map(|seen| {
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
        let style = if self.agrees() { screen::GOOD } else { screen::BAD };
        let line = screen::paragraph("", &self.line(), width);
        text.push_str(&screen::paint(style, line.trim_end()));
        text.push('\n');
        text
    }
}

impl Unknown {
    /// Did neither tenant return anything?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.users.is_empty() && self.0.accounts.is_empty()
    }

    /// The member `live` of `user --live --json` for a user that is not in the state.
    pub(crate) fn to_json(&self) -> Value {
        let users: Vec<Value> = self
            .0
            .users
            .iter()
            .map(|user| {
                let email = user.email.as_ref().map(Address::as_str);
                json!({ "okta_user_id": user.id.as_str(), "login": user.login, "email": email,
                        "status": user.status.as_str() })
            })
            .collect();
        json!({ "users": users, "accounts": self.0.accounts.iter().map(account_json).collect::<Vec<_>>() })
    }

    /// Renders the result for a terminal of `width` columns.
    pub(crate) fn to_text(&self, who: &str, width: Option<u16>) -> String {
        let mut text = screen::paragraph("", &format!("{who} is not in the state"), width);
        for user in &self.0.users {
            let said = format!("{} {} is {}", user.id, user.login, user.status);
            text.push_str(&screen::paragraph("Okta   ", &said, width));
        }
        for account in &self.0.accounts {
            let email = account.email.as_ref().map_or("-", Address::as_str);
            let said = format!("{} {email} is {}, marked for {}", account.id, account.summary(), marked_for(account));
            text.push_str(&screen::paragraph("Auth0  ", &said, width));
        }
        if self.is_empty() {
            text.push_str("not found in Okta or Auth0 either\n");
        }
        text
    }
}

fn marked_for(account: &Account) -> String {
    match account.mark.as_ref().filter(|mark| mark.deactivated) {
        None => "-".to_owned(),
        Some(mark) => mark.okta_user_id.as_ref().map_or_else(|| "unknown user".to_owned(), ToString::to_string),
    }
}

fn account_json(account: &Account) -> Value {
    let mark = account.mark.as_ref();
    json!({
        "auth0_user_id": account.id.as_str(), "email": account.email.as_ref().map(Address::as_str),
        "connections": account.connections().collect::<Vec<_>>(), "blocked": account.blocked,
        "denied": mark.is_some_and(|mark| mark.deactivated),
        "marked_for": mark.and_then(|mark| mark.okta_user_id.as_ref()).map(OktaUserId::as_str),
        "summary": account.summary(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::Mirror;
    use crate::domain::account::{Identity, OtherMarks};
    use crate::domain::mark::Mark;
    use crate::domain::{AccountId, Policy};
    use crate::engine::inspect::Seen;

    fn me() -> OktaUserId {
        OktaUserId::parse("00ume").unwrap()
    }

    fn seen(id: &str, marked_for: Option<&str>, wrong: bool) -> Seen {
        let mark = marked_for.map(|owner| Mark {
            deactivated: true,
            okta_user_id: OktaUserId::parse(owner),
            okta_org: None,
            status: None,
            at: None,
            event_id: None,
            blocked: false,
        });
        let account = Account {
            id: AccountId::new(id),
            email: Address::parse("ann@example.com"),
            email_verified: true,
            identities: vec![Identity { connection: Some("db".to_owned()), ..Identity::default() }],
            blocked: false,
            mark,
            unread: false,
            former_key: None,
            keeps_former: false,
            keyed: Vec::new(),
            other_marks: OtherMarks::default(),
            mirror: Mirror::Absent,
        };
        Seen { account: Some(account), id: AccountId::new(id), believed: true, outside: false, wrong }
    }

    fn live(status: Status, accounts: Vec<Seen>) -> Inspection {
        let verdict = Policy::default().verdict(&status);
        Inspection { user: me(), status: Some(status), verdict, exempt: false, accounts }
    }

    #[test]
    fn line_says_whether_accounts_match() {
        let denied = || seen("a", Some("00ume"), false);
        let open = || seen("b", None, true);
        let outside = Seen { outside: true, ..seen("c", None, false) };
        let gone = Seen { account: None, ..seen("d", None, false) };
        let still_denied = seen("a", Some("00ume"), true);
        for (inspection, expected) in [
            (live(Status::Deprovisioned, vec![denied(), open()]), "denied: 1 of 2 are NOT"),
            (live(Status::Deprovisioned, vec![open()]), "denied: they are NOT"),
            (live(Status::Deprovisioned, vec![denied(), outside, gone]), "denied: they are"),
            (live(Status::Deleted, Vec::new()), "Okta says DELETED → accounts should be denied: there are none"),
            (live(Status::Active, vec![still_denied, seen("b", None, false)]), "for this user: 1 of 2 still ARE"),
            (live(Status::Active, vec![seen("a", Some("00uother"), false)]), "for this user: none is"),
            (live(Status::Staged, vec![denied()]), "nothing is written"),
            (Inspection { exempt: true, ..live(Status::Deprovisioned, vec![denied()]) }, "exempt"),
            (Inspection { status: None, verdict: Verdict::Leave, ..live(Status::Active, vec![]) }, "does not return"),
        ] {
            let line = Live(inspection).line();
            assert!(line.ends_with(expected) || (line.contains(expected) && !expected.starts_with("denied")), "{line}");
        }
    }

    #[test]
    fn table_fits_80_columns() {
        let live = live(
            Status::Deprovisioned,
            vec![seen("auth0|65f0c0ffee0123456789abcd", Some("00ud384zryL1GFAg30h7"), false)],
        );
        let text = Live(live).to_text(Some(80));
        let widest = text.lines().filter(|line| !line.contains('\u{1b}')).map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{text}");
    }
}
