//! The event stream: changes of accounts as Server-Sent Events (Auth0 docs: "Consume Events with the Events API").

mod sse;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderValue};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::endpoints::EVENTS;
use super::record::AccountRecord;
use super::{Auth0, Failure, Fields, token};
use crate::domain::mark::MetadataKeys;
use crate::domain::{AccountEvent, Change, Timestamp, timestamp_text};
use crate::http::{Kind, StreamBody, lenient};

use sse::{Message, Parser};

/// The largest message. A profile has at most 10 KB of metadata, and an event shows it twice.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The type of the message with which the stream ends because of an error.
const ERROR: &str = "error";

/// Where a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamStart {
    /// After this offset.
    After(String),
    /// With what happened at this time or later.
    Since(Timestamp),
    /// Now.
    Now,
}

/// What one piece of the stream contained.
#[derive(Debug, Default)]
pub struct StreamBatch {
    /// The events about accounts, in the order of the stream.
    pub events: Vec<AccountEvent>,
    /// The offset of the last message with one.
    pub offset: Option<String>,
    /// Why events could not be read, if some could not.
    pub unreadable: Option<String>,
    /// The error with which Auth0 ends the stream.
    pub error: Option<Failure>,
    /// Messages, of any kind.
    pub messages: u64,
}

/// An open stream. Its `Debug` shows no message.
#[derive(Debug)]
pub struct AccountStream {
    body: StreamBody,
    parser: Parser,
    keys: MetadataKeys,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default, deserialize_with = "lenient::text")]
    offset: Option<String>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: String,
    id: String,
    time: String,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamError {
    #[serde(deserialize_with = "lenient::text")]
    code: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    message: Option<String>,
}

impl Auth0 {
    /// Opens the stream.
    ///
    /// It does not report to the pacer: a refused stream must not slow down other calls.
    ///
    /// # Errors
    /// Classified; an expired offset has the status 410.
    pub async fn open_events(&self, start: &StreamStart) -> Result<AccountStream, Failure> {
        let mut url = self.address("/api/v2/events");
        for change in Change::ALL {
            url.query_pairs_mut().append_pair("event_type", change.as_str());
        }
        match start {
            StreamStart::After(offset) => drop(url.query_pairs_mut().append_pair("from", offset)),
            StreamStart::Since(at) => drop(url.query_pairs_mut().append_pair("from_timestamp", &timestamp_text(*at))),
            StreamStart::Now => {}
        }
        let mut renewed = false;
        loop {
            let token = self.authenticator.token(&self.http, self.clock.as_ref()).await?;
            let request = self
                .http
                .client()
                .request(Method::GET, url.clone())
                .header(AUTHORIZATION, token::bearer(token.secret.expose_secret())?)
                .header(ACCEPT, HeaderValue::from_static("text/event-stream"))
                // A compressed stream may hold messages back.
                .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            match self.http.open(EVENTS.call(), request, self.clock.as_ref()).await {
                Err(failure) if failure.status == Some(StatusCode::UNAUTHORIZED.as_u16()) && !renewed => {
                    self.authenticator.forget(&token).await;
                    renewed = true;
                }
                Err(failure) => return Err(failure),
                Ok(body) if !body.is_of_type("text/event-stream") => {
                    return Err(EVENTS.malformed("the answer is not an event stream"));
                }
                Ok(body) => {
                    return Ok(AccountStream { body, parser: Parser::new(MESSAGE_BYTES_MAX), keys: self.keys.clone() });
                }
            }
        }
    }
}

impl AccountStream {
    /// The next piece of the stream, which may contain no message; `None` when Auth0 has closed it. If the future is dropped,
    /// nothing is lost.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next(&mut self) -> Result<Option<StreamBatch>, Failure> {
        let Some(bytes) = self.body.chunk().await? else { return Ok(None) };
        let mut messages = Vec::new();
        self.parser.feed(&bytes, &mut messages);
        let mut batch = StreamBatch::default();
        for message in messages {
            batch.messages += 1;
            self.read(message, &mut batch);
        }
        Ok(Some(batch))
    }

    fn read(&self, message: Message, batch: &mut StreamBatch) {
        if message.kind == ERROR {
            let error: StreamError = serde_json::from_slice(&message.data).unwrap_or_default();
            let why = error.message.unwrap_or_else(|| "the stream ended with an error".to_owned());
            batch.error = Some(self.body.failure(Kind::Server, error.code, &why));
            return;
        }
        let kind = Change::parse(&message.kind);
        let id = message.id.filter(|id| !id.is_empty());
        if message.is_oversized {
            batch.unreadable = Some(format!("an event is larger than {MESSAGE_BYTES_MAX} bytes"));
        } else if kind.is_some() || message.kind.is_empty() {
            let offset = match self.event(&message.data, kind) {
                Ok((event, offset)) => {
                    batch.events.extend(event);
                    offset
                }
                Err(why) => {
                    batch.unreadable = Some(why);
                    None
                }
            };
            batch.offset = id.or(offset).or(batch.offset.take());
            return;
        }
        // Other types are not ours, and `offset-only` has nothing but an offset.
        batch.offset = id.or_else(|| offset_in(&message.data)).or(batch.offset.take());
    }

    /// The event and the offset in the data of a message. Without an event it is an offset alone.
    fn event(&self, data: &[u8], kind: Option<Change>) -> Result<(Option<AccountEvent>, Option<String>), String> {
        if data.is_empty() && kind.is_none() {
            return Ok((None, None));
        }
        let wrong = |error: serde_json::Error| format!("an event cannot be read: {}", error.classify_text());
        let envelope: Envelope<'_> = serde_json::from_slice(data).map_err(wrong)?;
        let Some(raw) = envelope.event else { return Ok((None, envelope.offset)) };
        let event: Event<'_> = serde_json::from_str(raw.get()).map_err(wrong)?;
        let Some(change) = kind.or_else(|| Change::parse(&event.kind)) else { return Ok((None, envelope.offset)) };
        let at = event.time.parse().map_err(|_| "an event has no readable time".to_owned())?;
        let record = AccountRecord::read(event.data.object, &self.keys, Fields::Mark)
            .map_err(|_| "an event has no readable account".to_owned())?;
        Ok((Some(AccountEvent { id: event.id, change, at, account: record.account }), envelope.offset))
    }
}

/// What is wrong with JSON, without any of its content.
trait Classified {
    fn classify_text(&self) -> String;
}

impl Classified for serde_json::Error {
    fn classify_text(&self) -> String {
        format!("{:?} error in line {}, column {}", self.classify(), self.line(), self.column())
    }
}

fn offset_in(data: &[u8]) -> Option<String> {
    serde_json::from_slice::<Envelope<'_>>(data).ok()?.offset
}
