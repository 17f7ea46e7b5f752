use secrecy::ExposeSecret;

use super::raw::Raw;
use super::*;
use crate::domain::{Status, Verdict};

const MINIMAL: &str = r#"
[okta]
url = "https://acme.okta.com"
api_token = "t0psecret"
[auth0]
url = "https://acme.eu.auth0.com"
client_id = "client"
client_secret = "two words"
"#;

const SHIPPED: &str = include_str!("../../config.toml");

/// [`MINIMAL`] with `line` added to `table`.
fn with(table: &str, line: &str) -> String {
    let head = format!("[{table}]\n");
    match MINIMAL.split_once(&head) {
        Some((before, after)) => format!("{before}{head}{line}\n{after}"),
        None => format!("{MINIMAL}{head}{line}\n"),
    }
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| (*name, *value)).collect()
}

fn read(text: &str, pairs: &[(&str, &str)]) -> Result<Config, Error> {
    Config::from_toml_str(text, Path::new("/base"), &environment(pairs))
}

fn refusal(text: &str, pairs: &[(&str, &str)]) -> String {
    read(text, pairs).map(|config| panic!("accepted: {config:?}")).unwrap_err().to_string()
}

fn credentials(config: &Config) -> Vec<String> {
    config.secrets().iter().map(|(_, secret)| secret.read().unwrap().expose_secret().to_owned()).collect()
}

#[test]
fn minimal_configuration_has_the_defaults() {
    let config = read(MINIMAL, &[]).unwrap();
    assert_eq!(config.auth0.audience, "https://acme.eu.auth0.com/api/v2/");
    assert_eq!(config.policy, Policy::default());
    assert_eq!(config.okta.initial_lookback, Duration::from_secs(7 * 86_400));
    assert_eq!(config.schedule.poll.period(), Duration::from_secs(15));
    assert_eq!(config.schedule.reconcile.pattern(), "0 0 3 * * *");
    assert_eq!(config.auth0.mark, MarkOptions { mirror: true, block: false });
    assert!(config.auth0.search && config.engine.enforce && !config.auth0.require_verified_email);
    assert_eq!((config.engine.concurrency, config.engine.max_attempts, config.guard.max_denials), (4, 12, 200.into()));
    assert_eq!(config.store.path, Path::new("/var/lib/okta-auth0-sync/state.db"));
    assert_eq!(config.store.retention, Duration::from_secs(400 * 86_400));
    assert_eq!(config.http.listen, None);
    let action = include_str!("../auth0/action.js");
    for (name, value) in [("MESSAGE", &config.auth0.action_message), ("METADATA_KEY", &config.auth0.keys.current)] {
        assert!(
            action.contains(&format!("const {name} = \"{value}\";")),
            "the Action has a different default for {name}"
        );
    }
    assert!(config.alert.webhook_url.is_none());
    assert_eq!(config.warnings, []);
    assert_eq!(credentials(&config), ["t0psecret", "two words"]);
}

#[test]
fn lists_are_normalized() {
    let config = read(
        &with("scope", "email_domains = [\"Example.COM\"]\nexempt = [\"Ann@Example.com\", \"00uAbC\"]"),
        &[("OKTA_AUTH0_SYNC__OKTA__DENY_STATUSES", "deprovisioned, SUSPENDED")],
    )
    .unwrap();
    assert_eq!(config.policy.email_domains, ["example.com".to_owned()].into());
    assert_eq!(config.policy.exempt, ["00uAbC".to_owned(), "ann@example.com".to_owned()].into());
    assert_eq!(config.policy.verdict(&Status::Suspended), Verdict::Deny);
    assert_eq!(config.policy.verdict(&Status::Deleted), Verdict::Leave);
}

#[test]
fn shipped_file_loads_unchanged() {
    let config = Config::from_toml_str(SHIPPED, Path::new("/etc/okta-auth0-sync"), &Environment::default()).unwrap();
    assert_eq!(config.warnings, []);
    let origins: Vec<String> = config.secrets().iter().map(|(_, secret)| secret.origin()).collect();
    assert_eq!(
        origins,
        [
            "okta.api_token_file: /etc/okta-auth0-sync/credentials/okta-api-token",
            "auth0.client_secret_file: /etc/okta-auth0-sync/credentials/auth0-client-secret",
        ]
    );
}

