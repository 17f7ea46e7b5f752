//! The HTTP client: one call, one complete response, bounded in time and size.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Request, RequestBuilder, StatusCode};
use tracing::{Instrument, debug, debug_span};

use super::connections::{Connections, ProxyOptions, Timeouts};
use super::failure::{self, Failure, Kind, Remote};
use super::pacing::InFlight;
use super::redact::RequestSecrets;
use super::remedy::{self, Remedy, Route};
use super::remote_time::RemoteTimes;
use super::web_page;
use crate::domain::Clock;
use crate::failpoint::{self, Phase};

/// The time and size that a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte sent to the last one read.
    pub timeout: Duration,
    /// Size of the decompressed body.
    pub body_bytes_max: usize,
}

impl Limits {
    /// For all calls except System Log pages.
    pub const PLAIN: Self = Self { timeout: Duration::from_secs(20), body_bytes_max: 8 << 20 };
    /// For a System Log page: Okta allows a query 30 s before it responds with 500 (Okta docs: System Log query,
    /// "Timeouts"). With a shorter timeout, a slow query would be retried endlessly.
    pub const LOG_PAGE: Self = Self { timeout: Duration::from_secs(45), body_bytes_max: 64 << 20 };
}

/// Options of the HTTP client.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// Root certificates in PEM, in addition to the system's.
    pub ca_file: Option<Vec<u8>>,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// The number of concurrent calls. As many idle connections are kept.
    pub connections: usize,
    /// How long a connection may be silent.
    pub timeouts: Timeouts,
    /// The proxies to use.
    pub proxies: ProxyOptions,
    /// How messages name what lies between us and the remotes.
    pub route: Route,
}

/// Errors from building the HTTP client.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The additional roots are not PEM certificates.
    #[error("the file with additional root certificates contains no readable PEM certificate")]
    Roots(#[source] Option<reqwest::Error>),
    /// The URL of a proxy cannot be used.
    #[error("the proxy URL cannot be used")]
    Proxy(#[source] reqwest::Error),
    /// Usually because the system has no root certificates.
    #[error(
        "failed to build the HTTP client; check that the system's root certificates (ca-certificates) are installed"
    )]
    Build(#[source] reqwest::Error),
}

/// The HTTP client. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Http {
    connections: Arc<Connections>,
    remote_times: RemoteTimes,
    route: Arc<Route>,
}

impl Http {
    /// Builds the client: rustls with the system's roots, HTTP/2 where offered, and gzip. It does not follow redirects,
    /// store cookies or retry.
    ///
    /// # Errors
    /// If the additional roots cannot be read, or the system has none.
    pub fn new(options: &HttpOptions) -> Result<Self, HttpError> {
        let connections = Arc::new(Connections::new(options)?);
        Ok(Self { connections, remote_times: RemoteTimes::default(), route: Arc::new(options.route.clone()) })
    }

    /// The underlying client, to build requests.
    pub fn client(&self) -> reqwest::Client {
        self.connections.current().client
    }

    pub(super) fn route(&self) -> Arc<Route> {
        self.route.clone()
    }

    pub(super) fn streaming_client(&self) -> Result<reqwest::Client, HttpError> {
        self.connections.streaming()
    }

    /// Sends a request and returns the response before its body.
    ///
    /// # Errors
    /// Those of the transport. After a time-out, later requests use new connections.
    pub async fn execute(&self, request: Request) -> Result<reqwest::Response, reqwest::Error> {
        let current = self.connections.current();
        let response = current.client.execute(request).await;
        self.connections.check(&current, response)
    }

    /// What the responses say about the remotes' clocks.
    pub fn remote_times(&self) -> &RemoteTimes {
        &self.remote_times
    }

    /// Makes one call and reads the whole response, whatever its status.
    ///
    /// Errors while reading the body are classified like errors while connecting. `flight`, if given, records the
    /// rate-limit headers.
    ///
    /// # Errors
    /// [`Kind::Timeout`], [`Kind::Unreachable`], or [`Kind::TooLarge`] if the body exceeds its limit.
    pub async fn send(
        &self,
        call: Call,
        request: RequestBuilder,
        flight: Option<InFlight>,
        clock: &dyn Clock,
    ) -> Result<Answer, Failure> {
        let span = debug_span!("call", remote = %call.remote, endpoint = call.endpoint);
        self.exchange(call, request, flight, clock).instrument(span).await
    }

