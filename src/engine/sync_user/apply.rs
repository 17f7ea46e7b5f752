//! Applies a plan. A look writes to Auth0 only here.

use std::time::Duration;

use super::write::{Done, Written};
use super::{Change, SyncError, UserSync};
use crate::auth0::{self, AccountRecord};
use crate::domain::account::Mirror;
use crate::domain::clock;
use crate::domain::decide::{self, Action, Assessment, Course, Step};
use crate::domain::{Account, AccountId, DecisionOutcome, Held, Lane, MarkedAccount, Outcome, Patch, Skipped};
use crate::engine::error::CallError;
use crate::http::Kind;
use crate::store::{AccountChange, Admission, Alarm, AlarmKind, Decision, Denial, Intent};

/// This many restorations of one account in a day raise an alarm.
const RESTORATIONS_MAX: u32 = 3;
/// A denial later than this after its event raises an alarm.
const LATE_MS: i64 = 300_000;
const DAY: Duration = Duration::from_secs(86_400);

/// The account carries no mark for this user.
fn open(account: &Account) -> AccountChange {
    AccountChange { denied: false, former_key: None, ..denied(account) }
}

/// The account carries our mark; when and why are unknown.
fn denied(account: &Account) -> AccountChange {
    AccountChange {
        id: account.id.clone(),
        email: account.email.clone(),
        connection: account.connections().next().map(str::to_owned),
        denied: true,
        blocked: false,
        denied_at: None,
        event_id: None,
        published: None,
        lag_ms: None,
        sessions_owed: false,
        former_key: account.former_key.clone(),
    }
}

