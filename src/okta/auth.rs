//! Authenticates calls to the org: with an API token, or as an OAuth service app with a private key (and DPoP, if the app requires it).
//!
//! Okta docs: Create an API token; Implement OAuth for Okta with a service app; Configure OAuth 2.0 DPoP.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::NONCES_MAX;
use super::dpop::Prover;
use super::endpoints::TOKEN;
use super::remedy;
use crate::domain::Clock;
use crate::http::assertion::{self, client_assertion};
use crate::http::jws::SigningKey;
use crate::http::remedy::Remedy;
use crate::http::token::{Token, TokenAnswer, TokenCache};
use crate::http::{Answer, Failure, Http, Remote};

/// The scopes that the service app needs.
pub const SCOPES: [&str; 2] = ["okta.logs.read", "okta.users.read"];

/// Tokens live for an hour; they are renewed this long before they expire.
const RENEW_EARLY: Duration = Duration::from_secs(300);

/// The token endpoint of the org authorization server, the only one that grants Okta's own scopes.
const TOKEN_PATH: &str = "/oauth2/v1/token";

/// The credential of this program. The `Debug` output shows no secrets.
#[derive(Debug)]
pub enum Credentials {
    /// `SSWS`: has the permissions of the administrator who created it and is revoked when that user is deactivated.
    ApiToken(SecretString),
    /// A service app that signs with its private key.
    PrivateKeyJwt {
        /// The app's client id, `0oa…`.
        client_id: String,
        /// Its private key.
        key: SigningKey,
        /// Overrides the `kid` of the key's JWK.
        key_id: Option<String>,
        /// Whether calls carry DPoP proofs.
        dpop: DpopMode,
    },
}

/// Whether calls carry DPoP proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpopMode {
    /// Once Okta requires them.
    Auto,
    /// From the first call.
    Always,
    /// Never; if Okta requires them, the token request fails.
    Never,
}

/// Adds the credential to requests.
pub(super) enum Authenticator {
    ApiToken(SecretString),
    OAuth(Box<OAuth>),
}

pub(super) struct OAuth {
    client_id: String,
    key: SigningKey,
    key_id: Option<String>,
    token_url: Url,
    mode: DpopMode,
    /// Whether token requests carry a proof: set by the configuration or once Okta requires it.
    sends_proofs: AtomicBool,
    /// Uses a different key than the assertions do, as Okta demands (Okta docs: Configure OAuth 2.0 DPoP).
    prover: Result<Prover, crate::http::jws::KeyError>,
    cache: TokenCache,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiToken(_) => f.write_str("ApiToken"),
            Self::OAuth(oauth) => f.debug_tuple("OAuth").field(&oauth.client_id).finish(),
        }
    }
}

/// The access token of one attempt, so that `forget` drops that token and not a newer one.
pub(super) struct UsedToken(Option<Token>);

impl Authenticator {
    pub(super) fn new(credentials: Credentials, origin: &Url) -> Self {
        match credentials {
            Credentials::ApiToken(token) => Self::ApiToken(token),
            Credentials::PrivateKeyJwt { client_id, key, key_id, dpop } => {
                let mut token_url = origin.clone();
                token_url.set_path(TOKEN_PATH);
                Self::OAuth(Box::new(OAuth {
                    client_id,
                    key,
                    key_id,
                    token_url,
                    mode: dpop,
                    sends_proofs: AtomicBool::new(dpop == DpopMode::Always),
                    prover: Prover::new(),
                    cache: TokenCache::new(RENEW_EARLY),
                }))
            }
        }
    }

    /// What an operator can do about a refused call with this credential.
    pub(super) const fn remedy(&self) -> Remedy {
        match self {
            Self::ApiToken(_) => remedy::remedy,
            Self::OAuth(_) => remedy::of_service_app,
        }
    }

    /// The authentication headers of one attempt.
    pub(super) async fn headers(
        &self,
        http: &Http,
        clock: &dyn Clock,
        method: &str,
        url: &Url,
    ) -> Result<(UsedToken, HeaderMap), Failure> {
        let mut headers = HeaderMap::new();
        match self {
            Self::ApiToken(token) => {
                headers.insert(AUTHORIZATION, sensitive(&format!("SSWS {}", token.expose_secret()))?);
                Ok((UsedToken(None), headers))
            }
            Self::OAuth(oauth) => {
                let token = oauth.token(http, clock).await?;
                let secret = token.secret.expose_secret();
                if token.is_dpop {
                    headers.insert(AUTHORIZATION, sensitive(&format!("DPoP {secret}"))?);
                    headers.insert("dpop", oauth.proof(method, url, Some(secret), clock)?);
                } else {
                    headers.insert(AUTHORIZATION, sensitive(&format!("Bearer {secret}"))?);
                }
                Ok((UsedToken(Some(token)), headers))
            }
        }
    }

