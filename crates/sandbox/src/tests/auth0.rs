//! The Auth0 tenant.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::jose::tests::TestRsaKey;
use crate::{Bucket, Connection, ProfileLimit};

use super::{Reply, Stage};

const MARK: &str = r#"{"deactivated":"true"}"#;

fn mark() -> Value {
    serde_json::from_str(MARK).unwrap()
}

fn code(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.body["errorCode"].as_str().unwrap_or_default())
}

fn path(id: &str) -> String {
    format!("/users/{}", id.replace('|', "%7C"))
}

#[tokio::test]
async fn a_mark_denies_and_its_removal_lets_in() {
    let stage = Stage::set(|_| ()).await;
    let auth0 = stage.sandbox.auth0();
    let ann = auth0.create_user(json!({ "email": "Ann@Example.com", "user_metadata": { "lang": "de" } }));
    let bearer = stage.bearer().await;
    assert!(auth0.login(&ann).is_granted());
    let found =
        stage.auth0(&bearer, Method::GET, "/users-by-email?email=ann%40example.com&fields=user_id", Value::Null).await;
    assert_eq!(found.body, json!([{ "user_id": ann }]), "a database keeps addresses in lower case");
    let body = json!({ "app_metadata": { "okta_sync": mark() }, "user_metadata": { "okta": mark() } });
    let patched = stage.auth0(&bearer, Method::PATCH, &path(&ann), body.clone()).await;
    assert_eq!((patched.status, &patched.body["user_metadata"]["lang"]), (200, &json!("de")));
    let denied = auth0.login(&ann);
    assert_eq!(denied, crate::Login::Denied { reason: "account_deactivated".to_owned() });
    for kind in [crate::LoginKind::Refresh, crate::LoginKind::Silent, crate::LoginKind::Password] {
        assert_eq!(auth0.login_by(&ann, kind), denied, "{kind:?}");
    }
    assert_eq!(auth0.journal().requests().last().unwrap().body, Some(body));
    let undo = json!({ "app_metadata": { "okta_sync": null }, "user_metadata": { "okta": null } });
    stage.auth0(&bearer, Method::PATCH, &path(&ann), undo).await;
    assert!(auth0.login(&ann).is_granted());
    stage.auth0(&bearer, Method::PATCH, &path(&ann), json!({ "blocked": true })).await;
    assert_eq!(auth0.login(&ann), crate::Login::Denied { reason: "user is blocked".to_owned() });
}

#[tokio::test]
async fn the_flow_decides_which_actions_run() {
    let stage = Stage::set(|_| ()).await;
    let auth0 = stage.sandbox.auth0();
    let ann = auth0.create_user(json!({ "email": "a@x.org", "app_metadata": { "okta_sync": mark() } }));
    auth0.action().set_bound(false);
    assert!(auth0.login(&ann).is_granted());
    auth0.action().install("breaks", "exports.onExecutePostLogin = async (event) => { event.user.x.y };");
    auth0.action().place("breaks", Some(0));
    assert!(!auth0.login(&ann).is_granted(), "an Action that throws denies everyone");
    auth0.action().set_bound(true);
    assert_eq!(auth0.action().flow(), ["okta-auth0-sync", "breaks"]);
    assert_eq!(auth0.login(&ann), crate::Login::Denied { reason: "account_deactivated".to_owned() });
}

