//! `/_sandbox/`: the control API. Faults, journal and clock over HTTP, for tests that run the daemon as a child process
//! and for `curl`. It requires no credential: it is served on the loopback interface only.
//!
//! | request | does |
//! |---|---|
//! | `GET /_sandbox/` | this text |
//! | `GET /_sandbox/journal` | the received requests |
//! | `DELETE /_sandbox/journal` | removes them |
//! | `GET /_sandbox/faults` | the active faults |
//! | `POST /_sandbox/faults` | adds one: `{"method":"GET","path":"/api/v1/logs","skip":1,"times":2,"effect":{"kind":"status","code":503}}` |
//! | `DELETE /_sandbox/faults[/{id}]` | removes one, or all |
//! | `GET /_sandbox/clock` | the time |
//! | `POST /_sandbox/inbox` | stores the body, any JSON: a receiver for alarms |
//! | `GET /_sandbox/inbox` | the stored messages |
//! | `POST /_sandbox/clock` | `{"advance":"1h"}`, if the clock can be moved |
//!
//! `path` may also be `{"exact":…}`, `{"prefix":…}` or `{"contains":…}`; a string is a prefix. Effects:
//! `status` (`code`, `body`, `headers`), `rate_limited` (`variant`: `plain`, `concurrency`, `retry_after` with
//! `seconds`, `without_headers`, `reset_in_the_past`), `delay` (`span`), `cut_body`, `cut_body_over` (`bytes`),
//! `stall_body`, `drop`, `after_effect` (`effect`), `replace_body` (`body`), `replace_header` (`name`, `value`), `next_link_origin` (`origin`).

use std::time::Duration;

use serde_json::{Value, json};

use okta_auth0_sync_clock::{Clock, timestamp_text};

use super::faults::{Effect, Fault, FaultId, PathMatch, RateLimited};
use super::journal::Recorded;
use super::message::{Inbound, Reply};
use super::tenant::{Tenant, TenantContext};

/// Handles a request of the control API.
pub(super) fn answer<T: Tenant>(tenant: &T, context: &TenantContext, path: &[&str], request: &Inbound) -> Reply {
    if path.is_empty() && request.method == "GET" {
        return Reply::text(200, "text/plain; charset=utf-8", help(tenant.control_source()));
    }
    shared(context, path, request)
        .or_else(|| tenant.control(path, request))
        .unwrap_or_else(|| refused(404, "unknown control: GET /_sandbox/ lists them"))
}

/// What the control API can do: the tables at the head of the modules.
fn help(of_tenant: &str) -> String {
    let tables = [include_str!("control.rs"), of_tenant].map(|source| {
        let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
        lines.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect::<String>()
    });
    tables.join("\n")
}

/// An error response of the control API.
pub(super) fn refused(status: u16, why: &str) -> Reply {
    Reply::json(status, &json!({ "error": why }))
}

fn shared(context: &TenantContext, path: &[&str], request: &Inbound) -> Option<Reply> {
    let answer = match (request.method.as_str(), path) {
        ("GET", ["journal"]) => {
            let requests: Vec<Value> = context.journal.requests().iter().map(recorded).collect();
            Reply::json(200, &json!({ "total": context.journal.total(), "requests": requests }))
        }
        ("DELETE", ["journal"]) => {
            context.journal.clear();
            Reply::empty(204)
        }
        ("GET", ["faults"]) => {
            let faults: Vec<Value> = context
                .faults
                .list()
                .iter()
                .map(|(id, fault)| {
                    json!({ "id": id.0, "method": fault.method, "skip": fault.skip, "times": fault.times,
                            "effect": format!("{:?}", fault.effect) })
                })
                .collect();
            Reply::json(200, &json!(faults))
        }
        ("POST", ["faults"]) => match request.json().ok_or("the body is not JSON".to_owned()).and_then(|v| fault(&v)) {
            Ok(fault) => Reply::json(201, &json!({ "id": context.faults.add(fault).0 })),
            Err(why) => refused(400, &why),
        },
        ("DELETE", ["faults"]) => {
            context.faults.clear();
            Reply::empty(204)
        }
        ("DELETE", ["faults", id]) => match id.parse() {
            Ok(id) if context.faults.remove(FaultId(id)) => Reply::empty(204),
            _ => refused(404, "no fault of this id is switched on"),
        },
        ("GET", ["inbox"]) => Reply::json(200, &Value::Array(context.inbox.messages())),
        ("POST", ["inbox"]) => match request.json() {
            Some(message) => {
                context.inbox.put(message);
                Reply::empty(204)
            }
            None => refused(400, "the body is not JSON"),
        },
        ("GET", ["clock"]) => Reply::json(200, &json!({ "now": timestamp_text(context.clock.now()) })),
        ("POST", ["clock"]) => advance(context, request),
        _ => return None,
    };
    Some(answer)
}

