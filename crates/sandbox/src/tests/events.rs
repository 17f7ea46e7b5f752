//! The event stream of the Auth0 tenant as a client sees it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::Stage;

const SECOND: Duration = Duration::from_secs(1);

/// An open stream.
struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    /// Reads until the text so far contains `end`, and ends with a whole message.
    async fn until(&mut self, end: &str) -> &str {
        while !(self.text.contains(end) && self.text.ends_with("\n\n")) {
            let chunk = self.response.chunk().await.unwrap().unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        &self.text
    }

    /// Reads to the end of the stream, and returns whether it was a clean one.
    async fn read_all(&mut self) -> bool {
        loop {
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.text.push_str(std::str::from_utf8(&chunk).unwrap()),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// The payloads of all messages so far.
    fn data(&self) -> Vec<Value> {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

async fn open(stage: &Stage, query: &str) -> Stream {
    let url = format!("{}/api/v2/events{query}", stage.sandbox.auth0().url());
    let request = stage.client.get(url).header("authorization", stage.bearer().await);
    let response = request.header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    Stream { response, text: String::new() }
}

/// The status and the message of a request that opens no stream.
async fn refusal(stage: &Stage, query: &str) -> (u16, String) {
    let bearer = stage.bearer().await;
    let reply = stage.auth0(&bearer, Method::GET, &format!("/events{query}"), Value::Null).await;
    (reply.status, reply.body["message"].as_str().unwrap_or_default().to_owned())
}

/// Auth0's description of the payloads, or what it requires of them where it is not available.
fn schemas() -> Value {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference");
    // A checkout elsewhere sets the variable.
    let folder = std::env::var_os("AUTH0_REFERENCE").map_or(beside, PathBuf::from);
    match std::fs::read_to_string(folder.join("auth0-events-schema-0.7.2.json")) {
        Ok(text) => serde_json::from_str::<Value>(&text).unwrap()["components"]["schemas"].clone(),
        Err(_) => {
            eprintln!("Auth0's schema is not available: only the required fields are compared");
            let schema = |kind: &str, object: Value| {
                json!({
                    "type": "object",
                    "required": ["specversion", "type", "source", "id", "time", "data", "a0tenant", "a0stream"],
                    "properties": {
                        "type": { "const": kind },
                        "id": { "type": "string" },
                        "data": { "required": ["object"], "properties": { "object": { "required": object } } },
                    },
                })
            };
            json!({
                "user.created": schema("user.created", json!(["user_id", "created_at", "updated_at", "identities"])),
                "user.updated": schema("user.updated", json!(["user_id", "created_at", "updated_at", "identities"])),
                "user.deleted": schema(
                    "user.deleted",
                    json!(["user_id", "created_at", "updated_at", "identities", "deleted_at"])
                ),
            })
        }
    }
}

/// Compares a value with the part of JSON Schema that Auth0's description uses. Patterns are not evaluated, except by length.
fn validate(value: &Value, schema: &Value, at: &str, problems: &mut Vec<String>) {
    if let Some(one) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let fits = one.iter().any(|schema| {
            let mut problems = Vec::new();
            validate(value, schema, at, &mut problems);
            problems.is_empty()
        });
        if !fits {
            problems.push(format!("{at}: {value} fits none of the alternatives"));
        }
    }
    if let Some(expected) = schema.get("const").filter(|expected| *expected != value) {
        problems.push(format!("{at}: {value} is not {expected}"));
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        problems.push(format!("{at}: {value} is not one of {}", schema["enum"]));
    }
    let fits = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        _ => true,
    };
    if !fits {
        problems.push(format!("{at}: {value} is not of type {}", schema["type"]));
    }
    if let Some(text) = value.as_str() {
        let length = u64::try_from(text.chars().count()).unwrap();
        let shortest = schema["minLength"].as_u64().unwrap_or(0);
        if length < shortest || length > schema["maxLength"].as_u64().unwrap_or(u64::MAX) {
            problems.push(format!("{at}: {value} has a length that is not allowed"));
        }
        if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
            problems.push(format!("{at}: {value} is not a time"));
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            problems.push(format!("{at}: {name} is missing"));
        }
    }
    let closed = schema["unevaluatedProperties"].get("not").is_some();
    for (name, value) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(schema) => validate(value, schema, &format!("{at}.{name}"), problems),
            None if closed => problems.push(format!("{at}: {name} is not allowed")),
            None => {}
        }
    }
    if let (Some(values), Some(schema)) = (value.as_array(), schema.get("items")) {
        for value in values {
            validate(value, schema, at, problems);
        }
    }
}

