//! The Okta client: System Log, users and authentication.
//!
//! Each call is sent once and its response classified; see [`crate::http`]. A call is repeated only in two cases, once
//! each: with a new access token if Okta refuses the token, and with the DPoP nonce if Okta asks for one.

use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use url::Url;

use crate::domain::{Clock, Timestamp};
use crate::http::{Answer, Call, Deviation, Endpoint, Failure, Http, Pacer, Remote};

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
pub use log::{LIMIT_MAX, LogFilter, LogPage, LogPosition};
pub use org::CredentialReport;
pub use users::{HolderList, USERS_MAX, UserPage, UserQuery};

use auth::Authenticator;

/// Where the org is and how to authenticate.
#[derive(Debug)]
pub struct OktaOptions {
    /// The org's origin, e.g. `https://acme.okta.com`; a path is ignored.
    pub url: Url,
    /// The credential for the org.
    pub credentials: Credentials,
}

/// A client for one org.
#[derive(Debug)]
pub struct Okta {
    origin: Url,
    http: Http,
    pacer: Arc<Pacer>,
    clock: Arc<dyn Clock>,
    authenticator: Authenticator,
}

/// How many new DPoP nonces one call takes. The one in use may expire while Okta renews the next.
const NONCES_MAX: u32 = 2;
/// Omits parts of users that this program does not read (Okta's OpenAPI description, `OktaResponse`).
const CONTENT: &str = "application/json; okta-response=omitCredentials,omitCredentialsLinks";

impl Okta {
    /// Creates a client without sending a request.
    ///
    /// It reports each call to `pacer` but does not wait for it: the caller acquires a permit first.
    pub fn new(options: OktaOptions, http: Http, pacer: Arc<Pacer>, clock: Arc<dyn Clock>) -> Self {
        let mut origin = options.url;
        origin.set_path("/");
        origin.set_query(None);
        origin.set_fragment(None);
        let authenticator = Authenticator::new(options.credentials, &origin);
        Self { origin, http, pacer, clock, authenticator }
    }

    /// How far this machine's clock is from the org's.
    pub fn clock_deviation(&self) -> Option<Deviation> {
        self.http.remote_times().deviation(Remote::Okta)
    }

    /// The time of the org's clock, once a response has shown it.
    pub fn now(&self) -> Option<Timestamp> {
        self.http.remote_times().now(Remote::Okta, self.clock.as_ref())
    }

    /// A URL on the org's origin, whatever `path` contains.
    fn url(&self, path: &str) -> Url {
        let mut url = self.origin.clone();
        url.set_path(path);
        url
    }

    /// Sends an authenticated GET; repeats it once with a new token and once with a nonce if Okta asks for that.
    async fn get(&self, endpoint: Endpoint, url: Url) -> Result<Answer, Failure> {
        let (mut renewed, mut nonces) = (false, 0);
        loop {
            let (used, headers) = self.authenticator.headers(&self.http, self.clock.as_ref(), "GET", &url).await?;
            let answer = self.send(endpoint, url.clone(), headers).await?;
            if nonces < NONCES_MAX && self.authenticator.wants_nonce(&answer) {
                nonces += 1;
            } else if !renewed && self.authenticator.forget(&used, &answer).await {
                renewed = true;
            } else {
                return Ok(answer);
            }
        }
    }

    async fn send(&self, endpoint: Endpoint, url: Url, mut headers: HeaderMap) -> Result<Answer, Failure> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        let in_flight = self.pacer.start_request(endpoint.bucket, self.clock.as_ref());
        let request = self.http.client().get(url).headers(headers);
        let call = Call { remedy: self.authenticator.remedy(), ..endpoint.call() };
        self.http.send(call, request, Some(in_flight), self.clock.as_ref()).await
    }
}

#[cfg(test)]
mod tests;
