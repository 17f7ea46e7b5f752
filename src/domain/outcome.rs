//! Why a user is looked at, and how a look ends.

use std::fmt;
use std::time::Duration;

use super::{OktaUserId, Timestamp};

/// The priority class of a due user. Within a lane, the user that has waited longest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// A user left: before all others.
    Deactivation,
    /// A user returned, or an operator requested a look.
    Reactivation,
    /// Queued by a reconcile.
    Reconcile,
}

impl Lane {
    /// The stored number: lower comes first.
    pub const fn rank(self) -> i64 {
        match self {
            Self::Deactivation => 0,
            Self::Reactivation => 1,
            Self::Reconcile => 2,
        }
    }

    /// Parses the result of [`Lane::rank`].
    pub const fn from_rank(rank: i64) -> Self {
        match rank {
            0 => Self::Deactivation,
            1 => Self::Reactivation,
            _ => Self::Reconcile,
        }
    }
}

/// What made a user due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// An event of the System Log.
    Event,
    /// A later look, because the log and Okta's response disagreed or the user's status was about to change.
    Recheck,
    /// A reconcile.
    Reconcile,
    /// An operator's command.
    Command,
    /// A look at another user with the same address.
    Neighbour,
    /// A change of the configuration.
    Policy,
    /// An event of Auth0 about an account. Not stored with the user, whose cause is `event` then.
    Account,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 7] =
        [Self::Event, Self::Recheck, Self::Reconcile, Self::Command, Self::Neighbour, Self::Policy, Self::Account];

    /// The word in the store and on screens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Recheck => "recheck",
            Self::Reconcile => "sweep",
            Self::Command => "command",
            Self::Neighbour => "neighbour",
            Self::Policy => "policy",
            Self::Account => "account",
        }
    }

    /// Parses the result of [`Cause::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == text)
    }
}

/// Why a user with the verdict `Deny` is legitimately not denied in Auth0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Another user, who is active, holds the address.
    SharedAddress(OktaUserId),
    /// Exempt by configuration.
    Exempt,
    /// None of the addresses is in one of the configured domains.
    OutOfScope,
    /// `enforce = false`: only the write was left out.
    NotEnforced,
    /// No address of the user is known.
    NoAddress,
    /// No account was found, but Okta hides the user's login and e-mail from us.
    AddressHidden,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedAddress(other) => write!(f, "shared_address: {other}"),
            Self::Exempt => f.write_str("exempt"),
            Self::OutOfScope => f.write_str("out_of_scope"),
            Self::NotEnforced => f.write_str("not_enforced"),
            Self::NoAddress => f.write_str("no_address"),
            Self::AddressHidden => f.write_str("address_hidden"),
        }
    }
}

/// Why an operator has to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// More first denials than `[guard]` allows.
    Guard,
    /// Okta no longer shows the user, and there is no evidence of a deactivation.
    Vanished,
    /// Another user holds the address of a marked account: without the mark, the old password would open it.
    AddressReused(OktaUserId),
}

impl Held {
    /// Parses the stored text.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "guard" => Some(Self::Guard),
            "vanished" => Some(Self::Vanished),
            _ => text.strip_prefix("address_reused: ").and_then(OktaUserId::parse).map(Self::AddressReused),
        }
    }

    /// Whether an approval opens an account. Any other approval denies the user.
    pub const fn opens(&self) -> bool {
        matches!(self, Self::AddressReused(_))
    }
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
    /// At least one account was written.
    Applied,
    /// Nothing had to be written.
    Unchanged,
    /// The user has no account in Auth0.
    NoAccount,
    /// Not denied, for a legitimate reason.
    Skipped(Skipped),
    /// Waits for an operator.
    Held(Held),
    /// Failed; counts as an attempt.
    Retry {
        /// The wait before the next attempt.
        after: Duration,
        /// What happened.
        why: String,
    },
    /// Could not be tried; does not count as an attempt.
    Snooze {
        /// The time of the next attempt.
        until: Timestamp,
        /// The obstacle.
        why: String,
    },
    /// The attempts are used up; retried once a day. An operator should investigate.
    Failed(String),
}

