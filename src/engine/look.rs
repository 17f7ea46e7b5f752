//! A look: one user, from what Okta says now to accounts in Auth0 that agree with it.
//!
//! *Read* the user in Okta, *decide* ([`crate::domain::Policy::verdict`]), *find* their accounts ([`super::find`]), *compare*
//! ([`crate::domain::mark`]), *write* where there is a difference ([`super::write`]), *settle* in one transaction. Whatever
//! stops it on the way leaves the user due: the next look begins at the beginning, and finds done what was done.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::claims::Claim;
use super::error::CallError;
use super::{Engine, Note, notifier};
use crate::domain::backoff::LOOKS;
use crate::domain::clock::{self, timestamp_text};
use crate::domain::mark::Reason;
use crate::domain::{
    Address, Cause, DecisionOutcome, EventSeen, Held, Lane, OktaUserId, Outcome, Signal, Skipped, Status, Timestamp,
    UserRead, Verdict, Wake,
};
use crate::http::pacing::Priority;
use crate::okta;
use crate::store::{AccountChange, Alarm, AlarmKind, Decision, LookFinish, LookStart, StoreError};

/// When the log and Okta's answer disagree, Okta's answer may be old: it is asked again after these.
const RECHECKS: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(1800)];
/// How far `published` of events that belong together can be out of order (3.7 s were seen in recordings).
const DISORDER: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);
/// Who is skipped because of somebody else is looked at once more after this.
const SHARED_AGAIN: Duration = Duration::from_secs(60);
/// Failed users are still tried.
const FAILED_AGAIN: Duration = Duration::from_secs(86_400);

/// How a look went, for whoever shows it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Who.
    pub user: OktaUserId,
    /// Their e-mail.
    pub email: Option<String>,
    /// What Okta said.
    pub status: Option<Status>,
    /// The verdict on it.
    pub verdict: Option<Verdict>,
    /// How it ended.
    pub outcome: Outcome,
    /// Account by account: what was, what is (or, without enforcement, would be).
    pub changes: Vec<Change>,
    /// Accounts written.
    pub writes: u64,
}

/// An account in a [`Report`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Auth0's id.
    pub account: String,
    /// Before.
    pub before: String,
    /// After.
    pub after: String,
    /// How the decision about it ended.
    pub outcome: DecisionOutcome,
}

/// What keeps a look from coming to a decision.
#[derive(Debug)]
pub(super) enum Interrupted {
    /// A remote, for now.
    Remote(CallError),
    /// Another look has an address that this one just learned of.
    Busy,
    /// The state cannot be written: nothing may be decided.
    Store(StoreError),
    /// What was found did not stay as it was found.
    Moved(String),
}

impl From<CallError> for Interrupted {
    fn from(stopped: CallError) -> Self {
        Self::Remote(stopped)
    }
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A look under way: what is known, and what it has come to so far.
pub(super) struct Looking<'a> {
    pub(super) engine: &'a Engine,
    pub(super) start: &'a LookStart,
    pub(super) claim: Claim,
    pub(super) priority: Priority,
    pub(super) read: Option<UserRead>,
    pub(super) verdict: Option<Verdict>,
    /// The event that is the reason, if one is.
    pub(super) event: Option<&'a EventSeen>,
    pub(super) decisions: Vec<Decision>,
    pub(super) accounts: Vec<AccountChange>,
    pub(super) changes: Vec<Change>,
    pub(super) alarms: Vec<Alarm>,
    pub(super) depends_on: Option<OktaUserId>,
    pub(super) writes: u64,
    /// Has the guard let this denial through?
    pub(super) admitted: bool,
    /// Was what Okta said kept already?
    pub(super) read_kept: bool,
    /// Okta says where the user is going, not where they are.
    transitional: bool,
    /// A mark was lifted: who shares the account's address has to be compared.
    pub(super) lifted: bool,
    /// The weightiest outcome so far.
    outcome: Option<Outcome>,
}

impl Engine {
    /// Looks at a user, and settles what came of it.
    ///
    /// # Errors
    /// When the state cannot be written: the user stays due, and whatever was written to Auth0 is found by the next look.
    pub(super) async fn look(&self, start: &LookStart, claim: Claim) -> Result<Report, StoreError> {
        let mut looking = Looking {
            engine: self,
            start,
            claim,
            priority: if start.lane == Lane::Reconcile { Priority::Sweep } else { Priority::Live },
            read: None,
            verdict: None,
            event: None,
            decisions: Vec::new(),
            accounts: Vec::new(),
            changes: Vec::new(),
            alarms: Vec::new(),
            depends_on: None,
            writes: 0,
            admitted: false,
            read_kept: false,
            transitional: false,
            lifted: false,
            outcome: None,
        };
        match looking.run().await {
            Ok(()) => {}
            Err(Interrupted::Store(error)) => return Err(error),
            Err(interrupted) => {
                let outcome = looking.interrupted(interrupted);
                looking.weigh(outcome);
            }
        }
        looking.finish().await
    }
}