    async fn exchange(
        &self,
        call: Call,
        request: RequestBuilder,
        flight: Option<InFlight>,
        clock: &dyn Clock,
    ) -> Result<Answer, Failure> {
        let Call { remote, endpoint, limits, remedy } = call;
        let transport = |error: reqwest::Error| Failure::of_transport(remote, endpoint, error, &self.route);
        let (_, request) = request.timeout(limits.timeout).build_split();
        let request = request.map_err(transport)?;
        let current = self.connections.current();
        let secrets = RequestSecrets::of(&request);
        failpoint::pass(remote, endpoint, Phase::Before);
        let started = clock.monotonic();
        let response = current.client.execute(request).await;
        let mut response = self.connections.check(&current, response).map_err(transport)?;
        let status = response.status();
        self.read_remote_time(remote, &response, clock.monotonic().saturating_sub(started), clock);
        if let Some(flight) = flight {
            flight.record_response(status, response.headers(), clock);
        }
        let mut body = Vec::new();
        let cut = |error: reqwest::Error| match transport(error) {
            // Badly compressed: a smaller body would be too.
            corrupt if corrupt.kind == Kind::Malformed => corrupt,
            other => other.partial(),
        };
        while let Some(chunk) = self.connections.check(&current, response.chunk().await).map_err(cut)? {
            if body.len() + chunk.len() > limits.body_bytes_max {
                let mut failure = Failure::too_large(remote, endpoint, limits.body_bytes_max).with_status(status);
                failure.request_id = failure::request_id(response.headers()).map(|id| secrets.redact_text(&id));
                return Err(failure.partial());
            }
            body.extend_from_slice(&chunk);
        }
        failpoint::pass(remote, endpoint, Phase::After);
        // The body of an error is logged, so redact all of it. Of a success only parts are kept: see [`Answer::redacted`].
        if !status.is_success() {
            body = secrets.redact(&body);
        }
        let answer = Answer { remote, endpoint, remedy, status, headers: response.headers().clone(), body, secrets };
        debug!(
            status = status.as_u16(),
            request_id = answer.request_id().unwrap_or_default(),
            bytes = answer.body.len(),
            "answered"
        );
        Ok(answer)
    }

    fn read_remote_time(&self, remote: Remote, response: &reqwest::Response, took: Duration, clock: &dyn Clock) {
        let date = self.remote_times.record(remote, response.status(), response.headers(), took, clock);
        // Only one remote counts: two that disagree would move the clock back and forth.
        let Some(date) = date.filter(|_| remote == Remote::Okta && response.status().is_success()) else { return };
        if let Some(step) = clock.confirm(date) {
            tracing::warn!(
                event = "clock_stepped",
                seconds = step.as_secs(),
                "this machine's clock was set by {} s, as Okta's time confirms; continuing with the new time",
                step.as_secs()
            );
        }
    }
}

/// One call of an [`Endpoint`](super::Endpoint): remote, name in logs, limits and remedies.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The remote.
    pub remote: Remote,
    /// Method and path without ids or addresses, e.g. `GET /api/v1/users/{id}`.
    pub endpoint: &'static str,
    /// Time and size limits.
    pub limits: Limits,
    /// What an operator can do about its errors.
    pub remedy: Remedy,
}

impl Call {
    /// A call with [`Limits::PLAIN`] and without specific remedies.
    pub const fn plain(remote: Remote, endpoint: &'static str) -> Self {
        Self { remote, endpoint, limits: Limits::PLAIN, remedy: remedy::none }
    }
}

/// A complete response. Its `Debug` shows neither headers nor body.
pub struct Answer {
    remote: Remote,
    endpoint: &'static str,
    remedy: Remedy,
    /// The status, success or not.
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
    /// The remote's request id, for its support.
    pub fn request_id(&self) -> Option<String> {
        failure::request_id(&self.headers).map(|id| self.redacted(&id))
    }

    /// Redacts the request's secrets from a part of the response. Use it for everything that is stored or shown.
    pub fn redacted(&self, part: &str) -> String {
        self.secrets.redact_text(part)
    }

    /// Classifies a response whose status is not 2xx.
    pub fn failure(&self, clock: &dyn Clock) -> Failure {
        let mut failure =
            Failure::of_answer(self.remote, self.endpoint, self.status, &self.headers, &self.body, clock.now())
                .with_remedy(self.remedy);
        failure.request_id = self.request_id();
        failure
    }

    /// Returns the response if its status is 2xx.
    ///
    /// # Errors
    /// Every other status, classified.
    pub fn success(self, clock: &dyn Clock) -> Result<Self, Failure> {
        if self.status.is_success() { Ok(self) } else { Err(self.failure(clock)) }
    }

    /// A successful response whose body does not match the API.
    pub fn malformed(&self, message: impl Into<String>) -> Failure {
        let page = web_page::describe(&self.headers, &self.body);
        let message = self.redacted(page.as_deref().unwrap_or(&message.into()));
        let mut failure = Failure::malformed(self.remote, self.endpoint, message).with_status(self.status);
        failure.remedy = page.map(|_| web_page::REMEDY.to_owned());
        failure.request_id = self.request_id();
        failure
    }
}

#[cfg(test)]
mod tests;