fn advance(context: &TenantContext, request: &Inbound) -> Reply {
    let Some(clock) = &context.manual_clock else {
        return refused(409, "this sandbox runs on the machine's clock");
    };
    match request.json().as_ref().and_then(|body| body.get("advance")).and_then(span) {
        Some(span) => {
            clock.advance(span);
            Reply::json(200, &json!({ "now": timestamp_text(clock.now()) }))
        }
        None => refused(400, "say {\"advance\": \"90s\"}"),
    }
}

fn recorded(request: &Recorded) -> Value {
    json!({
        "number": request.number,
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "at": timestamp_text(request.at),
        "status": request.status,
        "request_id": request.request_id,
        "correlation_id": request.correlation_id,
        "body": request.body,
    })
}

/// A duration: a number of seconds, or text such as `"1h 30m"`.
fn span(value: &Value) -> Option<Duration> {
    match value {
        Value::String(text) => humantime::parse_duration(text).ok(),
        other => Duration::try_from_secs_f64(other.as_f64()?).ok(),
    }
}

fn fault(value: &Value) -> Result<Fault, String> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let count = |key: &str| value.get(key).and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok());
    let path = match value.get("path") {
        None | Some(Value::Null) => PathMatch::Any,
        Some(Value::String(prefix)) => PathMatch::Prefix(prefix.clone()),
        Some(other) => {
            let part = |key: &str| other.get(key).and_then(Value::as_str).map(str::to_owned);
            part("exact")
                .map(PathMatch::Exact)
                .or_else(|| part("prefix").map(PathMatch::Prefix))
                .or_else(|| part("contains").map(PathMatch::Contains))
                .ok_or("`path` is a text, or one of exact, prefix, contains")?
        }
    };
    let effect = effect(value.get("effect").ok_or("`effect` is missing")?)?;
    Ok(Fault { method: text("method"), path, skip: count("skip").unwrap_or(0), times: count("times"), effect })
}

fn effect(value: &Value) -> Result<Effect, String> {
    let text = |key: &str| {
        value.get(key).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| format!("`{key}` is missing"))
    };
    Ok(match text("kind")?.as_str() {
        "status" => {
            let code = value.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
            let headers = value.get("headers").and_then(Value::as_object);
            Effect::Status {
                code: code.filter(|code| (200..600).contains(code)).ok_or("`code` is an HTTP status")?,
                body: value.get("body").cloned().unwrap_or_else(|| json!({})),
                headers: headers
                    .into_iter()
                    .flatten()
                    .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                    .collect(),
            }
        }
        "rate_limited" => Effect::RateLimited(match text("variant").unwrap_or_default().as_str() {
            "" | "plain" => RateLimited::Plain,
            "concurrency" => RateLimited::Concurrency,
            "retry_after" => {
                RateLimited::RetryAfter(value.get("seconds").and_then(span).ok_or("`seconds` is missing")?)
            }
            "without_headers" => RateLimited::WithoutHeaders,
            "reset_in_the_past" => RateLimited::ResetInThePast,
            other => return Err(format!("`{other}` is not a variant")),
        }),
        "delay" => Effect::Delay(value.get("span").and_then(span).ok_or("`span` is missing")?),
        "cut_body" => Effect::CutBody,
        "cut_body_over" => {
            let bytes = value.get("bytes").and_then(Value::as_u64).and_then(|bytes| usize::try_from(bytes).ok());
            Effect::CutBodyOver(bytes.ok_or("`bytes` is missing")?)
        }
        "stall_body" => Effect::StallBody,
        "drop" => Effect::Drop,
        "after_effect" => Effect::AfterEffect(Box::new(effect(value.get("effect").ok_or("`effect` is missing")?)?)),
        "replace_body" => Effect::ReplaceBody(text("body")?.into_bytes()),
        "replace_header" => Effect::ReplaceHeader {
            name: text("name")?,
            value: value.get("value").and_then(Value::as_str).map(str::to_owned),
        },
        "next_link_origin" => Effect::NextLinkOrigin(text("origin")?),
        other => return Err(format!("`{other}` is not an effect")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_json() {
        let read = fault(&json!({
            "method": "GET", "path": "/api/v1/logs", "skip": 1, "times": 2,
            "effect": { "kind": "after_effect", "effect": { "kind": "drop" } }
        }));
        let expected = Fault::new("GET", "/api/v1/logs", Effect::AfterEffect(Box::new(Effect::Drop))).skip(1).times(2);
        assert_eq!(read, Ok(expected));
        let delay = fault(&json!({ "effect": { "kind": "delay", "span": "1m" } }));
        assert_eq!(delay, Ok(Fault::everywhere(Effect::Delay(Duration::from_secs(60)))));
    }

    #[test]
    fn invalid_faults_are_explained() {
        for (value, why) in [
            (json!({}), "`effect` is missing"),
            (json!({ "effect": { "kind": "melt" } }), "`melt` is not an effect"),
            (json!({ "effect": { "kind": "status", "code": 20 } }), "`code` is an HTTP status"),
            (
                json!({ "path": {}, "effect": { "kind": "drop" } }),
                "`path` is a text, or one of exact, prefix, contains",
            ),
        ] {
            assert_eq!(fault(&value), Err(why.to_owned()));
        }
    }
}
