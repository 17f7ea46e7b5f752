//! okta-auth0-sync: when a person is deactivated in Okta, the same person is denied in Auth0, soon, always, and
//! provably; and let in again when Okta lets them in.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod domain;
#[cfg(feature = "sandbox")]
pub mod sandbox;
