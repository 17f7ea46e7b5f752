//! Secrets never show: not at trace level, not on any error path, not in `Debug` output, not in the state; neither as they
//! are nor reversed, in hexadecimal, in base64 or percent-encoded.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use okta_auth0_sync::config::Config;
use okta_auth0_sync_sandbox::{Auth0Options, Bucket, Effect, Fault, Limits, OktaOptions, PathMatch, RateLimited};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Harness, Ran};

/// Percent-encoding and the two base64 alphabets write these characters differently.
const OKTA: &str = "00Canary/okta+7f3e~91?c4&d8=Zq";
const AUTH0: &str = "Canary/auth0+5b2a~60?e7&f1=Xw>>";
const ACCESS: &str = "Canary.access+3d9c~28?a5&b6=Vk";
const SECRETS: [&str; 3] = [OKTA, AUTH0, ACCESS];

const LOUDEST: &str = "[log]\nfilter = \"trace\"\n";

/// Every form in which a secret could appear.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), secret.chars().rev().collect()];
    let percent = |keeps: &dyn Fn(u8) -> bool| {
        let encode = |byte: u8| if keeps(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        secret.bytes().map(encode).collect::<String>()
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    forms.push(percent(&plain));
    forms.push(percent(&|byte| plain(byte) || byte == b'~'));
    forms.push(percent(&plain).to_lowercase());
    forms.push(secret.bytes().map(|byte| format!("{byte:02x}")).collect());
    // Inside a longer text the base64 form depends on the offset: all three, without what the neighbors decide.
    for before in 0..3 {
        let bytes = [&b"xxx"[..before], secret.as_bytes()].concat();
        let whole = bytes.len() / 3 * 3;
        for text in [STANDARD_NO_PAD.encode(&bytes[..whole]), URL_SAFE_NO_PAD.encode(&bytes[..whole])] {
            forms.push(text[if before == 0 { 0 } else { 4 }..].to_owned());
        }
    }
    forms
}

/// The first form of a secret that `bytes` contain.
fn leak(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    SECRETS.iter().flat_map(|secret| forms(secret)).find(|form| text.contains(form.as_str()))
}

#[track_caller]
fn silent(what: &str, text: &str) {
    if let Some(form) = leak(text.as_bytes()) {
        let at = text.lines().find(|line| line.contains(&form)).unwrap_or_default();
        panic!("{what}: gives a secret away as {form}:\n{at}");
    }
}

/// Checks all files in the folder, except those that give the secrets to the program.
fn left_silent(what: &str, folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let given = ["config.toml", "credentials"].iter().any(|name| path.ends_with(name));
        if path.is_file() && !given {
            assert!(leak(&fs::read(&path).unwrap()).is_none(), "{what}: {} gives a secret away", path.display());
        }
    }
}

fn all_silent(what: &str, harness: &Harness, ran: &Ran) {
    silent(what, &ran.all());
    left_silent(what, harness.folder());
}

async fn harness() -> Harness {
    let okta = OktaOptions { api_token: OKTA.to_owned(), ..OktaOptions::default() };
    let auth0 = Auth0Options { client_secret: AUTH0.to_owned(), ..Auth0Options::default() };
    let harness = Harness::with(okta, auth0).await;
    // The limits of real tenants, so that a 429 looks real.
    harness.sandbox.okta().set_limits(Limits::default());
    harness.sandbox.auth0().set_bucket(Bucket::default());
    harness.configure(LOUDEST);
    let (ann, _) = harness.user("ann");
    harness.sandbox.okta().deactivate(&ann);
    harness
}

