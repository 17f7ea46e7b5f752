//! The values of a row, and how its digest covers them.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::super::looks::Decision;
use super::hash_of;
use crate::domain::{Timestamp, Verdict, timestamp_text};

/// The columns with the values of a row, in order.
pub(super) const COLUMNS: &str = "at, okta_user_id, email, auth0_user_id, cause, event_id, actor, status, verdict, before, \
                                  after, outcome, why, request_id, version, policy, lag_ms";
const COUNT: usize = 17;
const ACTOR: usize = 6;
const SUBJECT: [usize; 6] = [1, 2, 3, 5, 12, 13];

/// A part of a row that `forget` can remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The user, their account and event, and the reason.
    Subject,
    /// The actor in Okta.
    Actor,
}

impl Part {
    pub(super) const ALL: [Self; 2] = [Self::Subject, Self::Actor];

    /// The word in `decision_redactions`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Actor => "actor",
        }
    }

    const fn columns(self) -> &'static [usize] {
        match self {
            Self::Subject => &SUBJECT,
            Self::Actor => &[ACTOR],
        }
    }
}

/// The values of a row, in the order of [`COLUMNS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Values([Option<String>; COUNT]);

impl Values {
    pub(super) fn of(decision: &Decision, policy: &str, now: Timestamp) -> Self {
        Self([
            Some(timestamp_text(now)),
            decision.okta_user_id.clone(),
            decision.email.clone(),
            decision.auth0_user_id.clone(),
            Some(decision.cause.clone()),
            decision.event_id.clone(),
            decision.actor.clone(),
            decision.status.clone(),
            decision.verdict.map(|verdict| Verdict::as_str(verdict).to_owned()),
            decision.before.clone(),
            decision.after.clone(),
            Some(decision.outcome.as_str().to_owned()),
            decision.why.clone(),
            decision.request_id.clone(),
            Some(env!("CARGO_PKG_VERSION").to_owned()),
            Some(policy.to_owned()),
            decision.lag_ms.map(|lag| lag.to_string()),
        ])
    }

    pub(super) fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let mut values = std::array::from_fn(|_| None);
        for (value, column) in values.iter_mut().zip(COLUMNS.split(", ")) {
            *value = if column == "lag_ms" {
                row.try_get::<Option<i64>, _>(column)?.map(|lag| lag.to_string())
            } else {
                row.try_get::<Option<String>, _>(column)?
            };
        }
        Ok(Self(values))
    }

    /// The values but `lag_ms`.
    pub(super) fn texts(&self) -> impl Iterator<Item = Option<&str>> {
        self.0.iter().take(COUNT - 1).map(Option::as_deref)
    }

    pub(super) fn why(&self) -> Option<&str> {
        self.0.get(12).and_then(Option::as_deref)
    }

    pub(super) fn outcome(&self) -> Option<&str> {
        self.0.get(11).and_then(Option::as_deref)
    }

    /// Whether nothing of this part is left.
    pub(super) fn is_empty(&self, part: Part) -> bool {
        part.columns().iter().all(|column| self.bytes(*column).is_none())
    }

    /// The same values without this part.
    pub(super) fn without(mut self, part: Part) -> Self {
        for column in part.columns() {
            if let Some(value) = self.0.get_mut(*column) {
                *value = None;
            }
        }
        self
    }

    /// The salted hash over the values of a part.
    pub(super) fn commitment(&self, part: Part, salt: &[u8]) -> Vec<u8> {
        let mut values = vec![Some(part.as_str().as_bytes()), Some(salt)];
        values.extend(part.columns().iter().map(|column| self.bytes(*column)));
        hash_of(&values)
    }

    /// The digest: over the values that `forget` never removes, and the hashes of the others.
    pub(super) fn digest(&self, seal: &[u8], subject: &[u8], actor: &[u8]) -> Vec<u8> {
        let mut values = vec![Some(seal), Some(subject), Some(actor)];
        let removable = |column: &usize| *column == ACTOR || SUBJECT.contains(column);
        values.extend((0..COUNT).filter(|column| !removable(column)).map(|column| self.bytes(column)));
        hash_of(&values)
    }

    /// The digest of a row of an older version, over all its values.
    pub(super) fn whole_digest(&self) -> Vec<u8> {
        let values: Vec<Option<&[u8]>> = (0..COUNT).map(|column| self.bytes(column)).collect();
        hash_of(&values)
    }

    fn bytes(&self, column: usize) -> Option<&[u8]> {
        self.0.get(column).and_then(|value| value.as_deref().map(str::as_bytes))
    }
}
