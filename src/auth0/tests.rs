//! The client against a server that plays documented and recorded responses of Auth0.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::account::{Identifier, Mirror};
use crate::domain::mark::MetadataKeys;
use crate::domain::mark::{Write, took_hold};
use crate::domain::{Address, ManualClock, Mark, OktaUserId, Patch};
use crate::http::pacing::Shares;
use crate::http::playback::{Playback, Reply};
use crate::http::{HttpOptions, Kind};

const ID: &str = "auth0|65f 1/..+é";
const ENCODED: &str = "auth0%7C65f%201%2F..%2B%C3%A9";

fn auth0_with(url: Url, credentials: Credentials) -> (Auth0, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let http = Http::new(&HttpOptions { user_agent: "test".to_owned(), ..HttpOptions::default() }).unwrap();
    let pacer = Arc::new(Pacer::auth0(Shares { ours: 0.8, reconcile: 0.25 }));
    let options = Auth0Options {
        url,
        audience: "https://acme.eu.auth0.com/api/v2/".to_owned(),
        credentials,
        keys: MetadataKeys::only("okta_sync"),
    };
    (Auth0::new(options, http, pacer, clock.clone()), clock)
}

fn secret() -> Credentials {
    Credentials::Secret { client_id: "abc".to_owned(), client_secret: "canary-secret".into() }
}

fn token(name: &str) -> Reply {
    let scope = "read:users update:users";
    Reply::json(200, json!({ "access_token": name, "expires_in": 86400, "scope": scope, "token_type": "Bearer" }))
}

/// A server that hands out a token and then plays `replies`, and a client of it.
async fn playing(replies: impl IntoIterator<Item = Reply>) -> (Playback, Auth0) {
    let server = Playback::start([token("canary-access")].into_iter().chain(replies)).await;
    let client = auth0_with(server.url.clone(), secret()).0;
    (server, client)
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(status, json!({ "statusCode": status, "error": "Words", "message": message, "errorCode": code }))
        .with("x-request-id", "req1")
}

fn account(app_metadata: Value, user_metadata: Value) -> Value {
    json!({
        "user_id": ID, "email": "Ann@Example.com", "email_verified": true, "nickname": "ann",
        "identities": [{ "connection": "Users", "provider": "auth0", "isSocial": false }, { "connection": "google-oauth2" }],
        "app_metadata": app_metadata, "user_metadata": user_metadata,
    })
}

fn read(value: &Value) -> AccountRecord {
    let raw = serde_json::value::to_raw_value(value).unwrap();
    AccountRecord::read(&raw, &MetadataKeys::only("okta_sync"), Fields::All).unwrap()
}

fn on() -> Mark {
    Mark {
        deactivated: true,
        okta_user_id: OktaUserId::parse("00u1"),
        okta_org: None,
        status: Some("DEPROVISIONED".to_owned()),
        at: Some("2026-11-23T10:00:00.000Z".to_owned()),
        event_id: None,
        blocked: false,
    }
}

