//! okta-auth0-sync: when a person is deactivated in Okta, the same person is denied in Auth0, soon, always, and
//! provably; and let in again when Okta lets them in.
//!
//! ```text
//! cron tick ──wakes──▶ POLLER ── GET /api/v1/logs ──▶ Okta
//!                        │  a page: events and the next cursor
//!                        ▼  one transaction
//!              events + due users + checkpoint                (store)
//!                        │  something new: wakes
//!                        ▼
//!                     APPLIER ◀── due users: deactivations, reactivations, sweeps; oldest first
//!                        │  reads the user in Okta ─────▶ status, addresses
//!                        │  policy: status → verdict          (pure)
//!                        │  finds their accounts in Auth0
//!                        │  mark: account × verdict → patch, or nothing   (pure)
//!                        │  PATCH, then (if asked) ends sessions
//!                        ▼  one transaction
//!              outcome, decisions, the user's events up to the one this look had claimed
//! RECONCILER (cron) ── compares page by page ──▶ makes users due; never writes to Auth0 itself
//! ```
//!
//! Where do I find …
//!
//! | … | in |
//! |---|---|
//! | the words and rules, without any I/O: status → verdict, account × verdict → patch, backoff | [`domain`] |
//! | the loops, a look, what is retried, held, paused or raised as an alarm | [`engine`] |
//! | everything on disk, as whole transactions; the SQL views | [`store`], `migrations/` |
//! | Okta: System Log, users, SSWS, `private_key_jwt`, DPoP | [`okta`] |
//! | Auth0: token, users, the mark on the wire, the Action | [`auth0`] |
//! | what both clients share: bounded bodies, kinds of failure, pacing by headers, signing | [`http`] |
//! | the commands, and how each prints | [`cli`] |
//! | TOML, environment and secret files → one validated configuration | [`config`], `config.toml` |
//! | telling people: webhook and heartbeat | [`alert`] |
//! | the health rules: what `status --check`, `/readyz` and the metrics call well | [`health`] |
//! | log lines; what systemd is told | [`logging`], [`systemd`] |
//! | named moments for a test to have the process die at | `failpoint` |
//! | time as a parameter | `crates/clock` |
//! | stand-ins of both tenants, for the demo, the tests and your own experiments | `crates/sandbox` |
//!
//! Imports go down only: `main` → `cli` → { `engine`, `config`, `logging`, `systemd` }; `engine` → { `okta`,
//! `auth0`, `store`, `domain` }; `okta` and `auth0` → { `http`, `domain` }; `store` → `domain`. The two remotes never name
//! each other, nor the store. A test holds this.

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
