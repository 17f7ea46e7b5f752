//! Promises that hold for any input. Each target takes arbitrary bytes, and panics if a promise is broken.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use okta_auth0_sync::auth0::{AccountQuery, AccountRecord, Auth0, Fields, SearchPage};
use okta_auth0_sync::config::{Config, Environment};
use okta_auth0_sync::domain::account::Identifier;
use okta_auth0_sync::domain::address::spellings;
use okta_auth0_sync::domain::mark::{Difference, Known, MarkOptions, Reason, Write, deny, removal};
use okta_auth0_sync::domain::{AccountId, Address, Clock, ManualClock, OktaUserId};
use okta_auth0_sync::http::pacing::{Pacer, Priority, Shares};
use okta_auth0_sync::http::{Bucket, Failure, headers};
use okta_auth0_sync::okta::{LogEntry, LogFilter, LogPosition, UserQuery};
use okta_auth0_sync::store::{Binding, Page, QuarantinedEvent, Store};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::remote::{METADATA_KEY, Remote, SECRET, assert_tellable};

/// A target and the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const ALL: [Target; 7] = [
    ("log_page", log_page),
    ("position", position),
    ("users", users),
    ("accounts", accounts),
    ("addresses", addresses),
    ("pacing", pacing),
    ("configuration", configuration),
];

thread_local! {
    static REMOTE: Remote = Remote::new();
    static STATE: RefCell<Option<(Store, tempfile::TempDir)>> = const { RefCell::new(None) };
}

fn anybody() -> OktaUserId {
    OktaUserId::parse("00u1abcdefGHIJKLM0x7").unwrap()
}

/// A response to a poll of the log: the store can record every readable page, and the next poll goes to the log.
pub fn log_page(answer: &[u8]) {
    REMOTE.with(|remote| {
        remote.answers(answer);
        let since = LogPosition::Since("2026-01-01T00:00:00Z".parse().unwrap());
        remote.runtime.block_on(async {
            let page = match remote.okta.log_page(&since, &LogFilter::default(), 1000).await {
                Ok(page) => page,
                Err(failure) => return assert_tellable(&failure),
            };
            let (mut events, mut quarantined) = (Vec::new(), Vec::new());
            for (at, entry) in page.entries.iter().enumerate() {
                match entry {
                    LogEntry::Event(event) => {
                        assert!(!event.id.is_empty() && !event.event_type.is_empty());
                        assert!(event.users.iter().all(|user| OktaUserId::parse(user.id.as_str()).is_some()));
                        events.push(event.clone());
                    }
                    LogEntry::Unreadable { event_id, event_type, published, raw, why } => {
                        assert!(!raw.contains(SECRET) && !why.contains(SECRET), "{entry:?}");
                        assert!(!why.is_empty() && raw.len() <= 64 << 10);
                        quarantined.push(QuarantinedEvent {
                            event_id: event_id.clone().unwrap_or_else(|| format!("{at}:{raw}")),
                            event_type: event_type.clone(),
                            published: *published,
                            raw: raw.clone(),
                            why: why.clone(),
                        });
                    }
                }
            }
            let (store, folder) = match STATE.take() {
                Some(state) => state,
                None => empty_state().await,
            };
            let now = "2026-01-01T00:00:00Z".parse().unwrap();
            let expected_seq = store.checkpoint().await.unwrap().map_or(0, |checkpoint| checkpoint.seq);
            let page_of = Page {
                expected_seq,
                events: &events,
                quarantined: &quarantined,
                next: page.next.as_deref(),
                fingerprint: "fuzz",
                anchor_at: page.server_time.unwrap_or(now),
                creation_matters: false,
                is_good: true,
            };
            let recorded = store.record_page(page_of.clone(), now).await.unwrap();
            assert_eq!(recorded.seq, expected_seq + 1);
            let again = store.record_page(Page { expected_seq: recorded.seq, ..page_of }, now).await.unwrap();
            assert_eq!((again.new_events, again.new_quarantined), (0, 0), "known events are recognized");
            STATE.set(Some((store, folder)));
            if let Some(next) = page.next {
                let _ = remote.okta.log_page(&LogPosition::Next(next), &LogFilter::default(), 1000).await;
            }
        });
        assert!(remote.asked().iter().all(|asked| asked.line().starts_with("GET /api/v1/logs?")));
    });
}

async fn empty_state() -> (Store, tempfile::TempDir) {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let binding = Binding {
        okta_url: "https://okta.test".to_owned(),
        auth0_url: "https://auth0.test".to_owned(),
        auth0_audience: "https://auth0.test/api/v2/".to_owned(),
        enforce: true,
        policy: "fuzz".to_owned(),
        former_keys: Vec::new(),
    };
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let (store, _) = Store::open(&folder.path().join("state.db"), &binding, now).await.unwrap();
    (store, folder)
}

