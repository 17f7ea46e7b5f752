//! The store's side of a look: the due queue, the state before a look, and its result.

mod begin;
mod due;
mod finish;
mod guard;

use std::time::Duration;

use sqlx::FromRow;

use super::Alarm;
use super::types::OptionalTime;
use crate::domain::DenialsMax;
use crate::domain::decide::Conclusion;
use crate::domain::{
    AccountId, Address, Cause, Change, DecisionOutcome, EventSeen, Held, KnownUser, Lane, MarkedAccount, OktaUserId,
    Outcome, OutcomeKind, Status, Timestamp, UserRead, Verdict,
};

pub use due::DueUser;
pub(super) use due::Selection;

/// Everything the state knows about a user when a look begins.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct LookStart {
    /// Okta's id.
    pub id: OktaUserId,
    /// The id of the org that the state belongs to, once it is known.
    pub okta_org: Option<String>,
    /// The Action that reads the configured metadata key is in force.
    pub may_move_marks: bool,
    /// The look settles reasons up to this one.
    pub claimed_seq: i64,
    /// The priority.
    pub lane: Lane,
    /// What made the user due last.
    pub cause: Cause,
    /// Failed attempts so far.
    pub attempts: u32,
    /// What an operator approved: this reason for holding the user, and no other.
    pub approved: Option<Held>,
    /// The index of this re-check.
    pub recheck_step: u32,
    /// The previous outcome.
    pub outcome: Option<OutcomeKind>,
    /// The last login read.
    pub login: Option<String>,
    /// The last email read.
    pub email: Option<String>,
    /// The last status read.
    pub status: Option<Status>,
    /// When the status was read.
    #[sqlx(try_from = "OptionalTime")]
    pub status_at: Option<Timestamp>,
    /// When the log last reported a successful deactivation or deletion.
    #[sqlx(try_from = "OptionalTime")]
    pub left_at: Option<Timestamp>,
    /// When the log last reported a successful activation.
    #[sqlx(try_from = "OptionalTime")]
    pub returned_at: Option<Timestamp>,
    /// When the first page was recorded. Lag is measured only for events published after it.
    #[sqlx(try_from = "OptionalTime")]
    pub first_poll_at: Option<Timestamp>,
    /// Every address ever read for the user.
    #[sqlx(skip)]
    pub addresses: Vec<Address>,
    /// Those of them that Okta has not replaced.
    #[sqlx(skip)]
    pub present_addresses: Vec<Address>,
    /// Accounts that have or had a mark for the user.
    #[sqlx(skip)]
    pub accounts: Vec<MarkedAccount>,
    /// Open events, and recent events recorded within the last hour; oldest published first.
    #[sqlx(skip)]
    pub events: Vec<EventSeen>,
    /// Accounts that Auth0's events named as a reason for this look, the newest first.
    #[sqlx(skip)]
    pub named: Vec<NamedAccount>,
}

/// An account that an event of Auth0 named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedAccount {
    /// Auth0's id.
    pub id: AccountId,
    /// What happened to it.
    pub change: Change,
    /// When.
    pub occurred_at: Timestamp,
}

impl LookStart {
    /// The part that a decision depends on.
    pub fn known_user(&self) -> KnownUser {
        KnownUser {
            id: self.id.clone(),
            okta_org: self.okta_org.clone(),
            may_move_marks: self.may_move_marks,
            cause: self.cause,
            approved: self.approved.clone(),
            recheck_step: self.recheck_step,
            status: self.status.clone(),
            status_at: self.status_at,
            left_at: self.left_at,
            returned_at: self.returned_at,
            addresses: self.addresses.clone(),
            present_addresses: self.present_addresses.clone(),
            accounts: self.accounts.clone(),
            events: self.events.clone(),
        }
    }
}

/// The guard's answer to a first denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The denial may be written.
    Admitted,
    /// The window is full; the number of denials admitted in it.
    Refused(u64),
}

/// The guard's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardWindow {
    /// First denials admitted per window.
    pub denials_max: DenialsMax,
    /// Length of the window.
    pub span: Duration,
}

