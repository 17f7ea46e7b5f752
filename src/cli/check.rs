//! `check`: one line per check, with a remedy for each warning and failure.

use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::{Error, Exit, screen, wiring};
use crate::config::{Auth0Credentials, Config, Environment, Listen, OktaCredentials, Problem, Schedule};
use crate::domain::{DenialsMax, Timestamp, escape, timestamp_text};

mod limits;
pub(super) mod online;
mod state;

/// Upcoming runs shown per schedule.
const RUNS_SHOWN: usize = 3;

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Passed.
    Pass,
    /// Allowed, but possibly a mistake.
    Warn,
    /// Failed.
    Fail,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub name: String,
    /// The result.
    pub verdict: Verdict,
    /// What was found, and the remedy. May have several lines.
    pub detail: String,
}

/// The results of all checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In order of checking.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Adds a pass.
    pub fn pass(&mut self, name: impl Into<String>, detail: impl Into<String>) {
        self.add(name, Verdict::Pass, detail);
    }

    /// Adds a warning.
    pub fn warn(&mut self, name: impl Into<String>, detail: impl Into<String>) {
        self.add(name, Verdict::Warn, detail);
    }

    /// Adds a failure.
    pub fn fail(&mut self, name: impl Into<String>, detail: impl Into<String>) {
        self.add(name, Verdict::Fail, detail);
    }

    fn add(&mut self, name: impl Into<String>, verdict: Verdict, detail: impl Into<String>) {
        self.findings.push(Finding { name: name.into(), verdict, detail: detail.into() });
    }

    /// Did anything fail?
    pub fn failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.verdict == Verdict::Fail)
    }

    /// `{"ok": …, "findings": [{"name", "verdict": "pass" | "warn" | "fail", "detail"}]}`
    pub fn to_json(&self) -> Value {
        let findings: Vec<Value> = self
            .findings
            .iter()
            .map(|finding| {
                json!({ "name": finding.name, "verdict": finding.verdict.as_str(), "detail": finding.detail })
            })
            .collect();
        json!({ "ok": !self.failed(), "findings": findings })
    }

    /// Renders the report, colored, for a terminal of `columns` columns; unwrapped if `None`.
    pub fn to_text(&self, columns: Option<u16>) -> String {
        let width = self.findings.iter().map(|finding| finding.name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for Finding { name, verdict, detail } in &self.findings {
            let style = match verdict {
                Verdict::Pass => screen::GOOD,
                Verdict::Warn => screen::WARNING,
                Verdict::Fail => screen::BAD,
            };
            let name = escape(name);
            for (number, line) in detail.lines().enumerate() {
                let head = if number == 0 {
                    format!("{}  {name:width$}", screen::paint(style, verdict.as_str()))
                } else {
                    " ".repeat(6 + width)
                };
                text.push_str(&screen::paragraph(&format!("{head}  "), line, columns));
            }
        }
        let count = |verdict| self.findings.iter().filter(|finding| finding.verdict == verdict).count();
        let (warned, failed) = (count(Verdict::Warn), count(Verdict::Fail));
        text.push_str(&match (failed, warned) {
            (0, 0) => format!("\n{}\n", screen::paint(screen::GOOD, "No problems found.")),
            (0, _) => format!("\nNo failures, {}.\n", screen::count(warned as u64, "warning")),
            (_, _) => format!("\n{}\n", screen::paint(screen::BAD, &format!("{failed} failed."))),
        });
        text
    }

    /// Prints the report.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn print(&self, as_json: bool) -> io::Result<()> {
        let text = match as_json {
            true => screen::json(&format!("{:#}\n", self.to_json())),
            false => self.to_text(screen::terminal_width()),
        };
        screen::out(&text)
    }
}

/// `check --offline`: checks the configuration and the state, without the network.
///
/// # Errors
/// If standard output cannot be written.
pub(super) async fn offline(
    file: Option<&Path>,
    environment: &Environment,
    now: Timestamp,
    as_json: bool,
) -> Result<Exit, Error> {
    let report = match Config::load(file, environment) {
        Ok(config) => {
            let mut report = of_config(&config, now);
            state::check(&mut report, &config, None).await;
            report
        }
        Err(error) => {
            let mut report = Report::default();
            for problem in error.problems {
                report.fail("configuration", problem.to_string());
            }
            report
        }
    };
    report.print(as_json).map_err(Error::Output)?;
    Ok(if report.failed() { Exit::Config } else { Exit::Done })
}

