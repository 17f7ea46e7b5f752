//! `purge`: removes all of our marks from Auth0, before uninstalling.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use super::args::PurgeArgs;
use super::confirm::confirmed;
use super::progress::Progress;
use super::{Error, Exit, screen, signals, wiring};
use crate::config::Config;
use crate::domain::Clock;
use crate::engine::purge::{ClearedAccount, Purge};
use crate::store::{RunCounts, RunKind};

/// Failed accounts listed individually.
const SHOWN: usize = 50;

/// Clears every account, after confirmation.
///
/// # Errors
/// If the state is in use or cannot be used.
pub(crate) async fn run(config: &Config, arguments: &PurgeArgs, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    let (engine, _copy) = if arguments.dry_run {
        let (engine, copy) = wiring::dry_run_engine(config, clock).await?;
        (engine, Some(copy))
    } else {
        (wiring::engine(config, clock).await?, None)
    };
    let known = engine.store().status().await?.map_or(0, |status| status.denied);
    let question = format!(
        "Remove all marks from {}? This allows logins again for the {known} accounts that are known to be denied, and for any \
         others that a search finds.",
        config.auth0.url
    );
    if !arguments.dry_run && !arguments.yes && !confirmed(&question)? {
        engine.store().close().await;
        return Ok(Exit::Failed);
    }
    let stop = signals::stop_on_signal()?;
    let run = engine.store().begin_run(RunKind::Purge, clock.now()).await?;
    let mut progress = Progress::new();
    let step = if arguments.dry_run { "finding marks" } else { "removing marks" };
    progress.begin(step, Some(known.unsigned_abs()));
    let cleared: Mutex<Vec<ClearedAccount>> = Mutex::default();
    let purge = engine
        .purge(arguments.dry_run, &stop, |account| {
            let mut cleared = cleared.lock().unwrap_or_else(PoisonError::into_inner);
            cleared.push(account.clone());
            progress.at(cleared.len() as u64);
        })
        .await;
    progress.end();
    let purge = purge?;
    let counts = RunCounts { writes: purge.freed, ..RunCounts::default() };
    let left =
        (!purge.left.is_empty()).then(|| format!("{} failed", screen::count(purge.left.len() as u64, "account")));
    let error = purge.incomplete.clone().or(left);
    engine.store().finish_run(run, counts, error.as_deref(), clock.now()).await?;
    engine.store().close().await;
    let cleared = cleared.into_inner().unwrap_or_else(PoisonError::into_inner);
    screen::out(&text(&purge, &cleared, arguments.dry_run)).map_err(Error::Output)?;
    Ok(if purge.left.is_empty() && purge.incomplete.is_none() { Exit::Done } else { Exit::Failed })
}

fn text(purge: &Purge, cleared: &[ClearedAccount], dry_run: bool) -> String {
    let mut text = String::new();
    if dry_run && !cleared.is_empty() {
        let rows = cleared.iter().map(|account| {
            let change = format!("{} → {}", account.before, account.after);
            [account.account.to_string(), account.email.clone().unwrap_or_else(|| "-".to_owned()), change]
        });
        text.push_str(&screen::table(["AUTH0 ACCOUNT", "E-MAIL", "BEFORE → AFTER"], rows));
        text.push('\n');
    }
    if !purge.left.is_empty() {
        let rows = purge.left.iter().take(SHOWN).map(|(account, why)| [account.to_string(), why.clone()]);
        text.push_str(&screen::table(["NOT CLEARED", "WHY"], rows));
        if purge.left.len() > SHOWN {
            let _ = writeln!(text, "… and {} more", purge.left.len() - SHOWN);
        }
        text.push('\n');
    }
    let width = screen::terminal_width();
    if let Some(why) = &purge.incomplete {
        let head = format!("{}: ", screen::paint(screen::BAD, "error"));
        text.push_str(&screen::paragraph(&head, &format!("could not process every account: {why}"), width));
    }
    let accounts = screen::count(purge.freed, "account");
    let (clean, left) = (purge.clean, purge.left.len());
    if dry_run {
        let told = format!("dry run: marks would be removed from {accounts}; nothing was changed");
        text.push_str(&screen::paragraph("", &told, width));
    } else {
        let told = format!("removed marks from {accounts}; {clean} had none, {left} failed");
        text.push_str(&screen::paragraph("", &told, width));
        let next = if left == 0 && purge.incomplete.is_none() {
            "next: stop and remove the service (systemctl disable --now okta-auth0-sync), else it denies the same users again; \
             then unbind the Action"
        } else {
            "not finished: accounts are still denied; fix the cause, then run `purge` again, and keep the state until then"
        };
        text.push_str(&screen::paragraph("", next, width));
    }
    text
}
