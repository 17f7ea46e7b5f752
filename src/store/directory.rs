//! The directory: every user that Okta lists, with every address ever read for them.

use serde::Serialize;
use sqlx::FromRow;

use super::types::StoredTime;
use super::write::Write;
use super::{Store, StoreError};
use crate::domain::{Address, OktaUser, OktaUserId, Timestamp, clock, timestamp_text};

/// Okta's listings lag: what a look read within this time is newer than a page.
const LAG: std::time::Duration = std::time::Duration::from_secs(60);

/// The progress of the listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// When the listing in progress began.
    pub started_at: Option<Timestamp>,
    /// The cursor of its next page.
    pub next: Option<String>,
    /// Users of the listing in progress, or of the last one.
    pub listed: u64,
    /// When the last complete listing ended.
    pub complete_at: Option<Timestamp>,
}

#[derive(FromRow)]
struct DirectoryRow {
    started_at: Option<StoredTime>,
    next: Option<String>,
    listed: i64,
    complete_at: Option<StoredTime>,
}

/// A user in the JSON text of a page: one statement stores the whole page.
#[derive(Serialize)]
struct ListedUser<'a> {
    id: &'a str,
    login: Option<&'a str>,
    login_key: Option<String>,
    email: Option<&'a str>,
    hidden: bool,
    addresses: Vec<(String, String)>,
}

impl<'a> ListedUser<'a> {
    fn new(user: &'a OktaUser) -> Self {
        let login = Some(user.login.as_str()).filter(|login| !login.is_empty());
        Self {
            id: user.id.as_str(),
            login,
            // A login that is an address is found among the addresses.
            login_key: login.filter(|login| Address::parse(login).is_none()).map(str::to_lowercase),
            email: user.email.as_ref().map(Address::as_str),
            hidden: user.hides_addresses(),
            addresses: user.addresses().iter().map(|address| (address.as_str().to_owned(), address.key())).collect(),
        }
    }
}

// In the statements about a page, ?1 is the page, ?2 the time and ?3 the time after which a look is newer than the page.

/// Adds users that the state does not know, and updates the names of the others, unless a look has just read them.
const STORE_USERS: &str = "
    INSERT INTO users (okta_user_id, login, login_key, email, address_hidden, due_seq, settled_seq, cause, since)
    SELECT value ->> 'id', value ->> 'login', value ->> 'login_key', value ->> 'email', value ->> 'hidden',
           i.seq_floor, i.seq_floor, 'sweep', ?2
    FROM json_each(?1) CROSS JOIN installation i WHERE true
    ON CONFLICT (okta_user_id) DO UPDATE SET
        login = coalesce(excluded.login, login),
        login_key = iif(excluded.login IS NULL, login_key, excluded.login_key),
        email = coalesce(excluded.email, email),
        address_hidden = excluded.address_hidden
    WHERE (status_at IS NULL OR status_at < ?3)
      AND (address_hidden <> excluded.address_hidden OR login IS NOT coalesce(excluded.login, login)
           OR email IS NOT coalesce(excluded.email, email))";

const STORE_ADDRESSES: &str = "
    INSERT INTO addresses (user_seq, address, address_key, seen_at)
    SELECT k.user_seq, a.value ->> 0, a.value ->> 1, ?2
    FROM json_each(?1) j CROSS JOIN json_each(j.value, '$.addresses') a
         CROSS JOIN users k ON k.okta_user_id = j.value ->> 'id' WHERE true
    ON CONFLICT (user_seq, address) DO UPDATE SET replaced_at = NULL WHERE replaced_at IS NOT NULL";

/// A page that hides the addresses of a user says nothing about them.
const REPLACE_ADDRESSES: &str = "
    WITH listed AS MATERIALIZED (
        SELECT k.user_seq FROM json_each(?1) j CROSS JOIN users k ON k.okta_user_id = j.value ->> 'id'
        WHERE NOT j.value ->> 'hidden' AND (k.status_at IS NULL OR k.status_at < ?3)
    ), held AS MATERIALIZED (
        SELECT k.user_seq, a.value ->> 1 AS address_key
        FROM json_each(?1) j CROSS JOIN json_each(j.value, '$.addresses') a
             CROSS JOIN users k ON k.okta_user_id = j.value ->> 'id'
    )
    UPDATE addresses SET replaced_at = ?2
    WHERE user_seq IN (SELECT user_seq FROM listed) AND replaced_at IS NULL
      AND (user_seq, address_key) NOT IN (SELECT user_seq, address_key FROM held)";

