//! The body of a PATCH: the mark, its mirror and its block, and nothing else.
//!
//! Metadata is merged on its first level only, and `{}` for a whole object wipes it (Auth0 docs: Manage Metadata with
//! the Management API). So a PATCH contains our whole object, and the mirror's object with everything that was in it,
//! and omits everything else.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::AccountRecord;
use super::record::{MIRROR_FLAG, MIRROR_OBJECT, Shallow};
use crate::domain::mark::Removal;
use crate::domain::{Mark, Patch};

#[derive(Serialize)]
struct Body<'a> {
    /// Null deletes a key (Auth0 docs: Manage Metadata with the Management API).
    app_metadata: BTreeMap<&'a str, Option<WireMark<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_metadata: Option<BTreeMap<&'a str, Shallow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<bool>,
}

#[derive(Serialize)]
struct WireMark<'a> {
    /// A string, never a boolean: searches need one type on all accounts.
    deactivated: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    okta_user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    okta_org: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    blocked: bool,
}

const fn flag(on: bool) -> &'static str {
    if on { "true" } else { "false" }
}

impl<'a> From<&'a Mark> for WireMark<'a> {
    fn from(mark: &'a Mark) -> Self {
        Self {
            deactivated: flag(mark.deactivated),
            okta_user_id: mark.okta_user_id.as_ref().map(|id| id.as_str()),
            okta_org: mark.okta_org.as_deref(),
            status: mark.status.as_deref(),
            at: mark.at.as_deref(),
            event_id: mark.event_id.as_deref(),
            blocked: mark.blocked,
        }
    }
}

/// The body for `patch`. If `user_metadata.okta` is not an object, the body omits the mirror, since writing it would destroy
/// another program's data.
///
/// # Errors
/// When it cannot be written as JSON.
pub(super) fn of(patch: &Patch, key: &str, record: &AccountRecord) -> Result<Box<RawValue>, serde_json::Error> {
    let user_metadata = match (patch.mirror, &record.beside_mirror) {
        (Some(on), Some(beside)) => {
            let mut okta = beside.clone();
            okta.insert(MIRROR_FLAG.to_owned(), to_raw_value(flag(on))?);
            Some([(MIRROR_OBJECT, okta)].into())
        }
        _ => None,
    };
    let mut app_metadata: BTreeMap<_, _> = patch.removed_keys.iter().map(|former| (former.as_str(), None)).collect();
    let written = patch.copy_keys.iter().map(String::as_str).chain([key]);
    app_metadata.extend(written.map(|key| (key, Some(WireMark::from(&patch.mark)))));
    to_raw_value(&Body { app_metadata, user_metadata, blocked: patch.blocked })
}

#[derive(Serialize)]
struct Blocking {
    blocked: bool,
}

/// The body that sets `blocked` and nothing else.
///
/// # Errors
/// When it cannot be written as JSON.
pub(super) fn blocking(blocked: bool) -> Result<Box<RawValue>, serde_json::Error> {
    to_raw_value(&Blocking { blocked })
}

#[derive(Serialize)]
struct Removing<'a> {
    /// Null deletes only this key (Auth0 docs: Manage Metadata with the Management API).
    app_metadata: BTreeMap<&'a str, ()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_metadata: Option<BTreeMap<&'a str, Option<Shallow>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked: Option<bool>,
}

/// The body that removes everything the daemon wrote on an account: the mark, the mirror (the whole object if it holds
/// nothing else), and the block.
///
/// # Errors
/// When it cannot be written as JSON.
pub(super) fn removing(
    removal: &Removal,
    key: &str,
    record: &AccountRecord,
) -> Result<Box<RawValue>, serde_json::Error> {
    let user_metadata = match &record.beside_mirror {
        Some(beside) if removal.mirror => {
            let mut okta = beside.clone();
            okta.remove(MIRROR_FLAG);
            Some([(MIRROR_OBJECT, Some(okta).filter(|okta| !okta.is_empty()))].into())
        }
        _ => None,
    };
    let app_metadata = removal.removed_keys.iter().map(String::as_str).chain([key]).map(|key| (key, ())).collect();
    to_raw_value(&Removing { app_metadata, user_metadata, blocked: removal.unblock.then_some(false) })
}
