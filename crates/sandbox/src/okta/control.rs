//! `/_sandbox/` of the Okta org: operations that the real API does not have.
//!
//! | request | does |
//! |---|---|
//! | `GET /_sandbox/users` | all users of any status |
//! | `POST /_sandbox/users` | `{"login","email","firstName","lastName","activate":true}` → `{"id"}` |
//! | `POST /_sandbox/users/{id}/{operation}` | `activate`, `import_activate`, `deactivate`, `deactivate_silently`, `suspend`, `unsuspend`, `delete`, `hide`, `show` |
//! | `POST /_sandbox/users/{id}/profile` | merges the body into the profile, and logs the event |
//! | `POST /_sandbox/users/{id}/status` | `{"status","transitioningToStatus"?}`, without an event |
//! | `GET /_sandbox/events` | the whole log in order of persistence |
//! | `POST /_sandbox/events` | appends the body verbatim |
//! | `POST /_sandbox/events/hold`, `…/release`, `…/release_reversed` | delays persistence of events |
//! | `POST /_sandbox/events/{uuid}/repeat` | persists the event again |
//! | `POST /_sandbox/events/page` | `{"max":6}`: shorter pages although more events follow; `{}` ends it |
//! | `POST /_sandbox/token/revoke`, `…/restore` | revokes all tokens, or restores the API token |
//! | `POST /_sandbox/role` | `{"logs":false,"users":true,"names":true}`: what the caller's role permits; with `"names":false`, users have no login and e-mail |
//! | `POST /_sandbox/apps` | registers a service app: `{"client_id","key":{JWK},"scopes"?,"require_dpop"?}` |

use serde_json::{Value, json};

use crate::control::refused;
use crate::message::{Inbound, Reply};

use super::oauth::ServiceApp;
use super::{NewUser, OktaTenant};

/// Handles the org's own part of the control API.
pub(super) fn answer(org: &OktaTenant, path: &[&str], request: &Inbound) -> Option<Reply> {
    let body = request.json().unwrap_or(Value::Null);
    let answer = match (request.method.as_str(), path) {
        ("GET", ["users"]) => Reply::json(200, &Value::Array(org.users())),
        ("POST", ["users"]) => {
            let text = |name: &str| body[name].as_str().unwrap_or_default();
            let email = if body["email"].is_string() { text("email") } else { text("login") };
            let mut user = NewUser::new(text("login"), email).named(text("firstName"), text("lastName"));
            user.activate = body["activate"] != json!(false);
            match org.try_create_user(&user) {
                Ok(id) => Reply::json(201, &json!({ "id": id.as_str() })),
                Err(why) => refused(400, &why),
            }
        }
        ("POST", ["users", id, operation]) => match org.user(id) {
            Some(_) => operate(org, id, operation, &body)?,
            None => refused(404, "no user has this id"),
        },
        ("GET", ["events"]) => Reply::json(200, &Value::Array(org.log_entries())),
        ("POST", ["events"]) => match body {
            Value::Object(_) => {
                org.push_log_entry(body);
                Reply::empty(204)
            }
            _ => refused(400, "the body is one entry"),
        },
        ("POST", ["events", "hold"]) => done(|| org.hold_log()),
        ("POST", ["events", "release"]) => done(|| org.release_log(false)),
        ("POST", ["events", "release_reversed"]) => done(|| org.release_log(true)),
        ("POST", ["events", "page"]) => {
            let most = body["max"].as_u64().and_then(|most| usize::try_from(most).ok());
            done(|| org.set_log_page_max(most))
        }
        ("POST", ["events", uuid, "repeat"]) if org.repeat_log_entry(uuid) => Reply::empty(204),
        ("POST", ["events", _, "repeat"]) => refused(404, "no event has this uuid"),
        ("POST", ["token", "revoke"]) => done(|| org.revoke_token()),
        ("POST", ["token", "restore"]) => done(|| org.restore_token()),
        ("POST", ["role"]) => done(|| {
            org.set_role(body["logs"] != json!(false), body["users"] != json!(false));
            org.hide_names(body["names"] == json!(false));
        }),
        ("POST", ["apps"]) => register(org, &body),
        _ => return None,
    };
    Some(answer)
}

fn done(act: impl FnOnce()) -> Reply {
    act();
    Reply::empty(204)
}

fn operate(org: &OktaTenant, id: &str, operation: &str, body: &Value) -> Option<Reply> {
    Some(match operation {
        "activate" => done(|| org.activate(id)),
        "import_activate" => done(|| org.import_activate(id)),
        "deactivate" => done(|| org.deactivate(id)),
        "deactivate_silently" => done(|| org.deactivate_silently(id)),
        "suspend" => done(|| org.suspend(id)),
        "unsuspend" => done(|| org.unsuspend(id)),
        "delete" => done(|| org.delete(id)),
        "hide" => done(|| org.hide(id)),
        "show" => done(|| org.show(id)),
        "profile" => match body.as_object() {
            Some(profile) => done(|| org.merge_profile(id, profile)),
            None => refused(400, "the body is the part of the profile to be changed"),
        },
        "status" => match body["status"].as_str() {
            Some(status) => done(|| org.set_status(id, status, body["transitioningToStatus"].as_str())),
            None => refused(400, "`status` is missing"),
        },
        _ => return None,
    })
}

fn register(org: &OktaTenant, body: &Value) -> Reply {
    let (Some(client_id), Value::Object(_)) = (body["client_id"].as_str(), &body["key"]) else {
        return refused(400, "`client_id` and `key` are needed");
    };
    let mut app = ServiceApp::new(client_id, body["key"].clone());
    if let Some(scopes) = body["scopes"].as_array() {
        app.scopes = scopes.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    }
    app.require_dpop = body["require_dpop"] == json!(true);
    app.has_role = body["has_role"] != json!(false);
    done(|| org.register_app(app))
}
