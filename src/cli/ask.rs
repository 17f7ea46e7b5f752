//! Requests looks: queues them for the daemon if one is running, else makes them in this process.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Error, Exit, screen, signals, wiring};
use crate::config::Config;
use crate::domain::{Clock, OktaUserId, OutcomeKind};
use crate::engine::request::{Answer, Request, answer_by_daemon, answer_here};
use crate::store::{Access, Store, StoreError, is_in_use};

/// Users listed individually.
const SHOWN_MAX: usize = 50;

/// Requests the looks and waits for their outcomes.
///
/// # Errors
/// If the state or a secret cannot be used. Secrets are read only if no daemon holds the state.
pub(crate) async fn ask(config: &Config, request: Request<'_>, clock: &Arc<dyn Clock>) -> Result<Vec<Answer>, Error> {
    let stop = signals::stop_on_signal()?;
    if !is_in_use(&config.store.path)? {
        match wiring::engine(config, clock).await {
            Ok(engine) => {
                let answers = answer_here(&engine, request, &stop).await;
                engine.store().close().await;
                return Ok(answers?);
            }
            // A daemon has just started.
            Err(Error::Store(StoreError::Busy { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    let store = Store::open_beside(&config.store.path, Access::Beside).await?;
    let policy = store.policy().await?;
    if policy.is_some_and(|policy| policy != wiring::policy_fingerprint(config)) {
        screen::remark(&format!(
            "{}: the running daemon was started with another configuration, and decides by that one: restart it so that your \
             changes take effect",
            screen::paint(screen::WARNING, "warning")
        ));
    }
    let answers = answer_by_daemon(&store, request, clock.as_ref(), &stop).await;
    store.close().await;
    Ok(answers?)
}

/// Success only if every outcome settles.
pub(crate) fn verdict(answers: &[Answer]) -> Exit {
    if answers.iter().all(Answer::settles) { Exit::Done } else { Exit::Failed }
}

/// One row per user, unsettled users first.
pub(crate) fn to_text(answers: &[Answer], width: Option<u16>) -> String {
    to_text_with(answers, &HashMap::new(), width)
}

/// Like [`to_text`], with other words for the outcomes of some users.
pub(crate) fn to_text_with(
    answers: &[Answer],
    words: &HashMap<OktaUserId, &'static str>,
    width: Option<u16>,
) -> String {
    let mut sorted: Vec<&Answer> = answers.iter().collect();
    sorted.sort_by_key(|answer| answer.settles());
    let mut text = screen::table_of_width(
        ["USER", "OKTA ID", "OUTCOME", "WHY"],
        sorted.iter().take(SHOWN_MAX).map(|answer| {
            [
                answer.name.clone().unwrap_or_else(|| "-".to_owned()),
                answer.id.to_string(),
                words
                    .get(&answer.id)
                    .copied()
                    .unwrap_or_else(|| answer.outcome.map_or("waiting", OutcomeKind::as_str))
                    .replace('_', " "),
                answer.why.clone().unwrap_or_default(),
            ]
        }),
        width,
    );
    let unsettled = sorted.iter().filter(|answer| !answer.settles()).count();
    if sorted.len() > SHOWN_MAX {
        text.push_str(&format!("… and {} more\n", sorted.len() - SHOWN_MAX));
    }
    text.push_str(&match unsettled {
        0 => format!("{} processed, all settled\n", sorted.len()),
        _ => format!("{unsettled} of {} not settled\n", sorted.len()),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::OktaUserId;

    fn id(text: &str) -> OktaUserId {
        OktaUserId::parse(text).unwrap()
    }

    fn answered(outcome: Option<OutcomeKind>) -> Answer {
        Answer { id: id("u1"), name: None, outcome, why: None }
    }

    #[test]
    fn only_settled_outcomes_succeed() {
        for (outcome, exit) in [
            (Some(OutcomeKind::Applied), Exit::Done),
            (Some(OutcomeKind::Unchanged), Exit::Done),
            (Some(OutcomeKind::NoAccount), Exit::Done),
            (Some(OutcomeKind::Skipped), Exit::Done),
            (Some(OutcomeKind::Held), Exit::Failed),
            (Some(OutcomeKind::Retry), Exit::Failed),
            (Some(OutcomeKind::Snooze), Exit::Failed),
            (Some(OutcomeKind::Failed), Exit::Failed),
            (None, Exit::Failed),
        ] {
            assert_eq!(verdict(&[answered(Some(OutcomeKind::Applied)), answered(outcome)]), exit, "{outcome:?}");
        }
    }

    #[test]
    fn unsettled_users_come_first() {
        let text = to_text(
            &[
                Answer { id: id("u1"), name: None, outcome: Some(OutcomeKind::Applied), why: None },
                Answer {
                    id: id("u2"),
                    name: Some("ann@example.com".to_owned()),
                    outcome: Some(OutcomeKind::Snooze),
                    why: Some("Okta is\u{1b} down".to_owned()),
                },
            ],
            Some(80),
        );
        assert!(text.find("u2").unwrap() < text.find("u1").unwrap() && text.contains("ann@example.com"), "{text}");
        assert!(text.ends_with("1 of 2 not settled\n") && !text.contains('\u{1b}'), "{text}");
    }
}
