//! The requests and responses of the stand-ins.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use futures_core::Stream;
use serde_json::Value;
use tokio::sync::mpsc;

use super::lock;

/// A complete request. Not `Debug`: it contains credentials.
pub(super) struct Inbound {
    pub(super) method: Method,
    /// The path as sent, percent-encoded.
    pub(super) path: String,
    /// The text after `?` as sent, or empty.
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Inbound {
    /// The segments of the path, each percent-decoded, so that an encoded `/` or `|` stays inside its segment.
    pub(super) fn segments(&self) -> Vec<String> {
        self.path.split('/').skip(1).map(percent_decoded).collect()
    }

    /// The decoded value of the query parameter `name`, if it was sent.
    pub(super) fn param(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    }

    /// Every decoded value of the query parameter `name`.
    pub(super) fn params(&self, name: &str) -> Vec<String> {
        let pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect()
    }

    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; an empty body is an empty object.
    pub(super) fn json(&self) -> Option<Value> {
        if self.body.is_empty() {
            return Some(Value::Object(serde_json::Map::new()));
        }
        serde_json::from_slice(&self.body).ok()
    }

    /// The field `name` of a body that is a form or a JSON object.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        if self.header("content-type").is_some_and(|kind| kind.starts_with("application/json")) {
            return self.json()?.get(name)?.as_str().map(str::to_owned);
        }
        url::form_urlencoded::parse(&self.body).find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    }

    /// Path and query as sent.
    pub(super) fn target(&self) -> String {
        if self.query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, self.query) }
    }
}

/// A body that is sent piece by piece. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Feed(Arc<Mutex<Option<mpsc::Receiver<io::Result<Bytes>>>>>);

impl Feed {
    /// A body, and where its pieces go: at most `ahead` of them before the client takes one. An error cuts the body.
    pub(super) fn new(ahead: usize) -> (mpsc::Sender<io::Result<Bytes>>, Self) {
        let (sender, pieces) = mpsc::channel(ahead);
        (sender, Self(Arc::new(Mutex::new(Some(pieces)))))
    }

    fn into_body(self) -> Body {
        lock(&self.0).take().map_or_else(Body::empty, |pieces| Body::from_stream(Pieces { pieces, cut: None }))
    }
}

struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// The error that cuts the body, until what was sent before it is on its way.
    cut: Option<io::Error>,
}

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(cut) = self.cut.take() {
            return Poll::Ready(Some(Err(cut)));
        }
        match self.pieces.poll_recv(cx) {
            Poll::Ready(Some(Err(cut))) => {
                // The server sends what it has when a body has to be waited for, and drops it at an error.
                self.cut = Some(cut);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        }
    }
}

/// A response, before network faults apply.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Boxed, because responses are moved, also as errors.
    pub(super) headers: Box<HeaderMap>,
    pub(super) body: Bytes,
    /// Instead of `body`: a body without an end that is known.
    pub(super) feed: Option<Feed>,
}

impl Reply {
    /// A JSON body.
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    /// A body of this content type.
    pub(super) fn text(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = Box::new(HeaderMap::new());
        headers.insert("content-type", HeaderValue::from_static(content_type));
        Self { status, headers, body: body.into(), feed: None }
    }

    /// No body.
    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Box::default(), body: Bytes::new(), feed: None }
    }

    /// Sets a header, and ignores names and values that are not valid in HTTP: they come from experiments.
    pub(super) fn with(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.set(name, value.as_ref());
        self
    }

    /// Sets a header, replacing earlier values.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            self.headers.insert(name, value);
        }
    }

    /// Adds a line of a header.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            self.headers.append(name, value);
        }
    }

    /// Converts it for the server.
    pub(super) fn into_response(self) -> Response<Body> {
        let body = self.feed.map_or_else(|| Body::from(self.body), Feed::into_body);
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = *self.headers;
        response
    }
}

/// Decodes `%XX`; invalid sequences stay unchanged.
pub(super) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        match (bytes[at], hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_separator_stays_inside_its_segment() {
        let inbound = Inbound {
            method: Method::GET,
            path: "/api/v2/users/auth0%7Ca%2Fb".to_owned(),
            query: "email=a%2Bb%40x.org&fields=".to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        assert_eq!(inbound.segments(), ["api", "v2", "users", "auth0|a/b"]);
        assert_eq!(inbound.param("email").as_deref(), Some("a+b@x.org"));
        assert_eq!(inbound.param("fields").as_deref(), Some(""));
        assert_eq!(inbound.param("q"), None);
    }

    #[test]
    fn broken_percent_sequences_are_kept() {
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%zz%4"), "%zz%4");
        assert_eq!(percent_decoded("%C3%A9"), "é");
    }
}
