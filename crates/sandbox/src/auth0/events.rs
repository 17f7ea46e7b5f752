//! `GET /api/v2/events`: the changes of accounts as Server-Sent Events, read by offset.
//!
//! Auth0 docs: "Consume Events with the Events API", "Events best practices". Each message has an opaque offset; a client
//! resumes after it with `from` or `Last-Event-ID`, or by time with `from_timestamp`. What the docs leave open is an option
//! here: how long an offset lives, how often the stream shows that it is alive, and whether a login changes an account.

mod stream;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use okta_auth0_sync_clock::{Clock, Timestamp, sub, timestamp_text};

use crate::identifiers::Identifiers;
use crate::message::{Inbound, Reply};

use super::Auth0Tenant;
use super::problem::Problem;

pub(super) use stream::Subscription;

/// The most entries that are kept; older ones expire.
const KEPT_MAX: usize = 50_000;
/// The event types of this stand-in.
const TYPES: [&str; 3] = ["user.created", "user.updated", "user.deleted"];
/// How long a client that is one connection too many is asked to wait.
const TOO_MANY_RETRY_AFTER_S: u64 = 30;

/// The options of the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventOptions {
    /// Open connections at the same time: 1 on Free, 4 on self-service plans, 8 on Enterprise.
    pub connections_max: usize,
    /// How often a stream without messages shows that it is alive: alternately a comment and an `offset-only` message.
    pub heartbeat: Duration,
    /// Auth0 closes every connection after a few minutes.
    pub lifetime: Duration,
    /// How long an offset can be resumed from.
    pub retention: Duration,
    /// Whether each login emits `user.updated`.
    pub login_updates: bool,
}

impl Default for EventOptions {
    fn default() -> Self {
        Self {
            connections_max: 8,
            heartbeat: Duration::from_secs(15),
            lifetime: Duration::from_secs(300),
            retention: Duration::from_secs(86_400),
            login_updates: true,
        }
    }
}

/// What the stream sends at one position.
#[derive(Clone, Debug)]
enum Content {
    Event {
        kind: &'static str,
        id: String,
        object: Arc<Value>,
        previous: Option<Arc<Value>>,
    },
    /// Bytes of a test, sent once to the first stream that reaches them.
    Raw(Option<Bytes>),
    /// The end of the stream that reaches it first: a clean one, or in the middle of a message.
    End(Option<Ending>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Closed,
    Cut,
}

#[derive(Clone, Debug)]
struct Entry {
    number: u64,
    at: Timestamp,
    content: Content,
}

/// The log of changes.
#[derive(Debug)]
pub(super) struct EventLog {
    options: EventOptions,
    entries: VecDeque<Entry>,
    /// The number of the last entry.
    last: u64,
    /// Offsets below it are expired.
    first: u64,
    ids: Identifiers,
    is_silent: bool,
    open: usize,
    opened: u64,
    changed: watch::Sender<u64>,
}

impl EventLog {
    pub(super) fn new(options: EventOptions, seed: u64) -> Self {
        Self {
            options,
            entries: VecDeque::new(),
            last: 0,
            first: 0,
            // Its own source, so that the ids of accounts do not depend on the number of events.
            ids: Identifiers::new(seed ^ 0x0065_7674),
            is_silent: false,
            open: 0,
            opened: 0,
            changed: watch::Sender::new(0),
        }
    }

    pub(super) fn login_updates(&self) -> bool {
        self.options.login_updates
    }

    /// Records a change of an account.
    pub(super) fn record(
        &mut self,
        kind: &'static str,
        object: Arc<Value>,
        previous: Option<Arc<Value>>,
        clock: &dyn Clock,
    ) {
        let id = format!("evt_{}", self.ids.base62(22));
        self.push(Content::Event { kind, id, object, previous }, clock.now());
    }

    fn push(&mut self, content: Content, at: Timestamp) {
        self.last += 1;
        self.entries.push_back(Entry { number: self.last, at, content });
        if self.entries.len() > KEPT_MAX {
            self.entries.pop_front();
            self.first = self.entries.front().map_or(self.last, |entry| entry.number - 1);
        }
        self.changed.send_replace(self.last);
    }

