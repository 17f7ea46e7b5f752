//! Tests the client against a server that plays back documented or recorded responses of Okta.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::{Address, ManualClock, OktaUserId, Status, Timestamp};
use crate::http::jws::SigningKey;
use crate::http::pacing::Shares;
use crate::http::playback::{Playback, Reply};
use crate::http::{HttpOptions, Kind};

const START: &str = "2026-01-01T00:00:00Z";

fn okta_with(url: Url, credentials: Credentials) -> (Okta, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(START.parse().unwrap()));
    let http = Http::new(&HttpOptions { user_agent: "test".to_owned(), ..HttpOptions::default() }).unwrap();
    let pacer = Arc::new(Pacer::okta(Shares { ours: 0.9, reconcile: 0.25 }));
    (Okta::new(OktaOptions { url, credentials }, http, pacer, clock.clone()), clock)
}

fn okta(server: &Playback) -> Okta {
    okta_with(server.url.clone(), Credentials::ApiToken("canary-token".into())).0
}

fn oauth(server: &Playback, dpop: DpopMode) -> Okta {
    let key = SigningKey::generate().unwrap();
    let credentials =
        Credentials::PrivateKeyJwt { client_id: "0oa1".to_owned(), key, key_id: Some("k1".to_owned()), dpop };
    okta_with(server.url.clone(), credentials).0
}

fn since() -> LogPosition {
    LogPosition::Since("2025-12-25T00:00:00Z".parse::<Timestamp>().unwrap())
}

/// An event shaped like the recorded ones, including the fields that the client ignores.
fn event(number: u32) -> Value {
    json!({
        "uuid": format!("0626e18a-3d17-40fb-a1f3-{number:012}"),
        "published": "2017-11-30T21:15:16.838Z",
        "eventType": "user.lifecycle.deactivate",
        "version": "0",
        "actor": { "id": "00u0", "type": "User", "alternateId": "admin@example.com", "detailEntry": null },
        "client": { "zone": "null", "geographicalContext": { "postalCode": "03303" } },
        "securityContext": { "userBehaviors": [{ "name": "x" }] },
        "target": [
            { "id": "0gr", "type": "Group" },
            { "id": "00ud384zryL1GFAg30h7", "type": "User", "alternateId": "john@example.com", "detailEntry": null },
        ],
    })
}

fn user(id: &str) -> Value {
    json!({
        "id": id, "status": "DEPROVISIONED", "activated": null, "type": { "id": "oty" },
        "profile": { "login": "ann", "email": "Ann@example.com", "secondEmail": null }
    })
}

fn error(status: u16, code: &str) -> Reply {
    Reply::json(status, json!({ "errorCode": code, "errorSummary": "words", "errorCauses": [] }))
        .with("x-okta-request-id", "req1")
}

