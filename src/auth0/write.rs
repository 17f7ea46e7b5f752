//! Writing the mark, and ending what is already open.

use reqwest::Method;
use serde_json::value::RawValue;

use super::{AccountRecord, Auth0, Bucket, Failure, body};
use crate::domain::mark::Removal;
use crate::domain::{AccountId, Patch};
use crate::http::Remote;

pub(super) const PATCH: &str = "PATCH /api/v2/users/{id}";
pub(super) const SESSIONS: &str = "DELETE /api/v2/users/{id}/sessions";
pub(super) const REFRESH_TOKENS: &str = "DELETE /api/v2/users/{id}/refresh-tokens";

/// What Auth0 answered to a PATCH.
#[derive(Clone, Debug)]
pub struct Patched {
    /// The account as it is now: compare it with what was sent ([`crate::domain::mark::took_hold`]).
    pub account: AccountRecord,
    /// What Auth0 calls this exchange.
    pub request_id: Option<String>,
}

impl Auth0 {
    /// Writes `patch` to the account: the mark, the mirror (siblings kept) and the block that it names.
    ///
    /// # Errors
    /// Classified. [`crate::http::Kind::NotFound`]: the account was deleted or linked meanwhile, so look again.
    /// [`crate::http::Kind::Rejected`] (400, 413): try [`Auth0::patch_authority_only`].
    pub async fn patch(&self, record: &AccountRecord, patch: &Patch) -> Result<Patched, Failure> {
        let body = body::of(patch, &self.metadata_key, record.beside_mirror.as_ref())
            .map_err(|error| Failure::rejected(Remote::Auth0, PATCH, error.to_string()))?;
        self.send_patch(&record.account.id, &body).await
    }

    /// Takes what is ours from the account: our object in `app_metadata`, and what `removal` names.
    ///
    /// # Errors
    /// Classified, as [`Auth0::patch`].
    pub async fn remove_mark(&self, record: &AccountRecord, removal: Removal) -> Result<Patched, Failure> {
        let body = body::removing(removal, &self.metadata_key, record.beside_mirror.as_ref())
            .map_err(|error| Failure::rejected(Remote::Auth0, PATCH, error.to_string()))?;
        self.send_patch(&record.account.id, &body).await
    }

    async fn send_patch(&self, id: &AccountId, body: &RawValue) -> Result<Patched, Failure> {
        let url = self.account_address(PATCH, id, "")?;
        let answer = self.call(PATCH, Bucket::Auth0Write, Method::PATCH, url, Some(body)).await?;
        let answer = answer.success(self.clock.as_ref())?;
        Ok(Patched { account: self.record_of(&answer, id)?, request_id: answer.request_id() })
    }

    /// The same without the mirror: `user_metadata` is not touched.
    ///
    /// # Errors
    /// As [`Auth0::patch`].
    pub async fn patch_authority_only(&self, record: &AccountRecord, patch: &Patch) -> Result<Patched, Failure> {
        self.patch(record, &Patch { mirror: None, ..patch.clone() }).await
    }

    /// Ends the account's sessions; Auth0 does so a little later (202). Enterprise plans only.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Forbidden`] also for the plan, which the remedy then says.
    pub async fn delete_sessions(&self, id: &AccountId) -> Result<(), Failure> {
        self.delete(SESSIONS, id, "/sessions").await
    }

    /// Ends the account's refresh tokens, which outlive its sessions; Auth0 does so a little later (202). Enterprise
    /// plans only.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Forbidden`] also for the plan, which the remedy then says.
    pub async fn delete_refresh_tokens(&self, id: &AccountId) -> Result<(), Failure> {
        self.delete(REFRESH_TOKENS, id, "/refresh-tokens").await
    }

    async fn delete(&self, endpoint: &'static str, id: &AccountId, below: &str) -> Result<(), Failure> {
        let url = self.account_address(endpoint, id, below)?;
        let answer = self.call(endpoint, Bucket::Auth0Other, Method::DELETE, url, None).await?;
        answer.success(self.clock.as_ref()).map(drop)
    }
}
