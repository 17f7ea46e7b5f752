//! Faults and barriers: make a stand-in fail or wait for chosen requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::lock;
use super::message::Inbound;

/// A pattern for paths, compared with the path and query as sent, percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Every path.
    Any,
    /// This path, with any query.
    Exact(String),
    /// Paths with this prefix.
    Prefix(String),
    /// Paths or queries that contain this text.
    Contains(String),
}

/// A pattern for requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// `GET`, `PATCH`, …; `None` is every method.
    pub method: Option<String>,
    /// Which paths.
    pub path: PathMatch,
}

impl Matcher {
    /// Requests of this method to paths with this prefix.
    pub fn new(method: &str, path_prefix: &str) -> Self {
        Self { method: Some(method.to_owned()), path: PathMatch::Prefix(path_prefix.to_owned()) }
    }

    /// Every request.
    pub fn any() -> Self {
        Self { method: None, path: PathMatch::Any }
    }

    fn matches(&self, request: &Inbound) -> bool {
        self.method.as_ref().is_none_or(|method| request.method.as_str() == method)
            && match &self.path {
                PathMatch::Any => true,
                PathMatch::Exact(path) => request.path == *path,
                PathMatch::Prefix(prefix) => request.path.starts_with(prefix.as_str()),
                PathMatch::Contains(part) => request.target().contains(part.as_str()),
            }
    }
}

/// The variants of a 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimited {
    /// The tenant's usual body and headers: nothing remaining, the reset in one second.
    Plain,
    /// Too many concurrent requests: Okta answers with a limit of 0.
    Concurrency,
    /// With `Retry-After`, in seconds.
    RetryAfter(Duration),
    /// A body without rate-limit headers.
    WithoutHeaders,
    /// The reset is in the past.
    ResetInThePast,
}

/// The effect of a fault on a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// This response instead of the tenant's.
    Status {
        /// The HTTP status.
        code: u16,
        /// The JSON body; `Null` means none.
        body: Value,
        /// Further headers.
        headers: Vec<(String, String)>,
    },
    /// A 429.
    RateLimited(RateLimited),
    /// The request waits this long, by the sandbox's clock, before it is handled.
    Delay(Duration),
    /// The full length is declared, half of the body is sent, then the connection ends.
    CutBody,
    /// As `CutBody`, for bodies of more than this many bytes: a proxy with a size limit.
    CutBodyOver(usize),
    /// The full length is declared, half of the body is sent, then nothing more.
    StallBody,
    /// The connection ends without a response, and the request has no effect.
    Drop,
    /// The request takes effect, and this effect loses or replaces its response.
    AfterEffect(Box<Effect>),
    /// The tenant's response with another body.
    ReplaceBody(Vec<u8>),
    /// The tenant's response with another value of a header, or without it.
    ReplaceHeader {
        /// Its name.
        name: String,
        /// Its value; `None` removes it.
        value: Option<String>,
    },
    /// The links to the next page point to this origin, e.g. `https://elsewhere.example`.
    NextLinkOrigin(String),
}

/// An effect and the requests to which it applies.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// `None` is every method.
    pub method: Option<String>,
    /// Which paths.
    pub path: PathMatch,
    /// The number of matching requests that pass first.
    pub skip: u32,
    /// The number of requests that fail after that; `None` is all.
    pub times: Option<u32>,
    /// The effect.
    pub effect: Effect,
}

impl Fault {
    /// Applies to every request of this method to paths with this prefix.
    pub fn new(method: &str, path_prefix: &str, effect: Effect) -> Self {
        let Matcher { method, path } = Matcher::new(method, path_prefix);
        Self { method, path, skip: 0, times: None, effect }
    }

    /// Applies to every request.
    pub fn everywhere(effect: Effect) -> Self {
        Self { method: None, path: PathMatch::Any, skip: 0, times: None, effect }
    }

    /// Limits the number of requests to which it applies.
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Lets this many matching requests pass first.
    pub fn skip(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// Responds with a status and an empty JSON object.
    pub fn status(method: &str, path_prefix: &str, code: u16) -> Self {
        let body = Value::Object(serde_json::Map::new());
        Self::new(method, path_prefix, Effect::Status { code, body, headers: Vec::new() })
    }
}

/// The id of an added fault, to remove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(pub u64);

#[derive(Debug)]
struct Barrier {
    matcher: Matcher,
    /// Whether a barrier holds a request before it takes effect, or its response.
    answered: bool,
    arrived: watch::Sender<u32>,
    open: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Switches {
    next_id: u64,
    faults: BTreeMap<FaultId, Fault>,
    barriers: Vec<Arc<Barrier>>,
}

/// The faults and barriers of one tenant. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Switches>>);

impl Faults {
    /// Adds a fault. Several may apply to the same request: delays add up, the first response wins, and effects that
    /// change a response apply to that one.
    pub fn add(&self, fault: Fault) -> FaultId {
        let mut switches = lock(&self.0);
        let id = FaultId(switches.next_id);
        switches.next_id += 1;
        switches.faults.insert(id, fault);
        id
    }

