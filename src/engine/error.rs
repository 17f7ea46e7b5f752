//! The errors of calls, passes and loops, and how one becomes another.

use std::time::Duration;

use crate::http::Failure;
use crate::store::StoreError;

/// Why a call has no result.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The circuit breaker is open, because of this call or an earlier one.
    Paused {
        /// The shortest time until another attempt makes sense.
        wait: Duration,
        /// The failure that opened it.
        why: String,
    },
    /// This call failed, which says nothing about other calls.
    Failed(Failure),
}

/// Why a pass ended early. What it stored before the error stays stored.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The remote cannot be called now.
    #[error("{why}")]
    Paused {
        /// The shortest time until another attempt makes sense.
        wait: Duration,
        /// The failure that opened the circuit breaker.
        why: String,
    },
    /// A call failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The state cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CallError> for PassError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Paused { wait, why } => Self::Paused { wait, why },
            CallError::Failed(failure) => Self::Failed(failure),
        }
    }
}

/// An error that ends the daemon, since waiting does not fix it.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The state cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A schedule cannot be kept.
    #[error("the schedule {0}")]
    Schedule(String),
    /// A task exited unexpectedly.
    #[error("the {0} exited unexpectedly: {1}")]
    Ended(&'static str, String),
}

impl Fatal {
    /// Is the configuration the cause (exit code 78)?
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Store(error) if StoreError::is_configuration(error)) || matches!(self, Self::Schedule(_))
    }
}

impl From<PassError> for Fatal {
    fn from(error: PassError) -> Self {
        match error {
            PassError::Store(error) => Self::Store(error),
            other => Self::Ended("poller", other.to_string()),
        }
    }
}
