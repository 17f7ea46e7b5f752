//! The operator's day: what the pages tell to type, what then stands on the screen, what is told and what is proven. The
//! program itself, on a terminal, against both stand-ins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "these are tests")]

mod drills;
mod evidence;
#[allow(dead_code, reason = "it serves other tests too")]
#[path = "../support/harness.rs"]
mod harness;
mod pages;
mod screens;
#[path = "../support/terminal.rs"]
mod terminal;