#[tokio::test]
async fn log_page_polls_and_returns_next_cursor() {
    let server = Playback::start([]).await;
    let next = "/api/v1/logs?limit=2&filter=eventType+sw+%22user.lifecycle.%22&after=1648112954504_1";
    let first = Reply::json(200, json!([event(1), event(2)]))
        .with("date", "Thu, 27 Aug 2020 18:19:50 GMT")
        .with("link", "<https://x.okta.com/api/v1/logs?since=1>; rel=\"self\"")
        .with("link", format!("<https://acme.okta.com{next}>; rel=\"next\""));
    let empty = Reply::json(200, "[]").with("link", format!("<{}>; rel=\"next\"", server.url.join(next).unwrap()));
    drop(server);
    let server = Playback::start([first, empty, Reply::json(200, "[]")]).await;
    let okta = okta(&server);

    let page = okta.log_page(&since(), &LogFilter::default(), 2).await.unwrap();
    assert!(!page.is_last());
    assert_eq!(page.next.as_deref(), Some(next));
    assert_eq!(page.foreign_next_host.as_deref(), Some("acme.okta.com"));
    assert_eq!(page.server_time, Some("2020-08-27T18:19:50Z".parse().unwrap()));
    let LogEntry::Event(event) = &page.entries[0] else { panic!("{:?}", page.entries[0]) };
    assert_eq!(event.actor.as_deref(), Some("admin@example.com"));
    assert_eq!(event.users.len(), 1);
    assert_eq!(event.users[0].id.as_str(), "00ud384zryL1GFAg30h7");
    assert_eq!(event.users[0].login.as_deref(), Some("john@example.com"));

    let page = okta.log_page(&LogPosition::Next(next.to_owned()), &LogFilter::default(), 2).await.unwrap();
    assert_eq!((page.entries.len(), page.is_last(), page.next.as_deref()), (0, true, Some(next)));
    assert_eq!(okta.log_page(&LogPosition::Next(next.to_owned()), &LogFilter::default(), 2).await.unwrap().next, None);

    let seen = server.seen();
    assert_eq!(seen[0].field("since").as_deref(), Some("2025-12-25T00:00:00.000Z"));
    assert_eq!(
        seen[0].field("filter").as_deref(),
        Some(r#"eventType sw "user.lifecycle." or eventType eq "user.account.update_profile""#)
    );
    assert_eq!(seen[0].field("sortOrder").as_deref(), Some("ASCENDING"));
    assert_eq!(seen[0].field("limit").as_deref(), Some("2"));
    assert_eq!(seen[0].field("until"), None);
    assert_eq!(seen[0].header("authorization"), "SSWS canary-token");
    assert_eq!(seen[1].line, format!("GET {next}"), "the stored cursor is sent unchanged, to the configured origin");
}

#[tokio::test]
async fn refuses_next_links_out_of_the_log() {
    for target in
        ["https://evil.example/api/v1/users?after=1", "/api/v1/logs", "/api/v1/logs/../users?a=1", "http://[", "//evil"]
    {
        let server = Playback::start([Reply::json(200, "[]").with("link", format!("<{target}>; rel=\"next\""))]).await;
        let failure = okta(&server).log_page(&since(), &LogFilter::default(), 10).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Malformed, "{target}");
        assert!(failure.message.contains("refused next link"), "{failure}");
    }
    let server = Playback::start([]).await;
    for stored in [
        "",
        "/api/v1/users?x=1",
        "/api/v1/logs",
        "/api/v1/logs?",
        "https://evil.example/api/v1/logs?a=1",
        "/api/v1/logs/x?a=1",
    ] {
        let failure =
            okta(&server).log_page(&LogPosition::Next(stored.to_owned()), &LogFilter::default(), 10).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Malformed, "{stored}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn unreadable_entries_do_not_fail_the_page() {
    let odd = |name: &str, value: Value| {
        let mut event = event(9);
        event[name] = value;
        event
    };
    let entries = [
        (odd("uuid", Value::Null), "no uuid"),
        (odd("uuid", json!(7)), "no uuid"),
        (odd("published", Value::Null), "no published"),
        (odd("published", json!("yesterday")), "published"),
        (odd("eventType", json!([])), "no eventType"),
        (odd("target", Value::Null), "no target of type User"),
        (odd("target", json!([{ "id": "x", "type": "AppUser" }])), "no target of type User"),
        (odd("target", json!({})), "not an array"),
        (odd("target", json!([7])), "not an object"),
        (odd("target", json!([{ "id": "../me", "type": "User" }])), "no valid id"),
        (odd("target", json!([{ "id": null, "type": "User" }])), "no valid id"),
        (json!("text"), "not an event"),
        (json!(null), "not an event"),
        (json!([]), "no"),
    ];
    let fine = [
        odd("actor", json!("a string")),
        odd("version", json!(0)),
        odd("client", json!(3)),
        {
            let mut created = odd("target", Value::Null);
            created["eventType"] = json!("user.lifecycle.create");
            created
        },
        {
            // As recorded: its target is a role.
            let mut other = odd("target", json!([{ "id": "x", "type": "ROLE" }]));
            other["eventType"] = json!("user.account.privilege.revoke");
            other
        },
    ];
    let mut body: Vec<String> = entries.iter().map(|(entry, _)| entry.to_string()).collect();
    body.extend(fine.iter().map(Value::to_string));
    // Deep nesting and invalid UTF-8 in fields that the client ignores.
    body.push(event(9).to_string().replacen(
        '{',
        &format!("{{\"x\":{}{},", "[".repeat(100_000), "]".repeat(100_000)),
        1,
    ));
    let mut bytes = format!("[{},", body.join(",")).into_bytes();
    bytes.extend(event(9).to_string().replace("\"zone\":\"null\"", "\"zone\":\"?\"").into_bytes());
    let at = bytes.iter().rposition(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xff;
    bytes.push(b']');
    let server = Playback::start([Reply::bytes(200, bytes)]).await;
    let page = okta(&server).log_page(&since(), &LogFilter::default(), 1000).await.unwrap();
    assert_eq!(page.entries.len(), entries.len() + fine.len() + 2);
    for ((entry, expected), read) in entries.iter().zip(&page.entries) {
        let LogEntry::Unreadable { raw, why, .. } = read else { panic!("{entry}: {read:?}") };
        assert!(why.contains(expected), "{entry}: {why}");
        assert_eq!(*raw, entry.to_string());
    }
    for read in &page.entries[entries.len()..] {
        assert!(matches!(read, LogEntry::Event(_)), "{read:?}");
    }
    let LogEntry::Unreadable { event_id, event_type, published, .. } = &page.entries[5] else { panic!() };
    assert_eq!(event_id.as_deref(), Some("0626e18a-3d17-40fb-a1f3-000000000009"));
    assert_eq!(event_type.as_deref(), Some("user.lifecycle.deactivate"));
    assert!(published.is_some());
}

#[tokio::test]
async fn raw_text_of_unreadable_entries_is_truncated() {
    let server = Playback::start([Reply::json(200, json!([{ "uuid": "ä".repeat(100_000) }]))]).await;
    let page = okta(&server).log_page(&since(), &LogFilter::default(), 10).await.unwrap();
    let LogEntry::Unreadable { raw, .. } = &page.entries[0] else { panic!() };
    assert!(raw.len() <= 64 << 10 && raw.len() > 60 << 10);
}

#[tokio::test]
async fn non_array_log_page_is_malformed() {
    for body in ["", "{}", "null", "[1", "<html>", "[]x"] {
        let server = Playback::start([Reply::json(200, body).with("x-okta-request-id", "req1")]).await;
        let failure = okta(&server).log_page(&since(), &LogFilter::default(), 10).await.unwrap_err();
        assert_eq!((failure.kind, failure.request_id.as_deref()), (Kind::Malformed, Some("req1")), "{body}");
    }
}

#[tokio::test]
async fn only_not_found_code_means_no_user() {
    let id = OktaUserId::parse("00u1").unwrap();
    let mut moving = user("00u1");
    moving["status"] = json!("ACTIVE");
    moving["transitioningToStatus"] = json!("DEPROVISIONED");
    let mut bare = user("00u1");
    bare["profile"] = json!({ "login": null, "email": "no address", "x": { "y": [] } });
    let server = Playback::start([
        Reply::json(200, user("00u1")),
        Reply::json(200, moving),
        Reply::json(200, bare),
        error(404, "E0000007"),
        error(404, "E0000048"),
        Reply::json(200, user("00u2")),
        Reply::json(200, json!({ "id": "00u1" })),
    ])
    .await;
    let okta = okta(&server);
    let settled = okta.user(&id).await.unwrap().unwrap();
    assert_eq!((settled.status, settled.transitional, settled.login.as_str()), (Status::Deprovisioned, false, "ann"));
    assert_eq!(settled.email, Address::parse("Ann@example.com"));
    let moving = okta.user(&id).await.unwrap().unwrap();
    assert_eq!((moving.status, moving.transitional), (Status::Deprovisioned, true));
    let bare = okta.user(&id).await.unwrap().unwrap();
    assert_eq!((bare.login.as_str(), bare.email), ("", None));
    assert_eq!(okta.user(&id).await, Ok(None));
    let failure = okta.user(&id).await.unwrap_err();
    assert_eq!((failure.kind, failure.request_id.as_deref()), (Kind::NotFound, Some("req1")));
    assert_eq!(
        okta.user(&id).await.unwrap_err().kind,
        Kind::Malformed,
        "a login that equals the id returns another user"
    );
    assert_eq!(okta.user(&id).await.unwrap_err().kind, Kind::Malformed);
    assert_eq!(server.seen()[0].line, "GET /api/v1/users/00u1");
}

#[tokio::test]
async fn holders_are_read_in_batches_and_pages() {
    let next = |after: &str| format!("<https://acme.okta.com/api/v1/users?after={after}&limit=200>; rel=\"next\"");
    let server = Playback::start([
        Reply::json(200, json!([user("00u1"), user("00u2")])).with("link", next("c1")),
        Reply::json(200, json!([user("00u2")])),
        Reply::json(200, json!([user("00u3")])),
    ])
    .await;
    let mut addresses: Vec<Address> = (0..20).map(|n| Address::parse(&format!("a{n}@example.com")).unwrap()).collect();
    addresses.push(Address::parse("\"or\\1\"@example.com").unwrap());
    let holders = okta(&server).holders(&addresses).await.unwrap();
    assert_eq!(holders.users.iter().map(|user| user.id.as_str()).collect::<Vec<_>>(), ["00u1", "00u2", "00u3"]);
    let seen = server.seen();
    assert_eq!(seen[1].field("after").as_deref(), Some("c1"));
    assert_eq!(seen[0].field("search"), seen[1].field("search"));
    assert_eq!(
        seen[2].field("search").unwrap(),
        r#"profile.email eq "\"or\\1\"@example.com" or profile.login eq "\"or\\1\"@example.com""#
    );
    assert!(!holders.more && okta(&server).holders(&[]).await.unwrap().users.is_empty());

    let server = Playback::start([Reply::json(200, json!([{ "id": "00u1" }]))]).await;
    assert_eq!(okta(&server).holders(&addresses[..1]).await.unwrap_err().kind, Kind::Malformed);
}

#[tokio::test]
async fn list_counts_unreadable_users() {
    let server = Playback::start([
        Reply::json(200, json!([user("00u1"), 7, { "id": "../x", "status": "ACTIVE" }])),
        Reply::json(200, "[]"),
        Reply::json(200, "[]").with("link", "</api/v1/users?after=c1>; rel=\"next\""),
        Reply::json(200, "[]").with("link", "<https://evil.example/x?after=c1>; rel=\"next\""),
    ])
    .await;
    let okta = okta(&server);
    let statuses = vec![Status::Deprovisioned, Status::Suspended, Status::Deleted];
    let query = UserQuery::Status { statuses: statuses.clone(), changed_since: Some(START.parse().unwrap()) };
    let page = okta.list(&query, None, USERS_MAX).await.unwrap();
    assert_eq!((page.users.len(), page.unreadable, page.next), (1, 2, None));
    let ids =
        |count: usize| UserQuery::Ids((0..count).map(|n| OktaUserId::parse(&format!("00u{n}")).unwrap()).collect());
    okta.list(&ids(2), Some("c0"), USERS_MAX).await.unwrap();
    let failure = okta.list(&ids(2), Some("c1"), USERS_MAX).await.unwrap_err();
    assert!(failure.message.contains("refused next link"), "a repeated cursor would loop forever: {failure}");
    assert!(okta.list(&ids(2), None, USERS_MAX).await.unwrap_err().message.contains("refused next link"));
    assert_eq!(okta.list(&ids(UserQuery::IDS_MAX + 1), None, USERS_MAX).await.unwrap_err().kind, Kind::Rejected);
    let no_match = UserQuery::Status { statuses: vec![Status::Deleted], changed_since: None };
    assert!(okta.list(&no_match, None, USERS_MAX).await.unwrap().users.is_empty());
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    assert_eq!(
        seen[0].field("search").unwrap(),
        "(status eq \"DEPROVISIONED\" or status eq \"SUSPENDED\") and statusChanged gt \"2026-01-01T00:00:00.000Z\""
    );
    assert_eq!(seen[1].field("search").unwrap(), "id eq \"00u0\" or id eq \"00u1\"");
    assert_eq!((seen[1].field("after").as_deref(), seen[1].field("limit").as_deref()), (Some("c0"), Some("200")));
}

fn token(name: &str, kind: &str) -> Reply {
    let scope = "okta.logs.read okta.users.read";
    Reply::json(200, json!({ "access_token": name, "expires_in": 3600, "token_type": kind, "scope": scope }))
}

fn claims(jwt: &str) -> Value {
    use base64::Engine;
    let payload = jwt.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn only_refused_access_tokens_are_renewed() {
    let id = OktaUserId::parse("00u1").unwrap();
    let server = Playback::start([
        token("canary-1", "Bearer"),
        error(401, "E0000011"),
        token("canary-2", "Bearer"),
        error(401, "E0000011"),
        Reply::json(200, user("00u1")),
    ])
    .await;
    let client = oauth(&server, DpopMode::Auto);
    let failure = client.user(&id).await.unwrap_err();
    assert_eq!((failure.kind, failure.code.as_deref()), (Kind::Unauthorized, Some("E0000011")));
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[0].field("scope").as_deref(), Some("okta.logs.read okta.users.read"));
    assert_eq!(seen[3].header("authorization"), "Bearer canary-2");
    let [first, second] = [&seen[0], &seen[2]].map(|seen| claims(&seen.field("client_assertion").unwrap()));
    assert_ne!(first["jti"], second["jti"], "each assertion is used once");
    assert_eq!(first["aud"], server.url.join("/oauth2/v1/token").unwrap().as_str());
    assert_eq!((&first["iss"], &first["sub"]), (&json!("0oa1"), &json!("0oa1")));
    let lifetime = first["exp"].as_i64().unwrap() - first["iat"].as_i64().unwrap();
    assert!((120 + 30..=300).contains(&lifetime), "valid from 30 s ago, for a clock that is ahead: {lifetime}");
    assert_eq!(first["nbf"], first["iat"]);

    let server = Playback::start([error(401, "E0000011")]).await;
    assert_eq!(okta(&server).user(&id).await.unwrap_err().kind, Kind::Unauthorized);
    assert_eq!(server.seen().len(), 1);
}

fn oauth_error(status: u16, code: &str) -> Reply {
    Reply::json(status, json!({ "error": code, "error_description": "words" }))
}

#[tokio::test]
async fn dpop_proofs_are_sent_once_okta_asks() {
    let id = OktaUserId::parse("00u1").unwrap();
    let server = Playback::start([
        oauth_error(400, "invalid_dpop_proof"),
        oauth_error(400, "use_dpop_nonce").with("dpop-nonce", "n1"),
        token("canary-1", "DPoP"),
        oauth_error(401, "use_dpop_nonce").with("dpop-nonce", "n2"),
        Reply::json(200, user("00u1")),
        Reply::json(200, user("00u1")),
    ])
    .await;
    let client = oauth(&server, DpopMode::Auto);
    client.user(&id).await.unwrap().unwrap();
    client.user(&id).await.unwrap().unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 6);
    assert_eq!(seen[0].header("dpop"), "");
    assert_eq!(claims(seen[1].header("dpop")).get("nonce"), None);
    let proof = claims(seen[2].header("dpop"));
    assert_eq!((&proof["nonce"], &proof["htm"]), (&json!("n1"), &json!("POST")));
    assert_eq!(proof["htu"], server.url.join("/oauth2/v1/token").unwrap().as_str());
    let proof = claims(seen[4].header("dpop"));
    assert_eq!((&proof["nonce"], &proof["htm"]), (&json!("n2"), &json!("GET")));
    assert_eq!(proof["ath"], crate::http::jws::sha256_base64url(b"canary-1"));
    assert_eq!(seen[4].header("authorization"), "DPoP canary-1");
    let all: Vec<_> = (1..6).map(|at| claims(seen[at].header("dpop"))["jti"].clone()).collect();
    assert!(all.iter().enumerate().all(|(at, jti)| !all[..at].contains(jti)), "each proof is used once");
}

#[tokio::test]
async fn token_request_attempts_are_bounded() {
    let server = Playback::start([oauth_error(400, "invalid_dpop_proof")]).await;
    let failure = oauth(&server, DpopMode::Never).credential().await.unwrap_err();
    assert_eq!((failure.kind, server.seen().len()), (Kind::Unauthorized, 1));
    assert!(failure.remedy.unwrap().contains("okta.oauth.dpop"));

    let nonce = || oauth_error(400, "use_dpop_nonce").with("dpop-nonce", "n");
    let server = Playback::start([nonce(), nonce(), nonce()]).await;
    oauth(&server, DpopMode::Always).credential().await.unwrap_err();
    assert_eq!(server.seen().len(), 3, "two new nonces are taken");

    let server = Playback::start([token("canary", "DPoP")]).await;
    let report = oauth(&server, DpopMode::Always).credential().await.unwrap();
    assert_eq!(report, CredentialReport::OAuth { scopes: SCOPES.map(str::to_owned).to_vec(), dpop: true });
    assert_ne!(server.seen()[0].header("dpop"), "");
}

#[tokio::test]
async fn org_id_needs_no_credential() {
    let server = Playback::start([
        Reply::json(200, json!({ "id": "00o1", "pipeline": "idx" })),
        Reply::json(200, "{}"),
        Reply::json(200, json!({ "name": "sync", "userId": "00u9", "expiresAt": "2026-02-01T00:00:00Z" })),
    ])
    .await;
    let okta = okta(&server);
    assert_eq!(okta.org_id().await.unwrap(), "00o1");
    assert_eq!(okta.org_id().await.unwrap_err().kind, Kind::Malformed);
    let CredentialReport::ApiToken { user_id, .. } = okta.credential().await.unwrap() else { panic!() };
    assert_eq!(user_id.as_deref(), Some("00u9"));
    assert_eq!(server.seen()[0].header("authorization"), "");
}

#[tokio::test]
async fn errors_and_debug_show_no_secrets() {
    let id = OktaUserId::parse("00u1").unwrap();
    let server = Playback::start([error(401, "E0000011"), Reply::json(302, "canary-body")]).await;
    let client = okta(&server);
    let mut text = format!("{client:?} {:?}", Credentials::ApiToken("canary-token".into()));
    for _ in 0..2 {
        let failure = client.user(&id).await.unwrap_err();
        text += &format!("{failure} {failure:?}");
    }
    let server = Playback::start([token("canary-access", "Bearer"), Reply::json(500, "canary-body")]).await;
    let client = oauth(&server, DpopMode::Auto);
    let failure = client.user(&id).await.unwrap_err();
    text += &format!("{client:?} {failure} {failure:?}");
    let broken = okta_with(server.url.clone(), Credentials::ApiToken("canary\ntoken".into())).0;
    let failure = broken.user(&id).await.unwrap_err();
    text += &format!("{failure} {failure:?}");
    assert!(!text.contains("canary"), "{text}");
}

proptest! {
    #[test]
    fn addresses_cannot_change_the_search(address in "[!-~]{1,30}@[!-~]{1,30}") {
        let Some(address) = Address::parse(&address) else { return Ok(()) };
        let term = users::equals("profile.email", address.as_str());
        let literal = term.strip_prefix("profile.email eq ").unwrap();
        prop_assert_eq!(serde_json::from_str::<String>(literal).unwrap(), address.as_str());
    }
}