/// A stored cursor: the client requests only the log.
pub fn position(text: &[u8]) {
    let text = String::from_utf8_lossy(text).into_owned();
    REMOTE.with(|remote| {
        remote.answers(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[]");
        match remote.runtime.block_on(remote.okta.log_page(&LogPosition::Next(text), &LogFilter::default(), 1000)) {
            Ok(page) => assert!(page.entries.is_empty()),
            Err(failure) => assert_tellable(&failure),
        }
        assert!(remote.asked().iter().all(|asked| asked.line().starts_with("GET /api/v1/logs?")));
    });
}

/// A response of Okta about one user or several: no user is mistaken for another.
pub fn users(answer: &[u8]) {
    REMOTE.with(|remote| {
        remote.answers(answer);
        remote.runtime.block_on(async {
            match remote.okta.user(&anybody()).await {
                Ok(user) => assert!(user.is_none_or(|user| user.id == anybody())),
                Err(failure) => assert_tellable(&failure),
            }
            let query = UserQuery::Ids(vec![anybody()]);
            match remote.okta.list(&query, None, 200).await {
                Ok(page) => {
                    if let Some(next) = page.next {
                        let _ = remote.okta.list(&query, Some(&next), 200).await;
                    }
                }
                Err(failure) => assert_tellable(&failure),
            }
            let address = Address::parse("ada@example.com").unwrap();
            if let Err(failure) = remote.okta.holders(&[address]).await {
                assert_tellable(&failure);
            }
        });
        assert!(remote.asked().iter().all(|asked| asked.line().starts_with("GET /api/v1/users")));
    });
}

/// A response of Auth0 about accounts: the PATCH after it changes our keys only, and keeps all others.
pub fn accounts(answer: &[u8]) {
    REMOTE.with(|remote| {
        remote.answers(answer);
        remote.runtime.block_on(async {
            let id = AccountId::new("auth0|5f7c8ec7c33c6c004bbafe82");
            match remote.auth0.account(&id, Fields::All).await {
                Ok(record) => {
                    if let Some(record) = record {
                        assert_eq!(record.account.id, id);
                        written(remote, &record, answer).await;
                    }
                }
                Err(failure) => assert_tellable(&failure),
            }
            let address = Address::parse("ada@example.com").unwrap();
            for records in [
                remote.auth0.accounts_by_email(address.as_str(), Fields::All).await,
                search(&remote.auth0, &[address]).await.map(|page| page.accounts),
            ] {
                if let Err(failure) = records {
                    assert_tellable(&failure);
                }
            }
        });
    });
}

async fn written(remote: &Remote, record: &AccountRecord, answer: &[u8]) {
    let body = String::from_utf8_lossy(answer);
    let there: Value =
        body.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok()).unwrap_or_default();
    let reason = Reason {
        okta_user_id: anybody(),
        okta_org: None,
        status: "DEPROVISIONED".to_owned(),
        at: "2026-01-01T00:00:00.000Z".to_owned(),
        event_id: None,
    };
    let options = MarkOptions { mirror: true, block: true };
    remote.answers(answer);
    if let Difference::Patch(patch) = deny(&record.account, &reason, options, Known::default()) {
        let _ = remote.auth0.write(record, &Write::Mark(patch), &anybody()).await;
    }
    if let Some(removal) = removal(&record.account, Known { denied: true, blocked: true }, None) {
        let _ = remote.auth0.remove_mark(record, &removal).await;
    }
    for asked in remote.asked() {
        assert!(asked.line().starts_with("PATCH /api/v2/users/auth0%7C"), "{}", asked.line());
        // Other keys are sent back verbatim, such as numbers that exceed every type.
        let Ok(sent) = serde_json::from_str::<Value>(&asked.body) else {
            assert!(there.is_null(), "{}", asked.body);
            continue;
        };
        let sent = sent.as_object().unwrap();
        assert!(
            sent.keys().all(|key| ["app_metadata", "user_metadata", "blocked"].contains(&key.as_str())),
            "{sent:?}"
        );
        assert!(only_key(&sent["app_metadata"]) == Some(METADATA_KEY), "{sent:?}");
        let Some(ours) = sent.get("user_metadata") else { continue };
        assert_eq!(only_key(ours), Some("okta"), "{sent:?}");
        // This test does not parse chunked responses.
        let Some(beside) = there["user_metadata"]["okta"].as_object() else { continue };
        for (key, value) in beside.iter().filter(|(key, _)| *key != "deactivated") {
            assert_eq!(ours["okta"].get(key), Some(value), "another key was changed");
        }
    }
}

fn only_key(object: &Value) -> Option<&str> {
    let mut keys = object.as_object()?.keys();
    keys.next().filter(|_| keys.next().is_none()).map(String::as_str)
}

