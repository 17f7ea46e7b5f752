//! The circuit breaker in front of each remote: every call passes through it, is paced, counted, and reported once.
//!
//! A client classifies a response; the breaker decides what it means for other calls. A refused credential, a missing
//! connection, or failures for three different users without a success in between open the circuit of the whole remote.
//! An endpoint that refuses three different users, or one loop, opens its own circuit. Failures of one user alone open
//! nothing: they are attempts of that user. An open circuit is probed by one
//! call now and then, and one success closes it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::domain::backoff::PROBES;
use crate::domain::{Clock, Timestamp, clock};
use crate::http::pacing::{Bucket, Pacer, Permit, Priority};
use crate::http::{Endpoint, Failure, Kind, Remote};
use crate::store::{Alarm, AlarmKind, RemoteError, Store};

use super::calls::{RATE_LIMITED, Retryable, with_retries};
use super::error::CallError;
use super::heartbeat::Heartbeats;
use circuit::{Circuit, WAIT_MIN};
use limits::Limits;

pub use limits::Limit;

mod circuit;
mod limits;

/// Time between probes after a refusal (401, 403).
const REFUSED_PROBE: Duration = Duration::from_secs(60);
/// Failures of this many different users are the remote's fault.
const SUSPECTS: usize = 3;
/// Auth0's code for a token that lacks a scope, which concerns every user.
const MISSING_SCOPE: &str = "insufficient_scope";
/// A remote that is down for this long raises an alarm.
const ALARM_AFTER: Duration = Duration::from_secs(60);
/// The same error is stored again only after this long.
const NOTE_EVERY: Duration = Duration::from_secs(30);

/// How many calls were made, and how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that succeeded.
    pub ok: u64,
    /// Failed calls by the kind of failure.
    pub failed: BTreeMap<Kind, u64>,
}

/// What a circuit protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Remote,
    /// By name.
    Endpoint(&'static str),
}

/// What a call is for.
struct Subject<'a> {
    /// A user's id, or the name of a loop.
    name: &'a str,
    is_loop: bool,
}

#[derive(Debug, Default)]
struct State {
    /// A missing circuit is closed.
    circuits: BTreeMap<Scope, Circuit>,
    /// Users that failed since the last success.
    suspects: BTreeSet<String>,
    /// Users whom an endpoint refused since its last success.
    refused: BTreeMap<&'static str, BTreeSet<String>>,
    /// Endpoints whose last call found no connection, with the number of successful calls before it.
    last_unreachable: BTreeMap<&'static str, u64>,
    failing_since: Option<Timestamp>,
    /// Since when no call has been answered, by the monotonic clock: refusals of one endpoint do not count.
    down_since: Option<Duration>,
    /// Calls that failed since then.
    failures: u64,
    /// The error that is stored, what it concerns, and when it was stored.
    noted: Option<(Kind, Option<Bucket>, Duration)>,
    /// Kinds of calls that the remote refuses with 429.
    limits: Limits,
    alarms: BTreeSet<&'static str>,
    /// The error and the alarms that a previous run left in the store were cleared, by the first success.
    cleared_previous_run: bool,
    counts: Counts,
}

impl State {
    /// Whether an error is to be stored: another one than the last, or the same after a while.
    fn should_note(&mut self, kind: Kind, bucket: Option<Bucket>, now: Duration) -> bool {
        let is_known = self
            .noted
            .is_some_and(|(known, its, at)| (known, its) == (kind, bucket) && now.saturating_sub(at) < NOTE_EVERY);
        if !is_known {
            self.noted = Some((kind, bucket, now));
        }
        !is_known
    }

    /// The circuit that a failure opens. `None`: it says nothing about other calls.
    fn scope_of(&mut self, endpoint: Endpoint, subject: &Subject<'_>, failure: &Failure) -> Option<Scope> {
        match failure.kind {
            Kind::Unauthorized => Some(Scope::Remote),
            // If other endpoints work, their successes would close the remote's circuit each time, and the user would never
            // use up an attempt.
            Kind::Unreachable if !failure.is_partial => {
                let answered = self.counts.ok;
                let before = self.last_unreachable.insert(endpoint.name, answered);
                let is_alone = before.is_some_and(|before| answered > before);
                (!is_alone).then_some(Scope::Remote)
            }
            // Every call needs the token.
            Kind::Forbidden if failure.endpoint.contains("/token") => Some(Scope::Remote),
            Kind::Forbidden => {
                let scope = Scope::Endpoint(endpoint.name);
                // A missing scope, or a refused loop, is not about a single user.
                if subject.is_loop || failure.code.as_deref() == Some(MISSING_SCOPE) {
                    return Some(scope);
                }
                let refused = self.refused.entry(endpoint.name).or_default();
                refused.insert(subject.name.to_owned());
                (refused.len() >= SUSPECTS || self.circuits.contains_key(&scope)).then_some(scope)
            }
            // A response that was cut says no more about the remote than a malformed one.
            Kind::Server | Kind::Timeout | Kind::Malformed | Kind::Unreachable => {
                self.suspects.insert(subject.name.to_owned());
                let is_remote = self.suspects.len() >= SUSPECTS || self.circuits.contains_key(&Scope::Remote);
                is_remote.then_some(Scope::Remote)
            }
            Kind::RateLimited | Kind::NotFound | Kind::Rejected | Kind::TooLarge => None,
        }
    }
}

