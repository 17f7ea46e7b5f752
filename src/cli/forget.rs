//! `forget`: one person's data out of the state. Marks in Auth0 stay.

use super::args::ForgetArgs;
use super::confirm::confirmed;
use super::user_match::{self, UserMatch};
use super::{Error, Exit, screen};
use crate::config::Config;
use crate::domain::{Timestamp, escape};
use crate::store::{Access, Store};

/// Forgets them, after asking. Safe beside a daemon: a look at the person that is under way leaves nothing behind
/// ([`Store::forget`]).
///
/// # Errors
/// When there is no state, or it cannot be written.
pub(crate) async fn run(config: &Config, arguments: &ForgetArgs, now: Timestamp) -> Result<Exit, Error> {
    let store = Store::open_beside(&config.store.path, Access::Beside).await?;
    let person = match UserMatch::find(&store, &arguments.who).await? {
        UserMatch::One(person) => person,
        unclear => return user_match::report_no_match(&arguments.who, &unclear, now),
    };
    let id = user_match::id_of(&person)?;
    let name = escape(user_match::name_of(&person));
    let marked = store.accounts_of(&id).await?.iter().filter(|account| account.denied).count();
    let question = format!(
        "Delete the stored data of {name} ({id})? Accounts that stay denied in Auth0: {marked}. This cannot be undone."
    );
    if !arguments.yes && !confirmed(&question)? {
        return Ok(Exit::Failed);
    }
    store.forget(&id, &actor(), &config.policy.fingerprint(), now).await?;
    let mut text = format!("forgot {id}: deleted names, addresses and events; anonymized decisions");
    if marked > 0 {
        text.push_str(&format!("; accounts that stay denied in Auth0, stored by their Auth0 id only: {marked}"));
    }
    screen::out(&screen::paragraph("", &text, screen::terminal_width())).map_err(Error::Output)?;
    // What is left over of deleted rows in unused parts of the file.
    let compacted = store.compact().await;
    store.close().await;
    if let Err(error) = compacted {
        screen::remark(&format!(
            "{}: unused parts of the state file may contain the data until the next `forget`: {error}",
            screen::paint(screen::WARNING, "warning")
        ));
        return Ok(Exit::Failed);
    }
    Ok(Exit::Done)
}

/// Who does it, for the decision that says so: the account that `sudo` was called from, else the present one.
fn actor() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|variable| std::env::var(variable).ok().filter(|name| !name.is_empty()));
    name.map_or_else(|| "command".to_owned(), |name| format!("command ({name})"))
}
