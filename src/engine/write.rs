//! Writing: the one place from which Auth0 is changed.

use std::time::Duration;

use tracing::warn;

use super::error::CallError;
use super::look::{Change, Interrupted, Looking};
use crate::auth0::{self, AccountRecord, Patched};
use crate::domain::clock::{self, parse_timestamp};
use crate::domain::mark::{self, Difference, Known};
use crate::domain::{Account, AccountId, DecisionOutcome, Held, Lane, Outcome, Patch, Skipped};
use crate::http::Kind;
use crate::store::{AccountChange, Admission, Alarm, AlarmKind, Decision, Denial, Intent};

/// So many restorations of one account in a day are an alarm.
const RESTORATIONS_MAX: u32 = 3;
/// A denial later than this after its event is told.
const LATE_MS: i64 = 300_000;
const DAY: Duration = Duration::from_secs(86_400);

/// The account carries no mark for this user.
pub(super) fn open(account: &Account) -> AccountChange {
    AccountChange {
        id: account.id.clone(),
        email: account.email.clone(),
        connection: account.connections.first().cloned(),
        denied: false,
        blocked: false,
        denied_at: None,
        event_id: None,
        published: None,
        lag_ms: None,
        sessions_owed: false,
    }
}

/// What came of a PATCH.
enum Written {
    /// It took hold.
    Whole(Box<Patched>),
    /// Only the mirror was to be written, and is refused.
    NothingNeeded,
    /// It did not: the account's outcome is noted, and others can go on.
    Not,
}

