//! How a command ended, as a shell sees it. The numbers beyond 1 are those of sysexits(3).

use std::process::ExitCode;

/// The exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Something failed, or needs a person.
    Failed = 1,
    /// Wrong usage.
    Usage = 64,
    /// The state is in use by another process.
    InUse = 75,
    /// Wrong configuration.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
