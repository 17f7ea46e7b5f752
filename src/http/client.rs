//! The HTTP client: one call, one complete response, bounded in time and size.

use std::fmt;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Certificate, RequestBuilder, StatusCode};

use super::failure::{self, Failure, Remote};
use super::pacing::InFlight;
use super::redact::RequestSecrets;
use super::remedy::{self, Remedy};
use crate::domain::Clock;
use crate::failpoint::{self, Phase};

/// How long a name may take to resolve and a connection to be made and secured.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a body may stand still before it counts as cut.
const STALL_TIMEOUT: Duration = Duration::from_secs(35);
/// How long an unused connection is kept. Below the idle limits of common load balancers (60 s).
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// What a call may cost: time from the first byte sent to the last one read, and bytes of the body after decompression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The whole call.
    pub timeout: Duration,
    /// The whole body, decompressed.
    pub body_bytes_max: usize,
}

impl Limits {
    /// For all calls but the log's.
    pub const PLAIN: Self = Self { timeout: Duration::from_secs(20), body_bytes_max: 8 << 20 };
    /// For a page of the log: Okta itself gives a query up to 30 s before it answers 500 (Okta docs: System Log query,
    /// "Timeouts"). A shorter time-out would turn each slow query into an endless retry.
    pub const LOG_PAGE: Self = Self { timeout: Duration::from_secs(45), body_bytes_max: 64 << 20 };
}

/// How the HTTP client is made.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// Further root certificates, PEM, in addition to the system's.
    pub ca_file: Option<Vec<u8>>,
    /// Sent with each call.
    pub user_agent: String,
}

/// Why the HTTP client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The extra roots are no PEM certificates.
    #[error("the file of further root certificates holds no readable PEM certificate")]
    Roots(#[source] Option<reqwest::Error>),
    /// Most often: the system has no root certificates.
    #[error("the HTTP client cannot be made; are the system's root certificates (ca-certificates) installed?")]
    Build(#[source] reqwest::Error),
}

/// The one HTTP client. Cloning shares its pool of connections.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
}

impl Http {
    /// Makes the client: rustls with the system's roots, HTTP/2 where offered, gzip, proxies from the usual environment
    /// variables. It follows no redirect, keeps no cookie and repeats nothing.
    ///
    /// # Errors
    /// When the extra roots cannot be read, or the system has none.
    pub fn new(options: &HttpOptions) -> Result<Self, HttpError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(&options.user_agent)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(STALL_TIMEOUT)
            .timeout(Limits::LOG_PAGE.timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(8)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false);
        if let Some(pem) = &options.ca_file {
            let roots = Certificate::from_pem_bundle(pem).map_err(|error| HttpError::Roots(Some(error)))?;
            if roots.is_empty() {
                return Err(HttpError::Roots(None));
            }
            builder = builder.tls_certs_merge(roots);
        }
        Ok(Self { client: builder.build().map_err(HttpError::Build)? })
    }

    /// The client to build requests with.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Makes one call and reads the whole answer, whatever its status.
    ///
    /// The body is read inside the same guard as the headers, so that a stalled or cut one is classified like a
    /// connection that never came about. `flight`, if given, is told what the headers say of the rate limit.
    ///
    /// # Errors
    /// [`Kind::Timeout`], [`Kind::Unreachable`], or [`Kind::Malformed`] for a body beyond the limit.
    pub async fn send(
        &self,
        call: Call,
        request: RequestBuilder,
        flight: Option<InFlight>,
        clock: &dyn Clock,
    ) -> Result<Answer, Failure> {
        let Call { remote, endpoint, limits, remedy } = call;
        let transport = |error: reqwest::Error| Failure::of_transport(remote, endpoint, error);
        let (client, request) = request.timeout(limits.timeout).build_split();
        let request = request.map_err(transport)?;
        let secrets = RequestSecrets::of(&request);
        failpoint::pass(remote, endpoint, Phase::Before);
        let mut response = client.execute(request).await.map_err(transport)?;
        let status = response.status();
        if let Some(flight) = flight {
            flight.record_response(status, response.headers(), clock);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > limits.body_bytes_max {
                let message = format!("the answer's body is longer than {} bytes", limits.body_bytes_max);
                return Err(Failure::malformed(remote, endpoint, message).with_status(status));
            }
            body.extend_from_slice(&chunk);
        }
        failpoint::pass(remote, endpoint, Phase::After);
        // What is told of a refusal is its text. Of a success only the parts that are kept: see [`Answer::redacted`].
        if !status.is_success() {
            body = secrets.redact(&body);
        }
        let answer = Answer { remote, endpoint, remedy, status, headers: response.headers().clone(), body, secrets };
        tracing::debug!(
            remote = %remote,
            endpoint,
            status = status.as_u16(),
            request_id = answer.request_id().unwrap_or_default(),
            bytes = answer.body.len(),
            "answered"
        );
        Ok(answer)
    }
}

/// The remote that a call goes to, its name in logs, its limits, and the remedies for its errors.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The remote.
    pub remote: Remote,
    /// Method and path without ids or addresses, e.g. `GET /api/v1/users/{id}`.
    pub endpoint: &'static str,
    /// Time and size.
    pub limits: Limits,
    /// What an operator can do about its errors.
    pub remedy: Remedy,
}

impl Call {
    /// A call with [`Limits::PLAIN`] whose errors have no remedy of their own.
    pub const fn plain(remote: Remote, endpoint: &'static str) -> Self {
        Self { remote, endpoint, limits: Limits::PLAIN, remedy: remedy::none }
    }
}

/// A complete answer. Its `Debug` shows neither headers nor body.
pub struct Answer {
    remote: Remote,
    endpoint: &'static str,
    remedy: Remedy,
    /// The status, whatever it is.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Vec<u8>,
    secrets: RequestSecrets,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("endpoint", &self.endpoint)
            .field("status", &self.status.as_u16())
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// What the remote calls this exchange, for its support.
    pub fn request_id(&self) -> Option<String> {
        failure::request_id(&self.headers).map(|id| self.redacted(&id))
    }

    /// A part of the answer without the secrets that the request carried: for whatever is kept or shown.
    pub fn redacted(&self, part: &str) -> String {
        self.secrets.out_of_text(part)
    }

    /// What this answer means if it is no success.
    pub fn failure(&self, clock: &dyn Clock) -> Failure {
        let mut failure =
            Failure::of_answer(self.remote, self.endpoint, self.status, &self.headers, &self.body, clock.now())
                .with_remedy(self.remedy);
        failure.request_id = self.request_id();
        failure
    }

    /// Lets a success (2xx) through.
    ///
    /// # Errors
    /// Every other status, classified.
    pub fn success(self, clock: &dyn Clock) -> Result<Self, Failure> {
        if self.status.is_success() { Ok(self) } else { Err(self.failure(clock)) }
    }

    /// A success whose body is not what the API describes.
    pub fn malformed(&self, message: impl Into<String>) -> Failure {
        let message = self.redacted(&message.into());
        let mut failure = Failure::malformed(self.remote, self.endpoint, message).with_status(self.status);
        failure.request_id = self.request_id();
        failure
    }
}

#[cfg(test)]
mod tests;
