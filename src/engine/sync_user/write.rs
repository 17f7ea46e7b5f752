//! One write to an account: the whole patch, or the most of it that Auth0 accepts.

use tracing::warn;

use super::{SyncError, UserSync};
use crate::auth0::{self, AccountRecord, Fields, Patched};
use crate::domain::mark::{self, Write};
use crate::domain::{Account, DecisionOutcome, Patch};
use crate::engine::error::CallError;
use crate::engine::smaller::AsksForLess;
use crate::http::{Failure, Kind};
use crate::store::{Alarm, Intent};

/// The word in decisions for an account that our block alone denies, because Auth0 refused the mark.
const BLOCKED_ONLY: &str = "denied by block only";
/// Why a decision wrote less than the mark.
const MARK_REFUSED: &str = "mark_refused";
const MIRROR_REFUSED: &str = "mirror_refused";

/// How a write ended.
pub(super) enum Written {
    /// It was applied, whole or in part.
    Done(Done),
    /// Auth0 refused the part that is missing, and the account is good enough without it. Contains what was refused.
    NothingNeeded(&'static str),
    /// It was not applied. The account's outcome is recorded, and the look continues with the other accounts.
    Not,
}

/// A write that was applied.
pub(super) struct Done {
    /// The account after it.
    pub(super) after: String,
    /// We blocked the account.
    pub(super) blocked: bool,
    /// Why less than the mark was written.
    pub(super) why: Option<&'static str>,
    /// Auth0's id of the request.
    pub(super) request_id: Option<String>,
}

impl UserSync<'_> {
    /// Writes the patch, or what Auth0 accepts of it, and checks in the response that Auth0 applied it.
    pub(super) async fn write(&mut self, record: &AccountRecord, patch: &Patch) -> Result<Written, SyncError> {
        let account = &record.account;
        let mut refusal: Option<Failure> = None;
        for write in mark::attempts(account, patch) {
            if write == Write::Block(true) {
                self.intend_block(account).await?;
            }
            match self.send(record, &write).await {
                Ok(patched) => {
                    let refused = refusal.map(|failure| failure.to_string());
                    return self.check(account, patch, &write, patched, refused).await;
                }
                // A size limit, or a connection's rules.
                Err(CallError::Failed(failure)) if matches!(failure.status, Some(400 | 413)) => refusal = Some(failure),
                Err(CallError::Failed(failure)) => {
                    self.write_failed(account, failure);
                    return Ok(Written::Not);
                }
                Err(paused) => return Err(paused.into()),
            }
        }
        if let Some(failure) = refusal {
            self.write_failed(account, failure);
        }
        Ok(Written::Not)
    }

    async fn send(&self, record: &AccountRecord, write: &Write) -> Result<Patched, CallError> {
        let (engine, user) = (self.engine, &self.known.id);
        if *write == Write::Nothing {
            return Ok(Patched { account: Some(record.clone()), request_id: None });
        }
        let call = || engine.auth0.write(record, write, user);
        engine.auth0_breaker.call(auth0::endpoints::PATCH, self.priority, user.as_str(), call).await
    }

    /// Stores that the account may be blocked by us, before it is: the mark that was intended came without a block.
    async fn intend_block(&self, account: &Account) -> Result<(), SyncError> {
        let owed = self.stored(&account.id).is_some_and(|known| known.sessions_owed);
        let intent = Intent {
            account: &account.id,
            email: account.email.as_ref(),
            with_block: true,
            owe_sessions: self.engine.options.rules.end_sessions || owed,
        };
        Ok(self.engine.store.intend_mark(&self.known.id, intent, self.engine.now()).await?)
    }