impl Outcome {
    /// The outcome without its reason.
    pub const fn kind(&self) -> OutcomeKind {
        match self {
            Self::Applied => OutcomeKind::Applied,
            Self::Unchanged => OutcomeKind::Unchanged,
            Self::NoAccount => OutcomeKind::NoAccount,
            Self::Skipped(_) => OutcomeKind::Skipped,
            Self::Held(_) => OutcomeKind::Held,
            Self::Retry { .. } => OutcomeKind::Retry,
            Self::Snooze { .. } => OutcomeKind::Snooze,
            Self::Failed(_) => OutcomeKind::Failed,
        }
    }

    /// The word in the store and on screens.
    pub const fn as_str(&self) -> &'static str {
        self.kind().as_str()
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

    /// Returns the outcome that takes precedence, the first if they are equal: a user is as unfinished as the least
    /// finished of their accounts.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        if other.weight() > self.weight() { other } else { self }
    }

    const fn weight(&self) -> u8 {
        match self {
            Self::NoAccount => 0,
            Self::Unchanged => 1,
            Self::Applied => 2,
            Self::Skipped(_) => 3,
            Self::Held(_) => 4,
            Self::Failed(_) => 5,
            Self::Retry { .. } => 6,
            Self::Snooze { .. } => 7,
        }
    }

    /// Whether the look settles the reasons that made the user due.
    pub const fn settles(&self) -> bool {
        self.kind().settles()
    }
}

/// How a look ended, without its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutcomeKind {
    /// [`Outcome::Applied`].
    Applied,
    /// [`Outcome::Unchanged`].
    Unchanged,
    /// [`Outcome::NoAccount`].
    NoAccount,
    /// [`Outcome::Skipped`].
    Skipped,
    /// [`Outcome::Held`].
    Held,
    /// [`Outcome::Retry`].
    Retry,
    /// [`Outcome::Snooze`].
    Snooze,
    /// [`Outcome::Failed`].
    Failed,
}

impl OutcomeKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Applied,
        Self::Unchanged,
        Self::NoAccount,
        Self::Skipped,
        Self::Held,
        Self::Retry,
        Self::Snooze,
        Self::Failed,
    ];

    /// The word in the store and on screens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::NoAccount => "no_account",
            Self::Skipped => "skipped",
            Self::Held => "held",
            Self::Retry => "retry",
            Self::Snooze => "snooze",
            Self::Failed => "failed",
        }
    }

    /// Parses the result of [`OutcomeKind::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }

    /// Whether the look settles the reasons that made the user due.
    pub const fn settles(self) -> bool {
        matches!(self, Self::Applied | Self::Unchanged | Self::NoAccount | Self::Skipped)
    }
}

/// Which other users a look makes due when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wake {
    /// None.
    #[default]
    Nobody,
    /// Users who are skipped or held because of this one.
    Dependents,
    /// Users who share an address with this one.
    Sharers,
    /// Both.
    Everyone,
}

impl Wake {
    /// Combines both flags.
    pub const fn new(dependents: bool, sharers: bool) -> Self {
        match (dependents, sharers) {
            (false, false) => Self::Nobody,
            (true, false) => Self::Dependents,
            (false, true) => Self::Sharers,
            (true, true) => Self::Everyone,
        }
    }

    /// Whether users become due who are skipped or held because of this one.
    pub const fn includes_dependents(self) -> bool {
        matches!(self, Self::Dependents | Self::Everyone)
    }

    /// Whether users become due who share an address with this one.
    pub const fn includes_sharers(self) -> bool {
        matches!(self, Self::Sharers | Self::Everyone)
    }
}