    fn expire(&mut self, now: Timestamp) {
        let oldest = sub(now, self.options.retention);
        while self.entries.front().is_some_and(|entry| entry.at < oldest) {
            self.first = self.entries.pop_front().map_or(self.first, |entry| entry.number);
        }
    }

    /// Checks a request, and takes a connection for it.
    pub(super) fn subscribe(&mut self, request: &Inbound, clock: &dyn Clock) -> Result<Subscription, Reply> {
        self.try_subscribe(request, clock).map_err(|problem| {
            let reply = problem.answer();
            if problem.status == 429 { reply.with("retry-after", TOO_MANY_RETRY_AFTER_S.to_string()) } else { reply }
        })
    }

    fn try_subscribe(&mut self, request: &Inbound, clock: &dyn Clock) -> Result<Subscription, Problem> {
        self.expire(clock.now());
        let types: Vec<String> = request.params("event_type");
        if let Some(other) = types.iter().find(|kind| !TYPES.contains(&kind.as_str())) {
            return Err(Problem::invalid_query(format!("'No enum match for: {other}' on property event_type.")));
        }
        let (from, since) = (request.param("from"), request.param("from_timestamp"));
        if from.is_some() && since.is_some() {
            return Err(Problem::invalid_query("'from and from_timestamp are mutually exclusive'."));
        }
        let from = request.header("last-event-id").map(str::to_owned).or(from);
        let after = match (from, since) {
            (Some(offset), _) => {
                let number = number_of(&offset).filter(|number| *number <= self.last);
                let number = number.ok_or_else(|| Problem::invalid_query("'Invalid offset' on property from."))?;
                if number < self.first {
                    return Err(Problem::new(410, "offset_expired", "The offset has expired"));
                }
                number
            }
            (None, Some(text)) => {
                let since: Timestamp = text
                    .parse()
                    .map_err(|_| Problem::invalid_query("'Invalid date-time' on property from_timestamp."))?;
                let first = self.entries.iter().find(|entry| entry.at >= since);
                first.map_or(self.last, |entry| entry.number - 1)
            }
            (None, None) => self.last,
        };
        if self.open >= self.options.connections_max {
            // [I]: the docs name the limit and 429, not the code.
            let why = "The maximum number of concurrent connections to the event stream has been reached";
            return Err(Problem::new(429, "too_many_connections", why));
        }
        self.open += 1;
        self.opened += 1;
        Ok(Subscription { after, types, changed: self.changed.subscribe() })
    }

    /// What a stream sends next after this position: the bytes, the new position and the ending.
    fn next(&mut self, after: u64, types: &[String], source: &str) -> Option<(Bytes, u64, Option<Ending>)> {
        if self.is_silent {
            return None;
        }
        let at = self.entries.partition_point(|entry| entry.number <= after);
        let mut position = after;
        for entry in self.entries.range_mut(at..) {
            position = entry.number;
            match &mut entry.content {
                Content::Event { kind, .. } if !types.is_empty() && !types.iter().any(|wanted| wanted == *kind) => {}
                Content::Event { .. } => return Some((message(entry, source), position, None)),
                Content::Raw(bytes) => {
                    if let Some(bytes) = bytes.take() {
                        return Some((bytes, position, None));
                    }
                }
                Content::End(ending) => {
                    if let Some(ending) = ending.take() {
                        return Some((Bytes::new(), position, Some(ending)));
                    }
                }
            }
        }
        (position > after).then(|| (Bytes::new(), position, None))
    }
}

/// The offset of a position: opaque to clients.
fn offset_of(number: u64) -> String {
    URL_SAFE_NO_PAD.encode(format!("p:{number}"))
}

fn number_of(offset: &str) -> Option<u64> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(offset).ok()?).ok()?;
    text.strip_prefix("p:")?.parse().ok()
}