#[test]
fn canary_scanner_finds_planted_secrets() {
    for secret in SECRETS {
        let form = |text: String| assert!(leak(text.as_bytes()).is_some(), "{text}");
        form(format!("authorization: SSWS {secret}"));
        form(format!("{secret:?}"));
        form(url::form_urlencoded::Serializer::new(String::new()).append_pair("client_secret", secret).finish());
        for before in ["", "a", "ab", "abc", "client:"] {
            for after in ["", "z", "zz"] {
                form(STANDARD_NO_PAD.encode(format!("{before}{secret}{after}")));
                form(URL_SAFE_NO_PAD.encode(format!("{before}{secret}{after}")));
            }
        }
    }
    assert!(leak(b"nothing to see, 00Canary").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_level_pass_shows_no_secret() {
    let harness = harness().await;
    let ran = harness.sync().await;
    assert!(ran.err.contains("TRACE") && ran.err.contains("hyper"), "not at trace level: {}", ran.err.len());
    all_silent("sync", &harness, &ran);
    for arguments in
        [&["sync", "--dry-run"][..], &["reconcile"], &["check", "--offline"], &["check", "--offline", "--json"]]
    {
        all_silent(&arguments.join(" "), &harness, &harness.run(arguments).await);
    }

    let (bob, account) = harness.user("bob");
    harness.sandbox.okta().deactivate(&bob);
    let auth0 = harness.sandbox.auth0();
    let mut daemon = harness.daemon();
    daemon.until("a denial", auth0.journal().wait_for(|_| !auth0.login(&account).is_granted())).await;
    daemon.stop().await;
    assert!(fs::read_to_string(harness.folder().join("daemon.log")).unwrap().contains("TRACE"));
    left_silent("run", harness.folder());
}

/// What fails, and where.
fn failures() -> Vec<(&'static str, bool, Fault)> {
    const LOGS: &str = "/api/v1/logs";
    const USERS: &str = "/api/v1/users";
    const TOKEN: &str = "/oauth/token";
    const PATCH: &str = "/api/v2/users";
    let (okta, auth0) = (true, false);
    let says = |code: u16, body: Value| Effect::Status { code, body, headers: Vec::new() };
    let mut failures = Vec::new();
    for (name, effect) in [
        ("400", says(400, json!({}))),
        ("401", says(401, json!({ "errorCode": "E0000011", "error": "Unauthorized" }))),
        ("403", says(403, json!({ "errorCode": "E0000006", "errorCode2": "insufficient_scope" }))),
        ("413", says(413, Value::Null)),
        ("429", Effect::RateLimited(RateLimited::Plain)),
        ("500", says(500, json!({}))),
        ("dropped", Effect::Drop),
        ("cut", Effect::CutBody),
        ("garbage", Effect::ReplaceBody(b"<html>".to_vec())),
    ] {
        for (side, method, path) in [
            (okta, "GET", LOGS),
            (okta, "GET", USERS),
            (auth0, "POST", TOKEN),
            (auth0, "GET", PATCH),
            (auth0, "PATCH", PATCH),
        ] {
            let fault = Fault::new(method, path, effect.clone());
            // A pass waits for a rate limit and for a broken connection, so these must end.
            let fault = if matches!(effect, Effect::RateLimited(_) | Effect::Drop) { fault.times(1) } else { fault };
            failures.push((name, side, fault));
        }
    }
    // An unknown access token: refused everywhere, and fetched again in vain.
    let token = json!({ "access_token": ACCESS, "expires_in": 86_400, "token_type": "Bearer", "scope": "read:users" });
    failures.push(("an access token", auth0, Fault::new("POST", TOKEN, says(200, token))));
    // Unreadable token responses contain a secret all the same.
    for (name, body) in [
        ("a bare token", json!(ACCESS)),
        ("a token in a list", json!([ACCESS])),
        ("a token and nonsense", json!({ "access_token": ACCESS, "expires_in": "soon" })),
        ("a token in the wrong place", json!({ "access_token": 1, "expires_in": ACCESS })),
        ("a token as a type", json!({ "access_token": ACCESS, "token_type": { "is": ACCESS } })),
    ] {
        failures.push((name, auth0, Fault::new("POST", TOKEN, says(200, body))));
    }
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_level_errors_show_no_secret() {
    let mut runs = JoinSet::new();
    let mut leaks = Vec::new();
    for (name, by_okta, fault) in failures() {
        // Some of them wait, so run many at the same time.
        while runs.len() >= 16 {
            leaks.extend(runs.join_next().await.unwrap().unwrap());
        }
        runs.spawn(async move {
            let harness = harness().await;
            let what = format!("{name} at {:?} {:?}", fault.method, fault.path);
            let faults = if by_okta { harness.sandbox.okta().faults() } else { harness.sandbox.auth0().faults() };
            faults.add(fault);
            let ran = harness.run(&["sync"]).await;
            assert!(ran.err.contains("TRACE"), "{what}");
            let searched = std::panic::AssertUnwindSafe(|| all_silent(&what, &harness, &ran));
            std::panic::catch_unwind(searched).err().map(|_| what)
        });
    }
    while let Some(ended) = runs.join_next().await {
        leaks.extend(ended.unwrap());
    }
    assert!(leaks.is_empty(), "{} error paths give a secret away: {leaks:#?}", leaks.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_level_unreachable_shows_no_secret() {
    let mut runs = JoinSet::new();
    for (section, url) in
        [("OKTA", "https://no-such.invalid"), ("AUTH0", "http://127.0.0.1:1"), ("OKTA", "http://127.0.0.1:1")]
    {
        runs.spawn(async move {
            let harness = harness().await;
            let mut command = harness.program(&["sync"]);
            command.env(format!("OKTA_AUTH0_SYNC__{section}__URL"), url);
            let ran = crate::harness::finish(command).await;
            assert!(ran.exits(1).err.contains("TRACE"));
            all_silent(url, &harness, &ran);
        });
    }
    runs.join_all().await;
}

/// Configurations with a mistake exactly where a secret is.
#[tokio::test(flavor = "multi_thread")]
async fn config_errors_quote_no_secret() {
    let harness = harness().await;
    let sound = fs::read_to_string(harness.folder().join("config.toml")).unwrap();
    let token = format!("api_token = \"{OKTA}\"");
    let secret = format!("client_secret = \"{AUTH0}\"");
    for (from, to) in [
        (&token, format!("api_token = \"{OKTA}")),
        (&token, format!("api_token = {OKTA}")),
        (&token, format!("api_token = \"{OKTA}\" \"more\"")),
        (&token, format!("api_token = [\"{OKTA}\"]")),
        (&token, format!("api_token = {{ value = \"{OKTA}\" }}")),
        (&token, format!("api_tokn = \"{OKTA}\"")),
        (&token, format!("api_token = \"{OKTA}\"\napi_token = \"{OKTA}\"")),
        (&token, format!("api_token = \"{OKTA}\"\napi_token_file = \"token\"")),
        (&token, format!("api_token = \"{OKTA}\\n{OKTA}\"")),
        (&token, format!("api_token = \"{OKTA}é\"")),
        (&token, format!("api_token_file = \"{OKTA}\"\ninitial_lookback = 7")),
        (&secret, format!("client_secret = \"{AUTH0}\\q\"")),
        (&secret, format!("client_secret = '{AUTH0}")),
        (&secret, format!("client_secret = 1 # {AUTH0}")),
        (&secret, format!("client_secret = \"{AUTH0}\"\nprivate_key = \"{AUTH0}\"")),
        (&secret, format!("private_key = \"{AUTH0}\"")),
    ] {
        assert!(sound.contains(from.as_str()), "{from}");
        fs::write(harness.folder().join("config.toml"), sound.replacen(from.as_str(), &to, 1)).unwrap();
        fs::set_permissions(harness.folder().join("config.toml"), fs::Permissions::from_mode(0o600)).unwrap();
        for arguments in [&["sync"][..], &["check", "--offline"], &["check", "--offline", "--json"]] {
            let ran = harness.run(arguments).await;
            // A file name is public, and the operator must learn which file is missing.
            if !to.contains("_file = \"00Canary") {
                all_silent(&format!("{to} by {arguments:?}"), &harness, &ran);
            }
            assert_ne!(ran.code, Some(0), "{to}: {}", ran.all());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_output_shows_no_secret() {
    let harness = harness().await;
    let text = harness.sandbox.config_toml();
    let environment = okta_auth0_sync::config::Environment::of_process();
    let config = Config::from_toml_str(&text, harness.folder(), &environment).unwrap();
    assert!(text.contains(OKTA) && text.contains(AUTH0));
    for text in [format!("{config:?}"), format!("{config:#?}"), format!("{:?}", config.secrets())] {
        silent("the configuration", &text);
    }
    let wrong = text.replacen("api_token", "api_tokn", 1);
    let error = Config::from_toml_str(&wrong, harness.folder(), &environment).unwrap_err();
    silent("its errors", &format!("{error} {error:?} {error:#?}"));
    silent("the tenants", &format!("{:?} {:?}", harness.sandbox.okta().journal(), harness.sandbox.auth0().journal()));
}

/// A text that repeats a secret as it was sent, percent-encoded and in base64.
fn echo(sent: &str) -> String {
    let form: String = url::form_urlencoded::byte_serialize(sent.as_bytes()).collect();
    let base64 = (STANDARD_NO_PAD.encode(sent), URL_SAFE_NO_PAD.encode(sent));
    format!("you sent '{sent}', that is {form}, or {} and {}; sorry", base64.0, base64.1)
}

/// A remote that echoes our secrets: the program neither shows nor stores them.
#[tokio::test(flavor = "multi_thread")]
async fn echoed_secrets_are_redacted() {
    let says = |code: u16, body: Value| Effect::Status { code, body, headers: Vec::new() };
    let ssws = echo(&format!("SSWS {OKTA}"));
    let bearer = echo(&format!("Bearer {ACCESS}"));
    let okta_says =
        |code: &str| json!({ "errorCode": code, "errorSummary": ssws, "errorCauses": [{ "errorSummary": ssws }] });
    let auth0_says =
        |status: u16, code: &str| json!({ "statusCode": status, "error": code, "message": bearer, "errorCode": code });
    let secret = json!({ "error": "access_denied", "error_description": echo(AUTH0) });
    let (logs, users, token, accounts) = ("/api/v1/logs", "/api/v1/users", "/oauth/token", "/api/v2/users");
    for (by_okta, fault) in [
        (true, Fault::new("GET", logs, says(401, okta_says("E0000011")))),
        (true, Fault::new("GET", logs, says(403, okta_says("E0000006")))),
        (true, Fault::new("GET", logs, says(400, okta_says("E0000001")))),
        (true, Fault::new("GET", users, says(401, okta_says("E0000011")))),
        (true, Fault::new("GET", users, says(403, okta_says("E0000006")))),
        (false, Fault::new("POST", token, says(401, secret.clone()))),
        (false, Fault::new("POST", token, says(403, secret))),
        (false, Fault::new("GET", accounts, says(400, auth0_says(400, "invalid_query_string")))),
        (false, Fault::new("GET", accounts, says(403, auth0_says(403, "insufficient_scope")))),
        (false, Fault::new("PATCH", accounts, says(400, auth0_says(400, "invalid_body")))),
        (false, Fault::new("PATCH", accounts, says(403, auth0_says(403, "insufficient_scope")))),
    ] {
        let what = format!("an echo at {:?} {:?} {:?}", fault.method, fault.path, fault.effect);
        let harness = harness().await;
        let (okta, auth0) = (harness.sandbox.okta(), harness.sandbox.auth0());
        // The token that `Bearer` echoes must be known here. The tenant does not know it and issues another.
        if !by_okta && fault.path != PathMatch::Prefix(token.to_owned()) {
            let body =
                json!({ "access_token": ACCESS, "expires_in": 86_400, "token_type": "Bearer", "scope": "read:users" });
            auth0.faults().add(Fault::new("POST", token, says(200, body)).times(1));
            if fault.method.as_deref() == Some("PATCH") {
                let found: Vec<Value> = auth0.users();
                auth0.faults().add(Fault::new("GET", accounts, says(200, json!(found))).times(2));
            }
        }
        let faults = if by_okta { okta.faults() } else { auth0.faults() };
        // A refused mark is written smaller, and last as `blocked` alone.
        let times = if fault.method.as_deref() == Some("PATCH") { 4 } else { 2 };
        faults.add(fault.times(times));
        let ran = harness.run(&["sync"]).await;
        assert!(ran.all().contains("[redacted]"), "{what}: the echo was redacted\n{}", ran.out);
        all_silent(&what, &harness, &ran);
    }
}

/// An unreadable event is stored as it came, but without our credentials.
#[tokio::test(flavor = "multi_thread")]
async fn quarantined_event_hides_echoed_credential() {
    let harness = harness().await;
    harness.sandbox.okta().push_log_entry(json!({
        "uuid": "an-echo",
        "eventType": "user.lifecycle.deactivate",
        "published": "yesterday",
        "displayMessage": echo(&format!("SSWS {OKTA}")),
        "target": [{ "type": "User", "id": echo(OKTA) }],
    }));
    let ran = harness.run(&["sync"]).await;
    all_silent("sync", &harness, &ran);
    let events = harness.run(&["events", "--json", "--state", "quarantined"]).await;
    assert!(events.exits(0).out.contains("an-echo"), "it is stored: {}", events.out);
    all_silent("events", &harness, &events);
    let database = fs::read(harness.state()).unwrap();
    let wal = fs::read(harness.folder().join("state.db-wal")).unwrap_or_default();
    let kept = [database, wal].concat();
    assert!(String::from_utf8_lossy(&kept).contains("[redacted]"), "the stored text contained the echo");
}

/// Everyone who can list processes sees their command lines.
#[tokio::test(flavor = "multi_thread")]
async fn daemon_command_line_holds_no_secret() {
    let harness = harness().await;
    let okta = harness.sandbox.okta();
    let mut daemon = harness.daemon();
    daemon.until("its first request", okta.journal().wait_for(|requests| !requests.is_empty())).await;
    let process = Path::new("/proc").join(daemon.id().to_string());
    for file in ["cmdline", "environ", "comm"] {
        let bytes = fs::read(process.join(file)).unwrap();
        assert!(file == "environ" || !bytes.is_empty(), "{file}");
        assert!(leak(&bytes).is_none(), "{file} gives a secret away");
    }
    daemon.stop().await;
}