/// The `outcome` of a row of `decisions`: how a decision about one account, or about a user without one, ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DecisionOutcome {
    /// The account was written.
    Applied,
    /// Another program removed our mark, and we restored it.
    Restored,
    /// The account carries our mark, and the store did not know it.
    Confirmed,
    /// The account is as it should be.
    #[default]
    Unchanged,
    /// The user has no account.
    NoAccount,
    /// Not denied, for a legitimate reason.
    Skipped,
    /// Waits for an operator.
    Held,
    /// `enforce = false`: the account would have been written.
    NotEnforced,
    /// The attempt failed; another one follows.
    Retry,
    /// Could not be tried.
    Snooze,
    /// The attempts are used up.
    Failed,
    /// An operator approved what held the user.
    Approved,
    /// `purge` removed our mark.
    Purged,
    /// `forget` removed the user.
    Forgotten,
    /// Retention removed the oldest decisions.
    Expired,
}

impl DecisionOutcome {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Applied,
        Self::Restored,
        Self::Confirmed,
        Self::Unchanged,
        Self::NoAccount,
        Self::Skipped,
        Self::Held,
        Self::NotEnforced,
        Self::Retry,
        Self::Snooze,
        Self::Failed,
        Self::Approved,
        Self::Purged,
        Self::Forgotten,
        Self::Expired,
    ];

    /// The word in the store and on screens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Restored => "restored",
            Self::Confirmed => "confirmed",
            Self::Unchanged => "unchanged",
            Self::NoAccount => "no_account",
            Self::Skipped => "skipped",
            Self::Held => "held",
            Self::NotEnforced => "not_enforced",
            Self::Retry => "retry",
            Self::Snooze => "snooze",
            Self::Failed => "failed",
            Self::Approved => "approved",
            Self::Purged => "purged",
            Self::Forgotten => "forgotten",
            Self::Expired => "expired",
        }
    }

    /// Parses the result of [`DecisionOutcome::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

impl From<&Outcome> for DecisionOutcome {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Applied => Self::Applied,
            Outcome::Unchanged => Self::Unchanged,
            Outcome::NoAccount => Self::NoAccount,
            Outcome::Skipped(_) => Self::Skipped,
            Outcome::Held(_) => Self::Held,
            Outcome::Retry { .. } => Self::Retry,
            Outcome::Snooze { .. } => Self::Snooze,
            Outcome::Failed(_) => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes() -> Vec<Outcome> {
        vec![
            Outcome::NoAccount,
            Outcome::Unchanged,
            Outcome::Applied,
            Outcome::Skipped(Skipped::Exempt),
            Outcome::Held(Held::Guard),
            Outcome::Failed("x".to_owned()),
            Outcome::Retry { after: Duration::ZERO, why: "x".to_owned() },
            Outcome::Snooze { until: "2026-11-23T10:00:00Z".parse().unwrap(), why: "x".to_owned() },
        ]
    }

    #[test]
    fn merge_keeps_the_less_finished_outcome() {
        let all = outcomes();
        for (index, light) in all.iter().enumerate() {
            for heavy in &all[index..] {
                assert_eq!(&light.clone().merge(heavy.clone()), heavy);
                assert_eq!(&heavy.clone().merge(light.clone()), heavy);
            }
        }
        let first = Outcome::Skipped(Skipped::Exempt);
        assert_eq!(
            first.clone().merge(Outcome::Skipped(Skipped::NotEnforced)),
            first,
            "the first of two equal outcomes"
        );
    }

    #[test]
    fn held_reasons_round_trip() {
        let other = OktaUserId::parse("00u1").unwrap();
        for held in [Held::Guard, Held::Vanished, Held::AddressReused(other)] {
            assert_eq!(Held::parse(&held.to_string()), Some(held));
        }
        assert_eq!(Held::parse("address_reused"), None);
    }

    #[test]
    fn decision_outcomes_round_trip() {
        for outcome in DecisionOutcome::ALL {
            assert_eq!(DecisionOutcome::parse(outcome.as_str()), Some(outcome));
        }
        for outcome in outcomes() {
            assert_eq!(DecisionOutcome::from(&outcome).as_str(), outcome.as_str());
        }
    }
}
