//! Both tenants, a folder with a configuration, and the program as a process.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use okta_auth0_sync::auth0::ACTION_SOURCE;
use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync::store::{Access, Store};
use okta_auth0_sync_sandbox::{Auth0Options, Bucket, Limits, NewUser, OktaOptions, Options, Recorded, Sandbox};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// A longer wait is a failure. Generous, because the machine may be busy; no test waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(900);

/// Completes with `work`, or fails the test and names what did not happen.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// How much of a long test to run: the usual amount, or what this environment variable asks for.
pub(crate) fn amount(variable: &str, usual: usize) -> usize {
    std::env::var(variable)
        .map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// The exit code and the output of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "\n--- out\n{}\n--- err\n{}", self.out, self.err);
        self
    }
}

/// Both tenants without rate limits, and a folder for the program.
pub(crate) struct Harness {
    pub(crate) sandbox: Sandbox,
    folder: TempDir,
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::with(OktaOptions::default(), Auth0Options::default()).await
    }

    /// With other options, but always without rate limits.
    pub(crate) async fn with(okta: OktaOptions, auth0: Auth0Options) -> Self {
        let options = Options {
            okta: OktaOptions { limits: Limits::unlimited(), ..okta },
            auth0: Auth0Options { bucket: Bucket::UNLIMITED, search_lag: Duration::ZERO, ..auth0 },
            ..Options::default()
        };
        let harness = Self {
            sandbox: Sandbox::start(options, ACTION_SOURCE).await.unwrap(),
            folder: tempfile::tempdir().unwrap(),
        };
        harness.configure("");
        harness
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder().join("state.db")
    }

    /// Writes a configuration for the tenants, with these sections added.
    pub(crate) fn configure(&self, more: &str) {
        self.write_config(&format!("{}\n{more}\n", self.sandbox.config_toml()));
    }

    /// Writes this configuration with the sections for state, schedule and guard added.
    pub(crate) fn write_config(&self, text: &str) {
        let state = toml::Value::String(self.state().display().to_string());
        let text = format!(
            "{text}\n[schedule]\npoll = \"* * * * * *\"\n[guard]\nmax_denials = 1000000\n[store]\npath = {state}\n"
        );
        let file = self.folder().join("config.toml");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(file).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The program in its folder, with an empty environment.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"));
        command
            .current_dir(self.folder())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .args(["--config", "config.toml"])
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.program(arguments)).await
    }

    /// A whole pass, which must finish every look.
    #[track_caller]
    pub(crate) fn sync(&self) -> impl Future<Output = Ran> {
        let caller = std::panic::Location::caller();
        async move {
            let ran = self.run(&["sync"]).await;
            assert_eq!(ran.code, Some(0), "sync at {caller}\n{}\n{}", ran.out, ran.err);
            ran
        }
    }

    /// The daemon.
    pub(crate) fn daemon(&self) -> Daemon {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.folder().join("daemon.log")).unwrap();
        let mut command = self.program(&["run"]);
        Daemon(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// The state, opened to read beside the program.
    pub(crate) async fn store(&self) -> Store {
        Store::open_beside(&self.state(), Access::Read).await.unwrap()
    }

    /// A user in Okta with an account in Auth0 of the same address.
    pub(crate) fn user(&self, name: &str) -> (OktaUserId, String) {
        let email = format!("{name}@example.com");
        (self.okta_user(&email), self.account(&email))
    }

    pub(crate) fn okta_user(&self, email: &str) -> OktaUserId {
        self.okta_user_called(email, email)
    }

    pub(crate) fn okta_user_called(&self, login: &str, email: &str) -> OktaUserId {
        let id = self.sandbox.okta().create_user(&NewUser::new(login, email));
        OktaUserId::parse(id.as_str()).unwrap()
    }

    pub(crate) fn account(&self, email: &str) -> String {
        self.sandbox.auth0().create_user(json!({ "email": email, "email_verified": true }))
    }

    /// The accounts that cannot log in, as tried by a login.
    pub(crate) fn shut_out(&self) -> BTreeSet<String> {
        let auth0 = self.sandbox.auth0();
        let ids = auth0.users().into_iter().map(|user| user["user_id"].as_str().unwrap().to_owned());
        ids.filter(|id| !auth0.login(id).is_granted()).collect()
    }

    /// The mark of an account: `Null` if it never had one.
    pub(crate) fn mark(&self, account: &str) -> Value {
        self.sandbox.auth0().user(account).unwrap()["app_metadata"]["okta_sync"].clone()
    }

    /// How many writes Auth0 received.
    pub(crate) fn writes(&self) -> usize {
        patches(&self.sandbox.auth0().journal().requests()).count()
    }
}

/// The requests that write.
pub(crate) fn patches(requests: &[Recorded]) -> impl Iterator<Item = &Recorded> {
    requests.iter().filter(|request| request.method == "PATCH")
}

pub(crate) async fn finish(mut command: Command) -> Ran {
    let output = within("the program's end", command.output()).await.unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A running daemon. Dropping it kills it.
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Waits for `condition`; fails at once if the daemon exits before.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Future) {
        tokio::select! {
            _ = within(what, condition) => {}
            ended = self.0.wait() => panic!("{what}: the daemon ended first: {ended:?}"),
        }
    }

    /// Kills it with SIGKILL.
    pub(crate) async fn kill(mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "the program ended before it was killed");
        self.0.kill().await.unwrap();
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id().expect("the daemon has exited")
    }

    /// Ends it with SIGTERM and checks that it exits with 0.
    pub(crate) async fn stop(mut self) {
        let id = self.id().to_string();
        assert!(Command::new("kill").arg(id).status().await.unwrap().success());
        let status = within("the daemon's end", self.0.wait()).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

impl From<Child> for Daemon {
    fn from(child: Child) -> Self {
        Self(child)
    }
}
