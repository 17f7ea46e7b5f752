//! `user`: the whole story of one person, and why; if asked, what both tenants say now, and a look.

use std::sync::Arc;

use serde_json::{Value, json};

use super::args::UserArgs;
use super::ask::{self, Answer, Request};
use super::story::Story;
use super::user_match::{self, UserMatch};
use super::{Error, Exit, live, screen, sync, wiring};
use crate::config::Config;
use crate::domain::{Clock, OktaUserId, OutcomeKind};
use crate::engine::sync_user::Report;
use crate::store::{StoreError, UserRow, Who};

/// Tells it.
///
/// # Errors
/// When there is no state, or it, a secret or (with `--live`) a remote cannot be used.
pub(crate) async fn run(config: &Config, arguments: &UserArgs, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    let store = match wiring::state(&config.store.path).await {
        Ok(store) => Some(store),
        // There is nobody in it; the tenants can be asked all the same.
        Err(Error::Store(StoreError::Missing { .. })) if arguments.live => None,
        Err(error) => return Err(error),
    };
    let whom = match &store {
        Some(store) => UserMatch::find(store, &arguments.who).await?,
        None => UserMatch::None,
    };
    if let Some(store) = store {
        store.close().await;
    }
    match whom {
        UserMatch::One(person) => known(config, arguments, &user_match::id_of(&person)?, clock).await,
        UserMatch::Ambiguous(people) => several(arguments, &people, clock),
        UserMatch::None if arguments.live => stranger(config, arguments, clock).await,
        UserMatch::None => {
            if arguments.json {
                print_json(&json!({ "matches": [] }))?;
            }
            let hint = "(--live looks for them in Okta and Auth0)";
            screen::remark(&format!(
                "{}: {} {hint}",
                screen::paint(screen::BAD, "error"),
                user_match::no_match(&arguments.who)
            ));
            Ok(Exit::Failed)
        }
    }
}

fn several(arguments: &UserArgs, people: &[UserRow], clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    if arguments.json {
        print_json(&json!({ "matches": people }))?;
        return Ok(Exit::Failed);
    }
    user_match::report_no_match(&arguments.who, &UserMatch::Ambiguous(people.to_vec()), clock.now())
}

/// Somebody whom the state knows, or shall come to know by a look.
async fn known(config: &Config, arguments: &UserArgs, id: &OktaUserId, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    if arguments.dry_run {
        return dry_run_look(config, arguments, id, clock).await;
    }
    let answers =
        if arguments.sync { ask::ask(config, Request::Look(Who::User(id)), clock).await? } else { Vec::new() };
    let store = wiring::state(&config.store.path).await?;
    let UserMatch::One(person) = UserMatch::find(&store, id.as_str()).await? else {
        // Forgotten by somebody else since.
        return user_match::report_no_match(id.as_str(), &UserMatch::None, clock.now());
    };
    // Who is skipped is not denied, rightly: the story says why.
    let skipped = person.outcome == Some(OutcomeKind::Skipped);
    let story = Story::read(&store, *person).await?;
    let live = match arguments.live {
        true => Some(live::inspect(config, clock, &store, id).await?),
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
            text.push_str(&looked(answer, width));
        }
        screen::out(&text).map_err(Error::Output)?;
    }
    let agrees = live.is_none_or(|live| skipped || live.agrees());
    Ok(if agrees { ask::verdict(&answers) } else { Exit::Failed })
}

fn looked(answer: &Answer, width: Option<u16>) -> String {
    let why = answer.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let outcome = answer.outcome.map_or("waiting", OutcomeKind::as_str).replace('_', " ");
    format!("\n{}", screen::paragraph("", &format!("looked at now: {outcome}{why}"), width))
}

/// What a look would write: on a copy of the state, and with no write to Auth0.
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

/// Somebody whom the state does not know: looked for in both tenants, and with `--sync` looked at if Okta has one.
async fn stranger(config: &Config, arguments: &UserArgs, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    let found = live::search(config, clock, &arguments.who).await?;
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
