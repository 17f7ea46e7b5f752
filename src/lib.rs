//! okta-auth0-sync: when a person is deactivated in Okta, the same person is denied in Auth0, soon, always, and
//! provably; and let in again when Okta lets them in.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod auth0;
pub mod cli;
pub mod config;
pub mod domain;
pub mod engine;
pub mod http;
pub mod logging;
pub mod okta;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod store;
pub mod systemd;
