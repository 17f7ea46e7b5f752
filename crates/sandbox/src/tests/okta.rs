//! The Okta org.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::jose::tests::TestKey;
use crate::{DeleteOrder, Limit, Limits, NewUser, ServiceApp};

use super::{Reply, Stage, reply};

fn events(reply: &Reply) -> Vec<&str> {
    reply.body.as_array().unwrap().iter().map(|event| event["eventType"].as_str().unwrap()).collect()
}

fn logins(reply: &Reply) -> Vec<&str> {
    reply.body.as_array().unwrap().iter().map(|user| user["profile"]["login"].as_str().unwrap()).collect()
}

fn query(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[tokio::test]
async fn polling_follows_an_eternal_next_link() {
    let stage = Stage::set(|_| ()).await;
    let okta = stage.sandbox.okta();
    let filter = r#"eventType sw "user.lifecycle.""#;
    let first =
        format!("/api/v1/logs?{}", query(&[("since", "2025-12-31T00:00:00Z"), ("filter", filter), ("limit", "2")]));
    let empty = stage.okta(Method::GET, &first, Value::Null).await;
    assert_eq!((empty.status, empty.body), (200, json!([])));

    let ann = okta.create_user(&NewUser::new("ann@example.com", "ann@example.com"));
    stage.clock.advance(Duration::from_secs(1));
    okta.change_profile(&ann, "anna@example.com", "anna@example.com");
    okta.deactivate(&ann);
    let page = stage.okta(Method::GET, &first, Value::Null).await;
    assert_eq!(events(&page), ["user.lifecycle.activate", "user.lifecycle.create"], "in the recorded order");
    assert_eq!(page.headers.get_all("link").iter().count(), 2, "one line a relation");
    let next = page.link("next").unwrap();
    assert!(next.contains("after=1767225600000_2") && next.contains("limit=2") && !next.contains("since="), "{next}");

    let page = stage.okta(Method::GET, &next, Value::Null).await;
    assert_eq!(events(&page), ["user.lifecycle.deactivate"], "the filter rides in the link");
    let target = &page.body[0]["target"][0];
    assert_eq!((&target["type"], &target["alternateId"]), (&json!("User"), &json!("anna@example.com")));
    let next = page.link("next").unwrap();
    let empty = stage.okta(Method::GET, &next, Value::Null).await;
    assert_eq!(empty.body, json!([]));
    assert_eq!(empty.link("next"), Some(next), "the cursor of an empty page is the one that was asked");
}

#[tokio::test]
async fn a_bounded_request_ends() {
    let stage = Stage::set(|_| ()).await;
    stage.sandbox.okta().create_user(&NewUser::new("ann@example.com", "ann@example.com"));
    let url = format!("/api/v1/logs?{}", query(&[("until", "2026-01-02T00:00:00Z"), ("limit", "1")]));
    let first = stage.okta(Method::GET, &url, Value::Null).await;
    let next = first.link("next").unwrap();
    assert!(next.contains("until="), "{next}");
    let last = stage.okta(Method::GET, &next, Value::Null).await;
    assert_eq!((last.body.as_array().unwrap().len(), last.link("next")), (1, None));
}

#[tokio::test]
async fn invalid_log_queries_are_refused() {
    let stage = Stage::set(|_| ()).await;
    for (pairs, code) in [
        (&[("since", "2025-06-01T00:00:00Z")][..], "E0000053"),
        (&[("since", "yesterday")], "E0000030"),
        (&[("since", "2025-12-31T00:00:00Z"), ("after", "1_1")], "E0000053"),
        (&[("after", "no-cursor")], "E0000001"),
        (&[("limit", "1001")], "E0000001"),
        (&[("filter", "eventType is good")], "E0000031"),
        (&[("filter", r#"published gt "2026-01-01T00:00:00Z""#)], "E0000031"),
    ] {
        let refused = stage.okta(Method::GET, &format!("/api/v1/logs?{}", query(pairs)), Value::Null).await;
        assert_eq!((refused.status, refused.body["errorCode"].as_str()), (400, Some(code)), "{pairs:?}");
    }
}

#[tokio::test]
async fn the_life_of_a_user_over_http() {
    let stage = Stage::set(|_| ()).await;
    let profile =
        json!({ "login": "Ann@example.com", "email": "Ann@example.com", "firstName": "Ann", "lastName": "Lee" });
    let staged = stage.okta(Method::POST, "/api/v1/users?activate=false", json!({ "profile": profile })).await;
    assert_eq!((staged.status, &staged.body["status"]), (200, &json!("STAGED")));
    let path = format!("/api/v1/users/{}", staged.body["id"].as_str().unwrap());
    let taken = stage.okta(Method::POST, "/api/v1/users", json!({ "profile": { "login": "ANN@example.com" } })).await;
    assert_eq!((taken.status, &taken.body["errorCode"]), (400, &json!("E0000001")));

    for (operation, status, then) in [
        ("reactivate", 403, "STAGED"),
        ("activate", 200, "PROVISIONED"),
        ("suspend", 400, "PROVISIONED"),
        ("reactivate", 200, "PROVISIONED"),
        ("deactivate", 200, "DEPROVISIONED"),
        ("unsuspend", 400, "DEPROVISIONED"),
    ] {
        let done = stage.okta(Method::POST, &format!("{path}/lifecycle/{operation}"), Value::Null).await;
        assert_eq!(done.status, status, "{operation}: {:?}", done.body);
        assert_eq!(stage.okta(Method::GET, &path, Value::Null).await.body["status"], then, "{operation}");
    }
    let gone = stage.okta(Method::GET, &path, Value::Null).await;
    assert_eq!(gone.body["profile"]["email"], "Ann@example.com", "the profile stays readable");
    assert!(gone.body.get("transitioningToStatus").is_none());
    assert!(gone.body["_links"]["delete"]["href"].as_str().unwrap().ends_with(&path));
    let by_login = stage.okta(Method::GET, "/api/v1/users/ann%40EXAMPLE.com", Value::Null).await;
    assert_eq!(by_login.body["id"], gone.body["id"]);

    assert_eq!(stage.okta(Method::DELETE, &path, Value::Null).await.status, 204);
    let deleted = stage.okta(Method::GET, &path, Value::Null).await;
    assert_eq!((deleted.status, &deleted.body["errorCode"]), (404, &json!("E0000007")));
    assert_eq!(deleted.body["errorSummary"], format!("Not found: Resource not found: {} (User)", &path[14..]));
}

#[tokio::test]
async fn deletion_renames_the_login_first() {
    for (order, expected) in [
        (
            DeleteOrder::DeactivateFirst,
            ["user.account.update_profile", "user.lifecycle.deactivate", "user.lifecycle.delete.initiated"],
        ),
        (
            DeleteOrder::InitiatedFirst,
            ["user.account.update_profile", "user.lifecycle.delete.initiated", "user.lifecycle.deactivate"],
        ),
    ] {
        let stage = Stage::set(|options| options.okta.delete_order = order).await;
        let okta = stage.sandbox.okta();
        let ann = okta.create_user(&NewUser::new("ann@example.com", "ann@example.com"));
        okta.delete(&ann);
        assert_eq!(okta.user(&ann), None);
        let entries = &okta.log_entries()[2..];
        let types: Vec<_> = entries.iter().map(|entry| entry["eventType"].as_str().unwrap()).collect();
        assert_eq!(types, expected);
        assert_eq!(entries[0]["target"][0]["alternateId"], format!("{ann}@deleted.invalid"));
        assert!(entries[1]["published"].as_str() < entries[0]["published"].as_str(), "log order is not causal order");
    }
}

#[tokio::test]
async fn lists_omit_deprovisioned_searches_do_not() {
    let stage = Stage::set(|_| ()).await;
    let okta = stage.sandbox.okta();
    let ids: Vec<_> =
        ["a@x.org", "b@x.org", "c@x.org"].iter().map(|login| okta.create_user(&NewUser::new(login, login))).collect();
    okta.deactivate(&ids[1]);
    let get = |pairs: Vec<(&'static str, String)>| {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let stage = &stage;
        async move { stage.okta(Method::GET, &format!("/api/v1/users?{query}"), Value::Null).await }
    };
    let first = get(vec![("limit", "1".into())]).await;
    assert_eq!(logins(&first), ["a@x.org"]);
    let second = stage.okta(Method::GET, &first.link("next").unwrap(), Value::Null).await;
    assert_eq!((logins(&second), second.link("next")), (vec!["c@x.org"], None));
    for (search, found) in [
        (r#"status eq "DEPROVISIONED" and statusChanged gt "2025-01-01T00:00:00.000Z""#.to_owned(), vec!["b@x.org"]),
        (r#"profile.email eq "C@X.org" or profile.login eq "A@x.ORG""#.to_owned(), vec!["a@x.org", "c@x.org"]),
        (format!("id eq \"{}\" or id eq \"{}\"", ids[0], ids[1]), vec!["a@x.org", "b@x.org"]),
    ] {
        assert_eq!(logins(&get(vec![("search", search.clone())]).await), found, "{search}");
    }
    assert_eq!(logins(&get(vec![("filter", r#"status eq "DEPROVISIONED""#.into())]).await), ["b@x.org"]);
    assert_eq!(logins(&get(vec![("filter", r#"profile.email eq "C@x.org""#.into())]).await).len(), 0);
    assert_eq!(get(vec![("search", "status is".into())]).await.body["errorCode"], "E0000031");
    assert_eq!(get(vec![("search", r#"shoe.size eq "1""#.into())]).await.body["errorCode"], "E0000031");
    assert_eq!(get(vec![("filter", r#"status sw "A""#.into())]).await.body["errorCode"], "E0000053");
    okta.hide(&ids[0]);
    assert_eq!(logins(&get(vec![]).await), ["c@x.org"]);
    assert_eq!(stage.okta(Method::GET, &format!("/api/v1/users/{}", ids[0]), Value::Null).await.status, 404);
}

#[tokio::test]
async fn full_window_answers_429_until_reset() {
    let limits = Limits { logs: Limit::per_minute(1), ..Limits::default() };
    let stage = Stage::set(|options| options.okta.limits = limits).await;
    let ask = || stage.okta(Method::GET, "/api/v1/logs", Value::Null);
    let first = ask().await;
    assert_eq!((first.header("x-rate-limit-limit"), first.header("x-rate-limit-remaining")), ("1", "0"));
    assert_eq!(first.header("date"), "Thu, 01 Jan 2026 00:00:00 GMT", "the sandbox's clock");
    assert!(!first.header("x-okta-request-id").is_empty());
    let refused = ask().await;
    assert_eq!((refused.status, &refused.body["errorCode"]), (429, &json!("E0000047")));
    assert_eq!(refused.header("x-rate-limit-reset"), "1767225660");
    stage.clock.advance(Duration::from_secs(60));
    assert_eq!(ask().await.status, 200);
}

#[tokio::test]
async fn tokens_and_roles_are_checked() {
    let stage = Stage::set(|_| ()).await;
    let okta = stage.sandbox.okta();
    let logs = format!("{}/api/v1/logs", okta.url());
    for credential in ["", "SSWS wrong", "Bearer wrong", "Basic x"] {
        let refused = stage.ask(Method::GET, &logs, credential, &Value::Null).await;
        assert_eq!((refused.status, &refused.body["errorCode"]), (401, &json!("E0000011")), "{credential}");
    }
    assert_eq!(stage.okta(Method::PUT, "/api/v1/logs", Value::Null).await.status, 405);
    assert_eq!(stage.okta(Method::GET, "/api/v1/shoes", Value::Null).await.status, 404);
    okta.set_role(false, true);
    assert_eq!(stage.okta(Method::GET, "/api/v1/logs", Value::Null).await.body["errorCode"], "E0000006");
    assert_eq!(stage.okta(Method::GET, "/api/v1/users", Value::Null).await.status, 200);
    okta.revoke_token();
    assert_eq!(stage.okta(Method::GET, "/api/v1/users", Value::Null).await.status, 401);
    let open = stage.ask(Method::GET, &format!("{}/.well-known/okta-organization", okta.url()), "", &Value::Null).await;
    assert_eq!((open.status, &open.body["pipeline"]), (200, &json!("idx")));
}

/// A service app and its key.
struct App {
    stage: Stage,
    key: TestKey,
    token_url: String,
    sent: std::cell::Cell<u32>,
}

impl App {
    async fn with(change: impl FnOnce(&mut ServiceApp)) -> Self {
        let key = TestKey::generate();
        let mut app = ServiceApp::new("0oa1", key.public());
        change(&mut app);
        let stage = Stage::set(|options| options.okta.apps = vec![app]).await;
        let token_url = format!("{}/oauth2/v1/token", stage.sandbox.okta().url());
        Self { stage, key, token_url, sent: 0.into() }
    }

    fn number(&self) -> u32 {
        self.sent.set(self.sent.get() + 1);
        self.sent.get()
    }

    fn assertion(&self) -> String {
        let claims = json!({
            "iss": "0oa1", "sub": "0oa1", "aud": self.token_url, "exp": 1_767_225_600 + 300, "jti": self.number().to_string(),
        });
        self.key.sign(json!({}), &claims)
    }

    fn proof(&self, method: &str, url: &str, nonce: Option<&str>, token: Option<&str>) -> String {
        let mut claims =
            json!({ "htm": method, "htu": url, "iat": 1_767_225_600, "jti": format!("p{}", self.number()) });
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        if let Some(token) = token {
            claims["ath"] = json!(crate::jose::sha256(token));
        }
        self.key.sign(json!({ "typ": "dpop+jwt", "jwk": self.key.public() }), &claims)
    }

    async fn token(&self, assertion: &str, scope: &str, proof: Option<&str>) -> Reply {
        let form = [
            ("grant_type", "client_credentials"),
            ("scope", scope),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
        ];
        let mut request = self.stage.client.post(&self.token_url).form(&form);
        if let Some(proof) = proof {
            request = request.header("dpop", proof);
        }
        reply(request.send().await.unwrap()).await
    }
}

#[tokio::test]
async fn service_app_assertion_is_accepted_once() {
    let app = App::with(|_| ()).await;
    let assertion = app.assertion();
    let refused = app.token(&assertion, "okta.logs.manage", None).await;
    assert_eq!((refused.status, &refused.body["error"]), (400, &json!("invalid_scope")));
    let again = app.token(&assertion, "okta.logs.read", None).await;
    assert_eq!((again.status, &again.body["error"]), (401, &json!("invalid_client")), "used up even by a 400");
    let granted = app.token(&app.assertion(), "okta.logs.read", None).await;
    assert_eq!((granted.status, &granted.body["token_type"]), (200, &json!("Bearer")));
    let bearer = format!("Bearer {}", granted.body["access_token"].as_str().unwrap());
    let url = app.stage.sandbox.okta().url();
    assert_eq!(app.stage.ask(Method::GET, &format!("{url}/api/v1/logs"), &bearer, &Value::Null).await.status, 200);
    let users = app.stage.ask(Method::GET, &format!("{url}/api/v1/users"), &bearer, &Value::Null).await;
    assert_eq!((users.status, &users.body["errorCode"]), (403, &json!("E0000006")), "no scope for users");
    app.stage.clock.advance(Duration::from_secs(3600));
    assert_eq!(app.stage.ask(Method::GET, &format!("{url}/api/v1/logs"), &bearer, &Value::Null).await.status, 401);
}

#[tokio::test]
async fn dpop_needs_proof_and_nonce() {
    let app = App::with(|app| app.require_dpop = true).await;
    let scope = "okta.logs.read";
    let missing = app.token(&app.assertion(), scope, None).await;
    assert_eq!((missing.status, &missing.body["error"]), (400, &json!("invalid_dpop_proof")));
    let proof = app.proof("POST", &app.token_url, None, None);
    let asked = app.token(&app.assertion(), scope, Some(&proof)).await;
    assert_eq!((asked.status, &asked.body["error"]), (400, &json!("use_dpop_nonce")));
    let nonce = asked.header("dpop-nonce").to_owned();
    let proof = app.proof("POST", &app.token_url, Some(&nonce), None);
    let granted = app.token(&app.assertion(), scope, Some(&proof)).await;
    assert_eq!((granted.status, &granted.body["token_type"]), (200, &json!("DPoP")));
    let token = granted.body["access_token"].as_str().unwrap().to_owned();

    let logs = format!("{}/api/v1/logs", app.stage.sandbox.okta().url());
    let call = |scheme: &str, proof: String| {
        let request = app.stage.client.get(format!("{logs}?limit=1")).header("dpop", proof);
        let request = request.header("authorization", format!("{scheme} {token}"));
        async move { reply(request.send().await.unwrap()).await }
    };
    let good = app.proof("GET", &logs, None, Some(&token));
    assert_eq!(call("DPoP", good.clone()).await.status, 200);
    assert_eq!(call("DPoP", good).await.status, 400, "each proof counts once");
    assert_eq!(call("Bearer", app.proof("GET", &logs, None, Some(&token))).await.status, 401);
    for wrong in [
        app.proof("POST", &logs, None, Some(&token)),
        app.proof("GET", &format!("{logs}?limit=1"), None, Some(&token)),
        app.proof("GET", &logs, None, Some("another token")),
        app.proof("GET", &logs, None, None),
    ] {
        assert_eq!(call("DPoP", wrong).await.body["error"], "invalid_dpop_proof");
    }
}

#[tokio::test]
async fn api_call_may_need_a_nonce() {
    let key = TestKey::generate();
    let app = ServiceApp::new("0oa1", key.public());
    let stage = Stage::set(|options| (options.okta.apps, options.okta.demand_dpop_nonce) = (vec![app], true)).await;
    let token_url = format!("{}/oauth2/v1/token", stage.sandbox.okta().url());
    let app = App { stage, key, token_url, sent: 0.into() };
    let asked =
        app.token(&app.assertion(), "okta.logs.read", Some(&app.proof("POST", &app.token_url, None, None))).await;
    let nonce = asked.header("dpop-nonce").to_owned();
    let proof = app.proof("POST", &app.token_url, Some(&nonce), None);
    let granted = app.token(&app.assertion(), "okta.logs.read", Some(&proof)).await;
    let token = granted.body["access_token"].as_str().unwrap();
    let logs = format!("{}/api/v1/logs", app.stage.sandbox.okta().url());
    for (nonce, status) in [(None, 400), (Some(nonce.as_str()), 200), (Some("another"), 400)] {
        let request = app.stage.client.get(&logs).header("dpop", app.proof("GET", &logs, nonce, Some(token)));
        let called = reply(request.header("authorization", format!("DPoP {token}")).send().await.unwrap()).await;
        assert_eq!(called.status, status);
        assert_eq!(called.body["error"] == "use_dpop_nonce", status == 400);
    }
}
