//! All tests of the program and its library but two: one binary is linked once, and the tests that wait overlap.
//!
//! `cargo test --test all decisions::guard` runs those of one file. `days` measures the memory of its process, and `layers`
//! runs without the sandbox, so both are binaries of their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these are tests"
)]

mod catch_up;
mod cli;
mod decisions;
#[cfg(target_os = "linux")]
mod disk;
mod doc_claims;
mod documentation;
mod end_to_end;
mod faults;
mod fuzz;
mod reading;
mod screens;
mod service;
mod support;
mod systemd;
mod tenants;

use support::{harness, terminal, world};