/// The checks that need neither network nor state.
fn of_config(config: &Config, now: Timestamp) -> Report {
    let mut report = Report::default();
    let file = config.file.as_ref().map_or_else(|| "environment".to_owned(), |file| file.display().to_string());
    report.pass("configuration", file);
    for Problem { subject, message } in &config.warnings {
        report.warn(subject, message);
    }
    address(&mut report, "okta.url", config.okta.url.as_str(), "https://acme.okta.com/");
    address(&mut report, "auth0.url", config.auth0.url.as_str(), "https://acme.eu.auth0.com/");
    if config.auth0.client_id == "YOUR_CLIENT_ID" {
        report.fail("auth0.client_id", "still has the example value; set it to your application's client id");
    }
    secrets(&mut report, config);
    if let Some(path) = &config.tls.ca_file {
        match config
            .tls
            .certificates()
            .map_err(|problem| problem.message)
            .and_then(|_| wiring::http(config).map(|_| ()).map_err(|error| format!("{}: {error}", path.display())))
        {
            Ok(()) => report.pass("tls.ca_file", path.display().to_string()),
            Err(message) => report.fail("tls.ca_file", message),
        }
    }
    if let Some(Err(problem)) = config.http.listen.as_ref().map(Listen::group_id) {
        report.fail(problem.subject, problem.message);
    }
    if let Some(proxy) = &config.proxies.https {
        report.pass("proxy", format!("{proxy}; not used for {}", config.proxies.bypass.replace(',', ", ")));
    }
    let denied: Vec<&str> = config.policy.deny_statuses.iter().map(|status| status.as_str()).collect();
    report.pass("denied", denied.join(", "));
    if !config.policy.exempt.is_empty() {
        report.pass("never denied", format!("{} users ([scope] exempt)", config.policy.exempt.len()));
    }
    if !config.engine.enforce {
        report.warn("engine.enforce", "is false: nothing is written to Auth0, no user is denied");
    }
    let guard = config.guard;
    report.pass(
        "guard",
        format!(
            "up to {} may be denied for the first time within {}; further denials wait for `approve`",
            match guard.max_denials {
                DenialsMax::Users(users) => screen::count(users, "user"),
                share @ DenialsMax::Share(_) => format!("{share} of the known users"),
            },
            humantime::format_duration(guard.window)
        ),
    );
    schedule(&mut report, "schedule.poll", &config.schedule.poll, now);
    schedule(&mut report, "schedule.reconcile", &config.schedule.reconcile, now);
    report
}

fn address(report: &mut Report, key: &str, url: &str, example: &str) {
    if url == example {
        report.fail(key, format!("{url} is the example value; set it to your own"));
    } else {
        report.pass(key, url);
    }
}

fn secrets(report: &mut Report, config: &Config) {
    let how = |secret: &str| match (secret, &config.okta.credentials, &config.auth0.credentials) {
        ("Okta private key", OktaCredentials::PrivateKey { client_id, .. }, _) => format!(" (service app {client_id})"),
        ("Auth0 client secret" | "Auth0 private key", _, Auth0Credentials::ClientSecret(_))
        | ("Auth0 private key", _, Auth0Credentials::PrivateKey { .. }) => {
            format!(" (application {})", config.auth0.client_id)
        }
        _ => String::new(),
    };
    for (name, secret) in config.secrets() {
        let usable = if name.ends_with("private key") {
            wiring::signing_key(secret).map(|_| ()).map_err(|error| error.to_string())
        } else {
            secret.read().map(|_| ()).map_err(|problem| problem.to_string())
        };
        match usable {
            Ok(()) => match secret.oddity() {
                None => report.pass(name, format!("{}{}", secret.origin(), how(name))),
                Some(oddity) => report.warn(name, oddity.to_string()),
            },
            Err(message) => report.fail(name, message),
        }
    }
    if matches!(config.okta.credentials, OktaCredentials::ApiToken(_)) {
        report.warn(
            "Okta API token",
            "expires with the account of the administrator who created it; a service app ([okta.oauth]) does not",
        );
    }
}

fn schedule(report: &mut Report, key: &str, schedule: &Schedule, now: Timestamp) {
    let runs: Vec<String> = schedule.next_runs(now, RUNS_SHOWN).into_iter().map(timestamp_text).collect();
    report.pass(key, format!("{schedule}  next: {}", runs.join(", ")));
}
