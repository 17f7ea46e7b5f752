//! `demo`: a scripted scenario on embedded tenants, verified by logging in.
//!
//! The daemon is this program in a separate process, polling over real HTTP; it is killed in the middle of a write and
//! restarted. The final table comes from sandbox logins after the daemon has stopped, so a daemon that writes nothing makes
//! the demo fail.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::{Error, Exit, screen};
use crate::auth0::ACTION_SOURCE;
use crate::domain::Clock;
use okta_auth0_sync_sandbox::{Login, Matcher, NewUser, Options, Sandbox, UserId};

/// Timeout of a step.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// A user in the scenario.
struct DemoUser {
    name: &'static str,
    id: UserId,
    accounts: Vec<String>,
    /// May the user log in at the end?
    lets_in: bool,
}

/// Both tenants, and the directory of the daemon's state.
struct Stage {
    sandbox: Sandbox,
    clock: Arc<dyn Clock>,
    folder: PathBuf,
}

/// Runs the scenario.
///
/// # Errors
/// If the sandbox or the daemon cannot be started.
pub(crate) async fn run(clock: Arc<dyn Clock>) -> Result<Exit, Error> {
    let setup = |what: &'static str| move |error: std::io::Error| Error::Setup(format!("{what}: {error}"));
    let sandbox = Sandbox::start(Options { clock: clock.clone(), ..Options::default() }, ACTION_SOURCE)
        .await
        .map_err(setup("cannot start the sandbox"))?;
    let folder = tempfile::Builder::new()
        .prefix("okta-auth0-sync-demo-")
        .tempdir()
        .map_err(setup("cannot create a directory for the state"))?
        .keep();
    let stage = Stage { sandbox, clock, folder };
    let mut users = stage.users();
    let before: Vec<Vec<String>> = users.iter().map(|user| stage.seen(user)).collect();
    screen::remark("An Okta org and an Auth0 tenant on loopback; six users, all able to log in.");

    let told = stage.play(&mut users).await?;
    if let Some(failed) = told {
        screen::remark(&format!("{}: {failed}", screen::paint(screen::BAD, "failed")));
        screen::remark(&format!("The daemon's log: {}", stage.folder.join("daemon.log").display()));
        return Ok(Exit::Failed);
    }
    let (text, verified) = stage.ending(&users, &before);
    screen::out(&text).map_err(Error::Output)?;
    Ok(if verified { Exit::Done } else { Exit::Failed })
}

