//! A backlog on a pair of tenants of the smallest plans, in simulated time.

use std::time::Duration;

use okta_auth0_sync::domain::clock;
use okta_auth0_sync_sandbox::{Bucket, Limit, Limits};

use super::harness::start_with;

/// What the engine keeps to itself of Auth0's bucket.
const AUTH0_SHARE: f64 = 0.8;
/// While the limits become known, calls are fewer (or, to learn the refill, more).
const LEARNING: Duration = Duration::from_secs(60);

/// How it went.
#[derive(Debug)]
pub(crate) struct Drained {
    /// Accounts that should be denied and are not.
    pub(crate) undenied: usize,
    /// Calls that were refused for the rate, by either tenant.
    pub(crate) refused: usize,
    /// Calls to Auth0's Management API after the limits were known.
    pub(crate) calls: usize,
    /// In how much simulated time.
    pub(crate) span: Duration,
}

impl Drained {
    /// Calls a second, as the stand-in counted them.
    pub(crate) fn rate(&self) -> f64 {
        self.calls as f64 / self.span.as_secs_f64()
    }

    /// Calls a second that are ours by configuration.
    pub(crate) fn share(&self) -> f64 {
        Bucket::FREE.refill_per_second * AUTH0_SHARE
    }

    /// How much of our share was used.
    pub(crate) fn ratio(&self) -> f64 {
        self.rate() / self.share()
    }
}

/// So many people leave at once, on an Okta org that gives us ten log requests and fifty reads a minute, and an Auth0
/// tenant that gives everybody together two calls a second.
pub(crate) async fn drain(people: usize) -> Drained {
    let world = start_with(|setup| {
        let fifty = Limit::per_minute(50);
        setup.sandbox.okta.limits =
            Limits { logs: Limit::per_minute(10), user: fifty, users: fifty, token: fifty, other: fifty };
        setup.sandbox.auth0.bucket = Bucket::FREE;
    })
    .await;
    let people: Vec<_> = (0..people).map(|number| world.leaver(&format!("person{number}"))).collect();
    world.try_poll().await.unwrap();
    // Four at a time, and nothing else that would let time pass: every moment that passes is one of the pacing's.
    let mut workers = tokio::task::JoinSet::new();
    for chunk in people.chunks(people.len().div_ceil(4)) {
        let (engine, ids) =
            (world.engine().clone(), chunk.iter().map(|person| person.okta.clone()).collect::<Vec<_>>());
        workers.spawn(async move { engine.look_at(&ids).await.unwrap() });
    }
    while let Some(reports) = workers.join_next().await {
        reports.unwrap();
    }
    let undenied = people.iter().filter(|person| !world.denied(person)).count();
    let (okta, auth0) = (world.okta().journal().requests(), world.auth0().journal().requests());
    let refused = okta.iter().chain(&auth0).filter(|request| request.status == Some(429)).count();
    let mut calls: Vec<_> =
        auth0.iter().filter(|request| request.path.starts_with("/api/v2/")).map(|request| request.at).collect();
    let began = calls[0];
    calls.retain(|at| clock::since(*at, began) >= LEARNING);
    let (first, last) = (calls[0], calls[calls.len() - 1]);
    Drained { undenied, refused, calls: calls.len() - 1, span: clock::since(last, first) }
}
