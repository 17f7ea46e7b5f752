//! Full resync: queues users that the log missed. It never writes to Auth0; the looks do.
//!
//! It reads pages, not single users: a page of Okta's listing is 200 users, a search in Auth0 covers up to 40 addresses. A
//! user on whom both sides agree costs a fraction of a call; any other user gets a look, which reads everything again by id.
//! Both listings lag by about a second, so a recent change can cause a needless look or be missed until the next night. The
//! log covers recent changes.
//!
//! Four stages, each resumable page by page:
//!
//! 1. `known`: users that the state has as denied, held, skipped, failed or without an account.
//! 2. `deniable`: users that Okta lists in one of the denying statuses, without those of the first stage.
//! 3. `marked`: accounts in Auth0 with our mark, for users that the state does not have as denied.
//! 4. `flagged`: accounts that only the mirror shows: our marks under keys that the configuration does not list, which are
//!    adopted too, and accounts that another flow's flag denies, which are only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use super::error::{CallError, PassError};
use super::page_limit::PageLimit;
use super::smaller::AsksForLess;
use super::{Engine, Note};
use crate::auth0::{AccountQuery, AccountRecord, Fields};
use crate::domain::account::Identifier;
use crate::domain::clock::{self, parse_timestamp, timestamp_text};
use crate::domain::decide;
use crate::domain::{
    AccountId, Address, Cause, KnownUser, MarkedAccount, OktaUser, OktaUserId, OutcomeKind, Status, Timestamp, Verdict,
};
use crate::http::Failure;
use crate::http::pacing::Priority;
use crate::okta::{self, UserPage, UserQuery};
use crate::store::{AlarmKind, Known, ReconcileRun, RunCounts, RunKind, StoreError, Unchecked};

mod marks;
mod parts;

/// How far back a reconcile goes by default: as far as Okta's log.
pub const USUAL_SPAN: Duration = Duration::from_secs(90 * 86_400);
/// Users per page of the first stage: the most ids that one request to Okta takes.
const PAGE: u32 = 50;
/// Addresses and Okta ids per search in Auth0: a query of about three kilobytes.
const IDENTIFIERS_A_SEARCH: usize = 40;
/// Skipped users and accounts named in one log line.
const NAMED: usize = 10;

/// Which users to reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All users.
    All,
    /// Users whose status changed since then.
    Since(Timestamp),
}

/// The result of a reconcile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReconcileProgress {
    /// Users checked.
    pub listed: u64,
    /// Users queued for a look.
    pub made_due: u64,
    /// Users, accounts and pages that could not be compared.
    pub skipped: u64,
    /// Accounts with a mark that names no user.
    ownerless: u64,
    /// Accounts with a mark for another Okta org under our metadata key.
    other_org: u64,
    /// Accounts that another flow's flag denies.
    foreign: u64,
    /// The listing of Okta was restarted after a failed page.
    restarted: bool,
    /// It finished.
    pub done: bool,
    /// How many users to list in one page.
    page_limit: Option<PageLimit>,
}

enum Stage {
    Known,
    Deniable,
    Marked,
    Flagged,
}

impl Stage {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Deniable => "deniable",
            Self::Marked => "marked",
            Self::Flagged => "flagged",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "deniable" => Self::Deniable,
            "marked" => Self::Marked,
            "flagged" => Self::Flagged,
            _ => Self::Known,
        }
    }
}

/// The result of one page: where to continue, and what it found.
struct Step {
    stage: Option<Stage>,
    next: Option<String>,
    listed: u64,
    made_due: u64,
    /// What could not be compared: users, accounts, pages.
    skipped: Vec<String>,
}

