//! The log cursor under faults: whatever happens to a page, no event is lost and the poller neither hangs nor spins.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use okta_auth0_sync::engine::PassError;
use okta_auth0_sync::store::Page;
use okta_auth0_sync_sandbox::{Effect, Fault, PathMatch};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::harness::{LOGS, answer, header, s, start};
use crate::world::World;

const DAY: u64 = 86_400;

/// A listener that must not be called.
struct Elsewhere {
    origin: String,
    visits: Arc<AtomicUsize>,
}

impl Elsewhere {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let visits = Arc::new(AtomicUsize::new(0));
        let counted = visits.clone();
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { origin, visits }
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn page_text(world: &World) -> String {
    serde_json::to_string(&world.okta().log_entries()).unwrap()
}

/// A page fault that fails the pass, and a part of its message.
type Bad = (&'static str, fn(&str) -> Vec<Effect>, &'static str);

fn bad_pages() -> Vec<Bad> {
    vec![
        ("a query timeout", |_| vec![answer(500, json!({ "errorCode": "E0000009" }))], "server error (500 E0000009)"),
        (
            "read-only for maintenance",
            |_| vec![answer(503, json!({ "errorCode": "E0000010" }))],
            "server error (503 E0000010)",
        ),
        ("a gateway's page", |_| vec![answer(502, Value::Null)], "server error (502)"),
        ("a dropped connection", |_| vec![Effect::Drop], "unreachable"),
        ("not a list", |_| vec![Effect::ReplaceBody(b"{\"a\":1}".to_vec())], "not a JSON array"),
        ("not JSON", |_| vec![Effect::ReplaceBody(b"<html>".to_vec())], "is a web page"),
        ("no body", |_| vec![Effect::ReplaceBody(Vec::new())], "not a JSON array"),
        (
            "invalid gzip",
            |_| vec![Effect::ReplaceBody(b"not gzip".to_vec()), header("content-encoding", "gzip")],
            "malformed answer",
        ),
        (
            "a next link to another part of the API",
            |_| vec![header("link", "</api/v1/users?after=1>; rel=\"next\"")],
            "refused next link",
        ),
        (
            "a next link outside the log's path",
            |origin| vec![header("link", &format!("<{origin}/api/v1/logs/../users?after=1>; rel=\"next\""))],
            "refused next link",
        ),
        ("a redirect (301)", |origin| vec![redirect(301, origin)], "redirected"),
        ("a redirect (302)", |origin| vec![redirect(302, origin)], "redirected"),
        ("a redirect (307)", |origin| vec![redirect(307, origin)], "redirected"),
        ("a redirect (308)", |origin| vec![redirect(308, origin)], "redirected"),
    ]
}

fn redirect(code: u16, origin: &str) -> Effect {
    let headers = vec![("location".to_owned(), format!("{origin}{LOGS}?after=1"))];
    Effect::Status { code, body: Value::Null, headers }
}

#[tokio::test]
async fn unusable_page_is_fetched_again() {
    for (name, effects, words) in bad_pages() {
        let elsewhere = Elsewhere::new().await;
        for begun in [false, true] {
            let world = start().await;
            let mut users = vec![world.leaver("ann")];
            if begun {
                world.try_poll().await.unwrap();
            }
            users.push(world.leaver("bob"));
            for effect in effects(&elsewhere.origin) {
                world.okta_fault("GET", LOGS, effect, 2);
            }
            let before = world.pages().len();
            for _ in 0..2 {
                let error = world.try_poll().await.unwrap_err().to_string();
                assert!(error.contains(words), "{name}: {error}");
                world.clock.advance(s(31));
            }
            assert_eq!(world.pages().len() - before, 2, "{name}: one request a pass");
            world.denies(&users).await;
        }
        assert_eq!(elsewhere.visits(), 0, "{name}");
    }
}

#[tokio::test]
async fn partly_read_page_is_requested_smaller() {
    let bomb = || vec![Effect::ReplaceBody(gzip(&vec![0; 65 << 20])), header("content-encoding", "gzip")];
    for (name, effects) in [
        ("a truncated body", vec![Effect::CutBody]),
        ("an oversized body", vec![Effect::ReplaceBody(vec![b' '; (64 << 20) + 1])]),
        ("a decompression bomb", bomb()),
    ] {
        for begun in [false, true] {
            let world = start().await;
            let mut users = vec![world.leaver("ann")];
            if begun {
                world.try_poll().await.unwrap();
            }
            users.push(world.leaver("bob"));
            let before = world.pages().len();
            for effect in effects.clone() {
                world.okta_fault("GET", LOGS, effect, 2);
            }
            world.denies(&users).await;
            let asked = world.pages().split_off(before);
            let limits: Vec<bool> = [1000, 500, 250]
                .iter()
                .zip(&asked)
                .map(|(limit, page)| page.query.contains(&format!("limit={limit}")))
                .collect();
            assert_eq!(limits, [true; 3], "{name}: {asked:?}");
        }
    }
}

#[tokio::test]
async fn odd_but_usable_page_is_used() {
    type Odd = (&'static str, fn(&str) -> Vec<Effect>);
    let gzipped: Odd =
        ("compressed", |page| vec![Effect::ReplaceBody(gzip(page.as_bytes())), header("content-encoding", "gzip")]);
    let invalid: Odd = ("invalid UTF-8", |page| {
        let at = page.find("Test User").unwrap();
        let mut bytes = page.as_bytes().to_vec();
        bytes[at] = 0xff;
        vec![Effect::ReplaceBody(bytes)]
    });
    let nested: Odd = ("nested two thousand deep", |page| {
        let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
        let entry = format!(
            "{{\"uuid\":\"deep\",\"published\":\"2026-01-01T00:00:00.000Z\",\"eventType\":\"user.lifecycle.x\",\"debugContext\":{deep}}}"
        );
        vec![Effect::ReplaceBody(format!("{},{entry}]", page.strip_suffix(']').unwrap()).into_bytes())]
    });
    let undated: Odd = ("without a date", |_| vec![header("date", "yesterday")]);
    for (name, effects) in [gzipped, invalid, nested, undated] {
        for begun in [false, true] {
            let world = start().await;
            let ann = world.leaver("ann");
            if begun {
                world.try_poll().await.unwrap();
            }
            let bob = world.leaver("bob");
            for effect in effects(&page_text(&world)) {
                world.okta_fault("GET", LOGS, effect, 1);
            }
            let before = world.pages().len();
            world.try_poll().await.unwrap();
            assert_eq!(world.pages().len() - before, 2, "{name}: the page, and an empty one");
            let cyd = world.leaver("cyd");
            world.denies(&[ann, bob, cyd]).await;
        }
    }
}

/// Valid forms of a next link, with `{url}` as its target.
#[tokio::test]
async fn next_link_parses_in_any_form() {
    for form in [
        "<{url}>; rel=\"next\"",
        "<{path}>; rel=\"next\"",
        "<{url}&note=a,b;c>; rel=\"next\"",
        "<{path}&note=a,b;c>;title=\"a, <b>; rel=x\";rel=next",
        "<{self}>; rel=\"self\", <{url}>; rel=\"next\"",
        "<{url}>; rel=\"next\", <{self}>; rel=\"self\"",
    ] {
        let world = start().await;
        let ann = world.leaver("ann");
        world.try_poll().await.unwrap();
        let bob = world.leaver("bob");
        // The stand-in's next link, read from the checkpoint.
        world.try_poll().await.unwrap();
        let checkpoint = world.store().checkpoint().await.unwrap().unwrap();
        let path = checkpoint.next.unwrap();
        let url = format!("{}{path}", world.okta().url());
        let line = form.replace("{url}", &url).replace("{path}", &path).replace("{self}", &format!("{url}0"));
        world.okta_fault("GET", LOGS, header("link", &line), 1);
        world.try_poll().await.unwrap();
        let cyd = world.leaver("cyd");
        world.denies(&[ann, bob, cyd]).await;
        let is_kept = world.pages().iter().any(|page| page.query.contains("note=a,b;c"));
        assert_eq!(is_kept, form.contains("note"), "{form}");
        assert!(world.pages().iter().all(|page| page.status == Some(200)), "{form}");
    }
}

#[tokio::test]
async fn next_link_host_is_ignored() {
    let elsewhere = Elsewhere::new().await;
    let world = start().await;
    let mut users = vec![world.leaver("ann")];
    world.okta_fault("GET", LOGS, Effect::NextLinkOrigin(elsewhere.origin.clone()), 4);
    for name in ["bob", "cyd"] {
        world.denies(&users).await;
        users.push(world.leaver(name));
    }
    let alarms = world.alarms_of_kind("foreign_next").await;
    assert_eq!(alarms.len(), 1, "told once");
    assert_eq!(alarms[0].subject, "127.0.0.1");
    world.denies(&users).await;
    world.try_poll().await.unwrap();
    assert_eq!(elsewhere.visits(), 0, "no credential, no connection");
    assert!(world.alarms_of_kind("foreign_next").await.is_empty(), "over");
}

#[tokio::test]
async fn empty_page_ends_the_pass() {
    let world = start().await;
    assert_eq!(world.try_poll().await.unwrap().pages, 1, "one empty page");
    for number in 0..2500 {
        world.okta().push_log_entry(json!({
            "uuid": format!("event-{number}"), "published": "2026-01-01T00:00:00.000Z",
            "eventType": "user.lifecycle.deactivate", "target": [{ "type": "User", "id": format!("00u{number}") }],
        }));
    }
    let pass = world.try_poll().await.unwrap();
    assert_eq!(
        (pass.pages, pass.events, pass.made_due, pass.more),
        (4, 2500, 2500, false),
        "two full, one short, one empty"
    );
    for _ in 0..3 {
        assert_eq!(world.try_poll().await.unwrap().pages, 1, "next equals the requested URL: one request per pass");
    }
    for number in 2500..3500 {
        world.okta().push_log_entry(json!({
            "uuid": format!("event-{number}"), "published": "2026-01-01T00:00:00.000Z",
            "eventType": "user.lifecycle.deactivate", "target": [{ "type": "User", "id": format!("00u{number}") }],
        }));
    }
    let pass = world.try_poll().await.unwrap();
    assert_eq!((pass.pages, pass.events), (2, 1000));
}

#[tokio::test]
async fn unknown_events_are_stored() {
    let world = start().await;
    let (ann, bob) = (world.member("ann"), world.member("bob"));
    world.denies(&[]).await;
    world.okta().deactivate_silently(&ann.okta);
    world.okta().deactivate_silently(&bob.okta);
    let entry = |uuid: &str, kind: &str, target: Value, outcome: Value| {
        json!({ "uuid": uuid, "published": "2026-01-01T00:00:00.000Z", "eventType": kind, "target": target,
                "outcome": outcome, "version": 0, "actor": null, "securityContext": { "userBehaviors": [{}] } })
    };
    let target = |id: &str| json!({ "type": "User", "id": id, "alternateId": null, "detailEntry": null });
    let both = json!([{ "type": "AppUser", "id": "0ua" }, target(ann.okta.as_str()), target(bob.okta.as_str())]);
    for broken in [
        entry("null-target", "user.lifecycle.deactivate", Value::Null, Value::Null),
        entry("no-user", "user.lifecycle.deactivate", json!([{ "type": "AppUser", "id": "0ua" }]), Value::Null),
    ] {
        world.okta().push_log_entry(broken);
    }
    world.okta().push_log_entry(entry("two-users", "user.lifecycle.deactivate", both, json!({ "result": "PONDERED" })));
    world.okta().push_log_entry(entry("new-type", "user.lifecycle.ascend", json!([target("00uNobody")]), json!(7)));
    world.denies(&[ann, bob]).await;
    assert_eq!(world.alarms_of_kind("quarantined").await.len(), 1);
    let status = world.store().status().await.unwrap().unwrap();
    assert_eq!(status.quarantined, 2);
    assert_eq!(world.try_poll().await.unwrap().events, 0, "and the cursor has passed them");
}

#[tokio::test]
async fn unreadable_events_without_id_are_deduplicated() {
    let world = start().await;
    let nameless = json!([{ "eventType": "user.lifecycle.deactivate" }, { "eventType": "user.lifecycle.suspend" }, 7]);
    world.okta_fault("GET", LOGS, Effect::ReplaceBody(nameless.to_string().into_bytes()), 2);
    assert_eq!(world.try_poll().await.unwrap().events, 3);
    assert_eq!(world.try_poll().await.unwrap().events, 0, "the same text is the same event");
    assert_eq!(world.store().status().await.unwrap().unwrap().quarantined, 3);
}

fn refused_cursor(code: &str) -> Fault {
    let body = json!({ "errorCode": code, "errorSummary": "refused", "errorCauses": [] });
    let effect = Effect::Status { code: 400, body, headers: Vec::new() };
    Fault { path: PathMatch::Contains("after=".to_owned()), ..Fault::new("GET", LOGS, effect) }
}

#[tokio::test]
async fn refused_cursor_restarts_by_time() {
    for code in ["E0000001", "E0000031", "E0000053"] {
        let world = start().await;
        let mut users = vec![world.leaver("ann")];
        world.denies(&users).await;
        users.push(world.leaver("bob"));
        // A single refusal keeps the cursor.
        world.okta().faults().add(refused_cursor(code).times(1));
        let before = world.pages().len();
        world.try_poll().await.unwrap();
        assert!(world.pages()[before..].iter().all(|page| page.query.contains("after=")), "{code}");
        world.okta().faults().add(refused_cursor(code).times(2));
        users.push(world.leaver("cyd"));
        let before = world.pages().len();
        world.denies(&users).await;
        let asked = &world.pages()[before..];
        assert_eq!(asked.len(), 4, "{code}: twice by the cursor, once by time, and an empty page");
        assert!(asked[2].query.contains("since=") && !asked[2].query.contains("after="), "{code}");
        world.okta().faults().clear();
        users.push(world.leaver("dan"));
        world.denies(&users).await;
    }
}

#[tokio::test]
async fn always_refused_cursor_fails_each_pass() {
    let world = start().await;
    let ann = world.leaver("ann");
    world.denies(&[ann]).await;
    world.okta().faults().add(refused_cursor("E0000001"));
    let bob = world.leaver("bob");
    for _ in 0..2 {
        let before = world.pages().len();
        let error = world.try_poll().await.unwrap_err();
        assert!(error.to_string().contains("E0000001"), "{error}");
        assert_eq!(world.pages().len() - before, 5, "twice by the cursor, once by time, twice by the new cursor");
    }
    world.process_queue().await;
    assert!(world.denied(&bob), "the page by time counts");
}

#[tokio::test]
async fn refused_start_retries_once_per_pass() {
    let world = start().await;
    let ann = world.leaver("ann");
    world.okta_fault("GET", LOGS, answer(400, json!({ "errorCode": "E0000053", "errorSummary": "since" })), 6);
    for _ in 0..3 {
        let error = world.try_poll().await.unwrap_err();
        assert!(matches!(error, PassError::Failed(_)) && error.to_string().contains("E0000053"), "{error}");
    }
    assert_eq!(world.pages().len(), 6);
    world.denies(&[ann]).await;
}

#[tokio::test]
async fn fully_refused_log_drops_cursor_once() {
    let world = start().await;
    let mut users = vec![world.leaver("ann")];
    world.denies(&users).await;
    users.push(world.leaver("bob"));
    world.okta_fault("GET", LOGS, answer(400, json!({ "errorCode": "E0000001", "errorSummary": "refused" })), 6);
    let before = world.pages().len();
    let mut anchors = Vec::new();
    for asked in [4, 6] {
        let error = world.try_poll().await.unwrap_err();
        assert!(matches!(error, PassError::Failed(_)), "{error}");
        assert_eq!(world.pages().len() - before, asked, "twice by the cursor, then twice a pass by time");
        anchors.push(world.store().checkpoint().await.unwrap().unwrap().anchor_at);
    }
    assert_eq!(anchors[0], anchors[1]);
    world.denies(&users).await;
}

#[tokio::test]
async fn cursor_of_other_filter_is_dropped() {
    let world = start().await;
    let mut users = vec![world.leaver("ann")];
    world.denies(&users).await;
    // As stored by a version with another filter, which is part of the link.
    let store = world.store();
    let checkpoint = store.checkpoint().await.unwrap().unwrap();
    let next = checkpoint.next.unwrap().replace("user.lifecycle", "user.session");
    let page = Page {
        expected_seq: checkpoint.seq,
        events: &[],
        quarantined: &[],
        next: Some(&next),
        fingerprint: "another filter",
        anchor_at: world.now(),
        creation_matters: false,
        is_good: true,
    };
    store.record_page(page, world.now()).await.unwrap();
    users.push(world.leaver("bob"));
    let before = world.pages().len();
    world.denies(&users).await;
    let asked = &world.pages()[before..];
    assert!(asked.len() == 2 && asked[0].query.contains("since="), "{asked:?}");
}

#[tokio::test]
async fn different_org_is_refused_by_its_id() {
    let world = start().await;
    world.try_poll().await.unwrap();
    let before = world.pages().len();
    // If the address leads to another org, its log denies no user.
    let mut world = world;
    world.restart_network(|_| ()).await;
    let body = json!({ "id": "00oAnother" });
    world.okta_fault("GET", "/.well-known/okta-organization", answer(200, body), 1);
    let error = world.try_poll().await.unwrap_err();
    assert!(matches!(&error, PassError::Store(error) if error.is_configuration()), "{error:?}");
    assert_eq!(world.pages().len(), before, "its log was not requested");
}

#[tokio::test]
async fn month_old_cursor_is_replaced() {
    let world = start().await;
    let mut users = vec![world.leaver("ann")];
    world.denies(&users).await;
    for _ in 0..29 {
        world.clock.advance(s(DAY));
        world.try_poll().await.unwrap();
    }
    assert!(world.pages()[1..].iter().all(|page| page.query.contains("after=")));
    world.clock.advance(s(2 * DAY));
    let before = world.pages().len();
    users.push(world.leaver("bob"));
    world.denies(&users).await;
    let asked = &world.pages()[before..];
    assert!(asked.len() == 2 && asked[0].query.contains("since="), "{asked:?}");
    assert!(world.alarms_of_kind("gap").await.is_empty());
}

#[tokio::test]
async fn log_gap_starts_full_reconcile() {
    // After 85 days events may have expired; after 200 Okta even refuses the start time.
    for days in [85, 200] {
        let mut world = start().await;
        let ann = world.leaver("ann");
        world.denies(std::slice::from_ref(&ann)).await;
        let bob = world.leaver("bob");
        // The events are close to or beyond the retention.
        world.clock.advance(s(days * DAY));
        world.restart_network(|_| ()).await;
        let cyd = world.leaver("cyd");
        let before = world.pages().len();
        world.try_poll().await.unwrap();
        let asked = world.pages().split_off(before);
        assert!(asked.iter().all(|page| page.status == Some(200)), "{days} days: {asked:?}");
        assert!(asked.len() <= 2, "{days} days: {asked:?}");
        assert_eq!(world.alarms_of_kind("gap").await.len(), 1, "{days} days");
        let reconcile = world.store().current_reconcile().await.unwrap().unwrap();
        assert!(reconcile.scope.contains("all"), "{reconcile:?}");
        let stop = CancellationToken::new();
        while !world.engine().reconcile(&stop).await.unwrap().done {}
        world.process_queue().await;
        for user in [&ann, &bob, &cyd] {
            assert!(world.denied(user), "{days} days: {}", user.account);
        }
        assert!(world.alarms_of_kind("gap").await.is_empty(), "{days} days: the alarm is cleared");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn stalled_body_times_out() {
    let world = start().await;
    let ann = world.leaver("ann");
    world.try_poll().await.unwrap();
    world.okta_fault("GET", LOGS, Effect::StallBody, 1);
    let engine = world.engine().clone();
    let pass = tokio::spawn(async move { engine.poll(&CancellationToken::new()).await });
    world
        .sandbox
        .okta()
        .journal()
        .wait_for(|requests| {
            requests.iter().filter(|request| request.path == LOGS && request.status == Some(200)).count() == 2
        })
        .await;
    // The response starts and never ends; the clock skips the page timeout.
    tokio::time::pause();
    tokio::time::advance(s(46)).await;
    tokio::time::resume();
    pass.await.unwrap().unwrap();
    let last = world.pages().pop().unwrap().query;
    assert!(last.contains("limit=500"), "the page is requested smaller: {last}");
    world.denies(&[ann]).await;
}
