//! Requests looks: queues them for the daemon if one is running, else makes them in this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Error, Exit, screen, signals, wiring};
use crate::config::Config;
use crate::domain::{Clock, OktaUserId, OutcomeKind};
use crate::engine::Engine;
use crate::store::{Access, Progress, Requested, Store, StoreError, Who, is_in_use};

/// How often the state is polled for the daemon's progress. The daemon notices a request within a second.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long to wait for the daemon. After this it is busy or cannot reach the remotes; the request stays queued.
const PATIENCE: Duration = Duration::from_secs(60);
/// Users listed individually.
const SHOWN_MAX: usize = 50;

/// What to request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// A look.
    Look(Who<'a>),
    /// Approval of held denials, and a look.
    Approve(Who<'a>),
}

/// The result for one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The user.
    pub(crate) id: OktaUserId,
    /// The address or login last read.
    pub(crate) name: Option<String>,
    /// How the look ended; `None` if it has not yet.
    pub(crate) outcome: Option<OutcomeKind>,
    /// The reason for the outcome, or why there is no outcome yet.
    pub(crate) why: Option<String>,
}

impl Answer {
    /// Is the request settled? See [`OutcomeKind::settles`].
    pub(crate) fn settles(&self) -> bool {
        self.outcome.is_some_and(OutcomeKind::settles)
    }
}

/// Requests the looks and waits for their outcomes.
///
/// # Errors
/// If the state or a secret cannot be used. Secrets are read only if no daemon holds the state.
pub(crate) async fn ask(config: &Config, request: Request<'_>, clock: &Arc<dyn Clock>) -> Result<Vec<Answer>, Error> {
    let stop = signals::stop_on_signal()?;
    if !is_in_use(&config.store.path)? {
        match wiring::engine(config, clock).await {
            Ok(engine) => {
                let made = make(engine.store(), request, clock).await?;
                let answers = look(&engine, &made, &stop).await;
                let answers = named(engine.store(), answers?).await;
                engine.store().close().await;
                return answers;
            }
            // A daemon has just started.
            Err(Error::Store(StoreError::Busy { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    let store = Store::open_beside(&config.store.path, Access::Beside).await?;
    let made = make(&store, request, clock).await?;
    let answers = wait(&store, &made, clock, &stop).await;
    let answers = named(&store, answers?).await;
    store.close().await;
    answers
}

/// Fills in the names stored by the looks.
async fn named(store: &Store, mut answers: Vec<Answer>) -> Result<Vec<Answer>, Error> {
    let ids: Vec<OktaUserId> = answers.iter().map(|answer| answer.id.clone()).collect();
    let mut names: HashMap<OktaUserId, Option<String>> =
        store.progress(&ids).await?.into_iter().map(|progress| (progress.id, progress.name)).collect();
    for answer in &mut answers {
        answer.name = names.remove(&answer.id).flatten();
    }
    Ok(answers)
}

async fn make(store: &Store, request: Request<'_>, clock: &Arc<dyn Clock>) -> Result<Vec<Requested>, Error> {
    Ok(match request {
        Request::Look(who) => store.request_look(who, clock.now()).await?,
        Request::Approve(who) => store.approve(who, clock.now()).await?,
    })
}

async fn look(engine: &Engine, made: &[Requested], stop: &CancellationToken) -> Result<Vec<Answer>, Error> {
    let mut answers = Vec::with_capacity(made.len());
    for Requested { id, .. } in made {
        if stop.is_cancelled() {
            answers.push(waiting(id));
            continue;
        }
        // One at a time, so that a signal can interrupt between users.
        let report = match engine.look_at(std::slice::from_ref(id)).await {
            Ok(reports) => reports.into_iter().next(),
            Err(StoreError::Gone { .. }) => {
                answers.push(gone(id));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        answers.push(match report {
            Some(report) => {
                Answer { id: id.clone(), name: None, outcome: Some(report.outcome.kind()), why: report.outcome.why() }
            }
            None => waiting(id),
        });
    }
    Ok(answers)
}

async fn wait(
    store: &Store,
    made: &[Requested],
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> Result<Vec<Answer>, Error> {
    let ids: Vec<OktaUserId> = made.iter().map(|made| made.id.clone()).collect();
    let began = clock.monotonic();
    loop {
        let progress: HashMap<OktaUserId, Progress> =
            store.progress(&ids).await?.into_iter().map(|progress| (progress.id.clone(), progress)).collect();
        let answers: Vec<Option<Answer>> = made.iter().map(|made| answer(made, progress.get(&made.id))).collect();
        let over = stop.is_cancelled() || clock.monotonic().saturating_sub(began) >= PATIENCE;
        if over || answers.iter().all(Option::is_some) {
            return Ok(answers
                .into_iter()
                .zip(made)
                .map(|(answer, made)| answer.unwrap_or_else(|| waiting(&made.id)))
                .collect());
        }
        tokio::select! {
            () = clock.sleep(ASK_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The answer to a request, once a look has covered it.
fn answer(made: &Requested, progress: Option<&Progress>) -> Option<Answer> {
    let Some(progress) = progress else { return Some(gone(&made.id)) };
    // No outcome means that the look failed while a newer request came in; the next look answers both.
    (progress.looked_seq >= made.due_seq && progress.outcome.is_some()).then(|| Answer {
        id: made.id.clone(),
        name: progress.name.clone(),
        outcome: progress.outcome,
        why: progress.why.clone(),
    })
}

fn waiting(id: &OktaUserId) -> Answer {
    let why = "still queued; `run` or `sync` will process it".to_owned();
    Answer { id: id.clone(), name: None, outcome: None, why: Some(why) }
}

fn gone(id: &OktaUserId) -> Answer {
    Answer { id: id.clone(), name: None, outcome: None, why: Some("forgotten while waiting".to_owned()) }
}

/// Success only if every outcome settles.
pub(crate) fn verdict(answers: &[Answer]) -> Exit {
    if answers.iter().all(Answer::settles) { Exit::Done } else { Exit::Failed }
}

/// One row per user, unsettled users first.
pub(crate) fn to_text(answers: &[Answer], width: Option<u16>) -> String {
    let mut sorted: Vec<&Answer> = answers.iter().collect();
    sorted.sort_by_key(|answer| answer.settles());
    let mut text = screen::table_of_width(
        ["USER", "OKTA ID", "OUTCOME", "WHY"],
        sorted.iter().take(SHOWN_MAX).map(|answer| {
            [
                answer.name.clone().unwrap_or_else(|| "-".to_owned()),
                answer.id.to_string(),
                answer.outcome.map_or("waiting", OutcomeKind::as_str).replace('_', " "),
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
    fn only_a_look_after_the_request_answers_it() {
        let made = Requested { id: id("u1"), due_seq: 5 };
        let progress = |looked_seq, outcome: Option<OutcomeKind>| Progress {
            id: id("u1"),
            looked_seq,
            name: None,
            outcome,
            why: None,
        };
        assert_eq!(answer(&made, Some(&progress(4, Some(OutcomeKind::Held)))), None, "an older look");
        assert_eq!(answer(&made, Some(&progress(5, None))), None);
        assert_eq!(
            answer(&made, Some(&progress(5, Some(OutcomeKind::Applied)))),
            Some(answered(Some(OutcomeKind::Applied)))
        );
        assert!(!answer(&made, None).unwrap().settles(), "forgotten");
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
