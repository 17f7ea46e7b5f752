//! `/_sandbox/` of the Auth0 tenant: operations that the real API does not have.
//!
//! | request | does |
//! |---|---|
//! | `GET /_sandbox/users` | all users |
//! | `POST /_sandbox/users` | creates one: any root attribute, and `connection` → `{"user_id"}` |
//! | `PUT /_sandbox/users/{id}` | replaces attributes by those of the body, as another administrator would |
//! | `DELETE /_sandbox/users/{id}` | deletes one |
//! | `POST /_sandbox/link` | `{"primary","secondary"}` |
//! | `POST /_sandbox/login` | `{"user_id","kind"?}` → `{"granted","reason"}`; kinds: `interactive`, `password`, `refresh`, `silent` |
//! | `GET /_sandbox/action` | the names of the Actions in the post-login flow, in order |
//! | `POST /_sandbox/action` | `{"bound":true,"code"?}` for the Action |
//! | `POST /_sandbox/tokens/revoke` | revokes every access token |
//! | `POST /_sandbox/events` | `{"do":"close"}`, or `cut`, `expire`, `silence`, `resume`: to the event stream |
//! | `POST /_sandbox/scope` | `{"scope":"read:users …"}`: changes the granted scopes, also of existing tokens |

use serde_json::{Value, json};

use crate::control::refused;
use crate::message::{Inbound, Reply, percent_decoded};

use super::Auth0Tenant;
use super::login::{Login, LoginKind};

/// Handles the tenant's own part of the control API.
pub(super) fn answer(tenant: &Auth0Tenant, path: &[&str], request: &Inbound) -> Option<Reply> {
    let body = request.json().unwrap_or(Value::Null);
    let answer = match (request.method.as_str(), path) {
        ("GET", ["users"]) => Reply::json(200, &Value::Array(tenant.users())),
        ("POST", ["users"]) => match tenant.try_create_user(&body) {
            Ok(id) => Reply::json(201, &json!({ "user_id": id })),
            Err(why) => why,
        },
        ("PUT", ["users", id]) => {
            let changed = tenant.set_user(&percent_decoded(id), |user| {
                for (name, value) in body.as_object().into_iter().flatten() {
                    user[name.as_str()] = value.clone();
                }
            });
            if changed { Reply::empty(204) } else { refused(404, "no user has this id") }
        }
        ("DELETE", ["users", id]) => match tenant.delete_user(&percent_decoded(id)) {
            true => Reply::empty(204),
            false => refused(404, "no user has this id"),
        },
        ("POST", ["link"]) => match (body["primary"].as_str(), body["secondary"].as_str()) {
            (Some(primary), Some(secondary)) => match tenant.try_link(primary, secondary) {
                Ok(identities) => Reply::json(200, &identities),
                Err(why) => why,
            },
            _ => refused(400, "`primary` and `secondary` are needed"),
        },
        ("POST", ["login"]) => {
            match (body["user_id"].as_str(), LoginKind::named(body["kind"].as_str().unwrap_or_default())) {
                (Some(id), Some(kind)) => Reply::json(200, &ended(tenant.login_by(id, kind))),
                _ => refused(400, "`user_id` is needed; kinds are interactive, password, refresh, silent"),
            }
        }
        ("GET", ["action"]) => Reply::json(200, &json!({ "flow": tenant.action().flow() })),
        ("POST", ["action"]) => {
            if let Some(code) = body["code"].as_str() {
                tenant.action().set_code(code);
            }
            if let Some(bound) = body["bound"].as_bool() {
                tenant.action().set_bound(bound);
            }
            Reply::empty(204)
        }
        ("POST", ["tokens", "revoke"]) => {
            tenant.revoke_tokens();
            Reply::empty(204)
        }
        ("POST", ["events"]) => match body["do"].as_str() {
            Some("close") => done(|| tenant.events().close()),
            Some("cut") => done(|| tenant.events().cut()),
            Some("expire") => done(|| tenant.events().expire_offsets()),
            Some("silence") => done(|| tenant.events().set_silent(true)),
            Some("resume") => done(|| tenant.events().set_silent(false)),
            _ => refused(400, "`do` is one of close, cut, expire, silence, resume"),
        },
        ("POST", ["scope"]) => match body["scope"].as_str() {
            Some(scope) => {
                tenant.set_granted_scope(scope);
                Reply::empty(204)
            }
            None => refused(400, "`scope` is missing"),
        },
        _ => return None,
    };
    Some(answer)
}

fn done(act: impl FnOnce()) -> Reply {
    act();
    Reply::empty(204)
}

fn ended(login: Login) -> Value {
    match login {
        Login::Granted => json!({ "granted": true, "reason": null }),
        Login::Denied { reason } => json!({ "granted": false, "reason": reason }),
    }
}
