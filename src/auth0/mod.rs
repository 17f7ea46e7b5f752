//! The Auth0 tenant: accounts, the mark on them, their sessions, and the Action that reads the mark.
//!
//! Each call is made once and its response classified; see [`crate::http`]. A call is repeated only if Auth0 refuses
//! the access token: once, with a new token.

use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, HeaderName};
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use url::{Url, form_urlencoded};

use crate::domain::mark::MetadataKeys;
use crate::domain::{AccountId, Clock};
use crate::http::jws::SigningKey;
use crate::http::{Answer, Deviation, Endpoint, Failure, Http, Pacer, Remote};

mod actions;
mod body;
pub mod endpoints;
mod events;
mod read;
mod record;
pub(crate) mod remedy;
mod shipped;
mod standing;
mod token;
mod write;

pub use actions::{Action, BOUND_MAX, Bound, Build, Place, Trigger};
pub use events::{AccountStream, StreamBatch, StreamStart};
pub use read::{AccountQuery, Fields, SearchPage};
pub use record::AccountRecord;
pub use shipped::{ACTION_NAME, ACTION_SOURCE, ShippedAction, is_same_code};
pub use standing::{Condition, Standing, Step};
pub use write::Patched;

use token::Authenticator;

/// Auth0 stores up to 64 characters of this header of a POST, PUT, PATCH or DELETE in the tenant's log
/// (<https://auth0.com/docs/api/management/v2>, "Request Correlation").
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// Where the tenant is and how to authenticate.
#[derive(Debug)]
pub struct Auth0Options {
    /// The tenant's origin or its custom domain, e.g. `https://acme.eu.auth0.com`. A path is ignored.
    pub url: Url,
    /// The Management API's identifier, `https://acme.eu.auth0.com/api/v2/`.
    pub audience: String,
    /// The client credentials.
    pub credentials: Credentials,
    /// The keys of our mark in `app_metadata`.
    pub keys: MetadataKeys,
}

/// Client credentials. The `Debug` of each part shows no secret.
#[derive(Debug)]
pub enum Credentials {
    /// A machine-to-machine application with a secret.
    Secret {
        /// Its client id.
        client_id: String,
        /// Its secret.
        client_secret: SecretString,
    },
    /// An application that signs with its private key (Auth0 Enterprise).
    PrivateKeyJwt {
        /// Its client id.
        client_id: String,
        /// Its private RSA key.
        key: SigningKey,
        /// Overrides the `kid` of the key's JWK.
        key_id: Option<String>,
    },
}

/// A client for one tenant.
#[derive(Debug)]
pub struct Auth0 {
    origin: Url,
    keys: MetadataKeys,
    http: Http,
    pacer: Arc<Pacer>,
    clock: Arc<dyn Clock>,
    authenticator: Authenticator,
}

impl Auth0 {
    /// The keys of our mark in `app_metadata`.
    pub fn keys(&self) -> &MetadataKeys {
        &self.keys
    }

    /// Creates a client without sending a request.
    ///
    /// It reports each call to `pacer` but does not wait for it: the caller acquires a permit first.
    pub fn new(options: Auth0Options, http: Http, pacer: Arc<Pacer>, clock: Arc<dyn Clock>) -> Self {
        let mut origin = options.url;
        origin.set_path("/");
        origin.set_query(None);
        origin.set_fragment(None);
        let authenticator = Authenticator::new(options.credentials, options.audience, &origin);
        Self { origin, keys: options.keys, http, pacer, clock, authenticator }
    }

    /// How far this machine's clock is from the tenant's.
    pub fn clock_deviation(&self) -> Option<Deviation> {
        self.http.remote_times().deviation(Remote::Auth0)
    }

    /// The scopes of the current access token.
    ///
    /// # Errors
    /// Classified.
    pub async fn granted_scopes(&self) -> Result<Vec<String>, Failure> {
        Ok(self.authenticator.token(&self.http, self.clock.as_ref()).await?.scopes)
    }

    /// A URL on the tenant's origin, whatever `path` contains.
    fn address(&self, path: &str) -> Url {
        let mut address = self.origin.clone();
        address.set_path(path);
        address
    }

    /// The URL of an account, or of a resource below it (`"/sessions"`).
    ///
    /// # Errors
    /// For an id with which the URL would name another resource.
    fn account_address(&self, endpoint: Endpoint, id: &AccountId, below: &str) -> Result<Url, Failure> {
        // With an empty segment the URL lists all accounts, and dots lead to the parent, percent-encoded or not.
        if matches!(id.as_str(), "" | "." | "..") {
            return Err(endpoint.rejected("not a valid account id"));
        }
        // Form encoding, except that a plus does not stand for a space in a path.
        let segment: String = form_urlencoded::byte_serialize(id.as_str().as_bytes()).collect();
        Ok(self.address(&format!("/api/v2/users/{}{below}", segment.replace('+', "%20"))))
    }

    /// Makes one authenticated call, and repeats it once with a new token if Auth0 refuses the token.
    async fn call(
        &self,
        endpoint: Endpoint,
        method: Method,
        url: Url,
        body: Option<&RawValue>,
    ) -> Result<Answer, Failure> {
        self.call_with(endpoint, method, url, |request| match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// As [`Auth0::call`]; `complete` adds body and headers to the request.
    async fn call_with(
        &self,
        endpoint: Endpoint,
        method: Method,
        url: Url,
        complete: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, Failure> {
        let mut renewed = false;
        loop {
            let token = self.authenticator.token(&self.http, self.clock.as_ref()).await?;
            let request = self
                .http
                .client()
                .request(method.clone(), url.clone())
                .header(AUTHORIZATION, token::bearer(token.secret.expose_secret())?);
            let flight = self.pacer.start_request(endpoint.bucket, self.clock.as_ref());
            let answer = self.http.send(endpoint.call(), complete(request), Some(flight), self.clock.as_ref()).await?;
            if answer.status != StatusCode::UNAUTHORIZED || renewed {
                return Ok(answer);
            }
            self.authenticator.forget(&token).await;
            renewed = true;
        }
    }
}

#[cfg(test)]
mod tests;
