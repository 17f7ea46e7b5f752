//! A user profile in Auth0.

use std::fmt;

use super::{Address, Mark, OktaUserId};

/// Auth0's `user_id`, e.g. `auth0|65f…`, `google-oauth2|1234`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(String);

impl AccountId {
    /// Accepts any text; clients percent-encode it in URLs.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As Auth0 writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of the identities by which an account logs in: its own, or that of an account linked into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its connection.
    pub connection: Option<String>,
    /// Its connection's strategy: the prefix of a `user_id`.
    pub provider: Option<String>,
    /// The id at the provider: an account's `user_id` without the provider.
    pub user_id: Option<String>,
    /// A linked identity's address.
    pub email: Option<Address>,
    /// Whether that address is verified.
    pub email_verified: bool,
}

impl Identity {
    /// Whether this is the identity of this user of Okta: `00u…`, or `connection|00u…`.
    pub fn carries(&self, user: &OktaUserId) -> bool {
        let id = self.user_id.as_deref().map(|id| id.rsplit_once('|').map_or(id, |(_, own)| own));
        id == Some(user.as_str())
    }
}

/// How an account is matched to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identifier {
    /// An address of one of its identities.
    Address(Address),
    /// The Okta id in one of its identities.
    OktaId(OktaUserId),
}

impl Identifier {
    /// The text by which all spellings compare equal. An Okta id has no `@`.
    pub fn key(&self) -> String {
        match self {
            Self::Address(address) => address.key(),
            Self::OktaId(user) => user.as_str().to_owned(),
        }
    }

    /// The address, if it is one.
    pub const fn address(&self) -> Option<&Address> {
        match self {
            Self::Address(address) => Some(address),
            Self::OktaId(_) => None,
        }
    }
}

/// The addresses among these.
pub fn addresses_among(identifiers: &[Identifier]) -> Vec<Address> {
    identifiers.iter().filter_map(Identifier::address).cloned().collect()
}

/// The content of `user_metadata.okta`, which the original flow's Action reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirror {
    /// No `okta`, or one without `deactivated`.
    Absent,
    /// `deactivated` is `"true"` (or `true`).
    On,
    /// `deactivated` is anything else.
    Off,
    /// `okta` is not an object (a string, a list …): overwriting it would destroy another program's data.
    Foreign,
    /// `user_metadata` was not read, because it is too large or was not asked for.
    Unread,
}

/// What the store knows of an account that carries, or carried, our mark for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedAccount {
    /// Auth0's id.
    pub id: AccountId,
    /// Its address when we last saw it.
    pub email: Option<Address>,
    /// Whether it carries the mark, as far as the store knows.
    pub denied: bool,
    /// Whether we blocked it, or may have.
    pub blocked: bool,
    /// Whether its sessions are still to be revoked.
    pub sessions_owed: bool,
    /// We sent a mark and did not receive the response: the account may carry a mark although `denied` is false.
    pub unconfirmed: bool,
    /// Its mark is under a former metadata key.
    pub unmoved: bool,
}

/// The marks of other installations on an account: of those for other Okta orgs, under other metadata keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherMarks {
    /// One of them denies the account.
    pub denied: bool,
    /// One of them denies the account and has set its block.
    pub blocked: bool,
}

/// A key in `app_metadata` beside the configured one: a former key of the configuration, or one that holds a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedMark {
    /// The key.
    pub key: String,
    /// The configuration lists it as a former key.
    pub listed: bool,
    /// The mark under it, on or off. `None`: there is none, or it could not be read.
    pub mark: Option<Mark>,
}

impl KeyedMark {
    /// Whether a mark under this key is ours, if `org` is our Okta org: an unlisted key is, if its mark names our org.
    pub fn is_ours(&self, org: Option<&str>) -> bool {
        match &self.mark {
            Some(mark) if self.listed => mark.other_org(org).is_none(),
            Some(mark) => org.is_some() && mark.okta_org.as_deref() == org,
            None => self.listed,
        }
    }

    fn denies(&self) -> Option<&Mark> {
        self.mark.as_ref().filter(|mark| mark.deactivated)
    }
}

/// An account as described by one response of Auth0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Auth0's id.
    pub id: AccountId,
    /// Its address, in Auth0's spelling.
    pub email: Option<Address>,
    /// Whether Auth0 has verified the address.
    pub email_verified: bool,
    /// Its identities: the primary first, then those of accounts that were linked into it.
    pub identities: Vec<Identity>,
    /// Whether it is blocked, by us or by others.
    pub blocked: bool,
    /// Our mark, if there is one, also when it denies nothing.
    pub mark: Option<Mark>,
    /// The former metadata key under which a mark is in force: it has to move to the configured one.
    pub former_key: Option<String>,
    /// Marks under former keys stay, and a new mark is written under every key: the Action that reads the configured key is not
    /// known to be in force.
    pub keeps_former: bool,
    /// The other keys that hold a mark, or may hold one.
    pub keyed: Vec<KeyedMark>,
    /// What other installations say about the account, under their metadata keys.
    pub other_marks: OtherMarks,
    /// `app_metadata` was not read, because it is too large or was not asked for: the account may carry a mark.
    pub unread: bool,
    /// The copy of the mark that the original flow's Action reads.
    pub mirror: Mirror,
}

