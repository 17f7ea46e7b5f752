//! A failed call, and the table that classifies it.
//!
//! The HTTP status decides first, because Okta sends the same `errorCode` with different statuses (Okta docs: System Log
//! query, "Errors"; Error codes). The body's code decides only in the few cases of `refine`.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;

use super::remedy::Route;
use super::{headers, remedy, web_page};
use crate::domain::Timestamp;
use crate::domain::escape::escape_bounded;

/// Longer messages of a remote are truncated, in characters.
const MESSAGE_CHARS_MAX: usize = 500;
/// Longer codes and request ids are truncated, in characters.
const CODE_CHARS_MAX: usize = 120;

/// The remote service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// The Okta org.
    Okta,
    /// The Auth0 tenant.
    Auth0,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Okta => "Okta",
            Self::Auth0 => "Auth0",
        })
    }
}

/// The kind of a failure: one for each way in which the engine can react.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The remote refuses the credential, even after it was renewed where that is possible.
    Unauthorized,
    /// The credential lacks permission: scope, role, grant, network zone or plan.
    Forbidden,
    /// The resource does not exist.
    NotFound,
    /// The request is invalid, so a retry would fail too.
    Rejected,
    /// Too many calls.
    RateLimited,
    /// The remote has an internal error.
    Server,
    /// No complete response in time.
    Timeout,
    /// No connection, or it was lost.
    Unreachable,
    /// A response that does not match the API.
    Malformed,
    /// A response larger than we read. The remote is healthy; ask for less.
    TooLarge,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Rejected,
        Self::RateLimited,
        Self::Server,
        Self::Timeout,
        Self::Unreachable,
        Self::Malformed,
        Self::TooLarge,
    ];

    /// The name in logs and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not found",
            Self::Rejected => "rejected",
            Self::RateLimited => "rate limited",
            Self::Server => "server error",
            Self::Timeout => "timed out",
            Self::Unreachable => "unreachable",
            Self::Malformed => "malformed answer",
            Self::TooLarge => "answer too large",
        }
    }

    /// Classifies a status other than 2xx, whether it comes from the remote or a proxy.
    const fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 | 410 => Self::NotFound,
            // A proxy requires credentials: the request did not reach the remote.
            407 => Self::Unreachable,
            408 | 504 => Self::Timeout,
            // 421 and 425 ask for a retry on another connection.
            421 | 425 => Self::Server,
            429 => Self::RateLimited,
            400..=499 => Self::Rejected,
            500..=599 => Self::Server,
            // Neither API redirects, and we never follow a redirect with a credential.
            _ => Self::Malformed,
        }
    }
}

/// A call without a usable response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub kind: Kind,
    /// The remote service.
    pub remote: Remote,
    /// Method and path, without ids, e.g. `GET /api/v1/logs`.
    pub endpoint: &'static str,
    /// The HTTP status, if there was a response.
    pub status: Option<u16>,
    /// The response began, and its body could not be read whole: cut, too slow or too large. A smaller one may be readable.
    pub is_partial: bool,
    /// The remote's error code: `E0000011`, `insufficient_scope`, `invalid_client` …
    pub code: Option<String>,
    /// The remote's message, bounded and with control characters escaped, or the transport error.
    pub message: String,
    /// The remote's request id, for its support.
    pub request_id: Option<String>,
    /// For [`Kind::RateLimited`]: how long the remote asks us to wait, measured by its clock. `None` if it does not say.
    pub retry_after: Option<Duration>,
    /// What an operator can do about it, if known.
    pub remedy: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.remote, self.endpoint, self.kind.as_str())?;
        match (self.status, &self.code) {
            (Some(status), Some(code)) => write!(f, " ({status} {code})")?,
            (Some(status), None) => write!(f, " ({status})")?,
            (None, Some(code)) => write!(f, " ({code})")?,
            (None, None) => {}
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, " — {remedy}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " [request {id}]")?;
        }
        Ok(())
    }
}

impl Error for Failure {}

/// The error body in all its forms: Okta's API, both token endpoints, Auth0's API.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    #[serde(rename = "errorCode", deserialize_with = "super::lenient::text")]
    error_code: Option<String>,
    #[serde(rename = "errorSummary", deserialize_with = "super::lenient::text")]
    error_summary: Option<String>,
    #[serde(rename = "errorCauses", deserialize_with = "super::lenient::list")]
    error_causes: Vec<Cause>,
    #[serde(deserialize_with = "super::lenient::text")]
    error: Option<String>,
    #[serde(deserialize_with = "super::lenient::text")]
    error_description: Option<String>,
    #[serde(deserialize_with = "super::lenient::text")]
    message: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cause {
    #[serde(rename = "errorSummary", deserialize_with = "super::lenient::text")]
    error_summary: Option<String>,
}

