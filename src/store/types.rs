//! sqlx encoding and decoding of domain types, which do not know the database.

use serde::{Serialize, Serializer};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, Sqlite, Type};

use super::AlarmKind;
use crate::domain::{
    AccountId, Cause, DecisionOutcome, Held, Lane, OktaUserId, OutcomeKind, Status, Timestamp, Verdict, clock,
};

/// A stored value that this version cannot read. It becomes [`super::StoreError::Unreadable`].
#[derive(Debug, thiserror::Error)]
#[error("{what} that cannot be read: {value:?}")]
pub(super) struct UnreadableValue {
    pub(super) what: &'static str,
    pub(super) value: String,
}

fn readable<T>(value: Option<T>, what: &'static str, text: &str) -> Result<T, BoxDynError> {
    value.ok_or_else(|| UnreadableValue { what, value: text.to_owned() }.into())
}

/// Writes a type as the text of its `as_str`.
macro_rules! written_as_text {
    ($($type:ty),+) => { $(
        impl Type<Sqlite> for $type {
            fn type_info() -> SqliteTypeInfo {
                <str as Type<Sqlite>>::type_info()
            }

            fn compatible(found: &SqliteTypeInfo) -> bool {
                <str as Type<Sqlite>>::compatible(found)
            }
        }

        impl Encode<'_, Sqlite> for $type {
            fn encode_by_ref(&self, arguments: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
                <&str as Encode<'_, Sqlite>>::encode_by_ref(&self.as_str(), arguments)
            }
        }
    )+ };
}

/// Reads a type from text.
macro_rules! read_from_text {
    ($($type:ty = |$text:ident| $read:expr;)+) => { $(
        impl<'r> Decode<'r, Sqlite> for $type {
            fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
                let $text = <&str as Decode<'r, Sqlite>>::decode(value)?;
                $read
            }
        }
    )+ };
}

/// Shows a type as its word in JSON.
macro_rules! serialized_as_text {
    ($($type:ty),+) => { $(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    )+ };
}

written_as_text!(AccountId, AlarmKind, Cause, DecisionOutcome, OktaUserId, OutcomeKind, Status, Verdict);

read_from_text! {
    Held = |text| readable(Self::parse(text), "a reason to hold a user", text);
    AccountId = |text| Ok(Self::new(text));
    Cause = |text| readable(Self::parse(text), "a cause", text);
    OktaUserId = |text| readable(Self::parse(text), "an Okta user id", text);
    OutcomeKind = |text| readable(Self::parse(text), "an outcome", text);
    Status = |text| Ok(Self::parse(text));
    StoredTime = |text| readable(clock::parse_timestamp(text).ok(), "a time", text).map(Self);
}

serialized_as_text!(OutcomeKind);

impl Type<Sqlite> for Held {
    fn type_info() -> SqliteTypeInfo {
        <str as Type<Sqlite>>::type_info()
    }

    fn compatible(found: &SqliteTypeInfo) -> bool {
        <str as Type<Sqlite>>::compatible(found)
    }
}

impl Type<Sqlite> for Lane {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(found: &SqliteTypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(found)
    }
}

impl Encode<'_, Sqlite> for Lane {
    fn encode_by_ref(&self, arguments: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<'_, Sqlite>>::encode_by_ref(&self.rank(), arguments)
    }
}

impl<'r> Decode<'r, Sqlite> for Lane {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self::from_rank(<i64 as Decode<'r, Sqlite>>::decode(value)?))
    }
}

/// A stored time: the traits cannot be implemented for [`Timestamp`] itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredTime(pub(super) Timestamp);

impl From<StoredTime> for Timestamp {
    fn from(stored: StoredTime) -> Self {
        stored.0
    }
}

impl Type<Sqlite> for StoredTime {
    fn type_info() -> SqliteTypeInfo {
        <str as Type<Sqlite>>::type_info()
    }
}

/// A stored time that may be missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct OptionalTime(Option<StoredTime>);

impl From<OptionalTime> for Option<Timestamp> {
    fn from(stored: OptionalTime) -> Self {
        stored.0.map(Timestamp::from)
    }
}

impl Type<Sqlite> for OptionalTime {
    fn type_info() -> SqliteTypeInfo {
        <StoredTime as Type<Sqlite>>::type_info()
    }
}

impl<'r> Decode<'r, Sqlite> for OptionalTime {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(<Option<StoredTime> as Decode<'r, Sqlite>>::decode(value)?))
    }
}