fn message(entry: &Entry, source: &str) -> Bytes {
    let Content::Event { kind, id, object, previous } = &entry.content else { return Bytes::new() };
    let offset = offset_of(entry.number);
    let mut data = json!({ "object": payload(object) });
    if *kind == "user.deleted" {
        data["object"]["deleted_at"] = json!(timestamp_text(entry.at));
    }
    if let Some(previous) = previous {
        data["previous_object"] = payload(previous);
    }
    let event = json!({
        "specversion": "1.0", "type": kind, "source": source, "id": id, "time": timestamp_text(entry.at), "data": data,
        "a0tenant": "sandbox", "a0stream": "est_sandboxsandboxsandbox0",
    });
    let data = json!({ "offset": offset, "event": event });
    Bytes::from(format!("event: {kind}\nid: {offset}\ndata: {data}\n\n"))
}

/// An account as events show it: without empty attributes.
fn payload(user: &Value) -> Value {
    let fields = user.as_object().into_iter().flatten();
    let kept = fields.filter(|(_, value)| !value.is_null() && *value != &json!(""));
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<String, Value>>())
}

/// The event stream of a tenant, for tests.
#[derive(Clone, Copy, Debug)]
pub struct EventStream<'a>(pub(super) &'a Auth0Tenant);

impl EventStream<'_> {
    fn log<T>(self, act: impl FnOnce(&mut EventLog, &dyn Clock) -> T) -> T {
        let clock = self.0.context.clock.clone();
        act(&mut self.0.tenancy().events, &*clock)
    }

    /// Changes the options. Open connections keep their lifetime.
    pub fn configure(self, change: impl FnOnce(&mut EventOptions)) {
        self.log(|log, _| change(&mut log.options));
    }

    /// The number of open connections.
    pub fn connections(self) -> usize {
        self.log(|log, _| log.open)
    }

    /// The number of connections that were accepted so far.
    pub fn accepted(self) -> u64 {
        self.log(|log, _| log.opened)
    }

    /// Occupies one connection, as another consumer does, until [`EventStream::release`].
    pub fn occupy(self) {
        self.log(|log, _| log.open += 1);
    }

    /// Frees a connection taken by [`EventStream::occupy`].
    pub fn release(self) {
        self.log(|log, _| log.open = log.open.saturating_sub(1));
    }

    /// The offset of the newest change.
    pub fn last_offset(self) -> String {
        self.log(|log, _| offset_of(log.last))
    }

    /// Expires all offsets up to the newest, and forgets their changes.
    pub fn expire_offsets(self) {
        self.log(|log, clock| {
            log.entries.clear();
            // The position of the newest offset, too, is expired.
            log.push(Content::Raw(None), clock.now());
            log.first = log.last;
        });
    }

    /// Stops or continues all messages and heartbeats. Connections stay open.
    pub fn set_silent(self, silent: bool) {
        self.log(|log, _| {
            log.is_silent = silent;
            log.changed.send_replace(log.last);
        });
    }

    /// Sends these bytes on the stream that reaches them first.
    pub fn inject(self, bytes: impl Into<Bytes>) {
        self.log(|log, clock| log.push(Content::Raw(Some(bytes.into())), clock.now()));
    }

    /// Sends `event: error` and closes the stream.
    pub fn fail(self, code: &str) {
        let data = json!({ "code": code, "message": "The stream ended with an error" });
        self.inject(format!("event: error\ndata: {data}\n\n"));
        self.close();
    }

    /// Closes the stream that reaches this position first.
    pub fn close(self) {
        self.log(|log, clock| log.push(Content::End(Some(Ending::Closed)), clock.now()));
    }

    /// Ends the stream in the middle of a message.
    pub fn cut(self) {
        self.inject("event: user.updated\nid: half\ndata: {\"offset\": \"half\", \"ev");
        self.log(|log, clock| log.push(Content::End(Some(Ending::Cut)), clock.now()));
    }

    /// Delivers a change again, in its original form: `back` 0 is the newest.
    pub fn redeliver(self, back: usize) {
        self.log(|log, clock| {
            let events = log.entries.iter().rev().filter(|entry| matches!(entry.content, Content::Event { .. }));
            if let Some(bytes) = { events }.nth(back).map(|entry| message(entry, "urn:auth0:sandbox")) {
                log.push(Content::Raw(Some(bytes)), clock.now());
            }
        });
    }
}
