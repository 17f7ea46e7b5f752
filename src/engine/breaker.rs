//! The one way to a remote: paced, paused when it is down or refuses us, counted, and reported once.
//!
//! A client classifies an answer; the breaker decides what it means for everybody else. A refusal of our credentials pauses
//! the remote, a refusal of one endpoint pauses that endpoint, no connection pauses the remote, and so do failures across
//! three different users without a success between: but never the failures of one user alone, so that one poison user
//! stops nobody. What is paused is probed by a single call now and then; one success ends the pause.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::domain::backoff::PROBES;
use crate::domain::{Clock, Timestamp, clock};
use crate::http::pacing::{Pacer, Priority};
use crate::http::{Endpoint, Failure, Kind, Remote};
use crate::store::{Alarm, AlarmKind, RemoteError, Store};

use super::supervisor::Pulse;

/// How often something that is refused (401, 403) is tried again.
const REFUSED_PROBE: Duration = Duration::from_secs(60);
/// A 429 names a reset; after so many in a row for one call the look gives way.
const RATE_LIMIT_ROUNDS: u32 = 3;
/// So many different users have to fail before it is the remote's fault.
const SUSPECTS: usize = 3;
/// A remote that has been down so long is worth an alarm.
const ALARM_AFTER: Duration = Duration::from_secs(60);
/// The same error is written down again only after so long.
const NOTE_EVERY: Duration = Duration::from_secs(30);

/// Why a call did not bring an answer.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The remote or the endpoint is paused, by this call or by an earlier one. Nobody's fault but the remote's.
    Paused {
        /// How long, at least.
        wait: Duration,
        /// Why.
        why: String,
    },
    /// This call failed, and says nothing of others.
    Failed(Failure),
}

/// How many calls were made, and how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that were answered as hoped.
    pub ok: u64,
    /// The others, by the kind of failure.
    pub failed: BTreeMap<Kind, u64>,
}

#[derive(Debug)]
struct Pause {
    /// On the monotonic clock.
    until: Duration,
    probes: u32,
    /// One call is on its way to find out whether it is over.
    probing: bool,
    why: String,
}

/// What is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Remote,
    /// By name.
    Endpoint(&'static str),
}

#[derive(Debug, Default)]
struct State {
    pauses: BTreeMap<Scope, Pause>,
    /// Users that failed since the last success.
    suspects: BTreeSet<String>,
    /// Endpoints whose last call found no connection, with the number of answers there had been until then.
    last_unreachable: BTreeMap<&'static str, u64>,
    failing_since: Option<Timestamp>,
    /// Calls that failed since then.
    failures: u64,
    noted: Option<(Kind, Duration)>,
    alarms: BTreeSet<&'static str>,
    /// The last life may have left an error or an alarm behind that only a success ends.
    cleared_previous_run: bool,
    counts: Counts,
}

/// The breaker to one remote.
#[derive(Debug)]
pub struct CircuitBreaker {
    remote: Remote,
    pacer: Pacer,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    pulse: Arc<Pulse>,
    state: Mutex<State>,
}

/// Lets go of a probe, if it is abandoned before its call came back.
struct Probe<'a> {
    breaker: &'a CircuitBreaker,
    scopes: Vec<Scope>,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        let mut state = self.breaker.lock();
        for scope in &self.scopes {
            if let Some(pause) = state.pauses.get_mut(scope) {
                pause.probing = false;
            }
        }
    }
}

impl CircuitBreaker {
    pub(super) fn new(
        remote: Remote,
        pacer: Pacer,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        pulse: Arc<Pulse>,
    ) -> Self {
        Self { remote, pacer, store, clock, pulse, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call when the remote's limits allow it. `subject` is the user it is for (or the loop), so that failures of
    /// one are told from failures of all.
    pub(super) async fn call<T, F, Fut>(
        &self,
        endpoint: Endpoint,
        priority: Priority,
        subject: &str,
        call: F,
    ) -> Result<T, CallError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let mut round = 0;
        loop {
            let probe = self.try_acquire(endpoint)?;
            let clock = self.clock.as_ref();
            let waits = || self.pulse.stamp(subject, clock);
            let permit = self.pacer.acquire_with_heartbeat(endpoint.bucket, priority, clock, waits).await;
            let waiting = clock.waiting();
            let answer = call().await;
            drop(waiting);
            drop(permit);
            let result = match answer {
                Ok(value) => {
                    self.succeeded(endpoint).await;
                    Ok(value)
                }
                // The pacer has seen the answer too: the next permit comes when the bucket has something again.
                Err(failure) if failure.kind == Kind::RateLimited && round < RATE_LIMIT_ROUNDS => {
                    self.count(Some(failure.kind));
                    debug!(remote = %self.remote, endpoint = failure.endpoint, "rate limited: waiting for the reset");
                    round += 1;
                    continue;
                }
                Err(failure) => Err(self.failed(endpoint, subject, failure).await),
            };
            drop(probe);
            return result;
        }
    }

    /// Makes a call that looks do without: it gives way to all others, is not made while the remote is paused, and however
    /// it ends, that says nothing of other calls.
    pub(super) async fn call_best_effort<T, F, Fut>(&self, endpoint: Endpoint, call: F) -> Result<T, CallError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let paused = self.lock().pauses.get(&Scope::Remote).map(|pause| (pause.until, pause.why.clone()));
        if let Some((until, why)) = paused {
            let wait = until.saturating_sub(self.clock.monotonic()).max(Duration::from_secs(1));
            return Err(CallError::Paused { wait, why });
        }
        let permit = self.pacer.acquire(endpoint.bucket, Priority::Sweep, self.clock.as_ref()).await;
        let answer = call().await;
        drop(permit);
        self.count(answer.as_ref().err().map(|failure| failure.kind));
        answer.map_err(CallError::Failed)
    }

