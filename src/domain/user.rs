//! A person in Okta.

use std::fmt;

use super::{Address, Cause, EventSeen, MarkedAccount};

/// Okta's id of a user, `00u…`: the only name of a person that never changes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OktaUserId(String);

impl OktaUserId {
    /// Takes `text` if it could be an id: 1 to 100 ASCII letters, digits, `-` or `_`.
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

/// What Okta says of a user now. `transitioningToStatus` counts as the status.
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
    /// Gone from the directory: our word, never Okta's.
    Deleted,
    /// A status that this version does not know.
    Unknown(String),
}

impl Status {
    /// Every status with a name of its own.
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

    /// Reads Okta's spelling; what is not known is kept as it is.
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

    /// Has a user with this status left the org, whatever the configured policy says?
    pub const fn has_left(&self) -> bool {
        matches!(self, Self::Deprovisioned | Self::Deleted)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A user as one answer of Okta described them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OktaUser {
    /// Okta's id.
    pub id: OktaUserId,
    /// `profile.login`: need not be an address.
    pub login: String,
    /// `profile.email`, if it is address-shaped.
    pub email: Option<Address>,
    /// The status, or what the user is on the way to.
    pub status: Status,
    /// Is `status` where the user is going rather than where they are?
    pub transitional: bool,
}

impl OktaUser {
    /// The addresses this answer holds: the e-mail, and the login if it is address-shaped and another one.
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

    /// Is `address` (in any case) the user's e-mail or login now?
    pub fn holds(&self, address: &Address) -> bool {
        self.addresses().iter().any(|held| held.same(address.as_str()))
    }
}

/// What a look learned of a user from Okta: what the store keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRead {
    /// The login; unknown for a deleted user.
    pub login: Option<String>,
    /// The e-mail; unknown for a deleted user.
    pub email: Option<Address>,
    /// The status.
    pub status: Status,
    /// All addresses that count for this user.
    pub addresses: Vec<Address>,
}

/// What the store knows of a user, as far as a decision depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownUser {
    /// Okta's id.
    pub id: OktaUserId,
    /// What made the user due last.
    pub cause: Cause,
    /// An operator approved the denial.
    pub approved: bool,
    /// Which recheck this look is.
    pub recheck_step: u32,
    /// The status when last read.
    pub status: Option<Status>,
    /// Did the log or Okta ever say that this user was deactivated?
    pub left_seen: bool,
    /// Every address ever read for them.
    pub addresses: Vec<Address>,
    /// Accounts that carry, or carried, a mark for them.
    pub accounts: Vec<MarkedAccount>,
    /// Open events, and of the last few those that were recorded within the last hour; oldest published first.
    pub events: Vec<EventSeen>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_read_back_as_it_was_written() {
        for status in Status::KNOWN {
            assert_eq!(Status::parse(status.as_str()), status);
        }
        assert_eq!(Status::parse("HIBERNATING"), Status::Unknown("HIBERNATING".to_owned()));
    }

    #[test]
    fn ids_cannot_carry_a_path_or_a_header() {
        assert!(OktaUserId::parse("00ud384zryL1GFAg30h7").is_some());
        for no in ["", "../me", "00u 1", "00u\r\nX: y", "a/b", "ä"] {
            assert_eq!(OktaUserId::parse(no), None, "{no}");
        }
    }

    #[test]
    fn a_login_counts_as_an_address_only_when_it_is_one() {
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
