//! Tombstones: what `forget` leaves of a user, so that the directory, a reconcile or a look does not record them again.
//!
//! A tombstone is a keyed hash of the Okta id. It says nothing without the key, and with the key (which is in the same file)
//! it only answers whether a given id was forgotten.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use super::write::Tx;
use super::{Store, StoreError};
use crate::domain::{Event, OktaUserId, Signal, Timestamp, timestamp_text};

const KEY_BYTES: usize = 32;

/// The newest event about the user ?1 that the state knows.
const EVIDENCE: &str = "
    SELECT max(at) FROM (
        SELECT left_at AS at FROM users WHERE okta_user_id = ?1
        UNION ALL SELECT returned_at FROM users WHERE okta_user_id = ?1
        UNION ALL SELECT e.published FROM users u JOIN event_users eu USING (user_seq) JOIN events e ON e.seq = eu.event_seq
                  WHERE u.okta_user_id = ?1)";

/// Removes the user ?1 if a look has ended, no other is planned, and no account carries a mark for them.
const REMOVE_SETTLED: [&str; 2] = [
    "DELETE FROM accounts WHERE okta_user_id = ?1 AND denied = 0 AND sessions_owed = 0 AND unconfirmed = 0
         AND EXISTS (SELECT 1 FROM users WHERE okta_user_id = ?1 AND due_at IS NULL AND due_since IS NULL)",
    "DELETE FROM users WHERE okta_user_id = ?1 AND due_at IS NULL AND due_since IS NULL
         AND NOT EXISTS (SELECT 1 FROM accounts WHERE okta_user_id = ?1)
         AND NOT EXISTS (SELECT 1 FROM event_users eu WHERE eu.user_seq = users.user_seq)",
];

/// The users of a page who were forgotten, each with the newest event that was known then.
pub(super) type Forgotten = BTreeMap<OktaUserId, Option<String>>;

impl Store {
    /// Whether `forget` removed the user and no later event ended that.
    pub(super) async fn is_forgotten(&self, tx: &mut Tx, id: &OktaUserId) -> Result<bool, StoreError> {
        Ok(!self.forgotten_among(tx, &[id]).await?.is_empty())
    }

    /// Which of these users were forgotten.
    pub(super) async fn forgotten_among(&self, tx: &mut Tx, ids: &[&OktaUserId]) -> Result<Forgotten, StoreError> {
        let mut forgotten = Forgotten::new();
        let Some(key) = existing_key(tx).await? else { return Ok(forgotten) };
        if sqlx::query_scalar::<_, i64>("SELECT count(*) FROM (SELECT 1 FROM tombstones LIMIT 1)")
            .fetch_one(&mut **tx)
            .await?
            == 0
        {
            return Ok(forgotten);
        }
        for id in ids {
            let evidence: Option<Option<String>> =
                sqlx::query_scalar("SELECT evidence_at FROM tombstones WHERE digest = ?")
                    .bind(digest(&key, id))
                    .fetch_optional(&mut **tx)
                    .await?;
            if let Some(evidence) = evidence {
                forgotten.insert((*id).clone(), evidence);
            }
        }
        Ok(forgotten)
    }

    /// Leaves a tombstone, in place of an older one.
    pub(super) async fn leave_tombstone(&self, tx: &mut Tx, id: &OktaUserId, now: Timestamp) -> Result<(), StoreError> {
        let key = match existing_key(tx).await? {
            Some(key) => key,
            None => create_key(tx).await?,
        };
        let evidence: Option<String> = sqlx::query_scalar(EVIDENCE).bind(id).fetch_one(&mut **tx).await?;
        sqlx::query("INSERT OR REPLACE INTO tombstones (digest, evidence_at, forgotten_at) VALUES (?, ?, ?)")
            .bind(digest(&key, id))
            .bind(evidence)
            .bind(timestamp_text(now))
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// Ends the tombstones of users who changed their status since: the state may record them again. Returns the users of the
    /// page who stay forgotten.
    pub(super) async fn end_tombstones(&self, tx: &mut Tx, events: &[Event]) -> Result<Forgotten, StoreError> {
        let users: Vec<&OktaUserId> = events.iter().flat_map(|event| event.users.iter().map(|user| &user.id)).collect();
        let mut forgotten = self.forgotten_among(tx, &users).await?;
        if forgotten.is_empty() {
            return Ok(forgotten);
        }
        let Some(key) = existing_key(tx).await? else { return Ok(forgotten) };
        for event in events.iter().filter(|event| is_news(event.signal())) {
            let published = timestamp_text(event.published);
            for user in &event.users {
                let Some(known) = forgotten.get(&user.id) else { continue };
                if known.as_ref().is_none_or(|known| published > *known) {
                    forgotten.remove(&user.id);
                    sqlx::query("DELETE FROM tombstones WHERE digest = ?")
                        .bind(digest(&key, &user.id))
                        .execute(&mut **tx)
                        .await?;
                }
            }
        }
        Ok(forgotten)
    }

    /// Removes a forgotten user whose look has ended and left no mark.
    pub(super) async fn remove_settled(&self, tx: &mut Tx, id: &OktaUserId) -> Result<(), StoreError> {
        for sql in REMOVE_SETTLED {
            sqlx::query(sql).bind(id).execute(&mut **tx).await?;
        }
        Ok(())
    }
}

/// Whether an event can change what the user may do. A changed profile cannot.
const fn is_news(signal: Signal) -> bool {
    matches!(signal, Signal::Left | Signal::Returned | Signal::Suspended | Signal::Changed)
}

fn digest(key: &[u8], id: &OktaUserId) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, id.as_str().as_bytes()).as_ref().to_vec()
}

async fn existing_key(tx: &mut Tx) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(sqlx::query_scalar("SELECT key FROM tombstone_key").fetch_optional(&mut **tx).await?)
}

async fn create_key(tx: &mut Tx) -> Result<Vec<u8>, StoreError> {
    let key = random::<KEY_BYTES>()?.to_vec();
    sqlx::query("INSERT INTO tombstone_key (id, key) VALUES (1, ?)").bind(&key).execute(&mut **tx).await?;
    Ok(key)
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StoreError::NoRandomness)?;
    Ok(bytes)
}