#[tokio::test]
async fn tokens_are_refused_as_recorded() {
    let stage = Stage::set(|options| {
        options.auth0.other_audiences = vec!["https://api.example/".to_owned()];
        options.auth0.token_lifetime = Duration::from_secs(60);
    })
    .await;
    let auth0 = stage.sandbox.auth0();
    let (id, secret, audience) = (auth0.client_id(), auth0.client_secret(), auth0.audience());
    let ask = |secret: &str, audience: &str| {
        let form = [("client_id", id.clone()), ("client_secret", secret.to_owned()), ("audience", audience.to_owned())];
        let stage = &stage;
        async move {
            let mut form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
            form.push(("grant_type", "client_credentials"));
            stage.token(&form).await
        }
    };
    assert_eq!(
        ask("wrong", &audience).await.body,
        json!({ "error": "access_denied", "error_description": "Unauthorized" })
    );
    let other = ask(&secret, "https://nowhere.example/").await;
    assert_eq!((other.status, &other.body["error"]), (403, &json!("access_denied")));
    let other = ask(&secret, "https://api.example/").await;
    let other = format!("Bearer {}", other.body["access_token"].as_str().unwrap());
    let bearer = stage.bearer().await;
    for (credential, status, message) in [
        ("", 401, "Missing authentication"),
        ("Bearer a", 400, "Bad HTTP authentication header format"),
        ("Bearer a.b.c", 401, "Invalid token"),
        (&other, 401, "Bad audience: https://api.example/"),
    ] {
        let refused = stage.auth0(credential, Method::GET, "/users", Value::Null).await;
        assert_eq!((refused.status, refused.body["message"].as_str()), (status, Some(message)));
    }
    assert_eq!(stage.auth0(&bearer, Method::GET, "/users", Value::Null).await.status, 200);
    stage.clock.advance(Duration::from_secs(60));
    let expired = stage.auth0(&bearer, Method::GET, "/users", Value::Null).await;
    assert_eq!(expired.body["message"], "Expired token received for JSON Web Token validation");
    auth0.set_granted_scope("");
    let refused = ask(&secret, &audience).await;
    assert!(refused.body["error_description"].as_str().unwrap().contains("client-grant"));
}

#[tokio::test]
async fn assertion_replaces_the_secret_once() {
    let key = TestRsaKey::generate();
    let stage = Stage::set(|options| options.auth0.keys = vec![key.public()]).await;
    let auth0 = stage.sandbox.auth0();
    let (id, audience, issuer) = (auth0.client_id(), auth0.audience(), format!("{}/", auth0.url()));
    let ask = |claims: Value| {
        let (stage, assertion, audience) = (&stage, key.sign(&claims), &audience);
        async move {
            let form = [
                ("grant_type", "client_credentials"),
                ("audience", audience),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", &assertion),
            ];
            stage.token(&form).await
        }
    };
    let good = json!({ "iss": id, "sub": id, "aud": issuer, "exp": 1_767_225_600 + 60, "jti": "1" });
    assert_eq!(ask(good.clone()).await.status, 200);
    assert_eq!(ask(good.clone()).await.body["error"], "invalid_client", "used");
    for (claim, wrong) in [
        ("aud", json!(issuer.trim_end_matches('/'))),
        ("exp", json!(1_767_225_600 + 301)),
        ("jti", json!("x".repeat(65))),
        ("jti", Value::Null),
    ] {
        let mut claims = good.clone();
        claims["jti"] = json!(claim);
        claims[claim] = wrong;
        assert_eq!(ask(claims).await.status, 401, "{claim}");
    }
}

#[tokio::test]
async fn each_endpoint_has_its_scope() {
    let stage = Stage::set(|_| ()).await;
    let auth0 = stage.sandbox.auth0();
    let ann = auth0.create_user(json!({ "email": "a@x.org" }));
    let bearer = stage.bearer().await;
    auth0.set_granted_scope("update:users_app_metadata");
    let read = stage.auth0(&bearer, Method::GET, &path(&ann), Value::Null).await;
    assert_eq!(code(&read), (403, "insufficient_scope"));
    assert_eq!(read.body["message"], "Insufficient scope, expected any of: read:users");
    let app = json!({ "app_metadata": { "a": 1 } });
    assert_eq!(stage.auth0(&bearer, Method::PATCH, &path(&ann), app).await.status, 200);
    let both = json!({ "app_metadata": { "a": 1 }, "blocked": true });
    assert_eq!(code(&stage.auth0(&bearer, Method::PATCH, &path(&ann), both).await), (403, "insufficient_scope"));
}

#[tokio::test]
async fn lookups_are_exact_and_searches_lag() {
    let stage = Stage::set(|options| options.auth0.search_lag = Duration::from_secs(5)).await;
    let auth0 = stage.sandbox.auth0();
    let ann = auth0.create_user(json!({ "email": "Ann@Example.com", "connection": "acme-saml" }));
    let bearer = stage.bearer().await;
    let get = |path: &'static str| stage.auth0(&bearer, Method::GET, path, Value::Null);
    assert_eq!(get("/users-by-email?email=ann%40example.com").await.body, json!([]));
    assert_eq!(get("/users-by-email?email=Ann%40Example.com").await.body[0]["user_id"], ann);
    let search = "/users?search_engine=v3&include_totals=true&q=email%3A%22ann%40example.com%22";
    assert_eq!(get(search).await.body["total"], 0);
    stage.clock.advance(Duration::from_secs(5));
    let found = get(search).await;
    assert_eq!((&found.body["total"], &found.body["users"][0]["user_id"]), (&json!(1), &json!(ann)));
    for (path, expected) in [
        ("/users-by-email", "invalid_query_string"),
        ("/users-by-email?email=a%40b&fields=shoe_size", "invalid_query_string"),
        ("/users?q=email%3A", "invalid_query_string"),
        ("/users?per_page=101", "invalid_query_string"),
        ("/users?page=20&per_page=50", "invalid_paging"),
        ("/users?search_engine=v2", "invalid_query_string"),
    ] {
        assert_eq!(code(&get(path).await), (400, expected), "{path}");
    }
}

