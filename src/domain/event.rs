//! One lifecycle entry of the System Log, as far as it matters here.
//!
//! An event is a ping, not a command: it says that a user changed, never what to do. Its [`Signal`] only decides how
//! urgent the look is, and whether Okta's present answer looks older than the log.

use super::{Address, Lane, OktaUserId, Timestamp};

/// An entry of the log that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Okta's `uuid`: unique, the key of idempotency.
    pub id: String,
    /// `eventType`, e.g. `user.lifecycle.deactivate`.
    pub event_type: String,
    /// When Okta says that it happened. Not in log order: see facts of the System Log, "persistence time".
    pub published: Timestamp,
    /// Who did it: `alternateId` of the actor, or their id.
    pub actor: Option<String>,
    /// The users it is about: every target of type `User`. Usually one.
    pub users: Vec<EventUser>,
}

/// A user that an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventUser {
    /// Okta's id.
    pub id: OktaUserId,
    /// `alternateId`: the login at that time.
    pub login: Option<String>,
}

impl EventUser {
    /// The login, if it is address-shaped.
    pub fn address(&self) -> Option<Address> {
        self.login.as_deref().and_then(Address::parse)
    }
}

/// An event of a user as the store remembers it: not settled yet, or received within the last hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSeen {
    /// Okta's `uuid`.
    pub id: String,
    /// `eventType`.
    pub event_type: String,
    /// When it happened.
    pub published: Timestamp,
    /// When we read it.
    pub received_at: Timestamp,
    /// The actor, as in [`Event::actor`].
    pub actor: Option<String>,
    /// Has no look settled it yet?
    pub open: bool,
}

/// What an event's type lets one expect of the user it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Deactivated or deleted.
    Left,
    /// Suspended: has left only where the policy says so.
    Suspended,
    /// Activated, reactivated or unsuspended.
    Returned,
    /// A lifecycle event of a type that this version does not know: worth a look.
    Changed,
    /// Nothing that could make an account wrong: recorded, and no reason to look.
    Irrelevant,
}

impl Signal {
    /// What the events of `event_type` say.
    ///
    /// The types are those of Okta's event-type catalogue (2026.08). Activation after a deactivation by an administrator
    /// is `activate`, by an import `reactivate`; both have to work.
    pub fn of(event_type: &str) -> Self {
        match event_type {
            "user.lifecycle.deactivate" | "user.lifecycle.delete.initiated" | "user.lifecycle.delete.completed" => {
                Self::Left
            }
            "user.lifecycle.suspend" => Self::Suspended,
            "user.lifecycle.activate" | "user.lifecycle.reactivate" | "user.lifecycle.unsuspend" => Self::Returned,
            // A user that was only created has never been denied, and its activation is an event of its own.
            "user.lifecycle.create" => Self::Irrelevant,
            other if other.starts_with("user.lifecycle.password_mass_expiry") => Self::Irrelevant,
            _ => Self::Changed,
        }
    }

    /// The lane of a look that an event with this signal asks for.
    pub const fn lane(self) -> Lane {
        match self {
            Self::Left | Self::Suspended | Self::Changed => Lane::Deactivation,
            Self::Returned | Self::Irrelevant => Lane::Reactivation,
        }
    }

    /// Is the user, by this event alone, evidently one that Okta has deactivated? Needed to tell a deleted user from one
    /// whom a narrowed admin role no longer shows: both are a 404.
    pub fn is_evidence_of_leaving(self) -> bool {
        self == Self::Left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_of_the_catalogue() {
        for (event_type, signal) in [
            ("user.lifecycle.deactivate", Signal::Left),
            ("user.lifecycle.delete.initiated", Signal::Left),
            ("user.lifecycle.delete.completed", Signal::Left),
            ("user.lifecycle.suspend", Signal::Suspended),
            ("user.lifecycle.activate", Signal::Returned),
            ("user.lifecycle.reactivate", Signal::Returned),
            ("user.lifecycle.unsuspend", Signal::Returned),
            ("user.lifecycle.create", Signal::Irrelevant),
            ("user.lifecycle.password_mass_expiry.initiated", Signal::Irrelevant),
            ("user.lifecycle.jit.error.read_only", Signal::Changed),
            ("user.lifecycle.something_new", Signal::Changed),
        ] {
            assert_eq!(Signal::of(event_type), signal, "{event_type}");
            // Somebody suspended is still there: a 404 of theirs is no deletion.
            assert_eq!(signal.is_evidence_of_leaving(), signal == Signal::Left, "{event_type}");
        }
    }
}
