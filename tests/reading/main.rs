//! The commands that people use beside the daemon, from the outside: the binary on states that the library filled, and on
//! the stand-ins of both tenants.

#![allow(clippy::unwrap_used)]

mod filled;
mod queries;
mod recorded;
mod status;
mod tenants;