#[tokio::test]
async fn invalid_patches_are_refused() {
    let stage = Stage::set(|options| {
        options.auth0.connections.push(Connection::database("frozen").refusing(&["user_metadata"]));
        options.auth0.profile_limit = Some(ProfileLimit { bytes: 2000, status: 413 });
    })
    .await;
    let auth0 = stage.sandbox.auth0();
    let ann = auth0.create_user(json!({ "email": "a@x.org", "connection": "frozen" }));
    let bearer = stage.bearer().await;
    let patch = |id: String, body: Value| {
        let (stage, bearer) = (&stage, &bearer);
        async move { stage.auth0(bearer, Method::PATCH, &path(&id), body).await }
    };
    assert_eq!(code(&patch("auth0|nobody".into(), json!({ "blocked": true })).await), (404, "inexistent_user"));
    assert_eq!(code(&patch(ann.clone(), json!({ "shoe_size": 42 })).await), (400, "invalid_body"));
    let refused = patch(ann.clone(), json!({ "user_metadata": { "a": 1 }, "blocked": true })).await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.body["message"]
            .as_str()
            .unwrap()
            .starts_with("The following user attributes cannot be updated: user_metadata")
    );
    assert_eq!(auth0.user(&ann).unwrap().get("blocked"), None, "all or nothing");
    assert_eq!(patch(ann.clone(), json!({ "app_metadata": { "a": "x".repeat(2000) } })).await.status, 413);
    assert_eq!(patch(ann, json!({ "app_metadata": { "a": "x" } })).await.status, 200);
}

#[tokio::test]
async fn linking_discards_the_secondary_with_its_mark() {
    let stage = Stage::set(|_| ()).await;
    let auth0 = stage.sandbox.auth0();
    let primary = auth0.create_user(json!({ "email": "a@x.org" }));
    let secondary = auth0.create_user(
        json!({ "email": "B@x.org", "connection": "google-oauth2", "app_metadata": { "okta_sync": mark() } }),
    );
    let bearer = stage.bearer().await;
    let (provider, own) = secondary.split_once('|').unwrap();
    let body = json!({ "provider": provider, "user_id": own });
    let linked = stage.auth0(&bearer, Method::POST, &format!("{}/identities", path(&primary)), body).await;
    assert_eq!((linked.status, linked.body.as_array().unwrap().len()), (201, 2));
    assert_eq!(linked.body[1]["profileData"]["email"], "B@x.org");
    assert_eq!(
        code(&stage.auth0(&bearer, Method::GET, &path(&secondary), Value::Null).await),
        (404, "inexistent_user")
    );
    assert!(auth0.login(&primary).is_granted());
}

#[tokio::test]
async fn sessions_and_tokens_end_separately() {
    let stage = Stage::set(|_| ()).await;
    let auth0 = stage.sandbox.auth0();
    let ann = auth0.create_user(json!({ "email": "a@x.org" }));
    auth0.login(&ann);
    assert_eq!(auth0.open_sessions(&ann), (1, 1));
    let bearer = stage.bearer().await;
    let sessions = format!("{}/sessions", path(&ann));
    assert_eq!(stage.auth0(&bearer, Method::DELETE, &sessions, Value::Null).await.status, 202);
    assert_eq!(auth0.open_sessions(&ann), (0, 1));
    let tokens = format!("{}/refresh-tokens", path(&ann));
    assert_eq!(stage.auth0(&bearer, Method::DELETE, &tokens, Value::Null).await.status, 202);
    assert_eq!(auth0.open_sessions(&ann), (0, 0));
    assert_eq!(
        code(&stage.auth0(&bearer, Method::DELETE, "/users/x/sessions", Value::Null).await),
        (404, "inexistent_user")
    );
    auth0.set_has_session_api(false);
    assert_eq!(
        code(&stage.auth0(&bearer, Method::GET, &sessions, Value::Null).await),
        (403, "insufficient_entitlement")
    );
}

