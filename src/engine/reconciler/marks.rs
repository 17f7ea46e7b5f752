//! The last two stages: accounts in Auth0 that carry our mark although the state does not have them as denied.

use std::collections::BTreeSet;

use tracing::warn;

use super::parts::Listed;
use super::{ReconcileProgress, Stage, Step};
use crate::auth0::{AccountQuery, AccountRecord};
use crate::domain::OktaUserId;
use crate::domain::clock::parse_timestamp;
use crate::engine::Engine;
use crate::engine::alarms::OTHER_ORG;
use crate::engine::error::{CallError, PassError};
use crate::store::{Alarm, AlarmKind, ReconcileRun, StoreError};

impl Engine {
    /// Adopts accounts with our mark that the state does not know as denied. Auth0 shows the first 1,000 hits, so the accounts
    /// are listed in the order of their creation, in ranges.
    pub(super) async fn compare_marked(
        &self,
        run: &ReconcileRun,
        progress: &mut ReconcileProgress,
    ) -> Result<Step, PassError> {
        let since = run.next.as_deref();
        let mut skipped = Vec::new();
        let Some(listed) = self.listed_range(&AccountQuery::Marked { since }, "mark", &mut skipped).await? else {
            return Ok(Step { stage: Some(Stage::Flagged), next: None, listed: 0, made_due: 0, skipped });
        };
        let mut due = BTreeSet::new();
        for record in &listed.records {
            self.adopt(record, since, &mut due, &mut skipped, progress).await?;
        }
        for (id, failure) in &listed.unread {
            skipped.push(format!("{id} ({failure})"));
        }
        let made_due = self.queue(due).await?;
        if let Some(next) = listed.next_range(since) {
            return Ok(Step { stage: Some(Stage::Marked), next: Some(next), listed: 0, made_due, skipped });
        }
        if listed.beyond() > 0 {
            warn!(
                event = "marks_beyond_search",
                total = listed.total,
                seen = listed.hits,
                "Auth0's search does not show all marked accounts; unknown marks beyond them are not found"
            );
            skipped.push(format!("{} accounts with a mark that the search does not show", listed.beyond()));
        }
        self.report_other_org(progress.other_org).await?;
        Ok(Step { stage: Some(Stage::Flagged), next: None, listed: 0, made_due, skipped })
    }

    /// Adopts accounts with our mark under a key that the configuration does not list, and counts those that only another
    /// flow's flag denies.
    pub(super) async fn compare_flagged(
        &self,
        run: &ReconcileRun,
        progress: &mut ReconcileProgress,
    ) -> Result<Step, PassError> {
        let since = run.next.as_deref();
        let mut skipped = Vec::new();
        let Some(listed) = self.listed_range(&AccountQuery::FlaggedOnly { since }, "flag", &mut skipped).await? else {
            return Ok(Step { stage: None, next: None, listed: 0, made_due: 0, skipped });
        };
        let org = self.store.okta_org().await?;
        let (mut due, mut foreign) = (BTreeSet::new(), Vec::new());
        for mut record in listed.records.iter().cloned() {
            record.account.claim_marks(org.as_deref(), false);
            let account = &record.account;
            if account.mark.as_ref().is_some_and(|mark| mark.deactivated) {
                self.adopt(&record, since, &mut due, &mut skipped, progress).await?;
            } else if !account.other_marks.denied && !is_repeated(&record, since) {
                foreign.push(account.id.clone());
            }
        }
        // An account that we denied and that kept only the mirror is not foreign: this reconcile restores its mark.
        let ours = self.store.denied_among(&foreign).await?.len() as u64;
        progress.foreign += listed.unread.len() as u64 + (foreign.len() as u64).saturating_sub(ours);
        let made_due = self.queue(due).await?;
        if let Some(next) = listed.next_range(since) {
            return Ok(Step { stage: Some(Stage::Flagged), next: Some(next), listed: 0, made_due, skipped });
        }
        progress.foreign += listed.beyond();
        self.report_foreign_flags(progress.foreign + progress.ownerless).await?;
        Ok(Step { stage: None, next: None, listed: 0, made_due, skipped })
    }

