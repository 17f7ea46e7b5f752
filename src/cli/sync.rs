//! `sync`: one pass and its result.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::progress::Progress;
use super::{Error, Exit, screen, signals, wiring};
use crate::config::Config;
use crate::domain::{Clock, Outcome, Status};
use crate::engine::Note;
use crate::engine::pass::{Done, pass};
use crate::engine::sync_user::Report;
use crate::store::StatusRow;

/// Polls to the end of the System Log and processes every due user.
///
/// # Errors
/// If the pass cannot start, or the state fails.
pub(crate) async fn run(config: Config, dry_run: bool, clock: Arc<dyn Clock>) -> Result<Exit, Error> {
    let (notes, heard) = mpsc::unbounded_channel();
    let (engine, _copy) = if dry_run {
        let (engine, copy) = wiring::dry_run_engine(&config, &clock).await?;
        (engine, Some(copy))
    } else {
        (wiring::engine(&config, &clock).await?, None)
    };
    let engine = Arc::new(engine.with_notes(notes));
    let shown = tokio::spawn(show("reading the System Log, new events", heard));
    let stop = signals::stop_on_signal()?;
    let result = pass(&engine, &stop).await;
    engine.close_notes();
    let reports = shown.await.unwrap_or_default();
    let done = result?;
    let status = engine.store().status().await?;
    engine.store().close().await;
    let text = if dry_run { plan(&reports, &done) } else { summary(&reports, &done, status.as_ref()) };
    screen::out(&text).map_err(Error::Output)?;
    Ok(verdict(&done, status.as_ref(), dry_run))
}

/// Shows progress, starting with the step `first`, and returns the last report of each user.
pub(crate) async fn show(first: &'static str, mut heard: mpsc::UnboundedReceiver<Note>) -> Vec<Report> {
    let mut progress = Progress::new();
    progress.begin(first, None);
    let (mut listed, mut looks) = (0, 0);
    let mut reports: BTreeMap<_, Report> = BTreeMap::new();
    while let Some(note) = heard.recv().await {
        match note {
            Note::Page { new_events: more } | Note::ReconcilePage { listed: more, .. } => {
                listed += more;
                progress.at(listed);
            }
            Note::Due { about: 0 } => progress.end(),
            Note::Due { about } => progress.begin("processing users", Some(about)),
            Note::Look(report) => {
                looks += 1;
                progress.at(looks);
                keep(&mut reports, report);
            }
            Note::Pass { .. } | Note::Watched { .. } | Note::Stream { .. } => {}
        }
    }
    progress.end();
    reports.into_values().collect()
}

/// A pass may process a user several times; a later "unchanged" must not hide an earlier write.
fn keep(reports: &mut BTreeMap<crate::domain::OktaUserId, Report>, report: Report) {
    match reports.get_mut(&report.user) {
        Some(known) if report.writes == 0 && report.outcome.settles() && known.outcome.settles() => {}
        Some(known) => *known = report,
        None => {
            reports.insert(report.user.clone(), report);
        }
    }
}

/// Success only if no user is unsettled, so that scripts can rely on it.
pub(super) fn verdict(done: &Done, status: Option<&StatusRow>, dry_run: bool) -> Exit {
    let unfinished = status.is_none_or(|status| status.pending + status.failed + status.held + status.quarantined > 0);
    if done.error.is_some() || done.stopped || (unfinished && !dry_run) { Exit::Failed } else { Exit::Done }
}

fn tally(reports: &[Report]) -> BTreeMap<&'static str, usize> {
    let mut tally = BTreeMap::new();
    for report in reports {
        *tally.entry(report.outcome.as_str()).or_default() += 1;
    }
    tally
}

