//! Client assertions (RFC 7523): authenticate a client with a key instead of a secret.

use serde_json::json;
use uuid::Uuid;

use super::jws::{SignError, SigningKey};
use crate::domain::Timestamp;

/// `client_assertion_type` of every assertion.
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The lifetime of an assertion in seconds. Auth0 accepts at most 5 minutes and recommends 1 (Auth0 docs: Authenticate
/// with Private Key JWT); Okta accepts up to an hour. Leaves room for clock skew.
const LIFETIME_S: i64 = 120;

/// How far `iat` and `nbf` lie in the past: Auth0 refuses an assertion from more than 10 s ahead of its clock.
const BACKDATED_S: i64 = 30;

/// Signs a new assertion for one attempt: both remotes accept each `jti` once, even if they refuse the request.
///
/// # Errors
/// If signing fails.
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
        "iat": now - BACKDATED_S,
        "nbf": now - BACKDATED_S,
        "exp": now + LIFETIME_S,
        "jti": Uuid::new_v4().to_string(),
    });
    key.sign(&header, &claims)
}
