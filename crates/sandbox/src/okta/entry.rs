//! One event of the System Log in Okta's format.
//!
//! The shape is that of events recorded in okta-sdk-java (`stubs/logs.json`, 2017), which the current OpenAPI
//! description still fits. Generated events are stored as a few facts and serialized on request, so that a million
//! of them fits into memory.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::expression::Attributes;
use okta_auth0_sync_clock::{Timestamp, timestamp_text};

/// The event types that the stand-in generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Create,
    Activate,
    Deactivate,
    Suspend,
    Unsuspend,
    Reactivate,
    UpdateProfile,
    SessionClear,
    DeleteInitiated,
}

impl Kind {
    pub(super) fn event_type(self) -> &'static str {
        match self {
            Self::Create => "user.lifecycle.create",
            Self::Activate => "user.lifecycle.activate",
            Self::Deactivate => "user.lifecycle.deactivate",
            Self::Suspend => "user.lifecycle.suspend",
            Self::Unsuspend => "user.lifecycle.unsuspend",
            Self::Reactivate => "user.lifecycle.reactivate",
            Self::UpdateProfile => "user.account.update_profile",
            Self::SessionClear => "user.session.clear",
            Self::DeleteInitiated => "user.lifecycle.delete.initiated",
        }
    }

    fn legacy(self) -> &'static str {
        match self {
            Self::Create => "core.user.config.user_creation.success",
            Self::Activate => "core.user.config.user_activated",
            Self::Deactivate => "core.user.config.user_deactivated",
            Self::Suspend => "core.user.config.user_suspended",
            Self::Unsuspend => "core.user.config.user_unsuspended",
            Self::Reactivate => "core.user.config.user_reactivated",
            Self::UpdateProfile => "core.user.config.profile_update.success",
            Self::SessionClear => "core.user.sessions.clear",
            Self::DeleteInitiated => "core.user.config.user_status.delete.initiated",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Create => "Create okta user",
            Self::Activate => "Activate Okta user",
            Self::Deactivate => "Deactivate Okta User",
            Self::Suspend => "Suspend Okta user",
            Self::Unsuspend => "Unsuspend Okta user",
            Self::Reactivate => "Reactivate Okta user",
            Self::UpdateProfile => "Update user profile for Okta",
            Self::SessionClear => "Clear user session",
            Self::DeleteInitiated => "Delete Okta user initiated",
        }
    }

    /// The path after `/api/v1/users` of the request that causes such an event.
    fn request(self, user_id: &str) -> String {
        match self {
            Self::Create => String::new(),
            Self::UpdateProfile | Self::DeleteInitiated => format!("/{user_id}"),
            Self::SessionClear => format!("/{user_id}/sessions"),
            Self::Activate => format!("/{user_id}/lifecycle/activate"),
            Self::Deactivate => format!("/{user_id}/lifecycle/deactivate"),
            Self::Suspend => format!("/{user_id}/lifecycle/suspend"),
            Self::Unsuspend => format!("/{user_id}/lifecycle/unsuspend"),
            Self::Reactivate => format!("/{user_id}/lifecycle/reactivate"),
        }
    }
}

/// The facts of a generated event.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) kind: Kind,
    pub(super) uuid: Box<str>,
    pub(super) transaction: Arc<str>,
    pub(super) user_id: Arc<str>,
    /// The login at that time.
    pub(super) login: Box<str>,
    pub(super) name: Box<str>,
    /// `changedAttributes` of a profile update.
    pub(super) changed: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Made(Box<Facts>),
    /// Pushed from outside, verbatim.
    Raw(Arc<str>),
}

/// An event.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// When it was persisted: never earlier than the event before it.
    pub(super) persisted_ms: i64,
    pub(super) published: Timestamp,
    pub(super) content: Content,
}

/// The administrator who acts through the stand-in.
const ACTOR: (&str, &str) = ("00uSandboxAdmin00000", "admin@sandbox.example");

impl Entry {
    /// The event as JSON text.
    pub(super) fn json(&self) -> Cow<'_, str> {
        match &self.content {
            Content::Raw(text) => Cow::Borrowed(text),
            Content::Made(facts) => Cow::Owned(facts.json(self.published)),
        }
    }

    fn parsed(&self) -> Value {
        serde_json::from_str(&self.json()).unwrap_or(Value::Null)
    }

    /// Returns whether the text contains `keyword`, ignoring case.
    pub(super) fn mentions(&self, keyword: &str) -> bool {
        self.json().to_lowercase().contains(&keyword.to_lowercase())
    }

    /// Its `uuid`.
    pub(super) fn uuid(&self) -> Cow<'_, str> {
        match &self.content {
            Content::Made(facts) => Cow::Borrowed(&facts.uuid),
            Content::Raw(_) => Cow::Owned(self.parsed()["uuid"].as_str().unwrap_or_default().to_owned()),
        }
    }
}

