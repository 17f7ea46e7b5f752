//! Random histories through the whole pipe, from the log to Auth0; at their end all must be as the model says.
//!
//! A history is its seed: `OKTA_AUTH0_SYNC_SEED=… cargo test --test decisions random_histories` (or `fault_weeks`) tells
//! it again, step by step. Without it the same ones are told each time, so that a change is judged by what it changed.
//! `OKTA_AUTH0_SYNC_HISTORIES=…` tells so many others, from a seed of the moment.
//!
//! They are told in parts that run beside each other; each part tells every n-th of the seeds.

use super::history::{History, Kind};

const FIRST_SEED: u64 = 20_261_123;
const PARTS: u64 = 4;
const HOURS: u64 = 240;
/// One of them takes as long as four or five of the others.
const WEEKS: u64 = 24;

#[tokio::test]
async fn random_histories_match_model() {
    tell(Kind::Hours, 0).await;
}

#[tokio::test]
async fn random_histories_match_model_2() {
    tell(Kind::Hours, 1).await;
}

#[tokio::test]
async fn random_histories_match_model_3() {
    tell(Kind::Hours, 2).await;
}

#[tokio::test]
async fn random_histories_match_model_4() {
    tell(Kind::Hours, 3).await;
}

#[tokio::test]
async fn fault_weeks_match_model() {
    tell(Kind::Weeks, 0).await;
}

#[tokio::test]
async fn fault_weeks_match_model_2() {
    tell(Kind::Weeks, 1).await;
}

#[tokio::test]
async fn fault_weeks_match_model_3() {
    tell(Kind::Weeks, 2).await;
}

#[tokio::test]
async fn fault_weeks_match_model_4() {
    tell(Kind::Weeks, 3).await;
}

/// Without this a seed that failed would be worth nothing.
#[tokio::test]
async fn same_seed_gives_same_history() {
    for seed in FIRST_SEED..FIRST_SEED + 3 {
        let first = History::new(Kind::Weeks, seed, false).await.run().await;
        let second = History::new(Kind::Weeks, seed, false).await.run().await;
        assert!(first == second, "seed {seed}: {:#?}", first.iter().zip(&second).find(|(one, other)| one != other));
    }
}

async fn tell(kind: Kind, part: u64) {
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
    let told = (part..wanted).step_by(usize::try_from(PARTS).unwrap());
    for number in told.clone() {
        History::new(kind, first + number, false).await.run().await;
    }
    println!("{} {kind:?}, seeds from {first}", told.count());
}
