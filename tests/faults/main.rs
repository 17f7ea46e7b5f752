//! Both tenants as they really behave: the whole pipe (engine, state, clients, real HTTP) in bad weather.
//!
//! Time is simulated where waiting is the point: one clock serves the engine and both stand-ins, and whoever sleeps moves
//! it. So what the journals of the stand-ins say of the moments of requests is what the pacing really did.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod auth0_identity;
mod cursor;
mod drain;
mod harness;
mod keys;
mod limits;
mod network;
mod okta_identity;
mod relay;
mod small_plan;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../support/world.rs"]
mod world;
