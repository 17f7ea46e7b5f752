//! What was asked of a stand-in: every request, in the order of arrival, without its credentials.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::watch;

use okta_auth0_sync_clock::Timestamp;

use super::lock;
use super::message::{Answer, Inbound};

/// So many requests are kept.
const KEPT_MAX: usize = 100_000;
/// In which the stand-ins name an exchange, as their originals do.
const REQUEST_ID_HEADERS: [&str; 2] = ["x-okta-request-id", "ot-baggage-auth0-request-id"];

/// One request that came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Its place in the order of arrival, from 0.
    pub number: u64,
    /// `GET`, `PATCH`, …
    pub method: String,
    /// The path as it was sent.
    pub path: String,
    /// What followed `?`; empty when nothing did.
    pub query: String,
    /// When it came in, on the sandbox's clock.
    pub at: Timestamp,
    /// The status of the answer; `None` until it is given, and for ever when the connection was dropped instead.
    pub status: Option<u16>,
    /// What the answer called the exchange, if it did; `None` as long as there is no status.
    pub request_id: Option<String>,
    /// What the request called it (`X-Correlation-ID`): the real Auth0 notes that in the tenant's log.
    pub correlation_id: Option<String>,
    /// The JSON body of a PATCH. Other bodies are not kept: they may hold credentials.
    pub body: Option<Value>,
}

#[derive(Debug, Default)]
struct Kept {
    total: u64,
    requests: VecDeque<Recorded>,
}

/// The requests of one tenant: the latest 100,000, and the count of all. Clones share them.
#[derive(Clone, Debug)]
pub struct Journal {
    kept: Arc<Mutex<Kept>>,
    changed: Arc<watch::Sender<()>>,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self { kept: Arc::default(), changed: Arc::new(watch::Sender::new(())) }
    }

    /// Everything that is kept, oldest first.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.kept).requests.iter().cloned().collect()
    }

    /// How many requests have come in since the start.
    pub fn total(&self) -> u64 {
        lock(&self.kept).total
    }

    /// How many of the kept requests have this method and a path that begins so.
    pub fn count(&self, method: &str, path_prefix: &str) -> usize {
        let kept = lock(&self.kept);
        kept.requests.iter().filter(|request| request.method == method && request.path.starts_with(path_prefix)).count()
    }

    /// Forgets what is kept.
    pub fn clear(&self) {
        lock(&self.kept).requests.clear();
    }

    /// Completes as soon as `condition` holds of the kept requests: at once, or when a request comes in or is answered.
    pub async fn wait_for(&self, condition: impl Fn(&[Recorded]) -> bool) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if condition(lock(&self.kept).requests.make_contiguous()) {
                return;
            }
            // The sender lives in `self`: the channel cannot close.
            let _ = changed.changed().await;
        }
    }

    pub(super) fn arrived(&self, request: &Inbound, at: Timestamp) -> u64 {
        let body = (request.method == "PATCH").then(|| request.json()).flatten();
        let mut kept = lock(&self.kept);
        let number = kept.total;
        kept.total += 1;
        if kept.requests.len() == KEPT_MAX {
            kept.requests.pop_front();
        }
        kept.requests.push_back(Recorded {
            number,
            method: request.method.to_string(),
            path: request.path.clone(),
            query: request.query.clone(),
            at,
            status: None,
            request_id: None,
            correlation_id: request.header("x-correlation-id").map(str::to_owned),
            body,
        });
        drop(kept);
        self.changed.send_replace(());
        number
    }

    pub(super) fn answered(&self, number: u64, answer: &Answer) {
        let mut kept = lock(&self.kept);
        if let Ok(at) = kept.requests.binary_search_by_key(&number, |request| request.number) {
            kept.requests[at].status = Some(answer.status);
            kept.requests[at].request_id =
                REQUEST_ID_HEADERS.iter().find_map(|name| answer.headers.get(*name)?.to_str().ok()).map(str::to_owned);
        }
        drop(kept);
        self.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::http::{HeaderMap, Method};

    use super::*;

    fn request(method: Method, body: &'static str) -> Inbound {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer hidden".parse().unwrap());
        Inbound {
            method,
            path: "/api/v2/users/a".to_owned(),
            query: String::new(),
            headers,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[tokio::test]
    async fn a_waiter_is_woken_by_the_answer_it_waits_for() {
        let journal = Journal::new();
        let waiter = tokio::spawn({
            let journal = journal.clone();
            async move { journal.wait_for(|requests| requests.iter().any(|r| r.status == Some(200))).await }
        });
        let number = journal.arrived(&request(Method::PATCH, r#"{"a":1}"#), Timestamp::UNIX_EPOCH);
        journal.answered(number, &Answer::empty(200).with("x-okta-request-id", "r1"));
        waiter.await.unwrap();
        assert_eq!(journal.requests()[0].body, Some(serde_json::json!({"a": 1})));
    }

    #[test]
    fn no_credential_is_kept() {
        let journal = Journal::new();
        journal.arrived(&request(Method::POST, "client_secret=hidden"), Timestamp::UNIX_EPOCH);
        assert!(!format!("{:?}", journal.requests()).contains("hidden"));
    }
}
