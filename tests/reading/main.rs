//! The operator's commands: runs the binary on states filled by the library, and against the stand-ins of both tenants.

#![allow(clippy::unwrap_used)]

mod filled;
mod obligations;
mod queries;
mod recorded;
mod status;
mod tenants;
