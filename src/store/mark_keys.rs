//! A changed metadata key: which marks still have to move, and whether they may.

use sqlx::FromRow;

use super::write::Write;
use super::{Store, StoreError};

/// Marks that are still under a former metadata key.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct UnmovedMarks {
    /// How many accounts are denied by one.
    pub accounts: i64,
    /// The former keys, separated by commas.
    pub former: String,
    /// The configured key.
    pub current: String,
    /// The Action for the configured key is in force, so the marks may move.
    pub may_move: bool,
    /// The Action could not be checked, because the credential lacks the scope.
    pub lacks_scope: bool,
}

impl Store {
    /// The marks that are still under a former metadata key; `None` if there are none.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn unmoved_marks(&self) -> Result<Option<UnmovedMarks>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT count(*) AS accounts, group_concat(DISTINCT a.mark_key) AS former, i.metadata_key AS current,
                    h.action_key IS i.metadata_key AS may_move, h.action IS 'no_scope' AS lacks_scope
             FROM installation i, health h, accounts a
             WHERE a.denied = 1 AND a.mark_key <> i.metadata_key
             GROUP BY i.id",
        )
        .fetch_optional(self.reader())
        .await?)
    }

    /// Whether the Action for the configured metadata key is in force, so that marks under former keys may move to it.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn may_move_marks(&self) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM installation i, health h WHERE h.action_key = i.metadata_key)",
        )
        .fetch_one(self.reader())
        .await?)
    }

    /// Records the metadata key whose Action is deployed and bound; `None` if none is, or it cannot be checked.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn note_action_key(&self, key: Option<&str>) -> Result<(), StoreError> {
        let note = sqlx::query("UPDATE health SET action_key = ?1 WHERE action_key IS NOT ?1").bind(key);
        self.write(Write::NoteActionKey, note).await?;
        Ok(())
    }
}
