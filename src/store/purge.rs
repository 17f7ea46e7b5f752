//! The end: accounts from which everything of ours is taken.

use sqlx::FromRow;

use super::looks::Decision;
use super::write::Write;
use super::{Store, StoreError};
use crate::domain::{AccountId, OktaUserId, Timestamp};

/// An account that carries, or carried, a mark of ours.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct MarkedByUs {
    /// Auth0's id.
    #[sqlx(rename = "auth0_user_id")]
    pub account: AccountId,
    /// For whom.
    #[sqlx(rename = "okta_user_id")]
    pub user: OktaUserId,
    /// Is it denied, as far as the state knows?
    pub denied: bool,
}

impl Store {
    /// The next accounts of which the state knows, by Auth0's id, after `after`.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn marked_by_us(&self, after: Option<&AccountId>, limit: u32) -> Result<Vec<MarkedByUs>, StoreError> {
        Ok(sqlx::query_as(
            "SELECT auth0_user_id, okta_user_id, denied FROM accounts WHERE auth0_user_id > ?
             ORDER BY auth0_user_id LIMIT ?",
        )
        .bind(after.map_or("", AccountId::as_str))
        .bind(limit)
        .fetch_all(self.reader())
        .await?)
    }

    /// Nothing of ours is on the account any more: the state lets go of it, with the decision that did it, if something
    /// was written.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn purged(
        &self,
        account: &AccountId,
        decision: Option<Decision>,
        policy: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::Purged).await?;
        sqlx::query("DELETE FROM accounts WHERE auth0_user_id = ?").bind(account.as_str()).execute(&mut *tx).await?;
        if let Some(decision) = decision {
            self.append_decisions(&mut tx, &[decision], policy, now).await?;
        }
        self.commit(tx).await
    }
}