    /// Checks that a write took hold, and records what Auth0 refused before it.
    async fn check(
        &mut self,
        account: &Account,
        patch: &Patch,
        write: &Write,
        patched: Patched,
        refused: Option<String>,
    ) -> Result<Written, SyncError> {
        let after = match patched.account {
            Some(record) => Some(record.account),
            None => match self.read_back(account).await {
                Ok(after) => after,
                Err(CallError::Failed(failure)) => {
                    self.write_failed(account, failure);
                    return Ok(Written::Not);
                }
                Err(paused) => return Err(paused.into()),
            },
        };
        let Some(after) = after else {
            self.not_written(account, gone(account), patched.request_id);
            return Ok(Written::Not);
        };
        if !mark::took_hold(&after, write) {
            let why = format!(
                "Auth0 accepted the write to {} but its response lacks the mark; another program writes the same key",
                account.id
            );
            self.not_written(account, why, patched.request_id);
            return Ok(Written::Not);
        }
        let why = self.note_refusal(account, patch, write, refused);
        if *write == Write::Nothing {
            return Ok(Written::NothingNeeded(why.unwrap_or(MIRROR_REFUSED)));
        }
        Ok(Written::Done(Done {
            after: summary(after, write),
            blocked: *write == Write::Block(true) || patch.mark.blocked,
            why: why.filter(|why| *why == MARK_REFUSED),
            request_id: patched.request_id,
        }))
    }

    /// The account after a write whose response was too large to read.
    async fn read_back(&self, account: &Account) -> Result<Option<Account>, CallError> {
        let read = match self.account_with(&account.id, Fields::Mark).await {
            Err(failure) if failure.asks_for_less() => self.account_with(&account.id, Fields::Account).await?,
            other => other?,
        };
        Ok(read.map(|record| record.account))
    }

    /// Reports what Auth0 refused to write, and says which part it was.
    fn note_refusal(
        &mut self,
        account: &Account,
        patch: &Patch,
        write: &Write,
        refused: Option<String>,
    ) -> Option<&'static str> {
        let refused = refused?;
        let stands = *write == Write::Nothing && account.mark.is_none();
        if *write == Write::Block(true) || stands {
            warn!(
                event = "mark_refused", user = %self.known.id, account = %account.id,
                "Auth0 refused the mark; the account is denied by `blocked` alone: {refused}"
            );
            return Some(MARK_REFUSED);
        }
        let mirror_written = match write {
            Write::Mark(written) => written.mirror.is_some(),
            Write::Remove(removal) => removal.mirror,
            Write::Block(_) | Write::Nothing => false,
        };
        if patch.mirror.is_none() || mirror_written {
            return None;
        }
        warn!(
            event = "mirror_refused", user = %self.known.id, account = %account.id,
            "Auth0 refused the mirror; the mark is in force: {refused}"
        );
        self.results.alarms.push(Alarm::mirror_refused(&self.known.id, &account.id, &refused));
        Some(MIRROR_REFUSED)
    }

    /// Records a failed write. It must not keep the user's other accounts open.
    fn write_failed(&mut self, account: &Account, failure: Failure) {
        if failure.kind == Kind::NotFound {
            self.not_written(account, gone(account), failure.request_id);
            return;
        }
        let why = failure.to_string();
        self.decide(account, account.summary(), DecisionOutcome::Retry, Some(why), failure.request_id.clone());
        let outcome = self.failure_outcome(SyncError::Call(CallError::Failed(failure)));
        self.results.merge(outcome);
    }

    fn not_written(&mut self, account: &Account, why: String, request_id: Option<String>) {
        self.decide(account, account.summary(), DecisionOutcome::Retry, Some(why.clone()), request_id);
        let outcome = self.failure_outcome(SyncError::Conflict(why));
        self.results.merge(outcome);
    }
}

fn gone(account: &Account) -> String {
    format!("the account {} was deleted or linked between the lookup and the write; retrying", account.id)
}

/// The account after a write, in the words of decisions. What cannot be read is as it was sent.
fn summary(after: Account, write: &Write) -> String {
    match write {
        Write::Block(true) => BLOCKED_ONLY.to_owned(),
        Write::Mark(patch) if after.unread => Account { mark: Some(patch.mark.clone()), ..after }.summary(),
        _ => after.summary(),
    }
}
