//! DPoP (RFC 9449): a proof with each call that whoever sends the token holds the key it was made for.

use std::sync::{Mutex, PoisonError};

use reqwest::header::HeaderMap;
use serde_json::json;
use url::Url;
use uuid::Uuid;

use crate::domain::Timestamp;
use crate::http::jws::{KeyError, SignError, SigningKey, sha256_base64url};

/// The longest nonce taken.
const NONCE_BYTES_MAX: usize = 1024;

/// A key of this process alone, and the nonce that Okta last handed out.
#[derive(Debug)]
pub(super) struct Prover {
    key: SigningKey,
    nonce: Mutex<Option<String>>,
}

impl Prover {
    pub(super) fn new() -> Result<Self, KeyError> {
        Ok(Self { key: SigningKey::generate()?, nonce: Mutex::new(None) })
    }

    /// A fresh proof for one attempt of one call: each is good once (`jti`).
    ///
    /// `htu` is the address without its query (RFC 9449 §4.2). `token` binds it to an access token.
    pub(super) fn proof(
        &self,
        method: &str,
        url: &Url,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<String, SignError> {
        let mut htu = url.clone();
        htu.set_query(None);
        htu.set_fragment(None);
        let mut claims = json!({
            "htm": method,
            "htu": htu.as_str(),
            "iat": now.as_second(),
            "jti": Uuid::new_v4().to_string(),
        });
        if let Some(token) = token {
            claims["ath"] = sha256_base64url(token.as_bytes()).into();
        }
        if let Some(nonce) = self.nonce.lock().unwrap_or_else(PoisonError::into_inner).as_deref() {
            claims["nonce"] = nonce.into();
        }
        self.key.sign(&json!({ "typ": "dpop+jwt", "jwk": self.key.public_jwk() }), &claims)
    }

    /// Keeps the nonce that an answer hands out. Was there a new one?
    pub(super) fn keep_nonce(&self, headers: &HeaderMap) -> bool {
        let Some(nonce) = headers.get("dpop-nonce").and_then(|value| value.to_str().ok()) else { return false };
        if nonce.is_empty() || nonce.len() > NONCE_BYTES_MAX {
            return false;
        }
        let mut kept = self.nonce.lock().unwrap_or_else(PoisonError::into_inner);
        kept.replace(nonce.to_owned()).as_deref() != Some(nonce)
    }
}