/// A failed attempt at a call.
enum Attempt {
    /// Rate-limited: another attempt is due at once, since the pacer waits.
    RateLimited(Failure),
    /// The call is over.
    Ended(CallError),
}

impl Retryable for Attempt {
    fn retry_after(&self, _attempts: u32) -> Option<Duration> {
        matches!(self, Self::RateLimited(_)).then_some(Duration::ZERO)
    }
}

/// What a successful call ended.
enum Recovery {
    None,
    /// The remote was down and answers again, but refuses an endpoint.
    Answers,
    /// It answers again, but limits another kind of call.
    Limited {
        /// Since when it failed, and how many calls did.
        over: Option<(Timestamp, u64)>,
        /// The alarms that were raised.
        alarms: BTreeSet<&'static str>,
    },
    /// Nothing is refused any more.
    Full {
        /// Since when it failed, and how many calls did.
        over: Option<(Timestamp, u64)>,
        /// It is the first good response of this process.
        first: bool,
        /// The alarms that were raised.
        alarms: BTreeSet<&'static str>,
    },
}

/// The circuit breaker of one remote.
#[derive(Debug)]
pub struct CircuitBreaker {
    remote: Remote,
    pacer: Pacer,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    heartbeats: Arc<Heartbeats>,
    /// Cancelled at shutdown. After that, no call waits for a rate limit.
    shutdown: CancellationToken,
    state: Mutex<State>,
}

