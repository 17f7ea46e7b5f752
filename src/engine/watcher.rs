//! Watches Auth0's event stream: an account that a user who left creates later, or a mark that something removes, makes the
//! user due within a moment instead of at the next reconcile.
//!
//! An event is a ping: [`crate::domain::account_event`] decides whether it makes a user due, and the look decides the rest. The
//! users and the offset are stored in one transaction; an offset alone is stored once a second. Nothing that goes wrong here
//! opens a circuit breaker or slows down another call: without the stream, everything works as before.

mod failures;

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::error::PassError;
use super::{Engine, Fatal, Note};
use crate::auth0::{AccountStream, StreamBatch, StreamStart, endpoints};
use crate::domain::account_event::makes_due;
use crate::domain::backoff::STREAMS;
use crate::domain::{AccountEvent, WatchMode, clock, timestamp_text};
use crate::failpoint;
use crate::http::Failure;
use crate::store::{DueByAccount, StreamPage, StreamPosition, WatcherState, seen_hash};
use failures::{Step, step_after};

/// How often the waiting loop stamps its heartbeat.
const STAMP_EVERY: Duration = Duration::from_secs(1);
/// An offset alone is stored this often …
const STORE_EVERY: Duration = Duration::from_secs(1);
/// … and without a new offset, the sign of life.
const LIVE_EVERY: Duration = Duration::from_secs(15);
/// A stream without any data for this long is dead. Auth0 sends heartbeats, and closes every stream after a few minutes.
const SILENT_MAX: Duration = Duration::from_secs(90);
/// How far before the last complete moment to resume by time: events may come out of order, and clocks differ.
const OVERLAP: Duration = Duration::from_secs(600);
/// The wait before the next connection, after Auth0 closed one as it does every few minutes.
const RECONNECT: Duration = Duration::from_secs(1);
/// How often unreadable events may ask for a reconcile.
const MISS_EVERY: Duration = Duration::from_secs(3600);

/// How a connection ended.
enum Ended {
    /// The daemon stops.
    Stopped,
    /// Auth0 closed it.
    Closed,
    /// No data came for too long.
    Silent,
    /// Auth0 reported an error in the stream, or the connection broke.
    Broken(Failure),
}

/// One open connection.
struct Connection {
    stream: AccountStream,
    position: StreamPosition,
    /// The offset that is not stored yet.
    offset: Option<String>,
    opened_at: Duration,
    /// When data last came.
    heard_at: Option<Duration>,
    /// When the position was stored; `None`: the stream has shown no sign of life yet.
    stored_at: Option<Duration>,
}

/// What the loop remembers between connections.
#[derive(Default)]
struct Memory {
    attempts: u32,
    /// The state that was logged last.
    logged: Option<WatcherState>,
    /// When unreadable events last asked for a reconcile.
    missed_at: Option<Duration>,
}

impl Engine {
    /// Watches until cancelled.
    ///
    /// # Errors
    /// When the state cannot be used at all.
    pub async fn watch_loop(&self, stop: &CancellationToken) -> Result<(), Fatal> {
        let mode = self.options.events;
        self.store.note_watcher_start(mode, self.now()).await?;
        let mut memory = Memory::default();
        while !stop.is_cancelled() {
            self.heartbeats.watcher.stamp(self.clock.as_ref());
            failpoint::hang("watcher").await;
            let wait = if mode == WatchMode::Never {
                SILENT_MAX
            } else {
                match self.watch_once(&mut memory, stop).await {
                    Ok(wait) => wait,
                    Err(PassError::Store(error)) if error.is_configuration() => return Err(error.into()),
                    Err(error) => {
                        error!(event = "store_failed", %error, "failed to store events of Auth0; they will be requested again");
                        STREAMS.longest
                    }
                }
            };
            self.wait_stamping(wait, stop).await;
        }
        Ok(())
    }

