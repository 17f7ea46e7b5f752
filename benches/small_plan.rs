//! The used part of our share of the smallest plans' limits: `cargo bench --bench small_plan`. Exits with 1 below 95 %.
//!
//! Drains a backlog of users who left, on an Okta org and an Auth0 tenant of the smallest plans. In simulated time only
//! pacing takes time, so the result is the same on every machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, reason = "the result")]

#[path = "../tests/faults/drain.rs"]
mod drain;
#[path = "../tests/faults/harness.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod harness;
#[path = "../tests/support/world.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod world;

use std::process::ExitCode;

/// The required use of our share.
const RATIO_MIN: f64 = 0.95;
/// Enough for half an hour, in which the pacer learns the limits a second time.
const USERS: usize = 900;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let drained = drain::drain(USERS).await;
    println!(
        "{USERS} users denied in {:.0} simulated seconds ({} not), {} calls refused for the rate\n\
         Auth0: {:.3} calls a second achieved, {:.3} are our share: {:.1} %",
        drained.span.as_secs_f64() + 60.0,
        drained.undenied,
        drained.refused,
        drained.rate(),
        drained.share(),
        drained.ratio() * 100.0,
    );
    if drained.undenied == 0 && drained.refused == 0 && drained.ratio() >= RATIO_MIN {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