/// A passing call. If it is dropped without a result, the next call may be the probe.
struct Probe<'a> {
    breaker: &'a CircuitBreaker,
    scopes: Vec<Scope>,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        let mut state = self.breaker.lock();
        for scope in &self.scopes {
            if let Some(circuit) = state.circuits.get_mut(scope) {
                circuit.abandon_probe();
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
        heartbeats: Arc<Heartbeats>,
    ) -> Self {
        Self { remote, pacer, store, clock, heartbeats, shutdown: CancellationToken::new(), state: Mutex::default() }
    }

    /// Ends all waits for a rate limit, which may last an hour. Calls that do not have to wait are still made.
    pub(super) fn end_waits(&self) {
        self.shutdown.cancel();
    }

    /// Waits until the remote's limits allow a call.
    async fn permit(&self, endpoint: Endpoint, priority: Priority, on_wait: impl Fn()) -> Result<Permit, CallError> {
        tokio::select! {
            biased;
            permit = self.pacer.acquire_with_heartbeat(endpoint.bucket, priority, self.clock.as_ref(), on_wait) => Ok(permit),
            () = self.shutdown.cancelled() => {
                let why = format!("shutting down while {} limits our calls", self.remote);
                Err(CallError::Paused { wait: WAIT_MIN, why })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call when the circuit is closed and the remote's limits allow it. `subject` is the user, or the loop, that
    /// it is for: failures of one subject alone do not open the circuit.
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
        let attempt = || self.attempt(endpoint, priority, subject, &call);
        match with_retries(RATE_LIMITED, self.clock.as_ref(), attempt).await {
            Ok(value) => Ok(value),
            Err(Attempt::Ended(error)) => Err(error),
            Err(Attempt::RateLimited(failure)) => Err(self.failed(endpoint, subject, failure).await),
        }
    }

    async fn attempt<T, F, Fut>(
        &self,
        endpoint: Endpoint,
        priority: Priority,
        subject: &str,
        call: &F,
    ) -> Result<T, Attempt>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let _probe = self.try_acquire(endpoint).map_err(Attempt::Ended)?;
        let clock = self.clock.as_ref();
        let on_wait = || self.heartbeats.stamp(subject, clock);
        let permit = self.permit(endpoint, priority, on_wait).await.map_err(Attempt::Ended)?;
        let waiting = clock.waiting();
        let result = call().await;
        drop(waiting);
        drop(permit);
        self.count(result.as_ref().err().map(|failure| failure.kind));
        match result {
            Ok(value) => {
                self.mark_healthy(endpoint).await;
                Ok(value)
            }
            Err(failure) if failure.kind == Kind::RateLimited => {
                self.report_limit(endpoint, &failure).await;
                Err(Attempt::RateLimited(failure))
            }
            Err(failure) => Err(Attempt::Ended(self.failed(endpoint, subject, failure).await)),
        }
    }

    /// Makes a call that no look depends on: all others take priority, it is refused while the remote's circuit is open,
    /// and its result changes no circuit.
    pub(super) async fn call_best_effort<T, F, Fut>(&self, endpoint: Endpoint, call: F) -> Result<T, CallError>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let open =
            self.lock().circuits.get(&Scope::Remote).and_then(Circuit::trip).map(|trip| (trip.until, trip.why.clone()));
        if let Some((until, why)) = open {
            let wait = until.saturating_sub(self.clock.monotonic()).max(WAIT_MIN);
            return Err(CallError::Paused { wait, why });
        }
        let permit = self.permit(endpoint, Priority::Reconcile, || ()).await?;
        let answer = call().await;
        drop(permit);
        self.count(answer.as_ref().err().map(|failure| failure.kind));
        answer.map_err(CallError::Failed)
    }

    /// How long calls of these endpoints have to wait, if their circuit or the remote's is open.
    pub(super) fn open_for(&self, endpoints: &[Endpoint]) -> Option<Duration> {
        let now = self.clock.monotonic();
        let state = self.lock();
        let relevant = |scope: &Scope| match scope {
            Scope::Remote => true,
            Scope::Endpoint(name) => endpoints.iter().any(|endpoint| endpoint.name == *name),
        };
        let circuits = state.circuits.iter().filter(|(scope, _)| relevant(scope));
        circuits.filter_map(|(_, circuit)| circuit.trip()).map(|trip| trip.until.saturating_sub(now)).max()
    }

    /// How many calls were made, and how they ended.
    pub fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// The pacer, for its figures.
    pub fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// Lets a call pass, or says how long callers have to wait. The first call after that time is the probe.
    fn try_acquire(&self, endpoint: Endpoint) -> Result<Probe<'_>, CallError> {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        let scopes = [Scope::Remote, Scope::Endpoint(endpoint.name)];
        for circuit in scopes.iter().filter_map(|scope| state.circuits.get(scope)) {
            if let Some((wait, why)) = circuit.refusal(now) {
                return Err(CallError::Paused { wait, why });
            }
        }
        let mut probed = Vec::new();
        for scope in scopes {
            if let Some(circuit) = state.circuits.get_mut(&scope) {
                circuit.begin_probe();
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

    /// A response that shows a working remote closes the circuits that it passed.
    async fn mark_healthy(&self, endpoint: Endpoint) {
        let (over, first, alarms, is_limited) = match self.close_circuits(endpoint) {
            Recovery::None => return,
            Recovery::Answers => return self.end_down_alarm().await,
            Recovery::Limited { over, alarms } => (over, false, alarms, true),
            Recovery::Full { over, first, alarms } => (over, first, alarms, false),
        };
        let now = self.clock.now();
        if let Some((since, failures)) = over {
            info!(
                event = "remote_back", remote = %self.remote, failures,
                seconds = clock::since(now, since).as_secs(), "{} recovered", self.remote
            );
        }
        let written = async {
            if is_limited {
                self.store_limit(now).await?;
            } else {
                self.store.note_remote_ok(self.name(), now).await?;
            }
            for kind in [AlarmKind::RemoteDown, AlarmKind::RemoteRefuses] {
                if first || alarms.contains(kind.as_str()) {
                    self.store.clear_alarm(kind, self.name(), now).await?;
                }
            }
            Ok::<(), crate::store::StoreError>(())
        };
        if let Err(error) = written.await {
            warn!(%error, "failed to store the recovery of {}", self.remote);
        }
    }

    fn close_circuits(&self, endpoint: Endpoint) -> Recovery {
        let mut state = self.lock();
        state.suspects.clear();
        state.refused.remove(endpoint.name);
        state.last_unreachable.remove(endpoint.name);
        state.limits.end(endpoint.bucket);
        state.circuits.remove(&Scope::Remote);
        state.circuits.remove(&Scope::Endpoint(endpoint.name));
        state.down_since = None;
        // The remote as a whole is not healthy while it refuses another endpoint, but it is not down.
        if !state.circuits.is_empty() {
            let was_down = state.alarms.remove(AlarmKind::RemoteDown.as_str());
            return if was_down { Recovery::Answers } else { Recovery::None };
        }
        // Nor while it limits another kind of call: the work that waits for that one would wait unseen.
        if let Some(bucket) = state.limits.oldest().map(|limit| limit.bucket) {
            let is_noted = matches!(state.noted, Some((Kind::RateLimited, Some(noted), _)) if noted == bucket);
            if is_noted && state.failing_since.is_none() {
                return Recovery::None;
            }
            state.noted = Some((Kind::RateLimited, Some(bucket), self.clock.monotonic()));
            let over = state.failing_since.take().map(|since| (since, std::mem::take(&mut state.failures)));
            return Recovery::Limited { over, alarms: std::mem::take(&mut state.alarms) };
        }
        let first = !state.cleared_previous_run;
        if !first && state.failing_since.is_none() && state.noted.is_none() {
            return Recovery::None;
        }
        state.cleared_previous_run = true;
        state.noted = None;
        let over = state.failing_since.take().map(|since| (since, std::mem::take(&mut state.failures)));
        Recovery::Full { over, first, alarms: std::mem::take(&mut state.alarms) }
    }

    async fn end_down_alarm(&self) {
        if let Err(error) = self.store.clear_alarm(AlarmKind::RemoteDown, self.name(), self.clock.now()).await {
            warn!(%error, "failed to clear an alarm");
        }
    }

    async fn failed(&self, endpoint: Endpoint, subject: &str, failure: Failure) -> CallError {
        // A remote that rejects one request, does not have one thing, or has more than we read, is healthy.
        if matches!(failure.kind, Kind::NotFound | Kind::Rejected | Kind::TooLarge) {
            self.mark_healthy(endpoint).await;
            return CallError::Failed(failure);
        }
        if failure.kind == Kind::RateLimited {
            let wait = self.limit_wait(endpoint, &failure).max(WAIT_MIN);
            return CallError::Paused { wait, why: failure.to_string() };
        }
        let (wait, first) = self.trip(endpoint, subject, &failure);
        // A user whom the remote refuses is that user's failed attempt, not the remote's state.
        if wait.is_some() || failure.kind != Kind::Forbidden {
            self.report(&failure, first).await;
        }
        match wait {
            Some(wait) => CallError::Paused { wait, why: failure.to_string() },
            None => CallError::Failed(failure),
        }
    }

    /// Opens the circuit that `failure` concerns, if any. Returns the wait, and whether the remote was healthy before.
    fn trip(&self, endpoint: Endpoint, subject: &str, failure: &Failure) -> (Option<Duration>, bool) {
        let mut state = self.lock();
        let subject = Subject { name: subject, is_loop: self.heartbeats.is_loop(subject) };
        let Some(scope) = state.scope_of(endpoint, &subject, failure) else { return (None, false) };
        let first = state.failing_since.is_none();
        state.failing_since.get_or_insert_with(|| self.clock.now());
        state.failures += 1;
        if scope == Scope::Remote {
            state.down_since.get_or_insert_with(|| self.clock.monotonic());
        }
        let circuit = state.circuits.entry(scope).or_default();
        let wait = circuit.open(self.clock.monotonic(), failure.to_string(), |probes| match failure.kind {
            Kind::Unauthorized | Kind::Forbidden => REFUSED_PROBE,
            _ => PROBES.wait(probes, fastrand::f64()),
        });
        (Some(wait), first)
    }

    /// Logs the first failure, stores the error now and then, and raises an alarm if it lasts or an operator has to act.
    async fn report(&self, failure: &Failure, first: bool) {
        let now = self.clock.now();
        let refused = matches!(failure.kind, Kind::Unauthorized | Kind::Forbidden);
        if first {
            warn!(
                event = if refused { "remote_refuses" } else { "remote_down" },
                remote = %self.remote, kind = failure.kind.as_str(), endpoint = failure.endpoint,
                "{failure}; pausing calls until it recovers"
            );
        }
        let (note, alarm) = {
            let mut state = self.lock();
            let monotonic = self.clock.monotonic();
            let note = state.should_note(failure.kind, None, monotonic);
            let lasting = state.down_since.is_some_and(|since| monotonic.saturating_sub(since) >= ALARM_AFTER);
            let kind = if refused { AlarmKind::RemoteRefuses } else { AlarmKind::RemoteDown };
            let alarm = ((refused || lasting) && state.alarms.insert(kind.as_str())).then_some(kind);
            (note, alarm)
        };
        let written = async {
            if note {
                let text = failure.to_string();
                let error =
                    RemoteError { remote: self.name(), kind: failure.kind.as_str(), text: &text, next_call_at: None };
                self.store.note_remote_error(error, now).await?;
            }
            if let Some(kind) = alarm {
                let alarm = Alarm::remote(kind, self.remote, self.name(), failure);
                self.store.raise_alarm(&alarm, now).await?;
            }
            Ok::<(), crate::store::StoreError>(())
        };
        if let Err(error) = written.await {
            warn!(%error, "failed to store the error of {}", self.remote);
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
