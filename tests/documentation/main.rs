//! The documentation as an operator uses it: the commands on the pages, their screens, alarms and evidence. Runs the
//! program on a terminal against both stand-ins.
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
