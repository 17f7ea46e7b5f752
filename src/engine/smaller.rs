//! Smaller questions. Users and applications fill the metadata of accounts, so an account can be too large to read whole.
//! Then it is read without its mirror, and after that without its mark: neither is needed to deny it.

use crate::auth0::Fields;
use crate::http::Failure;

use super::error::{CallError, PassError};

/// An error of a read that says whether a smaller question may succeed.
pub(super) trait AsksForLess {
    /// Whether a smaller question may succeed.
    fn asks_for_less(&self) -> bool;
}

impl AsksForLess for Failure {
    fn asks_for_less(&self) -> bool {
        Self::asks_for_less(self)
    }
}

impl AsksForLess for CallError {
    fn asks_for_less(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.asks_for_less())
    }
}

impl AsksForLess for PassError {
    fn asks_for_less(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.asks_for_less())
    }
}

/// Reads one account: all of it, or as much as can be read.
///
/// # Errors
/// The error of the last question.
pub(super) async fn read_account<T, E, F, Fut>(ask: F) -> Result<T, E>
where
    E: AsksForLess,
    F: Fn(Fields) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let [all, mark, account] = Fields::SMALLER;
    for fields in [all, mark] {
        match ask(fields).await {
            Err(error) if error.asks_for_less() => {}
            other => return other,
        }
    }
    ask(account).await
}
