//! Verifies the decision log.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::super::{Store, StoreError};
use super::redact::list_hash;
use super::row::{COLUMNS, Part, Values};
use super::{Seal, chain_hash, expiry_text, hex};

/// The result of [`Store::verify_decisions`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Rows with all their values, which are those that they were written with, except for the actor where `forget` removed
    /// it.
    pub rows: u64,
    /// Rows that `forget` anonymized. What remains of them is what they were written with.
    pub forgotten: u64,
    /// Rows that `forget` of an older version anonymized: only their position is verified.
    pub unproven: u64,
}

/// A row, with what the state says about its removed parts.
struct Stored {
    id: i64,
    values: Values,
    digest: Vec<u8>,
    chain: Vec<u8>,
    /// Of the subject and the actor.
    parts: [StoredPart; 2],
    /// Of a row of an older version: a hash over the values that remain.
    remaining: Option<Vec<u8>>,
}

struct StoredPart {
    part: Part,
    salt: Option<Vec<u8>>,
    hash: Option<Vec<u8>>,
    /// The decision that records its removal.
    removed_by: Option<i64>,
}

impl Stored {
    fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let part = |part, salt, hash, by| {
            Ok::<_, sqlx::Error>(StoredPart {
                part,
                salt: row.try_get(salt)?,
                hash: row.try_get(hash)?,
                removed_by: row.try_get(by)?,
            })
        };
        Ok(Self {
            id: row.try_get("id")?,
            values: Values::read(row)?,
            digest: row.try_get("digest")?,
            chain: row.try_get("chain")?,
            parts: [
                part(Part::Subject, "subject_salt", "subject_hash", "subject_by")?,
                part(Part::Actor, "actor_salt", "actor_hash", "actor_by")?,
            ],
            remaining: row.try_get("remaining")?,
        })
    }

    const fn is_forgotten(&self) -> bool {
        let [subject, _] = &self.parts;
        subject.removed_by.is_some()
    }

    fn tampered(&self, what: &str) -> StoreError {
        StoreError::Tampered(format!("row {} {what}", self.id))
    }

    /// Checks the values against the digest, and that what is missing was removed by a recorded `forget`.
    fn check(&self, seal: Option<&Seal>, verified: &mut Verified) -> Result<(), StoreError> {
        for part in &self.parts {
            if part.removed_by.is_some() && !self.values.is_empty(part.part) {
                return Err(self.tampered("has values that `forget` removed"));
            }
        }
        let is_unproven = match seal {
            Some(seal) if self.id > seal.last => {
                self.check_new(seal)?;
                false
            }
            _ => self.check_old()?,
        };
        match (is_unproven, self.is_forgotten()) {
            (true, _) => verified.unproven += 1,
            (false, true) => verified.forgotten += 1,
            (false, false) => verified.rows += 1,
        }
        Ok(())
    }

    fn check_new(&self, seal: &Seal) -> Result<(), StoreError> {
        let mut hashes = Vec::with_capacity(2);
        for part in &self.parts {
            hashes.push(match (part.removed_by, &part.salt, &part.hash) {
                (None, Some(salt), _) => self.values.commitment(part.part, salt),
                (Some(_), None, Some(hash)) => hash.clone(),
                (None, None, _) => return Err(self.tampered("was anonymized by no recorded `forget`")),
                (Some(_), ..) => return Err(self.tampered("was not anonymized as `forget` does it")),
            });
        }
        let [subject, actor] = &hashes[..] else { return Ok(()) };
        if self.values.digest(&seal.hash(), subject, actor) == self.digest { Ok(()) } else { Err(self.changed()) }
    }

    /// Returns whether only the position is proven.
    fn check_old(&self) -> Result<bool, StoreError> {
        if self.parts.iter().any(|part| part.removed_by == Some(0)) {
            return Ok(true);
        }
        let expected = if self.parts.iter().any(|part| part.removed_by.is_some()) {
            self.remaining.as_ref()
        } else {
            Some(&self.digest)
        };
        if expected == Some(&self.values.whole_digest()) { Ok(false) } else { Err(self.changed()) }
    }

    fn changed(&self) -> StoreError {
        self.tampered("was changed after it was written")
    }
}