#[test]
fn marks_and_mirrors_in_every_shape() {
    let marks = [
        (json!({ "okta_sync": { "deactivated": "true", "okta_user_id": "00u1" } }), Some((true, true, false))),
        (json!({ "okta_sync": { "deactivated": true, "blocked": true } }), Some((true, false, true))),
        (json!({ "okta_sync": { "deactivated": "false", "okta_user_id": 7 } }), Some((false, false, false))),
        (json!({ "okta_sync": { "deactivated": ["true"], "okta_user_id": "../x" } }), Some((false, false, false))),
        (json!({ "okta_sync": {} }), Some((false, false, false))),
        (json!({ "okta_sync": "true" }), None),
        (json!({ "okta_sync": null }), None),
        (json!({ "other": { "deactivated": "true" } }), None),
        (json!("text"), None),
        (json!([1]), None),
        (Value::Null, None),
    ];
    for (metadata, expected) in marks {
        let mark = read(&account(metadata.clone(), json!({}))).account.mark;
        let found = mark.map(|mark| (mark.deactivated, mark.okta_user_id.is_some(), mark.blocked));
        assert_eq!(found, expected, "{metadata}");
    }
    let mirrors = [
        (json!({ "okta": { "deactivated": "true" } }), Mirror::On),
        (json!({ "okta": { "deactivated": true, "x": 1 } }), Mirror::On),
        (json!({ "okta": { "deactivated": "false" } }), Mirror::Off),
        (json!({ "okta": { "deactivated": null } }), Mirror::Off),
        (json!({ "okta": { "deactivated": { "a": [] } } }), Mirror::Off),
        (json!({ "okta": { "x": 1 } }), Mirror::Absent),
        (json!({ "okta": null }), Mirror::Absent),
        (json!({}), Mirror::Absent),
        (json!("text"), Mirror::Absent),
        (json!({ "okta": "true" }), Mirror::Foreign),
        (json!({ "okta": [true] }), Mirror::Foreign),
    ];
    for (metadata, expected) in mirrors {
        assert_eq!(read(&account(json!({}), metadata.clone())).account.mirror, expected, "{metadata}");
    }
}

