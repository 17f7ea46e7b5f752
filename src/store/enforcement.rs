//! Whether the Action that reads our marks is in force, as far as it was looked at.

use super::write::Write;
use super::{Store, StoreError};
use crate::domain::{Timestamp, timestamp_text};

/// What the last look at the Action came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// Our code runs, before all other Actions.
    Verified,
    /// We may not look, or what runs is not quite what it should be.
    Unverified,
    /// It is not there, not deployed or not bound: nobody is denied by it.
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
    /// Notes what a look at the Action came to.
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