    /// A range of accounts with a mark or a flag; `None` if the search fails, which is noted as skipped.
    async fn listed_range(
        &self,
        query: &AccountQuery<'_>,
        what: &str,
        skipped: &mut Vec<String>,
    ) -> Result<Option<Listed>, PassError> {
        match self.list_marked(query).await {
            Ok(listed) => Ok(Some(listed)),
            Err(CallError::Failed(failure)) => {
                skipped.push(format!("the accounts with a {what} ({failure})"));
                Ok(None)
            }
            Err(paused) => Err(paused.into()),
        }
    }

    /// Adopts an account with our mark, if the state does not know it as denied.
    async fn adopt(
        &self,
        record: &AccountRecord,
        since: Option<&str>,
        due: &mut BTreeSet<OktaUserId>,
        skipped: &mut Vec<String>,
        progress: &mut ReconcileProgress,
    ) -> Result<(), PassError> {
        let (mut account, now) = (record.account.clone(), self.clock.now());
        let org = self.store.okta_org().await?;
        account.claim_marks(org.as_deref(), false);
        if account.unread {
            let known = self.store.denied_among(std::slice::from_ref(&account.id)).await?;
            if !known.contains(&account.id) {
                skipped.push(format!("{} (its mark is too large to read)", account.id));
            }
            return Ok(());
        }
        let Some(mark) = account.mark.as_ref().filter(|mark| mark.deactivated) else { return Ok(()) };
        let again = is_repeated(record, since);
        if mark.other_org(org.as_deref()).is_some() {
            progress.other_org += u64::from(!again);
            return Ok(());
        }
        let Some(owner) = &mark.okta_user_id else {
            progress.ownerless += u64::from(!again);
            return Ok(());
        };
        let known = self.store.known(std::slice::from_ref(owner)).await?;
        if known.get(owner).is_some_and(|user| user.denied.contains(&account.id)) {
            return Ok(());
        }
        // The index lags, so the account is read again by id.
        let current = match self.tried(|| self.read_account(&account.id)).await {
            Ok(Some(mut current)) => {
                current.account.claim_marks(org.as_deref(), false);
                current
            }
            Ok(None) => return Ok(()),
            Err(CallError::Failed(failure)) => {
                skipped.push(format!("{} ({failure})", account.id));
                return Ok(());
            }
            Err(paused) => return Err(paused.into()),
        };
        let still = current
            .account
            .mark
            .as_ref()
            .is_some_and(|mark| mark.deactivated && mark.okta_user_id.as_ref() == Some(owner));
        let denied_at = mark.at.as_deref().and_then(|at| parse_timestamp(at).ok()).unwrap_or(now);
        if still && self.store.adopt_account(owner, &account.id, account.email.as_ref(), denied_at, now).await? {
            due.insert(owner.clone());
        }
        Ok(())
    }

    /// Raises an alarm if another installation writes its marks under our metadata key: an account has room for one of them.
    async fn report_other_org(&self, count: u64) -> Result<(), StoreError> {
        if count == 0 {
            self.store.clear_alarm(AlarmKind::ForeignFlag, OTHER_ORG, self.clock.now()).await?;
            return Ok(());
        }
        let alarm = Alarm::other_org(count);
        if self.store.raise_alarm(&alarm, self.clock.now()).await? {
            self.log_raised(alarm.kind, &alarm.subject);
        }
        Ok(())
    }

    /// Raises an alarm if accounts are denied without a known user: by an earlier flow, by hand, or by a mark that lost its
    /// owner. The daemon adopts them when it denies their user, but never lifts them, so operators have to know.
    async fn report_foreign_flags(&self, count: u64) -> Result<(), StoreError> {
        let now = self.clock.now();
        if count == 0 {
            self.store.clear_alarm(AlarmKind::ForeignFlag, "", now).await?;
            return Ok(());
        }
        let alarm = Alarm::foreign_flag(count);
        if self.store.raise_alarm(&alarm, now).await? {
            self.log_raised(alarm.kind, &alarm.subject);
        }
        Ok(())
    }
}

/// Whether the range before, which ended with the accounts of this moment, has counted the account.
fn is_repeated(record: &AccountRecord, since: Option<&str>) -> bool {
    since.is_some() && record.created_at.as_deref() == since
}
