//! `status`: the current state and what needs an operator. Reads only the state file, no secrets, and works whether or
//! not a daemon is running.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Error, Exit, screen, wiring};
use crate::config::Config;
use crate::domain::clock::timestamp_text;
use crate::domain::{Timestamp, escape};
use crate::health::{Attention, Health, Level, Obligation, Violation, display_name};
use crate::store::{StatusRow, StoreError};

/// Items listed per kind.
const SHOWN_MAX: usize = 10;

/// Prints the status. With `check`, the exit code says whether an operator is needed.
///
/// # Errors
/// If the state exists but cannot be read.
pub(crate) async fn run(config: &Config, as_json: bool, check: bool, now: Timestamp) -> Result<Exit, Error> {
    let health = match wiring::state(&config.store.path).await {
        Ok(store) => {
            let mut health = Health::read(&store, wiring::guard(config), now).await?;
            store.close().await;
            // A killed daemon leaves its last sign of life behind. Without the lock file nothing is known.
            match crate::store::is_in_use(&config.store.path) {
                Ok(false) => health.daemon_is_gone(),
                Ok(true) => health.daemon_is_silent(),
                Err(_) => {}
            }
            health
        }
        Err(Error::Store(StoreError::Missing { path })) => {
            if matches!(crate::store::is_in_use(&path), Ok(true)) {
                return Err(StoreError::Displaced { path }.into());
            }
            Health::default()
        }
        Err(error) => return Err(error),
    };
    let text = if as_json {
        screen::json(&format!("{:#}\n", to_json(&health, now)?))
    } else if check {
        check_text(&health, now)
    } else {
        to_text(&health, now, screen::terminal_width())
    };
    screen::out(&text).map_err(Error::Output)?;
    let failed = check && !health.violations().is_empty();
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

/// One line per violated health rule, or the headline if there is none: users may be waiting within their deadlines.
fn check_text(health: &Health, now: Timestamp) -> String {
    let violations = health.violations();
    if violations.is_empty() {
        let headline = health.headline(now);
        return match headline.level {
            Level::Good => "all well\n".to_owned(),
            Level::Working | Level::Bad => format!("{}\n", escape(&headline.text)),
        };
    }
    let width = screen::terminal_width();
    let line = |violation: &Violation| screen::paragraph(&format!("{}: ", violation.rule), &violation.detail, width);
    violations.iter().map(line).collect()
}

/// The object of `status --json`, documented in `docs/json.md`.
///
/// # Errors
/// If a row cannot be serialized.
pub fn to_json(health: &Health, now: Timestamp) -> Result<Value, serde_json::Error> {
    let mut object = match &health.status {
        Some(status) => match serde_json::to_value(status)? {
            Value::Object(columns) => columns,
            other => Map::from_iter([("status".to_owned(), other)]),
        },
        None => Map::new(),
    };
    object.insert("as_of".to_owned(), timestamp_text(now).into());
    object.insert("never_ran".to_owned(), health.last_poll_ok_at().is_none().into());
    object.insert("headline".to_owned(), health.headline(now).text.into());
    object.insert("obligations".to_owned(), serde_json::to_value(&health.obligations)?);
    if let Some(guard) = &health.guard {
        object.insert("guard".to_owned(), serde_json::to_value(guard)?);
    }
    object.insert("left_open".to_owned(), serde_json::to_value(health.left_open)?);
    object.insert("remotes".to_owned(), serde_json::to_value(&health.remotes)?);
    object.insert("alarms".to_owned(), serde_json::to_value(&health.alarms)?);
    object.insert("attention".to_owned(), serde_json::to_value(health.attention())?);
    object.insert("violations".to_owned(), serde_json::to_value(health.violations())?);
    Ok(Value::Object(object))
}

/// Renders the status for a terminal of `width` columns; `None` means no terminal and no wrapping.
pub fn to_text(health: &Health, now: Timestamp, width: Option<u16>) -> String {
    let Some(status) = &health.status else {
        return format!(
            "{}\n{}",
            screen::paint(screen::WARNING, "Never ran"),
            screen::paragraph(
                "",
                "No state yet: start the service, or run `okta-auth0-sync check`, then `okta-auth0-sync sync`.",
                width
            )
        );
    };
    let attention = health.attention();
    let headline = health.headline(now);
    let style = match headline.level {
        Level::Good => screen::GOOD,
        Level::Working => screen::WARNING,
        Level::Bad => screen::BAD,
    };
    let mut text = screen::paint(style, &escape(&headline.text));
    text.push_str("\n\n");
    text.push_str(&screen::pairs(facts(health, status, now), width));
    let _ = write!(text, "\n{}\n", screen::paint(screen::STRONG, "Obligations"));
    text.push_str(&screen::pairs(obligations(health, now), width));
    if status.last_reconcile_ok_at.is_none() {
        text.push('\n');
        text.push_str(&screen::paragraph(
            "",
            "No reconcile yet: the daemon runs one of all users at its first start, to deny users that were deactivated before \
             the first poll. Without the daemon, run `okta-auth0-sync reconcile --all` once.",
            width,
        ));
    }
    if !attention.is_empty() {
        let _ = write!(text, "\n{}\n", screen::paint(screen::STRONG, "Needs attention"));
        text.push_str(&attention_text(health, &attention, now, width));
    }
    text
}

fn facts<'a>(health: &'a Health, status: &StatusRow, now: Timestamp) -> Vec<(&'a str, String)> {
    let when = |at: &Option<String>| match at {
        Some(at) => screen::relative_text(Some(at), now),
        None => "never".to_owned(),
    };
    let enforcement =
        if status.enforce { "on" } else { "OFF: nothing is written to Auth0, no user is denied" }.to_owned();
    let mut facts = vec![
        ("enforcement", enforcement),
        ("action", action(status, now)),
        ("last good poll", when(&status.last_poll_ok_at)),
        ("last look", when(&status.last_apply_ok_at)),
        ("last reconcile", when(&status.last_reconcile_ok_at)),
        ("cursor moved", when(&status.cursor_moved_at)),
        ("accounts denied", status.denied.to_string()),
        (
            "guard",
            health.guard.as_ref().map_or_else(String::new, |guard| format!("{}; {} held", guard.usage(), guard.held)),
        ),
        ("users", format!("{} pending, {} failed, {} held", status.pending, status.failed, status.held)),
        ("events", format!("{} quarantined", status.quarantined)),
    ];
    if let Some(text) = health.left_open_text() {
        facts.push(("not denied", format!("{text}; the views `unmatched` and `skipped` list them")));
    }
    if status.oldest_pending_at.is_some() {
        facts.push(("oldest pending", when(&status.oldest_pending_at)));
    }
    facts.push(("lag", lag(status)));
    for remote in &health.remotes {
        let said = match (&remote.error, remote.is_failing()) {
            (Some(error), true) => format!("{}: {error}", screen::relative_text(remote.failing_since.as_deref(), now)),
            _ if remote.ok_at.is_none() => "no errors recorded".to_owned(),
            _ => "reachable".to_owned(),
        };
        facts.push((display_name(&remote.remote), said));
    }
    facts.push(("version", status.version.clone()));
    facts
}

