//! Drains a backlog in simulated time on tenants with the smallest plans.

use std::time::Duration;

use okta_auth0_sync::domain::clock;
use okta_auth0_sync_sandbox::{Bucket, Limit, Limits};

use super::harness::start_with;

/// The engine's share of Auth0's bucket.
const AUTH0_SHARE: f64 = 0.8;
/// Excluded from the measured rate, since the pacer is still learning the limits.
const LEARNING: Duration = Duration::from_secs(60);

/// The result.
#[derive(Debug)]
pub(crate) struct Drained {
    /// Accounts that are not denied but should be.
    pub(crate) undenied: usize,
    /// Calls that either tenant refused with 429.
    pub(crate) refused: usize,
    /// Calls to Auth0's Management API after the learning phase.
    pub(crate) calls: usize,
    /// The simulated time of these calls.
    pub(crate) span: Duration,
}

impl Drained {
    /// Calls per second that the stand-in counted.
    pub(crate) fn rate(&self) -> f64 {
        self.calls as f64 / self.span.as_secs_f64()
    }

    /// Our configured share in calls per second.
    pub(crate) fn share(&self) -> f64 {
        Bucket::FREE.refill_per_second * AUTH0_SHARE
    }

    /// The used part of our share.
    pub(crate) fn ratio(&self) -> f64 {
        self.rate() / self.share()
    }
}

/// Deactivates `count` users at once, with an Okta org that allows ten log requests and fifty reads a minute, and an Auth0
/// tenant that allows two calls a second in total.
pub(crate) async fn drain(count: usize) -> Drained {
    let world = start_with(|setup| {
        let fifty = Limit::per_minute(50);
        setup.sandbox.okta.limits =
            Limits { logs: Limit::per_minute(10), user: fifty, users: fifty, token: fifty, other: fifty };
        setup.sandbox.auth0.bucket = Bucket::FREE;
    })
    .await;
    let users: Vec<_> = (0..count).map(|number| world.leaver(&format!("person{number}"))).collect();
    world.try_poll().await.unwrap();
    // Four workers. Only the pacing advances the clock.
    let mut workers = tokio::task::JoinSet::new();
    for chunk in users.chunks(users.len().div_ceil(4)) {
        let (engine, ids) = (world.engine().clone(), chunk.iter().map(|user| user.okta.clone()).collect::<Vec<_>>());
        workers.spawn(async move { engine.look_at(&ids).await.unwrap() });
    }
    while let Some(reports) = workers.join_next().await {
        reports.unwrap();
    }
    let undenied = users.iter().filter(|user| !world.denied(user)).count();
    let (okta, auth0) = (world.okta().journal().requests(), world.auth0().journal().requests());
    let refused = okta.iter().chain(&auth0).filter(|request| request.status == Some(429)).count();
    let mut calls: Vec<_> =
        auth0.iter().filter(|request| request.path.starts_with("/api/v2/")).map(|request| request.at).collect();
    let began = calls[0];
    calls.retain(|at| clock::since(*at, began) >= LEARNING);
    let (first, last) = (calls[0], calls[calls.len() - 1]);
    Drained { undenied, refused, calls: calls.len() - 1, span: clock::since(last, first) }
}
