//! Why a user is looked at, and how a look ends.

use std::fmt;
use std::time::Duration;

use super::{OktaUserId, Timestamp};

/// Which of the due users goes first. Within a lane: the one that has waited longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Somebody left: before everything else.
    Deactivation,
    /// Somebody came back, or was asked for by name.
    Reactivation,
    /// Nobody said anything: a comparison.
    Sweep,
}

impl Lane {
    /// As it is stored: lower goes first.
    pub const fn rank(self) -> i64 {
        match self {
            Self::Deactivation => 0,
            Self::Reactivation => 1,
            Self::Sweep => 2,
        }
    }

    /// Reads what [`Lane::rank`] wrote.
    pub const fn from_rank(rank: i64) -> Self {
        match rank {
            0 => Self::Deactivation,
            1 => Self::Reactivation,
            _ => Self::Sweep,
        }
    }
}

/// What made a user due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// An event of the System Log.
    Event,
    /// The log and Okta's answer disagreed, or the user was in transition: a later look.
    Recheck,
    /// A reconcile.
    Sweep,
    /// A person asked, on the command line.
    Command,
    /// Another user with a common address was looked at.
    Neighbour,
    /// The configuration changed.
    Policy,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 6] = [Self::Event, Self::Recheck, Self::Sweep, Self::Command, Self::Neighbour, Self::Policy];

    /// The word used in the store and on screens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Recheck => "recheck",
            Self::Sweep => "sweep",
            Self::Command => "command",
            Self::Neighbour => "neighbour",
            Self::Policy => "policy",
        }
    }

    /// Reads what [`Cause::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == text)
    }
}

/// Why a person whom Okta denies is not denied in Auth0, rightly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Another, active user holds the address.
    SharedAddress(OktaUserId),
    /// Exempt by configuration.
    Exempt,
    /// None of the addresses is in one of the configured domains.
    OutOfScope,
    /// `enforce = false`: everything was done but the write.
    NotEnforced,
    /// No address of this person is known.
    NoAddress,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedAddress(other) => write!(f, "shared_address: {other}"),
            Self::Exempt => f.write_str("exempt"),
            Self::OutOfScope => f.write_str("out_of_scope"),
            Self::NotEnforced => f.write_str("not_enforced"),
            Self::NoAddress => f.write_str("no_address"),
        }
    }
}

/// Why a person has to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// More first denials than `[guard]` allows.
    Guard,
    /// Okta no longer shows the user, and nothing says that they were deactivated.
    Vanished,
    /// Another person holds the address of a marked account: lifting the mark would open it to the old password.
    AddressReused(OktaUserId),
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guard => f.write_str("guard"),
            Self::Vanished => f.write_str("vanished"),
            Self::AddressReused(other) => write!(f, "address_reused: {other}"),
        }
    }
}

/// How a look ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something was written.
    Applied,
    /// Everything was as it should be.
    Unchanged,
    /// The person has no account in Auth0.
    NoAccount,
    /// Not denied, for a reason that is in order.
    Skipped(Skipped),
    /// Waits for a person.
    Held(Held),
    /// Did not work; counts as an attempt.
    Retry {
        /// How long to wait.
        after: Duration,
        /// What happened.
        why: String,
    },
    /// Could not be tried; does not count.
    Snooze {
        /// When to try again.
        until: Timestamp,
        /// What is in the way.
        why: String,
    },
    /// Given up but for one try a day: a person should look.
    Failed(String),
}

impl Outcome {
    /// The word used in the store and on screens.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::NoAccount => "no_account",
            Self::Skipped(_) => "skipped",
            Self::Held(_) => "held",
            Self::Retry { .. } => "retry",
            Self::Snooze { .. } => "snooze",
            Self::Failed(_) => "failed",
        }
    }

    /// The reason, for the outcomes that have one.
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Applied | Self::Unchanged | Self::NoAccount => None,
            Self::Skipped(why) => Some(why.to_string()),
            Self::Held(why) => Some(why.to_string()),
            Self::Retry { why, .. } | Self::Snooze { why, .. } | Self::Failed(why) => Some(why.clone()),
        }
    }

    /// Is what made the user due dealt with?
    pub const fn settles(&self) -> bool {
        matches!(self, Self::Applied | Self::Unchanged | Self::NoAccount | Self::Skipped(_))
    }
}
