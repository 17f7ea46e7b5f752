//! What the parts cost that grow with the log: `cargo bench --bench micro [pages]`. Medians, on the disk under `target/`.
//!
//! A page of the log is decoded, taken into the state with everybody in it new or known, and those due are claimed. With
//! more pages (1,000 by default: a million events) the history behind the last ones is longer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, reason = "the result")]

use std::time::Duration;

use okta_auth0_sync::domain::event::EventUser;
use okta_auth0_sync::domain::{Clock, Event, OktaUserId, SystemClock};
use okta_auth0_sync::okta::LogEntry;
use okta_auth0_sync::sandbox::{Options, Population, Sandbox};
use okta_auth0_sync::store::{Binding, Page, Store};
use serde_json::value::RawValue;

const ENTRIES: usize = 1000;

fn median(mut spans: Vec<Duration>) -> Duration {
    spans.sort_unstable();
    spans[spans.len() / 2]
}

fn tell(what: &str, items: usize, span: Duration) {
    let per_second = items as f64 / span.as_secs_f64();
    println!("{what:<58} {:>9.2} ms {per_second:>10.0} a second", span.as_secs_f64() * 1000.0);
}

/// A page as the log of the sandbox gives it.
async fn page_text() -> String {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.populate(Population { people: ENTRIES, leavers: ENTRIES, history: 0 });
    let entries = sandbox.okta().log_entries();
    sandbox.stop().await;
    serde_json::to_string(&entries).unwrap()
}

fn decoded(text: &str) -> Vec<Event> {
    let raw: Vec<&RawValue> = serde_json::from_str(text).unwrap();
    let events = raw.into_iter().map(|raw| match LogEntry::read(raw) {
        LogEntry::Event(event) => event,
        LogEntry::Unreadable { why, .. } => panic!("{why}"),
    });
    events.collect()
}

/// The page with other ids: of events, and of users beyond `people`.
fn renewed(template: &[Event], page: usize, people: usize) -> Vec<Event> {
    let of = |(at, event): (usize, &Event)| {
        let person = (page * ENTRIES + at) % people;
        let id =
            OktaUserId::parse(&format!("00u{:017}", (person as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8)).unwrap();
        Event {
            id: uuid::Uuid::new_v4().to_string(),
            users: vec![EventUser { id, login: Some(format!("person{person}@example.com")) }],
            ..event.clone()
        }
    };
    template.iter().enumerate().map(of).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let pages: usize = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1000).max(60);
    let clock = SystemClock::new();
    let text = page_text().await;
    let spans = (0..100).map(|_| {
        let began = clock.monotonic();
        assert_eq!(decoded(&text).len(), ENTRIES);
        clock.monotonic() - began
    });
    tell(&format!("decode a page of {ENTRIES} entries ({} KiB)", text.len() / 1024), ENTRIES, median(spans.collect()));

    let folder = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/target")).unwrap();
    let binding = Binding {
        okta_url: "https://acme.okta.com".to_owned(),
        auth0_url: "https://acme.eu.auth0.com".to_owned(),
        auth0_audience: "https://acme.eu.auth0.com/api/v2/".to_owned(),
        enforce: true,
        policy: String::new(),
    };
    let (store, _) = Store::open(&folder.path().join("state.db"), &binding, clock.now()).await.unwrap();
    let template = decoded(&text);
    let mut spans = Vec::new();
    for number in 0..pages {
        // The first fifty pages are all about new users, the others about the same fifty thousand.
        let events = renewed(&template, number, 50 * ENTRIES);
        let began = clock.monotonic();
        let page = Page {
            expected_seq: i64::try_from(number).unwrap(),
            events: &events,
            quarantined: &[],
            next: Some("/api/v1/logs?after=1"),
            fingerprint: "bench",
            server_time: clock.now(),
        };
        assert_eq!(store.record_page(page, clock.now()).await.unwrap().new_events, ENTRIES as u64);
        spans.push(clock.monotonic() - began);
    }
    tell("take in a page: everybody is new", ENTRIES, median(spans[..50].to_vec()));
    let later = &spans[50..];
    let tenth = later.len().div_ceil(10);
    tell("take in a page: everybody is known, little history", ENTRIES, median(later[..tenth].to_vec()));
    tell(&format!("the same behind {} pages", pages - tenth), ENTRIES, median(later[later.len() - tenth..].to_vec()));

    let due = store.due(clock.now(), 64).await.unwrap();
    let spans = (0..100).map(async |_| {
        let began = clock.monotonic();
        assert_eq!(store.due(clock.now(), 64).await.unwrap().len(), 64);
        clock.monotonic() - began
    });
    let mut took = Vec::new();
    for span in spans {
        took.push(span.await);
    }
    tell("list 64 of 50,000 who are due", 64, median(took));
    let mut took = Vec::new();
    for user in &due {
        let began = clock.monotonic();
        store.begin_look(&user.id, clock.now()).await.unwrap();
        took.push(clock.monotonic() - began);
    }
    tell("claim one of them, with all that is known", 1, median(took));
    store.close().await;
}
