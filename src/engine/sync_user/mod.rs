//! A look: reads one user in Okta now, and makes their accounts in Auth0 agree.
//!
//! *Gather* evidence from both tenants ([`gather`]), *decide* ([`crate::domain::decide`]), *apply* the plan ([`apply`]),
//! *settle* in one transaction. A look that ends early leaves the user due; the next look starts over and finds the writes
//! of this one.

mod apply;
pub(in crate::engine) mod batch;
pub(in crate::engine) mod gather;
mod reads;
mod write;

use std::time::Duration;

use tracing::{Instrument, debug, error, info, info_span, warn};

use super::claims::Claim;
use super::error::CallError;
use super::smaller::AsksForLess;
use super::{Engine, Note};
use crate::domain::backoff::LOOKS;
use crate::domain::clock;
use crate::domain::decide::{self, Assessment, Concern, Course};
use crate::domain::{DecisionOutcome, Held, KnownUser, Lane, OktaUserId, Outcome, Skipped, Status, Verdict};
use crate::http::pacing::Priority;
use crate::store::{AccountChange, Alarm, AlarmKind, Decision, LookFinish, LookStart, NamedAccount, StoreError};

use gather::Tenants;

/// How a look ended, for screens.
#[derive(Clone, Debug)]
pub struct Report {
    /// The user.
    pub user: OktaUserId,
    /// Their e-mail.
    pub email: Option<String>,
    /// The status in Okta.
    pub status: Option<Status>,
    /// The verdict on the status.
    pub verdict: Option<Verdict>,
    /// How it ended.
    pub outcome: Outcome,
    /// Each account before and after (without enforcement: as it would be).
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

/// Why a look ended without a decision.
#[derive(Debug)]
pub(in crate::engine) enum SyncError {
    /// A call failed, or its circuit is open.
    Call(CallError),
    /// Another look holds an address that this one just read.
    AddressLocked,
    /// The state cannot be read or written.
    Store(StoreError),
    /// The account changed between read and write.
    Conflict(String),
}

impl AsksForLess for SyncError {
    fn asks_for_less(&self) -> bool {
        matches!(self, Self::Call(error) if error.asks_for_less())
    }
}

impl From<CallError> for SyncError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<StoreError> for SyncError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A look in progress.
struct UserSync<'a> {
    engine: &'a Engine,
    start: &'a LookStart,
    known: &'a KnownUser,
    priority: Priority,
    results: Results,
}

/// What a look did so far.
#[derive(Default)]
struct Results {
    decisions: Vec<Decision>,
    accounts: Vec<AccountChange>,
    changes: Vec<Change>,
    alarms: Vec<Alarm>,
    depends_on: Option<OktaUserId>,
    writes: u64,
    /// The guard's answer for this denial, once asked.
    admitted: Option<bool>,
    /// A mark was lifted, so users who share the account's address need a look.
    lifted: bool,
    /// The most severe outcome so far.
    outcome: Option<Outcome>,
}

impl Results {
    fn merge(&mut self, outcome: Outcome) {
        self.outcome = Some(match self.outcome.take() {
            Some(known) => known.merge(outcome),
            None => outcome,
        });
    }
}

/// The outcome of a failed attempt.
pub(super) fn failed_attempt(start: &LookStart, max_attempts: u32, why: String) -> Outcome {
    let attempt = start.attempts.saturating_add(1);
    if attempt >= max_attempts {
        return Outcome::Failed(why);
    }
    Outcome::Retry { after: LOOKS.wait(attempt, fastrand::f64()), why }
}

impl Engine {
    /// Looks at a user and settles the outcome.
    ///
    /// # Errors
    /// When the state cannot be written. The user stays due, and the next look finds the writes to Auth0.
    pub(super) async fn look(&self, start: &LookStart, claim: Claim) -> Result<Report, StoreError> {
        let span = info_span!("look", user = %start.id, cause = start.cause.as_str());
        let (report, raised) = self.look_in_span(start, claim).instrument(span).await?;
        log(&report, start);
        for kind in raised {
            // These kinds have their own log line, with more detail.
            if !matches!(kind, AlarmKind::Held | AlarmKind::Failed | AlarmKind::MirrorRefused) {
                self.log_raised(kind, report.user.as_str());
            }
        }
        self.note(Note::Look(report.clone()));
        Ok(report)
    }

