//! Events of Auth0 about accounts, and which users they make due.
//!
//! Such an event is a ping, as one of the System Log is: it says that an account changed, and nothing in it is obeyed. This
//! rule only decides whether a look is needed, so that the changes of a busy tenant cost no call.

use super::{Account, OktaUserId, Policy, Status, Timestamp, Verdict};

/// What happened to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It was created: by a sign-up, an import, an administrator, or its first login through a connection.
    Created,
    /// It was changed, perhaps by a login, perhaps by us.
    Updated,
    /// It was deleted.
    Deleted,
}

impl Change {
    /// Every change.
    pub const ALL: [Self; 3] = [Self::Created, Self::Updated, Self::Deleted];

    /// Auth0's name of the event's type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "user.created",
            Self::Updated => "user.updated",
            Self::Deleted => "user.deleted",
        }
    }

    /// Parses the type of an event. Auth0's documentation has two spellings.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("com.auth0.").unwrap_or(text);
        Self::ALL.into_iter().find(|change| change.as_str() == text)
    }
}

/// An event about an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountEvent {
    /// Auth0's id of the event; a repeated event has the same.
    pub id: String,
    /// What happened.
    pub change: Change,
    /// When.
    pub at: Timestamp,
    /// The account after the change, or before its deletion.
    pub account: Account,
}

impl AccountEvent {
    /// The ids in its identities that may be ids of users in Okta.
    pub fn identity_ids(&self) -> impl Iterator<Item = &str> {
        let ids = self.account.identities.iter().filter_map(|identity| identity.user_id.as_deref());
        ids.map(|id| id.rsplit_once('|').map_or(id, |(_, own)| own))
    }

    /// The ids that it has, or had before it was linked.
    pub fn account_ids(&self) -> Vec<String> {
        let linked =
            self.account.identities.iter().filter_map(|identity| {
                Some(format!("{}|{}", identity.provider.as_deref()?, identity.user_id.as_deref()?))
            });
        let mut ids: Vec<String> = std::iter::once(self.account.id.as_str().to_owned()).chain(linked).collect();
        ids.dedup();
        ids
    }

    /// What the account shows of itself, as a text: a look at the same text would decide the same.
    pub fn seen(&self) -> String {
        let account = &self.account;
        let mark = account.mark.as_ref().filter(|mark| mark.deactivated);
        let mut parts = vec![self.change.as_str().to_owned(), account.blocked.to_string()];
        parts.push(mark.and_then(|mark| mark.okta_user_id.as_ref()).map_or_else(String::new, ToString::to_string));
        parts.push(account.email_verified.to_string());
        parts.extend(account.addresses().map(super::Address::key));
        for identity in &account.identities {
            parts.extend(identity.connection.clone());
            parts.extend(identity.user_id.clone());
        }
        parts.join("\n")
    }
}

/// A user whom an event may concern: by an address, an id in an identity, or an account that carries a mark for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concerned {
    /// The user.
    pub user: OktaUserId,
    /// The status last read.
    pub status: Option<Status>,
    /// The System Log or Okta said that the user left.
    pub left: bool,
    /// The store has the account, or one that was linked into it, as denied for the user.
    pub denied: bool,
    /// We blocked it.
    pub blocked: bool,
    /// A mark was sent to it, and the answer is not known: a look is under way or due.
    pub unconfirmed: bool,
    /// What the account showed when it last made the user due, as [`AccountEvent::seen`] or a hash of it.
    pub seen: Option<String>,
}

/// Whether the event makes the user due. `seen` is its [`AccountEvent::seen`] in the form of [`Concerned::seen`].
pub fn makes_due(event: &AccountEvent, seen: &str, concerned: &Concerned, policy: &Policy, org: Option<&str>) -> bool {
    let is_news = concerned.seen.as_deref() != Some(seen);
    if event.change == Change::Deleted {
        // Its identity may have been linked into another account, which has to be denied then.
        return is_news && (concerned.denied || concerned.unconfirmed);
    }
    let account = &event.account;
    let mark = account.mark.as_ref().filter(|mark| mark.deactivated && mark.other_org(org).is_none());
    let names_user = mark.is_some_and(|mark| mark.okta_user_id.as_ref() == Some(&concerned.user));
    let has_left = concerned.left
        || concerned.denied
        || concerned.status.as_ref().is_some_and(|status| policy.verdict(status) == Verdict::Deny);
    if !has_left {
        // A mark of an earlier time, as an import brings it back.
        return names_user && !concerned.unconfirmed && is_news;
    }
    let is_denied = names_user && (account.blocked || !concerned.blocked);
    // A mark that was removed is restored each time. What else stays open was decided so by the last look.
    !is_denied && (concerned.denied || is_news)
}

/// Whether the event stream of Auth0 is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchMode {
    /// If the credential has the scope and the tenant a free connection.
    #[default]
    Auto,
    /// Yes; an alarm is raised if it cannot be.
    Always,
    /// No.
    Never,
}

