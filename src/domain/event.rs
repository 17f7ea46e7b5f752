//! Lifecycle events of the System Log.
//!
//! An event is a ping, not a command: it says that a user changed, never what to do. Its [`Signal`] only decides how
//! urgent the look is, and whether Okta's current response seems older than the log.

use serde_json::Value;

use super::{Address, Lane, OktaUserId, Status, Timestamp};

/// A parsed event of the System Log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Okta's `uuid`: unique, the idempotency key.
    pub id: String,
    /// `eventType`, e.g. `user.lifecycle.deactivate`.
    pub event_type: String,
    /// When the event happened. The log is ordered by the time of persistence instead.
    pub published: Timestamp,
    /// The actor: `alternateId`, or the id.
    pub actor: Option<String>,
    /// All targets of type `User`, usually one.
    pub users: Vec<EventUser>,
    /// `outcome.result` is `SUCCESS`: what the event reports took place.
    pub succeeded: bool,
}

impl Event {
    /// What it says about its users.
    pub fn signal(&self) -> Signal {
        Signal::of(&self.event_type).if_succeeded(self.succeeded)
    }
}

/// The most users taken from one unreadable event.
const NAMED_MAX: usize = 100;

/// The users that the text of an unreadable event names: the id of every object of type `User`, but for the actor. Empty if it is
/// not even JSON.
pub fn users_named_in(raw: &str) -> Vec<OktaUserId> {
    let mut users = Vec::new();
    let mut open: Vec<Value> = serde_json::from_str(raw).into_iter().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Array(values) => open.extend(values),
            Value::Object(fields) => {
                let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
                if let ("User", Some(id)) = (text("type"), OktaUserId::parse(text("id")))
                    && !users.contains(&id)
                    && users.len() < NAMED_MAX
                {
                    users.push(id);
                }
                open.extend(fields.into_iter().filter(|(name, _)| name != "actor").map(|(_, value)| value));
            }
            _ => {}
        }
    }
    users
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

/// A stored event of a user that is not settled yet or was received within the last hour.
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
    /// Whether it is not settled yet.
    pub open: bool,
    /// What it reports took place.
    pub succeeded: bool,
}

impl EventSeen {
    /// What it says about its user.
    pub fn signal(&self) -> Signal {
        Signal::of(&self.event_type).if_succeeded(self.succeeded)
    }
}

/// What an event's type says about its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Deactivated or deleted.
    Left,
    /// Suspended: counts as left only if the policy says so.
    Suspended,
    /// Activated, reactivated or unsuspended.
    Returned,
    /// An event of another type that can change the status: worth a look.
    Changed,
    /// A profile changed, perhaps an address in it.
    Updated,
    /// Irrelevant for accounts: recorded, but no reason for a look.
    Irrelevant,
}

/// The type of the event that reports a new user.
pub const CREATED: &str = "user.lifecycle.create";
/// The type of the event that reports a changed profile: a new login or e-mail address.
pub const PROFILE_UPDATED: &str = "user.account.update_profile";

/// The event types that report that a user enters or leaves this status, in addition to `user.lifecycle.` and as prefixes.
/// `None`: no event reports it, so a daemon that follows the log cannot act on it.
///
/// The types are those of Okta's event-type catalog. The prefix `user.account.lock` includes `lock.limit`,
/// `user.account.unlock` all ways to unlock.
pub fn transitions_of(status: &Status) -> Option<&'static [&'static str]> {
    match status {
        Status::Deprovisioned | Status::Deleted | Status::Suspended | Status::Staged => Some(&[]),
        Status::LockedOut => Some(&[
            "user.account.lock",
            "user.account.unlock",
            "user.account.reset_password",
            "user.account.update_password",
        ]),
        Status::PasswordExpired => {
            Some(&["user.account.expire_password", "user.account.reset_password", "user.account.update_password"])
        }
        Status::Recovery => Some(&["user.account.reset_password", "user.account.update_password"]),
        Status::Provisioned | Status::Activating | Status::Active | Status::Unknown(_) => None,
    }
}

impl Signal {
    /// The signal of an event type.
    ///
    /// The types are from Okta's event-type catalog (2026.08). After a deactivation, an administrator's activation is
    /// `activate`, that of an import is `reactivate`.
    pub fn of(event_type: &str) -> Self {
        match event_type {
            "user.lifecycle.deactivate" | "user.lifecycle.delete.initiated" | "user.lifecycle.delete.completed" => {
                Self::Left
            }
            "user.lifecycle.suspend" => Self::Suspended,
            "user.lifecycle.activate" | "user.lifecycle.reactivate" | "user.lifecycle.unsuspend" => Self::Returned,
            // A new user has never been denied, and the activation is a separate event.
            CREATED => Self::Irrelevant,
            other if other.starts_with("user.lifecycle.password_mass_expiry") => Self::Irrelevant,
            PROFILE_UPDATED => Self::Updated,
            _ => Self::Changed,
        }
    }

    /// The signal of an event that succeeded, or did not. An attempt to deactivate or activate a user proves nothing, and is
    /// worth a look.
    const fn if_succeeded(self, succeeded: bool) -> Self {
        match self {
            Self::Left | Self::Suspended | Self::Returned if !succeeded => Self::Changed,
            other => other,
        }
    }

    /// The lane of a look for an event with this signal.
    pub const fn lane(self) -> Lane {
        match self {
            Self::Left | Self::Suspended | Self::Changed => Lane::Deactivation,
            Self::Returned | Self::Irrelevant => Lane::Reactivation,
            // An import can change every profile of the org at once, and no account is opened or denied by that alone.
            Self::Updated => Lane::Reconcile,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_match_the_catalog() {
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
            ("user.account.lock", Signal::Changed),
            ("user.account.update_profile", Signal::Updated),
        ] {
            assert_eq!(Signal::of(event_type), signal, "{event_type}");
        }
    }

    #[test]
    fn failed_events_prove_nothing() {
        for signal in [Signal::Left, Signal::Suspended, Signal::Returned] {
            assert_eq!(signal.if_succeeded(true), signal);
            assert_eq!(signal.if_succeeded(false), Signal::Changed);
        }
        assert_eq!(Signal::Irrelevant.if_succeeded(false), Signal::Irrelevant);
    }
}