impl Attributes for Entry {
    fn values(&self, attribute: &str) -> Vec<Cow<'_, str>> {
        if let Content::Made(facts) = &self.content {
            // Attributes that filters use are read without serializing the event.
            let known: Option<&str> = match attribute {
                "eventType" => Some(facts.kind.event_type()),
                "uuid" => Some(&facts.uuid),
                "target.id" => Some(&facts.user_id),
                "target.type" | "actor.type" => Some("User"),
                "target.alternateId" => Some(&facts.login),
                "actor.id" => Some(ACTOR.0),
                "outcome.result" => Some("SUCCESS"),
                "severity" => Some("INFO"),
                "transaction.id" => Some(&facts.transaction),
                _ => None,
            };
            if let Some(known) = known {
                return vec![Cow::Borrowed(known)];
            }
        }
        let mut found = Vec::new();
        collect(&self.parsed(), &attribute.split('.').collect::<Vec<_>>(), &mut found);
        found.into_iter().map(Cow::Owned).collect()
    }

    fn ignores_case(&self, _: &str) -> bool {
        false
    }
}

/// The scalars at a path, through lists on the way.
fn collect(value: &Value, path: &[&str], found: &mut Vec<String>) {
    match (value, path) {
        (Value::Array(elements), _) => elements.iter().for_each(|element| collect(element, path, found)),
        (Value::Object(fields), [first, rest @ ..]) => {
            if let Some(field) = fields.get(*first) {
                collect(field, rest, found);
            }
        }
        (Value::String(text), []) => found.push(text.clone()),
        (Value::Bool(_) | Value::Number(_), []) => found.push(value.to_string()),
        _ => {}
    }
}

impl Facts {
    fn json(&self, published: Timestamp) -> String {
        let text = |value: &str| Value::String(value.to_owned()).to_string();
        let changed = self.changed.map_or(String::new(), |names| format!(r#","changedAttributes":{}"#, text(names)));
        format!(
            r#"{{"actor":{{"id":"{actor}","type":"User","alternateId":"{actor_login}","displayName":"Sandbox Administrator","detailEntry":null}},"client":{{"userAgent":{{"rawUserAgent":"sandbox","os":"Unknown","browser":"UNKNOWN"}},"zone":"null","device":"Computer","id":null,"ipAddress":"127.0.0.1","geographicalContext":null}},"device":null,"authenticationContext":{{"authenticationProvider":null,"credentialProvider":null,"credentialType":null,"issuer":null,"interface":null,"authenticationStep":0,"externalSessionId":"trs{transaction}"}},"displayMessage":{message},"eventType":"{event_type}","outcome":{{"result":"SUCCESS","reason":null}},"published":"{published}","securityContext":{{"asNumber":null,"asOrg":null,"isp":null,"domain":null,"isProxy":null}},"severity":"INFO","debugContext":{{"debugData":{{"requestUri":"/api/v1/users{request}"{changed}}}}},"legacyEventType":"{legacy}","transaction":{{"type":"WEB","id":"{transaction}","detail":{{}}}},"uuid":"{uuid}","version":"0","request":{{"ipChain":[{{"ip":"127.0.0.1","geographicalContext":null,"version":"V4","source":null}}]}},"target":[{{"id":{user},"type":"User","alternateId":{login},"displayName":{name},"detailEntry":null}}]}}"#,
            actor = ACTOR.0,
            actor_login = ACTOR.1,
            transaction = self.transaction,
            message = text(self.kind.message()),
            event_type = self.kind.event_type(),
            published = timestamp_text(published),
            request = self.kind.request(&self.user_id),
            legacy = self.kind.legacy(),
            uuid = self.uuid,
            user = text(&self.user_id),
            login = text(&self.login),
            name = text(&self.name),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content: Content) -> Entry {
        Entry { persisted_ms: 0, published: "2026-01-01T00:00:00.5Z".parse().unwrap(), content }
    }

    fn made() -> Entry {
        entry(Content::Made(Box::new(Facts {
            kind: Kind::UpdateProfile,
            uuid: "u-1".into(),
            transaction: "t-1".into(),
            user_id: "00u1".into(),
            login: "a\"nn@example.com".into(),
            name: "Ann \\ Ä".into(),
            changed: Some("login"),
        })))
    }

    #[test]
    fn event_is_valid_json_for_any_name() {
        let value: Value = serde_json::from_str(&made().json()).unwrap();
        assert_eq!(value["target"][0]["alternateId"], "a\"nn@example.com");
        assert_eq!(value["target"][0]["displayName"], "Ann \\ Ä");
        assert_eq!(value["published"], "2026-01-01T00:00:00.500Z");
        assert_eq!(value["debugContext"]["debugData"]["changedAttributes"], "login");
    }

    #[test]
    fn attributes_match_the_json() {
        let made = made();
        let raw = entry(Content::Raw(made.json().into()));
        for attribute in [
            "eventType",
            "uuid",
            "target.id",
            "target.type",
            "actor.type",
            "target.alternateId",
            "actor.id",
            "outcome.result",
            "severity",
            "transaction.id",
            "displayMessage",
            "legacyEventType",
            "client.ipAddress",
        ] {
            assert_eq!(made.values(attribute), raw.values(attribute), "{attribute}");
            assert!(!made.values(attribute).is_empty(), "{attribute}");
        }
        assert!(made.values("outcome.reason").is_empty(), "null is not a value");
    }
}