    /// Stores the nonce of the response and returns whether Okta asks to repeat the request with it.
    pub(super) fn wants_nonce(&self, answer: &Answer) -> bool {
        let Self::OAuth(oauth) = self else { return false };
        let Ok(prover) = &oauth.prover else { return false };
        let is_new = prover.keep_nonce(&answer.headers);
        is_new && matches!(answer.status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) && asks_for_nonce(answer)
    }

    /// Drops the access token if `answer` rejects it, and returns whether a retry with a new token makes sense.
    pub(super) async fn forget(&self, used: &UsedToken, answer: &Answer) -> bool {
        match (self, &used.0) {
            (Self::OAuth(oauth), Some(token)) if answer.status == StatusCode::UNAUTHORIZED => {
                oauth.cache.forget(token).await;
                true
            }
            _ => false,
        }
    }

    /// The current access token; `None` with an API token.
    pub(super) async fn token(&self, http: &Http, clock: &dyn Clock) -> Result<Option<Token>, Failure> {
        match self {
            Self::ApiToken(_) => Ok(None),
            Self::OAuth(oauth) => oauth.token(http, clock).await.map(Some),
        }
    }
}

impl OAuth {
    async fn token(&self, http: &Http, clock: &dyn Clock) -> Result<Token, Failure> {
        self.cache.get(clock, || self.fetch(http, clock)).await
    }

    /// Makes up to four attempts: without a proof, with one, and with each of two nonces that Okta then asks for.
    ///
    /// Each attempt needs a new assertion: Okta accepts each only once, even if it refuses the request.
    async fn fetch(&self, http: &Http, clock: &dyn Clock) -> Result<TokenAnswer, Failure> {
        let mut nonces = 0;
        loop {
            let with_proof = self.sends_proofs.load(Ordering::Relaxed);
            let answer = self.request_token(http, clock, with_proof).await?;
            if let Ok(prover) = &self.prover {
                prover.keep_nonce(&answer.headers);
            }
            if answer.status.is_success() {
                let token: TokenAnswer =
                    serde_json::from_slice(&answer.body).map_err(|_| answer.malformed("not a valid token response"))?;
                return Ok(token);
            }
            let failure = answer.failure(clock);
            match failure.code.as_deref() {
                Some("invalid_dpop_proof") if !with_proof && self.mode == DpopMode::Auto => {
                    self.sends_proofs.store(true, Ordering::Relaxed);
                }
                Some("use_dpop_nonce") if with_proof && nonces < NONCES_MAX => nonces += 1,
                _ => return Err(failure),
            }
        }
    }

    async fn request_token(&self, http: &Http, clock: &dyn Clock, with_proof: bool) -> Result<Answer, Failure> {
        let assertion =
            client_assertion(&self.key, self.key_id.as_deref(), &self.client_id, self.token_url.as_str(), clock.now())
                .map_err(|error| TOKEN.rejected(error.to_string()))?;
        let mut request = http.client().post(self.token_url.clone()).form(&[
            ("grant_type", "client_credentials"),
            ("scope", &SCOPES.join(" ")),
            ("client_assertion_type", assertion::TYPE),
            ("client_assertion", &assertion),
        ]);
        if with_proof {
            request = request.header("dpop", self.proof("POST", &self.token_url, None, clock)?);
        }
        http.send(TOKEN.call(), request, None, clock).await
    }

    fn proof(&self, method: &str, url: &Url, token: Option<&str>, clock: &dyn Clock) -> Result<HeaderValue, Failure> {
        let rejected = |message: String| TOKEN.rejected(message);
        let prover = self.prover.as_ref().map_err(|error| rejected(error.to_string()))?;
        let proof = prover.proof(method, url, token, clock.now()).map_err(|error| rejected(error.to_string()))?;
        sensitive(&proof)
    }
}

/// A resource server sends `use_dpop_nonce` in `WWW-Authenticate` (RFC 9449 §9), Okta's token endpoint in the body.
fn asks_for_nonce(answer: &Answer) -> bool {
    let in_header = answer
        .headers
        .get_all(reqwest::header::WWW_AUTHENTICATE)
        .iter()
        .any(|value| value.as_bytes().windows(14).any(|window| window == b"use_dpop_nonce"));
    in_header || answer.body.windows(14).any(|window| window == b"use_dpop_nonce")
}

/// A header value that is hidden from `Debug` output and logs.
fn sensitive(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Failure::rejected(
            Remote::Okta,
            "Authorization",
            "the credential contains characters that are not allowed in a header",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}
