//! What the clients of both remotes share: one HTTP client, bounded bodies, one table that says what an answer means,
//! signatures, and pacing by the remotes' own headers.
//!
//! Nothing here retries or waits, except for [`pacing::Pacer::acquire`], which exists to wait. A call ends in an
//! [`Answer`] or in a [`Failure`] that says of which [`Kind`] it is; what follows from it is for the engine to decide.

use std::fmt;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Certificate, RequestBuilder, StatusCode};

pub mod assertion;
pub mod endpoint;
pub mod failure;
pub mod headers;
pub mod jws;
pub(crate) mod lenient;
pub mod link;
pub mod pacing;
#[cfg(test)]
pub(crate) mod playback;
mod redact;
mod remedy;
pub mod token;

pub use endpoint::Endpoint;
pub use failure::{Failure, Kind, Remote};
pub use pacing::{Bucket, Pacer, Permit, Priority};

use pacing::InFlight;
use redact::RequestSecrets;

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
        let Call { remote, endpoint, limits } = call;
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
        let answer = Answer { remote, endpoint, status, headers: response.headers().clone(), body, secrets };
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

/// To whom a call goes, under which name it is reported, and what it may cost.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The remote.
    pub remote: Remote,
    /// Method and path without ids or addresses, e.g. `GET /api/v1/users/{id}`.
    pub endpoint: &'static str,
    /// Time and size.
    pub limits: Limits,
}

/// A complete answer. Its `Debug` shows neither headers nor body.
pub struct Answer {
    remote: Remote,
    endpoint: &'static str,
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
            Failure::of_answer(self.remote, self.endpoint, self.status, &self.headers, &self.body, clock.now());
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
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::playback::{Playback, Reply};
    use super::*;
    use crate::domain::ManualClock;

    const CALL: Call = Call { remote: Remote::Okta, endpoint: "GET /x", limits: Limits::PLAIN };

    fn http() -> Http {
        Http::new(&HttpOptions { ca_file: None, user_agent: "test".to_owned() }).unwrap()
    }

    async fn get(call: Call, url: &str) -> Result<Answer, Failure> {
        let http = http();
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        http.send(call, http.client().get(url), None, &clock).await
    }

