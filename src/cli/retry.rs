//! `retry`: another look at people whose looks failed, or at one person.

use std::sync::Arc;

use super::args::RetryArgs;
use super::ask::{self, Request};
use super::user_match::{self, UserMatch};
use super::{Error, Exit, screen, wiring};
use crate::config::Config;
use crate::domain::{Clock, OutcomeKind};
use crate::store::Who;

/// Looks again, and says what came of it.
///
/// # Errors
/// When there is no state, or it or a secret cannot be used.
pub(crate) async fn run(config: &Config, arguments: &RetryArgs, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    let store = wiring::state(&config.store.path).await?;
    let found = match &arguments.who {
        Some(who) => Some((who, UserMatch::find(&store, who).await?)),
        None => None,
    };
    let nobody_failed = store.users_with_outcome(OutcomeKind::Failed, 1).await?.is_empty();
    store.close().await;
    let answers = match found {
        None if nobody_failed => {
            screen::out("nobody has failed: there is nothing to try again\n").map_err(Error::Output)?;
            return Ok(Exit::Done);
        }
        None => ask::ask(config, Request::Look(Who::Failed), clock).await?,
        Some((_, UserMatch::One(person))) => {
            let id = user_match::id_of(&person)?;
            ask::ask(config, Request::Look(Who::User(&id)), clock).await?
        }
        Some((who, unclear)) => return user_match::report_no_match(who, &unclear, clock.now()),
    };
    screen::out(&ask::to_text(&answers, screen::terminal_width())).map_err(Error::Output)?;
    Ok(ask::verdict(&answers))
}