/// Addresses, one per line: a search asks for exactly these, whatever their characters mean in the query language.
pub fn addresses(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let addresses: Vec<Address> = text.lines().filter_map(Address::parse).take(20).collect();
    if addresses.is_empty() {
        return;
    }
    let wanted: Vec<&str> = addresses.iter().map(Address::as_str).collect();
    REMOTE.with(|remote| {
        remote.answers(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[]");
        remote.runtime.block_on(async {
            remote.okta.holders(&addresses).await.unwrap();
            search(&remote.auth0, &addresses).await.unwrap_err();
            remote.auth0.accounts_by_email(wanted[0], Fields::All).await.unwrap();
        });
        let asked = remote.asked();
        let parameter = |at: usize, name: &str| {
            let url = url::Url::parse(&format!("http://x{}", asked[at].line().split_once(' ').unwrap().1)).unwrap();
            let values: Vec<String> =
                url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).collect();
            assert_eq!(values.len(), 1, "{}", asked[at].line());
            values.into_iter().next().unwrap()
        };
        let (okta_terms, okta_texts) = literals(&parameter(0, "search"));
        assert_eq!(okta_terms, vec!["profile.email eq  or profile.login eq "; wanted.len()].join(" or "));
        assert_eq!(okta_texts, wanted.iter().flat_map(|text| [*text, *text]).collect::<Vec<_>>());
        let (auth0_terms, auth0_texts) = literals(&parameter(1, "q"));
        let fields = |address: &Address| {
            let linked = spellings(std::slice::from_ref(address)).into_iter();
            let linked = linked.map(|spelling| ("identities.profileData.email:", spelling));
            std::iter::once(("email:", address.as_str().to_owned())).chain(linked).collect::<Vec<_>>()
        };
        let (fields, texts): (Vec<&str>, Vec<String>) = addresses.iter().flat_map(fields).unzip();
        assert_eq!(auth0_terms, fields.join(" OR "));
        assert_eq!(auth0_texts, texts);
        assert_eq!(parameter(2, "email"), wanted[0]);
    });
}

/// Splits an expression into its text outside quotes and the quoted strings. In both query languages a backslash escapes
/// the next character; the JSON escapes of one of them do not occur in addresses.
fn literals(expression: &str) -> (String, Vec<String>) {
    let (mut rest, mut texts) = (String::new(), Vec::new());
    let mut chars = expression.chars();
    while let Some(c) = chars.next() {
        if c != '"' {
            rest.push(c);
            continue;
        }
        let mut text = String::new();
        loop {
            match chars.next().expect("a text that ends") {
                '"' => break,
                '\\' => text.push(chars.next().expect("an escaped character")),
                c => text.push(c),
            }
        }
        texts.push(text);
    }
    (rest, texts)
}

/// At most eight responses, one per line (`status name: value; name: value`), one second apart: no wait exceeds its bound,
/// and calls continue after it.
pub fn pacing(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let clock = ManualClock::stepping("2026-01-01T00:00:00Z".parse().unwrap());
    let shares = Shares { ours: 0.8, reconcile: 0.5 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (pacer, bucket) in [(Pacer::okta(shares), Bucket::OktaLog), (Pacer::auth0(shares), Bucket::Auth0Read)] {
        for line in text.lines().take(8) {
            let (status, headers) = line.split_once(' ').unwrap_or((line, ""));
            let status = status.parse().ok().and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::OK);
            let headers: HeaderMap = headers
                .split(';')
                .filter_map(|header| header.split_once(':'))
                .filter_map(|(name, value)| {
                    Some((name.trim().parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?))
                })
                .collect();
            assert!(
                headers::retry_after(&headers, clock.now()).is_none_or(|span| span <= headers::RETRY_AFTER_MAX),
                "{line}"
            );
            pacer.start_request(bucket, &clock).record_response(status, &headers, &clock);
            let began = clock.monotonic();
            let waits = || {
                let waited = clock.monotonic() - began;
                assert!(waited <= Duration::from_secs(2 * 3600), "waited {waited:?} after {line}");
            };
            drop(runtime.block_on(pacer.acquire_with_heartbeat(bucket, Priority::Live, &clock, waits)));
            clock.advance(Duration::from_secs(1));
        }
    }
}

/// A configuration file: it is valid, or every error message is printable.
pub fn configuration(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let environment: Environment = std::iter::empty::<(String, std::ffi::OsString)>().collect();
    match Config::from_toml_str(text, Path::new("/etc/okta-auth0-sync"), &environment) {
        Ok(config) => assert!(!format!("{config:?}").contains(SECRET)),
        Err(error) => {
            let detail = error.to_string();
            assert!(!detail.chars().any(|c| c.is_control() && c != '\n'), "not printable: {detail:?}");
        }
    }
}

async fn search(auth0: &Auth0, addresses: &[Address]) -> Result<SearchPage, Failure> {
    let identifiers: Vec<Identifier> = addresses.iter().cloned().map(Identifier::Address).collect();
    let query = AccountQuery::Identities { identifiers: &identifiers, connections: &[] };
    auth0.search(&query, 0, Fields::All).await
}