impl UserSync<'_> {
    /// Carries out one step of a plan.
    pub(super) async fn apply(
        &mut self,
        assessment: &Assessment<'_>,
        step: Step,
        record: Option<&AccountRecord>,
    ) -> Result<(), SyncError> {
        let Some(record) = record else {
            self.account_is_gone(&step.id);
            return Ok(());
        };
        let account = &record.account;
        self.report_unread_mirror(account, &step.action);
        match step.action {
            Action::Deny { patch, restores, first } => {
                self.deny(assessment, record, Mark { patch: &patch, restores, first }).await?;
            }
            Action::Lift(patch) => self.lift(record, &patch).await?,
            Action::Keep => {
                self.unchanged(account, None);
                self.keep_denied(account);
                self.end_owed_sessions(&account.id).await?;
            }
            Action::Confirm => {
                self.decide(account, account.summary(), DecisionOutcome::Confirmed, None, None);
                self.confirm_denied(account);
                self.end_owed_sessions(&account.id).await?;
            }
            Action::Theirs(owner) => self.leave_mark(assessment, account, format!("denied for {owner}")),
            Action::OtherOrg(org) => {
                self.leave_mark(assessment, account, format!("denied by the installation for the Okta org {org}"));
            }
            Action::Open => {
                self.unchanged(account, None);
                self.results.accounts.push(open(account));
            }
            Action::OutOfScope(why) => {
                let mut decision = decision(account, account.summary(), DecisionOutcome::Skipped);
                decision.why = Some(why.as_str().to_owned());
                self.results.decisions.push(decision);
            }
            Action::Skip(why) => {
                if self.stored(&account.id).is_some_and(|known| known.denied || known.unconfirmed) {
                    self.results.accounts.push(open(account));
                }
                self.decide(account, account.summary(), DecisionOutcome::Skipped, Some(why.to_string()), None);
            }
            Action::Hold(why) => self.hold(account, &why),
            Action::Gone => self.account_is_gone(&step.id),
        }
        if let Some(outcome) = step.outcome {
            self.contribute(outcome);
        }
        Ok(())
    }

    /// The account is denied by a mark that is not this user's.
    fn leave_mark(&mut self, assessment: &Assessment<'_>, account: &Account, why: String) {
        self.unchanged(account, Some(why));
        if !matches!(assessment.course, Course::Deny(_)) {
            self.results.accounts.push(open(account));
        }
    }

    /// Raises an alarm if the mirror would be written, or lifted, and its metadata is too large to read.
    fn report_unread_mirror(&mut self, account: &Account, action: &Action) {
        if !self.engine.options.rules.mark.mirror || account.mirror != Mirror::Unread {
            return;
        }
        let alarm = match action {
            Action::Deny { .. } | Action::Keep | Action::Confirm => {
                Alarm::mirror_refused(&self.known.id, &account.id, "it is too large to read")
            }
            Action::Lift(_) => Alarm::mirror_not_lifted(&self.known.id, &account.id),
            _ => return,
        };
        self.results.alarms.push(alarm);
    }

    /// Adds an account's outcome to the user's.
    fn contribute(&mut self, outcome: Outcome) {
        match &outcome {
            Outcome::Skipped(Skipped::SharedAddress(other)) => self.results.depends_on = Some(other.clone()),
            Outcome::Held(why) => {
                if let Held::AddressReused(other) = why {
                    self.results.depends_on = Some(other.clone());
                }
                self.results.alarms.push(Alarm::held(&self.known.id, why));
            }
            _ => {}
        }
        self.results.merge(outcome);
    }

    fn hold(&mut self, account: &Account, why: &Held) {
        self.decide(account, account.summary(), DecisionOutcome::Held, Some(why.to_string()), None);
        self.keep_denied(account);
    }

    /// Writes our mark, if the guard admits it and enforcement is on.
    async fn deny(
        &mut self,
        assessment: &Assessment<'_>,
        record: &AccountRecord,
        mark: Mark<'_>,
    ) -> Result<(), SyncError> {
        let (account, patch) = (&record.account, mark.patch);
        let enforce = self.engine.options.enforce;
        let (known_denied, owed) =
            self.stored(&account.id).map_or((false, false), |known| (known.denied, known.sessions_owed));
        let owing = self.engine.options.rules.end_sessions || owed;
        let intent = Intent {
            account: &account.id,
            email: account.email.as_ref(),
            with_block: patch.mark.blocked,
            owe_sessions: owing,
        };
        // Restoring a mark is not a first denial.
        if mark.first && self.results.admitted != Some(true) {
            if !self.admit(assessment, enforce.then_some(intent)).await? {
                self.decide(account, account.summary(), DecisionOutcome::Held, Some(Held::Guard.to_string()), None);
                self.contribute(Outcome::Held(Held::Guard));
                return Ok(());
            }
        } else if enforce {
            self.engine.store.intend_mark(&self.known.id, intent, self.engine.now()).await?;
        }
        if !enforce {
            self.not_enforced(account, patch);
            return Ok(());
        }
        let done = match self.write(record, patch).await? {
            Written::Done(done) => done,
            Written::NothingNeeded(refused) => {
                self.unchanged(account, Some(refused.to_owned()));
                self.results.merge(Outcome::Unchanged);
                if known_denied {
                    self.keep_denied(account);
                } else {
                    self.confirm_denied(account);
                }
                return self.end_owed_sessions(&account.id).await;
            }
            Written::Not => return Ok(()),
        };
        self.note_denial(assessment, account, mark, done, owing);
        if mark.restores {
            self.count_restoration(&account.id).await?;
        }
        if owing {
            self.end_sessions(&account.id).await?;
        }
        Ok(())
    }

    /// Records a mark that was written.
    fn note_denial(&mut self, assessment: &Assessment<'_>, account: &Account, mark: Mark<'_>, done: Done, owing: bool) {
        let now = self.engine.now();
        let known_denied = self.stored(&account.id).is_some_and(|known| known.denied);
        let published = assessment.event.filter(|_| !known_denied).map(|event| event.published);
        let lag_ms = published
            .filter(|published| self.start.first_poll_at.is_some_and(|first| *published > first))
            .and_then(|published| i64::try_from(clock::since(now, published).as_millis()).ok());
        self.results.writes += 1;
        self.results.merge(Outcome::Applied);
        let outcome = if mark.restores { DecisionOutcome::Restored } else { DecisionOutcome::Applied };
        self.decide(account, done.after, outcome, done.why.map(str::to_owned), done.request_id);
        if let Some(decision) = self.results.decisions.last_mut() {
            decision.lag_ms = lag_ms;
        }
        self.results.accounts.push(AccountChange {
            blocked: done.blocked,
            denied_at: (!known_denied).then_some(now),
            event_id: assessment.event.map(|event| event.id.clone()),
            published,
            lag_ms,
            sessions_owed: owing,
            former_key: mark.patch.copy_keys.first().cloned(),
            ..denied(account)
        });
        if let Some(lag_ms) = lag_ms.filter(|lag_ms| *lag_ms > LATE_MS) {
            self.results.alarms.push(Alarm::denial_late(&self.known.id, lag_ms));
        }
    }

    /// Lifts this user's mark.
    async fn lift(&mut self, record: &AccountRecord, patch: &Patch) -> Result<(), SyncError> {
        let account = &record.account;
        if !self.engine.options.enforce {
            self.not_enforced(account, patch);
            return Ok(());
        }
        match self.write(record, patch).await? {
            Written::Done(done) => {
                self.results.writes += 1;
                self.results.lifted = true;
                self.results.merge(Outcome::Applied);
                self.decide(account, done.after, DecisionOutcome::Applied, None, done.request_id);
                self.results.accounts.push(open(account));
            }
            Written::NothingNeeded(refused) => {
                self.unchanged(account, Some(refused.to_owned()));
                self.results.accounts.push(open(account));
            }
            Written::Not => {}
        }
        Ok(())
    }

    /// The account as the store knows it.
    pub(super) fn stored(&self, id: &AccountId) -> Option<&MarkedAccount> {
        self.known.accounts.iter().find(|known| known.id == *id)
    }

    /// Asks the guard, once per look. If it admits the denial, the same transaction stores `intent`.
    async fn admit(&mut self, assessment: &Assessment<'_>, intent: Option<Intent<'_>>) -> Result<bool, SyncError> {
        if let Some(admitted) = self.results.admitted {
            return Ok(admitted);
        }
        let Some(read) = &assessment.read else { return Ok(false) };
        let denial = Denial {
            user: &self.known.id,
            read,
            reconcile: matches!(self.start.lane, Lane::Reconcile),
            approved: self.known.approved == Some(Held::Guard),
            intent,
        };
        let engine = self.engine;
        let admission = engine.store.prepare_denial(denial, engine.options.guard, engine.now()).await?;
        let admitted = admission == Admission::Admitted;
        self.results.admitted = Some(admitted);
        Ok(admitted)
    }

    /// Ends the sessions that an earlier look failed to end.
    async fn end_owed_sessions(&mut self, id: &AccountId) -> Result<(), SyncError> {
        if !self.known.accounts.iter().any(|known| known.id == *id && known.sessions_owed) {
            return Ok(());
        }
        if self.engine.options.rules.end_sessions {
            return self.end_sessions(id).await;
        }
        // The option is off now, so the pending session end is dropped.
        self.owes(id, false);
        Ok(())
    }

    fn owes(&mut self, id: &AccountId, owed: bool) {
        if let Some(change) = self.results.accounts.iter_mut().find(|change| change.id == *id) {
            change.sessions_owed = owed;
        }
    }

    /// Ends the sessions and refresh tokens of a denied account. A plan without these endpoints raises one alarm, and does not
    /// fail the look.
    async fn end_sessions(&mut self, id: &AccountId) -> Result<(), SyncError> {
        let (engine, user) = (self.engine, self.known.id.as_str());
        let sessions = engine
            .auth0_breaker
            .call(auth0::endpoints::SESSIONS, self.priority, user, || engine.auth0.delete_sessions(id))
            .await;
        let tokens = match sessions {
            Ok(()) | Err(CallError::Failed(_)) => {
                engine
                    .auth0_breaker
                    .call(auth0::endpoints::SESSIONS, self.priority, user, || engine.auth0.delete_refresh_tokens(id))
                    .await
            }
            Err(_) => Ok(()),
        };
        let mut owed = false;
        let mut available = true;
        for answer in [sessions, tokens] {
            match answer {
                Ok(()) => {}
                Err(CallError::Failed(failure)) if failure.kind == Kind::NotFound => {
                    available = false;
                    self.sessions_unavailable(&failure.to_string());
                }
                // The mark is in force, and the next reconcile asks again.
                Err(CallError::Failed(failure)) if failure.kind == Kind::Forbidden => {
                    (owed, available) = (true, false);
                    self.sessions_unavailable(&failure.to_string());
                }
                Err(CallError::Failed(failure)) => {
                    owed = true;
                    let outcome = self.failure_outcome(SyncError::Call(CallError::Failed(failure)));
                    self.results.merge(outcome);
                }
                Err(CallError::Paused { wait, why }) => {
                    owed = true;
                    // A 403 opens only this endpoint's circuit: the mark is in force, and the next reconcile retries. Any
                    // other failure passes soon.
                    if engine.auth0_breaker.open_for(&[]).is_none()
                        && engine.auth0_breaker.open_for(&[auth0::endpoints::SESSIONS]).is_some()
                    {
                        available = false;
                        self.sessions_unavailable(&why);
                    } else {
                        let outcome = self.failure_outcome(SyncError::Call(CallError::Paused { wait, why }));
                        self.results.merge(outcome);
                    }
                }
            }
        }
        if available && !owed {
            engine.store.clear_alarm(AlarmKind::SessionsUnavailable, "", engine.now()).await?;
        }
        self.owes(id, owed);
        Ok(())
    }

    fn sessions_unavailable(&mut self, why: &str) {
        self.results.alarms.push(Alarm::sessions_unavailable(why));
    }

    async fn count_restoration(&mut self, id: &AccountId) -> Result<(), SyncError> {
        let since = clock::sub(self.engine.now(), DAY);
        let before = self.engine.store.restorations(id, since).await?;
        if before + 1 >= RESTORATIONS_MAX {
            self.results.alarms.push(Alarm::restored(&self.known.id, id, before + 1));
        }
        Ok(())
    }

    /// Without enforcement: what would be written.
    fn not_enforced(&mut self, account: &Account, patch: &Patch) {
        let planned = Account {
            mark: Some(patch.mark.clone()),
            blocked: patch.blocked.unwrap_or(account.blocked),
            mirror: match patch.mirror {
                Some(true) => Mirror::On,
                Some(false) => Mirror::Off,
                None => account.mirror,
            },
            ..account.clone()
        };
        self.decide(account, planned.summary(), DecisionOutcome::NotEnforced, None, None);
        self.results.merge(Outcome::Skipped(Skipped::NotEnforced));
    }

    fn unchanged(&mut self, account: &Account, why: Option<String>) {
        self.decide(account, account.summary(), DecisionOutcome::Unchanged, why, None);
    }

    pub(super) fn decide(
        &mut self,
        account: &Account,
        after: String,
        outcome: DecisionOutcome,
        why: Option<String>,
        request_id: Option<String>,
    ) {
        self.results.changes.push(Change {
            account: account.id.as_str().to_owned(),
            before: account.summary(),
            after: after.clone(),
            outcome,
        });
        self.results.decisions.push(Decision { why, request_id, ..decision(account, after, outcome) });
    }

    /// The account carries our mark, and the store knows it.
    fn keep_denied(&mut self, account: &Account) {
        let known = self.stored(&account.id);
        let change = AccountChange {
            // A wiped mark no longer shows that the block is ours; the store does.
            blocked: match &account.mark {
                Some(mark) if mark.okta_user_id.is_some() => mark.blocked,
                _ => known.is_some_and(|known| known.blocked),
            },
            sessions_owed: known.is_some_and(|known| known.sessions_owed),
            ..denied(account)
        };
        self.results.accounts.push(change);
    }

    /// The account carries our mark, and the store does not know it yet.
    fn confirm_denied(&mut self, account: &Account) {
        let Some(mark) = &account.mark else {
            // Our block alone denies it, since Auth0 refused the mark.
            let denied_at = Some(self.engine.now());
            self.results.accounts.push(AccountChange { blocked: true, denied_at, ..denied(account) });
            return;
        };
        let found = decide::confirmation(mark, self.known, self.engine.now());
        self.results.accounts.push(AccountChange {
            blocked: mark.blocked,
            denied_at: Some(found.denied_at),
            event_id: found.event_id,
            published: found.published,
            lag_ms: found.lag_ms,
            sessions_owed: self.stored(&account.id).is_some_and(|known| known.sessions_owed),
            ..denied(account)
        });
    }

    /// An account that the store has as marked no longer exists.
    fn account_is_gone(&mut self, id: &AccountId) {
        self.results.changes.push(Change {
            account: id.as_str().to_owned(),
            before: "denied".to_owned(),
            after: "gone".to_owned(),
            outcome: DecisionOutcome::Unchanged,
        });
        self.results.decisions.push(Decision {
            auth0_user_id: Some(id.as_str().to_owned()),
            after: Some("gone".to_owned()),
            outcome: DecisionOutcome::Unchanged,
            why: Some("the account no longer exists".to_owned()),
            ..Decision::default()
        });
        self.results.accounts.push(AccountChange {
            id: id.clone(),
            email: None,
            connection: None,
            denied: false,
            blocked: false,
            denied_at: None,
            event_id: None,
            published: None,
            lag_ms: None,
            sessions_owed: false,
            former_key: None,
        });
    }
}

/// A mark to write.
#[derive(Clone, Copy)]
struct Mark<'a> {
    patch: &'a Patch,
    restores: bool,
    first: bool,
}

fn decision(account: &Account, after: String, outcome: DecisionOutcome) -> Decision {
    Decision {
        auth0_user_id: Some(account.id.as_str().to_owned()),
        before: Some(account.summary()),
        after: Some(after),
        outcome,
        ..Decision::default()
    }
}

#[cfg(test)]
mod tests;