#[test]
fn account_needs_only_an_id() {
    let bare =
        read(&json!({ "user_id": "x", "email": 7, "identities": "none", "blocked": "yes", "email_verified": [] }));
    assert_eq!((bare.account.email, bare.account.blocked, bare.account.email_verified), (None, false, false));
    let full = read(&account(json!({}), json!({})));
    assert_eq!(full.account.connections().collect::<Vec<_>>(), ["Users", "google-oauth2"]);
    assert!(full.account.email_verified);
    let deep = format!(
        "{{\"user_id\":\"x\",\"user_metadata\":{{\"okta\":{{\"y\":{}{}}}}}}}",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let raw = RawValue::from_string(deep).unwrap();
    assert_eq!(
        AccountRecord::read(&raw, &MetadataKeys::only("okta_sync"), Fields::All).unwrap().account.mirror,
        Mirror::Absent
    );
    for not in ["{}", "7", "null", "{\"user_id\":\"\"}"] {
        let raw = RawValue::from_string(not.to_owned()).unwrap();
        assert!(AccountRecord::read(&raw, &MetadataKeys::only("okta_sync"), Fields::All).is_err(), "{not}");
    }
}

fn body(record: &AccountRecord, patch: &Patch) -> Value {
    let body = body::of(patch, "okta_sync", record).unwrap();
    serde_json::from_str(body.get()).unwrap()
}

#[test]
fn body_is_exactly_the_mark() {
    let record =
        read(&account(json!({ "plan": "gold" }), json!({ "okta": { "hr": { "n": 1.50 }, "deactivated": "false" } })));
    let mark = Mark { event_id: Some("e1".to_owned()), blocked: true, ..on() };
    assert_eq!(
        body(
            &record,
            &Patch { mark, mirror: Some(true), blocked: Some(true), removed_keys: Vec::new(), copy_keys: Vec::new() }
        ),
        json!({
            "app_metadata": { "okta_sync": {
                "deactivated": "true", "okta_user_id": "00u1", "status": "DEPROVISIONED",
                "at": "2026-11-23T10:00:00.000Z", "event_id": "e1", "blocked": true
            } },
            "user_metadata": { "okta": { "hr": { "n": 1.50 }, "deactivated": "true" } },
            "blocked": true
        })
    );
    let off = Mark { deactivated: false, ..on() };
    assert_eq!(
        body(
            &record,
            &Patch { mark: off, mirror: None, blocked: None, removed_keys: Vec::new(), copy_keys: Vec::new() }
        ),
        json!({ "app_metadata": { "okta_sync": {
            "deactivated": "false", "okta_user_id": "00u1", "status": "DEPROVISIONED", "at": "2026-11-23T10:00:00.000Z"
        } } })
    );
}

#[test]
fn siblings_of_the_mirror_are_kept() {
    let text = r#"{"user_id":"x","user_metadata":{"okta":{"big":12345678901234567890123,"f":1.10}}}"#;
    let record = AccountRecord::read(
        &RawValue::from_string(text.to_owned()).unwrap(),
        &MetadataKeys::only("okta_sync"),
        Fields::All,
    )
    .unwrap();
    let body = body::of(
        &Patch { mark: on(), mirror: Some(true), blocked: None, removed_keys: Vec::new(), copy_keys: Vec::new() },
        "k",
        &record,
    )
    .unwrap();
    assert!(body.get().contains(r#"{"okta":{"big":12345678901234567890123,"deactivated":"true","f":1.10}}"#), "{body}");
}

#[tokio::test]
async fn patch_response_is_read_back() {
    let marked = json!({ "okta_sync": { "deactivated": "true", "okta_user_id": "00u1" } });
    let answer = account(marked, json!({ "okta": { "deactivated": "true" } }));
    let (server, client) = playing([
        Reply::json(200, &answer).with("x-request-id", "req7"),
        Reply::json(200, &answer),
        error(404, "inexistent_user", "The user does not exist."),
        Reply::json(200, json!({ "user_id": "another" })),
    ])
    .await;
    let record = read(&account(json!({}), json!({})));
    let patch =
        Patch { mark: on(), mirror: Some(true), blocked: None, removed_keys: Vec::new(), copy_keys: Vec::new() };
    let user = OktaUserId::parse("00u1").unwrap();
    let write = Write::Mark(patch.clone());
    let without_mirror = Write::Mark(Patch { mirror: None, ..patch });
    let patched = client.write(&record, &write, &user).await.unwrap();
    assert!(took_hold(&patched.account.unwrap().account, &write));
    assert_eq!(patched.request_id.as_deref(), Some("req7"));
    client.write(&record, &without_mirror, &user).await.unwrap();
    assert_eq!(client.write(&record, &write, &user).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(client.write(&record, &write, &user).await.unwrap_err().kind, Kind::Malformed);
    let seen = server.seen();
    assert_eq!(seen[1].line, format!("PATCH /api/v2/users/{ENCODED}"));
    assert_eq!(seen[1].header("content-type"), "application/json");
    assert_eq!(seen[1].header("x-correlation-id"), "00u1");
    assert!(seen[1].body.contains("\"user_metadata\":{\"okta\":{\"deactivated\":\"true\"}}"), "{}", seen[1].body);
    assert!(!seen[2].body.contains("user_metadata"), "{}", seen[2].body);
}

#[tokio::test]
async fn accounts_are_found_by_email_id_and_search() {
    let answer = account(json!({}), json!({}));
    let (server, client) = playing([
        Reply::json(200, json!([answer, answer])),
        Reply::json(200, "[]"),
        Reply::json(200, &answer),
        error(404, "inexistent_user", "The user does not exist."),
        Reply::json(200, json!({ "start": 0, "limit": 100, "length": 1, "total": 1201, "users": [answer] })),
        Reply::json(200, json!({ "total": 0, "users": [] })),
        Reply::json(200, json!({ "total": 0, "users": [] })),
    ])
    .await;
    assert_eq!(client.accounts_by_email("Ann+x@Example.com", Fields::All).await.unwrap().len(), 2);
    assert!(client.accounts_by_email("none@example.com", Fields::All).await.unwrap().is_empty());
    let id = AccountId::new(ID);
    assert_eq!(client.account(&id, Fields::All).await.unwrap().unwrap().account.id, id);
    assert!(client.account(&id, Fields::All).await.unwrap().is_none());
    let addresses = ["a\"b\\@x.com", "c@x.com"].map(|text| Identifier::Address(Address::parse(text).unwrap()));
    let page = client
        .search(&AccountQuery::Identities { identifiers: &addresses, connections: &[] }, 3, Fields::All)
        .await
        .unwrap();
    assert_eq!((page.accounts.len(), page.total), (1, 1201));
    client.search(&AccountQuery::Marked { since: None }, 0, Fields::All).await.unwrap();
    let user = OktaUserId::parse("00u1").unwrap();
    client.search(&AccountQuery::MarkedFor(&user), 0, Fields::All).await.unwrap();
    assert_eq!(
        client
            .search(&AccountQuery::Identities { identifiers: &[], connections: &[] }, 0, Fields::All)
            .await
            .unwrap()
            .total,
        0
    );

    let seen = server.seen();
    assert_eq!(seen.len(), 8, "nothing is asked for no address");
    assert_eq!(seen[0].line, "POST /oauth/token");
    assert_eq!(seen[0].field("audience").as_deref(), Some("https://acme.eu.auth0.com/api/v2/"));
    assert_eq!(seen[0].field("client_secret").as_deref(), Some("canary-secret"));
    assert!(
        seen[1].line.starts_with("GET /api/v2/users-by-email?email=Ann%2Bx%40Example.com&fields="),
        "{}",
        seen[1].line
    );
    assert_eq!(
        seen[1].field("fields").as_deref(),
        Some("user_id,email,email_verified,identities,blocked,app_metadata,user_metadata")
    );
    assert_eq!(seen[1].header("authorization"), "Bearer canary-access");
    assert!(seen[3].line.starts_with(&format!("GET /api/v2/users/{ENCODED}?")), "{}", seen[3].line);
    assert_eq!(
        seen[5].field("q").as_deref(),
        Some(
            r#"email:"a\"b\\@x.com" OR identities.profileData.email:"a\"b\\@x.com" OR email:"c@x.com" OR identities.profileData.email:"c@x.com""#
        )
    );
    for (name, value) in [("page", "3"), ("per_page", "100"), ("include_totals", "true"), ("search_engine", "v3")] {
        assert_eq!(seen[5].field(name).as_deref(), Some(value));
    }
    assert_eq!(seen[6].field("q").as_deref(), Some("app_metadata.okta_sync.deactivated:\"true\""));
    assert_eq!(seen[7].field("q").as_deref(), Some("app_metadata.okta_sync.okta_user_id:\"00u1\""));
}

#[tokio::test]
async fn unreadable_account_fails_the_list() {
    let (_server, client) = playing([
        Reply::json(200, json!([account(json!({}), json!({})), { "email": "x" }])),
        Reply::json(200, "{}"),
        Reply::json(200, json!([])),
    ])
    .await;
    let failure = client.accounts_by_email("a@b", Fields::All).await.unwrap_err();
    assert_eq!((failure.kind, failure.message.as_str()), (Kind::Malformed, "an account without a user_id"));
    assert_eq!(client.accounts_by_email("a@b", Fields::All).await.unwrap_err().kind, Kind::Malformed);
    assert_eq!(
        client.search(&AccountQuery::Marked { since: None }, 0, Fields::All).await.unwrap_err().kind,
        Kind::Malformed
    );
}

#[tokio::test]
async fn ids_with_path_characters_are_refused() {
    let (server, client) = playing([]).await;
    for id in ["", ".", ".."] {
        assert_eq!(client.account(&AccountId::new(id), Fields::All).await.unwrap_err().kind, Kind::Rejected, "{id}");
        assert_eq!(client.delete_sessions(&AccountId::new(id)).await.unwrap_err().kind, Kind::Rejected, "{id}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn sessions_and_refresh_tokens_end() {
    let upgrade = "This feature is not included in your plan. Please upgrade your subscription";
    let (server, client) =
        playing([Reply::json(202, "{}"), Reply::bytes(204, Vec::new()), error(403, "insufficient_scope", upgrade)])
            .await;
    let id = AccountId::new(ID);
    client.delete_sessions(&id).await.unwrap();
    client.delete_refresh_tokens(&id).await.unwrap();
    let failure = client.delete_sessions(&id).await.unwrap_err();
    assert_eq!((failure.kind, failure.request_id.as_deref()), (Kind::Forbidden, Some("req1")));
    assert!(failure.remedy.unwrap().contains("plan"));
    let seen = server.seen();
    assert_eq!(seen[1].line, format!("DELETE /api/v2/users/{ENCODED}/sessions"));
    assert_eq!(seen[2].line, format!("DELETE /api/v2/users/{ENCODED}/refresh-tokens"));
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let expired = || error(401, "", "Expired token received for JSON Web Token validation");
    let server = Playback::start([token("t1"), expired(), token("t2"), expired(), Reply::json(200, "[]")]).await;
    let client = auth0_with(server.url.clone(), secret()).0;
    assert_eq!(client.accounts_by_email("a@b", Fields::All).await.unwrap_err().kind, Kind::Unauthorized);
    let authorizations: Vec<String> =
        server.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert_eq!(authorizations, ["", "Bearer t1", "", "Bearer t2"]);
    // The client keeps the token that was refused last: the engine now pauses calls, and a later call renews it.
    client.accounts_by_email("a@b", Fields::All).await.unwrap();
}

#[tokio::test]
async fn token_is_renewed_early_with_its_scopes() {
    let server = Playback::start([token("t1"), Reply::json(200, "[]"), token("t2"), Reply::json(200, "[]")]).await;
    let (client, clock) = auth0_with(server.url.clone(), secret());
    assert_eq!(client.granted_scopes().await.unwrap(), ["read:users", "update:users"]);
    client.accounts_by_email("a@b", Fields::All).await.unwrap();
    clock.advance(std::time::Duration::from_secs(86_400 - 300));
    client.accounts_by_email("a@b", Fields::All).await.unwrap();
    assert_eq!(server.seen()[3].header("authorization"), "Bearer t2");
}

#[tokio::test]
async fn private_key_replaces_the_secret() {
    let server = Playback::start([token("t1")]).await;
    let key = SigningKey::generate().unwrap();
    let credentials = Credentials::PrivateKeyJwt { client_id: "abc".to_owned(), key, key_id: Some("k1".to_owned()) };
    let client = auth0_with(server.url.clone(), credentials).0;
    client.granted_scopes().await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(seen.field("client_secret"), None);
    let assertion = seen.field("client_assertion").unwrap();
    assert!(assertion.len() <= 2048);
    use base64::Engine;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["aud"], server.url.as_str());
    assert!(server.url.as_str().ends_with('/'));
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 300);
}

#[tokio::test]
async fn no_secret_is_ever_shown() {
    let (_server, client) = playing([error(403, "insufficient_scope", "words"), Reply::json(500, "canary-body")]).await;
    let mut text = format!("{client:?} {:?}", secret());
    for _ in 0..2 {
        let failure = client.accounts_by_email("canary@example.com", Fields::All).await.unwrap_err();
        text += &format!("{failure} {failure:?}");
    }
    let server = Playback::start([
        Reply::json(200, json!({ "canary": "canary" })),
        Reply::json(
            200,
            json!({
                "access_token": "canary\n", "expires_in": 1
            }),
        ),
    ])
    .await;
    let client = auth0_with(server.url.clone(), secret()).0;
    for _ in 0..2 {
        let failure = client.accounts_by_email("canary@example.com", Fields::All).await.unwrap_err();
        text += &format!("{failure} {failure:?}");
    }
    let record = read(&account(json!({}), json!({ "okta": { "canary": "canary" } })));
    text += &format!("{record:?}");
    assert!(!text.contains("canary"), "{text}");
}

/// Any JSON, as other programs write it into metadata.
fn metadata() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec!["true", "false", "", "00u1", "x"]).prop_map(Value::from),
    ];
    let key = prop::sample::select(vec!["okta", "okta_sync", "deactivated", "okta_user_id", "blocked", "other"]);
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_metadata_parses_and_survives_patch(app in metadata(), user in metadata(), mirror: Option<bool>) {
        let record = read(&account(app, user.clone()));
        let body = body(&record, &Patch { mark: on(), mirror, blocked: None, removed_keys: Vec::new(), copy_keys: Vec::new() });
        let top: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
        prop_assert!(top == ["app_metadata"] || top == ["app_metadata", "user_metadata"]);
        prop_assert_eq!(body["app_metadata"].as_object().unwrap().len(), 1);
        if let Some(written) = body.get("user_metadata") {
            prop_assert!(record.account.mirror != Mirror::Foreign && mirror.is_some());
            prop_assert_eq!(written.as_object().unwrap().len(), 1);
            let mut expected = user.get("okta").and_then(Value::as_object).cloned().unwrap_or_default();
            expected.insert("deactivated".to_owned(), if mirror == Some(true) { "true" } else { "false" }.into());
            prop_assert_eq!(&written["okta"], &Value::from(expected));
        }
    }
}

fn flow_page(from: usize, count: usize) -> Reply {
    let binding = |n: usize| json!({ "id": format!("b{n}"), "display_name": "x", "action": { "id": format!("a{n}") } });
    Reply::json(200, json!({ "bindings": (from..from + count).map(binding).collect::<Vec<_>>(), "total": 51 }))
}

#[tokio::test]
async fn action_listings_are_read_to_the_end() {
    let (server, auth0) = playing([flow_page(0, 50), flow_page(50, 1)]).await;
    let flow = auth0.flow().await.unwrap();
    assert_eq!((flow.len(), flow[50].binding_id.as_str(), flow[50].action_id.as_str()), (51, "b50", "a50"));
    let pages: Vec<_> = server.seen().iter().filter_map(|seen| seen.field("page")).collect();
    assert_eq!(pages, ["0", "1"]);

    let endless = (0..20).map(|n| flow_page(n * 50, 50));
    let failure = playing(endless).await.1.flow().await.unwrap_err();
    assert_eq!(failure.kind, Kind::Malformed, "{failure}");
}

#[tokio::test]
async fn action_forms_are_all_read() {
    let version = |code: Option<&str>| json!({ "deployed_version": { "code": code }, "all_changes_deployed": true });
    for (answer, build, deployed) in [
        (json!({ "status": "built" }), Build::Built, None),
        (json!({ "status": "retrying", "deployed_version": null }), Build::UnderWay, None),
        (json!({ "status": "failed", "all_changes_deployed": null }), Build::Failed, None),
        (version(Some("old")), Build::UnderWay, Some("old")),
        (version(None), Build::UnderWay, Some("draft")),
    ] {
        let mut answer = answer;
        answer["id"] = json!("a/1");
        answer["code"] = json!("draft");
        answer["supported_triggers"] = json!([{ "id": "post-login", "version": "v3" }]);
        let (server, auth0) = playing([Reply::json(200, &answer)]).await;
        let action = auth0.action("a/1").await.unwrap();
        assert_eq!((action.build, action.deployed_code.as_deref()), (build, deployed), "{answer}");
        assert_eq!(action.trigger_version.as_deref(), Some("v3"));
        assert_eq!(server.seen()[1].line, "GET /api/v2/actions/actions/a%2F1");
    }
    for id in ["", ".", ".."] {
        assert_eq!(playing([]).await.1.action(id).await.unwrap_err().kind, Kind::Rejected);
    }
}

#[tokio::test]
async fn current_trigger_offers_its_runtime() {
    let trigger = |version: &str, status: &str, runtimes: &[&str], default: &str| json!({ "id": "post-login", "version": version, "status": status, "runtimes": runtimes, "default_runtime": default });
    let old = trigger("v2", "DEPRECATED", &["node18"], "node16");
    for (runtimes, default, expected) in
        [(&["node18", "node22"][..], "node18", "node18"), (&["node22"], "node16", "node22")]
    {
        let listed = json!({ "triggers": [old, trigger("v3", "CURRENT", runtimes, default)] });
        let chosen = playing([Reply::json(200, listed)]).await.1.post_login().await.unwrap();
        assert_eq!((chosen.version.as_str(), chosen.runtime.as_str()), ("v3", expected));
    }
    let failure = playing([Reply::json(200, json!({ "triggers": [old] }))]).await.1.post_login().await.unwrap_err();
    assert_eq!(failure.kind, Kind::Malformed);
}
