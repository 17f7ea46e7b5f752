//! What several tests use.

pub(crate) mod harness;
pub(crate) mod terminal;
pub(crate) mod world;
