//! Runs `check`, `action` and `purge` of the binary against both stand-ins.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use assert_cmd::Command;
use okta_auth0_sync::auth0::ACTION_SOURCE;
use okta_auth0_sync_sandbox::{Effect, Fault, NewUser, Options, Sandbox};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Installation {
    sandbox: Sandbox,
    folder: TempDir,
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Installation {
    async fn new() -> Self {
        let sandbox = Sandbox::start(Options::default(), ACTION_SOURCE).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let this = Self { sandbox, folder };
        this.configure("", "");
        this
    }

    /// Writes the configuration, with `from` replaced by `to`.
    fn configure(&self, from: &str, to: &str) {
        let text = format!("{}\n[store]\npath = \"state.db\"\n", self.sandbox.config_toml());
        assert!(text.contains(from), "{text}");
        let text = if from.is_empty() { text } else { text.replacen(from, to, 1) };
        let file = self.folder.path().join("config.toml");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let output = Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"))
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .args(arguments)
            .output()
            .unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The write requests.
    fn writes(&self) -> usize {
        let requests = self.sandbox.auth0().journal().requests();
        requests.iter().filter(|request| request.method != "GET" && request.path != "/oauth/token").count()
    }

    /// A deactivated user with an account.
    fn deactivated(&self, email: &str) -> String {
        let id = self.sandbox.okta().create_user(&NewUser::new(email, email));
        let account = self.sandbox.auth0().create_user(json!({ "email": email, "email_verified": true }));
        self.sandbox.okta().deactivate(&id);
        account
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn check_passes_and_writes_nothing() {
    let installation = Installation::new().await;
    installation.sandbox.okta().create_user(&NewUser::new("eve@example.com", "eve@example.com"));
    let ran = installation.run(&["check"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    for expected in [
        "Okta name",
        "Okta connection",
        "plain http on loopback",
        "Okta clock",
        "Okta org",
        "Okta credential",
        "30 days",
        "Okta System Log",
        "Okta user by id",
        "Auth0 token",
        "Auth0 scopes",
        "Auth0 look-up by e-mail",
        "Auth0 search",
        "first in the post-login flow",
        "users deactivated in the same minute",
        "does not exist yet",
        "next: ",
    ] {
        assert!(ran.out.contains(expected), "expected: {expected}\n{}", ran.out);
    }
    assert_eq!(installation.writes(), 0);
    assert!(!installation.folder.path().join("state.db").exists());
    let report: Value = serde_json::from_str(&installation.run(&["check", "--json"]).out).unwrap();
    assert_eq!(report["ok"], true);
    assert!(report["findings"].as_array().unwrap().iter().any(|line| line["name"] == "promise"), "{report}");
}

/// A defect, and the line that must report it.
type Case = (&'static str, fn(&Installation), i32, &'static str, &'static str);

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn each_check_line_can_fail() {
    fn date(text: &str) -> Effect {
        Effect::ReplaceHeader { name: "date".to_owned(), value: Some(text.to_owned()) }
    }
    let cases: [Case; 17] = [
        (
            "no answer at okta.url",
            |it| it.configure(it.sandbox.okta().url(), "http://127.0.0.1:9"),
            1,
            "Okta connection",
            "unreachable",
        ),
        (
            "another API token",
            |it| it.configure(&it.sandbox.okta().api_token(), "wrong"),
            1,
            "Okta credential",
            "E0000011",
        ),
        (
            "no role for the log",
            |it| {
                it.sandbox.okta().faults().add(Fault::status("GET", "/api/v1/logs", 403));
            },
            1,
            "Okta System Log",
            "(403)",
        ),
        (
            "no role for users",
            |it| {
                it.sandbox.okta().faults().add(Fault::status("GET", "/api/v1/users", 403));
            },
            1,
            "Okta users",
            "(403)",
        ),
        (
            "no users in the role",
            |it| {
                for user in it.sandbox.okta().users() {
                    it.sandbox.okta().hide(user["id"].as_str().unwrap());
                }
            },
            1,
            "Okta users",
            "lists no active user",
        ),
        (
            "a role that hides addresses",
            |it| it.sandbox.okta().hide_names(true),
            1,
            "Okta users",
            "hides login and e-mail",
        ),
        (
            "no record of the token",
            |it| {
                it.sandbox.okta().faults().add(Fault::status("GET", "/api/v1/api-tokens", 403));
            },
            0,
            "Okta credential",
            "cannot read the API token's own record",
        ),
        ("another secret", |it| it.sandbox.auth0().set_client_secret("another"), 1, "Auth0 token", "401"),
        (
            "no scope to write",
            |it| it.sandbox.auth0().set_granted_scope("read:users update:users_app_metadata"),
            1,
            "Auth0 scopes",
            "update:users ",
        ),
        (
            "too many scopes",
            |it| {
                it.sandbox
                    .auth0()
                    .set_granted_scope("read:users update:users update:users_app_metadata update:client_grants")
            },
            0,
            "Auth0 scopes",
            "revoke update:client_grants",
        ),
        (
            "no scope to look",
            |it| it.sandbox.auth0().set_granted_scope("read:users update:users update:users_app_metadata"),
            0,
            "Auth0 Action",
            "grant read:actions",
        ),
        (
            "no look-up",
            |it| {
                it.sandbox.auth0().faults().add(Fault::status("GET", "/api/v2/users-by-email", 500));
            },
            1,
            "Auth0 look-up by e-mail",
            "(500)",
        ),
        (
            "no search",
            |it| {
                it.sandbox.auth0().faults().add(Fault::status("GET", "/api/v2/users", 500));
            },
            1,
            "Auth0 search",
            "(500)",
        ),
        ("no Action", |it| it.sandbox.auth0().action().set_bound(false), 1, "Auth0 Action", "action deploy"),
        (
            "a clock far off",
            |it| {
                it.sandbox.auth0().faults().add(Fault::everywhere(date("Mon, 01 Jan 2024 00:00:00 GMT")));
            },
            1,
            "Auth0 clock",
            "enable NTP",
        ),
        (
            "a refusal with a clock far off",
            |it| {
                it.sandbox.auth0().set_client_secret("another");
                it.sandbox.auth0().faults().add(Fault::everywhere(date("Mon, 01 Jan 2024 00:00:00 GMT")));
            },
            1,
            "Auth0 token",
            "correct the clock first",
        ),
        (
            "another org",
            |it| {
                assert_eq!(it.run(&["sync"]).code, 0);
                let body = json!({ "id": "00oAnother" }).to_string().into_bytes();
                it.sandbox.okta().faults().add(Fault::new("GET", "/.well-known/", Effect::ReplaceBody(body)));
            },
            1,
            "state",
            "belongs to the org",
        ),
    ];
    for (what, breaks, code, line, says) in cases {
        let installation = Installation::new().await;
        installation.sandbox.okta().create_user(&NewUser::new("eve@example.com", "eve@example.com"));
        breaks(&installation);
        let ran = installation.run(&["check", "--json"]);
        assert_eq!(ran.code, code, "{what}: {}{}", ran.out, ran.err);
        let report: Value = serde_json::from_str(&ran.out).unwrap();
        let verdict = if code == 0 { "warn" } else { "fail" };
        let found = report["findings"].as_array().unwrap().iter().any(|finding| {
            finding["name"] == line
                && finding["verdict"] == verdict
                && finding["detail"].as_str().unwrap().contains(says)
        });
        assert!(found, "{what}: {report:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn invalid_config_exits_78_before_any_call() {
    let installation = Installation::new().await;
    installation.configure("client_id = ", "klient_id = ");
    let ran = installation.run(&["check"]);
    assert_eq!(ran.code, 78, "{}{}", ran.out, ran.err);
    assert_eq!(installation.sandbox.auth0().journal().total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn action_is_deployed_only_when_confirmed() {
    let installation = Installation::new().await;
    let action = installation.sandbox.auth0().action();
    let shown = installation.run(&["action", "show"]);
    assert_eq!((shown.code, shown.out.as_str()), (0, include_str!("../src/auth0/action.js")));
    assert_eq!(installation.run(&["action", "check"]).code, 0);

    action.install("other", "exports.onExecutePostLogin = async () => {};");
    action.place("other", Some(0));
    action.set_bound(false);
    let ran = installation.run(&["action", "check"]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("it denies no login") && ran.out.contains("action deploy"), "{}", ran.out);
    for (arguments, code) in [(&["action", "deploy"][..], 1), (&["action", "deploy", "--dry-run"], 0)] {
        let ran = installation.run(arguments);
        assert_eq!(ran.code, code, "{}{}", ran.out, ran.err);
        assert!(ran.out.contains("the other 1 keep their order"), "{}", ran.out);
        assert_eq!(installation.writes(), 0, "{arguments:?}");
    }
    let ran = installation.run(&["action", "deploy", "--yes"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(action.flow(), ["okta-auth0-sync", "other"]);
    let writes = installation.writes();
    let again = installation.run(&["action", "deploy"]);
    assert!(again.code == 0 && again.out.contains("nothing to do"), "{}{}", again.out, again.err);
    assert_eq!(installation.writes(), writes);

    action.set_bound(false);
    installation.sandbox.auth0().set_granted_scope("read:actions");
    let refused = installation.run(&["action", "deploy", "--yes"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("create:actions update:actions"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn purge_lifts_marks_only_when_confirmed() {
    let installation = Installation::new().await;
    let account = installation.deactivated("ann@example.com");
    assert_eq!(installation.run(&["sync"]).code, 0);
    let auth0 = installation.sandbox.auth0();
    assert!(!auth0.login(&account).is_granted());
    let writes = installation.writes();
    let plan = installation.run(&["purge", "--dry-run"]);
    assert_eq!(plan.code, 0, "{}{}", plan.out, plan.err);
    assert!(
        plan.out.contains("denied → open") && plan.out.contains("marks would be removed from 1 account;"),
        "{}",
        plan.out
    );
    let unasked = installation.run(&["purge"]);
    assert!(unasked.code == 1 && unasked.err.contains("use --yes"), "{}", unasked.err);
    assert_eq!(installation.writes(), writes);

    let lock = fs::File::open(installation.folder.path().join("state.db.lock")).unwrap();
    lock.lock().unwrap();
    let busy = installation.run(&["purge", "--yes"]);
    assert_eq!(busy.code, 75, "{}{}", busy.out, busy.err);
    drop(lock);

    let done = installation.run(&["purge", "--yes"]);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    assert!(done.out.contains("removed marks from 1 account;") && done.out.contains("stop and remove"), "{}", done.out);
    assert!(auth0.login(&account).is_granted());
    let again = installation.run(&["purge", "--yes"]);
    assert!(again.code == 0 && again.out.contains("removed marks from 0 accounts;"), "{}{}", again.out, again.err);
}
