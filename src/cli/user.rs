//! `user`: the full history of one user, with the reasons; optionally the current data of both tenants, and a look.

use std::sync::Arc;

use serde_json::{Value, json};

use super::args::UserArgs;
use super::ask;
use super::story::Story;
use super::user_match::{self, UserMatch};
use super::{Error, Exit, live, screen, sync, wiring};
use crate::config::Config;
use crate::domain::{Clock, OktaUserId, OutcomeKind};
use crate::engine::request::{Answer, Request};
use crate::engine::sync_user::Report;
use crate::store::{StoreError, UserRow, Who};

/// Prints the history.
///
/// # Errors
/// If there is no state, or the state, a secret or (with `--live`) a remote cannot be used.
pub(crate) async fn run(config: &Config, arguments: &UserArgs, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    let store = match wiring::state(&config.store.path).await {
        Ok(store) => Some(store),
        // `--live` also works without a state.
        Err(Error::Store(StoreError::Missing { .. })) if arguments.live => None,
        Err(error) => return Err(error),
    };
    let matched = match &store {
        Some(store) => UserMatch::find(store, &arguments.who).await?,
        None => UserMatch::None,
    };
    let mut org = None;
    if let Some(store) = store {
        org = store.okta_org().await?;
        store.close().await;
    }
    match matched {
        UserMatch::One(user) => known(config, arguments, &user_match::id_of(&user)?, clock).await,
        UserMatch::Ambiguous(users) => several(arguments, &users, clock),
        UserMatch::None if arguments.live => unknown(config, arguments, org.as_deref(), clock).await,
        UserMatch::None => {
            if arguments.json {
                print_json(&json!({ "matches": [] }))?;
            }
            let hint = "(add --live to search Okta and Auth0)";
            screen::remark(&format!(
                "{}: {} {hint}",
                screen::paint(screen::BAD, "error"),
                user_match::no_match(&arguments.who)
            ));
            Ok(Exit::Failed)
        }
    }
}

fn several(arguments: &UserArgs, users: &[UserRow], clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    if arguments.json {
        print_json(&json!({ "matches": users }))?;
        return Ok(Exit::Failed);
    }
    user_match::report_no_match(&arguments.who, &UserMatch::Ambiguous(users.to_vec()), clock.now())
}

/// A user in the state, or one that the requested look adds to it.
async fn known(config: &Config, arguments: &UserArgs, id: &OktaUserId, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    if arguments.dry_run {
        return dry_run_look(config, arguments, id, clock).await;
    }
    let answers =
        if arguments.sync { ask::ask(config, Request::Look(Who::User(id)), clock).await? } else { Vec::new() };
    let store = wiring::state(&config.store.path).await?;
    let UserMatch::One(user) = UserMatch::find(&store, id.as_str()).await? else {
        // Another process has forgotten the user since.
        return user_match::report_no_match(id.as_str(), &UserMatch::None, clock.now());
    };
    // By configuration. An account that stays open because another user has its address is still open to a user who left.
    let is_shared = user.why.as_deref().is_some_and(|why| why.starts_with("shared_address"));
    let skipped = user.outcome == Some(OutcomeKind::Skipped) && !is_shared;
    let story = Story::read(&store, *user).await?;
    let live = match arguments.live {
        true => {
            let mut live = live::inspect(config, clock, &store, id).await?;
            if is_shared {
                live.expect_denied();
            }
            Some(live)
        }
        false => None,
    };
    store.close().await;
    if arguments.json {
        let mut object = story.to_json()?;
        if let Some(answer) = answers.first() {
            object["look"] = json!({ "outcome": answer.outcome, "why": answer.why });
        }
        if let Some(live) = &live {
            object["live"] = live.to_json();
        }
        print_json(&object)?;
    } else {
        let width = screen::terminal_width();
        let mut text = story.to_text(clock.now(), width);
        if let Some(live) = &live {
            text.push_str(&live.to_text(width));
        }
        if let Some(answer) = answers.first() {
            text.push_str(&answer_text(answer, width));
        }
        screen::out(&text).map_err(Error::Output)?;
    }
    let agrees = live.is_none_or(|live| skipped || live.agrees());
    Ok(if agrees { ask::verdict(&answers) } else { Exit::Failed })
}

fn answer_text(answer: &Answer, width: Option<u16>) -> String {
    let why = answer.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let outcome = answer.outcome.map_or("waiting", OutcomeKind::as_str).replace('_', " ");
    format!("\n{}", screen::paragraph("", &format!("processed now: {outcome}{why}"), width))
}

/// Prints what a look would write. Works on a copy of the state and writes nothing to Auth0.
async fn dry_run_look(
    config: &Config,
    arguments: &UserArgs,
    id: &OktaUserId,
    clock: &Arc<dyn Clock>,
) -> Result<Exit, Error> {
    let (engine, copy) = wiring::dry_run_engine(config, clock).await?;
    engine.store().request_look(Who::User(id), clock.now()).await?;
    let reports = engine.look_at(std::slice::from_ref(id)).await?;
    engine.store().close().await;
    drop(copy);
    if arguments.json {
        print_json(&json!({ "dry_run": reports.iter().map(report_json).collect::<Vec<_>>() }))?;
    } else {
        screen::out(&sync::planned(&reports)).map_err(Error::Output)?;
    }
    let done = reports.iter().all(|report| report.outcome.settles());
    Ok(if done { Exit::Done } else { Exit::Failed })
}

fn report_json(report: &Report) -> Value {
    let changes: Vec<Value> = report
        .changes
        .iter()
        .map(|change| {
            json!({ "auth0_user_id": change.account, "before": change.before, "after": change.after,
                    "outcome": change.outcome.as_str() })
        })
        .collect();
    json!({
        "okta_user_id": report.user.as_str(), "email": report.email,
        "status": report.status.as_ref().map(crate::domain::Status::as_str),
        "verdict": report.verdict.map(crate::domain::Verdict::as_str),
        "outcome": report.outcome.as_str(), "why": report.outcome.why(), "changes": changes,
    })
}

/// A user that is not in the state: searches both tenants, and with `--sync` processes the user if Okta has one.
async fn unknown(
    config: &Config,
    arguments: &UserArgs,
    org: Option<&str>,
    clock: &Arc<dyn Clock>,
) -> Result<Exit, Error> {
    let found = live::search(config, clock, &arguments.who, org).await?;
    if let (true, [user]) = (arguments.sync, found.0.users.as_slice()) {
        return known(config, arguments, &user.id, clock).await;
    }
    if arguments.json {
        print_json(&json!({ "matches": [], "live": found.to_json() }))?;
    } else {
        screen::out(&found.to_text(&arguments.who, screen::terminal_width())).map_err(Error::Output)?;
    }
    Ok(if found.is_empty() || arguments.sync { Exit::Failed } else { Exit::Done })
}

fn print_json(object: &Value) -> Result<(), Error> {
    screen::out(&screen::json(&format!("{object:#}\n"))).map_err(Error::Output)
}
