//! okta-auth0-sync: when a user is deactivated in Okta, the same person is denied in Auth0, soon, always, and provably;
//! when Okta admits them again, so does Auth0.
//!
//! ```text
//! cron tick ──wakes──▶ POLLER ── GET /api/v1/logs ──▶ Okta
//!                        │  a page: events and the next cursor
//!                        ▼  one transaction
//!              events + due users + checkpoint                (store)
//!                        │  new events: wakes
//!                        ▼
//!                     APPLIER ◀── due users: deactivations, reactivations, reconciles; oldest first
//!                        │  reads the user in Okta ─────▶ status, addresses
//!                        │  policy: status → verdict          (pure)
//!                        │  finds their accounts in Auth0
//!                        │  mark: account × verdict → patch, or nothing   (pure)
//!                        │  PATCH, then (if asked) ends sessions
//!                        ▼  one transaction
//!              outcome, decisions, the user's events up to the one this look claimed
//! RECONCILER (cron) ── compares both tenants page by page ──▶ makes users due; never writes to Auth0 itself
//! ```
//!
//! Where do I find …
//!
//! | … | in |
//! |---|---|
//! | types and rules, without I/O: status → verdict, account × verdict → patch, backoff | [`domain`] |
//! | the loops; looks, retries, held denials, circuit breakers, alarms | [`engine`] |
//! | the SQLite state, one transaction per step; the SQL views | [`store`], `migrations/` |
//! | Okta: System Log, users, SSWS, `private_key_jwt`, DPoP | [`okta`] |
//! | Auth0: token, users, the mark on the wire, the Action | [`auth0`] |
//! | shared by both clients: size limits, error kinds, rate limiting, signing | [`http`] |
//! | the commands and their output | [`cli`] |
//! | TOML, environment and secret files → one validated configuration | [`config`], `config.toml` |
//! | notifications: webhook and heartbeat | [`alert`] |
//! | the health rules of `status --check`, `/readyz` and the metrics | [`health`] |
//! | log lines; notifications to systemd | [`logging`], [`systemd`] |
//! | named points at which a test kills the process | `failpoint` |
//! | time as a parameter | `crates/clock` |
//! | stand-ins of both tenants, for the demo, the tests and your own experiments | `crates/sandbox` |
//!
//! Imports go down only: `main` → `cli` → { `engine`, `config`, `logging`, `systemd` }; `engine` → { `okta`,
//! `auth0`, `store`, `domain` }; `okta` and `auth0` → { `http`, `domain` }; `store` → `domain`. The two remotes never import
//! each other or the store. `tests/layers.rs` enforces this.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod alert;
pub mod auth0;
pub mod cli;
pub mod config;
pub mod domain;
pub mod engine;
mod failpoint;
pub mod health;
pub mod http;
pub mod logging;
pub mod monitor;
pub mod okta;
pub mod store;
pub mod systemd;
