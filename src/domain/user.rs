//! A user in Okta.

use std::fmt;

use super::{Address, Cause, EventSeen, Held, MarkedAccount, Timestamp};

/// Okta's id of a user, `00u…`: the only identifier that never changes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OktaUserId(String);

impl OktaUserId {
    /// Parses `text` if it can be an id: 1 to 100 ASCII letters, digits, `-` or `_`.
    pub fn parse(text: &str) -> Option<Self> {
        let shaped = (1..=100).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        shaped.then(|| Self(text.to_owned()))
    }

    /// The id as Okta writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for OktaUserId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OktaUserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OktaUserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The status of a user. `transitioningToStatus` takes precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Created, never activated.
    Staged,
    /// Activation was started and the user has not finished it.
    Provisioned,
    /// On the way to active.
    Activating,
    /// May sign in.
    Active,
    /// A password reset is under way.
    Recovery,
    /// Must choose a new password.
    PasswordExpired,
    /// Locked after failed attempts.
    LockedOut,
    /// Suspended by an administrator.
    Suspended,
    /// Deactivated.
    Deprovisioned,
    /// Deleted from the directory. Our word; Okta never returns it.
    Deleted,
    /// A status that this version does not know.
    Unknown(String),
}

impl Status {
    /// All known statuses.
    pub const KNOWN: [Self; 10] = [
        Self::Staged,
        Self::Provisioned,
        Self::Activating,
        Self::Active,
        Self::Recovery,
        Self::PasswordExpired,
        Self::LockedOut,
        Self::Suspended,
        Self::Deprovisioned,
        Self::Deleted,
    ];

    /// Parses Okta's spelling; an unknown status is kept as text.
    pub fn parse(text: &str) -> Self {
        Self::KNOWN.into_iter().find(|known| known.as_str() == text).unwrap_or_else(|| Self::Unknown(text.to_owned()))
    }

    /// Okta's spelling.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Staged => "STAGED",
            Self::Provisioned => "PROVISIONED",
            Self::Activating => "ACTIVATING",
            Self::Active => "ACTIVE",
            Self::Recovery => "RECOVERY",
            Self::PasswordExpired => "PASSWORD_EXPIRED",
            Self::LockedOut => "LOCKED_OUT",
            Self::Suspended => "SUSPENDED",
            Self::Deprovisioned => "DEPROVISIONED",
            Self::Deleted => "DELETED",
            Self::Unknown(text) => text,
        }
    }

    /// Whether a user with this status has left the org, whatever the policy says.
    pub const fn has_left(&self) -> bool {
        matches!(self, Self::Deprovisioned | Self::Deleted)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A user as described by one response of Okta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OktaUser {
    /// Okta's id.
    pub id: OktaUserId,
    /// `profile.login`: need not be an address.
    pub login: String,
    /// `profile.email`, if it is address-shaped.
    pub email: Option<Address>,
    /// The status, or the one that the user is changing to.
    pub status: Status,
    /// Whether `status` is the one that the user is changing to.
    pub transitional: bool,
}

impl OktaUser {
    /// The user's addresses: the e-mail, and the login if it is a different address.
    pub fn addresses(&self) -> Vec<Address> {
        let login = Address::parse(&self.login);
        let mut all: Vec<Address> = self.email.iter().cloned().collect();
        if let Some(login) = login
            && !all.iter().any(|known| known.same(login.as_str()))
        {
            all.push(login);
        }
        all
    }

    /// Whether Okta hides login and e-mail from us. Every user has a login, so a user without one was not shown whole.
    pub fn hides_addresses(&self) -> bool {
        self.login.is_empty() && self.email.is_none()
    }

    /// Whether `address` is the user's e-mail or login, without regard to case.
    pub fn holds(&self, address: &Address) -> bool {
        self.addresses().iter().any(|held| held.same(address.as_str()))
    }
}

/// What a look learned about a user from Okta and the store keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRead {
    /// The login; unknown for a deleted user.
    pub login: Option<String>,
    /// The e-mail; unknown for a deleted user.
    pub email: Option<Address>,
    /// The status.
    pub status: Status,
    /// All addresses ever read for this user.
    pub addresses: Vec<Address>,
    /// Okta hid login and e-mail from us.
    pub address_hidden: bool,
}

impl UserRead {
    /// The addresses that Okta shows for the user now. Empty if it shows none: that says nothing about the others.
    pub fn held_addresses(&self) -> Vec<Address> {
        self.email.iter().cloned().chain(self.login.as_deref().and_then(Address::parse)).collect()
    }
}

/// What the store knows about a user and a decision depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownUser {
    /// Okta's id.
    pub id: OktaUserId,
    /// The id of the org that the state belongs to, once it is known.
    pub okta_org: Option<String>,
    /// The Action that reads the configured metadata key is in force, so marks under former keys may move to it.
    pub may_move_marks: bool,
    /// What made the user due last.
    pub cause: Cause,
    /// An operator approved this reason for holding the user, and no other.
    pub approved: Option<Held>,
    /// Which recheck this look is.
    pub recheck_step: u32,
    /// The status when last read.
    pub status: Option<Status>,
    /// When it was read.
    pub status_at: Option<Timestamp>,
    /// When the log last reported a successful deactivation or deletion.
    pub left_at: Option<Timestamp>,
    /// When the log last reported a successful activation.
    pub returned_at: Option<Timestamp>,
    /// Every address ever read for them.
    pub addresses: Vec<Address>,
    /// Those of them that were theirs when Okta last showed the user.
    pub present_addresses: Vec<Address>,
    /// Accounts that carry, or carried, a mark for them.
    pub accounts: Vec<MarkedAccount>,
    /// Open events, and those of the latest few that were recorded within the last hour; oldest `published` first.
    pub events: Vec<EventSeen>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_round_trips() {
        for status in Status::KNOWN {
            assert_eq!(Status::parse(status.as_str()), status);
        }
        assert_eq!(Status::parse("HIBERNATING"), Status::Unknown("HIBERNATING".to_owned()));
    }

    #[test]
    fn ids_reject_paths_and_headers() {
        assert!(OktaUserId::parse("00ud384zryL1GFAg30h7").is_some());
        for no in ["", "../me", "00u 1", "00u\r\nX: y", "a/b", "ä"] {
            assert_eq!(OktaUserId::parse(no), None, "{no}");
        }
    }

    #[test]
    fn login_counts_only_if_it_is_an_address() {
        let mut user = OktaUser {
            id: OktaUserId::parse("00u1").unwrap(),
            login: "ann".to_owned(),
            email: Address::parse("Ann@example.com"),
            status: Status::Active,
            transitional: false,
        };
        assert_eq!(user.addresses().len(), 1);
        user.login = "ANN@EXAMPLE.COM".to_owned();
        assert_eq!(user.addresses().len(), 1, "the same address in another case is one address");
        user.login = "ann@corp.example".to_owned();
        assert_eq!(user.addresses().len(), 2);
        assert!(user.holds(&Address::parse("ANN@CORP.example").unwrap()));
        assert!(user.holds(&Address::parse("ann@example.com").unwrap()));
        assert!(!user.holds(&Address::parse("bob@corp.example").unwrap()));
    }
}
