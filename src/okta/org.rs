//! The org's identity, and the permissions of our credential.

use serde::Deserialize;

use super::endpoints::{ORG, OWN_TOKEN};
use super::{Failure, HeaderMap, Okta};
use crate::http::lenient;

/// What Okta reports about our credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialReport {
    /// An API token.
    ApiToken {
        /// Its name in the Admin Console.
        name: Option<String>,
        /// The administrator whose permissions it has.
        user_id: Option<String>,
        /// When it expires unless it is used, RFC 3339.
        expires_at: Option<String>,
    },
    /// An access token of a service app.
    OAuth {
        /// The granted scopes.
        scopes: Vec<String>,
        /// Whether it is bound to our DPoP key.
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
    /// The org id, `00o…`, to which the state database is bound. Needs no credential.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Malformed`] if the server is not an Okta org.
    pub async fn org_id(&self) -> Result<String, Failure> {
        let url = self.url("/.well-known/okta-organization");
        let answer = self.send(ORG, url, HeaderMap::new()).await?.success(self.clock.as_ref())?;
        serde_json::from_slice::<Organization>(&answer.body)
            .ok()
            .and_then(|organization| organization.id)
            .filter(|id| !id.is_empty())
            .ok_or_else(|| answer.malformed("no org id in the response: check that okta.url is the URL of the org"))
    }

    /// Checks our credential: fetches an access token, or reads the record of the API token.
    ///
    /// # Errors
    /// Classified.
    pub async fn credential(&self) -> Result<CredentialReport, Failure> {
        if let Some(token) = self.authenticator.token(&self.http, self.clock.as_ref()).await? {
            return Ok(CredentialReport::OAuth { scopes: token.scopes, dpop: token.is_dpop });
        }
        let url = self.url("/api/v1/api-tokens/current");
        let answer = self.get(OWN_TOKEN, url).await?.success(self.clock.as_ref())?;
        let token: ApiToken =
            serde_json::from_slice(&answer.body).map_err(|_| answer.malformed("not a valid API token record"))?;
        Ok(CredentialReport::ApiToken { name: token.name, user_id: token.user_id, expires_at: token.expires_at })
    }
}
