//! Access tokens with client credentials (Auth0 docs: Get Management API Access Tokens for Production).

use std::fmt;
use std::time::Duration;

use reqwest::header::HeaderValue;
use secrecy::ExposeSecret;
use url::Url;

use super::Credentials;
use super::endpoints::TOKEN;
use crate::domain::Clock;
use crate::http::assertion::{self, client_assertion};
use crate::http::token::{Token, TokenAnswer, TokenCache};
use crate::http::{Failure, Http};

/// How long before its expiry a token is renewed; it is valid for a day.
const RENEW_EARLY: Duration = Duration::from_secs(300);

/// Requests tokens, and caches the current one.
pub(super) struct Authenticator {
    credentials: Credentials,
    audience: String,
    token_url: Url,
    /// The audience of an assertion: the origin with a trailing slash.
    issuer: String,
    cache: TokenCache,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Authenticator {
    pub(super) fn new(credentials: Credentials, audience: String, origin: &Url) -> Self {
        let mut token_url = origin.clone();
        token_url.set_path("/oauth/token");
        let issuer = origin.as_str().to_owned();
        Self { credentials, audience, token_url, issuer, cache: TokenCache::new(RENEW_EARLY) }
    }

    pub(super) async fn token(&self, http: &Http, clock: &dyn Clock) -> Result<Token, Failure> {
        self.cache.get(clock, || self.fetch(http, clock)).await
    }

    pub(super) async fn forget(&self, refused: &Token) {
        self.cache.forget(refused).await;
    }

    async fn fetch(&self, http: &Http, clock: &dyn Clock) -> Result<TokenAnswer, Failure> {
        let mut form = vec![("grant_type", "client_credentials".to_owned()), ("audience", self.audience.clone())];
        match &self.credentials {
            Credentials::Secret { client_id, client_secret } => {
                form.push(("client_id", client_id.clone()));
                form.push(("client_secret", client_secret.expose_secret().to_owned()));
            }
            Credentials::PrivateKeyJwt { client_id, key, key_id } => {
                let assertion = client_assertion(key, key_id.as_deref(), client_id, &self.issuer, clock.now())
                    .map_err(|error| TOKEN.rejected(error.to_string()))?;
                form.push(("client_id", client_id.clone()));
                form.push(("client_assertion_type", assertion::TYPE.to_owned()));
                form.push(("client_assertion", assertion));
            }
        }
        let request = http.client().post(self.token_url.clone()).form(&form);
        let answer = http.send(TOKEN.call(), request, None, clock).await?.success(clock)?;
        serde_json::from_slice(&answer.body).map_err(|_| answer.malformed("the body is not a token response"))
    }
}

/// The header of a call, hidden from logs.
pub(super) fn bearer(token: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| TOKEN.malformed("the access token cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}
