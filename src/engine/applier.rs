//! Processes the due queue with bounded concurrency, the most urgent users first, while both remotes accept calls.
//!
//! The store knows which users are due; this module only decides how many looks run. Its memory (the looks in progress, a
//! short list fetched ahead) can be lost at any time without losing a user.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Engine;
use super::sync_user::{Report, failed_attempt};
use crate::domain::clock;
use crate::domain::{OktaUserId, Outcome, decide};
use crate::http::Endpoint;
use crate::store::{DueUser, LookFinish, LookStart, StoreError};
use crate::{auth0, okta};

/// How often to poll the store for due users without a wake-up: requests of other processes, and scheduled looks.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The wait after the store failed.
const STORE_AGAIN: Duration = Duration::from_secs(5);
/// How many due users to fetch ahead, per concurrent look.
const AHEAD: usize = 16;

/// The endpoints that a look needs. While a circuit of one of them is open, at most one look runs, as a probe.
const NEEDED: [Endpoint; 6] = [
    okta::endpoints::USER,
    okta::endpoints::USERS,
    auth0::endpoints::BY_EMAIL,
    auth0::endpoints::ACCOUNT,
    auth0::endpoints::SEARCH,
    auth0::endpoints::PATCH,
];

/// When [`Engine::apply`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// On cancellation.
    Stopped,
    /// When no user with an open reason is due now or within this time.
    Idle(Duration),
}

/// What [`Engine::apply`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Looks that ended.
    pub looks: u64,
    /// Accounts written.
    pub writes: u64,
}

/// The result of a look's task.
type Ended = (OktaUserId, Result<Report, StoreError>);

impl Engine {
    /// Runs looks at all due users.
    ///
    /// On cancellation it starts no new look and waits for the running ones: aborting a look could leave a write
    /// unrecorded. No look waits for a rate limit then; it ends as a snooze.
    ///
    /// # Errors
    /// With [`Until::Idle`], when the state fails; with [`Until::Stopped`] it retries.
    pub async fn apply(self: &Arc<Self>, until: Until, stop: &CancellationToken) -> Result<Applied, StoreError> {
        let mut done = Applied::default();
        let mut running: JoinSet<Ended> = JoinSet::new();
        let mut under_way: HashMap<Id, LookStart> = HashMap::new();
        let mut ahead: VecDeque<DueUser> = VecDeque::new();
        // When a look last ended with an outcome other than a snooze.
        let mut progress = self.clock.monotonic();
        loop {
            self.heartbeats.applier.stamp(self.clock.as_ref());
            crate::failpoint::hang("applier").await;
            let mut wait = ASK_EVERY;
            if !stop.is_cancelled() {
                match self.begin_looks(&mut running, &mut under_way, &mut ahead).await {
                    Ok(Begun::Some) => {}
                    Ok(Begun::Paused(pause)) => wait = pause.min(ASK_EVERY),
                    Err(error) if until == Until::Stopped => {
                        error!(event = "store_failed", %error, "failed to use the state; retrying");
                        wait = STORE_AGAIN;
                    }
                    Err(error) => {
                        drain(&mut running).await;
                        return Err(error);
                    }
                }
            }
            let stopping = stop.is_cancelled();
            if stopping {
                // Before the return, too: other loops may wait for a limit.
                self.okta_breaker.end_waits();
                self.auth0_breaker.end_waits();
            }
            if running.is_empty() {
                if stopping {
                    return Ok(done);
                }
                if let Until::Idle(patience) = until {
                    // Without this limit, a remote that stays down would be probed as long as each single wait is short.
                    let patient = self.clock.monotonic().saturating_sub(progress) <= patience;
                    match self.until_next(patience).await? {
                        Some(next) if patient => wait = next,
                        _ => return Ok(done),
                    }
                }
            }
            tokio::select! {
                Some(ended) = running.join_next_with_id() => {
                    let (id, result) = match ended {
                        Ok((id, (_, result))) => (id, result.map(Some)),
                        Err(panicked) => {
                            let id = panicked.id();
                            (id, self.note_panic(under_way.get(&id)).await)
                        }
                    };
                    under_way.remove(&id);
                    match result {
                        Ok(report) => {
                            let snoozed = report.as_ref().is_some_and(|report| matches!(report.outcome, Outcome::Snooze { .. }));
                            if !snoozed {
                                progress = self.clock.monotonic();
                            }
                            done.looks += 1;
                            done.writes += report.map_or(0, |report| report.writes);
                        }
                        Err(error) if until == Until::Stopped => {
                            error!(event = "store_failed", %error, "failed to record a look; it will be repeated");
                            self.clock.sleep(STORE_AGAIN).await;
                        }
                        Err(error) => {
                            drain(&mut running).await;
                            return Err(error);
                        }
                    }
                }
                () = self.wakes.apply.notified() => ahead.clear(),
                () = self.clock.sleep(wait) => ahead.clear(),
                () = stop.cancelled(), if !stopping => {}
            }
        }
    }

