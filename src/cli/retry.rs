//! `retry`: another look at all failed users, or at one user.

use std::sync::Arc;

use super::args::RetryArgs;
use super::ask;
use super::user_match::{self, UserMatch};
use super::{Error, Exit, screen, wiring};
use crate::config::Config;
use crate::domain::{Clock, OutcomeKind};
use crate::engine::request::Request;
use crate::store::Who;

/// Requests the looks and prints the outcomes.
///
/// # Errors
/// If there is no state, or the state or a secret cannot be used.
pub(crate) async fn run(config: &Config, arguments: &RetryArgs, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    let store = wiring::state(&config.store.path).await?;
    let found = match &arguments.who {
        Some(who) => Some((who, UserMatch::find(&store, who).await?)),
        None => None,
    };
    let none_failed = store.users_with_outcome(OutcomeKind::Failed, 1).await?.is_empty();
    store.close().await;
    let answers = match found {
        None if none_failed => {
            screen::out("no user has failed; nothing to retry\n").map_err(Error::Output)?;
            return Ok(Exit::Done);
        }
        None => ask::ask(config, Request::Look(Who::Failed), clock).await?,
        Some((_, UserMatch::One(user))) => {
            let id = user_match::id_of(&user)?;
            ask::ask(config, Request::Look(Who::User(&id)), clock).await?
        }
        Some((who, no_match)) => return user_match::report_no_match(who, &no_match, clock.now()),
    };
    screen::out(&ask::to_text(&answers, screen::terminal_width())).map_err(Error::Output)?;
    Ok(ask::verdict(&answers))
}
