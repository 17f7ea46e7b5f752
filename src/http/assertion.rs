//! Client assertions (RFC 7523): how a client proves who it is with a key instead of a secret.

use serde_json::json;
use uuid::Uuid;

use super::jws::{SignError, SigningKey};
use crate::domain::Timestamp;

/// `client_assertion_type` of every assertion.
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How long an assertion is good for, in seconds. Auth0 takes at most 5 minutes and advises 1 (Auth0 docs: Authenticate
/// with Private Key JWT); Okta takes up to an hour. It leaves room for a clock that is a little off.
const LIFE_S: i64 = 120;

/// A fresh assertion for one attempt: both remotes take each `jti` once, even when they refuse the request.
///
/// # Errors
/// When it cannot be signed.
pub fn client_assertion(
    key: &SigningKey,
    key_id: Option<&str>,
    client_id: &str,
    audience: &str,
    now: Timestamp,
) -> Result<String, SignError> {
    let now = now.as_second();
    let mut header = json!({ "typ": "JWT" });
    if let Some(id) = key_id.or(key.id()) {
        header["kid"] = id.into();
    }
    let claims = json!({
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": now,
        "exp": now + LIFE_S,
        "jti": Uuid::new_v4().to_string(),
    });
    key.sign(&header, &claims)
}
