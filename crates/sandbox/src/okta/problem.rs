//! Okta's error responses: one shape, a code and its status.

use serde_json::json;

use crate::identifiers::Identifiers;
use crate::message::Reply;

/// An error. The codes are those of Okta's catalog ("Okta API error codes").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) summary: String,
    pub(super) causes: Vec<String>,
}

impl Problem {
    fn new(status: u16, code: &'static str, summary: impl Into<String>) -> Self {
        Self { status, code, summary: summary.into(), causes: Vec::new() }
    }

    /// 400: a field or parameter is wrong.
    pub(super) fn validation(field: &str, cause: impl Into<String>) -> Self {
        let mut problem = Self::new(400, "E0000001", format!("Api validation failed: {field}"));
        problem.causes.push(cause.into());
        problem
    }

    /// 400: a time cannot be parsed.
    pub(super) fn bad_date(field: &str) -> Self {
        Self::new(
            400,
            "E0000030",
            format!(
                "Bad date. Expected to match yyyy-MM-dd'T'HH:mm:ss.SSSZ or yyyy-MM-dd'T'HH:mm:ss.SSSXXX, \
                 parameter: {field}"
            ),
        )
    }

    /// 400: the expression in `search` (or in the log's `filter`) cannot be parsed.
    pub(super) fn bad_search() -> Self {
        Self::new(400, "E0000031", "Invalid search criteria.")
    }

    /// 400: a filter or parameter that Okta cannot process.
    pub(super) fn bad_parameter(summary: impl Into<String>) -> Self {
        Self::new(400, "E0000053", summary)
    }

    /// 401.
    pub(super) fn invalid_token() -> Self {
        Self::new(401, "E0000011", "Invalid token provided")
    }

    /// 403: the role or the scope does not allow it.
    pub(super) fn no_permission() -> Self {
        Self::new(403, "E0000006", "You do not have permission to perform the requested action")
    }

    /// 403: the user has the wrong status.
    pub(super) fn wrong_status() -> Self {
        Self::new(403, "E0000038", "This operation is not allowed in the user's current status.")
    }

    /// 403: an active user cannot be activated.
    pub(super) fn already_active() -> Self {
        Self::new(403, "E0000016", "Activation failed because the user is already active")
    }

    /// 404, as recorded by okta-sdk-python.
    pub(super) fn not_found(id: &str) -> Self {
        Self::new(404, "E0000007", format!("Not found: Resource not found: {id} (User)"))
    }

    /// 404 for a path that does not exist.
    pub(super) fn no_such_endpoint(path: &str) -> Self {
        Self::new(404, "E0000007", format!("Not found: Resource not found: {path} (Endpoint)"))
    }

    /// 405.
    pub(super) fn wrong_method() -> Self {
        Self::new(405, "E0000022", "The endpoint does not support the provided HTTP method")
    }

    /// 429.
    pub(super) fn rate_limited() -> Self {
        Self::new(429, "E0000047", "API call exceeded rate limit due to too many requests.")
    }

    /// The error as a response.
    pub(super) fn answer(&self, ids: &mut Identifiers) -> Reply {
        let causes: Vec<_> = self.causes.iter().map(|cause| json!({ "errorSummary": cause })).collect();
        Reply::json(
            self.status,
            &json!({
                "errorCode": self.code,
                "errorSummary": self.summary,
                "errorLink": self.code,
                "errorId": format!("oae{}", ids.base62(22)),
                "errorCauses": causes,
            }),
        )
    }
}