/// A denial that is about to be written.
#[derive(Clone, Copy, Debug)]
pub struct Denial<'a> {
    /// The user.
    pub user: &'a OktaUserId,
    /// What Okta returned for the user.
    pub read: &'a UserRead,
    /// Caused by a reconcile, not by an event.
    pub reconcile: bool,
    /// An operator approved what the guard held.
    pub approved: bool,
    /// The mark to write if the guard admits the denial; `None` if nothing is to be written.
    pub intent: Option<Intent<'a>>,
}

/// A mark that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Intent<'a> {
    /// The account.
    pub account: &'a AccountId,
    /// Its address.
    pub email: Option<&'a Address>,
    /// The mark comes with `blocked`.
    pub with_block: bool,
    /// The account's sessions must be ended afterwards.
    pub owe_sessions: bool,
}

/// A row of the decision log: what was found, decided and written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The user.
    pub okta_user_id: Option<String>,
    /// The user's email.
    pub email: Option<String>,
    /// The account, if found.
    pub auth0_user_id: Option<String>,
    /// [`Cause::as_str`].
    pub cause: String,
    /// The event that caused it.
    pub event_id: Option<String>,
    /// The actor in Okta, or `command`.
    pub actor: Option<String>,
    /// The status in Okta.
    pub status: Option<String>,
    /// The verdict.
    pub verdict: Option<Verdict>,
    /// The account before.
    pub before: Option<String>,
    /// The account after.
    pub after: Option<String>,
    /// The outcome.
    pub outcome: DecisionOutcome,
    /// The reason for the outcome.
    pub why: Option<String>,
    /// The remote's id of the write request.
    pub request_id: Option<String>,
    /// From `published` to the mark, for a first denial caused by an event after the first poll.
    pub lag_ms: Option<i64>,
}

/// The new state of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountChange {
    /// Auth0's id.
    pub id: AccountId,
    /// Its address.
    pub email: Option<Address>,
    /// The connection of its primary identity.
    pub connection: Option<String>,
    /// It carries our mark for this user.
    pub denied: bool,
    /// We blocked it.
    pub blocked: bool,
    /// When it was denied, for a new denial.
    pub denied_at: Option<Timestamp>,
    /// The event that caused a new denial.
    pub event_id: Option<String>,
    /// When the event was published.
    pub published: Option<Timestamp>,
    /// From `published` to the mark.
    pub lag_ms: Option<i64>,
    /// Its sessions must still be ended.
    pub sessions_owed: bool,
    /// The former metadata key that holds the mark, alone or beside the configured one.
    pub former_key: Option<String>,
}

/// The result of a look.
#[derive(Clone, Debug)]
pub struct LookFinish<'a> {
    /// The user.
    pub user: &'a OktaUserId,
    /// [`LookStart::claimed_seq`].
    pub claimed_seq: i64,
    /// What Okta returned, unless it is already stored or there was no answer.
    pub read: Option<&'a UserRead>,
    /// The outcome.
    pub outcome: &'a Outcome,
    /// The other user because of which this one is skipped or held.
    pub depends_on: Option<&'a OktaUserId>,
    /// What follows from the look. Without a next look in it, the time of a retry or snooze comes from the outcome;
    /// [`Outcome::Failed`] requires a next look.
    pub conclusion: Conclusion,
    /// The decisions, one per account.
    pub decisions: &'a [Decision],
    /// The changed accounts.
    pub accounts: &'a [AccountChange],
    /// An event that an earlier look settled as `unchanged` and that takes effect now.
    pub belated_event: Option<&'a str>,
    /// The alarms to raise.
    pub alarms: &'a [Alarm],
    /// [`crate::domain::Policy::fingerprint`].
    pub policy: &'a str,
}

/// What [`Store::finish_look`](crate::store::Store::finish_look) did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// A reason arrived during the look.
    pub due_again: bool,
    /// The number of other users made due.
    pub woken: u64,
    /// The newly raised alarms.
    pub raised: Vec<crate::store::AlarmKind>,
}
