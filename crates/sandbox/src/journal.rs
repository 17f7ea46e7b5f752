//! The requests that a stand-in received, in order of arrival, without credentials.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::watch;

use okta_auth0_sync_clock::Timestamp;

use super::lock;
use super::message::{Inbound, Reply};

/// The number of requests that are kept.
const KEPT_MAX: usize = 100_000;
/// The headers with which each tenant identifies an exchange.
const REQUEST_ID_HEADERS: [&str; 2] = ["x-okta-request-id", "ot-baggage-auth0-request-id"];

/// One request that came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Its number in order of arrival, from 0.
    pub number: u64,
    /// `GET`, `PATCH`, …
    pub method: String,
    /// The path as sent.
    pub path: String,
    /// The text after `?`, or empty.
    pub query: String,
    /// When it arrived, by the sandbox's clock.
    pub at: Timestamp,
    /// The status of the response; `None` until it is sent, and if the connection was dropped.
    pub status: Option<u16>,
    /// The request id of the response; `None` before the response, or if it has none.
    pub request_id: Option<String>,
    /// `X-Correlation-ID` of the request, which Auth0 stores in the tenant's log.
    pub correlation_id: Option<String>,
    /// The JSON body of a PATCH. Other bodies are not kept: they may contain credentials.
    pub body: Option<Value>,
}

#[derive(Debug, Default)]
struct Kept {
    total: u64,
    requests: VecDeque<Recorded>,
}

/// The latest 100,000 requests of one tenant, and the count of all. Clones share them.
#[derive(Clone, Debug)]
pub struct Journal {
    kept: Arc<Mutex<Kept>>,
    changed: Arc<watch::Sender<()>>,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self { kept: Arc::default(), changed: Arc::new(watch::Sender::new(())) }
    }

    /// The kept requests, oldest first.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.kept).requests.iter().cloned().collect()
    }

    /// The number of requests since the start.
    pub fn total(&self) -> u64 {
        lock(&self.kept).total
    }

    /// The number of kept requests with this method and path prefix.
    pub fn count(&self, method: &str, path_prefix: &str) -> usize {
        let kept = lock(&self.kept);
        kept.requests.iter().filter(|request| request.method == method && request.path.starts_with(path_prefix)).count()
    }

    /// Removes the kept requests.
    pub fn clear(&self) {
        lock(&self.kept).requests.clear();
    }

    /// Completes as soon as `condition` holds for the kept requests.
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

    pub(super) fn answered(&self, number: u64, answer: &Reply) {
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
    async fn waiter_is_woken_by_its_response() {
        let journal = Journal::new();
        let waiter = tokio::spawn({
            let journal = journal.clone();
            async move { journal.wait_for(|requests| requests.iter().any(|r| r.status == Some(200))).await }
        });
        let number = journal.arrived(&request(Method::PATCH, r#"{"a":1}"#), Timestamp::UNIX_EPOCH);
        journal.answered(number, &Reply::empty(200).with("x-okta-request-id", "r1"));
        waiter.await.unwrap();
        assert_eq!(journal.requests()[0].body, Some(serde_json::json!({"a": 1})));
    }

    #[test]
    fn journal_keeps_no_credentials() {
        let journal = Journal::new();
        journal.arrived(&request(Method::POST, "client_secret=hidden"), Timestamp::UNIX_EPOCH);
        assert!(!format!("{:?}", journal.requests()).contains("hidden"));
    }
}
