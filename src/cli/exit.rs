//! Exit codes. Codes above 1 follow sysexits(3).

use std::process::ExitCode;

/// The exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// Something failed or needs an operator.
    Failed = 1,
    /// Wrong usage.
    Usage = 64,
    /// The state is in use by another process.
    InUse = 75,
    /// Invalid configuration.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
