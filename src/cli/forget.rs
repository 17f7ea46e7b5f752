//! `forget`: deletes one user's data from the state and its copies. Marks in Auth0 stay.

use std::fs;
use std::path::{Path, PathBuf};

use super::args::ForgetArgs;
use super::confirm::{confirmed, operator};
use super::user_match::{self, UserMatch};
use super::{Error, Exit, dry_run, screen, wiring};
use crate::config::Config;
use crate::domain::{Timestamp, escape};
use crate::store::{Access, Store, StoreError, copies_of, remove_copy};

/// Forgets the user, after confirmation. Safe while a daemon is running: a look in progress at this user stores nothing
/// afterwards ([`Store::forget`]).
///
/// # Errors
/// If there is no state, or it cannot be written.
pub(crate) async fn run(config: &Config, arguments: &ForgetArgs, now: Timestamp) -> Result<Exit, Error> {
    let store = Store::open_beside(&config.store.path, Access::Beside).await?;
    let user = match UserMatch::find(&store, &arguments.who).await? {
        UserMatch::One(user) => user,
        no_match => return user_match::report_no_match(&arguments.who, &no_match, now),
    };
    let id = user_match::id_of(&user)?;
    let name = escape(user_match::name_of(&user));
    let marked = store.accounts_of(&id).await?.iter().filter(|account| account.denied).count();
    let copies = copies_of(&config.store.path)?;
    let also = if copies.is_empty() {
        String::new()
    } else {
        format!(" Copies from before an upgrade, which are deleted as a whole: {}.", copies.len())
    };
    let question = format!(
        "Delete the stored data of {name} ({id})? Accounts that stay denied in Auth0: {marked}.{also} This cannot be undone."
    );
    if !arguments.yes && !confirmed(&question)? {
        return Ok(Exit::Failed);
    }
    store.forget(&id, &operator(), &wiring::policy_fingerprint(config), now).await?;
    let mut text = format!(
        "forgot {id}: deleted names, addresses and events; anonymized decisions about them, and their name in decisions and \
         events of others. A keyed hash of the id stays for [store] retention, so that nothing records them again"
    );
    if marked > 0 {
        text.push_str(&format!(". Accounts that stay denied in Auth0, stored by Auth0 id and Okta id only: {marked}"));
    }
    screen::out(&screen::paragraph("", &text, screen::terminal_width())).map_err(Error::Output)?;
    // Unused parts of the file may still contain the deleted rows.
    let compacted = store.compact().await;
    store.close().await;
    let copies_gone = remove_copies(&config.store.path, &copies)?;
    if let Err(error) = compacted {
        screen::remark(&format!(
            "{}: unused parts of the state file may contain the data until the next `forget`: {error}",
            screen::paint(screen::WARNING, "warning")
        ));
        return Ok(Exit::Failed);
    }
    Ok(if copies_gone { Exit::Done } else { Exit::Failed })
}

/// Removes the copies beside the state and those of killed dry runs, and names each. Returns whether all are gone.
fn remove_copies(state: &Path, copies: &[PathBuf]) -> Result<bool, Error> {
    let results = copies.iter().map(|copy| remove_copy(copy));
    let failed: Vec<StoreError> = results.filter_map(Result::err).collect();
    let abandoned = dry_run::remove_abandoned(state);
    for copy in copies.iter().chain(&abandoned.removed).filter(|copy| fs::symlink_metadata(copy).is_err()) {
        let text = format!("removed {}, a copy of the state", copy.display());
        screen::out(&screen::paragraph("", &text, screen::terminal_width())).map_err(Error::Output)?;
    }
    let warning = screen::paint(screen::WARNING, "warning");
    for error in &failed {
        screen::remark(&format!("{warning}: a copy of the state still holds the data; remove it: {error}"));
    }
    for folder in &abandoned.left {
        screen::remark(&format!(
            "{warning}: {} may hold a copy of the state: unless a dry run is running, remove it",
            escape(&folder.display().to_string())
        ));
    }
    Ok(failed.is_empty() && abandoned.left.is_empty())
}
