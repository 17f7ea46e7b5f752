//! The right people and only them: each rule of deciding, against both stand-ins over real HTTP, on a clock that only
//! moves when it is told to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "these are tests")]

mod accounts;
mod addresses;
mod disagreement;
mod evidence;
mod guard;
mod history;
mod marks;
mod memory;
mod model;
mod property;
mod reconcile;
mod searches;
mod sessions;
mod statuses;
mod table;
mod trouble;
mod weeks;
#[path = "../support/world.rs"]
mod world;
