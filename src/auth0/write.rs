//! Writes the mark, and ends sessions and refresh tokens.

use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder};
use serde_json::value::RawValue;

use super::endpoints::{PATCH, REFRESH_TOKENS, SESSIONS};
use super::{AccountRecord, Auth0, CORRELATION_ID, Endpoint, Failure, Fields, body};
use crate::domain::mark::{Removal, Write};
use crate::domain::{AccountId, OktaUserId, Patch};
use crate::http::Kind;

/// Auth0 truncates a longer [`super::CORRELATION_ID`].
const CORRELATION_ID_MAX: usize = 64;

/// The response to a PATCH.
#[derive(Clone, Debug)]
pub struct Patched {
    /// The account after the write: compare it with what was sent ([`crate::domain::mark::took_hold`]). `None`: Auth0
    /// accepted the write, but the response is too large to read.
    pub account: Option<AccountRecord>,
    /// Auth0's id of the request.
    pub request_id: Option<String>,
}

impl Auth0 {
    /// Sends one write to the account. It changes only what it names; the mirror keeps its siblings.
    ///
    /// # Errors
    /// Classified. [`crate::http::Kind::NotFound`]: the account was deleted or linked in the meantime, so look again.
    /// [`crate::http::Kind::Rejected`] (400, 413): try the next of [`crate::domain::mark::attempts`].
    pub async fn write(&self, record: &AccountRecord, write: &Write, user: &OktaUserId) -> Result<Patched, Failure> {
        match write {
            Write::Mark(patch) => self.patch(record, patch).await,
            Write::Block(blocked) => {
                let body = body::blocking(*blocked).map_err(|error| PATCH.rejected(error.to_string()))?;
                self.send_patch(&record.account.id, correlation_id(None, Some(user)), &body).await
            }
            Write::Remove(removal) => self.remove_mark(record, removal).await,
            Write::Nothing => Ok(Patched { account: Some(record.clone()), request_id: None }),
        }
    }

    /// Writes `patch` to the account: the mark, the mirror (siblings kept) and the block that it names.
    async fn patch(&self, record: &AccountRecord, patch: &Patch) -> Result<Patched, Failure> {
        let body = body::of(patch, &self.keys.current, record).map_err(|error| PATCH.rejected(error.to_string()))?;
        let name = correlation_id(patch.mark.event_id.as_deref(), patch.mark.okta_user_id.as_ref());
        self.send_patch(&record.account.id, name, &body).await
    }

    /// Removes the mark in `app_metadata` and what `removal` names.
    ///
    /// # Errors
    /// Classified, as [`Auth0::write`].
    pub async fn remove_mark(&self, record: &AccountRecord, removal: &Removal) -> Result<Patched, Failure> {
        let body =
            body::removing(removal, &self.keys.current, record).map_err(|error| PATCH.rejected(error.to_string()))?;
        let owner = record.account.mark.as_ref().and_then(|mark| mark.okta_user_id.as_ref());
        self.send_patch(&record.account.id, correlation_id(None, owner), &body).await
    }

    async fn send_patch(&self, id: &AccountId, name: Option<HeaderValue>, body: &RawValue) -> Result<Patched, Failure> {
        let url = self.account_address(PATCH, id, "")?;
        let complete = |request: RequestBuilder| {
            let request = request.json(body);
            match &name {
                Some(name) => request.header(CORRELATION_ID, name.clone()),
                None => request,
            }
        };
        match self.call_with(PATCH, Method::PATCH, url, complete).await {
            Ok(answer) => {
                let answer = answer.success(self.clock.as_ref())?;
                let account = Some(self.record_of(&answer, id, Fields::All)?);
                Ok(Patched { account, request_id: answer.request_id() })
            }
            // The response is the whole account: `fields` does not apply to a PATCH.
            Err(failure) if failure.kind == Kind::TooLarge && matches!(failure.status, Some(200..300)) => {
                Ok(Patched { account: None, request_id: failure.request_id })
            }
            Err(failure) => Err(failure),
        }
    }

    /// Ends the account's sessions, asynchronously (202). Enterprise plans only.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Forbidden`] also for the plan, which the remedy then says.
    pub async fn delete_sessions(&self, id: &AccountId) -> Result<(), Failure> {
        self.delete(SESSIONS, id, "/sessions").await
    }

    /// Ends the account's refresh tokens, which outlive its sessions, asynchronously (202). Enterprise plans only.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Forbidden`] also for the plan, which the remedy then says.
    pub async fn delete_refresh_tokens(&self, id: &AccountId) -> Result<(), Failure> {
        self.delete(REFRESH_TOKENS, id, "/refresh-tokens").await
    }

    async fn delete(&self, endpoint: Endpoint, id: &AccountId, below: &str) -> Result<(), Failure> {
        let url = self.account_address(endpoint, id, below)?;
        let answer = self.call(endpoint, Method::DELETE, url, None).await?;
        answer.success(self.clock.as_ref()).map(drop)
    }
}

/// The correlation id of a write in the tenant's log: the Okta event that caused it, or else the user. Our decision has
/// both ids, so the log leads to the decision and back.
fn correlation_id(event: Option<&str>, user: Option<&OktaUserId>) -> Option<HeaderValue> {
    // Okta's event ids are UUIDs. Any other id does not go into a header.
    let plain =
        |id: &&str| id.len() <= CORRELATION_ID_MAX && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let id = event.filter(plain).or(user.map(OktaUserId::as_str).filter(plain))?;
    HeaderValue::from_str(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_id_is_event_or_user() {
        let user = OktaUserId::parse("00u1");
        let name = |event| correlation_id(event, user.as_ref()).map(|name| name.to_str().unwrap().to_owned());
        let event = "dc9fd3c0-598c-11ef-8478-2b7584bf8d5a";
        assert_eq!(name(Some(event)).as_deref(), Some(event));
        for odd in [None, Some("a\r\nx: y"), Some("ä"), Some(&*"e".repeat(65))] {
            assert_eq!(name(odd).as_deref(), Some("00u1"), "{odd:?}");
        }
        assert_eq!(correlation_id(None, None), None);
    }
}
