//! Smaller requests. Users and applications can fill the metadata of an account until it is too large to read whole.
//! Then it is read without its mirror, and if necessary without its mark: a denial needs neither.

use crate::auth0::Fields;
use crate::http::Failure;

use super::error::{CallError, PassError};

/// An error of a read that says whether a smaller request may succeed.
pub(super) trait AsksForLess {
    /// Whether a smaller request may succeed.
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
/// The error of the last request.
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