impl<'a> Looking<'a> {
    async fn run(&mut self) -> Result<(), Interrupted> {
        let id = &self.start.id;
        let answer = self
            .engine
            .okta_breaker
            .call(okta::endpoints::USER, self.priority, id.as_str(), || self.engine.okta.user(id))
            .await?;
        let mut addresses = self.start.addresses.clone();
        let (login, email, status, transitional) = match answer {
            Some(user) => {
                for address in user.addresses() {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
                (Some(user.login), user.email, user.status, user.transitional)
            }
            None if self.is_known_to_have_left() => (None, None, Status::Deleted, false),
            None => {
                self.held(&Held::Vanished);
                return Ok(());
            }
        };
        let verdict = self.engine.options.rules.policy.verdict(&status);
        if let Status::Unknown(text) = &status {
            self.alarms.push(Alarm::unknown_status(id, text));
        }
        self.event = self.event_behind(verdict);
        self.verdict = Some(verdict);
        self.transitional = transitional;
        self.read = Some(UserRead { login, email, status, addresses: addresses.clone() });
        if !self.claim.extend(&addresses) {
            return Err(Interrupted::Busy);
        }
        match verdict {
            Verdict::Deny => self.deny(&addresses).await?,
            Verdict::Allow => self.allow().await?,
            Verdict::Leave => self.weigh(Outcome::Unchanged),
        }
        Ok(())
    }

    /// A 404 is a deletion only for somebody of whom the log or Okta has said that they left, or whom a person declared
    /// gone: a narrowed admin role answers the same.
    fn is_known_to_have_left(&self) -> bool {
        self.start.left_seen
            || self.start.status.as_ref().is_some_and(Status::has_left)
            || self.start.approved
            || self.log_says_left()
    }

    /// Does the log of the last hour end with the user leaving? Okta may have shown them as active since: its answers can
    /// be older than the log.
    fn log_says_left(&self) -> bool {
        let last = |wanted: Signal| {
            let of = self.start.events.iter().filter(|event| Signal::of(&event.event_type) == wanted);
            of.map(|event| event.published).max()
        };
        match (last(Signal::Left), last(Signal::Returned)) {
            (Some(left), Some(returned)) => returned.duration_since(left) <= DISORDER,
            (left, _) => left.is_some(),
        }
    }

    async fn deny(&mut self, addresses: &[Address]) -> Result<(), Interrupted> {
        let policy = &self.engine.options.rules.policy;
        if policy.is_exempt(&self.start.id, addresses) {
            let alarm = Alarm::exempt_left(&self.start.id, &self.status_text());
            self.alarms.push(alarm);
            // Exempted after they were denied: that is undone, as for somebody who came back.
            self.allow().await?;
            self.skipped(Skipped::Exempt);
            return Ok(());
        }
        let in_scope: Vec<Address> = policy.in_scope(addresses).into_iter().cloned().collect();
        if in_scope.is_empty() && !self.start.accounts.iter().any(|account| account.denied) {
            self.skipped(if addresses.is_empty() { Skipped::NoAddress } else { Skipped::OutOfScope });
            return Ok(());
        }
        self.deny_accounts(&in_scope).await
    }

    /// What the mark says of its reason.
    pub(super) fn reason(&self) -> Reason {
        Reason {
            okta_user_id: self.start.id.clone(),
            status: self.status_text(),
            at: timestamp_text(self.engine.now()),
            event_id: self.event.map(|event| event.id.clone()),
        }
    }

    fn status_text(&self) -> String {
        self.read.as_ref().map_or_else(|| "unknown".to_owned(), |read| read.status.to_string())
    }

    /// The event that explains a verdict: the first one still open that says the same, else the last one of this hour.
    fn event_behind(&self, verdict: Verdict) -> Option<&'a EventSeen> {
        if !matches!(self.start.cause, Cause::Event | Cause::Recheck)
            && !self.start.events.iter().any(|event| event.open)
        {
            return None;
        }
        let says_so = |event: &&EventSeen| {
            matches!(
                (verdict, Signal::of(&event.event_type)),
                (Verdict::Deny, Signal::Left | Signal::Suspended)
                    | (Verdict::Allow, Signal::Returned)
                    | (Verdict::Leave, _)
            )
        };
        let events = &self.start.events;
        events.iter().filter(|event| event.open).find(says_so).or_else(|| events.iter().rev().find(says_so))
    }

