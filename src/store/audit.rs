//! The decision log as evidence: a hash chain.
//!
//! `digest` is SHA-256 over the row; `chain` is SHA-256 over the previous chain value and the digest. A changed, added or
//! removed row breaks the chain from there on; row numbers reveal rows missing at either end. This detects accidents and
//! careless edits. An attacker who can write the file can recompute the chain; only an export kept elsewhere detects that.
//!
//! The personal values of a row enter its digest by two salted hashes ([`Part`]), so that `forget` can remove them and the
//! rest stays provable. The decision that records a `forget` has a hash over the rows that it anonymized. Retention records
//! what it removed in the same way, so that a log without its beginning proves that retention removed it.

mod redact;
mod row;
mod verify;

use aws_lc_rs::digest::{Context, SHA256};

use self::row::{COLUMNS, Part, Values};
use super::looks::Decision;
use super::tombstones::random;
use super::write::{Tx, Write};
use super::{Store, StoreError};
use crate::domain::{DecisionOutcome, Timestamp};

pub use verify::Verified;

const LAST_CHAIN: &str = "
    SELECT coalesce((SELECT chain FROM decision_log ORDER BY id DESC LIMIT 1), (SELECT chain FROM decision_log_root))";

/// The `cause` of a decision that retention made.
const RETENTION: &str = "retention";

/// The oldest decisions before ?1, at most ?2 without the records of retention itself, which go with those behind them.
const LAST_EXPIRED_DECISION: &str = "
    WITH oldest AS MATERIALIZED (SELECT id, at FROM decision_log WHERE outcome <> 'expired' ORDER BY id LIMIT ?2)
    SELECT max(id) FROM oldest
    WHERE id < coalesce((SELECT min(id) FROM oldest WHERE at >= ?1), 9223372036854775807)";

/// Deletes the decisions up to ?1. What the list of an older version says is needed while a row of it is kept.
const EXPIRE_DECISIONS: [&str; 4] = [
    "UPDATE decision_log_root SET last = ?1, chain = (SELECT chain FROM decision_log WHERE id = ?1)",
    "DELETE FROM decision_redactions WHERE decision_id BETWEEN 1 AND ?1",
    "DELETE FROM decision_redactions WHERE decision_id = 0 AND ?1 >= (SELECT last FROM decision_log_seal)",
    "DELETE FROM decision_log WHERE id <= ?1",
];

/// How the log stood when this version began to write it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Seal {
    /// The last row of an older version.
    last: i64,
    /// The last row that retention had removed.
    expired: i64,
    /// Its chain value.
    expired_chain: Vec<u8>,
    /// A hash over the rows that were anonymized by then.
    forgotten: Vec<u8>,
}

impl Seal {
    /// What each later row commits to.
    fn hash(&self) -> Vec<u8> {
        let (last, expired) = (self.last.to_string(), self.expired.to_string());
        hash_of(&[
            Some(b"seal"),
            Some(last.as_bytes()),
            Some(expired.as_bytes()),
            Some(&self.expired_chain),
            Some(&self.forgotten),
        ])
    }
}

impl Store {
    /// Seals the rows of older versions, once.
    pub(super) async fn seal_decisions(&self) -> Result<(), StoreError> {
        let mut tx = self.begin(Write::Open).await?;
        seal_log(&mut tx).await?;
        self.commit(tx).await
    }

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
        let seal = seal_log(tx).await?.hash();
        let mut chain: Vec<u8> = sqlx::query_scalar(LAST_CHAIN).fetch_one(&mut **tx).await?;
        let append = format!(
            "INSERT INTO decision_log ({COLUMNS}, subject_salt, actor_salt, digest, chain)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        );
        for decision in decisions {
            let values = Values::of(decision, policy, now);
            let (subject_salt, actor_salt) = (random::<16>()?, random::<16>()?);
            let subject = values.commitment(Part::Subject, &subject_salt);
            let actor = values.commitment(Part::Actor, &actor_salt);
            let digest = values.digest(&seal, &subject, &actor);
            chain = chain_hash(&chain, &digest);
            // In column order; the last column, `lag_ms`, is an integer and is bound below.
            let query = values.texts().fold(sqlx::query(sqlx::AssertSqlSafe(append.clone())), |query, value| {
                query.bind(value.map(str::to_owned))
            });
            query
                .bind(decision.lag_ms)
                .bind(subject_salt.to_vec())
                .bind(actor_salt.to_vec())
                .bind(digest)
                .bind(&chain)
                .execute(&mut **tx)
                .await?;
        }
        Ok(())
    }

    /// Deletes the oldest decisions: only an unbroken prefix, even if a clock was set back in between. The chain value of the
    /// last deleted row becomes the new root, and a decision records that.
    pub(super) async fn expire_decisions(
        &self,
        tx: &mut Tx,
        before: &str,
        limit: u32,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let last: Option<i64> =
            sqlx::query_scalar(LAST_EXPIRED_DECISION).bind(before).bind(limit).fetch_one(&mut **tx).await?;
        let Some(last) = last else { return Ok(0) };
        let mut gone = 0;
        sqlx::query("UPDATE decision_log_gate SET open = 1").execute(&mut **tx).await?;
        for sql in EXPIRE_DECISIONS {
            gone = sqlx::query(sql).bind(last).execute(&mut **tx).await?.rows_affected();
        }
        sqlx::query("UPDATE decision_log_gate SET open = 0").execute(&mut **tx).await?;
        let chain: Vec<u8> = sqlx::query_scalar("SELECT chain FROM decision_log_root").fetch_one(&mut **tx).await?;
        let policy: Option<String> =
            sqlx::query_scalar("SELECT policy FROM installation").fetch_optional(&mut **tx).await?;
        let record = Decision {
            cause: RETENTION.to_owned(),
            outcome: DecisionOutcome::Expired,
            why: Some(expiry_text(last, &chain)),
            ..Decision::default()
        };
        self.append_decisions(tx, &[record], &policy.unwrap_or_default(), now).await?;
        Ok(gone)
    }
}

/// What retention records: the last row that it removed.
fn expiry_text(last: i64, chain: &[u8]) -> String {
    format!("removed the decisions up to row {last}, chain {}", hex(chain))
}

/// The seal. Made by the first process of this version that writes the log.
async fn seal_log(tx: &mut Tx) -> Result<Seal, StoreError> {
    let known: Option<Seal> = sqlx::query_as("SELECT last, expired, expired_chain, forgotten FROM decision_log_seal")
        .fetch_optional(&mut **tx)
        .await?;
    if let Some(seal) = known {
        return Ok(seal);
    }
    sqlx::query(
        "INSERT INTO decision_redactions (row_id, part, decision_id)
         SELECT id, part, 0 FROM decision_log, (SELECT 'subject' AS part UNION ALL SELECT 'actor')
         WHERE forgotten_at IS NOT NULL",
    )
    .execute(&mut **tx)
    .await?;
    let forgotten = redact::list_hash(tx, 0).await?;
    let seal: Seal = sqlx::query_as(
        "INSERT INTO decision_log_seal (id, last, expired, expired_chain, forgotten)
         SELECT 1, coalesce((SELECT max(id) FROM decision_log), last), last, chain, ? FROM decision_log_root
         RETURNING last, expired, expired_chain, forgotten",
    )
    .bind(forgotten)
    .fetch_one(&mut **tx)
    .await?;
    Ok(seal)
}

/// Hashes each value with its length, so that different rows never hash the same bytes.
fn hash_of(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for value in values {
        match value {
            None => context.update(&[0]),
            Some(bytes) => {
                context.update(&[1]);
                context.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
                context.update(bytes);
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