    async fn look_in_span(&self, start: &LookStart, mut claim: Claim) -> Result<(Report, Vec<AlarmKind>), StoreError> {
        let priority = if start.lane == Lane::Reconcile { Priority::Reconcile } else { Priority::Live };
        let known = start.known_user();
        let mut sync = UserSync { engine: self, start, known: &known, priority, results: Results::default() };
        let mut assessment = None;
        match sync.run(&mut claim, &mut assessment).await {
            Ok(()) => {}
            Err(SyncError::Store(error)) => return Err(error),
            Err(failure) => {
                let outcome = sync.failure_outcome(failure);
                sync.results.merge(outcome);
            }
        }
        sync.settle(assessment.as_ref()).await
    }
}

impl<'a> UserSync<'a> {
    fn subject(&self) -> &str {
        self.known.id.as_str()
    }

    /// Gathers, decides and applies. It fills `assessed` before any step that can fail after the user was read.
    async fn run(&mut self, claim: &mut Claim, assessed: &mut Option<Assessment<'a>>) -> Result<(), SyncError> {
        let known = self.known;
        let rules = &self.engine.options.rules;
        let user = self.okta_user(&known.id).await?;
        let assessment = &*assessed.insert(decide::assess(known, user, &rules.policy));
        for concern in &assessment.concerns {
            self.results.alarms.push(alarm(&known.id, concern));
        }
        if let Some(read) = &assessment.read
            && !claim.extend(&read.addresses)
        {
            return Err(SyncError::AddressLocked);
        }
        match &assessment.course {
            Course::Vanished => self.results.merge(Outcome::Held(Held::Vanished)),
            Course::Leave | Course::Allow { .. } => self.results.merge(Outcome::Unchanged),
            Course::Skip(why) => self.results.merge(Outcome::Skipped(why.clone())),
            Course::Deny(_) => {}
        }
        gather::run_rounds(self, known, assessment, rules).await?;
        match &assessment.course {
            Course::Allow { exempt: true } => self.results.merge(Outcome::Skipped(Skipped::Exempt)),
            Course::Deny(_) if self.results.changes.is_empty() => {
                // The account may have an address that Okta does not show us.
                let hidden = assessment.read.as_ref().is_some_and(|read| read.address_hidden);
                let none_found = Outcome::Skipped(Skipped::AddressHidden);
                let unknown = assessment.read.as_ref().is_some_and(|read| read.addresses.is_empty());
                self.results.merge(match (hidden, unknown) {
                    (true, _) => none_found,
                    (false, true) => Outcome::Skipped(Skipped::NoAddress),
                    (false, false) => Outcome::NoAccount,
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// The outcome of a failure: a snooze if the cause is not this user, else a failed attempt.
    fn failure_outcome(&self, failure: SyncError) -> Outcome {
        let now = self.engine.now();
        let why = match failure {
            SyncError::Call(CallError::Paused { wait, why }) => {
                return Outcome::Snooze { until: clock::add(now, wait), why };
            }
            SyncError::AddressLocked => {
                let why = "a look at another user with the same address is in progress".to_owned();
                return Outcome::Snooze { until: clock::add(now, Duration::from_secs(1)), why };
            }
            SyncError::Call(CallError::Failed(failure)) => failure.to_string(),
            SyncError::Conflict(why) => why,
            SyncError::Store(error) => error.to_string(),
        };
        failed_attempt(self.start, self.engine.options.max_attempts, why)
    }

    async fn settle(mut self, assessment: Option<&Assessment<'_>>) -> Result<(Report, Vec<AlarmKind>), StoreError> {
        let (engine, known, now) = (self.engine, self.known, self.engine.now());
        let outcome = self.results.outcome.take().unwrap_or(Outcome::Unchanged);
        if let Outcome::Failed(why) = &outcome {
            self.results.alarms.push(Alarm::failed(&known.id, engine.options.max_attempts, why));
        }
        let read = assessment.and_then(|assessment| assessment.read.as_ref());
        let email = read
            .and_then(|read| read.email.as_ref().map(|email| email.as_str().to_owned()))
            .or_else(|| self.start.email.clone())
            .or_else(|| known.addresses.first().map(|address| address.as_str().to_owned()));
        self.complete_decisions(assessment, &outcome, email.as_deref());
        let rules = &engine.options.rules;
        let end = decide::conclude(known, assessment, &outcome, self.results.lifted, rules, now);
        let event = assessment.and_then(|assessment| assessment.event);
        let finish = LookFinish {
            user: &known.id,
            claimed_seq: self.start.claimed_seq,
            // The guard's transaction has stored it already.
            read: read.filter(|_| self.results.admitted.is_none()),
            outcome: &outcome,
            depends_on: self.results.depends_on.as_ref(),
            decisions: &self.results.decisions,
            accounts: &self.results.accounts,
            belated_event: event.filter(|_| end.belated_event).map(|event| event.id.as_str()),
            conclusion: end,
            alarms: &self.results.alarms,
            policy: &engine.policy_text,
        };
        let finished = engine.store.finish_look(finish, now).await?;
        let lags = self.results.decisions.iter().filter_map(|decision| u64::try_from(decision.lag_ms?).ok());
        engine.metrics.looked(&outcome, self.results.writes, lags.map(Duration::from_millis));
        for named in &self.start.named {
            if self.results.decisions.iter().any(|decision| denies_named(decision, named)) {
                engine.metrics.followed(named.change, clock::since(now, named.occurred_at));
            }
        }
        if finished.due_again || finished.woken > 0 {
            engine.wakes.apply.notify_one();
        }
        let report = Report {
            user: known.id.clone(),
            email,
            status: read.map(|read| read.status.clone()),
            verdict: assessment.and_then(|assessment| assessment.verdict),
            outcome,
            changes: self.results.changes,
            writes: self.results.writes,
        };
        Ok((report, finished.raised))
    }

    /// Fills the fields that all decisions of this look share.
    fn complete_decisions(&mut self, assessment: Option<&Assessment<'_>>, outcome: &Outcome, email: Option<&str>) {
        let decisions = &mut self.results.decisions;
        // A snoozed look decided nothing; every other look records a decision.
        if decisions.is_empty() && !matches!(outcome, Outcome::Snooze { .. }) {
            decisions.push(Decision { outcome: outcome.into(), why: outcome.why(), ..Decision::default() });
        }
        let cause = self.known.cause.as_str();
        let event = assessment.and_then(|assessment| assessment.event);
        for decision in decisions {
            decision.okta_user_id = Some(self.known.id.to_string());
            decision.email = email.map(str::to_owned);
            cause.clone_into(&mut decision.cause);
            decision.event_id = event.map(|event| event.id.clone());
            decision.actor = event.map_or_else(|| Some(cause.to_owned()), |event| event.actor.clone());
            let read = assessment.and_then(|assessment| assessment.read.as_ref());
            decision.status = read.map(|read| read.status.to_string());
            decision.verdict = assessment.and_then(|assessment| assessment.verdict);
        }
    }
}

/// Whether a decision wrote the mark on the account that an event named.
fn denies_named(decision: &Decision, named: &NamedAccount) -> bool {
    decision.auth0_user_id.as_deref() == Some(named.id.as_str())
        && decision.verdict == Some(Verdict::Deny)
        && matches!(decision.outcome, DecisionOutcome::Applied | DecisionOutcome::Restored)
}

fn alarm(user: &OktaUserId, concern: &Concern) -> Alarm {
    match concern {
        Concern::UnknownStatus(status) => Alarm::unknown_status(user, status),
        Concern::ExemptLeft(status) => Alarm::exempt_left(user, status.as_str()),
        Concern::AddressHidden => Alarm::addresses_hidden(),
        Concern::Held(why) => Alarm::held(user, why),
    }
}

/// Logs one line per look. E-mail addresses stay out of the log.
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
        Outcome::Snooze { .. } => debug!(event = "snoozed", %user, cause, "{user} is deferred: {why}"),
        Outcome::Skipped(_) => info!(event = "skipped", %user, cause, status, verdict, "{user} is not denied: {why}"),
        Outcome::Held(_) => warn!(event = "held", %user, cause, status, verdict, "{user} is held: {why}"),
        Outcome::Retry { after, .. } => {
            warn!(event = "retry", %user, cause, attempt = start.attempts + 1, seconds = after.as_secs(), "{user}: look failed: {why}; retrying in {} s", after.as_secs());
        }
        Outcome::Failed(_) => error!(event = "failed", %user, cause, "{user}: look failed: {why}; retrying once a day"),
    }
}

#[cfg(test)]
mod tests;
