//! Requests looks and waits for their outcomes: in this process, or in the daemon that holds the state.

use std::collections::HashMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::domain::{Clock, OktaUserId, OutcomeKind};
use crate::store::{Approval, Progress, Requested, Store, StoreError, Who};

/// How often the state is polled for the daemon's progress. The daemon notices a request within a second.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long to wait for the daemon. After this it is busy or cannot reach the remotes; the request stays queued.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to request.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// A look.
    Look(Who<'a>),
    /// Approval of held denials, and a look.
    Approve(Approval<'a>),
}

/// The result for one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The user.
    pub id: OktaUserId,
    /// The address or login last read.
    pub name: Option<String>,
    /// How the look ended; `None` if it has not yet.
    pub outcome: Option<OutcomeKind>,
    /// The reason for the outcome, or why there is no outcome yet.
    pub why: Option<String>,
}

impl Answer {
    /// Is the request settled? See [`OutcomeKind::settles`].
    pub fn settles(&self) -> bool {
        self.outcome.is_some_and(OutcomeKind::settles)
    }
}

/// Requests the looks, and makes them in this process.
///
/// # Errors
/// When the state fails.
pub async fn answer_here(
    engine: &Engine,
    request: Request<'_>,
    stop: &CancellationToken,
) -> Result<Vec<Answer>, StoreError> {
    let made = make(engine.store(), request, engine.clock().as_ref()).await?;
    let answers = look(engine, &made, stop).await?;
    named(engine.store(), answers).await
}

/// Requests the looks, and waits until the daemon has made them.
///
/// # Errors
/// When the state fails.
pub async fn answer_by_daemon(
    store: &Store,
    request: Request<'_>,
    clock: &dyn Clock,
    stop: &CancellationToken,
) -> Result<Vec<Answer>, StoreError> {
    let made = make(store, request, clock).await?;
    let answers = wait(store, &made, clock, stop).await?;
    named(store, answers).await
}

/// Fills in the names stored by the looks.
async fn named(store: &Store, mut answers: Vec<Answer>) -> Result<Vec<Answer>, StoreError> {
    let ids: Vec<OktaUserId> = answers.iter().map(|answer| answer.id.clone()).collect();
    let mut names: HashMap<OktaUserId, Option<String>> =
        store.progress(&ids).await?.into_iter().map(|progress| (progress.id, progress.name)).collect();
    for answer in &mut answers {
        answer.name = names.remove(&answer.id).flatten();
    }
    Ok(answers)
}

async fn make(store: &Store, request: Request<'_>, clock: &dyn Clock) -> Result<Vec<Requested>, StoreError> {
    match request {
        Request::Look(who) => store.request_look(who, clock.now()).await,
        Request::Approve(approval) => store.approve(approval, clock.now()).await,
    }
}

async fn look(engine: &Engine, made: &[Requested], stop: &CancellationToken) -> Result<Vec<Answer>, StoreError> {
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
            Err(error) => return Err(error),
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
    clock: &dyn Clock,
    stop: &CancellationToken,
) -> Result<Vec<Answer>, StoreError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> OktaUserId {
        OktaUserId::parse(text).unwrap()
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
            Some(Answer { id: id("u1"), name: None, outcome: Some(OutcomeKind::Applied), why: None })
        );
        assert!(!answer(&made, None).unwrap().settles(), "forgotten");
    }
}
