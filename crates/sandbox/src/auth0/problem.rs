//! The error responses of Auth0's Management API.

use serde_json::{Value, json};

use crate::message::Reply;

/// An error: `{"statusCode","error","message","errorCode"?,"attributes"?}`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    pub(super) status: u16,
    message: String,
    code: Option<&'static str>,
    attributes: Option<Value>,
}

impl Problem {
    pub(super) fn new(status: u16, code: impl Into<Option<&'static str>>, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: code.into(), attributes: None }
    }

    /// 401, recorded by ruby-auth0.
    pub(super) fn missing_authentication() -> Self {
        Self::new(401, None, "Missing authentication")
    }

    /// 401 for an unknown or expired token: the reason appears twice, without a code.
    pub(super) fn bad_token(message: &str) -> Self {
        Self { attributes: Some(json!({ "error": message })), ..Self::new(401, None, message) }
    }

    /// 400 for text that is not a JWT: Auth0 does not answer 401 then.
    pub(super) fn malformed_token() -> Self {
        Self::new(400, "Bearer", "Bad HTTP authentication header format")
    }

    /// 403, recorded by auth0-deploy-cli.
    pub(super) fn insufficient_scope(expected: &[&str]) -> Self {
        let expected = expected.join(",");
        Self::new(403, "insufficient_scope", format!("Insufficient scope, expected any of: {expected}"))
    }

    /// 403 for a plan that lacks a feature, recorded by terraform-provider-auth0.
    pub(super) fn insufficient_entitlement() -> Self {
        Self::new(
            403,
            "insufficient_entitlement",
            "Please upgrade your subscription to use this feature: https://auth0.com/pricing",
        )
    }

    /// 404, recorded by go-auth0.
    pub(super) fn no_such_user() -> Self {
        Self::new(404, "inexistent_user", "The user does not exist.")
    }

    /// 404 for anything but a user.
    pub(super) fn not_found(message: &str) -> Self {
        Self::new(404, None, message)
    }

    /// 400 for the body.
    pub(super) fn invalid_body(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_body", format!("Payload validation error: {}", message.into()))
    }

    /// 400 for the query.
    pub(super) fn invalid_query(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_query_string", format!("Query validation error: {}", message.into()))
    }

    /// 429, recorded by terraform-provider-auth0.
    pub(super) fn rate_limited() -> Self {
        Self::new(429, "too_many_requests", "Global limit has been reached")
    }

    /// The error as a response.
    pub(super) fn answer(&self) -> Reply {
        let error = match self.status {
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            409 => "Conflict",
            410 => "Gone",
            413 => "Payload Too Large",
            429 => "Too Many Requests",
            _ => "Internal Server Error",
        };
        let mut body = json!({ "statusCode": self.status, "error": error, "message": self.message });
        if let Some(code) = self.code {
            body["errorCode"] = json!(code);
        }
        if let Some(attributes) = &self.attributes {
            body["attributes"] = attributes.clone();
        }
        Reply::json(self.status, &body)
    }
}