/// The shipped file with every `#key = value` uncommented.
fn shipped_in_full() -> String {
    let is_key = |line: &str| {
        line.strip_prefix('#').and_then(|rest| rest.split_once(" = ")).is_some_and(|(key, _)| {
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
        })
    };
    SHIPPED.lines().map(|line| if is_key(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn shipped_file_lists_every_default() {
    let shipped = resolve::parse(&shipped_in_full(), "config.toml").unwrap().list();
    let built_in = Raw::default().list();
    // Keys without a default; the file has an example.
    let examples = [
        "okta.url",
        "okta.api_token_file",
        "okta.oauth.client_id",
        "okta.oauth.private_key_file",
        "okta.oauth.key_id",
        "auth0.url",
        "auth0.audience",
        "auth0.client_id",
        "auth0.client_secret_file",
        "auth0.private_key_file",
        "auth0.key_id",
    ];
    let text = shipped_in_full();
    for ((key, shown), (_, default)) in shipped.iter().zip(&built_in) {
        let is_inline_secret = built_in.iter().any(|(other, _)| *other == format!("{key}_file"));
        if examples.contains(key) {
            assert_ne!(shown, default, "{key} has no example in config.toml");
        } else {
            assert_eq!(shown, default, "{key} differs between config.toml and the built-in default");
            let (table, name) = key.rsplit_once('.').unwrap();
            let section = text.split_once(&format!("\n[{table}]\n")).unwrap().1;
            let section = section.split("\n[").next().unwrap();
            let is_listed = section.lines().any(|line| line.starts_with(&format!("{name} = ")));
            assert!(is_listed || is_inline_secret, "{key} is missing in config.toml");
        }
    }
}

/// A valid value for the variable of each key.
fn other_value(key: &str) -> &'static str {
    match key {
        "okta.url" | "auth0.url" => "http://localhost:1234",
        "okta.deny_statuses" => "DEPROVISIONED,SUSPENDED",
        "auth0.match" => "okta_id",
        "auth0.write_to" => "[\"app_metadata\"]",
        "auth0.connections" | "auth0.trusted_connections" => "a, b",
        "scope.email_domains" => "example.org",
        "scope.exempt" => "[\"00u1\"]",
        "schedule.poll" | "schedule.reconcile" => "0 */5 * * * *",
        "okta.oauth.dpop" | "auth0.events" => "never",
        "log.format" => "json",
        "log.filter" => "warn",
        "http.listen" => "127.0.0.1:9465",
        "okta.initial_lookback" | "guard.window" | "store.retention" => "3days",
        "auth0.search" | "engine.enforce" | "okta.directory" => "false",
        "auth0.require_verified_email" | "auth0.block" | "auth0.end_sessions" => "true",
        "engine.concurrency" | "engine.max_attempts" | "guard.max_denials" => "7",
        "limits.okta_share" | "limits.auth0_share" | "limits.reconcile_share" => "0.5",
        _ => "something",
    }
}

#[test]
fn every_key_has_an_environment_variable() {
    let keys: Vec<&str> = Raw::default().list().into_iter().map(|(key, _)| key).collect();
    for key in keys {
        let name = format!("OKTA_AUTH0_SYNC__{}", key.to_uppercase().replace('.', "__"));
        let mut raw = Raw::default();
        let set = raw.overlay(&environment(&[(&name, other_value(key))])).unwrap();
        assert_eq!(set, [key]);
        let changed: Vec<&str> = raw
            .list()
            .into_iter()
            .zip(Raw::default().list())
            .filter_map(|((key, now), (_, before))| (now != before).then_some(key))
            .collect();
        assert_eq!(changed, [key], "{name} changes only its key");
    }
}

#[test]
fn secret_in_environment_overrides_the_file() {
    let by_file = MINIMAL.replace("api_token = \"t0psecret\"", "api_token_file = \"/nowhere\"");
    let config = read(&by_file, &[("OKTA_AUTH0_SYNC__OKTA__API_TOKEN", "fresh")]).unwrap();
    assert_eq!(credentials(&config)[0], "fresh");
    let config = read(MINIMAL, &[("OKTA_AUTH0_SYNC__OKTA__API_TOKEN_FILE", "/nowhere")]).unwrap();
    assert!(config.secrets()[0].1.read().unwrap_err().message.contains("file not found: /nowhere"));
}

#[test]
fn environment_alone_is_enough() {
    let config = read(
        "",
        &[
            ("OKTA_AUTH0_SYNC__OKTA__URL", "https://acme.okta.com"),
            ("OKTA_AUTH0_SYNC__OKTA__OAUTH__CLIENT_ID", "0oa1"),
            ("OKTA_AUTH0_SYNC__OKTA__OAUTH__PRIVATE_KEY", "{\"kty\":\"EC\"}"),
            ("OKTA_AUTH0_SYNC__AUTH0__URL", "http://[::1]:3000"),
            ("OKTA_AUTH0_SYNC__AUTH0__CLIENT_ID", "client"),
            ("OKTA_AUTH0_SYNC__AUTH0__PRIVATE_KEY_FILE", "auth0-key"),
        ],
    )
    .unwrap();
    assert!(matches!(&config.okta.credentials, OktaCredentials::PrivateKey { client_id, .. } if client_id == "0oa1"));
    assert!(matches!(config.auth0.credentials, Auth0Credentials::PrivateKey { key_id: None, .. }));
    assert_eq!(config.auth0.audience, "http://[::1]:3000/api/v2/");
}

#[test]
fn problems_name_location_and_remedy() {
    for (table, line, expected) in [
        ("okta", "initial_lookback = \"7 dys\"", "line 3, column 20, okta.initial_lookback: is not a time span"),
        ("okta", "initial_lookback = \"200days\"", "okta.initial_lookback: must be at most 179 days"),
        ("okta", "initial_lookback = 30", "must be a time span such as \"30s\" or \"7days\""),
        ("okta", "deny_statuses = [\"FIRED\"]", "`FIRED` is not an Okta status: use one of STAGED, PROVISIONED"),
        ("okta", "deny_statuses = []", "no user would ever be denied"),
        ("okta", "deny_statuses = [\"ACTIVE\"]", "all users would be denied"),
        ("okta", "api_token_file = \"x\"", "okta.api_token: is given twice, inline and by okta.api_token_file"),
        ("okta", "uri = 1", "line 3, column 1, okta.uri: unknown field `uri`, expected one of `url`"),
        ("okta.oauth", "client_id = \"0oa1\"", "okta: has two credentials"),
        ("auth0", "private_key = \"{}\"", "auth0: has two credentials"),
        ("auth0", "key_id = \"1\"", "auth0.key_id: belongs to a private key"),
        ("auth0", "write_to = [\"user_metadata\"]", "auth0.write_to: must contain \"app_metadata\""),
        ("auth0", "write_to = [\"root\"]", "`root` cannot hold the mark"),
        ("auth0", "metadata_key = \"okta\"", "`okta` means something else"),
        ("auth0", "metadata_key = \"email\"", "`email` means something else"),
        ("auth0", "metadata_key = \"a.b\"", "1 to 64 letters"),
        ("auth0", "metadata_key = \"$a\"", "1 to 64 letters"),
        ("auth0", "action_message = \" \"", "1 to 200 characters"),
        ("auth0", "action_message = \"a\\nb\"", "one line"),
        ("scope", "email_domains = [\"@example.com\"]", "is not a mail domain"),
        ("scope", "exempt = [\"ann\"]", "neither an e-mail address nor an Okta user id"),
        ("scope", "exempt = [\"*@example.com\"]", "`*@example.com` looks like a pattern, which would exempt no user"),
        ("scope", "exempt = [\"ann*@example.com\"]", "list each user by e-mail address or Okta user id"),
        ("scope", "exempt = [\"%@example.com\"]", "looks like a pattern"),
        ("scope", "exempt = [\"@example.com\"]", "looks like a pattern"),
        ("schedule", "poll = \"0 0 0 30 2 *\"", "schedule.poll: never fires"),
        ("schedule", "poll = \"soon\"", "must have six fields (second minute hour day month weekday), not 1"),
        ("engine", "concurrency = 65", "engine.concurrency: must be a whole number from 1 to 64"),
        ("engine", "concurrency = 0", "must be a whole number from 1 to 64"),
        ("engine", "max_attempts = 0", "must be a whole number from 1 to 1000"),
        ("engine", "enforce = \"no\"", "engine.enforce: must be true or false, without quotes: write false"),
        (
            "engine",
            "concurrency = \"8\"",
            "engine.concurrency: must be a whole number from 1 to 64, without quotes: write 8",
        ),
        ("engine", "concurrency = 1.5", "engine.concurrency: must be a whole number from 1 to 64"),
        ("engine", "enforce = no", "must be true or false: write false"),
        ("limits", "okta_share = \"90%\"", "at most 1, such as 0.8: write 0.9"),
        ("limits", "okta_share = 90%", "must be a number: write 0.9"),
        ("log", "filter = info", "write text in quotes"),
        ("limits", "okta_share = 0", "limits.okta_share: must be more than 0 and at most 1"),
        ("limits", "auth0_share = 1.5", "must be more than 0 and at most 1"),
        ("guard", "max_denials = \"0%\"", "guard.max_denials: must be a whole number from 0 to 1000000, or a share"),
        ("guard", "max_denials = -1", "or a share of the known users such as \"2%\""),
        ("guard", "max_denials = 2000000", "must be a whole number from 0 to 1000000"),
        ("guard", "window = \"1s\"", "guard.window: must be at least 1m"),
        ("store", "retention = \"1h\"", "store.retention: must be at least 1day"),
        ("store", "path = \"\"", "store.path: is empty"),
        ("log", "format = \"xml\"", "must be \"auto\", \"text\" or \"json\""),
        ("log", "filter = \"x=loud\"", "is not a log filter"),
        ("log", "filter = \"verbose\"", "log.filter: `verbose` would log nothing"),
        ("log", "filter = \"okta_auth_sync=debug\"", "would log nothing"),
        ("store", "path = \"~/state.db\"", "store.path: contains `~` or `$`, which only a shell expands"),
        ("store", "path = \"$HOME/state.db\"", "only a shell expands"),
        ("http", "socket_group = \"www data\"", "is not the name of a group"),
        ("http", "listen = \"9465\"", "write it like \"127.0.0.1:9465\""),
        ("http", "listen = \"0.0.0.0:9465\"", "http.listen: 0.0.0.0:9465 can be reached from other machines"),
        ("http", "listen = \"unix:http.sock\"", "is not the absolute path of a socket"),
        ("alert", "webhook_url = \"http://example.com/x\"", "alert.webhook_url: would send credentials in the clear"),
        ("alert", "webhook_url = \"example\"", "alert.webhook_url: is not a URL"),
        ("color", "red = 1", "unknown field `color`"),
    ] {
        let message = refusal(&with(table, line), &[]);
        assert!(message.contains(expected), "{line}\n  expected: {expected}\n  got: {message}");
    }
}

#[test]
fn caret_points_at_the_value() {
    let message = refusal(&with("okta", "initial_lookback = \"7 dys\""), &[]);
    let lines: Vec<&str> = message.lines().map(str::trim).collect();
    let shown = lines.iter().position(|line| *line == "3 | initial_lookback = \"7 dys\"").unwrap();
    assert_eq!(lines[shown + 1], "|                    ^^^^^^^");
}

#[test]
fn control_characters_in_names_are_escaped() {
    for text in ["[\"\\u001b[2J\"]\n", "[guard]\n\"\\u001b[2J\\n\" = 1\n", "[okta.\"\\u202e\"]\n"] {
        let message = refusal(text, &[]);
        assert!(message.contains("unknown field `\\u{"), "{message}");
        assert!(!message.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{message:?}");
    }
}

#[test]
fn urls_must_be_private_origins() {
    for (url, expected) in [
        ("http://acme.okta.com", "would send credentials in the clear: use https://"),
        ("http://127.0.0.1.example.com", "in the clear"),
        ("ftp://acme.okta.com", "has the scheme `ftp`"),
        ("acme.okta.com", "write it with its scheme"),
        ("https://acme.okta.com/api/v1", "must end after the host: write \"https://acme.okta.com\""),
        ("https://acme.okta.com/?a=b", "must end after the host"),
        ("https://me:secret@acme.okta.com", "must not contain a user name or password"),
        ("https://acme-admin.okta.com", "the host of the admin console"),
    ] {
        let message = refusal(&MINIMAL.replace("https://acme.okta.com", url), &[]);
        assert!(message.contains(expected), "{url}: {message}");
    }
    for url in ["http://localhost:1", "http://127.1.2.3", "http://[::1]:80", "https://login.example.com/"] {
        read(&MINIMAL.replace("https://acme.okta.com", url), &[]).unwrap();
    }
}

#[test]
fn swapped_and_dashboard_urls_are_recognized() {
    for (okta, auth0, expected) in [
        ("https://acme.eu.auth0.com", "https://acme.okta.com", "are okta.url and auth0.url swapped?"),
        (
            "https://acme.eu.auth0.com",
            "https://acme.eu.auth0.com",
            "okta.url: `acme.eu.auth0.com` is the address of an Auth0",
        ),
        (
            "https://acme.okta.com",
            "https://acme.oktapreview.com",
            "auth0.url: `acme.oktapreview.com` is the address of an Okta",
        ),
        ("https://acme.okta.com", "https://manage.auth0.com", "auth0.url: is the address of Auth0's dashboard"),
        ("acme.okta.com", "https://acme.eu.auth0.com", "with its scheme, such as \"https://acme.okta.com\""),
    ] {
        let text = MINIMAL.replace("https://acme.okta.com", "OKTA").replace("https://acme.eu.auth0.com", auth0);
        let message = refusal(&text.replace("OKTA", okta), &[]);
        assert!(message.contains(expected), "{okta} {auth0}: {message}");
    }
    read(&MINIMAL.replace("acme.okta.com", "notokta.com").replace("acme.eu.auth0.com", "auth.example.com"), &[])
        .unwrap();
}

#[test]
fn filters_that_log_something_are_accepted() {
    for filter in ["off", "info,sqlx=warn", "okta_auth0_sync::engine=debug", "okta=debug", "[look]=debug", "warn,x"] {
        read(&with("log", &format!("filter = \"{filter}\"")), &[]).unwrap_or_else(|error| panic!("{filter}: {error}"));
    }
}

#[test]
fn socket_group_is_for_sockets() {
    let config = read(&with("http", "listen = \"unix:/run/x.sock\"\nsocket_group = \"root\""), &[]).unwrap();
    let listen = config.http.listen.unwrap();
    assert_eq!((listen.group_id(), config.warnings.len()), (Ok(Some(0)), 0));
    let config = read(&with("http", "listen = \"unix:/x\"\nsocket_group = \"no-such-group\""), &[]).unwrap();
    let problem = config.http.listen.unwrap().group_id().unwrap_err().to_string();
    assert!(problem.starts_with("http.socket_group: /etc/group has no group `no-such-group`"), "{problem}");
}

#[test]
fn all_missing_keys_are_reported_at_once() {
    let message = refusal("", &[]);
    for expected in [
        "okta.url: is missing",
        "okta: has no credential: set one of api_token_file or api_token",
        "client_id and private_key_file in [okta.oauth]",
        "auth0.url: is missing",
        "auth0.client_id: is missing",
        "auth0: has no credential: set one of client_secret_file or client_secret",
        "private_key_file or private_key (its key)",
    ] {
        assert!(message.contains(expected), "expected: {expected}\n{message}");
    }
}

#[test]
fn environment_problems_name_the_variable() {
    for (name, value, expected) in [
        ("OKTA_AUTH0_SYNC__ENGINE__CONCURRENCY", "many", "must be a whole number from 1 to 64"),
        ("OKTA_AUTH0_SYNC__ENGINE__ENFORCE", "yes", "must be `true` or `false`"),
        ("OKTA_AUTH0_SYNC__LIMITS__OKTA_SHARE", "90%", "must be a number such as 0.8"),
        ("OKTA_AUTH0_SYNC__OKTA__URL", "acme", "is not a URL"),
        ("OKTA_AUTH0_SYNC__OKTA__API_TOKEN", "", "is empty"),
        ("OKTA_AUTH0_SYNC__OKTA__INITIAL_LOOKBACK", "200days", "must be at most 179 days"),
        ("OKTA_AUTH0_SYNC__AUTH0__CONNECTIONS", "[1]", "must be an array of strings"),
        ("OKTA_AUTH0_SYNC__AUTH0__CONNECTIONS", "[", "is not a TOML array"),
        ("OKTA_AUTH0_SYNC__OKTA__TOKEN", "x", "did you mean OKTA_AUTH0_SYNC__OKTA__API_TOKEN?"),
        ("OKTA_AUTH0_SYNC__OKTA_API_TOKEN", "x", "did you mean OKTA_AUTH0_SYNC__OKTA__API_TOKEN?"),
        ("OKTA_AUTH0_SYNC_ENGINE_ENFORCE", "false", "did you mean OKTA_AUTH0_SYNC__ENGINE__ENFORCE?"),
        ("OKTA_AUTH0_SYNC_OKTA_URL", "https://x.okta.com", "did you mean OKTA_AUTH0_SYNC__OKTA__URL?"),
        ("OKTA_AUTH0_SYNC__ENGINE__ENFROCE", "false", "did you mean OKTA_AUTH0_SYNC__ENGINE__ENFORCE?"),
        ("okta_auth0_sync__engine__enforce", "false", "did you mean OKTA_AUTH0_SYNC__ENGINE__ENFORCE?"),
        ("OKTA_AUTH0_SYNC_COLOUR", "red", "derive the name from the key"),
    ] {
        let message = refusal(MINIMAL, &[(name, value)]);
        assert!(message.contains(&format!("environment variable {name}")), "{message}");
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn other_variables_with_our_prefix_pass() {
    for name in [
        FILE_VARIABLE,
        // Kubernetes, for Services called okta-auth0-sync and okta-auth0-sync-metrics.
        "OKTA_AUTH0_SYNC_SERVICE_HOST",
        "OKTA_AUTH0_SYNC_SERVICE_PORT_HTTP",
        "OKTA_AUTH0_SYNC_PORT",
        "OKTA_AUTH0_SYNC_PORT_9465_TCP_ADDR",
        "OKTA_AUTH0_SYNC_METRICS_SERVICE_PORT",
        "OKTA_AUTH0_SYNCHRONIZE",
        "AUTH0_DOMAIN",
    ] {
        read(MINIMAL, &[(name, "tcp://10.0.0.1:9465")]).unwrap();
    }
}

#[test]
fn errors_and_debug_hide_secrets() {
    let debug =
        format!("{:?}", read(&with("alert", "webhook_url = \"https://hooks.example/t0psecret\""), &[]).unwrap());
    assert!(!debug.contains("t0psecret") && !debug.contains("hush"), "{debug}");
    for text in [
        MINIMAL.replace("api_token = \"t0psecret\"", "api_token = \"t0psecret"),
        MINIMAL.replace("api_token =", "api_tokn ="),
        MINIMAL.replace("api_token = \"t0psecret\"", "api_token = \"t0psecret\" x"),
        MINIMAL.replace("api_token = \"t0psecret\"", "api_token = [\"t0psecret\"]"),
        MINIMAL.replace("api_token = \"t0psecret\"", "api_token = \"t0psecret with a blank\""),
        MINIMAL.replace("api_token = \"t0psecret\"", "api_token = \"t0psecret\\q\""),
        MINIMAL.replace("[okta]\n", "okta = { api_token = \"t0psecret\", x = 1 }\n"),
        MINIMAL.replace("api_token = \"t0psecret\"", "t0psecret"),
        with("okta.oauth", "private_key = \"\"\"-----BEGIN\nt0psecretAA==\n\\q\"\"\""),
        with("alert", "heartbeat_url = \"http://example.com/t0psecret\""),
    ] {
        let message = refusal(&text, &[]);
        assert!(!message.contains("t0psecret"), "{text}\n{message}");
        let debug = format!("{:?}", read(&text, &[]).unwrap_err());
        assert!(!debug.contains("t0psecret"), "{debug}");
    }
    let variable = ("OKTA_AUTH0_SYNC__OKTA__API_TOKEN", "t0psecret\u{7}");
    assert!(!refusal(MINIMAL, &[variable]).contains("t0psecret"));
    assert!(!format!("{:?}", environment(&[variable])).contains("t0psecret"));
}

proptest::proptest! {
    /// A file with a random typo is accepted or rejected, and the error never shows the secret.
    #[test]
    fn errors_hide_secrets_after_any_typo(at in 0..MINIMAL.len(), removed in 0_usize..3, inserted in "[\\[\\]\"'=\n #a.\\\\]{0,2}") {
        let mut text = MINIMAL.to_owned();
        text.replace_range(at..(at + removed).min(MINIMAL.len()), &inserted);
        if let Err(error) = read(&text, &[]) {
            proptest::prop_assert!(!error.to_string().contains("psecre"), "{text}\n{error}");
        }
    }

    #[test]
    fn any_text_is_accepted_or_rejected(text in "([a-z]{1,3} = |\"|\n|\\[okta\\]|é|\u{1b}|.){0,20}") {
        let _ = read(&text, &[]).is_ok();
    }
}

#[test]
fn suspicious_settings_cause_warnings() {
    for (table, line, key) in [
        ("okta", "initial_lookback = \"100days\"", "okta.initial_lookback"),
        ("okta", "deny_statuses = [\"DELETED\"]", "okta.deny_statuses"),
        ("okta", "directory = false", "okta.directory"),
        ("schedule", "poll = \"* * * * * *\"", "schedule.poll"),
        ("auth0", "audience = \"https://acme.eu.auth0.com\"", "auth0.audience"),
        ("auth0", "require_verified_email = true", "auth0.require_verified_email"),
        ("auth0", "trusted_connections = [\"acme-saml\"]", "auth0.trusted_connections"),
        ("http", "socket_group = \"www-data\"", "http.socket_group"),
    ] {
        let warnings = read(&with(table, line), &[]).unwrap().warnings;
        assert_eq!(warnings.iter().map(|warning| warning.subject.as_str()).collect::<Vec<_>>(), [key]);
    }
}

mod files {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(path: &Path, text: impl AsRef<[u8]>, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn token_from(file: &str, base: &Path, credentials_directory: Option<&Path>) -> Result<String, Problem> {
        let text = MINIMAL.replace("api_token = \"t0psecret\"", &format!("api_token_file = \"{file}\""));
        let environment = credentials_directory
            .map(|directory| ("CREDENTIALS_DIRECTORY", directory.as_os_str()))
            .into_iter()
            .collect();
        let config = Config::from_toml_str(&text, base, &environment).unwrap();
        config.secrets()[0].1.read().map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn bare_name_is_looked_up_as_a_credential() {
        let base = tempfile::tempdir().unwrap();
        let given = tempfile::tempdir().unwrap();
        write(&base.path().join("credentials/token"), "beside\n", 0o600);
        assert_eq!(token_from("token", base.path(), None).unwrap(), "beside");
        assert_eq!(token_from("token", base.path(), Some(given.path())).unwrap(), "beside");
        write(&given.path().join("token"), "given\r\n", 0o444);
        assert_eq!(token_from("token", base.path(), Some(given.path())).unwrap(), "given");
        let path = given.path().join("token").display().to_string();
        assert_eq!(token_from(&path, base.path(), Some(given.path())).unwrap(), "given");
        let error = token_from("none", base.path(), Some(given.path())).unwrap_err().to_string();
        assert!(error.contains(&format!(
            "{}/none or {}/credentials/none",
            given.path().display(),
            base.path().display()
        )));
    }

    /// As under the unit: a missing file becomes an empty credential, and only root can read the folder.
    #[test]
    fn empty_credential_is_reported_as_missing() {
        let base = tempfile::tempdir().unwrap();
        let given = tempfile::tempdir().unwrap();
        write(&given.path().join("token"), "\n", 0o400);
        fs::write(base.path().join("credentials"), "a file instead of a folder, which even root cannot read").unwrap();
        let error = token_from("token", base.path(), Some(given.path())).unwrap_err().to_string();
        assert!(error.contains("systemd did not pass this credential"), "{error}");
        assert!(error.contains(&format!("{}/credentials/token cannot be read", base.path().display())), "{error}");
        assert!(error.contains("as root, put the secret into that file"), "{error}");
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let base = tempfile::tempdir().unwrap();
        write(&base.path().join("keys/token"), "by-path", 0o400);
        assert_eq!(token_from("keys/token", base.path(), None).unwrap(), "by-path");
        assert_eq!(token_from("./keys/token", base.path(), None).unwrap(), "by-path");
    }

    #[test]
    fn invalid_secret_files_are_rejected() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("credentials/token");
        let shown = path.display();
        for (text, mode, expected) in [
            (&b"abc"[..], 0o644, format!("(mode 0644): chmod 600 '{shown}'")),
            (b"abc", 0o640, format!("(mode 0640): chmod 600 '{shown}'")),
            (b"\n", 0o600, format!("{shown} is empty")),
            (b"", 0o600, format!("{shown} is empty")),
            (b"a b", 0o600, format!("{shown} contains white space")),
            (b"\"abc\"\n", 0o600, format!("{shown} has quotes around it: remove them")),
            (b" abc\n", 0o600, format!("{shown} has blanks around it: remove them")),
            (b"SSWS abc\n", 0o600, format!("{shown} begins with `SSWS`")),
            (b"api_token=abc\n", 0o600, format!("{shown} looks like a line of a configuration file")),
            (b"\x30\x82\x04\xbd", 0o600, format!("{shown} is binary (DER or PKCS#12)")),
            (b"\xef\xbb\xbfabc\n", 0o600, format!("{shown} contains a byte order mark (BOM)")),
            (b"\xff\xfea\0b\0", 0o600, format!("{shown} is UTF-16: save it as UTF-8")),
            (b"\xfe\xff\0a\0b", 0o600, format!("{shown} is UTF-16: save it as UTF-8")),
            (b"abc\0def", 0o600, format!("{shown} contains NUL bytes")),
            (b"abc\n\xe9", 0o600, format!("{shown} is not UTF-8 in line 2")),
            (&[b'a'; 70_000], 0o600, format!("{shown} is larger than 64 KiB")),
        ] {
            write(&path, text, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = token_from("token", base.path(), None).unwrap_err();
            assert_eq!(error.subject, "okta.api_token_file");
            assert!(error.message.contains(&expected), "{error}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let problem = token_from("token", base.path(), None).unwrap_err().message;
        assert!(problem.contains("it is not a file but a directory"), "{problem}");
    }

    /// Root can give files away; others run the rest of the tests.
    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    #[test]
    fn secret_of_another_user_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("credentials/token");
        write(&path, "abc\n", 0o600);
        assert_eq!(token_from("token", base.path(), None).unwrap(), "abc");
        if is_root() {
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            let problem = token_from("token", base.path(), None).unwrap_err().to_string();
            assert!(problem.contains("belongs to another user (uid 65534)"), "{problem}");
        }
    }

    fn load(path: &Path) -> Result<Config, String> {
        Config::load(Some(path), &Environment::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn config_that_others_can_write_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("config.toml");
        for (mode, accepted) in [(0o600, true), (0o644, true), (0o640, true), (0o646, false), (0o666, false)] {
            write(&path, MINIMAL, mode);
            let loaded = load(&path);
            assert_eq!(loaded.is_ok(), accepted, "{mode:o}: {loaded:?}");
            if let Err(message) = loaded {
                let remedy = format!("can be written by other users (mode 0{mode:o}): chmod go-w '{}'", path.display());
                assert!(message.contains(&remedy), "{message}");
            }
        }
        if is_root() {
            write(&path, MINIMAL, 0o664);
            std::os::unix::fs::chown(&path, Some(0), Some(33)).unwrap();
            assert!(load(&path).unwrap_err().contains("can be written by other users (mode 0664)"));
            std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
            load(&path).unwrap();
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            assert!(load(&path).unwrap_err().contains("belongs to another user (uid 65534), who could change it"));
        }
    }

    #[test]
    fn ca_file_that_others_can_write_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let ca_file = base.path().join("ca.pem");
        let config = TlsConfig { ca_file: Some(ca_file.clone()) };
        write(&ca_file, "x", 0o644);
        assert_eq!(config.certificates().unwrap().as_deref(), Some("x"));
        write(&ca_file, "x", 0o646);
        let problem = config.certificates().unwrap_err().to_string();
        assert!(problem.starts_with("tls.ca_file: ") && problem.contains("can be written by other users"), "{problem}");
    }

    #[test]
    fn fifos_and_devices_are_refused_at_once() {
        let base = tempfile::tempdir().unwrap();
        let fifo = base.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for (path, kind) in [(&*fifo, "a FIFO"), (base.path(), "a directory"), (Path::new("/dev/zero"), "a device")] {
            let expected = format!("it is not a file but {kind}");
            assert!(load(path).unwrap_err().contains(&expected), "{path:?}");
            let certificates = TlsConfig { ca_file: Some(path.to_owned()) }.certificates();
            assert!(certificates.unwrap_err().message.contains(&expected), "{path:?}");
            let secret = token_from(&path.display().to_string(), base.path(), None);
            assert!(secret.unwrap_err().message.contains(&expected), "{path:?}");
        }
    }

    #[test]
    fn config_is_text_in_utf_8() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("config.toml");
        let utf_16: Vec<u8> =
            std::iter::once(0xfeff).chain(MINIMAL.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        for (bytes, expected) in [
            (utf_16, "is UTF-16: save it as UTF-8"),
            (b"# caf\xe9\n".to_vec(), "is not UTF-8 in line 1"),
            (b"[okta]\0".to_vec(), "contains NUL bytes"),
        ] {
            write(&path, bytes, 0o600);
            let message = load(&path).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        write(&path, format!("\u{feff}{MINIMAL}"), 0o600);
        load(&path).unwrap();
    }

    #[test]
    fn invalid_private_key_is_rejected_early() {
        let text = MINIMAL.replace("client_secret = \"two words\"", "private_key = \"a certificate\"");
        assert!(refusal(&text, &[]).contains("auth0.private_key: is not a private key in PEM or JWK"));
    }

    #[test]
    fn world_readable_secrets_cause_a_warning() {
        let base = tempfile::tempdir().unwrap();
        let (one, other) = (base.path().join("one.toml"), base.path().join("other.toml"));
        write(&one, MINIMAL, 0o644);
        write(&other, MINIMAL.replace("acme.okta", "other.okta"), 0o600);
        let environment: Environment = [(FILE_VARIABLE, other.as_os_str())].into_iter().collect();
        let config = Config::load(None, &environment).unwrap();
        assert_eq!(config.okta.url.as_str(), "https://other.okta.com/");
        assert_eq!((config.file.as_deref(), config.warnings.as_slice()), (Some(other.as_path()), &[][..]));
        let config = Config::load(Some(&one), &environment).unwrap();
        assert_eq!(config.okta.url.as_str(), "https://acme.okta.com/");
        assert_eq!(config.warnings[0].subject, "okta.api_token, auth0.client_secret");
        assert!(config.warnings[0].message.contains(&format!("chmod 600 '{}'", one.display())));
    }

    #[test]
    fn missing_file_is_named() {
        let error = Config::load(Some(Path::new("/nowhere/config.toml")), &Environment::default()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/config.toml: cannot be read: No such file"), "{error}");
    }
}