fn head(done: &Done) -> String {
    let begun = match &done.reconcile {
        Some(reconcile) => {
            let (listed, made_due) = (reconcile.listed, reconcile.made_due);
            format!("{listed} users compared, {made_due} queued")
        }
        None => {
            let (pages, events) =
                (screen::count(done.polled.pages, "page"), screen::count(done.polled.events, "new event"));
            format!("{pages} of the System Log, {events}")
        }
    };
    let width = screen::terminal_width();
    let told = format!(
        "{begun}, {}, {} written",
        screen::count(done.applied.looks, "look"),
        screen::count(done.applied.writes, "account")
    );
    let mut text = screen::paragraph("", &told, width);
    if let Some(error) = &done.error {
        let head = format!("{}: ", screen::paint(screen::BAD, "error"));
        text.push_str(&screen::paragraph(&head, &format!("could not read everything: {error}"), width));
    }
    if done.stopped {
        text.push_str("stopped early; the next run does the rest\n");
    }
    text
}

pub(super) fn summary(reports: &[Report], done: &Done, status: Option<&StatusRow>) -> String {
    let mut text = head(done);
    let counts: Vec<String> = tally(reports).iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    if !counts.is_empty() {
        let counts = counts.join(", ").replace('_', " ");
        text.push_str(&screen::paragraph("users: ", &counts, screen::terminal_width()));
    }
    let unfinished: Vec<&Report> = reports.iter().filter(|report| !report.outcome.settles()).collect();
    if !unfinished.is_empty() {
        text.push('\n');
        text.push_str(&screen::table(
            ["USER", "OUTCOME", "WHY"],
            unfinished.iter().take(50).map(|report| {
                [user_name(report), report.outcome.as_str().replace('_', " "), report.outcome.why().unwrap_or_default()]
            }),
        ));
        if unfinished.len() > 50 {
            let _ = writeln!(text, "… and {} more: `okta-auth0-sync status`", unfinished.len() - 50);
        }
    }
    if let Some(status) = status {
        let open = status.pending + status.failed + status.held + status.quarantined;
        if open > 0 {
            let told = format!(
                "remaining: {} pending, {} failed, {} held, {} quarantined; `okta-auth0-sync status` shows what to do",
                status.pending,
                status.failed,
                status.held,
                screen::count(status.quarantined.unsigned_abs(), "event")
            );
            text.push_str(&screen::paragraph("", &told, screen::terminal_width()));
        }
    }
    text
}

/// One row per account, old → new.
pub(crate) fn plan(reports: &[Report], done: &Done) -> String {
    head(done) + &planned(reports)
}

/// What the looks of a dry run would have written, one row per account.
pub(super) fn planned(reports: &[Report]) -> String {
    let mut text = String::new();
    let mut rows = Vec::new();
    for report in reports {
        let status = report.status.as_ref().map_or("", Status::as_str).to_owned();
        let verdict = report.verdict.map_or("", crate::domain::Verdict::as_str).to_owned();
        let planned: Vec<_> = report.changes.iter().filter(|change| change.before != change.after).collect();
        for change in &planned {
            let accounts = format!("{} → {}", change.before, change.after);
            rows.push([user_name(report), status.clone(), verdict.clone(), change.account.clone(), accounts]);
        }
        let quiet = matches!(report.outcome, Outcome::Unchanged | Outcome::Applied);
        if planned.is_empty() && !quiet {
            let why = report.outcome.why().map_or_else(String::new, |why| format!(": {why}"));
            let said = format!("{}{why}", report.outcome.as_str().replace('_', " "));
            rows.push([user_name(report), status, verdict, "-".to_owned(), said]);
        }
    }
    let written = rows.iter().filter(|row| row[3] != "-").count() as u64;
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&screen::table(["USER", "OKTA", "VERDICT", "AUTH0 ACCOUNT", "BEFORE → AFTER"], rows));
        text.push('\n');
    }
    let told = format!(
        "dry run: {} would be written; nothing was written to Auth0 or the state",
        screen::count(written, "account")
    );
    text.push_str(&screen::paragraph("", &told, screen::terminal_width()));
    text
}

fn user_name(report: &Report) -> String {
    report.email.clone().unwrap_or_else(|| report.user.to_string())
}