    /// Looks at these users now, one after the other, regardless of the due queue.
    ///
    /// # Errors
    /// When the state fails.
    pub async fn look_at(&self, ids: &[OktaUserId]) -> Result<Vec<Report>, StoreError> {
        let mut reports = Vec::with_capacity(ids.len());
        for id in ids {
            let start = self.store.begin_look(id, self.clock.now()).await?;
            if let Some(claim) = self.claims.claim(&start.id, &start.addresses) {
                reports.push(self.look(&start, claim).await?);
            }
        }
        Ok(reports)
    }

    /// Starts as many looks as the concurrency limit and the circuit breakers allow.
    async fn begin_looks(
        self: &Arc<Self>,
        running: &mut JoinSet<Ended>,
        under_way: &mut HashMap<Id, LookStart>,
        ahead: &mut VecDeque<DueUser>,
    ) -> Result<Begun, StoreError> {
        let pause = self.okta_breaker.open_for(&NEEDED).max(self.auth0_breaker.open_for(&NEEDED));
        let room = match pause {
            None => self.options.concurrency,
            Some(wait) if wait.is_zero() => 1,
            Some(wait) => return Ok(Begun::Paused(wait)),
        };
        if running.len() >= room {
            return Ok(Begun::Some);
        }
        let now = self.clock.now();
        let busy: HashSet<OktaUserId> = under_way.values().map(|start| start.id.clone()).collect();
        if ahead.is_empty() {
            let limit = self.options.concurrency.saturating_mul(AHEAD).saturating_add(running.len());
            let due = self.store.due(now, u32::try_from(limit).unwrap_or(u32::MAX)).await?;
            // A user whose look is in progress is still due, and must not get a second look right after it.
            ahead.extend(due.into_iter().filter(|due| !busy.contains(&due.id)));
        }
        while running.len() < room {
            let Some(due) = ahead.pop_front() else { break };
            if busy.contains(&due.id) {
                continue;
            }
            let start = match self.store.begin_look(&due.id, now).await {
                Ok(start) => start,
                // Another process removed the user since we listed them.
                Err(StoreError::Gone { .. }) => continue,
                Err(error) => return Err(error),
            };
            // Another look holds the address. Its end starts the next round.
            let Some(claim) = self.claims.claim(&start.id, &start.addresses) else { continue };
            let engine = self.clone();
            let look = start.clone();
            let task = running.spawn(async move {
                let result = engine.look(&look, claim).await;
                (look.id, result)
            });
            under_way.insert(task.id(), start);
        }
        Ok(Begun::Some)
    }

    /// The time until the next look is possible. `None`: longer than `patience`, or never.
    async fn until_next(&self, patience: Duration) -> Result<Option<Duration>, StoreError> {
        let Some(due) = self.store.next_open_due().await? else { return Ok(None) };
        let pause = self.okta_breaker.open_for(&NEEDED).max(self.auth0_breaker.open_for(&NEEDED)).unwrap_or_default();
        let wait = clock::since(due, self.clock.now()).max(pause);
        Ok((wait <= patience).then_some(wait.max(Duration::from_millis(10))))
    }

    /// Records a panic as a failed attempt of its user, so that it neither ends the daemon nor repeats at once.
    async fn note_panic(&self, start: Option<&LookStart>) -> Result<Option<Report>, StoreError> {
        let Some(start) = start else { return Ok(None) };
        error!(event = "panicked", user = %start.id, "panic while processing user; please report this bug");
        let why = "a bug in okta-auth0-sync; see its log".to_owned();
        let now = self.clock.now();
        let outcome = failed_attempt(start, self.options.max_attempts, why);
        let known = start.known_user();
        let end = decide::conclude(&known, None, &outcome, false, &self.options.rules, now);
        self.store
            .finish_look(
                LookFinish {
                    user: &start.id,
                    claimed_seq: start.claimed_seq,
                    read: None,
                    outcome: &outcome,
                    depends_on: None,
                    decisions: &[],
                    accounts: &[],
                    belated_event: None,
                    conclusion: end,
                    alarms: &[],
                    policy: &self.policy_text,
                },
                now,
            )
            .await?;
        Ok(None)
    }
}

enum Begun {
    /// All looks that the limit allows and the queue holds.
    Some,
    /// No look: a circuit is open for this long.
    Paused(Duration),
}

/// Waits for running looks: a write that was sent has to be recorded.
async fn drain(running: &mut JoinSet<Ended>) {
    while running.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests;
