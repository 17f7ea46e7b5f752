//! One entry of the log: read leniently, set aside if it cannot be, and never the reason to lose its page.
//!
//! Strict models of this format, Okta's own SDKs among them, have dropped whole pages because its types wobble: `version`
//! is a text or a number, `postalCode` too. So five fields are read, and nothing else is looked at.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Answer;
use crate::domain::clock::parse_timestamp;
use crate::domain::event::EventUser;
use crate::domain::{Event, OktaUserId, Signal, Timestamp};
use crate::http::lenient;

/// What is kept of an entry that cannot be read, in bytes.
const RAW_BYTES_MAX: usize = 64 << 10;
/// The longest name, id or type that is taken for one, in bytes. Okta's logins have 100 characters at most, its ids and types
/// fewer: whatever is longer than this would only fill the state.
const TEXT_BYTES_MAX: usize = 1 << 10;

/// An entry of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// One that could be read.
    Event(Event),
    /// One that could not, with whatever could be.
    Unreadable {
        /// `uuid`.
        event_id: Option<String>,
        /// `eventType`.
        event_type: Option<String>,
        /// `published`.
        published: Option<Timestamp>,
        /// The entry as it came, at most 64 KiB of it.
        raw: String,
        /// What is wrong with it.
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
    /// Reads one element of a page.
    pub fn read(raw: &RawValue) -> Self {
        let wire: Wire = match serde_json::from_str(raw.get()) {
            Ok(wire) => wire,
            Err(error) => return Self::unreadable(raw, Wire::default(), format!("no event: {error}")),
        };
        match event(&wire) {
            Ok(event) => Self::Event(event),
            Err(why) => Self::unreadable(raw, wire, why),
        }
    }

    /// What is kept of an entry that cannot be read is its text: without what we sent, should it be in there.
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
    let published = parse_timestamp(published).map_err(|_| "published is no RFC 3339 time")?;
    let users = users(wire.target.as_deref())?;
    let is_about_somebody = event_type.starts_with("user.lifecycle.") && Signal::of(&event_type) != Signal::Irrelevant;
    if users.is_empty() && is_about_somebody {
        return Err("no target of type User".to_owned());
    }
    let actor = present(wire.actor.alternate_id.clone()).or_else(|| present(wire.actor.id.clone()));
    Ok(Event { id, event_type, published, actor, users })
}

/// Every target of type `User`, each once. Okta docs: search for the type, the position means nothing.
fn users(targets: Option<&RawValue>) -> Result<Vec<EventUser>, String> {
    let Some(targets) = targets else { return Ok(Vec::new()) };
    let targets: Vec<&RawValue> = serde_json::from_str(targets.get()).map_err(|_| "target is no list")?;
    let mut users: Vec<EventUser> = Vec::new();
    for target in targets {
        let target: Target = serde_json::from_str(target.get()).map_err(|_| "a target is no object")?;
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