#[tokio::test]
async fn an_action_is_built_deployed_and_bound_over_http() {
    let stage = Stage::set(|options| options.auth0.action_bound = false).await;
    let auth0 = stage.sandbox.auth0();
    let ann = auth0.create_user(json!({ "email": "a@x.org" }));
    let bearer = stage.bearer().await;
    let ask = |method: Method, path: String, body: Value| {
        let (stage, bearer) = (&stage, &bearer);
        async move { stage.auth0(bearer, method, &path, body).await }
    };
    let code = "exports.onExecutePostLogin = async (event, api) => { api.access.deny('closed'); };";
    let triggers = json!([{ "id": "post-login", "version": "v3" }]);
    let body = json!({ "name": "closed", "code": code, "supported_triggers": triggers, "runtime": "node22" });
    let created = ask(Method::POST, "/actions/actions".into(), body).await;
    assert_eq!((created.status, &created.body["status"]), (201, &json!("pending")));
    let action = format!("/actions/actions/{}", created.body["id"].as_str().unwrap());
    let early = ask(Method::POST, format!("{action}/deploy"), Value::Null).await;
    assert_eq!(early.body["message"], "A draft must be in the 'built' state before it can be deployed.");
    let bindings = "/actions/triggers/post-login/bindings";
    let bind =
        json!({ "bindings": [{ "ref": { "type": "action_name", "value": "closed" }, "display_name": "closed" }] });
    assert_eq!(ask(Method::PATCH, bindings.into(), bind.clone()).await.status, 400, "not deployed");
    assert_eq!(ask(Method::GET, action.clone(), Value::Null).await.body["status"], "building");
    assert_eq!(ask(Method::GET, action.clone(), Value::Null).await.body["status"], "built");
    let deployed = ask(Method::POST, format!("{action}/deploy"), Value::Null).await;
    assert_eq!((deployed.status, &deployed.body["deployed"]), (200, &json!(false)), "as recorded");
    assert_eq!(ask(Method::GET, action.clone(), Value::Null).await.body["all_changes_deployed"], true);
    assert!(auth0.login(&ann).is_granted(), "not bound yet");
    let bound = ask(Method::PATCH, bindings.into(), bind).await;
    assert_eq!((bound.status, &bound.body["bindings"][0]["action"]["name"]), (200, &json!("closed")));
    assert!(!auth0.login(&ann).is_granted());
    assert_eq!(ask(Method::DELETE, action.clone(), Value::Null).await.status, 409);
    ask(Method::PATCH, action.clone(), json!({ "code": "exports.onExecutePostLogin = async () => {};" })).await;
    assert!(!auth0.login(&ann).is_granted(), "a draft affects nothing");
    assert_eq!(ask(Method::PATCH, bindings.into(), json!({ "bindings": [] })).await.body["bindings"], json!([]));
    assert!(auth0.login(&ann).is_granted());
    let broken = json!({ "name": "broken", "code": "exports.x = {", "supported_triggers": triggers });
    let broken = ask(Method::POST, "/actions/actions".into(), broken).await;
    let broken = format!("/actions/actions/{}", broken.body["id"].as_str().unwrap());
    for state in ["building", "retrying", "failed", "failed"] {
        assert_eq!(ask(Method::GET, broken.clone(), Value::Null).await.body["status"], state);
    }
}

#[tokio::test]
async fn bucket_empties_and_reports_reset() {
    let stage = Stage::set(|options| options.auth0.bucket = Bucket::FREE).await;
    let bearer = stage.bearer().await;
    let ask = || stage.auth0(&bearer, Method::GET, "/users", Value::Null);
    assert_eq!(ask().await.header("x-ratelimit-remaining"), "1");
    assert_eq!(ask().await.header("x-ratelimit-remaining"), "0");
    let refused = ask().await;
    assert_eq!(code(&refused), (429, "too_many_requests"));
    assert_eq!(refused.body["message"], "Global limit has been reached");
    assert_eq!(refused.header("x-ratelimit-reset"), "1767225601");
    stage.clock.advance(Duration::from_millis(500));
    assert_eq!(ask().await.status, 200);
}
