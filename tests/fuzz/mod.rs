//! Runs the targets of `fuzz/` without a fuzzer: on every input of the corpus, and on random variations of them.
//!
//! `OKTA_AUTH0_SYNC_INPUTS=100000 cargo test --release --test all fuzz::` makes this many for each target, from a random
//! seed; `OKTA_AUTH0_SYNC_SEED=…` repeats those of a seed.

#![allow(unreachable_pub, reason = "the crate in fuzz/ has these modules too")]

mod remote;
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use self::targets::Target;
use fastrand::Rng;

const SEED: u64 = 20_261_123;
const INPUTS: u64 = 300;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{target}: an empty corpus");
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// Runs one input, and prints it if it breaks a promise.
fn run((name, target): Target, input: &[u8], what: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        println!("{name}: {what}: {:?}", String::from_utf8_lossy(input));
        resume_unwind(panic);
    }
}

fn replay(name: &str) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let inputs = number("OKTA_AUTH0_SYNC_INPUTS");
    let seed = number("OKTA_AUTH0_SYNC_SEED").or(inputs.map(|_| fastrand::u64(..))).unwrap_or(SEED);
    println!("{name}: OKTA_AUTH0_SYNC_SEED={seed}");
    let target = targets::ALL.into_iter().find(|(known, _)| *known == name).unwrap();
    let corpus = corpus(name);
    for (file, input) in &corpus {
        run(target, input, &file.display().to_string());
    }
    let mut rng = Rng::with_seed(seed);
    for at in 0..inputs.unwrap_or(INPUTS) {
        let input = mutated(&corpus, &mut rng);
        run(target, &input, &format!("input {at} of seed {seed}"));
    }
}

/// A variation of a corpus input: bytes are changed, removed, repeated or inserted.
fn mutated(corpus: &[(PathBuf, Vec<u8>)], rng: &mut Rng) -> Vec<u8> {
    const TOKENS: [&str; 16] = [
        "null",
        "{}",
        "[]",
        "\"",
        "\\u0000",
        "\\ud800",
        "-1",
        "1e999",
        "18446744073709551616",
        "\r\n",
        "\0",
        "\u{202e}",
        "\u{1b}[2J",
        "true",
        ",",
        "https://elsewhere.invalid/",
    ];
    let mut input = rng.choice(corpus).unwrap().1.clone();
    for _ in 0..rng.usize(1..=6) {
        let at = rng.usize(..=input.len());
        let end = at + rng.usize(..=(input.len() - at).min(40));
        match rng.u8(..6) {
            0 => drop(input.drain(at..end)),
            1 => drop(input.splice(at..at, input[at..end].to_vec())),
            2 => drop(input.splice(at..end, TOKENS[rng.usize(..TOKENS.len())].bytes())),
            3 => {
                let other = &rng.choice(corpus).unwrap().1;
                let from = rng.usize(..=other.len());
                drop(input.splice(at..end, other[from..(from + 60).min(other.len())].iter().copied()));
            }
            4 => input.truncate(at.max(1)),
            _ if at < input.len() => input[at] = rng.u8(..),
            _ => input.push(rng.u8(..)),
        }
    }
    input
}

macro_rules! replayed {
    ($($target:ident),*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target));
        })*

        /// Every target is replayed.
        #[test]
        fn every_target_is_replayed_and_fuzzed() {
            let known: Vec<&str> = targets::ALL.iter().map(|(name, _)| *name).collect();
            assert_eq!(known, [$(stringify!($target)),*]);
            let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).unwrap();
            for name in known {
                assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            }
        }
    };
}

replayed!(log_page, position, users, accounts, addresses, pacing, configuration);