#[tokio::test]
async fn messages_have_the_published_form() {
    let stage = Stage::set(|options| {
        options.auth0.connections.push(crate::Connection::new("crew", "custom"));
    })
    .await;
    let auth0 = stage.sandbox.auth0();
    let mut stream = open(&stage, "?event_type=user.created&event_type=user.updated&event_type=user.deleted").await;
    let id = auth0.create_user(json!({ "email": "ann@example.com", "connection": "crew" }));
    let other = auth0.create_user(json!({ "email": "ann@example.org", "connection": "crew", "email_verified": true }));
    let bearer = stage.bearer().await;
    let patch = json!({ "app_metadata": { "okta_sync": { "deactivated": "true" } } });
    assert_eq!(stage.auth0(&bearer, Method::PATCH, &format!("/users/{id}"), patch).await.status, 200);
    auth0.login(&id);
    auth0.link(&id, &other);
    auth0.delete_user(&id);
    stream.until("deleted_at").await;
    let schemas = schemas();
    let messages = stream.data();
    let kinds: Vec<&str> = messages.iter().map(|data| data["event"]["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["user.created", "user.created", "user.updated", "user.updated", "user.updated", "user.deleted"],
        "created twice; marked, logged in, linked; deleted"
    );
    for data in &messages {
        let event = &data["event"];
        let mut problems = Vec::new();
        validate(event, &schemas[event["type"].as_str().unwrap()], "event", &mut problems);
        assert!(problems.is_empty(), "{problems:#?}");
        assert_eq!(event["id"].as_str().unwrap().len(), 26, "evt_ and 22 characters");
    }
    assert!(messages[2]["event"]["data"]["previous_object"].get("app_metadata").is_none());
    assert_eq!(messages[4]["event"]["data"]["object"]["identities"][1]["profileData"]["email"], "ann@example.org");
}

#[tokio::test]
async fn stream_resumes_after_its_offset() {
    let stage = Stage::set(|_| ()).await;
    let auth0 = stage.sandbox.auth0();
    let before = auth0.events().last_offset();
    for name in ["ann", "bob", "cat"] {
        auth0.create_user(json!({ "email": format!("{name}@example.com") }));
        stage.clock.advance(SECOND);
    }
    let mut stream = open(&stage, &format!("?from={before}")).await;
    stream.until("cat@example.com").await;
    let second = stream.data()[1]["offset"].as_str().unwrap().to_owned();
    drop(stream);
    let mut stream = open(&stage, &format!("?from={second}")).await;
    stream.until("cat@example.com").await;
    assert!(!stream.text.contains("bob@"), "{}", stream.text);
    let mut stream = open(&stage, "?from_timestamp=2026-01-01T00:00:01Z").await;
    stream.until("cat@example.com").await;
    assert!(stream.text.contains("bob@") && !stream.text.contains("ann@"), "{}", stream.text);
}

#[tokio::test]
async fn requests_without_a_stream_name_their_error() {
    let stage = Stage::set(|options| options.auth0.events.connections_max = 1).await;
    let auth0 = stage.sandbox.auth0();
    assert_eq!(refusal(&stage, "?from=nonsense").await.0, 400);
    assert_eq!(refusal(&stage, "?event_type=user.cloned").await.0, 400);
    let offset = auth0.events().last_offset();
    assert_eq!(refusal(&stage, &format!("?from={offset}&from_timestamp=2026-01-01T00:00:00Z")).await.0, 400);
    auth0.create_user(json!({ "email": "ann@example.com" }));
    auth0.events().expire_offsets();
    assert_eq!(refusal(&stage, &format!("?from={offset}")).await.0, 410);
    auth0.events().occupy();
    let (status, why) = refusal(&stage, "").await;
    assert!(status == 429 && why.contains("concurrent connections"), "{status} {why}");
    auth0.events().release();
    auth0.set_granted_scope("read:users");
    let (status, why) = refusal(&stage, "").await;
    assert!(status == 403 && why.contains("read:events"), "{status} {why}");
}

#[tokio::test]
async fn stream_beats_and_ends_after_its_lifetime() {
    let stage = Stage::set(|_| ()).await;
    let auth0 = stage.sandbox.auth0();
    let mut stream = open(&stage, "").await;
    stream.until(":connected").await;
    for beat in [":heartbeat", "event: offset-only"] {
        stage.clock.advance(15 * SECOND);
        stream.until(beat).await;
    }
    let offset = auth0.events().last_offset();
    assert!(stream.text.contains(&format!("id: {offset}")), "{}", stream.text);
    stage.clock.advance(300 * SECOND);
    assert!(stream.read_all().await, "a clean end");
    let mut stream = open(&stage, "").await;
    auth0.events().cut();
    assert!(!stream.read_all().await, "half a message");
    assert!(stream.text.ends_with("\"ev"), "{}", stream.text);
    let mut stream = open(&stage, "").await;
    auth0.events().fail("internal_error");
    assert!(stream.read_all().await);
    assert!(stream.text.contains("event: error\n"), "{}", stream.text);
}
