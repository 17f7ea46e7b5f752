//! An account as Auth0 returns it, with the data that a write has to preserve.
//!
//! Other programs can write any JSON into the metadata: strings instead of objects, lists, deep nesting. None of it
//! makes an account unreadable: it stays raw JSON, and only the few values that the daemon writes are parsed.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Fields;
use crate::domain::account::{Identity, KeyedMark, Mirror, OtherMarks};
use crate::domain::mark::MetadataKeys;
use crate::domain::{Account, AccountId, Address, Mark, OktaUserId, Timestamp};
use crate::http::lenient;

/// An object with only its first level parsed.
pub(super) type Shallow = BTreeMap<String, Box<RawValue>>;

/// The object in `user_metadata` that the original flow writes and its Action reads.
pub(super) const MIRROR_OBJECT: &str = "okta";
/// The key in it that we write.
pub(super) const MIRROR_FLAG: &str = "deactivated";

/// An account, and the parts of its metadata that a PATCH has to repeat.
#[derive(Clone)]
pub struct AccountRecord {
    /// The parsed account.
    pub account: Account,
    /// When it was created, if that was requested and is safe in a query.
    pub created_at: Option<String>,
    /// The current `user_metadata.okta`. Auth0 merges the first level only, so writing our key alone would delete its
    /// siblings. `None` if it is not an object, or was not read.
    pub(super) beside_mirror: Option<Shallow>,
}

impl fmt::Debug for AccountRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Metadata of other programs must not reach the logs.
        f.debug_struct("AccountRecord").field("account", &self.account).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default, deserialize_with = "lenient::text")]
    user_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    email: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    created_at: Option<String>,
    email_verified: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "lenient::list")]
    identities: Vec<WireIdentity>,
    blocked: Option<Box<RawValue>>,
    app_metadata: Option<Box<RawValue>>,
    user_metadata: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct WireIdentity {
    #[serde(default, deserialize_with = "lenient::text")]
    connection: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    provider: Option<String>,
    user_id: Option<Box<RawValue>>,
    #[serde(rename = "profileData")]
    profile: Option<Box<RawValue>>,
}

impl WireIdentity {
    fn read(self) -> Identity {
        let profile = shallow(self.profile.as_deref()).unwrap_or_default();
        let email = profile.get("email").and_then(|email| lenient::string(email.get()));
        Identity {
            connection: self.connection,
            provider: self.provider,
            // Some providers' ids are numbers.
            user_id: self.user_id.map(|id| lenient::string(id.get()).unwrap_or_else(|| id.get().to_owned())),
            email: email.as_deref().and_then(Address::parse),
            email_verified: is_true(profile.get("email_verified").map(AsRef::as_ref)),
        }
    }
}

impl AccountRecord {
    /// Parses one account of a response.
    ///
    /// # Errors
    /// Why `raw` is not an account, with its id if it has one.
    pub(super) fn read(raw: &RawValue, keys: &MetadataKeys, fields: Fields) -> Result<Self, String> {
        let wire: Wire = serde_json::from_str(raw.get()).map_err(|error| format!("not an account: {error}"))?;
        let id = wire.user_id.filter(|id| !id.is_empty()).ok_or("an account without a user_id")?;
        let marks = Marks::read(shallow(wire.app_metadata.as_deref()).unwrap_or_default(), keys);
        let okta = shallow(wire.user_metadata.as_deref())
            .and_then(|mut metadata| metadata.remove(MIRROR_OBJECT))
            .filter(|object| !lenient::is_null(object.get()));
        let (mirror, beside_mirror) = match okta {
            _ if fields < Fields::All => (Mirror::Unread, None),
            None => (Mirror::Absent, Some(Shallow::new())),
            Some(object) => match shallow(Some(&object)) {
                None => (Mirror::Foreign, None),
                Some(object) => {
                    let mirror = match object.get(MIRROR_FLAG) {
                        None => Mirror::Absent,
                        Some(flag) if lenient::is_true(flag.get()) => Mirror::On,
                        Some(_) => Mirror::Off,
                    };
                    (mirror, Some(object))
                }
            },
        };
        let account = Account {
            id: AccountId::new(id),
            email: wire.email.as_deref().and_then(Address::parse),
            email_verified: is_true(wire.email_verified.as_deref()),
            identities: wire.identities.into_iter().map(WireIdentity::read).collect(),
            blocked: is_true(wire.blocked.as_deref()),
            mark: marks.current,
            former_key: None,
            keeps_former: false,
            keyed: marks.keyed,
            other_marks: OtherMarks::default(),
            unread: fields < Fields::Mark,
            mirror,
        };
        let created_at = wire.created_at.filter(|at| at.parse::<Timestamp>().is_ok());
        Ok(Self { account, created_at, beside_mirror })
    }
}

/// The marks on one account.
struct Marks {
    current: Option<Mark>,
    /// Those under other keys. Which of them are ours, the parser cannot know.
    keyed: Vec<KeyedMark>,
}

impl Marks {
    fn read(mut metadata: Shallow, keys: &MetadataKeys) -> Self {
        let mut read = |key: &str| metadata.remove(key).and_then(|value| shallow(Some(&value)).as_ref().map(mark));
        let current = read(&keys.current);
        let listed = |key: &String| KeyedMark { key: key.clone(), listed: true, mark: read(key) };
        let mut keyed: Vec<KeyedMark> = keys.former.iter().map(listed).collect();
        for (key, value) in metadata {
            let mark = shallow(Some(&value)).as_ref().map(mark);
            if let Some(mark) = mark.filter(|mark| mark.deactivated && mark.okta_org.is_some()) {
                keyed.push(KeyedMark { key, listed: false, mark: Some(mark) });
            }
        }
        Self { current, keyed }
    }
}

/// The first level of an object; `None` for anything else.
fn shallow(raw: Option<&RawValue>) -> Option<Shallow> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

fn is_true(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(|raw| lenient::is_true(raw.get()))
}

fn mark(object: &Shallow) -> Mark {
    let text = |name: &str| object.get(name).and_then(|value| lenient::string(value.get()));
    let flag = |name: &str| is_true(object.get(name).map(AsRef::as_ref));
    Mark {
        deactivated: flag("deactivated"),
        okta_user_id: text("okta_user_id").as_deref().and_then(OktaUserId::parse),
        okta_org: text("okta_org"),
        status: text("status"),
        at: text("at"),
        event_id: text("event_id"),
        blocked: flag("blocked"),
    }
}
