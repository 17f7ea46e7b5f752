//! The daemon from the outside, as systemd and a monitoring system see it: a child with a notify socket, a watchdog, an
//! HTTP address, and a signal to stop it.
//!
//! In most tests both remotes are unreachable: an outage must fail neither the start nor the watchdog.

mod daemon;
mod exposition;
mod idle;
mod monitor;
mod watchdog;
