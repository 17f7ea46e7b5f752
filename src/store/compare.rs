//! Bulk reads for a reconcile.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::FromRow;

use super::write::Write;
use super::{Store, StoreError, json_list};
use crate::domain::{AccountId, Address, OktaUserId, OutcomeKind, Status, Timestamp, timestamp_text};

/// What a reconcile needs to know about a user.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Known {
    /// Okta's id.
    pub id: OktaUserId,
    /// The last status read from Okta.
    pub status: Option<Status>,
    /// How the last look ended.
    pub outcome: Option<OutcomeKind>,
    /// Has an unsettled reason to look.
    pub open: bool,
    /// Okta hid the login and e-mail from us when the user was last read.
    pub address_hidden: bool,
    /// Every address ever read for the user.
    #[sqlx(skip)]
    pub addresses: Vec<Address>,
    /// Accounts with our mark for this user, according to the state.
    #[sqlx(skip)]
    pub denied: Vec<AccountId>,
    /// An account's sessions must still be ended.
    #[sqlx(skip)]
    pub owing: bool,
}

impl Store {
    /// What the state knows about these users. Unknown users are absent from the result.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn known(&self, ids: &[OktaUserId]) -> Result<BTreeMap<OktaUserId, Known>, StoreError> {
        let list = json_list(ids.iter().map(OktaUserId::as_str));
        let mut tx = self.reader().begin().await?;
        let users: Vec<Known> = sqlx::query_as(
            "SELECT okta_user_id AS id, status, outcome, due_seq > settled_seq AS open, address_hidden FROM users
             WHERE okta_user_id IN (SELECT value FROM json_each(?))",
        )
        .bind(&list)
        .fetch_all(&mut *tx)
        .await?;
        let mut known: BTreeMap<_, _> = users.into_iter().map(|user| (user.id.clone(), user)).collect();
        let addresses: Vec<(OktaUserId, String)> = sqlx::query_as(
            "SELECT u.okta_user_id, a.address FROM users u JOIN addresses a USING (user_seq)
             WHERE u.okta_user_id IN (SELECT value FROM json_each(?)) ORDER BY u.okta_user_id, a.seen_at, a.address",
        )
        .bind(&list)
        .fetch_all(&mut *tx)
        .await?;
        for (id, address) in addresses {
            if let (Some(user), Some(address)) = (known.get_mut(&id), Address::parse(&address)) {
                user.addresses.push(address);
            }
        }
        let accounts: Vec<(OktaUserId, AccountId, bool, bool)> = sqlx::query_as(
            "SELECT okta_user_id, auth0_user_id, denied, sessions_owed FROM accounts
             WHERE okta_user_id IN (SELECT value FROM json_each(?)) AND (denied = 1 OR sessions_owed = 1)",
        )
        .bind(&list)
        .fetch_all(&mut *tx)
        .await?;
        for (id, account, denied, owing) in accounts {
            if let Some(user) = known.get_mut(&id) {
                user.owing |= owing;
                if denied {
                    user.denied.push(account);
                }
            }
        }
        Ok(known)
    }

    /// Which of these accounts carry our mark, according to the state?
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn denied_among(&self, accounts: &[AccountId]) -> Result<BTreeSet<AccountId>, StoreError> {
        let list = json_list(accounts.iter().map(AccountId::as_str));
        let ids: Vec<AccountId> = sqlx::query_scalar(
            "SELECT auth0_user_id FROM accounts WHERE denied = 1 AND auth0_user_id IN (SELECT value FROM json_each(?))",
        )
        .bind(list)
        .fetch_all(self.reader())
        .await?;
        Ok(ids.into_iter().collect())
    }

    /// Did we block this account, for any user?
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn is_blocked_by_us(&self, account: &AccountId) -> Result<bool, StoreError> {
        let blocked: Option<bool> =
            sqlx::query_scalar("SELECT blocked OR unconfirmed = 2 FROM accounts WHERE auth0_user_id = ?")
                .bind(account.as_str())
                .fetch_optional(self.reader())
                .await?;
        Ok(blocked.unwrap_or(false))
    }

    /// Adds a marked account that the state does not know, because the state was lost or is younger than the mark. Makes
    /// the user due; the next look checks the account.
    ///
    /// Returns whether the account was unknown.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn adopt_account(
        &self,
        owner: &OktaUserId,
        account: &AccountId,
        email: Option<&Address>,
        denied_at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let now_text = timestamp_text(now);
        let mut tx = self.begin(Write::AdoptAccount).await?;
        let is_forgotten = self.is_forgotten(&mut tx, owner).await?;
        sqlx::query(
            "INSERT INTO users (okta_user_id, due_seq, settled_seq, cause, since)
             SELECT ?, seq_floor, seq_floor, 'sweep', ? FROM installation WHERE true ON CONFLICT DO NOTHING",
        )
        .bind(owner.as_str())
        .bind(&now_text)
        .execute(&mut *tx)
        .await?;
        let adopted = sqlx::query(
            "INSERT INTO accounts (auth0_user_id, okta_user_id, email, denied, denied_at, changed_at)
             VALUES (?1, ?2, ?3, 1, ?4, ?5)
             ON CONFLICT (auth0_user_id) DO UPDATE SET okta_user_id = excluded.okta_user_id, denied = 1,
                 denied_at = excluded.denied_at, changed_at = excluded.changed_at
             WHERE denied = 0 OR okta_user_id <> excluded.okta_user_id",
        )
        .bind(account.as_str())
        .bind(owner.as_str())
        .bind(email.filter(|_| !is_forgotten).map(Address::as_str))
        .bind(timestamp_text(denied_at))
        .bind(&now_text)
        .execute(&mut *tx)
        .await?;
        self.commit(tx).await?;
        Ok(adopted.rows_affected() > 0)
    }
}
