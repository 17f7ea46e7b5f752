//! The targets, shared with the test that replays their corpus.

#[path = "../../tests/fuzz/remote.rs"]
pub mod remote;
#[path = "../../tests/fuzz/targets.rs"]
pub mod targets;