    /// Writes `answer` to the first caller and then, if told so, hangs up.
    async fn raw(answer: &'static str, hang_up: bool) -> (String, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/canary?email=canary", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            if !hang_up {
                std::future::pending::<()>().await;
            }
        });
        (url, server)
    }

    #[tokio::test]
    async fn a_cut_body_is_unreachable_and_a_stalled_one_a_timeout() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[";
        let (url, _server) = raw(answer, true).await;
        let failure = get(CALL, &url).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Unreachable, "{failure}");
        assert!(!failure.to_string().contains("canary"), "{failure}");

        let (url, _server) = raw(answer, false).await;
        let limits = Limits { timeout: Duration::from_millis(50), ..Limits::PLAIN };
        let failure = get(Call { limits, ..CALL }, &url).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Timeout, "{failure}");
        assert!(!failure.to_string().contains("canary"), "{failure}");
    }

    /// Writes `head` to the first caller, and then `piece` again and again for as long as they listen.
    async fn without_end(head: &'static str, piece: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut drip = tokio::time::interval(Duration::from_millis(5));
            while stream.write_all(&piece).await.is_ok() {
                drip.tick().await;
            }
        });
        url
    }

    #[tokio::test]
    async fn a_drip_ends_with_its_time_and_an_endless_body_at_its_size() {
        // Each byte comes soon enough for a time that is counted from the last one: the whole answer has a time too.
        let limits = Limits { timeout: Duration::from_millis(100), ..Limits::PLAIN };
        let url = without_end("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[", b" ".to_vec()).await;
        let failure = get(Call { limits, ..CALL }, &url).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Timeout, "{failure}");
        // Headers drip as well.
        let url = without_end("HTTP/1.1 200 OK\r\n", b"X-Drip: 1\r\n".to_vec()).await;
        let failure = get(Call { limits, ..CALL }, &url).await.unwrap_err();
        assert_eq!((failure.kind, failure.status), (Kind::Timeout, None), "{failure}");

        let limits = Limits { body_bytes_max: 1 << 16, ..Limits::PLAIN };
        let chunks = b"8\r\n[[[[[[[[\r\n".repeat(1000);
        let url = without_end("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunks).await;
        let failure = get(Call { limits, ..CALL }, &url).await.unwrap_err();
        assert_eq!((failure.kind, failure.status), (Kind::Malformed, Some(200)), "{failure}");
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let failure = get(CALL, &url).await.unwrap_err();
        assert_eq!((failure.kind, failure.status), (Kind::Unreachable, None), "{failure}");
    }

    #[tokio::test]
    async fn a_body_is_bounded_by_its_size_after_decompression() {
        // 4 MiB of zeros as 4 KiB of gzip.
        let limits = Limits { body_bytes_max: 1 << 20, ..Limits::PLAIN };
        let bomb = Reply::bytes(200, gzip_of_zeros(64)).with("content-encoding", "gzip");
        let server = Playback::start([bomb.clone(), bomb]).await;
        let failure = get(Call { limits, ..CALL }, server.url.as_str()).await.unwrap_err();
        assert_eq!((failure.kind, failure.status), (Kind::Malformed, Some(200)), "{failure}");
        assert_eq!(get(CALL, server.url.as_str()).await.unwrap().body.len(), 64 * 65_535);
    }

    #[tokio::test]
    async fn bad_compression_is_malformed() {
        let mut bytes = gzip_of_zeros(1);
        let middle = bytes.len() / 2;
        bytes[10..middle].fill(0xff);
        let server = Playback::start([Reply::bytes(200, bytes).with("content-encoding", "gzip")]).await;
        let failure = get(CALL, server.url.as_str()).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Malformed, "{failure}");
    }

    /// Stored (uncompressed) deflate blocks would not shrink; fixed-Huffman runs of one byte do. Each block is a zero and
    /// 254 matches of 258 bytes at distance 1, and two more bytes: 65,535.
    fn gzip_of_zeros(blocks: usize) -> Vec<u8> {
        let mut bits = Bits::default();
        for block in 0..blocks {
            bits.number(u32::from(block + 1 == blocks), 1);
            bits.number(0b01, 2);
            for _ in 0..3 {
                bits.code(0x30, 8); // the byte 0
            }
            for _ in 0..254 {
                bits.code(0xc5, 8); // length 258
                bits.code(0, 5); // distance 1
            }
            bits.code(0, 7); // end of block
        }
        let length = blocks * 65_535;
        let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
        out.extend(bits.bytes());
        out.extend(crc32_of_zeros(length).to_le_bytes());
        out.extend(u32::try_from(length).unwrap().to_le_bytes());
        out
    }

    #[derive(Default)]
    struct Bits(Vec<bool>);

    impl Bits {
        /// Least significant bit first.
        fn number(&mut self, value: u32, count: u32) {
            self.0.extend((0..count).map(|bit| value >> bit & 1 == 1));
        }

        /// Most significant bit first, as Huffman codes are.
        fn code(&mut self, value: u32, count: u32) {
            self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        }

        fn bytes(&self) -> impl Iterator<Item = u8> {
            self.0.chunks(8).map(|bits| bits.iter().enumerate().map(|(at, bit)| u8::from(*bit) << at).sum())
        }
    }

    fn crc32_of_zeros(count: usize) -> u32 {
        !(0..count * 8).fold(u32::MAX, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    }

    #[tokio::test]
    async fn no_redirect_is_followed() {
        let elsewhere = Playback::start([]).await;
        let server = Playback::start([Reply::json(302, "").with("location", &elsewhere.url)]).await;
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let answer = get(CALL, server.url.as_str()).await.unwrap();
        let failure = answer.success(&clock).unwrap_err();
        assert_eq!((failure.kind, failure.status), (Kind::Malformed, Some(302)));
        assert!(failure.remedy.unwrap().contains("redirected"));
        assert!(elsewhere.seen().is_empty());
    }

    #[test]
    fn roots_that_are_none_are_refused() {
        for pem in ["", "canary", "-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n"] {
            let options = HttpOptions { ca_file: Some(pem.into()), user_agent: "test".to_owned() };
            let error = Http::new(&options).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }
}