    async fn wait_stamping(&self, wait: Duration, stop: &CancellationToken) {
        let until = self.clock.monotonic().saturating_add(wait);
        while !stop.is_cancelled() {
            self.heartbeats.watcher.stamp(self.clock.as_ref());
            let left = until.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.clock.sleep(left.min(STAMP_EVERY)) => {}
            }
        }
    }

    /// Opens the stream and reads it until it ends. Returns the wait before the next connection.
    async fn watch_once(&self, memory: &mut Memory, stop: &CancellationToken) -> Result<Duration, PassError> {
        let position = self.store.stream_position().await?;
        let start = match (&position.next, position.complete_at) {
            (Some(offset), _) => StreamStart::After(offset.clone()),
            (None, Some(at)) => StreamStart::Since(clock::sub(at, OVERLAP)),
            (None, None) => StreamStart::Now,
        };
        // Before the request, so that a silent stream is not taken for a younger one.
        let opened_at = self.clock.monotonic();
        let opened = tokio::select! {
            opened = self.open_stream(&start) => opened,
            () = stop.cancelled() => return Ok(Duration::ZERO),
        };
        let stream = match opened {
            Ok(stream) => stream,
            Err(error) => {
                memory.attempts = memory.attempts.saturating_add(1);
                let step = step_after(&error, &start, self.options.events);
                return self.take_step(step, &position, memory).await;
            }
        };
        let mut connection = Connection { stream, position, offset: None, opened_at, heard_at: None, stored_at: None };
        let ended = self.read_stream(&mut connection, memory, stop).await;
        self.note(Note::Stream { is_open: false });
        self.after_connection(ended?, memory).await
    }

    async fn open_stream(&self, start: &StreamStart) -> Result<AccountStream, super::CallError> {
        let breaker = &self.auth0_breaker;
        let scopes = breaker.call_best_effort(endpoints::EVENTS, || self.auth0.granted_scopes()).await?;
        if !scopes.is_empty() && !scopes.iter().any(|scope| scope == failures::SCOPE) {
            return Err(failures::missing_scope());
        }
        breaker.call_best_effort(endpoints::EVENTS, || self.auth0.open_events(start)).await
    }

    /// Reads until the stream ends.
    async fn read_stream(
        &self,
        connection: &mut Connection,
        memory: &mut Memory,
        stop: &CancellationToken,
    ) -> Result<Ended, PassError> {
        loop {
            self.heartbeats.watcher.stamp(self.clock.as_ref());
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.store_if_due(connection, Duration::ZERO).await?;
                    return Ok(Ended::Stopped);
                }
                read = connection.stream.next() => Some(read),
                () = self.clock.sleep(STAMP_EVERY) => None,
            };
            let now = self.clock.monotonic();
            match read {
                Some(Ok(Some(batch))) => {
                    connection.heard_at = Some(now);
                    memory.attempts = 0;
                    if let Some(failure) = self.take_batch(connection, memory, batch).await? {
                        return Ok(Ended::Broken(failure));
                    }
                }
                Some(Ok(None)) => {
                    self.store_if_due(connection, Duration::ZERO).await?;
                    return Ok(Ended::Closed);
                }
                Some(Err(failure)) => {
                    self.store_if_due(connection, Duration::ZERO).await?;
                    return Ok(Ended::Broken(failure));
                }
                None if now.saturating_sub(connection.heard_at.unwrap_or(connection.opened_at)) >= SILENT_MAX => {
                    return Ok(Ended::Silent);
                }
                None => self.store_if_due(connection, STORE_EVERY).await?,
            }
        }
    }

    /// Makes the users due that a piece of the stream concerns. Returns the error that it ends with, if one.
    async fn take_batch(
        &self,
        connection: &mut Connection,
        memory: &mut Memory,
        batch: StreamBatch,
    ) -> Result<Option<Failure>, PassError> {
        let StreamBatch { mut events, offset, unreadable, error, .. } = batch;
        if let Some(why) = unreadable {
            self.note_unreadable(memory, &why).await?;
        }
        if offset.is_some() {
            connection.offset = offset;
        }
        if connection.stored_at.is_none() {
            self.log_state(memory, WatcherState::Watching, "");
            self.note(Note::Stream { is_open: true });
        }
        let mut made_due = 0;
        if !events.is_empty() {
            let org = self.store.okta_org().await?;
            for event in &mut events {
                event.account.claim_marks(org.as_deref(), false);
            }
            let hashes: Vec<String> = events.iter().map(seen_hash).collect();
            let due = self.due_by(&events, &hashes, org.as_deref()).await?;
            if !due.is_empty() {
                made_due = self.store_batch(connection, &due).await?;
                self.wakes.apply.notify_one();
            }
            let count = events.len() as u64;
            self.metrics.watched(made_due.min(count), count.saturating_sub(made_due));
        }
        self.store_if_due(connection, STORE_EVERY).await?;
        self.note(Note::Watched { events: events.len() as u64, made_due });
        Ok(error)
    }

    async fn due_by<'a>(
        &self,
        events: &'a [AccountEvent],
        hashes: &'a [String],
        org: Option<&str>,
    ) -> Result<Vec<DueByAccount<'a>>, PassError> {
        let concerned = self.store.concerned_by(events).await?;
        let policy = &self.options.rules.policy;
        let mut due = Vec::new();
        for ((event, seen), users) in events.iter().zip(hashes).zip(concerned) {
            for concerned in users {
                if makes_due(event, seen, &concerned, policy, org) {
                    info!(
                        event = "account_event", user = %concerned.user, account = %event.account.id,
                        kind = event.change.as_str(), "{}: {} queues a look at {}", event.account.id,
                        event.change.as_str(), concerned.user
                    );
                    due.push(DueByAccount { event, seen, user: concerned.user });
                }
            }
        }
        Ok(due)
    }

    /// Stores the offset, or the sign of life, if that is `after` ago.
    async fn store_if_due(&self, connection: &mut Connection, after: Duration) -> Result<(), PassError> {
        let now = self.clock.monotonic();
        let is_due = match (connection.stored_at, connection.heard_at) {
            (_, None) => false,
            // The first sign of life.
            (None, Some(_)) => true,
            (Some(stored), Some(heard)) => {
                let since = now.saturating_sub(stored);
                (connection.offset.is_some() && since >= after) || (heard > stored && since >= LIVE_EVERY)
            }
        };
        if is_due {
            self.store_batch(connection, &[]).await?;
        }
        Ok(())
    }

    async fn store_batch(&self, connection: &mut Connection, due: &[DueByAccount<'_>]) -> Result<u64, PassError> {
        let expected_seq = connection.position.seq;
        let page = StreamPage { expected_seq, next: connection.offset.as_deref(), due };
        let made = self.store.record_account_events(page, self.now()).await?;
        connection.position.seq += 1;
        connection.offset = None;
        connection.stored_at = Some(self.clock.monotonic());
        Ok(made)
    }

    /// Events that cannot be read may be about a user who left: only a reconcile finds out.
    async fn note_unreadable(&self, memory: &mut Memory, why: &str) -> Result<(), PassError> {
        let now = self.clock.monotonic();
        if memory.missed_at.is_some_and(|at| now.saturating_sub(at) < MISS_EVERY) {
            return Ok(());
        }
        memory.missed_at = Some(now);
        warn!(event = "account_event_unreadable", "{why}; a reconcile of all users will cover what it may have said");
        self.store
            .miss_reconcile(&format!("{why}, so an account of a user who left may still be open"), self.now())
            .await?;
        Ok(())
    }

    async fn after_connection(&self, ended: Ended, memory: &mut Memory) -> Result<Duration, PassError> {
        let failure = match ended {
            Ended::Stopped => return Ok(Duration::ZERO),
            Ended::Closed => return Ok(RECONNECT),
            Ended::Silent => format!("no data for {} s", SILENT_MAX.as_secs()),
            Ended::Broken(failure) => failure.to_string(),
        };
        memory.attempts = memory.attempts.saturating_add(1);
        let wait = STREAMS.wait(memory.attempts, fastrand::f64());
        // A connection that breaks now and then is normal; one that does not last is noted.
        if memory.attempts > 1 {
            self.store.note_watcher(WatcherState::Failing, Some(&failure)).await?;
            self.log_state(memory, WatcherState::Failing, &failure);
        }
        Ok(wait)
    }

    /// Does what follows from a stream that could not be opened.
    async fn take_step(
        &self,
        step: Step,
        position: &StreamPosition,
        memory: &mut Memory,
    ) -> Result<Duration, PassError> {
        match step {
            Step::Wait { state, why, wait } => {
                self.store.note_watcher(state, Some(&why)).await?;
                self.log_state(memory, state, &why);
                Ok(wait.unwrap_or_else(|| STREAMS.wait(memory.attempts, fastrand::f64())))
            }
            Step::ResumeByTime { keep_time, why } => {
                let since =
                    position.complete_at.filter(|_| keep_time).map(|at| timestamp_text(clock::sub(at, OVERLAP)));
                warn!(
                    event = "stream_resumed",
                    since = since.as_deref().unwrap_or("now"),
                    "{why}; resuming the event stream by time, and reconciling all users"
                );
                let why = format!("{why}, so an account of a user who left may still be open");
                self.store.resume_by_time(position.seq, keep_time, &why, self.now()).await?;
                Ok(Duration::ZERO)
            }
        }
    }

    /// Logs a state once, when it begins.
    fn log_state(&self, memory: &mut Memory, state: WatcherState, why: &str) {
        if memory.logged.replace(state) == Some(state) {
            return;
        }
        let without = "late sign-ups and removed marks wait for the next reconcile";
        match state {
            WatcherState::Watching => info!(event = "stream_open", "watching Auth0's event stream"),
            WatcherState::Unavailable if self.options.events == WatchMode::Auto => {
                info!(event = "stream_unavailable", "not watching Auth0's event stream: {why}; {without}");
            }
            WatcherState::Occupied if self.options.events == WatchMode::Auto => {
                info!(event = "stream_occupied", "not watching Auth0's event stream: {why}; {without}");
            }
            _ => warn!(event = "stream_failed", "failed to watch Auth0's event stream: {why}; retrying, {without}"),
        }
    }
}
