//! The cost of the parts that grow with the log: `cargo bench --bench micro [pages]`. Medians, on the disk under `target/`.
//!
//! Decodes a page of the log, stores it with all users new or all known, and claims due users. With more pages (1,000 by
//! default: a million events) the last ones have a longer history behind them. Runs twice: with the log in Okta's order,
//! and with the most expensive order.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, reason = "the result")]

use std::time::Duration;

use okta_auth0_sync::auth0::ACTION_SOURCE;
use okta_auth0_sync::domain::event::EventUser;
use okta_auth0_sync::domain::{Clock, Event, OktaUserId, SystemClock};
use okta_auth0_sync::okta::LogEntry;
use okta_auth0_sync::store::{Binding, Page, Store};
use okta_auth0_sync_sandbox::{Options, Population, Sandbox};
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

/// A page of the sandbox's log.
async fn page_text() -> String {
    let sandbox = Sandbox::start(Options::default(), ACTION_SOURCE).await.unwrap();
    sandbox.populate(Population { users: ENTRIES, leavers: ENTRIES, history: 0 });
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

/// The order of users and ids in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    /// Ids are version 1 UUIDs with the time of publication, like Okta's; users appear in the order of their first event.
    AsItIs,
    /// The same ids; users appear in any order.
    AnyOrder,
    /// Random ids, users in any order: no two events of a page touch the same part of an index.
    Scattered,
}

/// A reproducible pseudo-random number.
fn mixed(number: usize) -> u64 {
    (number as u64)
        .wrapping_add(1)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(31)
        .wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// The page with new event ids, and with users out of `people`. One event a second.
fn renewed(template: &[Event], page: usize, users: usize, log: Log) -> Vec<Event> {
    let of = |(at, event): (usize, &Event)| {
        let number = page * ENTRIES + at;
        let known = number >= users && log != Log::AsItIs;
        let user = if known { usize::try_from(mixed(number) >> 8).unwrap() } else { number } % users;
        let id =
            OktaUserId::parse(&format!("00u{:017}", (user as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 8)).unwrap();
        // 100 ns units since 1582, at the end of 2026, and the sandbox's node id.
        let time = 0x1F1_C000_0000_0000_u64 + number as u64 * 10_000_000;
        let uuid = if log == Log::Scattered {
            uuid::Uuid::new_v4()
        } else {
            let [high, middle] = [(time >> 48) as u16, (time >> 32) as u16];
            uuid::Uuid::from_fields(
                time as u32,
                middle,
                0x1000 | high,
                &[0x84, 0x78, 0x2B, 0x75, 0x84, 0xBF, 0x8D, 0x5A],
            )
        };
        // The order of addresses must not follow the order of users.
        let login = format!("{:x}.person{user}@example.com", mixed(user) & 0xFFFF);
        Event { id: uuid.to_string(), users: vec![EventUser { id, login: Some(login) }], ..event.clone() }
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

    let template = decoded(&text);
    for (log, what) in [
        (Log::AsItIs, "as Okta gives it"),
        (Log::AnyOrder, "people in any order"),
        (Log::Scattered, "people in any order, ids at random"),
    ] {
        println!("The log {what}:");
        take_in(&clock, &template, pages, log).await;
    }
}

fn mean(spans: &[Duration]) -> Duration {
    spans.iter().sum::<Duration>() / u32::try_from(spans.len()).unwrap()
}

async fn take_in(clock: &SystemClock, template: &[Event], pages: usize, log: Log) {
    let folder = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/target")).unwrap();
    let binding = Binding {
        okta_url: "https://acme.okta.com".to_owned(),
        auth0_url: "https://acme.eu.auth0.com".to_owned(),
        auth0_audience: "https://acme.eu.auth0.com/api/v2/".to_owned(),
        enforce: true,
        policy: String::new(),
        former_keys: Vec::new(),
    };
    let (store, _) = Store::open(&folder.path().join("state.db"), &binding, clock.now()).await.unwrap();
    let mut spans = Vec::new();
    for number in 0..pages {
        // The first fifty pages are all about new users, the others about the same fifty thousand.
        let events = renewed(template, number, 50 * ENTRIES, log);
        let began = clock.monotonic();
        let page = Page {
            expected_seq: i64::try_from(number).unwrap(),
            events: &events,
            quarantined: &[],
            next: Some("/api/v1/logs?after=1"),
            fingerprint: "bench",
            anchor_at: clock.now(),
            creation_matters: false,
            is_good: true,
        };
        assert_eq!(store.record_page(page, clock.now()).await.unwrap().new_events, ENTRIES as u64);
        spans.push(clock.monotonic() - began);
    }
    tell("take in a page: all users are new", ENTRIES, median(spans[..50].to_vec()));
    // Some pages include an SQLite checkpoint; the mean includes them.
    tell("the same, mean", ENTRIES, mean(&spans[..50]));
    let later = &spans[50..];
    let tenth = later.len().div_ceil(10);
    tell("take in a page: all users are known, little history", ENTRIES, median(later[..tenth].to_vec()));
    tell(&format!("the same behind {} pages", pages - tenth), ENTRIES, median(later[later.len() - tenth..].to_vec()));
    tell("all pages, mean", ENTRIES, mean(&spans));

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
