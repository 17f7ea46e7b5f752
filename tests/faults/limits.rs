//! 429 responses: the engine waits as asked, causes no retry storm, and resumes.

use std::time::Duration;

use okta_auth0_sync::domain::{Clock, Outcome, Timestamp, clock};
use okta_auth0_sync_sandbox::{self as sandbox, Effect, Limit, Limits, RateLimited, Recorded};
use serde_json::json;

use super::harness::{LOGS, paused, s, snoozed, start, start_with};

const BY_EMAIL: &str = "/api/v2/users-by-email";

/// A 429 with these headers.
fn refusal(headers: &[(&str, String)]) -> Effect {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Effect::Status { code: 429, body: json!({ "errorCode": "E0000047" }), headers }
}

fn http_date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// All forms of 429, and the expected wait in milliseconds: at least and at most.
fn refusals(now: Timestamp) -> Vec<(&'static str, Effect, u64, u64)> {
    let unix = |ahead: i64| (now.as_second() + ahead).to_string();
    let date = |ahead: u64| http_date(clock::add(now, s(ahead)));
    let reset = |ahead: i64| {
        let both = ["x-rate-limit-reset", "x-ratelimit-reset"];
        refusal(&both.map(|name| (name, unix(ahead))))
    };
    vec![
        ("default headers", Effect::RateLimited(RateLimited::Plain), 1000, 3000),
        ("Retry-After in seconds", Effect::RateLimited(RateLimited::RetryAfter(s(30))), 30_000, 33_500),
        ("Retry-After as a date", refusal(&[("retry-after", date(45))]), 45_000, 50_000),
        ("Retry-After in the past", refusal(&[("retry-after", http_date(clock::sub(now, s(45))))]), 1000, 1200),
        ("no headers", Effect::RateLimited(RateLimited::WithoutHeaders), 1000, 6500),
        ("a reset in the past", Effect::RateLimited(RateLimited::ResetInThePast), 1000, 6500),
        ("a reset in 40 s", reset(40), 40_000, 45_000),
        ("a reset next year", reset(31_000_000), 60_000, 78_000),
        (
            "a Retry-After of a year, which is probed",
            refusal(&[("retry-after", "31000000".to_owned())]),
            60_000,
            67_000,
        ),
        (
            "nonsense",
            refusal(&[("x-rate-limit-reset", "soon".to_owned()), ("retry-after", "-5".to_owned())]),
            1000,
            6500,
        ),
    ]
}

fn gap(requests: &[Recorded]) -> Duration {
    clock::since(requests[1].at, requests[0].at)
}

#[tokio::test]
async fn log_honors_retry_after() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let concurrency = ("too many concurrent calls", Effect::RateLimited(RateLimited::Concurrency), 500, 2100);
    for (name, effect, least, most) in refusals(now).into_iter().chain([concurrency]) {
        let world = start().await;
        let ann = world.leaver("ann");
        world.okta_fault("GET", LOGS, effect, 1);
        world.try_poll().await.unwrap();
        let pages = world.pages();
        assert_eq!(pages.len(), 3, "{name}: one refused request, one retry, and the empty page");
        let waited = gap(&pages).as_millis() as u64;
        assert!((least..=most).contains(&waited), "{name}: {waited} ms");
        world.denies(&[ann]).await;
    }
}

#[tokio::test]
async fn look_honors_retry_after() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    for (name, effect, least, most) in refusals(now) {
        let world = start().await;
        let ann = world.leaver("ann");
        world.try_poll().await.unwrap();
        world.auth0_fault("GET", BY_EMAIL, effect, 1);
        assert_eq!(world.look(&ann).await, Outcome::Applied, "{name}");
        let requests = world.auth0().journal().requests();
        let asked: Vec<_> = requests.into_iter().filter(|request| request.path == BY_EMAIL).collect();
        let waited = gap(&asked).as_millis() as u64;
        assert!((least..=most).contains(&waited), "{name}: {waited} ms");
        assert!(asked.len() <= 3, "{name}: {} times", asked.len());
    }
}

