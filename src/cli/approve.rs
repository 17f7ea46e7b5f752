//! `approve`: approves held denials and re-evaluates each user; dismisses a quarantined event.

use std::sync::Arc;

use super::args::ApproveArgs;
use super::ask;
use super::user_match::{self, UserMatch};
use super::{Error, Exit, screen, wiring};
use crate::config::Config;
use crate::domain::{Clock, OutcomeKind};
use crate::engine::request::Request;
use crate::store::{Access, Store, Who};

/// Approves the users and prints the outcomes.
///
/// # Errors
/// If there is no state, or the state or a secret cannot be used.
pub(crate) async fn run(config: &Config, arguments: &ApproveArgs, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    let store = wiring::state(&config.store.path).await?;
    let found = match &arguments.who {
        Some(who) => Some((who, UserMatch::find(&store, who).await?)),
        None => None,
    };
    let none_held = store.users_with_outcome(OutcomeKind::Held, 1).await?.is_empty();
    store.close().await;
    let answers = match found {
        None if none_held => return print("no user is held; nothing to approve"),
        None => ask::ask(config, Request::Approve(Who::Held), clock).await?,
        Some((_, UserMatch::One(user))) if user.outcome == Some(OutcomeKind::Held) => {
            let id = user_match::id_of(&user)?;
            ask::ask(config, Request::Approve(Who::User(&id)), clock).await?
        }
        Some((_, UserMatch::One(user))) => {
            return print(&format!(
                "{} is not held; nothing to approve (details: `okta-auth0-sync user {}`)",
                user_match::name_of(&user),
                user.okta_user_id
            ));
        }
        Some((event_id, UserMatch::None)) if dismiss(config, event_id, clock).await? => {
            return print(&format!("dismissed event {event_id} and deleted its text"));
        }
        Some((who, no_match)) => return user_match::report_no_match(who, &no_match, clock.now()),
    };
    screen::out(&ask::to_text(&answers, screen::terminal_width())).map_err(Error::Output)?;
    Ok(ask::verdict(&answers))
}

fn print(text: &str) -> Result<Exit, Error> {
    screen::out(&screen::paragraph("", text, screen::terminal_width())).map_err(Error::Output)?;
    Ok(Exit::Done)
}

/// Dismisses the quarantined event with this id; returns whether there was one. A single statement, so it is safe while
/// a daemon is running.
async fn dismiss(config: &Config, event_id: &str, clock: &Arc<dyn Clock>) -> Result<bool, Error> {
    let store = Store::open_beside(&config.store.path, Access::Beside).await?;
    let dismissed = store.dismiss_event(event_id.trim(), clock.now()).await;
    store.close().await;
    Ok(dismissed?)
}
