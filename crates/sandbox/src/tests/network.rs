//! Faults, barriers, the journal and the control API.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{Effect, Fault, Matcher, NewUser, Options, RateLimited, Sandbox};

use super::Stage;

const USERS: &str = "/api/v1/users";

async fn send(stage: &Stage) -> Result<reqwest::Response, reqwest::Error> {
    let okta = stage.sandbox.okta();
    let token = format!("SSWS {}", okta.api_token());
    stage.client.get(format!("{}{USERS}", okta.url())).header("authorization", token).send().await
}

#[tokio::test]
async fn a_dropped_connection_gives_no_answer() {
    let stage = Stage::set(|_| ()).await;
    stage.sandbox.okta().faults().add(Fault::new("GET", USERS, Effect::Drop).times(1));
    assert!(send(&stage).await.unwrap_err().is_request());
    assert_eq!(stage.sandbox.okta().journal().requests()[0].status, None);
    assert_eq!(send(&stage).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_cut_body_is_shorter_than_declared() {
    let stage = Stage::set(|_| ()).await;
    stage.sandbox.okta().create_user(&NewUser::new("ann@example.com", "ann@example.com"));
    stage.sandbox.okta().faults().add(Fault::new("GET", USERS, Effect::CutBody).times(1));
    let response = send(&stage).await.unwrap();
    assert!(response.content_length().unwrap() > 100);
    assert!(response.bytes().await.is_err());
    assert_eq!(send(&stage).await.unwrap().json::<Value>().await.unwrap().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_stalled_body_ends_only_with_the_sandbox() {
    let stage = Stage::set(|_| ()).await;
    stage.sandbox.okta().create_user(&NewUser::new("ann@example.com", "ann@example.com"));
    stage.sandbox.okta().faults().add(Fault::new("GET", USERS, Effect::StallBody));
    let mut response = send(&stage).await.unwrap();
    assert!(response.chunk().await.unwrap().is_some(), "the first half comes");
    let rest = tokio::spawn(async move { response.bytes().await });
    stage.sandbox.stop().await;
    assert!(rest.await.unwrap().is_err());
}

#[tokio::test]
async fn request_takes_effect_and_response_is_lost() {
    let stage = Stage::set(|_| ()).await;
    let auth0 = stage.sandbox.auth0();
    let ann = auth0.create_user(json!({ "email": "a@x.org" }));
    let bearer = stage.bearer().await;
    let path = format!("/users/{}", ann.replace('|', "%7C"));
    auth0.faults().add(Fault::new("PATCH", "/api/v2/users/", Effect::AfterEffect(Box::new(Effect::Drop))).times(1));
    let url = format!("{}/api/v2{path}", auth0.url());
    let lost = stage.client.patch(url).header("authorization", &bearer).json(&json!({ "blocked": true })).send().await;
    assert!(lost.is_err());
    assert_eq!(auth0.user(&ann).unwrap()["blocked"], true);
    let late = Effect::Status { code: 502, body: Value::Null, headers: Vec::new() };
    auth0.faults().add(Fault::new("PATCH", "/api/v2/users/", Effect::AfterEffect(Box::new(late))).times(1));
    assert_eq!(stage.auth0(&bearer, Method::PATCH, &path, json!({ "blocked": false })).await.status, 502);
    assert_eq!(auth0.user(&ann).unwrap()["blocked"], false);
}

#[tokio::test]
async fn responses_can_be_replaced() {
    let stage = Stage::set(|_| ()).await;
    let faults = stage.sandbox.okta().faults();
    let request_with = |effect| {
        faults.clear();
        faults.add(Fault::everywhere(effect));
        stage.okta(Method::GET, "/api/v1/logs", Value::Null)
    };
    let limited = request_with(Effect::RateLimited(RateLimited::Concurrency)).await;
    assert_eq!((limited.status, limited.header("x-rate-limit-limit")), (429, "0"));
    let limited = request_with(Effect::RateLimited(RateLimited::RetryAfter(Duration::from_secs(7)))).await;
    assert_eq!(limited.header("retry-after"), "7");
    assert_eq!(request_with(Effect::RateLimited(RateLimited::WithoutHeaders)).await.header("x-rate-limit-reset"), "");
    let past = request_with(Effect::RateLimited(RateLimited::ResetInThePast)).await;
    assert_eq!(past.header("x-rate-limit-reset"), "1767225540");
    assert_eq!(request_with(Effect::ReplaceBody(b"<html>".to_vec())).await.body, Value::Null);
    let header = Effect::ReplaceHeader { name: "date".to_owned(), value: Some("yesterday".to_owned()) };
    assert_eq!(request_with(header).await.header("date"), "yesterday");
    let elsewhere = request_with(Effect::NextLinkOrigin("https://elsewhere.example".to_owned())).await;
    assert!(elsewhere.link("next").unwrap().starts_with("https://elsewhere.example/api/v1/logs"));
}

#[tokio::test]
async fn state_can_change_during_a_request() {
    let stage = Stage::set(|_| ()).await;
    let okta = stage.sandbox.okta();
    let ann = okta.create_user(&NewUser::new("ann@example.com", "ann@example.com"));
    let path = format!("{USERS}/{ann}");
    let before = okta.faults().hold(Matcher::new("GET", USERS));
    let (read, ()) = tokio::join!(stage.okta(Method::GET, &path, Value::Null), async {
        before.arrived().await;
        okta.deactivate(&ann);
        before.release();
    });
    assert_eq!(read.body["status"], "DEPROVISIONED", "held before it is looked at");
    let after = okta.faults().hold_answer(Matcher::new("GET", USERS));
    let (read, ()) = tokio::join!(stage.okta(Method::GET, &path, Value::Null), async {
        after.arrived().await;
        okta.activate(&ann);
        after.release();
    });
    assert_eq!(read.body["status"], "DEPROVISIONED", "held after: a stale answer");
}

#[tokio::test]
async fn a_delay_passes_on_the_sandboxs_clock() {
    let stage = Stage::set(|_| ()).await;
    let okta = stage.sandbox.okta();
    okta.faults().add(Fault::everywhere(Effect::Delay(Duration::from_secs(3600))));
    let (reply, ()) = tokio::join!(stage.okta(Method::GET, USERS, Value::Null), async {
        okta.journal().wait_for(|requests| !requests.is_empty()).await;
        // The request may not sleep yet: an extra hour does no harm.
        while okta.journal().requests()[0].status.is_none() {
            stage.clock.advance(Duration::from_secs(3600));
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn stop_ends_held_requests() {
    let stage = Stage::set(|_| ()).await;
    let hold = stage.sandbox.okta().faults().hold(Matcher::any());
    let Stage { sandbox, client, .. } = stage;
    let url = format!("{}{USERS}", sandbox.okta().url());
    let asked = tokio::spawn(client.get(url).send());
    hold.arrived().await;
    sandbox.stop().await;
    assert!(asked.await.unwrap().is_err());
}

#[tokio::test]
async fn control_api_lists_itself() {
    let sandbox = Sandbox::start(Options::default(), "").await.unwrap();
    for (url, own) in [
        (sandbox.okta().url(), "POST /_sandbox/users/{id}/{operation}"),
        (sandbox.auth0().url(), "POST /_sandbox/login"),
    ] {
        let answer = reqwest::get(format!("{url}/_sandbox/")).await.unwrap();
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.unwrap();
        for expected in ["POST /_sandbox/faults", "`rate_limited`", own] {
            assert!(text.contains(expected), "expected: {expected}\n{text}");
        }
        let answer = reqwest::get(format!("{url}/_sandbox/nothing")).await.unwrap();
        assert!(answer.text().await.unwrap().contains("GET /_sandbox/ lists them"));
    }
    sandbox.stop().await;
}

#[tokio::test]
async fn control_api_covers_every_operation() {
    let stage = Stage::set(|_| ()).await;
    let (okta, auth0) = (stage.sandbox.okta(), stage.sandbox.auth0());
    let control = |url: &str, method: Method, path: &str, body: Value| {
        let url = format!("{url}/_sandbox/{path}");
        let stage = &stage;
        async move { stage.ask(method, &url, "", &body).await }
    };
    let made = control(okta.url(), Method::POST, "users", json!({ "login": "ann@example.com" })).await;
    let id = made.body["id"].as_str().unwrap().to_owned();
    assert_eq!(control(okta.url(), Method::POST, "users", json!({ "login": "ann@example.com" })).await.status, 400);
    for operation in ["suspend", "unsuspend", "deactivate", "hide", "show", "activate", "delete"] {
        let done = control(okta.url(), Method::POST, &format!("users/{id}/{operation}"), Value::Null).await;
        assert_eq!(done.status, 204, "{operation}");
    }
    assert_eq!(control(okta.url(), Method::POST, &format!("users/{id}/hide"), Value::Null).await.status, 404);
    let events = control(okta.url(), Method::GET, "events", Value::Null).await;
    let uuid = events.body[0]["uuid"].as_str().unwrap();
    control(okta.url(), Method::POST, &format!("events/{uuid}/repeat"), Value::Null).await;
    control(okta.url(), Method::POST, "events", json!({ "uuid": "raw" })).await;
    assert_eq!(okta.log_entries().last().unwrap(), &json!({ "uuid": "raw" }));
    let fault = json!({ "path": USERS, "times": 1, "effect": { "kind": "status", "code": 503 } });
    assert_eq!(control(okta.url(), Method::POST, "faults", fault).await.status, 201);
    assert_eq!(stage.okta(Method::GET, USERS, Value::Null).await.status, 503);
    assert_eq!(control(okta.url(), Method::GET, "journal", Value::Null).await.body["requests"][0]["status"], 503);
    control(okta.url(), Method::POST, "clock", json!({ "advance": "1h" })).await;
    assert_eq!(control(auth0.url(), Method::GET, "clock", Value::Null).await.body["now"], "2026-01-01T01:00:00.000Z");

    let made = control(auth0.url(), Method::POST, "users", json!({ "email": "a@x.org", "user_id": "auth0|1" })).await;
    assert_eq!(made.body["user_id"], "auth0|1");
    let edit = json!({ "user_metadata": { "okta": { "deactivated": true } } });
    assert_eq!(control(auth0.url(), Method::PUT, "users/auth0%7C1", edit).await.status, 204);
    let login = control(auth0.url(), Method::POST, "login", json!({ "user_id": "auth0|1", "kind": "silent" })).await;
    assert_eq!(login.body, json!({ "granted": false, "reason": "account_deactivated" }));
    control(auth0.url(), Method::POST, "action", json!({ "bound": false })).await;
    let login = control(auth0.url(), Method::POST, "login", json!({ "user_id": "auth0|1" })).await;
    assert_eq!(login.body["granted"], true);
    assert_eq!(control(auth0.url(), Method::GET, "nothing", Value::Null).await.status, 404);
}

#[tokio::test]
async fn the_configuration_can_be_pasted() {
    let stage = Stage::set(|options| options.auth0.client_secret = "quo\"te".to_owned()).await;
    let config: toml::Table = stage.sandbox.config_toml().parse().unwrap();
    assert_eq!(config["okta"]["url"].as_str(), Some(stage.sandbox.okta().url()));
    assert_eq!(config["auth0"]["client_secret"].as_str(), Some("quo\"te"));
}

#[tokio::test]
async fn debug_output_has_no_credentials() {
    let stage = Stage::set(|options| options.auth0.client_secret = "hidden-secret".to_owned()).await;
    let bearer = stage.bearer().await;
    let okta_token = stage.sandbox.okta().api_token();
    stage.okta(Method::GET, USERS, Value::Null).await;
    let printed = format!("{:?} {:?}", stage.sandbox, stage.sandbox.okta().journal().requests());
    for secret in [okta_token.as_str(), "hidden-secret", bearer.trim_start_matches("Bearer ")] {
        assert!(!printed.contains(secret));
    }
}
