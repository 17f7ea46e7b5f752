//! The last known state of the Auth0 Action that enforces the marks.

use super::write::Write;
use super::{Store, StoreError};
use crate::domain::{Timestamp, timestamp_text};

/// The result of the last check of the Action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// Our code is bound, before all other Actions.
    Verified,
    /// We lack the scope to check, or the bound code differs from ours.
    Unverified,
    /// Missing, not deployed or not bound: marks have no effect.
    Missing,
}

impl Enforcement {
    /// The word used in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unverified => "unverified",
            Self::Missing => "missing",
        }
    }
}

impl Store {
    /// Records the result of a check of the Action.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn note_enforcement(&self, enforcement: Enforcement, now: Timestamp) -> Result<(), StoreError> {
        self.write(
            Write::NoteEnforcement,
            sqlx::query("UPDATE installation SET enforcement = ?, enforcement_checked_at = ?")
                .bind(enforcement.as_str())
                .bind(timestamp_text(now)),
        )
        .await?;
        Ok(())
    }
}
