//! An operation of a remote's API. Each remote lists its endpoints in one table.

use super::pacing::Bucket;
use super::remedy::Remedy;
use super::{Call, Failure, Limits, Remote};

/// An API operation. The rate-limit permit, the record of the request and the name in logs all come from this one value.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// The remote that serves it.
    pub remote: Remote,
    /// Method and path without ids or addresses, e.g. `GET /api/v1/users/{id}`.
    pub name: &'static str,
    /// The rate-limit bucket that it counts against.
    pub bucket: Bucket,
    /// Time and size limits of one call.
    pub limits: Limits,
    /// What an operator can do about its errors.
    pub remedy: Remedy,
}

impl Endpoint {
    /// An endpoint with [`Limits::PLAIN`].
    pub const fn new(remote: Remote, name: &'static str, bucket: Bucket, remedy: Remedy) -> Self {
        Self { remote, name, bucket, limits: Limits::PLAIN, remedy }
    }

    /// The same endpoint with other limits.
    pub const fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// A call of this endpoint.
    pub const fn call(self) -> Call {
        Call { remote: self.remote, endpoint: self.name, limits: self.limits, remedy: self.remedy }
    }

    /// The failure for a request that we do not send.
    pub fn rejected(self, message: impl Into<String>) -> Failure {
        Failure::rejected(self.remote, self.name, message)
    }

    /// The failure for a response, or a stored part of one, that does not match the API.
    pub fn malformed(self, message: impl Into<String>) -> Failure {
        Failure::malformed(self.remote, self.name, message)
    }
}