    /// Removes a fault. Returns whether it was still active.
    pub fn remove(&self, id: FaultId) -> bool {
        lock(&self.0).faults.remove(&id).is_some()
    }

    /// Removes every fault and opens every barrier.
    pub fn clear(&self) {
        let mut switches = lock(&self.0);
        switches.faults.clear();
        for barrier in switches.barriers.drain(..) {
            barrier.open.send_replace(true);
        }
    }

    /// The active faults, oldest first. A fault that has reached its count is removed.
    pub fn list(&self) -> Vec<(FaultId, Fault)> {
        lock(&self.0).faults.iter().map(|(id, fault)| (*id, fault.clone())).collect()
    }

    /// Holds matching requests before they take effect, until the [`Hold`] releases them or is dropped.
    pub fn hold(&self, matcher: Matcher) -> Hold {
        self.barrier(matcher, false)
    }

    /// Holds the responses to matching requests, after the requests have taken effect.
    pub fn hold_answer(&self, matcher: Matcher) -> Hold {
        self.barrier(matcher, true)
    }

    fn barrier(&self, matcher: Matcher, answered: bool) -> Hold {
        let barrier =
            Arc::new(Barrier { matcher, answered, arrived: watch::Sender::new(0), open: watch::Sender::new(false) });
        lock(&self.0).barriers.push(barrier.clone());
        Hold { faults: self.clone(), barrier }
    }

    /// The effects that apply to this request, in the order in which they were added. Counts them.
    pub(super) fn take_effects(&self, request: &Inbound) -> Vec<Effect> {
        let mut effects = Vec::new();
        lock(&self.0).faults.retain(|_, fault| {
            let matcher = Matcher { method: fault.method.clone(), path: fault.path.clone() };
            if !matcher.matches(request) {
                return true;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                return true;
            }
            if let Some(times) = &mut fault.times {
                if *times == 0 {
                    return false;
                }
                *times -= 1;
            }
            effects.push(fault.effect.clone());
            fault.times != Some(0)
        });
        effects
    }

    /// Waits at the barriers that hold this request (or, with `answered`, its response).
    pub(super) async fn wait(&self, request: &Inbound, answered: bool) {
        let barriers: Vec<_> = lock(&self.0)
            .barriers
            .iter()
            .filter(|barrier| barrier.answered == answered && barrier.matcher.matches(request))
            .cloned()
            .collect();
        for barrier in barriers {
            let mut open = barrier.open.subscribe();
            barrier.arrived.send_modify(|count| *count += 1);
            // The sender lives in `barrier`: the channel cannot close.
            let _ = open.wait_for(|open| *open).await;
        }
    }
}

/// A barrier that holds matching requests until it is released or dropped.
#[derive(Debug)]
pub struct Hold {
    faults: Faults,
    barrier: Arc<Barrier>,
}

impl Hold {
    /// Completes when the first request is held.
    pub async fn arrived(&self) {
        self.arrived_times(1).await;
    }

    /// Completes when this many requests are held.
    pub async fn arrived_times(&self, count: u32) {
        // The sender lives in `self`: the channel cannot close.
        let _ = self.barrier.arrived.subscribe().wait_for(|arrived| *arrived >= count).await;
    }

    /// Releases the held requests, and lets all later ones pass.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        lock(&self.faults.0).barriers.retain(|barrier| !Arc::ptr_eq(barrier, &self.barrier));
        self.barrier.open.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::http::{HeaderMap, Method};

    use super::*;

    fn get(path: &str, query: &str) -> Inbound {
        Inbound {
            method: Method::GET,
            path: path.to_owned(),
            query: query.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    #[test]
    fn fault_skips_then_applies_then_ends() {
        let faults = Faults::default();
        faults.add(Fault::new("GET", "/a", Effect::Drop).skip(1).times(2));
        let struck: Vec<bool> = (0..5).map(|_| !faults.take_effects(&get("/a/b", "")).is_empty()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        assert!(faults.list().is_empty());
        assert!(faults.take_effects(&get("/b", "")).is_empty());
    }

    #[test]
    fn paths_match_as_sent() {
        for (path, matches) in [
            (PathMatch::Any, true),
            (PathMatch::Exact("/a".to_owned()), true),
            (PathMatch::Exact("/a?x=1".to_owned()), false),
            (PathMatch::Prefix("/".to_owned()), true),
            (PathMatch::Contains("x=1".to_owned()), true),
            (PathMatch::Contains("x=2".to_owned()), false),
        ] {
            let matcher = Matcher { method: None, path: path.clone() };
            assert_eq!(matcher.matches(&get("/a", "x=1")), matches, "{path:?}");
        }
        assert!(!Matcher::new("PATCH", "/a").matches(&get("/a", "")));
    }

    #[tokio::test]
    async fn released_request_continues() {
        let faults = Faults::default();
        let hold = faults.hold(Matcher::any());
        let held = tokio::spawn({
            let faults = faults.clone();
            async move { faults.wait(&get("/a", ""), false).await }
        });
        hold.arrived().await;
        assert!(!held.is_finished());
        hold.release();
        held.await.unwrap();
        faults.wait(&get("/a", ""), false).await;
    }
}