    /// Does the newest event of the last hour (or one that happened with it) say the opposite of Okta's answer?
    fn is_contradicted(&self, verdict: Verdict) -> bool {
        let Some(newest) = self.start.events.iter().map(|event| event.published).max() else { return false };
        let policy = &self.engine.options.rules.policy;
        let now = self.engine.now();
        self.start.events.iter().any(|event| {
            newest.duration_since(event.published) <= DISORDER
                && clock::since(now, event.received_at) <= Duration::from_secs(3600)
                && policy.contradicts(Signal::of(&event.event_type), verdict)
        })
    }

    pub(super) fn skipped(&mut self, why: Skipped) {
        if let Skipped::SharedAddress(other) = &why {
            self.depends_on = Some(other.clone());
        }
        self.weigh(Outcome::Skipped(why));
    }

    pub(super) fn held(&mut self, why: &Held) {
        if let Held::AddressReused(other) = why {
            self.depends_on = Some(other.clone());
        }
        self.alarms.push(Alarm::held(&self.start.id, why));
        self.weigh(Outcome::Held(why.clone()));
    }

    /// Keeps the weightier of two outcomes: a user is as unfinished as the least finished of their accounts.
    pub(super) fn weigh(&mut self, outcome: Outcome) {
        self.outcome = Some(match self.outcome.take() {
            Some(known) => known.merge(outcome),
            None => outcome,
        });
    }

    /// What an interruption makes of the look: waiting that is nobody's fault, or an attempt of this user's.
    pub(super) fn interrupted(&self, interrupted: Interrupted) -> Outcome {
        let now = self.engine.now();
        let why = match interrupted {
            Interrupted::Remote(CallError::Paused { wait, why }) => {
                return Outcome::Snooze { until: clock::add(now, wait), why };
            }
            Interrupted::Busy => {
                let why = "another user with the same address is being looked at".to_owned();
                return Outcome::Snooze { until: clock::add(now, Duration::from_secs(1)), why };
            }
            Interrupted::Remote(CallError::Failed(failure)) => failure.to_string(),
            Interrupted::Moved(why) => why,
            Interrupted::Store(error) => error.to_string(),
        };
        let attempt = self.start.attempts.saturating_add(1);
        if attempt >= self.engine.options.max_attempts {
            return Outcome::Failed(why);
        }
        Outcome::Retry { after: LOOKS.wait(attempt, fastrand::f64()), why }
    }

    /// When the user is looked at again without a new reason, and which later look that is.
    fn next_look(&self, outcome: &Outcome, now: Timestamp) -> (Option<Timestamp>, u32) {
        // A new reason has set it back to none.
        let step = self.start.recheck_step;
        match outcome {
            Outcome::Retry { after, .. } => (Some(clock::add(now, *after)), step),
            Outcome::Snooze { until, .. } => (Some(*until), step),
            Outcome::Failed(_) => (Some(clock::add(now, FAILED_AGAIN)), step),
            Outcome::Applied | Outcome::Unchanged | Outcome::NoAccount | Outcome::Skipped(_) | Outcome::Held(_) => {
                let index = usize::try_from(step).unwrap_or(usize::MAX);
                let contradicted = self.verdict.is_some_and(|verdict| self.is_contradicted(verdict));
                if self.transitional {
                    let wait = RECHECKS.get(index).or(RECHECKS.last()).copied().unwrap_or(SHARED_AGAIN);
                    return (Some(clock::add(now, wait)), step.saturating_add(1));
                }
                if contradicted && let Some(wait) = RECHECKS.get(index) {
                    return (Some(clock::add(now, *wait)), step + 1);
                }
                if matches!(outcome, Outcome::Skipped(Skipped::SharedAddress(_))) && step == 0 {
                    return (Some(clock::add(now, SHARED_AGAIN)), 1);
                }
                (None, 0)
            }
        }
    }

