//! Working off: which users are due, what is known of one before a look, and what a look leaves behind.

mod begin;
mod due;
mod finish;
mod guard;

use std::time::Duration;

use sqlx::FromRow;

use super::Alarm;
use super::types::OptionalTime;
use crate::domain::{
    AccountId, Address, Cause, DecisionOutcome, EventSeen, KnownUser, Lane, MarkedAccount, OktaUserId, Outcome,
    OutcomeKind, Status, Timestamp, UserRead, Verdict, Wake,
};

pub use due::DueUser;
pub(super) use due::Selection;

/// All that the store knows of a user when a look begins.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct LookStart {
    /// Who.
    pub id: OktaUserId,
    /// The look settles reasons up to this one.
    pub claimed_seq: i64,
    /// How urgent it was.
    pub lane: Lane,
    /// What made the user due last.
    pub cause: Cause,
    /// Failed attempts so far.
    pub attempts: u32,
    /// A person let this user through.
    pub approved: bool,
    /// Which later look this is.
    pub recheck_step: u32,
    /// The outcome before.
    pub outcome: Option<OutcomeKind>,
    /// The login when last read.
    pub login: Option<String>,
    /// The e-mail when last read.
    pub email: Option<String>,
    /// The status when last read.
    pub status: Option<Status>,
    /// Did the log or Okta ever say that this user was deactivated?
    pub left_seen: bool,
    /// When the first good page was recorded: lag is told for events published after it.
    #[sqlx(try_from = "OptionalTime")]
    pub first_poll_at: Option<Timestamp>,
    /// Every address ever read for them.
    #[sqlx(skip)]
    pub addresses: Vec<Address>,
    /// Accounts that carry, or carried, a mark for them.
    #[sqlx(skip)]
    pub accounts: Vec<MarkedAccount>,
    /// Open events, and of the last few those that were recorded within the last hour; oldest published first.
    #[sqlx(skip)]
    pub events: Vec<EventSeen>,
}

impl LookStart {
    /// What a decision depends on.
    pub fn known_user(&self) -> KnownUser {
        KnownUser {
            id: self.id.clone(),
            cause: self.cause,
            approved: self.approved,
            recheck_step: self.recheck_step,
            status: self.status.clone(),
            left_seen: self.left_seen,
            addresses: self.addresses.clone(),
            accounts: self.accounts.clone(),
            events: self.events.clone(),
        }
    }
}

/// What the guard says to a first denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Admitted,
    /// The window is full: this many were let through in it.
    Refused(u64),
}

/// The guard's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardWindow {
    /// First denials let through in a window.
    pub denials_max: u64,
    /// How long the window is.
    pub span: Duration,
}

/// A denial that is about to be written.
#[derive(Clone, Copy, Debug)]
pub struct Denial<'a> {
    /// For whom.
    pub user: &'a OktaUserId,
    /// What Okta said of them.
    pub read: &'a UserRead,
    /// By a comparison, not by an event.
    pub reconcile: bool,
    /// A person let this user through.
    pub approved: bool,
    /// The mark that follows if the guard admits it; `None`: nothing is written.
    pub intent: Option<Intent<'a>>,
}

/// A mark that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Intent<'a> {
    /// To which account.
    pub account: &'a AccountId,
    /// Its address.
    pub email: Option<&'a Address>,
    /// With a block of ours?
    pub with_block: bool,
    /// Are its sessions to be ended after it?
    pub owe_sessions: bool,
}

/// One decision: what was found, what was decided, what was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The user it is about.
    pub okta_user_id: Option<String>,
    /// Their e-mail.
    pub email: Option<String>,
    /// The account, if one was found.
    pub auth0_user_id: Option<String>,
    /// [`Cause::as_str`].
    pub cause: String,
    /// The event that was the reason.
    pub event_id: Option<String>,
    /// Who did it in Okta, or `command`.
    pub actor: Option<String>,
    /// What Okta said.
    pub status: Option<String>,
    /// The verdict on it.
    pub verdict: Option<Verdict>,
    /// The account before.
    pub before: Option<String>,
    /// The account after.
    pub after: Option<String>,
    /// How it ended.
    pub outcome: DecisionOutcome,
    /// Why, where there is a why.
    pub why: Option<String>,
    /// The remote's id of the request that wrote.
    pub request_id: Option<String>,
    /// From `published` to marked, for a first denial caused by an event after the first poll.
    pub lag_ms: Option<i64>,
}

/// What became of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountChange {
    /// Auth0's id.
    pub id: AccountId,
    /// Its address.
    pub email: Option<Address>,
    /// The connection of its primary identity.
    pub connection: Option<String>,
    /// Does it carry our mark for this user now?
    pub denied: bool,
    /// Is it blocked by us?
    pub blocked: bool,
    /// When it was denied, if that is new.
    pub denied_at: Option<Timestamp>,
    /// The event that was the reason, if the denial is new.
    pub event_id: Option<String>,
    /// When that was published.
    pub published: Option<Timestamp>,
    /// From then to the mark.
    pub lag_ms: Option<i64>,
    /// Are its sessions still to be ended?
    pub sessions_owed: bool,
}

/// What a look leaves behind.
#[derive(Clone, Debug)]
pub struct LookFinish<'a> {
    /// Who was looked at.
    pub user: &'a OktaUserId,
    /// [`LookStart::claimed_seq`].
    pub claimed_seq: i64,
    /// What Okta said, if it was asked and answered, and that is not kept yet.
    pub read: Option<&'a UserRead>,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// Because of whom, for skipped and held.
    pub depends_on: Option<&'a OktaUserId>,
    /// The next look, if one is to come without a new reason. A retry or a snooze says it itself if this is `None`; for
    /// [`Outcome::Failed`] there must be one.
    pub next_look: Option<Timestamp>,
    /// Which later look the next one is.
    pub recheck_step: u32,
    /// What was decided, account by account.
    pub decisions: &'a [Decision],
    /// What became of accounts.
    pub accounts: &'a [AccountChange],
    /// An event that was settled as `unchanged` and has its effect only now.
    pub belated_event: Option<&'a str>,
    /// Which other users become due.
    pub wake: Wake,
    /// The user is allowed: the guard forgets them.
    pub forget_guard: bool,
    /// What a person should know.
    pub alarms: &'a [Alarm],
    /// [`crate::domain::Policy::fingerprint`].
    pub policy: &'a str,
}

/// What is left after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// A reason arrived while the look was under way.
    pub due_again: bool,
    /// Others were made due.
    pub woken: u64,
    /// The alarms of the look that were not open before.
    pub raised: Vec<crate::store::AlarmKind>,
}