impl Stage {
    /// Creates six users in both tenants: one with two accounts, one with none.
    fn users(&self) -> Vec<DemoUser> {
        let (okta, auth0) = (self.sandbox.okta(), self.sandbox.auth0());
        let user = |name: &'static str, lets_in: bool, accounts: &[(&str, &str)]| {
            let email = format!("{}@example.com", name.to_lowercase());
            let id = okta.create_user(&NewUser::new(&email, &email).named(name, "Example"));
            let accounts = accounts
                .iter()
                .map(|(connection, email)| {
                    auth0.create_user(json!({ "email": email, "email_verified": true, "connection": connection }))
                })
                .collect();
            DemoUser { name, id, accounts, lets_in }
        };
        const DATABASE: &str = "Username-Password-Authentication";
        vec![
            user("Ann", false, &[(DATABASE, "ann@example.com")]),
            user("Bob", false, &[(DATABASE, "bob@example.com"), ("google-oauth2", "Bob@Example.com")]),
            user("Carol", false, &[]),
            user("Dan", true, &[(DATABASE, "dan@example.com")]),
            user("Eve", true, &[(DATABASE, "eve@example.com")]),
            user("Grace", false, &[(DATABASE, "grace@example.com")]),
        ]
    }

    /// Runs the steps. Returns the failed step, if any.
    async fn play(&self, users: &mut [DemoUser]) -> Result<Option<String>, Error> {
        let [ann, bob, carol, dan, _eve, grace] = users else { return Ok(Some("six users are needed".to_owned())) };
        let okta = self.sandbox.okta();
        let mut daemon = self.start_daemon().await?;

        okta.deactivate(&ann.id);
        okta.deactivate(&bob.id);
        okta.deactivate(&carol.id);
        let told = "Ann, Bob (two accounts) and Carol (none) are deactivated in Okta; the daemon denies them in Auth0";
        if !self.step(told, async || self.all_denied(&[ann, bob]).await).await {
            return Ok(Some("Ann and Bob were not denied".to_owned()));
        }

        okta.deactivate(&dan.id);
        if !self.step("Dan is deactivated", async || self.all_denied(&[dan]).await).await {
            return Ok(Some("Dan was not denied".to_owned()));
        }
        okta.activate(&dan.id);
        if !self.step("Dan is reactivated, and can log in again", async || self.all_let_in(&[dan]).await).await {
            return Ok(Some("Dan cannot log in again".to_owned()));
        }

        let hold = self.sandbox.auth0().faults().hold(Matcher::new("PATCH", "/api/v2/users"));
        okta.deactivate(&grace.id);
        let arrived = tokio::time::timeout(STEP_TIMEOUT, hold.arrived()).await.is_ok();
        let _ = daemon.kill().await;
        drop(hold);
        if !arrived {
            return Ok(Some("the daemon did not start to deny Grace".to_owned()));
        }
        self.say("Grace is deactivated; the daemon is killed in the middle of denying her (SIGKILL)");
        let mut daemon = self.start_daemon().await?;
        if !self.step("The daemon is restarted and catches up", async || self.all_denied(&[grace]).await).await {
            return Ok(Some("Grace was not denied after the restart".to_owned()));
        }
        if !self.step("The queue is empty", async || self.is_idle().await).await {
            return Ok(Some("the queue did not become empty".to_owned()));
        }
        Ok(if stop(&mut daemon).await { None } else { Some("the daemon did not shut down cleanly".to_owned()) })
    }

    /// Starts this program with a configuration for the sandbox that polls every second.
    async fn start_daemon(&self) -> Result<Child, Error> {
        let setup = |error: std::io::Error| Error::Setup(format!("cannot start the daemon: {error}"));
        let config = self.folder.join("config.toml");
        let text = format!(
            "{}\n[schedule]\npoll = \"* * * * * *\"\n\n[store]\npath = {}\n",
            self.sandbox.config_toml(),
            toml::Value::String(self.state().display().to_string()),
        );
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&config).and_then(|mut file| file.write_all(text.as_bytes())).map_err(setup)?;
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.folder.join("daemon.log"))
            .map_err(setup)?;
        let program = std::env::current_exe().map_err(setup)?;
        // Settings of the caller's installation must not leak into the demo.
        let foreign = std::env::vars_os()
            .map(|(name, _)| name)
            .filter(|name| name.to_string_lossy().starts_with("OKTA_AUTH0_SYNC") || name == "NOTIFY_SOCKET");
        let mut command = Command::new(program);
        for name in foreign {
            command.env_remove(name);
        }
        command
            .arg("--config")
            .arg(&config)
            .arg("run")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(setup)
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state.db")
    }

    fn say(&self, text: &str) {
        screen::remark(&format!("{} {text}", screen::paint(screen::GOOD, "✓")));
    }

    /// Waits with a spinner until `done` returns true.
    async fn step(&self, told: &str, done: impl AsyncFn() -> bool) -> bool {
        let bar = if std::io::stderr().is_terminal() && !screen::is_dumb() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.set_message(told.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        let began = self.clock.monotonic();
        let mut came = done().await;
        while !came && self.clock.monotonic().saturating_sub(began) < STEP_TIMEOUT {
            self.clock.sleep(Duration::from_millis(50)).await;
            came = done().await;
        }
        bar.finish_and_clear();
        if came {
            self.say(told);
        }
        came
    }

    async fn all_denied(&self, users: &[&DemoUser]) -> bool {
        users.iter().flat_map(|user| &user.accounts).all(|account| !self.sandbox.auth0().login(account).is_granted())
    }

    async fn all_let_in(&self, users: &[&DemoUser]) -> bool {
        users.iter().flat_map(|user| &user.accounts).all(|account| self.sandbox.auth0().login(account).is_granted())
    }

    /// Does the state say that every user is settled? Reads it while the daemon is running.
    async fn is_idle(&self) -> bool {
        let Ok(store) = super::wiring::state(&self.state()).await else { return false };
        let status = store.status().await;
        store.close().await;
        matches!(status, Ok(Some(status)) if status.pending == 0 && status.failed == 0 && status.held == 0)
    }

    /// One word per account of a user: its mark in Auth0.
    fn seen(&self, user: &DemoUser) -> Vec<String> {
        user.accounts.iter().map(|account| marked(self.sandbox.auth0().user(account).as_ref())).collect()
    }

    /// The final table, and whether every login ended as expected.
    fn ending(&self, users: &[DemoUser], before: &[Vec<String>]) -> (String, bool) {
        let mut verified = true;
        let mut rows = Vec::new();
        for (user, before) in users.iter().zip(before) {
            let status = self.sandbox.okta().user(&user.id).and_then(|user| user["status"].as_str().map(str::to_owned));
            let status = status.unwrap_or_else(|| "(deleted)".to_owned());
            if user.accounts.is_empty() {
                rows.push([user.name.to_owned(), status, "no account".to_owned(), String::new(), "-".to_owned()]);
                continue;
            }
            for (account, before) in user.accounts.iter().zip(before) {
                let after = marked(self.sandbox.auth0().user(account).as_ref());
                let login = self.sandbox.auth0().login(account);
                let right = login.is_granted() == user.lets_in;
                verified &= right;
                let login = match login {
                    Login::Granted => "granted".to_owned(),
                    Login::Denied { reason } => format!("denied ({reason})"),
                };
                let wrong = if right { "" } else { "  <- WRONG" };
                rows.push([
                    user.name.to_owned(),
                    status.clone(),
                    account.clone(),
                    format!("{before} → {after}"),
                    format!("{login}{wrong}"),
                ]);
            }
        }
        let mut text = String::from("\n");
        text.push_str(&screen::table(["USER", "OKTA", "AUTH0 ACCOUNT", "BEFORE → AFTER", "LOGIN"], rows));
        let result = if verified {
            screen::paint(screen::GOOD, "Verified by logging in to each account, with the daemon stopped.")
        } else {
            screen::paint(screen::BAD, "Verification FAILED: see the rows marked WRONG.")
        };
        let state = self.state();
        let _ = write!(
            text,
            "\n{result}\n\nThe state, with every decision and its reason:\n  {}\nQuery it, for example:\n  {}\n",
            state.display(),
            query(&state)
        );
        (text, verified)
    }
}

fn query(state: &Path) -> String {
    format!("sqlite3 -readonly {} \"SELECT email, denied_at, lag_s FROM denied\"", state.display())
}

fn marked(user: Option<&Value>) -> String {
    let Some(user) = user else { return "gone".to_owned() };
    match user["app_metadata"]["okta_sync"]["deactivated"].as_str() {
        Some("true") => "denied",
        Some(_) => "open again",
        None => "open",
    }
    .to_owned()
}

/// Sends SIGTERM and checks the daemon's exit code.
async fn stop(daemon: &mut Child) -> bool {
    let Some(pid) = daemon.id() else { return false };
    // The child has not been reaped, so the process id is still valid.
    let asked = Command::new("kill").arg(pid.to_string()).status().await;
    matches!(asked, Ok(status) if status.success())
        && matches!(tokio::time::timeout(STEP_TIMEOUT, daemon.wait()).await, Ok(Ok(status)) if status.success())
}