impl Store {
    /// The progress of the listing.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn directory(&self) -> Result<Directory, StoreError> {
        let row: DirectoryRow = sqlx::query_as("SELECT started_at, next, listed, complete_at FROM directory")
            .fetch_one(self.reader())
            .await?;
        Ok(Directory {
            started_at: row.started_at.map(Timestamp::from),
            next: row.next,
            listed: row.listed.unsigned_abs(),
            complete_at: row.complete_at.map(Timestamp::from),
        })
    }

    /// When the last complete listing ended; before the first one, when the state was created.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn last_directory_or_start(&self) -> Result<Option<Timestamp>, StoreError> {
        let at: Option<StoredTime> =
            sqlx::query_scalar("SELECT coalesce(d.complete_at, i.first_run_at) FROM directory d, installation i")
                .fetch_optional(self.reader())
                .await?;
        Ok(at.map(Timestamp::from))
    }

    /// Begins a listing at its first page, in place of one in progress.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn begin_directory(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(
            Write::BeginDirectory,
            sqlx::query("UPDATE directory SET started_at = ?, next = NULL, listed = 0").bind(timestamp_text(now)),
        )
        .await?;
        Ok(())
    }

    /// Stores a page of the listing: its users, their addresses, and where the listing continues. Makes no user due, and
    /// leaves out users who were forgotten.
    ///
    /// Without `next`, the listing is complete, unless Okta listed no user at all. Returns the number of users listed so far.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn record_directory_page(
        &self,
        users: &[OktaUser],
        next: Option<&str>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let now_text = timestamp_text(now);
        let mut tx = self.begin(Write::RecordDirectoryPage).await?;
        let ids: Vec<&OktaUserId> = users.iter().map(|user| &user.id).collect();
        let forgotten = self.forgotten_among(&mut tx, &ids).await?;
        let kept = users.iter().filter(|user| !forgotten.contains_key(&user.id));
        let rows: Vec<ListedUser<'_>> = kept.map(ListedUser::new).collect();
        let page = serde_json::to_string(&rows)
            .map_err(|error| StoreError::Unreadable { what: "a page of users", value: error.to_string() })?;
        let looked_after = timestamp_text(clock::sub(now, LAG));
        sqlx::query(STORE_USERS).bind(&page).bind(&now_text).bind(&looked_after).execute(&mut *tx).await?;
        sqlx::query(STORE_ADDRESSES).bind(&page).bind(&now_text).execute(&mut *tx).await?;
        sqlx::query(REPLACE_ADDRESSES).bind(&page).bind(&now_text).bind(&looked_after).execute(&mut *tx).await?;
        let listed: i64 = sqlx::query_scalar(
            "UPDATE directory SET next = ?1, listed = listed + ?2,
                 started_at = iif(?1 IS NULL, NULL, started_at),
                 complete_at = iif(?1 IS NULL AND listed + ?2 > 0, ?3, complete_at)
             RETURNING listed",
        )
        .bind(next)
        .bind(i64::try_from(users.len()).unwrap_or(i64::MAX))
        .bind(&now_text)
        .fetch_one(&mut *tx)
        .await?;
        self.commit(tx).await?;
        Ok(listed.unsigned_abs())
    }

    /// Whether the state has a user who has not left, as far as is known.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn knows_present_users(&self) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM users WHERE left_seen = 0)")
            .fetch_one(self.reader())
            .await?)
    }

    /// Forgets that the listing of the org did not show a user's login and e-mail, for users who have not left: without the
    /// listing, nothing reads these users, so nothing would notice that Okta shows them again.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub async fn forget_hidden_listed(&self) -> Result<(), StoreError> {
        let forget = sqlx::query("UPDATE users SET address_hidden = 0 WHERE address_hidden = 1 AND left_seen = 0");
        self.write(Write::ForgetHiddenListed, forget).await?;
        Ok(())
    }

    /// How many users had login and e-mail hidden from us when they were last read.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn hidden_users(&self) -> Result<u64, StoreError> {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM users WHERE address_hidden = 1").fetch_one(self.reader()).await?;
        Ok(count.unsigned_abs())
    }
}
