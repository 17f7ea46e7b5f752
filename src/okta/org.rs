//! Which org this is, and what our credential is worth there.

use serde::Deserialize;

use super::endpoints::{ORG, OWN_TOKEN};
use super::{Failure, HeaderMap, Okta};
use crate::http::lenient;

/// What Okta says of our credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialReport {
    /// An API token.
    ApiToken {
        /// Its name in the Admin Console.
        name: Option<String>,
        /// The administrator whose rights it has.
        user_id: Option<String>,
        /// When it ends unless it is used, RFC 3339.
        expires_at: Option<String>,
    },
    /// An access token of a service app.
    OAuth {
        /// What was granted.
        scopes: Vec<String>,
        /// Is it bound to our DPoP key?
        dpop: bool,
    },
}

#[derive(Deserialize)]
struct Organization {
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
}

#[derive(Deserialize)]
struct ApiToken {
    #[serde(default, deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(default, rename = "userId", deserialize_with = "lenient::text")]
    user_id: Option<String>,
    #[serde(default, rename = "expiresAt", deserialize_with = "lenient::text")]
    expires_at: Option<String>,
}

impl Okta {
    /// The org's id, `00o…`: what the state is bound to. Needs no credential.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Malformed`] when this is no Okta org.
    pub async fn org_id(&self) -> Result<String, Failure> {
        let url = self.address("/.well-known/okta-organization");
        let answer = self.send(ORG, url, HeaderMap::new()).await?.success(self.clock.as_ref())?;
        serde_json::from_slice::<Organization>(&answer.body)
            .ok()
            .and_then(|organization| organization.id)
            .filter(|id| !id.is_empty())
            .ok_or_else(|| answer.malformed("no org id: is okta.url the org's own address?"))
    }

    /// What our credential is worth: fetches an access token, or asks for the API token's own record.
    ///
    /// # Errors
    /// Classified.
    pub async fn credential(&self) -> Result<CredentialReport, Failure> {
        if let Some(token) = self.authenticator.token(&self.http, self.clock.as_ref()).await? {
            return Ok(CredentialReport::OAuth { scopes: token.scopes, dpop: token.is_dpop });
        }
        let url = self.address("/api/v1/api-tokens/current");
        let answer = self.get(OWN_TOKEN, url).await?.success(self.clock.as_ref())?;
        let token: ApiToken =
            serde_json::from_slice(&answer.body).map_err(|_| answer.malformed("this describes no API token"))?;
        Ok(CredentialReport::ApiToken { name: token.name, user_id: token.user_id, expires_at: token.expires_at })
    }
}
