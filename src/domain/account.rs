//! A user profile in Auth0.

use std::fmt;

use super::{Address, Mark};

/// Auth0's `user_id`, e.g. `auth0|65f…`, `google-oauth2|1234`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(String);

impl AccountId {
    /// Any text is taken; it is percent-encoded wherever it becomes part of an address.
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

/// What `user_metadata.okta` holds: the place that the original flow's Action reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirror {
    /// No `okta`, or one without `deactivated`.
    Absent,
    /// `deactivated` is `"true"` (or `true`).
    On,
    /// `deactivated` is anything else.
    Off,
    /// `okta` is no object (a text, a list …): writing it would destroy what somebody else keeps there.
    Foreign,
}

/// An account that carries, or carried, our mark for a user: what the store knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedAccount {
    /// Auth0's id.
    pub id: AccountId,
    /// Its address when we last saw it.
    pub email: Option<Address>,
    /// Does it carry the mark, as far as we know?
    pub denied: bool,
    /// Did we block it, or may we have?
    pub blocked: bool,
    /// Are its sessions still to be ended?
    pub sessions_owed: bool,
    /// We sent a mark and do not know the answer: the account may carry a mark although `denied` is false.
    pub unconfirmed: bool,
}

/// An account as one answer of Auth0 described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Auth0's id.
    pub id: AccountId,
    /// Its address, as it is written there.
    pub email: Option<Address>,
    /// Has Auth0 verified it?
    pub email_verified: bool,
    /// The connections of its identities: the primary's first.
    pub connections: Vec<String>,
    /// Is it blocked, by whomever?
    pub blocked: bool,
    /// Our mark, if there is one, whatever it says.
    pub mark: Option<Mark>,
    /// The copy of the mark that the original flow's Action reads.
    pub mirror: Mirror,
}

impl Account {
    /// Does an Action that reads either place refuse this account?
    pub fn is_denied(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.deactivated) || self.mirror == Mirror::On
    }

    /// What the decisions say of an account before and after: `open`, `denied`, with `blocked` and odd cases spelled out.
    pub fn summary(&self) -> String {
        let marked = self.mark.as_ref().is_some_and(|mark| mark.deactivated);
        let mut text = match (marked, self.mirror) {
            (true, _) => "denied".to_owned(),
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