impl Account {
    /// Judges the marks under other keys, now that our Okta org is known: ours count as marks under a former key, the others
    /// belong to other installations. Without it, only the mark under the configured key counts.
    pub fn claim_marks(&mut self, org: Option<&str>, keeps_former: bool) {
        self.keeps_former = keeps_former;
        if self.keyed.is_empty() {
            return;
        }
        let (ours, others): (Vec<_>, Vec<_>) = self.keyed.iter().partition(|keyed| keyed.is_ours(org));
        self.other_marks = OtherMarks {
            denied: others.iter().any(|keyed| keyed.denies().is_some()),
            blocked: others.iter().filter_map(|keyed| keyed.denies()).any(|mark| mark.blocked),
        };
        let former = ours.iter().find(|keyed| keyed.denies().is_some());
        self.former_key = former.map(|keyed| keyed.key.clone());
        if let Some(former) = former
            && !self.mark.as_ref().is_some_and(|mark| mark.deactivated)
        {
            self.mark.clone_from(&former.mark);
        }
    }

    /// The keys other than the configured one under which a new mark is written too.
    pub fn copy_keys(&self, org: Option<&str>) -> Vec<String> {
        let keyed = self.keyed.iter().filter(|keyed| self.keeps_former && keyed.is_ours(org));
        keyed.map(|keyed| keyed.key.clone()).collect()
    }

    /// The keys other than the configured one under which a mark of ours is, or may be.
    pub fn former_keys(&self, org: Option<&str>) -> Vec<String> {
        let holds = |keyed: &&KeyedMark| keyed.is_ours(org) && (keyed.mark.is_some() || self.unread);
        self.keyed.iter().filter(holds).map(|keyed| keyed.key.clone()).collect()
    }

    /// The connections of its identities: the primary's first.
    pub fn connections(&self) -> impl Iterator<Item = &str> {
        self.identities.iter().filter_map(|identity| identity.connection.as_deref())
    }

    /// Its address and those of the identities that were linked into it.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.email.iter().chain(self.identities.iter().filter_map(|identity| identity.email.as_ref()))
    }

    /// The addresses that may be another user's: those of identities that do not carry this user's Okta id.
    pub fn addresses_beside(&self, user: &OktaUserId) -> Vec<&Address> {
        let is_own = |identity: Option<&Identity>| identity.is_some_and(|identity| identity.carries(user));
        let primary = self.email.iter().filter(|_| !is_own(self.identities.first()));
        let linked = self.identities.iter().filter(|identity| !identity.carries(user));
        primary.chain(linked.filter_map(|identity| identity.email.as_ref())).collect()
    }

    /// Whether one of these identifies it.
    pub fn is_identified_by(&self, identifiers: &[Identifier]) -> bool {
        identifiers.iter().any(|identifier| match identifier {
            Identifier::Address(address) => self.addresses().any(|own| address.same(own.as_str())),
            Identifier::OktaId(user) => self.identities.iter().any(|identity| identity.carries(user)),
        })
    }

    /// Whether the account with this id was linked into this one.
    pub fn has_linked(&self, id: &AccountId) -> bool {
        self.identities.iter().any(|identity| match (&identity.provider, &identity.user_id) {
            (Some(provider), Some(own)) => {
                id.as_str().strip_prefix(provider).and_then(|id| id.strip_prefix('|')) == Some(own)
            }
            _ => false,
        })
    }

    /// Whether an Action that reads the mark or the mirror refuses this account.
    pub fn is_denied(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.deactivated) || self.mirror == Mirror::On
    }

    /// The words for an account in decisions: `open` or `denied` (`unknown` if its mark cannot be read), with `blocked` and unusual states spelled out.
    pub fn summary(&self) -> String {
        let marked = self.mark.as_ref().is_some_and(|mark| mark.deactivated);
        let mut text = match (marked, self.mirror) {
            (true, _) => "denied".to_owned(),
            (false, _) if self.unread => "unknown".to_owned(),
            (false, Mirror::On) => "denied by mirror only".to_owned(),
            (false, _) => "open".to_owned(),
        };
        if self.blocked {
            text.push_str(", blocked");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_keeps_auth0_spelling() {
        let id = AccountId::new("auth0|5f7c8ec7c33c6c004bbafe82");
        assert_eq!(format!("the account {id}"), "the account auth0|5f7c8ec7c33c6c004bbafe82");
    }
}
