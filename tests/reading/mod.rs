//! The operator's commands: runs the binary on states filled by the library, and against the stand-ins of both tenants.

mod filled;
mod obligations;
mod queries;
mod recorded;
mod status;
mod tenants;
