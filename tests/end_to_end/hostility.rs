//! Hostile text in names, addresses and events harms neither the program, nor the terminal that shows it, nor other
//! accounts.

use okta_auth0_sync_sandbox::NewUser;
use serde_json::{Value, json};

use crate::harness::{Harness, Ran};

/// Values for names and addresses.
const HOSTILE: [&str; 16] = [
    "crlf\r\nX-Injected: 1@example.com",
    "escaped%0d%0aX-Injected:%201@example.com",
    "title\u{1b}]0;owned\u{7}@example.com",
    "clear\u{1b}[2J\u{9b}2J@example.com",
    "backwards\u{202e}moc.elpmaxe@example.com",
    "'; DROP TABLE users; --@example.com",
    "\" OR 1=1 --@example.com",
    "*@example.com",
    "a\" OR email:\"victim@example.com",
    "email:* OR x@example.com",
    "vic?im@example.com",
    "../../api/v2/users/x@example.com",
    "a&per_page=0&q=*@example.com",
    "a#fragment@example.com",
    "null\u{0}byte@example.com",
    "{\"$ne\":null}@example.com",
];

/// Checks that the text has no control characters except line ends and tabs.
#[track_caller]
fn is_plain(what: &str, text: &str) {
    let bad = text.chars().find(|c| (c.is_control() && !matches!(c, '\n' | '\t')) || *c == '\u{202e}');
    assert_eq!(bad, None, "{what}: {text:?}");
}

async fn asked(harness: &Harness, arguments: &[&str], format: &str) -> Ran {
    let mut command = harness.program(arguments);
    command.env("OKTA_AUTH0_SYNC__LOG__FORMAT", format).env("OKTA_AUTH0_SYNC__LOG__FILTER", "debug");
    crate::harness::finish(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_profile_fields_do_nothing() {
    let harness = Harness::start().await;
    let (victim, open) = harness.user("victim");
    let mut theirs = Vec::new();
    for text in HOSTILE {
        let id = harness.sandbox.okta().create_user(&NewUser::new(text, text));
        theirs.push(harness.sandbox.auth0().create_user(json!({ "email": text, "name": text, "nickname": text })));
        harness.sandbox.okta().deactivate(&id);
    }
    for format in ["text", "json"] {
        for arguments in [
            &["sync"][..],
            &["reconcile", "--all"],
            &["status"],
            &["events"],
            &["events", "--json"],
            &["status", "--json"],
            &["user", HOSTILE[2]],
            &["user", HOSTILE[5], "--json"],
            &["user", HOSTILE[8]],
            &["user", HOSTILE[0], "--live"],
            &["audit", "export", "--format", "jsonl"],
            &["audit", "verify"],
        ] {
            let ran = asked(&harness, arguments, format).await;
            assert!(matches!(ran.code, Some(0 | 1)), "{arguments:?}: {}", ran.all());
            is_plain(&format!("{arguments:?} as {format}"), &ran.all());
        }
    }
    // The victim's address only appears in another user's query.
    assert_eq!(harness.sandbox.okta().user(&victim).unwrap()["status"], "ACTIVE");
    assert!(!harness.shut_out().contains(&open));
    for account in harness.shut_out() {
        assert!(theirs.contains(&account), "{account} does not belong to a user who left");
    }
    let odd = HOSTILE.iter().filter(|text| !text.contains(|c: char| c.is_whitespace() || c.is_control())).count();
    assert_eq!(harness.shut_out().len(), odd, "an odd address counts, an address with spaces does not");
    for request in harness.sandbox.auth0().journal().requests() {
        let known = ["/api/v2/users", "/api/v2/users-by-email", "/oauth/token", "/api/v2/actions/"];
        assert!(known.iter().any(|path| request.path.starts_with(path)), "{request:?}");
        assert!(!request.path.contains("..") && !request.query.contains('#'), "{request:?}");
        if let Some(account) = request.path.strip_prefix("/api/v2/users/").filter(|_| request.method == "PATCH") {
            assert!(theirs.contains(&account.replace("%7C", "|")), "{request:?}");
        }
    }
}

fn deep(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, _| json!([inner]))
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_events_do_not_block_later_users() {
    let harness = Harness::start().await;
    let okta = harness.sandbox.okta();
    let entry = |uuid: &str, login: &str, more: Value| {
        json!({ "uuid": uuid, "published": "2026-11-23T10:00:00.000Z", "eventType": "user.lifecycle.deactivate",
                "outcome": { "result": "SUCCESS" }, "debugContext": more,
                "target": [{ "id": "00uNobodyOfThisName1", "type": "User", "alternateId": login }] })
    };
    okta.push_log_entry(entry("deep", "deep@example.com", deep(1000)));
    okta.push_log_entry(entry("long", &format!("{}@example.com", "x".repeat(10 << 20)), Value::Null));
    okta.push_log_entry(json!({ "uuid": "y".repeat(1 << 20), "published": "z".repeat(1 << 20), "target": deep(500),
                                "eventType": "user.lifecycle.deactivate" }));
    let (behind, account) = harness.user("behind");
    okta.deactivate(&behind);
    let ran = harness.run(&["sync"]).await;
    assert!(matches!(ran.code, Some(0 | 1)), "{}", ran.all());
    assert_eq!(harness.shut_out(), [account].into(), "{}", ran.all());
    assert!(ran.all().len() < 1 << 20, "too much output: {} bytes", ran.all().len());
    let size = std::fs::metadata(harness.state()).unwrap().len();
    assert!(size < 8 << 20, "the state is too large: {size} bytes");
    for arguments in [&["status"][..], &["events"], &["events", "--json"], &["audit", "verify"]] {
        let ran = harness.run(arguments).await;
        assert!(
            ran.code == Some(0) && ran.all().len() < 1 << 20,
            "{arguments:?}: {:?}, {} bytes",
            ran.code,
            ran.all().len()
        );
    }
}
