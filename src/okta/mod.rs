//! The Okta org: its System Log, its users, and how we prove who we are.
//!
//! Each call is made once and its answer classified; see [`crate::http`]. Two things only are repeated, once: a call
//! whose access token was refused, with a new token, and one that wants a DPoP nonce, with it.

use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use url::Url;

use crate::domain::Clock;
use crate::http::{Answer, Endpoint, Failure, Http, Pacer};

mod auth;
mod dpop;
pub mod endpoints;
mod entry;
mod log;
mod org;
pub(crate) mod remedy;
mod users;

pub use auth::{Credentials, DpopMode, SCOPES};
pub use entry::LogEntry;
pub use log::{FILTER, LogPage, LogPosition, filter_fingerprint};
pub use org::CredentialReport;
pub use users::{UserPage, UserQuery};

use auth::Authenticator;

/// How the org is reached.
#[derive(Debug)]
pub struct OktaOptions {
    /// The org's origin, e.g. `https://acme.okta.com`. A path is ignored.
    pub url: Url,
    /// Who we are there.
    pub credentials: Credentials,
}

/// A client of one org.
#[derive(Debug)]
pub struct Okta {
    origin: Url,
    http: Http,
    pacer: Arc<Pacer>,
    clock: Arc<dyn Clock>,
    authenticator: Authenticator,
}

/// Trims the answer of what we never read (Okta's OpenAPI description, `OktaResponse`).
const CONTENT: &str = "application/json; okta-response=omitCredentials,omitCredentialsLinks";

impl Okta {
    /// A client that has asked nothing yet.
    ///
    /// It reports each call to `pacer`, and never waits for it: acquire a permit before.
    pub fn new(options: OktaOptions, http: Http, pacer: Arc<Pacer>, clock: Arc<dyn Clock>) -> Self {
        let mut origin = options.url;
        origin.set_path("/");
        origin.set_query(None);
        origin.set_fragment(None);
        let authenticator = Authenticator::new(options.credentials, &origin);
        Self { origin, http, pacer, clock, authenticator }
    }

    /// An address on the org's own origin, whatever `path` holds.
    fn address(&self, path: &str) -> Url {
        let mut address = self.origin.clone();
        address.set_path(path);
        address
    }

    /// One authenticated GET; a refused token or a wanted nonce is made good for once.
    async fn get(&self, endpoint: Endpoint, url: Url) -> Result<Answer, Failure> {
        let (mut renewed, mut with_nonce) = (false, false);
        loop {
            let (proof, headers) = self.authenticator.headers(&self.http, self.clock.as_ref(), "GET", &url).await?;
            let answer = self.send(endpoint, url.clone(), headers).await?;
            if !with_nonce && self.authenticator.wants_nonce(&answer) {
                with_nonce = true;
            } else if !renewed && self.authenticator.forget(&proof, &answer).await {
                renewed = true;
            } else {
                return Ok(answer);
            }
        }
    }

    async fn send(&self, endpoint: Endpoint, url: Url, mut headers: HeaderMap) -> Result<Answer, Failure> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        let flight = self.pacer.start_request(endpoint.bucket, self.clock.as_ref());
        let request = self.http.client().get(url).headers(headers);
        self.http.send(endpoint.call(), request, Some(flight), self.clock.as_ref()).await
    }
}

#[cfg(test)]
mod tests;
