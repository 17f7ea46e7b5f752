//! Random histories end to end, from the System Log to Auth0; the final state must match the model.
//!
//! A seed determines a history: `OKTA_AUTH0_SYNC_SEED=… cargo test --test all random_histories` (or `fault_weeks`)
//! replays one and prints each step. By default every run uses the same seeds, so that a failure points to the change
//! under test. `OKTA_AUTH0_SYNC_HISTORIES=…` runs that number of histories from a random first seed.
//!
//! The seeds are split over tests that run in parallel; each runs every n-th seed.

use super::history::{History, Kind};

const FIRST_SEED: u64 = 20_261_123;
const PARTS: u64 = 4;
const HOURS: u64 = 120;
/// One of these takes as long as four or five of the short ones.
const WEEKS: u64 = 12;

#[tokio::test]
async fn random_histories_match_model() {
    run_part(Kind::Hours, 0).await;
}

#[tokio::test]
async fn random_histories_match_model_2() {
    run_part(Kind::Hours, 1).await;
}

#[tokio::test]
async fn random_histories_match_model_3() {
    run_part(Kind::Hours, 2).await;
}

#[tokio::test]
async fn random_histories_match_model_4() {
    run_part(Kind::Hours, 3).await;
}

#[tokio::test]
async fn fault_weeks_match_model() {
    run_part(Kind::Weeks, 0).await;
}

#[tokio::test]
async fn fault_weeks_match_model_2() {
    run_part(Kind::Weeks, 1).await;
}

#[tokio::test]
async fn fault_weeks_match_model_3() {
    run_part(Kind::Weeks, 2).await;
}

#[tokio::test]
async fn fault_weeks_match_model_4() {
    run_part(Kind::Weeks, 3).await;
}

/// A failing seed is only useful if it can be replayed.
#[tokio::test]
async fn same_seed_gives_same_history() {
    for seed in FIRST_SEED..FIRST_SEED + 3 {
        let first = History::new(Kind::Weeks, seed, false).await.run().await;
        let second = History::new(Kind::Weeks, seed, false).await.run().await;
        assert!(first == second, "seed {seed}: {:#?}", first.iter().zip(&second).find(|(one, other)| one != other));
    }
}

async fn run_part(kind: Kind, part: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("OKTA_AUTH0_SYNC_SEED") {
        if part == 0 {
            History::new(kind, seed, true).await.run().await;
        }
        return;
    }
    let usual = if kind == Kind::Hours { HOURS } else { WEEKS };
    let (first, wanted) = match number("OKTA_AUTH0_SYNC_HISTORIES") {
        Some(wanted) => (fastrand::u64(..u64::MAX / 2), wanted),
        None => (FIRST_SEED, usual),
    };
    let selected = (part..wanted).step_by(usize::try_from(PARTS).unwrap());
    for number in selected.clone() {
        History::new(kind, first + number, false).await.run().await;
    }
    println!("{} {kind:?}, seeds from {first}", selected.count());
}
