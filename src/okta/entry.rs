//! Parses one event of the System Log leniently. An event that cannot be parsed is quarantined; its page is still used.
//!
//! Strict models of this format, including Okta's own SDKs, have dropped whole pages because its types vary: `version` and
//! `postalCode` are strings or numbers. So only six fields are parsed.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Answer;
use crate::domain::clock::parse_timestamp;
use crate::domain::event::EventUser;
use crate::domain::{Event, OktaUserId, Signal, Timestamp};
use crate::http::lenient;

/// Limit for the stored text of an unreadable event, in bytes.
const RAW_BYTES_MAX: usize = 64 << 10;
/// Limit for a login, id or event type, in bytes. Okta's logins have at most 100 characters, its ids and types fewer;
/// longer values would only fill the state database.
const TEXT_BYTES_MAX: usize = 1 << 10;

/// One entry of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// A parsed event.
    Event(Event),
    /// An event that could not be parsed, with the fields that could.
    Unreadable {
        /// `uuid`.
        event_id: Option<String>,
        /// `eventType`.
        event_type: Option<String>,
        /// `published`.
        published: Option<Timestamp>,
        /// The raw entry, truncated to 64 KiB.
        raw: String,
        /// The parse error.
        why: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    #[serde(deserialize_with = "lenient::text")]
    uuid: Option<String>,
    #[serde(rename = "eventType", deserialize_with = "lenient::text")]
    event_type: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    published: Option<String>,
    #[serde(deserialize_with = "lenient::shape")]
    actor: Actor,
    target: Option<Box<RawValue>>,
    #[serde(deserialize_with = "lenient::shape")]
    outcome: Outcome,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outcome {
    #[serde(deserialize_with = "lenient::text")]
    result: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Actor {
    #[serde(deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(rename = "alternateId", deserialize_with = "lenient::text")]
    alternate_id: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    #[serde(default, rename = "type", deserialize_with = "lenient::text")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, rename = "alternateId", deserialize_with = "lenient::text")]
    alternate_id: Option<String>,
}

impl LogEntry {
    /// Parses one element of a page.
    pub fn read(raw: &RawValue) -> Self {
        let wire: Wire = match serde_json::from_str(raw.get()) {
            Ok(wire) => wire,
            Err(error) => return Self::unreadable(raw, Wire::default(), format!("not an event: {error}")),
        };
        match event(&wire) {
            Ok(event) => Self::Event(event),
            Err(why) => Self::unreadable(raw, wire, why),
        }
    }

    /// Removes from an unreadable entry, whose text is stored, the secrets that the request carried.
    pub(super) fn redacted(self, answer: &Answer) -> Self {
        match self {
            Self::Unreadable { event_id, event_type, published, raw, why } => {
                let (raw, why) = (answer.redacted(&raw), answer.redacted(&why));
                let clean = |text: Option<String>| text.map(|text| answer.redacted(&text));
                let (event_id, event_type) = (clean(event_id), clean(event_type));
                Self::Unreadable { event_id, event_type, published, raw, why }
            }
            event @ Self::Event(_) => event,
        }
    }

    fn unreadable(raw: &RawValue, wire: Wire, why: String) -> Self {
        let mut end = raw.get().len().min(RAW_BYTES_MAX);
        while !raw.get().is_char_boundary(end) {
            end -= 1;
        }
        Self::Unreadable {
            event_id: present(wire.uuid),
            event_type: present(wire.event_type),
            published: wire.published.as_deref().and_then(|text| parse_timestamp(text).ok()),
            raw: raw.get()[..end].to_owned(),
            why,
        }
    }
}

fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty() && text.len() <= TEXT_BYTES_MAX)
}

fn event(wire: &Wire) -> Result<Event, String> {
    let id = present(wire.uuid.clone()).ok_or("no uuid")?;
    let event_type = present(wire.event_type.clone()).ok_or("no eventType")?;
    let published = wire.published.as_deref().ok_or("no published")?;
    let published = parse_timestamp(published).map_err(|_| "published is not an RFC 3339 time")?;
    let users = users(wire.target.as_deref())?;
    let needs_user = event_type.starts_with("user.lifecycle.") && Signal::of(&event_type) != Signal::Irrelevant;
    if users.is_empty() && needs_user {
        return Err("no target of type User".to_owned());
    }
    let actor = present(wire.actor.alternate_id.clone()).or_else(|| present(wire.actor.id.clone()));
    let succeeded = wire.outcome.result.as_deref() == Some("SUCCESS");
    Ok(Event { id, event_type, published, actor, users, succeeded })
}

/// The distinct targets of type `User`, found by type: their position has no meaning (Okta docs: System Log).
fn users(targets: Option<&RawValue>) -> Result<Vec<EventUser>, String> {
    let Some(targets) = targets else { return Ok(Vec::new()) };
    let targets: Vec<&RawValue> = serde_json::from_str(targets.get()).map_err(|_| "target is not an array")?;
    let mut users: Vec<EventUser> = Vec::new();
    for target in targets {
        let target: Target = serde_json::from_str(target.get()).map_err(|_| "a target is not an object")?;
        if target.kind.as_deref() != Some("User") {
            continue;
        }
        let id = target.id.as_deref().and_then(OktaUserId::parse).ok_or("a target of type User has no valid id")?;
        if users.iter().all(|user| user.id != id) {
            users.push(EventUser { id, login: present(target.alternate_id) });
        }
    }
    Ok(users)
}