    /// How long everything that goes through here has to wait, if it has to; what is paused for some other endpoint than
    /// these does not count.
    pub(super) fn open_for(&self, endpoints: &[Endpoint]) -> Option<Duration> {
        let now = self.clock.monotonic();
        let state = self.lock();
        let relevant = |scope: &Scope| match scope {
            Scope::Remote => true,
            Scope::Endpoint(name) => endpoints.iter().any(|endpoint| endpoint.name == *name),
        };
        state.pauses.iter().filter(|(scope, _)| relevant(scope)).map(|(_, pause)| pause.until.saturating_sub(now)).max()
    }

    /// How many calls were made, and how they ended.
    pub fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// The pacer, for its figures.
    pub fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// Passes, or says for how long nobody does. The first to come after a pause has run out is the probe.
    fn try_acquire(&self, endpoint: Endpoint) -> Result<Probe<'_>, CallError> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let scopes = [Scope::Remote, Scope::Endpoint(endpoint.name)];
        for scope in scopes {
            if let Some(pause) = state.pauses.get(&scope) {
                let wait = pause.until.saturating_sub(now);
                if !wait.is_zero() || pause.probing {
                    return Err(CallError::Paused { wait: wait.max(Duration::from_secs(1)), why: pause.why.clone() });
                }
            }
        }
        let mut probed = Vec::new();
        for scope in scopes {
            if let Some(pause) = state.pauses.get_mut(&scope) {
                pause.probing = true;
                probed.push(scope);
            }
        }
        Ok(Probe { breaker: self, scopes: probed })
    }

    fn count(&self, failed: Option<Kind>) {
        let counts = &mut self.lock().counts;
        match failed {
            None => counts.ok += 1,
            Some(kind) => *counts.failed.entry(kind).or_default() += 1,
        }
    }

    /// The remote answered as a remote that is well does.
    async fn succeeded(&self, endpoint: Endpoint) {
        self.count(None);
        self.mark_healthy(endpoint).await;
    }

    async fn mark_healthy(&self, endpoint: Endpoint) {
        let (over, first, alarms) = {
            let mut state = self.lock();
            state.suspects.clear();
            state.last_unreachable.remove(endpoint.name);
            state.pauses.remove(&Scope::Remote);
            state.pauses.remove(&Scope::Endpoint(endpoint.name));
            let first = !state.cleared_previous_run;
            // While another endpoint is refused, the remote is not well as a whole.
            if !state.pauses.is_empty() || (!first && state.failing_since.is_none()) {
                return;
            }
            state.cleared_previous_run = true;
            state.noted = None;
            let over = state.failing_since.take().map(|since| (since, std::mem::take(&mut state.failures)));
            (over, first, std::mem::take(&mut state.alarms))
        };
        let now = self.clock.now();
        if let Some((since, failures)) = over {
            info!(
                event = "remote_back", remote = %self.remote, failures,
                seconds = clock::since(now, since).as_secs(), "{} is back", self.remote
            );
        }
        let written = async {
            self.store.note_remote_ok(self.name(), now).await?;
            for kind in [AlarmKind::RemoteDown, AlarmKind::RemoteRefuses] {
                if first || alarms.contains(kind.as_str()) {
                    self.store.clear_alarm(kind, self.name(), now).await?;
                }
            }
            Ok::<(), crate::store::StoreError>(())
        };
        if let Err(error) = written.await {
            warn!(%error, "could not note that {} is back", self.remote);
        }
    }

    async fn failed(&self, endpoint: Endpoint, subject: &str, failure: Failure) -> CallError {
        self.count(Some(failure.kind));
        // A remote that refuses one request, or does not have one thing, is well.
        if matches!(failure.kind, Kind::NotFound | Kind::Rejected) {
            self.mark_healthy(endpoint).await;
            return CallError::Failed(failure);
        }
        let now = self.clock.monotonic();
        let (pause, first) = {
            let mut state = self.lock();
            let scope = match failure.kind {
                Kind::Unauthorized => Some(Scope::Remote),
                // Only this endpoint breaks, again and again, while others are answered: a pause of the remote would be
                // ended by those others each time, and the user never come to an attempt.
                Kind::Unreachable => {
                    let answered = state.counts.ok;
                    let alone =
                        state.last_unreachable.insert(endpoint.name, answered).is_some_and(|before| answered > before);
                    (!alone).then_some(Scope::Remote)
                }
                // A token that is not given out is needed everywhere.
                Kind::Forbidden if failure.endpoint.contains("/token") => Some(Scope::Remote),
                Kind::Forbidden => Some(Scope::Endpoint(endpoint.name)),
                Kind::RateLimited => None,
                Kind::Server | Kind::Timeout | Kind::Malformed => {
                    state.suspects.insert(subject.to_owned());
                    (state.suspects.len() >= SUSPECTS || state.pauses.contains_key(&Scope::Remote))
                        .then_some(Scope::Remote)
                }
                Kind::NotFound | Kind::Rejected => None,
            };
            let first = scope.is_some() && state.failing_since.is_none();
            if scope.is_some() {
                state.failing_since.get_or_insert_with(|| self.clock.now());
                state.failures += 1;
            }
            let pause = scope.map(|scope| {
                let probes = state.pauses.get(&scope).map_or(0, |pause| pause.probes) + 1;
                let wait = match failure.kind {
                    Kind::Unauthorized | Kind::Forbidden => REFUSED_PROBE,
                    _ => PROBES.wait(probes, fastrand::f64()),
                };
                let why = failure.to_string();
                // Calls that were under way when the pause began must not each double it.
                let until = match state.pauses.get(&scope) {
                    Some(pause) if pause.until > now => pause.until,
                    _ => now + wait,
                };
                let probes =
                    if state.pauses.get(&scope).is_some_and(|pause| pause.until > now) { probes - 1 } else { probes };
                state.pauses.insert(scope, Pause { until, probes, probing: false, why: why.clone() });
                (until.saturating_sub(now).max(Duration::from_secs(1)), why)
            });
            (pause, first)
        };
        self.report(&failure, first).await;
        match pause {
            Some((wait, why)) => CallError::Paused { wait, why },
            None if failure.kind == Kind::RateLimited => CallError::Paused {
                wait: failure.retry_after.unwrap_or(Duration::from_secs(5)).max(Duration::from_secs(1)),
                why: failure.to_string(),
            },
            None => CallError::Failed(failure),
        }
    }

    /// Once in the log when it begins, in the store now and then, as an alarm when it lasts or when a person has to act.
    async fn report(&self, failure: &Failure, first: bool) {
        let now = self.clock.now();
        let refused = matches!(failure.kind, Kind::Unauthorized | Kind::Forbidden);
        if first {
            warn!(
                event = if refused { "remote_refuses" } else { "remote_down" },
                remote = %self.remote, kind = failure.kind.as_str(), endpoint = failure.endpoint,
                "{failure}; looks wait, nothing is lost, one line will say when it is back"
            );
        }
        let (note, alarm) = {
            let mut state = self.lock();
            let monotonic = self.clock.monotonic();
            let note =
                state.noted.is_none_or(|(kind, at)| kind != failure.kind || monotonic.saturating_sub(at) >= NOTE_EVERY);
            if note {
                state.noted = Some((failure.kind, monotonic));
            }
            let lasting = state.failing_since.is_some_and(|since| clock::since(now, since) >= ALARM_AFTER);
            let kind = if refused { AlarmKind::RemoteRefuses } else { AlarmKind::RemoteDown };
            let alarm = ((refused || lasting) && state.alarms.insert(kind.as_str())).then_some(kind);
            (note, alarm)
        };
        let written = async {
            if note {
                let text = failure.to_string();
                let error = RemoteError { remote: self.name(), kind: failure.kind.as_str(), text: &text };
                self.store.note_remote_error(error, now).await?;
            }
            if let Some(kind) = alarm {
                let alarm = Alarm::remote(kind, self.remote, self.name(), failure);
                self.store.raise_alarm(&alarm, now).await?;
            }
            Ok::<(), crate::store::StoreError>(())
        };
        if let Err(error) = written.await {
            warn!(%error, "could not note the failure of {}", self.remote);
        }
    }

    fn name(&self) -> &'static str {
        match self.remote {
            Remote::Okta => "okta",
            Remote::Auth0 => "auth0",
        }
    }
}

#[cfg(test)]
mod tests;