impl Store {
    /// Verifies the hash chain of the decisions, and that what is missing was removed by `forget` or retention.
    ///
    /// # Errors
    /// [`StoreError::Tampered`], naming the first bad row.
    pub async fn verify_decisions(&self) -> Result<Verified, StoreError> {
        let mut tx = self.reader().begin().await?;
        let seal: Option<Seal> =
            sqlx::query_as("SELECT last, expired, expired_chain, forgotten FROM decision_log_seal")
                .fetch_optional(&mut *tx)
                .await?;
        let root: (i64, Vec<u8>) =
            sqlx::query_as("SELECT last, chain FROM decision_log_root").fetch_one(&mut *tx).await?;
        let newest: i64 =
            sqlx::query_scalar("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'decision_log'), 0)")
                .fetch_one(&mut *tx)
                .await?;
        let mut verified = Verified::default();
        let (mut last, mut chain) = root.clone();
        let mut start = Start::new(&root, seal.as_ref());
        loop {
            let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
                "SELECT id, digest, chain, subject_salt, actor_salt, subject_hash, actor_hash, {COLUMNS},
                     (SELECT decision_id FROM decision_redactions WHERE row_id = id AND part = 'subject') AS subject_by,
                     (SELECT decision_id FROM decision_redactions WHERE row_id = id AND part = 'actor') AS actor_by,
                     (SELECT remaining FROM decision_redactions WHERE row_id = id ORDER BY decision_id DESC LIMIT 1)
                         AS remaining
                 FROM decision_log WHERE id > ? ORDER BY id LIMIT 1000"
            )))
            .bind(last)
            .fetch_all(&mut *tx)
            .await?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                let row = Stored::read(&row)?;
                last = row.id;
                row.check(seal.as_ref(), &mut verified)?;
                chain = chain_hash(&chain, &row.digest);
                if chain != row.chain {
                    return Err(row.tampered("does not follow the row before it: a row was removed, added or moved"));
                }
                start.note(&row);
                check_record(&mut tx, &row, seal.as_ref()).await?;
            }
        }
        if last < newest {
            return Err(StoreError::Tampered(format!("rows {} to {newest} were removed", last + 1)));
        }
        start.check()?;
        check_lists(&mut tx, root.0, seal.as_ref()).await?;
        Ok(verified)
    }
}

/// Where the log begins, and whether a record of retention explains it.
struct Start {
    last: i64,
    /// What the record of retention says.
    record: String,
    is_explained: bool,
}

impl Start {
    fn new((last, chain): &(i64, Vec<u8>), seal: Option<&Seal>) -> Self {
        let is_explained = *last == 0 || seal.is_none_or(|seal| (seal.expired, &seal.expired_chain) == (*last, chain));
        Self { last: *last, record: expiry_text(*last, chain), is_explained }
    }

    fn note(&mut self, row: &Stored) {
        self.is_explained |= row.values.outcome() == Some("expired") && row.values.why() == Some(&self.record);
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.is_explained {
            return Ok(());
        }
        Err(StoreError::Tampered(format!(
            "the log begins at row {}, and no record of retention says that the rows before it were removed; compare with a \
             head or an export that you kept",
            self.last + 1
        )))
    }
}

/// Checks the list of a `forget` against the decision that records it.
async fn check_record(connection: &mut SqliteConnection, row: &Stored, seal: Option<&Seal>) -> Result<(), StoreError> {
    let is_new = seal.is_some_and(|seal| row.id > seal.last);
    if !is_new || row.is_forgotten() || row.values.outcome() != Some("forgotten") {
        return Ok(());
    }
    let list = hex(&list_hash(connection, row.id).await?);
    if row.values.why().is_some_and(|why| why.ends_with(&list)) {
        return Ok(());
    }
    Err(row.tampered("records a `forget` that anonymized other rows than the state says"))
}

/// Checks that each removed part belongs to a recorded `forget`, and the list of those of older versions.
async fn check_lists(connection: &mut SqliteConnection, root: i64, seal: Option<&Seal>) -> Result<(), StoreError> {
    let unexplained: Option<i64> = sqlx::query_scalar(
        "SELECT min(row_id) FROM decision_redactions WHERE decision_id > 0 AND NOT EXISTS (
             SELECT 1 FROM decision_log d WHERE d.id = decision_id AND d.outcome = 'forgotten')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if let Some(row) = unexplained {
        return Err(StoreError::Tampered(format!("row {row} was anonymized by no recorded `forget`")));
    }
    let Some(seal) = seal.filter(|seal| root < seal.last) else { return Ok(()) };
    if list_hash(connection, 0).await? == seal.forgotten {
        return Ok(());
    }
    Err(StoreError::Tampered("the list of the rows that an older version anonymized was changed".to_owned()))
}
