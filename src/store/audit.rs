//! The decision log as evidence: a hash chain.
//!
//! `digest` is SHA-256 over the row's values; `chain` is SHA-256 over the previous chain value and the digest. A changed,
//! added or removed row breaks the chain from there on; row numbers reveal rows missing at either end. This detects
//! accidents and careless edits. An attacker who can write the file can recompute the chain; only an export kept elsewhere
//! detects that. `forget` clears the values but keeps the digest, so the other rows stay verifiable. Retention deletes the
//! oldest rows and keeps the chain value before the first remaining one.

use aws_lc_rs::digest::{Context, SHA256};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::looks::Decision;
use super::write::Tx;
use super::{Store, StoreError};
use crate::domain::{Timestamp, timestamp_text};

/// The columns that the digest covers, in order.
const COLUMNS: &str = "at, okta_user_id, email, auth0_user_id, cause, event_id, actor, status, verdict, before, after, \
                       outcome, why, request_id, version, policy, lag_ms";

const LAST_CHAIN: &str = "
    SELECT coalesce((SELECT chain FROM decision_log ORDER BY id DESC LIMIT 1), (SELECT chain FROM decision_log_root))";

const APPEND: &str = "
    INSERT INTO decision_log (at, okta_user_id, email, auth0_user_id, cause, event_id, actor, status, verdict, before,
        after, outcome, why, request_id, version, policy, lag_ms, digest, chain)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// The result of [`Store::verify_decisions`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Rows with verified values and position.
    pub rows: u64,
    /// Rows cleared by `forget`; only their position is verified.
    pub forgotten: u64,
}

impl Store {
    /// Appends decisions within an open transaction.
    pub(super) async fn append_decisions(
        &self,
        tx: &mut Tx,
        decisions: &[Decision],
        policy: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if decisions.is_empty() {
            return Ok(());
        }
        let mut chain: Vec<u8> = sqlx::query_scalar(LAST_CHAIN).fetch_one(&mut **tx).await?;
        let at = timestamp_text(now);
        for decision in decisions {
            let lag = decision.lag_ms.map(|lag| lag.to_string());
            let values = [
                Some(at.as_str()),
                decision.okta_user_id.as_deref(),
                decision.email.as_deref(),
                decision.auth0_user_id.as_deref(),
                Some(decision.cause.as_str()),
                decision.event_id.as_deref(),
                decision.actor.as_deref(),
                decision.status.as_deref(),
                decision.verdict.map(crate::domain::Verdict::as_str),
                decision.before.as_deref(),
                decision.after.as_deref(),
                Some(decision.outcome.as_str()),
                decision.why.as_deref(),
                decision.request_id.as_deref(),
                Some(env!("CARGO_PKG_VERSION")),
                Some(policy),
                lag.as_deref(),
            ];
            let digest = digest_of(&values);
            chain = chain_hash(&chain, &digest);
            // In column order; the last column, `lag_ms`, is an integer and is bound below.
            let text_values = &values[..values.len() - 1];
            let query = text_values.iter().fold(sqlx::query(APPEND), |query, value| query.bind(*value));
            query.bind(decision.lag_ms).bind(&digest).bind(&chain).execute(&mut **tx).await?;
        }
        Ok(())
    }

    /// Verifies the hash chain of the decisions.
    ///
    /// # Errors
    /// [`StoreError::Tampered`], naming the first bad row.
    pub async fn verify_decisions(&self) -> Result<Verified, StoreError> {
        let mut tx = self.reader().begin().await?;
        let (mut last, mut chain): (i64, Vec<u8>) =
            sqlx::query_as("SELECT last, chain FROM decision_log_root").fetch_one(&mut *tx).await?;
        let newest: i64 =
            sqlx::query_scalar("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'decision_log'), 0)")
                .fetch_one(&mut *tx)
                .await?;
        let mut verified = Verified::default();
        loop {
            let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
                "SELECT id, forgotten_at IS NOT NULL AS forgotten, digest, chain, {COLUMNS} FROM decision_log
                 WHERE id > ? ORDER BY id LIMIT 1000"
            )))
            .bind(last)
            .fetch_all(&mut *tx)
            .await?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                last = row.try_get("id")?;
                let digest: Vec<u8> = row.try_get("digest")?;
                if row.try_get::<bool, _>("forgotten")? {
                    verified.forgotten += 1;
                } else {
                    require_digest(&row, last, &digest)?;
                    verified.rows += 1;
                }
                chain = chain_hash(&chain, &digest);
                if chain != row.try_get::<Vec<u8>, _>("chain")? {
                    return Err(StoreError::Tampered(format!(
                        "row {last} does not follow the row before it: a row was removed, added or moved"
                    )));
                }
            }
        }
        if last < newest {
            return Err(StoreError::Tampered(format!("rows {} to {newest} were removed", last + 1)));
        }
        Ok(verified)
    }
}

/// Checks a row's values against its digest.
fn require_digest(row: &SqliteRow, id: i64, digest: &[u8]) -> Result<(), StoreError> {
    let mut values = Vec::with_capacity(17);
    for column in COLUMNS.split(", ") {
        values.push(if column == "lag_ms" {
            row.try_get::<Option<i64>, _>(column)?.map(|lag| lag.to_string())
        } else {
            row.try_get::<Option<String>, _>(column)?
        });
    }
    let values: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
    if digest_of(&values) == digest {
        return Ok(());
    }
    Err(StoreError::Tampered(format!("row {id} was changed after it was written")))
}

/// Hashes each value with its length, so that different rows never hash the same bytes.
fn digest_of(values: &[Option<&str>]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for value in values {
        match value {
            None => context.update(&[0]),
            Some(text) => {
                context.update(&[1]);
                context.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
                context.update(text.as_bytes());
            }
        }
    }
    context.finish().as_ref().to_vec()
}

fn chain_hash(before: &[u8], digest: &[u8]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    context.update(before);
    context.update(digest);
    context.finish().as_ref().to_vec()
}
