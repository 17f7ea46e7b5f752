//! Removes personal values from the log, so that the rest of each row stays provable.

use sqlx::Row;

use super::super::write::Tx;
use super::super::{Store, StoreError};
use super::row::{COLUMNS, Part, Values};
use super::{Seal, hash_of, hex, seal_log};
use crate::domain::{OktaUserId, Timestamp, timestamp_text};

/// Rows read at a time.
const PAGE: u32 = 1000;

/// The rows after ?4 with a value of the user ?1: those about the user, and those whose actor is in the list ?2. Rows of a
/// part that is removed already no longer have the value. The literal limit is [`PAGE`].
const ROWS: &str = "
    WHERE id > ?3 AND (okta_user_id = ?1 OR lower(actor) IN (SELECT lower(value) FROM json_each(?2)))
    ORDER BY id LIMIT 1000";

const REMOVE_SUBJECT: &str = "
    UPDATE decision_log SET forgotten_at = ?2, okta_user_id = NULL, email = NULL, auth0_user_id = NULL, event_id = NULL,
        why = NULL, request_id = NULL, subject_hash = ?3, subject_salt = NULL WHERE id = ?1";

const REMOVE_ACTOR: &str = "
    UPDATE decision_log SET actor = NULL, actor_hash = ?3, actor_salt = NULL WHERE id = ?1 AND ?2 IS NOT NULL";

impl Store {
    /// Removes the user's values from every decision: all of those about the user, and the actor of those where it is in
    /// `names`, a JSON array. Returns the text for the decision that records it, which must be the next one appended.
    pub(in crate::store) async fn redact_decisions(
        &self,
        tx: &mut Tx,
        user: &OktaUserId,
        names: &str,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let seal = seal_log(tx).await?;
        let record: i64 =
            sqlx::query_scalar("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'decision_log'), 0) + 1")
                .fetch_one(&mut **tx)
                .await?;
        sqlx::query("UPDATE decision_log_gate SET open = 1").execute(&mut **tx).await?;
        let (mut last, mut rows) = (0, 0_u64);
        loop {
            let page = sqlx::query(sqlx::AssertSqlSafe(format!(
                "SELECT id, subject_salt, actor_salt, {COLUMNS} FROM decision_log {ROWS}"
            )))
            .bind(user)
            .bind(names)
            .bind(last)
            .fetch_all(&mut **tx)
            .await?;
            for row in &page {
                last = row.try_get("id")?;
                let found = Found {
                    id: last,
                    values: Values::read(row)?,
                    salts: [row.try_get("subject_salt")?, row.try_get("actor_salt")?],
                    is_about_user: row.try_get::<Option<String>, _>("okta_user_id")?.as_deref() == Some(user.as_str()),
                };
                redact(tx, found, record, &seal, &timestamp_text(now)).await?;
                rows += 1;
            }
            if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                break;
            }
        }
        sqlx::query("UPDATE decision_log_gate SET open = 0").execute(&mut **tx).await?;
        Ok(redaction_text(rows, &list_hash(tx, record).await?))
    }
}

/// A row with values to remove.
struct Found {
    id: i64,
    values: Values,
    /// Of the subject and the actor.
    salts: [Option<Vec<u8>>; 2],
    is_about_user: bool,
}

async fn redact(tx: &mut Tx, row: Found, record: i64, seal: &Seal, now: &str) -> Result<(), StoreError> {
    // The actor of a row about the user may be the user, under a name that is no longer known.
    let parts: &[Part] = if row.is_about_user { &Part::ALL } else { &[Part::Actor] };
    let is_old = row.id <= seal.last;
    let mut rest = row.values.clone();
    for part in parts {
        rest = rest.without(*part);
    }
    for part in parts {
        let (sql, salt) = match part {
            Part::Subject => (REMOVE_SUBJECT, &row.salts[0]),
            Part::Actor => (REMOVE_ACTOR, &row.salts[1]),
        };
        if !is_old && salt.is_none() {
            continue;
        }
        let hash = salt.as_ref().map(|salt| row.values.commitment(*part, salt));
        sqlx::query(sql).bind(row.id).bind(now).bind(hash).execute(&mut **tx).await?;
        sqlx::query(
            "INSERT INTO decision_redactions (row_id, part, decision_id, remaining) VALUES (?, ?, ?, ?)
             ON CONFLICT DO NOTHING",
        )
        .bind(row.id)
        .bind(part.as_str())
        .bind(record)
        .bind(is_old.then(|| rest.whole_digest()))
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// What the decision that records a `forget` says.
pub(super) fn redaction_text(rows: u64, list: &[u8]) -> String {
    format!("anonymized decisions: {rows}; SHA-256 of the list: {}", hex(list))
}

/// A hash over the list of the values that the decision `record` removed.
pub(super) async fn list_hash(
    connection: &mut sqlx::sqlite::SqliteConnection,
    record: i64,
) -> Result<Vec<u8>, StoreError> {
    let list: Vec<(i64, String, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT row_id, part, remaining FROM decision_redactions WHERE decision_id = ? ORDER BY row_id, part",
    )
    .bind(record)
    .fetch_all(connection)
    .await?;
    let ids: Vec<String> = list.iter().map(|(id, ..)| id.to_string()).collect();
    let values: Vec<Option<&[u8]>> = list
        .iter()
        .zip(&ids)
        .flat_map(|((_, part, remaining), id)| [Some(id.as_bytes()), Some(part.as_bytes()), remaining.as_deref()])
        .collect();
    Ok(hash_of(&values))
}
