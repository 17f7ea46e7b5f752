//! The pipe in its whole width: the real binary, as a process of its own, between the stand-ins of both tenants.
//!
//! What is believed is what the tenants hold afterwards, who can log in, and what they were asked; never what the program
//! says of itself alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod alerts;
mod backlog;
mod canaries;
mod golden;
#[path = "../support/harness.rs"]
mod harness;
mod hostility;
mod kills;
mod lives;
mod recorded;
mod refusals;
mod timing;
