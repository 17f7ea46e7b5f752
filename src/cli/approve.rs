//! `approve`: held people are let through, each looked at anew; a quarantined event is put aside.

use std::sync::Arc;

use super::args::ApproveArgs;
use super::ask::{self, Request};
use super::user_match::{self, UserMatch};
use super::{Error, Exit, screen, wiring};
use crate::config::Config;
use crate::domain::{Clock, OutcomeKind};
use crate::store::{Access, Store, Who};

/// Lets them through, and says what came of it.
///
/// # Errors
/// When there is no state, or it or a secret cannot be used.
pub(crate) async fn run(config: &Config, arguments: &ApproveArgs, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    let store = wiring::state(&config.store.path).await?;
    let found = match &arguments.who {
        Some(who) => Some((who, UserMatch::find(&store, who).await?)),
        None => None,
    };
    let nobody_held = store.users_with_outcome(OutcomeKind::Held, 1).await?.is_empty();
    store.close().await;
    let answers = match found {
        None if nobody_held => return told("nobody is held: there is nothing to approve"),
        None => ask::ask(config, Request::Approve(Who::Held), clock).await?,
        Some((_, UserMatch::One(person))) if person.outcome == Some(OutcomeKind::Held) => {
            let id = user_match::id_of(&person)?;
            ask::ask(config, Request::Approve(Who::User(&id)), clock).await?
        }
        Some((_, UserMatch::One(person))) => {
            return told(&format!(
                "{} is not held: there is nothing to approve (`okta-auth0-sync user {}` tells how they stand)",
                user_match::name_of(&person),
                person.okta_user_id
            ));
        }
        Some((event_id, UserMatch::None)) if dismissed(config, event_id, clock).await? => {
            return told(&format!("event {} is put aside; its text was dropped", event_id));
        }
        Some((who, unclear)) => return user_match::report_no_match(who, &unclear, clock.now()),
    };
    screen::out(&ask::to_text(&answers, screen::terminal_width())).map_err(Error::Output)?;
    Ok(ask::verdict(&answers))
}

fn told(text: &str) -> Result<Exit, Error> {
    screen::out(&screen::paragraph("", text, screen::terminal_width())).map_err(Error::Output)?;
    Ok(Exit::Done)
}

/// Puts a quarantined event of this name aside: one statement, and so safe beside a daemon. Was there one?
async fn dismissed(config: &Config, event_id: &str, clock: &Arc<dyn Clock>) -> Result<bool, Error> {
    let store = Store::open_beside(&config.store.path, Access::Beside).await?;
    let dismissed = store.dismiss_event(event_id.trim(), clock.now()).await;
    store.close().await;
    Ok(dismissed?)
}
