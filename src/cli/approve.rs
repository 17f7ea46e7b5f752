//! `approve`: shows what held users wait for, asks, and releases them; dismisses a quarantined event.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use super::args::ApproveArgs;
use super::ask;
use super::confirm::{confirmed, operator};
use super::user_match::{self, UserMatch};
use super::{Error, Exit, screen, wiring};
use crate::config::Config;
use crate::domain::{Clock, Held, OktaUserId};
use crate::engine::request::{Answer, Request};
use crate::store::{Access, Approval, HeldUser, Store};

/// Users listed individually before the question.
const SHOWN_MAX: usize = 50;

/// Approves the users for the reasons shown, and prints the outcomes.
///
/// # Errors
/// If there is no state, or the state or a secret cannot be used.
pub(crate) async fn run(config: &Config, arguments: &ApproveArgs, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    let store = wiring::state(&config.store.path).await?;
    let held = store.held().await?;
    let chosen = if arguments.all {
        Ok(Some(held.iter().filter(|user| user.why == Held::Guard).cloned().collect()))
    } else {
        named(config, &store, &held, arguments, clock).await
    };
    store.close().await;
    let Some(chosen): Option<Vec<HeldUser>> = chosen? else { return Ok(Exit::Failed) };
    let others = if arguments.all { held.len() - chosen.len() } else { 0 };
    if chosen.is_empty() {
        if arguments.all {
            let by = if others > 0 { " by the guard" } else { "" };
            print(&format!("no user is held{by}; nothing to approve{}", other_reasons(others)))?;
        }
        return Ok(Exit::Done);
    }
    screen::out(&plan(&chosen, screen::terminal_width())).map_err(Error::Output)?;
    let asks = !arguments.yes && (arguments.all || io::stdin().is_terminal());
    if asks && !confirmed("Approve?")? {
        return Ok(Exit::Failed);
    }
    let (by, policy) = (operator(), config.policy.fingerprint());
    let approval = Approval { held: &chosen, by: &by, reason: arguments.reason.as_deref(), policy: &policy };
    let answers = ask::ask(config, Request::Approve(approval), clock).await?;
    let words = effects(config, &chosen, &answers).await?;
    screen::out(&ask::to_text_with(&answers, &words, screen::terminal_width())).map_err(Error::Output)?;
    if others > 0 {
        print(other_reasons(others).trim_start_matches("; "))?;
    }
    let all_covered = answers.len() == chosen.len();
    if !all_covered {
        print(&format!(
            "{} of {} users changed in the meantime and were not approved",
            chosen.len() - answers.len(),
            chosen.len()
        ))?;
    }
    Ok(if all_covered { ask::verdict(&answers) } else { Exit::Failed })
}

/// The held users among those that the operator named. `None` if a name matches no user, or several.
async fn named(
    config: &Config,
    store: &Store,
    held: &[HeldUser],
    arguments: &ApproveArgs,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Vec<HeldUser>>, Error> {
    let mut chosen: Vec<HeldUser> = Vec::new();
    for who in &arguments.who {
        match UserMatch::find(store, who).await? {
            UserMatch::One(user) => match held.iter().find(|held| held.id.as_str() == user.okta_user_id) {
                Some(held) if chosen.contains(held) => {}
                Some(held) => chosen.push(held.clone()),
                None => print(&format!(
                    "{} is not held; nothing to approve (details: `okta-auth0-sync user {}`)",
                    user_match::name_of(&user),
                    user.okta_user_id
                ))?,
            },
            UserMatch::None => match dismiss(config, who, clock).await? {
                Some(users) => print(&dismissed(who, users.len()))?,
                None => return user_match::report_no_match(who, &UserMatch::None, clock.now()).map(|_| None),
            },
            several => return user_match::report_no_match(who, &several, clock.now()).map(|_| None),
        }
    }
    Ok(Some(chosen))
}

/// What each approval will do, and the sums.
fn plan(chosen: &[HeldUser], width: Option<u16>) -> String {
    let effect = |user: &HeldUser| if user.why.opens() { "open" } else { "deny" };
    let mut text = screen::table_of_width(
        ["USER", "OKTA ID", "OKTA", "HELD", "APPROVAL WILL"],
        chosen.iter().take(SHOWN_MAX).map(|user| {
            [
                user.name.clone().unwrap_or_else(|| "-".to_owned()),
                user.id.to_string(),
                user.status.clone().unwrap_or_else(|| "-".to_owned()),
                user.why.to_string(),
                effect(user).to_owned(),
            ]
        }),
        width,
    );
    if chosen.len() > SHOWN_MAX {
        text.push_str(&format!("… and {} more\n", chosen.len() - SHOWN_MAX));
    }
    let opened = chosen.iter().filter(|user| user.why.opens()).count();
    let sums: Vec<String> = [("deny", chosen.len() - opened), ("open", opened)]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(word, count)| format!("{word} {count}"))
        .collect();
    text.push_str(&screen::paragraph(
        "",
        &format!("approving will {}; users who are active again by then are released", sums.join(", ")),
        width,
    ));
    text
}

fn other_reasons(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => "; 1 user is held for another reason: `okta-auth0-sync status` shows it, approve it by name".to_owned(),
        _ => format!(
            "; {others} users are held for other reasons: `okta-auth0-sync status` shows them, approve them by name"
        ),
    }
}

/// What the approvals did, in the operator's words.
async fn effects(
    config: &Config,
    chosen: &[HeldUser],
    answers: &[Answer],
) -> Result<HashMap<OktaUserId, &'static str>, Error> {
    let store = wiring::state(&config.store.path).await?;
    let mut words = HashMap::new();
    for answer in answers.iter().filter(|answer| answer.settles()) {
        let Some(user) = chosen.iter().find(|user| user.id == answer.id) else { continue };
        let denied = store.accounts_of(&answer.id).await?.iter().any(|account| account.denied);
        if denied {
            words.insert(answer.id.clone(), "denied");
        } else if user.why.opens() {
            words.insert(answer.id.clone(), "opened");
        }
    }
    store.close().await;
    Ok(words)
}

fn print(text: &str) -> Result<(), Error> {
    screen::out(&screen::paragraph("", text, screen::terminal_width())).map_err(Error::Output)
}

/// What dismissing an event did, and what follows.
fn dismissed(event_id: &str, users: usize) -> String {
    let looks = match users {
        0 => "it names no user that can be read".to_owned(),
        1 => "the user that it names is queued".to_owned(),
        count => format!("the {count} users that it names are queued"),
    };
    format!(
        "dismissed event {event_id} and deleted its text; {looks}, and the daemon runs a reconcile to find users who left \
         unnoticed (`okta-auth0-sync status` shows it)"
    )
}

/// Dismisses the quarantined event with this id; returns the users that it names. A single transaction, so it is safe while
/// a daemon is running.
async fn dismiss(config: &Config, event_id: &str, clock: &Arc<dyn Clock>) -> Result<Option<Vec<OktaUserId>>, Error> {
    let store = Store::open_beside(&config.store.path, Access::Beside).await?;
    let dismissed = store.dismiss_event(event_id.trim(), clock.now()).await;
    store.close().await;
    Ok(dismissed?)
}