/// Every obligation: whether it is met, its age and its deadline.
fn obligations(health: &Health, now: Timestamp) -> Vec<(&str, String)> {
    health.obligations.iter().map(|one| (one.name.as_str(), obligation(one, now))).collect()
}

fn obligation(one: &Obligation, now: Timestamp) -> String {
    let mut text = match one.met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "unknown",
    }
    .to_owned();
    if let Some(since) = &one.since {
        let _ = write!(text, ", {}", screen::relative_text(Some(since), now));
    }
    if let Some(deadline) = one.deadline_s.and_then(|seconds| u64::try_from(seconds).ok()) {
        let _ = write!(text, " (deadline {})", screen::span(Duration::from_secs(deadline)));
    }
    if !one.is_met() {
        let _ = write!(text, ": {}", one.detail);
    }
    text
}

/// The result of the last Action check and its age.
fn action(status: &StatusRow, now: Timestamp) -> String {
    match (&status.enforcement, &status.enforcement_checked_at) {
        (Some(found), Some(at)) => format!("{found}, {}", screen::relative_text(Some(at), now)),
        _ => "never checked".to_owned(),
    }
}

/// Seconds from the publication of a deactivation to the mark.
fn lag(status: &StatusRow) -> String {
    match (status.lag_p50_s, status.lag_p99_s, status.lag_max_s) {
        (Some(p50), Some(p99), Some(max)) => format!("p50 {p50:.1} s, p99 {p99:.1} s, max {max:.1} s"),
        _ => "not measured yet".to_owned(),
    }
}

fn attention_text(health: &Health, attention: &[Attention], now: Timestamp, width: Option<u16>) -> String {
    let mut text = String::new();
    let mut kinds: Vec<&str> = Vec::new();
    for item in attention {
        if !kinds.contains(&item.kind.as_str()) {
            kinds.push(&item.kind);
        }
    }
    for kind in kinds {
        let of_kind: Vec<&Attention> = attention.iter().filter(|item| item.kind == kind).collect();
        for item in of_kind.iter().take(SHOWN_MAX) {
            let who = match (&item.name, item.subject.is_empty()) {
                (Some(name), _) if *name == display_name(&item.subject) => format!("{name}: "),
                (Some(name), _) => format!("{name} ({}): ", item.subject),
                (None, false) => format!("{}: ", display_name(&item.subject)),
                (None, true) => String::new(),
            };
            let since = screen::relative_text(item.since.as_deref(), now);
            text.push_str(&screen::paragraph("  ", &format!("{kind}  {who}{}, {since}", item.detail), width));
            text.push_str(&screen::paragraph("    → ", &item.remedy, width));
        }
        let counted = health.status.as_ref().map_or(0, |status| match kind {
            "failed" => status.failed,
            "held" => status.held - health.guard.as_ref().map_or(0, |guard| guard.held),
            "quarantined" => status.quarantined,
            _ => 0,
        });
        let more = usize::try_from(counted).unwrap_or(0).max(of_kind.len()).saturating_sub(SHOWN_MAX);
        if more > 0 {
            let _ = writeln!(text, "  … and {more} more {kind}");
        }
    }
    text
}