/// A remote that returns 429 for an hour, whatever its reset, gets about one call a minute, and the engine resumes.
#[tokio::test]
async fn hour_of_429_causes_no_storm() {
    for kind in [
        RateLimited::Plain,
        RateLimited::Concurrency,
        RateLimited::WithoutHeaders,
        RateLimited::ResetInThePast,
        RateLimited::RetryAfter(s(60)),
    ] {
        let world = start().await;
        let ann = world.leaver("ann");
        world.okta_fault("GET", LOGS, Effect::RateLimited(kind), u32::MAX);
        let began = world.now();
        while clock::since(world.now(), began) < s(3600) {
            let why = paused(world.try_poll().await);
            assert!(why.contains("rate limited (429 E0000047)"), "{why}");
            world.clock.sleep(s(15)).await;
        }
        let asked = world.pages().len();
        // A reset in a second is honored each time, so each poll (four a minute) makes a few calls.
        let most = match kind {
            RateLimited::WithoutHeaders | RateLimited::ResetInThePast => 90,
            RateLimited::RetryAfter(_) => 65,
            RateLimited::Plain | RateLimited::Concurrency => 4 * 240,
        };
        assert!((30..=most).contains(&asked), "{kind:?}: {asked} calls in an hour");
        world.okta().faults().clear();
        let recovered_at = world.now();
        world.denies(&[ann]).await;
        assert!(clock::since(world.pages().last().unwrap().at, recovered_at) <= s(80), "{kind:?}");
    }
}

#[tokio::test]
async fn token_endpoint_honors_retry_after() {
    let world = start().await;
    let (ann, bob) = (world.leaver("ann"), world.leaver("bob"));
    world.try_poll().await.unwrap();
    let headers = vec![("retry-after".to_owned(), "600".to_owned())];
    let body = json!({ "error": "too_many_requests", "error_description": "Client quota exceeded" });
    world.auth0_fault("POST", "/oauth/token", Effect::Status { code: 429, body, headers }, 1);
    for _ in 0..20 {
        let why = snoozed(world.look(&ann).await);
        assert!(why.contains("rate limited (429 too_many_requests)") && why.contains("quota"), "{why}");
        snoozed(world.look(&bob).await);
    }
    assert_eq!(world.auth0_calls("POST", "/oauth/token"), 1);
    world.denies(&[ann, bob]).await;
    assert_eq!(world.auth0_calls("POST", "/oauth/token"), 2);
}

#[tokio::test]
async fn window_share_is_spent_then_reused() {
    let world = start_with(|setup| {
        setup.sandbox.okta.limits = Limits { logs: Limit::per_minute(10), ..Limits::unlimited() };
    })
    .await;
    for _ in 0..45 {
        world.try_poll().await.unwrap();
    }
    let pages = world.pages();
    assert!(pages.iter().all(|page| page.status == Some(200)));
    // Our share is nine of ten calls: 45 calls take five windows.
    let turns: Vec<_> = pages.chunks(9).map(|window| window[0].at).collect();
    for pair in turns.windows(2) {
        let span = clock::since(pair[1], pair[0]);
        assert!(s(60) <= span && span <= s(62), "the next window began after {span:?}");
    }
}

#[tokio::test]
async fn leavers_go_before_reconcile() {
    let world = start_with(|setup| {
        setup.sandbox.okta.limits = Limits { user: Limit::per_minute(10), ..Limits::unlimited() };
        setup.sandbox.auth0.bucket = sandbox::Bucket::UNLIMITED;
    })
    .await;
    let compared: Vec<_> = (0..8).map(|number| world.member(&format!("compared{number}"))).collect();
    world.try_poll().await.unwrap();
    world.process_queue().await;
    let ids: Vec<_> = compared.iter().map(|user| user.okta.clone()).collect();
    world.store().queue_for_reconcile(&ids, world.now()).await.unwrap();
    let zed = world.leaver("zed");
    world.clock.advance(s(61));
    world.okta().journal().clear();
    world.denies(std::slice::from_ref(&zed)).await;
    let requests = world.okta().journal().requests();
    let read: Vec<_> = requests.iter().filter(|request| request.path.starts_with("/api/v1/users/")).collect();
    assert!(read[0].path.ends_with(zed.okta.as_str()), "{}", read[0].path);
    assert!(read.iter().all(|request| request.status == Some(200)));
    let is_reconcile = |path: &str| !path.ends_with(zed.okta.as_str());
    assert_eq!(read.iter().filter(|request| is_reconcile(&request.path)).count(), 8);
    // A quarter of our nine calls per window is for reconciles. A window begins with its first call.
    let (mut began, mut count) = (read[0].at, 0);
    for request in &read {
        if clock::since(request.at, began) >= s(60) {
            (began, count) = (request.at, 0);
        }
        count += u32::from(is_reconcile(&request.path));
        assert!(count <= 2, "{count} reconcile calls in the window that began at {began}");
    }
}
