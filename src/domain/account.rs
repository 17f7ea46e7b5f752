//! A user profile in Auth0.

use std::fmt;

use super::{Address, Mark};

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
    /// The connections of its identities: the primary's first.
    pub connections: Vec<String>,
    /// Whether it is blocked, by us or by others.
    pub blocked: bool,
    /// Our mark, if there is one, also when it denies nothing.
    pub mark: Option<Mark>,
    /// `app_metadata` was not read, because it is too large or was not asked for: the account may carry a mark.
    pub unread: bool,
    /// The copy of the mark that the original flow's Action reads.
    pub mirror: Mirror,
}

impl Account {
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
    fn an_id_reads_as_auth0_writes_it() {
        let id = AccountId::new("auth0|5f7c8ec7c33c6c004bbafe82");
        assert_eq!(format!("the account {id}"), "the account auth0|5f7c8ec7c33c6c004bbafe82");
    }
}