impl Looking<'_> {
    /// Makes an account denied for this user.
    pub(super) async fn write_denial(&mut self, record: AccountRecord) -> Result<(), Interrupted> {
        let account = &record.account;
        let known = self.start.accounts.iter().find(|known| known.id == account.id);
        let known_denied = known.is_some_and(|known| known.denied);
        let mut ours = self.known(&account.id);
        // Wiped since we denied it for somebody else with the same address: then the block is ours all the same.
        if account.blocked && !ours.blocked && account.mark.as_ref().is_none_or(|mark| mark.okta_user_id.is_none()) {
            ours.blocked = self.engine.store.is_blocked_by_us(&account.id).await?;
        }
        let patch = match mark::deny(account, &self.reason(), self.engine.options.rules.mark, ours) {
            Difference::None if known_denied => {
                self.decide(account, account.summary(), DecisionOutcome::Unchanged, None, None);
                self.weigh(Outcome::Unchanged);
                self.keep_denied(account);
                return self.end_owed_sessions(&account.id).await;
            }
            // The mark is there and the state does not know it: written by a life that died before it could say so, or the
            // state is younger than the mark.
            Difference::None => {
                self.decide(account, account.summary(), DecisionOutcome::Confirmed, None, None);
                self.weigh(Outcome::Unchanged);
                self.confirm_denied(account);
                return self.end_owed_sessions(&account.id).await;
            }
            Difference::Theirs(owner) => {
                self.decide(
                    account,
                    account.summary(),
                    DecisionOutcome::Unchanged,
                    Some(format!("denied for {owner}")),
                    None,
                );
                self.weigh(Outcome::Unchanged);
                return Ok(());
            }
            Difference::Patch(patch) => patch,
        };
        let enforce = self.engine.options.enforce;
        let owing = self.engine.options.rules.end_sessions || known.is_some_and(|known| known.sessions_owed);
        let intent = Intent {
            account: &account.id,
            email: account.email.as_ref(),
            with_block: patch.mark.blocked,
            owe_sessions: owing,
        };
        // What was denied before is not a first denial, whatever removed the mark.
        if !self.admitted && !self.start.accounts.iter().any(|known| known.denied) {
            if !self.admit(enforce.then_some(intent)).await? {
                self.decide(account, account.summary(), DecisionOutcome::Held, Some(Held::Guard.to_string()), None);
                self.held(&Held::Guard);
                return Ok(());
            }
        } else if enforce {
            self.engine.store.intend_mark(&self.start.id, intent, self.engine.now()).await?;
        }
        if !enforce {
            self.plan(account, &patch);
            return Ok(());
        }
        let patched = match self.patch(&record, &patch).await? {
            Written::Whole(patched) => patched,
            Written::NothingNeeded => {
                self.decide(
                    account,
                    account.summary(),
                    DecisionOutcome::Unchanged,
                    Some("mirror_refused".to_owned()),
                    None,
                );
                self.weigh(Outcome::Unchanged);
                if known_denied {
                    self.keep_denied(account);
                } else {
                    self.confirm_denied(account);
                }
                return self.end_owed_sessions(&account.id).await;
            }
            Written::Not => return Ok(()),
        };
        let restored = known_denied && !account.mark.as_ref().is_some_and(|mark| mark.deactivated);
        self.writes += 1;
        self.weigh(Outcome::Applied);
        let now = self.engine.now();
        let published = self.event.filter(|_| !known_denied).map(|event| event.published);
        let lag_ms = published
            .filter(|published| self.start.first_poll_at.is_some_and(|first| *published > first))
            .and_then(|published| i64::try_from(clock::since(now, published).as_millis()).ok());
        let outcome = if restored { DecisionOutcome::Restored } else { DecisionOutcome::Applied };
        let after = patched.account.account.summary();
        self.decide(account, after, outcome, None, patched.request_id);
        if let Some(decision) = self.decisions.last_mut() {
            decision.lag_ms = lag_ms;
        }
        self.accounts.push(AccountChange {
            id: account.id.clone(),
            email: account.email.clone(),
            connection: account.connections.first().cloned(),
            denied: true,
            blocked: patch.mark.blocked,
            denied_at: (!known_denied).then_some(now),
            event_id: self.event.map(|event| event.id.clone()),
            published,
            lag_ms,
            sessions_owed: owing,
        });
        if restored {
            self.count_restoration(&account.id).await?;
        }
        if let Some(lag_ms) = lag_ms.filter(|lag_ms| *lag_ms > LATE_MS) {
            self.alarms.push(Alarm::denial_late(&self.start.id, lag_ms));
        }
        if owing {
            self.end_sessions(&account.id).await?;
        }
        Ok(())
    }

    /// Lifts this user's mark from an account.
    pub(super) async fn write_lift(&mut self, record: AccountRecord) -> Result<(), Interrupted> {
        let account = &record.account;
        let lifted = open(account);
        match mark::allow(account, &self.reason(), self.known(&account.id)) {
            Difference::None => {
                self.decide(account, account.summary(), DecisionOutcome::Unchanged, None, None);
                self.accounts.push(lifted);
            }
            // Somebody else's by now: their look keeps it.
            Difference::Theirs(owner) => {
                self.decide(
                    account,
                    account.summary(),
                    DecisionOutcome::Unchanged,
                    Some(format!("denied for {owner}")),
                    None,
                );
                self.accounts.push(lifted);
            }
            Difference::Patch(patch) => {
                if !self.engine.options.enforce {
                    self.plan(account, &patch);
                    return Ok(());
                }
                match self.patch(&record, &patch).await? {
                    Written::Whole(patched) => {
                        self.writes += 1;
                        self.lifted = true;
                        self.weigh(Outcome::Applied);
                        self.decide(
                            account,
                            patched.account.account.summary(),
                            DecisionOutcome::Applied,
                            None,
                            patched.request_id,
                        );
                        self.accounts.push(lifted);
                    }
                    Written::NothingNeeded => {
                        self.decide(
                            account,
                            account.summary(),
                            DecisionOutcome::Unchanged,
                            Some("mirror_refused".to_owned()),
                            None,
                        );
                        self.accounts.push(lifted);
                    }
                    Written::Not => {}
                }
            }
        }
        Ok(())
    }

    /// What the state says of an account.
    pub(super) fn known(&self, id: &AccountId) -> Known {
        let known = self.start.accounts.iter().find(|known| known.id == *id);
        Known {
            denied: known.is_some_and(|known| known.denied || known.unconfirmed),
            blocked: known.is_some_and(|known| known.blocked),
        }
    }

    /// Asks the guard, once in a look; `intent` is noted with its leave.
    async fn admit(&mut self, intent: Option<Intent<'_>>) -> Result<bool, Interrupted> {
        let Some(read) = &self.read else { return Ok(false) };
        let denial = Denial {
            user: &self.start.id,
            read,
            reconcile: matches!(self.start.lane, Lane::Reconcile),
            approved: self.start.approved,
            intent,
        };
        let engine = self.engine;
        let admission = engine.store.prepare_denial(denial, engine.options.guard, engine.now()).await?;
        self.read_kept = true;
        self.admitted = admission == Admission::Admitted;
        Ok(self.admitted)
    }

    /// Writes, and makes sure that it took hold.
    async fn patch(&mut self, record: &AccountRecord, patch: &Patch) -> Result<Written, Interrupted> {
        let (engine, account) = (self.engine, &record.account);
        let call = |authority_only: bool| {
            engine.auth0_breaker.call(
                auth0::endpoints::PATCH,
                self.priority,
                self.start.id.as_str(),
                move || async move {
                    if authority_only {
                        engine.auth0.patch_authority_only(record, patch).await
                    } else {
                        engine.auth0.patch(record, patch).await
                    }
                },
            )
        };
        let mut answer = call(false).await;
        let mut refused_mirror = None;
        // The authority has to get through even where the whole does not: a metadata limit, a connection's own rules.
        if let Err(CallError::Failed(failure)) = &answer
            && matches!(failure.status, Some(400 | 413))
            && patch.mirror.is_some()
        {
            let why = failure.to_string();
            // All but the mirror is there already: writing it again at each look would help nobody.
            if patch.blocked.is_none() && account.mark.as_ref().is_some_and(|mark| patch.mark.says_the_same_as(mark)) {
                self.mirror_refused(account, &why);
                return Ok(Written::NothingNeeded);
            }
            refused_mirror = Some(why);
            answer = call(true).await;
        }
        let patched = match answer {
            Ok(patched) => patched,
            Err(CallError::Failed(failure)) if failure.kind == Kind::NotFound => {
                let why = format!(
                    "the account {} was deleted or linked between the look-up and the write: looking again",
                    account.id
                );
                self.not_written(account, why, failure.request_id);
                return Ok(Written::Not);
            }
            // One account that cannot be written must not keep the person's others open.
            Err(CallError::Failed(failure)) => {
                let why = failure.to_string();
                self.decide(account, account.summary(), DecisionOutcome::Retry, Some(why), failure.request_id.clone());
                let outcome = self.interrupted(Interrupted::Remote(CallError::Failed(failure)));
                self.weigh(outcome);
                return Ok(Written::Not);
            }
            Err(paused) => return Err(paused.into()),
        };
        if let Some(why) = refused_mirror {
            self.mirror_refused(account, &why);
        }
        if !mark::took_hold(&patched.account.account, patch) {
            let why = format!(
                "Auth0 took the write to {} and answered without the mark: something else writes the same key",
                account.id
            );
            self.not_written(account, why, patched.request_id);
            return Ok(Written::Not);
        }
        Ok(Written::Whole(Box::new(patched)))
    }

    fn not_written(&mut self, account: &Account, why: String, request_id: Option<String>) {
        self.decide(account, account.summary(), DecisionOutcome::Retry, Some(why.clone()), request_id);
        let outcome = self.interrupted(Interrupted::Moved(why));
        self.weigh(outcome);
    }

    fn mirror_refused(&mut self, account: &Account, why: &str) {
        warn!(event = "mirror_refused", user = %self.start.id, account = %account.id, "the mirror was refused, the mark is in force: {why}");
        self.alarms.push(Alarm::mirror_refused(&self.start.id, &account.id, why));
    }

    /// Ends what an earlier look owed and did not come to.
    async fn end_owed_sessions(&mut self, id: &AccountId) -> Result<(), Interrupted> {
        if !self.start.accounts.iter().any(|known| known.id == *id && known.sessions_owed) {
            return Ok(());
        }
        if self.engine.options.rules.end_sessions {
            return self.end_sessions(id).await;
        }
        // It is not asked for any more: the debt is forgiven.
        self.owes(id, false);
        Ok(())
    }

    fn owes(&mut self, id: &AccountId, owed: bool) {
        if let Some(change) = self.accounts.iter_mut().find(|change| change.id == *id) {
            change.sessions_owed = owed;
        }
    }

    /// Ends the sessions and refresh tokens of a denied account. What a tenant's plan does not have is said once, and is no
    /// failure of the look.
    async fn end_sessions(&mut self, id: &AccountId) -> Result<(), Interrupted> {
        let (engine, user) = (self.engine, self.start.id.as_str());
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
                Err(CallError::Failed(failure)) => {
                    owed = true;
                    let outcome = self.interrupted(Interrupted::Remote(CallError::Failed(failure)));
                    self.weigh(outcome);
                }
                Err(CallError::Paused { wait, why }) => {
                    owed = true;
                    // A 403 pauses this endpoint alone: the mark is in force, the debt stays, and the next comparison tries
                    // whether the right was granted. Anything else passes soon.
                    if engine.auth0_breaker.open_for(&[]).is_none()
                        && engine.auth0_breaker.open_for(&[auth0::endpoints::SESSIONS]).is_some()
                    {
                        available = false;
                        self.sessions_unavailable(&why);
                    } else {
                        let outcome = self.interrupted(Interrupted::Remote(CallError::Paused { wait, why }));
                        self.weigh(outcome);
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
        self.alarms.push(Alarm::sessions_unavailable(why));
    }

    async fn count_restoration(&mut self, id: &AccountId) -> Result<(), Interrupted> {
        let since = clock::sub(self.engine.now(), DAY);
        let before = self.engine.store.restorations(id, since).await?;
        if before + 1 >= RESTORATIONS_MAX {
            self.alarms.push(Alarm::restored(&self.start.id, id, before + 1));
        }
        Ok(())
    }

    /// Without enforcement: what would be written.
    fn plan(&mut self, account: &Account, patch: &Patch) {
        let planned = Account {
            mark: Some(patch.mark.clone()),
            blocked: patch.blocked.unwrap_or(account.blocked),
            mirror: match patch.mirror {
                Some(true) => crate::domain::account::Mirror::On,
                Some(false) => crate::domain::account::Mirror::Off,
                None => account.mirror,
            },
            ..account.clone()
        };
        self.decide(account, planned.summary(), DecisionOutcome::NotEnforced, None, None);
        self.skipped(Skipped::NotEnforced);
    }

    pub(super) fn decide(
        &mut self,
        account: &Account,
        after: String,
        outcome: DecisionOutcome,
        why: Option<String>,
        request_id: Option<String>,
    ) {
        self.changes.push(Change {
            account: account.id.as_str().to_owned(),
            before: account.summary(),
            after: after.clone(),
            outcome,
        });
        self.decisions.push(Decision {
            auth0_user_id: Some(account.id.as_str().to_owned()),
            before: Some(account.summary()),
            after: Some(after),
            outcome,
            why,
            request_id,
            ..Decision::default()
        });
    }

    /// The account carries our mark, as the state says already.
    pub(super) fn keep_denied(&mut self, account: &Account) {
        let known = self.start.accounts.iter().find(|known| known.id == account.id);
        self.accounts.push(AccountChange {
            id: account.id.clone(),
            email: account.email.clone(),
            connection: account.connections.first().cloned(),
            denied: true,
            // A wiped mark says nothing of whose the block is; the state still does.
            blocked: match &account.mark {
                Some(mark) if mark.okta_user_id.is_some() => mark.blocked,
                _ => known.is_some_and(|known| known.blocked),
            },
            denied_at: None,
            event_id: None,
            published: None,
            lag_ms: None,
            sessions_owed: known.is_some_and(|known| known.sessions_owed),
        });
    }

    /// The account carries our mark, and the state learns it now.
    fn confirm_denied(&mut self, account: &Account) {
        let Some(mark) = &account.mark else { return };
        let event = self.start.events.iter().find(|event| Some(&event.id) == mark.event_id.as_ref());
        let denied_at = mark.at.as_deref().and_then(|at| parse_timestamp(at).ok()).unwrap_or_else(|| self.engine.now());
        self.accounts.push(AccountChange {
            id: account.id.clone(),
            email: account.email.clone(),
            connection: account.connections.first().cloned(),
            denied: true,
            blocked: mark.blocked,
            denied_at: Some(denied_at),
            event_id: mark.event_id.clone(),
            published: event.map(|event| event.published),
            lag_ms: event.and_then(|event| i64::try_from(clock::since(denied_at, event.published).as_millis()).ok()),
            sessions_owed: self.start.accounts.iter().any(|known| known.id == account.id && known.sessions_owed),
        });
    }

    /// An account that the state says is marked does not exist any more.
    pub(super) fn account_is_gone(&mut self, id: &AccountId) {
        self.changes.push(Change {
            account: id.as_str().to_owned(),
            before: "denied".to_owned(),
            after: "gone".to_owned(),
            outcome: DecisionOutcome::Unchanged,
        });
        self.decisions.push(Decision {
            auth0_user_id: Some(id.as_str().to_owned()),
            after: Some("gone".to_owned()),
            outcome: DecisionOutcome::Unchanged,
            why: Some("the account does not exist any more".to_owned()),
            ..Decision::default()
        });
        self.accounts.push(AccountChange {
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
        });
    }
}

#[cfg(test)]
mod tests;