impl WatchMode {
    /// The word in the configuration and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::{Identity, Mirror, OtherMarks};
    use crate::domain::{AccountId, Address, Mark};

    fn user() -> OktaUserId {
        OktaUserId::parse("00uleaver").unwrap()
    }

    fn event(change: Change, mark: Option<bool>) -> AccountEvent {
        let mark = mark.map(|deactivated| Mark {
            deactivated,
            okta_user_id: Some(user()),
            okta_org: Some("00oours".to_owned()),
            status: None,
            at: None,
            event_id: None,
            blocked: false,
        });
        AccountEvent {
            id: "evt_1".to_owned(),
            change,
            at: "2026-11-23T10:00:00Z".parse().unwrap(),
            account: Account {
                id: AccountId::new("auth0|1"),
                email: Address::parse("ann@example.com"),
                email_verified: true,
                identities: vec![Identity {
                    connection: Some("db".to_owned()),
                    provider: Some("auth0".to_owned()),
                    user_id: Some("1".to_owned()),
                    ..Identity::default()
                }],
                blocked: false,
                mark,
                former_key: None,
                keeps_former: false,
                keyed: Vec::new(),
                other_marks: OtherMarks::default(),
                unread: false,
                mirror: Mirror::Unread,
            },
        }
    }

    fn concerned(left: bool, denied: bool) -> Concerned {
        Concerned { user: user(), status: None, left, denied, blocked: false, unconfirmed: false, seen: None }
    }

    fn due(event: &AccountEvent, concerned: &Concerned) -> bool {
        makes_due(event, &event.seen(), concerned, &Policy::default(), Some("00oours"))
    }

    #[test]
    fn both_spellings_of_a_type_are_read() {
        for change in Change::ALL {
            assert_eq!(Change::parse(change.as_str()), Some(change));
            assert_eq!(Change::parse(&format!("com.auth0.{}", change.as_str())), Some(change));
        }
        assert_eq!(Change::parse("user.cloned"), None);
    }

    #[test]
    fn late_sign_up_of_a_leaver_is_due() {
        assert!(due(&event(Change::Created, None), &concerned(true, false)));
        let deprovisioned = Concerned { status: Some(Status::Deprovisioned), ..concerned(false, false) };
        assert!(due(&event(Change::Created, None), &deprovisioned));
        assert!(!due(&event(Change::Created, None), &concerned(false, false)), "an active user signs up");
    }

    #[test]
    fn our_own_writes_are_not_due() {
        assert!(!due(&event(Change::Updated, Some(true)), &concerned(true, true)), "the mark");
        assert!(!due(&event(Change::Updated, Some(false)), &concerned(false, false)), "the mark is lifted");
        let under_way = Concerned { unconfirmed: true, ..concerned(false, false) };
        assert!(!due(&event(Change::Updated, Some(true)), &under_way), "before the look ended");
    }

    #[test]
    fn removed_mark_is_due_each_time() {
        let removed = event(Change::Updated, None);
        let again = Concerned { seen: Some(removed.seen()), ..concerned(true, true) };
        assert!(due(&removed, &concerned(true, true)) && due(&removed, &again));
        let unblocked = Concerned { blocked: true, ..concerned(true, true) };
        assert!(due(&event(Change::Updated, Some(true)), &unblocked), "our block was removed");
    }

    #[test]
    fn account_that_stays_open_is_due_once() {
        // It is held, exempt, out of scope, or an active user's too: its logins are not news.
        let login = event(Change::Updated, None);
        assert!(due(&login, &concerned(true, false)));
        let known = Concerned { seen: Some(login.seen()), ..concerned(true, false) };
        assert!(!due(&login, &known));
        let mut renamed = login.clone();
        renamed.account.email = Address::parse("ann@example.org");
        assert!(due(&renamed, &known), "another address is news");
    }

    #[test]
    fn old_mark_on_an_active_user_is_due() {
        assert!(due(&event(Change::Updated, Some(true)), &concerned(false, false)));
        let mut foreign = event(Change::Updated, Some(true));
        foreign.account.mark.as_mut().unwrap().okta_org = Some("00otheirs".to_owned());
        assert!(!due(&foreign, &concerned(false, false)), "of another installation");
    }

    #[test]
    fn deletion_matters_for_denied_accounts_only() {
        assert!(due(&event(Change::Deleted, Some(true)), &concerned(true, true)));
        assert!(!due(&event(Change::Deleted, None), &concerned(true, false)));
    }

    #[test]
    fn linked_accounts_are_known_by_their_former_ids() {
        let mut linked = event(Change::Updated, None);
        linked.account.identities.push(Identity {
            provider: Some("okta".to_owned()),
            user_id: Some("acme-okta|00uleaver".to_owned()),
            ..Identity::default()
        });
        assert_eq!(linked.account_ids(), ["auth0|1", "okta|acme-okta|00uleaver"]);
        assert_eq!(linked.identity_ids().collect::<Vec<_>>(), ["1", "00uleaver"]);
    }
}