impl Failure {
    /// Classifies a response other than 2xx. `now` replaces a missing `Date` header.
    pub fn of_answer(
        remote: Remote,
        endpoint: &'static str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Self {
        let page = web_page::describe(headers, body);
        let body: Body = serde_json::from_slice(body).unwrap_or_default();
        // Auth0's API repeats the status text in `error`; only token endpoints send a code there.
        let is_oauth = body.error_description.is_some() || (body.message.is_none() && body.error_summary.is_none());
        let code = body.error_code.or_else(|| body.error.filter(|_| is_oauth));
        let code = code.as_deref().map(|code| escape_bounded(code, CODE_CHARS_MAX));
        let mut message = body.error_summary.or(body.message).or(body.error_description).unwrap_or_default();
        for cause in body.error_causes.into_iter().filter_map(|cause| cause.error_summary) {
            message.push_str("; ");
            message.push_str(&cause);
        }
        let remedy = remedy::of_status(status.as_u16()).or_else(|| page.as_ref().map(|_| web_page::REMEDY.to_owned()));
        if let Some(page) = page {
            message = page;
        }
        if message.is_empty() {
            message = status.canonical_reason().unwrap_or("no reason given").to_owned();
        }
        let kind = refine(remote, Kind::of_status(status.as_u16()), code.as_deref());
        let retry_after = (kind == Kind::RateLimited)
            .then(|| headers::retry_after(headers, now).or_else(|| headers::reset_in(headers, now)))
            .flatten();
        let message = escape_bounded(&message, MESSAGE_CHARS_MAX);
        Self {
            kind,
            remote,
            endpoint,
            status: Some(status.as_u16()),
            is_partial: false,
            code,
            message,
            request_id: request_id(headers),
            retry_after,
            remedy,
        }
    }

    /// Adds the remote's remedy, unless there already is one.
    #[must_use]
    pub fn with_remedy(mut self, remedy: remedy::Remedy) -> Self {
        self.remedy = self.remedy.or_else(|| remedy(self.kind, self.code.as_deref(), &self.message));
        self
    }

    /// Classifies a transport error. Drops the URL, which may contain email addresses.
    pub fn of_transport(remote: Remote, endpoint: &'static str, error: reqwest::Error, route: &Route) -> Self {
        let error = error.without_url();
        let kind = if error.is_timeout() {
            Kind::Timeout
        } else if error.is_connect() {
            // Includes an untrusted certificate, which is reported as invalid data: the request did not reach the remote.
            Kind::Unreachable
        } else if error.is_redirect() || is_corrupt(&error) {
            Kind::Malformed
        } else if error.is_builder() {
            Kind::Rejected
        } else {
            Kind::Unreachable
        };
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        let remedy = remedy::of_transport(kind, &message, route);
        let message = escape_bounded(&message, MESSAGE_CHARS_MAX);
        Self { remedy, ..Self::bare(kind, remote, endpoint, message) }
    }

    /// A successful response that does not match the API.
    pub fn malformed(remote: Remote, endpoint: &'static str, message: impl Into<String>) -> Self {
        Self::bare(Kind::Malformed, remote, endpoint, escape_bounded(&message.into(), MESSAGE_CHARS_MAX))
    }

    /// A response whose body exceeds `bytes_max`.
    pub fn too_large(remote: Remote, endpoint: &'static str, bytes_max: usize) -> Self {
        Self::bare(Kind::TooLarge, remote, endpoint, format!("response body exceeds {bytes_max} bytes"))
    }

    /// Whether a smaller request for the same resource may succeed.
    pub fn asks_for_less(&self) -> bool {
        self.is_partial || matches!(self.kind, Kind::TooLarge | Kind::Timeout)
    }

    /// A call that was not made because the remote would refuse it.
    pub fn rejected(remote: Remote, endpoint: &'static str, message: impl Into<String>) -> Self {
        Self::bare(Kind::Rejected, remote, endpoint, escape_bounded(&message.into(), MESSAGE_CHARS_MAX))
    }

    const fn bare(kind: Kind, remote: Remote, endpoint: &'static str, message: String) -> Self {
        Self {
            kind,
            remote,
            endpoint,
            status: None,
            is_partial: false,
            code: None,
            message,
            request_id: None,
            retry_after: None,
            remedy: None,
        }
    }

    /// Marks a failure to read the whole body.
    #[must_use]
    pub fn partial(self) -> Self {
        Self { is_partial: true, ..self }
    }

    /// Adds the status of the response.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status.as_u16());
        self
    }
}

/// Whether a complete body is badly compressed. A truncated body is reported as a decoding error too, but is not one.
fn is_corrupt(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<io::Error>()
            && matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other)
        {
            return true;
        }
        source = cause.source();
    }
    false
}

/// The few codes that contradict their status.
fn refine(remote: Remote, kind: Kind, code: Option<&str>) -> Kind {
    match (remote, kind, code) {
        // OAuth refuses a credential with 400 as well as 401 (RFC 6749 §5.2; RFC 9449 §5, §8).
        (_, Kind::Rejected, Some("invalid_client" | "invalid_dpop_proof" | "use_dpop_nonce" | "invalid_token")) => {
            Kind::Unauthorized
        }
        // Missing scopes, or a client without a grant.
        (
            _,
            Kind::Rejected,
            Some("invalid_scope" | "access_denied" | "unauthorized_client" | "no_scope_allowed" | "insufficient_scope"),
        ) => Kind::Forbidden,
        // For a bearer token that is not a JWT, Auth0 returns 400 with this code (Auth0 community 11660).
        (Remote::Auth0, Kind::Rejected, Some("Bearer")) => Kind::Unauthorized,
        (_, kind, _) => kind,
    }
}

/// Request-id headers, most specific first: Okta; Auth0's authorization server; Auth0's Management API, whose recorded
/// responses have only this one and Cloudflare's (auth0/go-auth0 removes both from its recordings,
/// `management/http_recordings_test.go`); a proxy.
const REQUEST_ID_HEADERS: [&str; 5] =
    ["x-okta-request-id", "x-auth0-requestid", "ot-baggage-auth0-request-id", "x-request-id", "cf-ray"];

/// The remote's request id.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    let value = REQUEST_ID_HEADERS.iter().find_map(|name| headers.get(*name))?;
    value.to_str().ok().map(|text| escape_bounded(text, CODE_CHARS_MAX)).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