    async fn finish(self) -> Result<Report, StoreError> {
        let engine = self.engine;
        let now = engine.now();
        let outcome = self.outcome.clone().unwrap_or(Outcome::Unchanged);
        let (next_look, recheck_step) = self.next_look(&outcome, now);
        let mut decisions = self.decisions;
        // A look that could not be tried has decided nothing; every other one leaves a row.
        if decisions.is_empty() && !matches!(outcome, Outcome::Snooze { .. }) {
            decisions.push(Decision { outcome: (&outcome).into(), why: outcome.why(), ..Decision::default() });
        }
        let mut alarms = self.alarms;
        if let Outcome::Failed(why) = &outcome {
            alarms.push(Alarm::failed(&self.start.id, engine.options.max_attempts, why));
        }
        let email = self
            .read
            .as_ref()
            .and_then(|read| read.email.as_ref().map(|email| email.as_str().to_owned()))
            .or_else(|| self.start.email.clone())
            .or_else(|| self.start.addresses.first().map(|address| address.as_str().to_owned()));
        for decision in &mut decisions {
            decision.okta_user_id = Some(self.start.id.to_string());
            decision.email.clone_from(&email);
            self.start.cause.as_str().clone_into(&mut decision.cause);
            decision.event_id = self.event.map(|event| event.id.clone());
            decision.actor = match self.event {
                Some(event) => event.actor.clone(),
                None => Some(self.start.cause.as_str().to_owned()),
            };
            decision.status = self.read.as_ref().map(|read| read.status.to_string());
            decision.verdict = self.verdict;
        }
        let belated = (self.start.cause == Cause::Recheck && outcome == Outcome::Applied)
            .then_some(self.event)
            .flatten()
            .map(|event| event.id.as_str());
        let settled = outcome.settles();
        // What a neighbour's look finds as it was wakes nobody, or two would wake each other for ever. Whether the look
        // came to its end does not matter: what others depend on is what Okta says of this user.
        let changed = outcome == Outcome::Applied
            || self.read.as_ref().is_some_and(|read| Some(&read.status) != self.start.status.as_ref());
        let wakes = self.read.is_some() && (changed || (settled && self.start.cause != Cause::Neighbour));
        // Not only when the status read before was another one: they may have left and come back between two looks, and
        // somebody who shares the address have been looked at, and denied, just then.
        let news = changed || self.start.events.iter().any(|event| event.open);
        // Also of who may not be let in for now: whoever is spared for several people waits for one of them. A look that
        // denies closes what is shared itself.
        let came_or_went = wakes && news && self.verdict != Some(Verdict::Deny);
        let finished = engine
            .store
            .finish_look(
                LookFinish {
                    user: &self.start.id,
                    claimed_seq: self.start.claimed_seq,
                    read: self.read.as_ref().filter(|_| !self.read_kept),
                    outcome: &outcome,
                    depends_on: self.depends_on.as_ref(),
                    next_look,
                    recheck_step,
                    decisions: &decisions,
                    accounts: &self.accounts,
                    belated_event: belated,
                    // Also when somebody new holds the address of a denied account: a person has to decide then.
                    wake: Wake::new(wakes, self.lifted || came_or_went),
                    forget_guard: self.verdict == Some(Verdict::Allow) && settled,
                    alarms: &alarms,
                    policy: &engine.policy_text,
                },
                now,
            )
            .await?;
        let lags = decisions.iter().filter_map(|decision| u64::try_from(decision.lag_ms?).ok());
        engine.metrics.looked(&outcome, self.writes, lags.map(Duration::from_millis));
        if finished.due_again || finished.woken > 0 {
            engine.wakes.apply.notify_one();
        }
        let report = Report {
            user: self.start.id.clone(),
            email,
            status: self.read.map(|read| read.status),
            verdict: self.verdict,
            outcome,
            changes: self.changes,
            writes: self.writes,
        };
        log(&report, self.start);
        for kind in finished.raised {
            // The others have a line of their own, which says more.
            if !matches!(kind, AlarmKind::Held | AlarmKind::Failed | AlarmKind::MirrorRefused) {
                notifier::log_raised(kind, report.user.as_str());
            }
        }
        engine.note(Note::Look(report.clone()));
        Ok(report)
    }
}

/// One line a look, as loud as it is important. No e-mails: those are in the state.
fn log(report: &Report, start: &LookStart) {
    let (user, cause) = (&report.user, start.cause.as_str());
    let status = report.status.as_ref().map_or("", Status::as_str);
    let verdict = report.verdict.map_or("", Verdict::as_str);
    let outcome = report.outcome.as_str();
    let why = report.outcome.why().unwrap_or_default();
    let accounts = report.changes.len();
    match &report.outcome {
        Outcome::Applied => {
            info!(event = "applied", %user, cause, status, verdict, accounts, writes = report.writes, "{user}: {verdict} applied");
        }
        Outcome::Unchanged | Outcome::NoAccount => {
            debug!(event = "settled", %user, cause, status, verdict, outcome, accounts, "{user}: {outcome}");
        }
        Outcome::Snooze { .. } => debug!(event = "snoozed", %user, cause, "{user} waits: {why}"),
        Outcome::Skipped(_) => info!(event = "skipped", %user, cause, status, verdict, "{user} is not denied: {why}"),
        Outcome::Held(_) => warn!(event = "held", %user, cause, status, verdict, "{user} is held: {why}"),
        Outcome::Retry { after, .. } => {
            warn!(event = "retry", %user, cause, attempt = start.attempts + 1, seconds = after.as_secs(), "{user} is tried again: {why}");
        }
        Outcome::Failed(_) => error!(event = "failed", %user, cause, "{user} could not be settled: {why}"),
    }
}

#[cfg(test)]
mod tests;