impl Engine {
    /// Begins a reconcile, which [`Engine::reconcile`] runs. It replaces one that is in progress.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn begin_reconcile(&self, scope: Scope, reason: &str) -> Result<(), StoreError> {
        let scope = match scope {
            Scope::All => ReconcileRun::ALL.to_owned(),
            Scope::Since(since) => timestamp_text(since),
        };
        info!(event = "reconcile_began", %scope, reason, "starting a reconcile: {reason}");
        self.store.begin_reconcile(&scope, reason, Stage::Known.as_str(), self.clock.now()).await
    }

    /// Begins a full reconcile and wakes the reconciler.
    pub(super) async fn request_reconcile_all(&self, reason: &str) -> Result<(), StoreError> {
        self.begin_reconcile(Scope::All, reason).await?;
        self.wakes.reconcile.notify_one();
        Ok(())
    }

    /// Begins the reconcile that is missing, if one is: after a first start, and after an event was dismissed unread. Returns
    /// what it is for.
    pub(super) async fn begin_missing(&self, tried: Option<&Unchecked>) -> Result<Option<Unchecked>, StoreError> {
        let Some(unchecked) = self.store.unchecked().await?.filter(|unchecked| Some(unchecked) != tried) else {
            return Ok(None);
        };
        let since = clock::sub(self.clock.now(), USUAL_SPAN);
        self.begin_reconcile(if unchecked.all { Scope::All } else { Scope::Since(since) }, &unchecked.why).await?;
        Ok(Some(unchecked))
    }

    /// Begins the nightly reconcile.
    pub(super) async fn begin_nightly(&self) -> Result<(), StoreError> {
        let since = clock::sub(self.clock.now(), USUAL_SPAN);
        self.begin_reconcile(Scope::Since(since), "the schedule").await
    }

    /// Continues the reconcile in progress until it finishes or is cancelled.
    ///
    /// # Errors
    /// When a remote or the state fails. The next call resumes after the last stored page.
    pub async fn reconcile(self: &Arc<Self>, stop: &CancellationToken) -> Result<ReconcileProgress, PassError> {
        self.reconcile_noting(true, stop).await
    }

    /// The same. An error alone is recorded as a run if `notes_error`: an interruption is recorded once, not at each attempt.
    pub(super) async fn reconcile_noting(
        self: &Arc<Self>,
        notes_error: bool,
        stop: &CancellationToken,
    ) -> Result<ReconcileProgress, PassError> {
        let started = self.clock.now();
        let mut progress = ReconcileProgress::default();
        let result = self.compare_pages(&mut progress, stop).await;
        let error = match &result {
            Err(error) => Some(error.to_string()),
            Ok(()) => (progress.skipped > 0).then(|| format!("{} skipped; the log names them", progress.skipped)),
        };
        if progress.listed > 0 || (notes_error && error.is_some()) {
            let run = self.store.begin_run(RunKind::Reconcile, started).await?;
            let counts = RunCounts { looks: progress.made_due, ..RunCounts::default() };
            self.store.finish_run(run, counts, error.as_deref(), self.clock.now()).await?;
        }
        result.map(|()| progress)
    }

    async fn compare_pages(&self, progress: &mut ReconcileProgress, stop: &CancellationToken) -> Result<(), PassError> {
        self.org("reconciler").await?;
        self.look_at_action_if_marks_wait().await?;
        while let Some(run) = self.store.current_reconcile().await? {
            self.heartbeats.reconciler.stamp(self.clock.as_ref());
            if stop.is_cancelled() {
                return Ok(());
            }
            let span = info_span!("reconcile_page", stage = %run.stage, listed = run.listed);
            let step = self.compare_page(&run, progress).instrument(span).await?;
            note_skipped(&step.skipped);
            progress.skipped += step.skipped.len() as u64;
            progress.listed += step.listed;
            progress.made_due += step.made_due;
            if step.made_due > 0 {
                self.wakes.apply.notify_one();
            }
            self.note(Note::ReconcilePage { listed: step.listed, made_due: step.made_due });
            match step.stage {
                Some(stage) => {
                    self.store
                        .advance_reconcile(stage.as_str(), step.next.as_deref(), step.listed, step.made_due)
                        .await?;
                }
                None => {
                    let now = self.clock.now();
                    let complete = progress.skipped == 0;
                    self.store.finish_reconcile(complete, now).await?;
                    if run.is_full() && complete {
                        self.store.clear_alarm(AlarmKind::Gap, "", now).await?;
                    }
                    info!(
                        event = "reconcile_done",
                        listed = run.listed,
                        made_due = run.made_due,
                        skipped = progress.skipped,
                        "reconcile finished: {} users checked, {} queued, {} skipped",
                        run.listed,
                        run.made_due,
                        progress.skipped
                    );
                }
            }
        }
        progress.done = true;
        self.update_key_change().await?;
        Ok(())
    }

    async fn compare_page(&self, run: &ReconcileRun, progress: &mut ReconcileProgress) -> Result<Step, PassError> {
        match Stage::parse(&run.stage) {
            Stage::Known => self.compare_known(run).await,
            Stage::Deniable => self.compare_deniable(run, progress).await,
            Stage::Marked => self.compare_marked(run, progress).await,
            Stage::Flagged => self.compare_flagged(run, progress).await,
        }
    }

    /// Checks a page of users that the state has as denied or unfinished against Okta and Auth0.
    async fn compare_known(&self, run: &ReconcileRun) -> Result<Step, PassError> {
        let ids = self.store.users_to_compare(run.next.as_deref(), PAGE).await?;
        let Some(last) = ids.last() else {
            return Ok(Step { stage: Some(Stage::Deniable), next: None, listed: 0, made_due: 0, skipped: Vec::new() });
        };
        let next = Some(last.as_str().to_owned());
        let known = self.store.known(&ids).await?;
        let mut due: BTreeSet<OktaUserId> = BTreeSet::new();
        // While Auth0 refuses to end sessions, one user per page tests whether it still does; the others wait.
        let refused =
            self.store.open_alarms().await?.iter().any(|alarm| alarm.kind == AlarmKind::SessionsUnavailable.as_str());
        let mut owing = if refused { 1 } else { usize::MAX };
        // Held, skipped and failed users always get a look, whatever the listings say.
        let (unfinished, settled): (Vec<&Known>, Vec<&Known>) = known.values().partition(|user| {
            if matches!(user.outcome, Some(OutcomeKind::Held | OutcomeKind::Skipped | OutcomeKind::Failed)) {
                return true;
            }
            let asked = user.owing && owing > 0;
            owing -= usize::from(asked);
            asked
        });
        due.extend(unfinished.iter().map(|user| user.id.clone()));
        let ids_of = |range: Range<usize>| settled[range].iter().map(|user| user.id.clone()).collect();
        let parts = self
            .in_parts(settled.len(), |range| self.list(UserQuery::Ids(ids_of(range)), None, okta::USERS_MAX))
            .await?;
        let mut skipped = Vec::new();
        let mut unanswered: BTreeSet<usize> = BTreeSet::new();
        for (place, failure) in &parts.failed {
            unanswered.insert(*place);
            if parts.are_single_failures() {
                due.insert(settled[*place].id.clone());
            } else {
                skipped.push(format!("{} ({failure})", settled[*place].id));
            }
        }
        let users = parts.answers.into_iter().flat_map(|(_, page)| page.users);
        let now_there: BTreeMap<OktaUserId, OktaUser> = users.map(|user| (user.id.clone(), user)).collect();
        let mut denied: Vec<Candidate> = Vec::new();
        for (place, user) in settled.into_iter().enumerate() {
            if unanswered.contains(&place) {
                continue;
            }
            // Okta does not list deleted users, so a missing user counts as deleted.
            let status = now_there.get(&user.id).map_or(Status::Deleted, |there| there.status.clone());
            // Okta shows the login and e-mail that it hid before, or the reverse.
            let is_news = now_there.get(&user.id).is_some_and(|there| there.hides_addresses() != user.address_hidden);
            let denies = self.options.rules.policy.verdict(&status) == Verdict::Deny;
            if denies && user.status.as_ref() == Some(&status) && !is_news {
                let mut addresses = user.addresses.clone();
                addresses.extend(now_there.get(&user.id).map(OktaUser::addresses).unwrap_or_default());
                denied.push(Candidate::new(&user.id, addresses, &user.denied));
            } else {
                due.insert(user.id.clone());
            }
        }
        due.extend(self.disagreeing(denied, &mut skipped).await?);
        let made_due = self.queue(due).await?;
        Ok(Step { stage: Some(Stage::Known), next, listed: ids.len() as u64, made_due, skipped })
    }

    /// Checks a page of users that Okta lists in a denying status.
    async fn compare_deniable(&self, run: &ReconcileRun, progress: &mut ReconcileProgress) -> Result<Step, PassError> {
        let changed_since = if run.is_full() { None } else { parse_timestamp(&run.scope).ok() };
        let statuses: Vec<Status> = self.options.rules.policy.deny_statuses.iter().cloned().collect();
        let query = UserQuery::Status { statuses, changed_since };
        let cursor = run.next.as_deref();
        let page = match self.listed_page(&query, cursor, progress).await {
            Ok(page) => page,
            Err(CallError::Failed(failure)) => return Ok(past_failed_page(cursor, &failure, progress)),
            Err(paused) => return Err(paused.into()),
        };
        if page.unreadable > 0 {
            warn!(
                event = "unreadable_users",
                count = page.unreadable,
                "Okta listed users that cannot be read; skipping them"
            );
        }
        let ids: Vec<OktaUserId> = page.users.iter().map(|user| user.id.clone()).collect();
        let known = self.store.known(&ids).await?;
        let mut unknown = Vec::new();
        for user in &page.users {
            let before = known.get(&user.id);
            // The first stage covered the user, or a look is queued.
            let dealt_with = before.is_some_and(|before| {
                before.open
                    || !before.denied.is_empty()
                    || matches!(
                        before.outcome,
                        Some(OutcomeKind::Held | OutcomeKind::Skipped | OutcomeKind::Failed | OutcomeKind::NoAccount)
                    )
            });
            if !dealt_with {
                let mut addresses = before.map(|before| before.addresses.clone()).unwrap_or_default();
                addresses.extend(user.addresses());
                unknown.push(Candidate::new(&user.id, addresses, &[]));
            }
        }
        let mut skipped = Vec::new();
        let due = self.disagreeing(unknown, &mut skipped).await?;
        let made_due = self.queue(due).await?;
        let stage = if page.next.is_some() { Stage::Deniable } else { Stage::Marked };
        Ok(Step { stage: Some(stage), next: page.next, listed: page.users.len() as u64, made_due, skipped })
    }

    /// The users, all with the verdict `Deny`, whose accounts disagree according to Auth0's search.
    async fn disagreeing(
        &self,
        users: Vec<Candidate>,
        skipped: &mut Vec<String>,
    ) -> Result<BTreeSet<OktaUserId>, PassError> {
        // Without the search, accounts cannot be read in pages, so every user needs a look.
        if !self.options.search {
            return Ok(users.into_iter().map(|user| user.known.id).collect());
        }
        let policy = &self.options.rules.policy;
        let mut due = BTreeSet::new();
        let mut batch: Vec<Candidate> = Vec::new();
        let mut identifiers = 0;
        let org = self.store.okta_org().await?;
        let may_move_marks = self.store.may_move_marks().await?;
        for mut user in users {
            user.known.okta_org.clone_from(&org);
            user.known.may_move_marks = may_move_marks;
            if policy.is_exempt(&user.known.id, &user.known.addresses) {
                due.insert(user.known.id);
                continue;
            }
            user.identifiers = distinct(policy.identifiers(&user.known.id, &user.known.addresses));
            if !batch.is_empty() && identifiers + user.identifiers.len() > IDENTIFIERS_A_SEARCH {
                due.extend(self.disagreeing_batch(&batch, skipped).await?);
                batch.clear();
                identifiers = 0;
            }
            identifiers += user.identifiers.len();
            batch.push(user);
        }
        if !batch.is_empty() {
            due.extend(self.disagreeing_batch(&batch, skipped).await?);
        }
        Ok(due)
    }

    async fn disagreeing_batch(
        &self,
        batch: &[Candidate],
        skipped: &mut Vec<String>,
    ) -> Result<Vec<OktaUserId>, PassError> {
        let identifiers =
            |range: Range<usize>| batch[range].iter().flat_map(|user| user.identifiers.iter().cloned()).collect();
        let connections = self.options.rules.named_connections();
        let connections = &connections[..];
        let parts = self
            .in_parts(batch.len(), |range| {
                let asked: Vec<Identifier> = identifiers(range);
                async move {
                    match asked.is_empty() {
                        true => Ok((Vec::new(), 0)),
                        false => {
                            let query = AccountQuery::Identities { identifiers: &asked, connections };
                            self.search_all(&query, Fields::All).await
                        }
                    }
                }
            })
            .await?;
        let mut due = Vec::new();
        for (place, failure) in &parts.failed {
            let user = &batch[*place].known.id;
            if parts.are_single_failures() {
                due.push(user.clone());
            } else {
                skipped.push(format!("{user} ({failure})"));
            }
        }
        for (range, (records, total)) in parts.answers {
            // Auth0 has more hits than it returns, so no user of this part is known to agree.
            let complete = total <= records.len() as u64;
            let users = batch[range].iter().filter(|user| !complete || !self.agrees(user, &records));
            due.extend(users.map(|user| user.known.id.clone()));
        }
        Ok(due)
    }

    /// Whether a user is denied on all accounts that a search found.
    fn agrees(&self, user: &Candidate, records: &[AccountRecord]) -> bool {
        let found = records.iter().map(|record| &record.account);
        let accounts = found.filter(|account| account.is_identified_by(&user.identifiers)).cloned().collect();
        decide::agrees(&user.known, &user.identifiers, accounts, &self.options.rules, self.now())
    }

    async fn queue(&self, due: BTreeSet<OktaUserId>) -> Result<u64, PassError> {
        let due: Vec<OktaUserId> = due.into_iter().collect();
        if due.is_empty() { Ok(0) } else { Ok(self.store.queue_for_reconcile(&due, self.clock.now()).await?) }
    }

    /// A page of a listing; a smaller one where it cannot be read whole.
    async fn listed_page(
        &self,
        query: &UserQuery,
        cursor: Option<&str>,
        progress: &mut ReconcileProgress,
    ) -> Result<UserPage, CallError> {
        let limit = progress.page_limit.get_or_insert(PageLimit::between(1, okta::USERS_MAX));
        loop {
            match self.tried(|| self.list(query.clone(), cursor, limit.get())).await {
                Err(error) if error.asks_for_less() && limit.shrink() => {}
                Ok(page) => {
                    limit.note_good();
                    return Ok(page);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn list(&self, query: UserQuery, cursor: Option<&str>, limit: u16) -> Result<UserPage, CallError> {
        let call = || self.okta.list(&query, cursor, limit);
        self.okta_breaker.call(okta::endpoints::USERS, Priority::Reconcile, "reconciler", call).await
    }
}

/// Where to continue after a page of Okta's listing that cannot be read: at its start, since Okta may refuse an old cursor,
/// and the second time with the next stage.
fn past_failed_page(cursor: Option<&str>, failure: &Failure, progress: &mut ReconcileProgress) -> Step {
    if cursor.is_some() && !std::mem::replace(&mut progress.restarted, true) {
        info!(event = "listing_restarted", "{failure}; listing the users of Okta from the start");
        return Step { stage: Some(Stage::Deniable), next: None, listed: 0, made_due: 0, skipped: Vec::new() };
    }
    let skipped = vec![format!("the rest of Okta's users who may be denied ({failure})")];
    Step { stage: Some(Stage::Marked), next: None, listed: 0, made_due: 0, skipped }
}

/// Logs what could not be compared on a page.
fn note_skipped(skipped: &[String]) {
    if skipped.is_empty() {
        return;
    }
    let named = skipped.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let count = skipped.len();
    warn!(event = "reconcile_skipped", count, "reconcile skipped {count}; the next one retries: {named}");
}

/// A user to deny, as the store and the listing show them.
struct Candidate {
    known: KnownUser,
    /// The identifiers that find their accounts.
    identifiers: Vec<Identifier>,
}

impl Candidate {
    fn new(id: &OktaUserId, addresses: Vec<Address>, denied: &[AccountId]) -> Self {
        let marked = |id: &AccountId| MarkedAccount {
            id: id.clone(),
            email: None,
            denied: true,
            blocked: false,
            sessions_owed: false,
            unconfirmed: false,
            unmoved: false,
        };
        let known = KnownUser {
            id: id.clone(),
            okta_org: None,
            may_move_marks: false,
            cause: Cause::Reconcile,
            approved: None,
            recheck_step: 0,
            status: None,
            status_at: None,
            left_at: None,
            returned_at: None,
            present_addresses: addresses.clone(),
            addresses,
            accounts: denied.iter().map(marked).collect(),
            events: Vec::new(),
        };
        Self { known, identifiers: Vec::new() }
    }
}

fn distinct(identifiers: Vec<Identifier>) -> Vec<Identifier> {
    let mut keys = BTreeSet::new();
    identifiers.into_iter().filter(|identifier| keys.insert(identifier.key())).collect()
}

#[cfg(test)]
mod tests;
