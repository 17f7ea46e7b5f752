//! `action`: shows, deploys and checks the Auth0 Action that reads the mark.

use std::fmt::Write;
use std::sync::Arc;

use super::args::{ActionCommand, DeployArgs};
use super::confirm::confirmed;
use super::{Error, Exit, screen, wiring};
use crate::auth0::{Auth0, ShippedAction, Standing, Step};
use crate::config::Config;
use crate::domain::Clock;
use crate::engine::deploy::{Deployment, DeploymentError};
use crate::http::Pacer;

/// Additional scopes for `action deploy`.
const DEPLOY_SCOPES: [&str; 3] = ["read:actions", "create:actions", "update:actions"];

/// Runs a subcommand.
///
/// # Errors
/// If the tenant cannot be read or changed.
pub(crate) async fn run(config: &Config, command: &ActionCommand, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    let shipped = wiring::shipped_action(config);
    let (auth0, pacer) = match command {
        ActionCommand::Show => {
            return screen::out_raw(shipped.code.as_bytes()).map(|()| Exit::Done).map_err(Error::Output);
        }
        ActionCommand::Deploy(_) | ActionCommand::Check => wiring::auth0(config, clock)?,
    };
    match command {
        ActionCommand::Deploy(arguments) => deploy(&auth0, &pacer, clock.as_ref(), &shipped, arguments).await,
        ActionCommand::Check | ActionCommand::Show => {
            let standing = Deployment::new(&auth0, &pacer, clock.as_ref(), &shipped).look().await?;
            screen::out(&table(&standing)).map_err(Error::Output)?;
            Ok(if holds(&standing) { Exit::Done } else { Exit::Failed })
        }
    }
}

async fn deploy(
    auth0: &Auth0,
    pacer: &Pacer,
    clock: &dyn Clock,
    shipped: &ShippedAction,
    arguments: &DeployArgs,
) -> Result<Exit, Error> {
    let deployment = Deployment::new(auth0, pacer, clock, shipped);
    let found = deployment.look().await?;
    if found.steps().is_empty() {
        let told = "nothing to do: the Action is deployed, up to date and first in the post-login flow";
        screen::out(&screen::paragraph("", told, screen::terminal_width())).map_err(Error::Output)?;
        return Ok(Exit::Done);
    }
    screen::out(&plan(&found)).map_err(Error::Output)?;
    if found.is_full() {
        return Err(DeploymentError::Full.into());
    }
    // Checked before the first step: half a deployment is worse than none.
    let missing = missing(&auth0.granted_scopes().await?, &DEPLOY_SCOPES);
    if !missing.is_empty() {
        let verb = if arguments.dry_run { "warning" } else { "error" };
        screen::remark(&format!(
            "{}: grant the application these Management API scopes first (you can revoke them afterwards; the daemon uses \
             read:actions): {}",
            screen::paint(if arguments.dry_run { screen::WARNING } else { screen::BAD }, verb),
            missing.join(" ")
        ));
    }
    if arguments.dry_run {
        screen::out("dry run: nothing was changed\n").map_err(Error::Output)?;
        return Ok(Exit::Done);
    }
    if !missing.is_empty() {
        return Ok(Exit::Failed);
    }
    if !arguments.yes && !confirmed("From then on, every login in the tenant runs this Action. Continue?")? {
        return Ok(Exit::Failed);
    }
    let now = deployment.carry_out(&found, screen::remark).await?;
    screen::out(&table(&now)).map_err(Error::Output)?;
    Ok(if holds(&now) { Exit::Done } else { Exit::Failed })
}

/// The scopes of `needed` that are not granted. Empty if the tenant does not list the granted scopes.
pub(crate) fn missing<'a>(granted: &[String], needed: &[&'a str]) -> Vec<&'a str> {
    if granted.is_empty() {
        return Vec::new();
    }
    needed.iter().copied().filter(|scope| !granted.iter().any(|have| have == scope)).collect()
}

/// Do all conditions hold?
pub(crate) fn holds(standing: &Standing) -> bool {
    standing.conditions().iter().all(|condition| condition.holds)
}

/// The exact changes that a deployment will make.
fn plan(found: &Standing) -> String {
    let name = found.action.as_ref().map_or(found.name.as_str(), |action| action.name.as_str());
    let mut text = "Changes to the tenant:\n".to_owned();
    for step in found.steps() {
        let line = match step {
            Step::Create => format!("create the Action {name} for post-login, with the code of `action show`"),
            Step::Update => format!("replace the code of the Action {name} with that of `action show`"),
            Step::Deploy => format!("build and deploy the Action {name}"),
            Step::Bind => {
                let others = found.flow.len() - usize::from(found.position.is_some());
                let from = found.position.map_or_else(String::new, |at| format!(" (now number {})", at + 1));
                let kept = match others {
                    0 => "no other Action is bound".to_owned(),
                    others => format!("the other {others} keep their order after it"),
                };
                format!("bind it first in the post-login flow{from}; {kept}")
            }
        };
        text.push_str(&screen::paragraph("  - ", &line, screen::terminal_width()));
    }
    text
}

fn table(standing: &Standing) -> String {
    let mut text = String::new();
    for condition in standing.conditions() {
        let verdict =
            if condition.holds { screen::paint(screen::GOOD, "pass") } else { screen::paint(screen::BAD, "fail") };
        let width = screen::terminal_width();
        text.push_str(&screen::paragraph(&format!("{verdict}  {:8}  ", condition.name), &condition.found, width));
        if !condition.remedy.is_empty() {
            text.push_str(&screen::paragraph("                → ", condition.remedy, width));
        }
    }
    if holds(standing) {
        let _ = writeln!(text, "{}", screen::paint(screen::GOOD, "The Action is in force."));
    }
    text
}
