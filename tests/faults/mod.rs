//! The engine, store and clients over real HTTP, against stand-ins with realistic limits and injected faults.
//!
//! Tests of waiting use simulated time: the engine and both stand-ins share one clock, and a sleep advances it. So the
//! request times in the stand-ins' journals show the pacing.

mod auth0_identity;
mod backlog;
mod clock;
mod cursor;
mod drain;
mod harness;
mod keys;
mod limits;
mod network;
mod okta_identity;
mod relay;
mod small_plan;
