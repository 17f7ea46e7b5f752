//! Purging: accounts from which all our marks are removed.

use sqlx::FromRow;

use super::looks::Decision;
use super::write::Write;
use super::{Store, StoreError};
use crate::domain::{AccountId, OktaUserId, Timestamp};

/// An account that has or had our mark.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct MarkedByUs {
    /// Auth0's id.
    #[sqlx(rename = "auth0_user_id")]
    pub account: AccountId,
    /// The user it was marked for.
    #[sqlx(rename = "okta_user_id")]
    pub user: OktaUserId,
    /// Is it denied, according to the state?
    pub denied: bool,
    /// Did we block it, or may we have?
    pub blocked: bool,
}

impl Store {
    /// A page of the known accounts, ordered by Auth0's id, after `after`.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn marked_by_us(&self, after: Option<&AccountId>, limit: u32) -> Result<Vec<MarkedByUs>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT auth0_user_id, okta_user_id, denied OR unconfirmed > 0 AS denied,
                    blocked OR unconfirmed = 2 AS blocked FROM accounts WHERE auth0_user_id > ?
             ORDER BY auth0_user_id LIMIT ?",
        )
        .bind(after.map_or("", AccountId::as_str))
        .bind(limit)
        .fetch_all(self.reader())
        .await?)
    }

    /// Logs the decision about a purged account, if something was written, and forgets the account if `is_clean`: nothing of
    /// ours is left on it.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn purged(
        &self,
        account: &AccountId,
        decision: Option<Decision>,
        is_clean: bool,
        policy: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::Purged).await?;
        sqlx::query("DELETE FROM accounts WHERE auth0_user_id = ? AND ?")
            .bind(account.as_str())
            .bind(is_clean)
            .execute(&mut *tx)
            .await?;
        if let Some(decision) = decision {
            self.append_decisions(&mut tx, &[decision], policy, now).await?;
        }
        self.commit(tx).await
    }
}
