//! The connections to a remote, and when they are given up.

use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, NoProxy, Proxy};
use secrecy::{ExposeSecret, SecretString};

use super::client::{HttpError, HttpOptions, Limits};
use super::stream;

/// How long a connection may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For name resolution, connecting and the TLS handshake.
    pub connect: Duration,
    /// The longest time without data while waiting for a response or reading one.
    pub stall: Duration,
    /// Idle connections are closed after this time.
    pub idle: Duration,
    /// How often an HTTP/2 connection is pinged, also while it is idle.
    pub ping_every: Duration,
    /// How long a pinged connection may take to respond before it is closed.
    pub ping_answer: Duration,
    /// How long the peer's machine may leave sent data unacknowledged.
    pub unacknowledged: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(35),
            // Before common load balancers close them (60 s).
            idle: Duration::from_secs(50),
            ping_every: Duration::from_secs(20),
            ping_answer: Duration::from_secs(10),
            unacknowledged: Duration::from_secs(30),
        }
    }
}

/// The proxies to use. Nothing is read from the environment here.
#[derive(Clone, Debug, Default)]
pub struct ProxyOptions {
    /// The address of the proxy for `https://` addresses; it may contain a password.
    pub https: Option<SecretString>,
    /// The address of the proxy for `http://` addresses.
    pub http: Option<SecretString>,
    /// The hosts reached without a proxy, in the form of `NO_PROXY`.
    pub bypass: String,
}

/// A client with its pool of connections.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub(super) client: Client,
    number: u64,
}

/// The pool of connections, replaced as a whole when a call timed out.
///
/// A connection whose peer has vanished looks like one whose peer is slow. HTTP/2 sends all calls over one connection, so
/// without a replacement each call would time out on it for as long as the kernel keeps it.
#[derive(Debug)]
pub(super) struct Connections {
    options: HttpOptions,
    current: RwLock<Generation>,
    /// For responses without a known end: without a limit on the whole, and apart from the calls.
    streaming: OnceLock<Client>,
}

impl Connections {
    pub(super) fn new(options: &HttpOptions) -> Result<Self, HttpError> {
        let client = build(options)?;
        Ok(Self {
            options: options.clone(),
            current: RwLock::new(Generation { client, number: 0 }),
            streaming: OnceLock::new(),
        })
    }

    pub(super) fn current(&self) -> Generation {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The client for responses without a known end, built when it is first needed.
    pub(super) fn streaming(&self) -> Result<Client, HttpError> {
        if let Some(client) = self.streaming.get() {
            return Ok(client.clone());
        }
        let builder = timed(Client::builder(), self.options.timeouts).read_timeout(stream::STALL);
        let client = build_from(builder, &self.options)?;
        Ok(self.streaming.get_or_init(|| client).clone())
    }

    /// Returns `result` unchanged. After a time-out, later calls use new connections.
    pub(super) fn check<T>(&self, used: &Generation, result: Result<T, reqwest::Error>) -> Result<T, reqwest::Error> {
        // A time-out while connecting leaves no connection to give up.
        if result.as_ref().is_err_and(|error| error.is_timeout() && !error.is_connect()) {
            self.replace(used);
        }
        result
    }

    /// Gives up a pool, unless another call has replaced it already. Its running calls end as they would have.
    fn replace(&self, used: &Generation) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.number != used.number {
            return;
        }
        match build(&self.options) {
            Ok(client) => *current = Generation { client, number: used.number + 1 },
            Err(error) => tracing::warn!(%error, "failed to replace a timed-out connection; continuing with it"),
        }
    }
}

fn build(options: &HttpOptions) -> Result<Client, HttpError> {
    build_from(timed(Client::builder(), options.timeouts).timeout(Limits::LOG_PAGE.timeout), options)
}

fn build_from(builder: ClientBuilder, options: &HttpOptions) -> Result<Client, HttpError> {
    let mut builder = proxied(builder, &options.proxies)?
        .user_agent(&options.user_agent)
        .pool_max_idle_per_host(options.connections.max(1))
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
    builder.build().map_err(HttpError::Build)
}

fn proxied(builder: ClientBuilder, proxies: &ProxyOptions) -> Result<ClientBuilder, HttpError> {
    // Without this the client would read the environment itself.
    let mut builder = builder.no_proxy();
    if let Some(address) = &proxies.https {
        let proxy = Proxy::https(address.expose_secret()).map_err(HttpError::Proxy)?;
        builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&proxies.bypass)));
    }
    if let Some(address) = &proxies.http {
        let proxy = Proxy::http(address.expose_secret()).map_err(HttpError::Proxy)?;
        builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&proxies.bypass)));
    }
    Ok(builder)
}

fn timed(builder: ClientBuilder, timeouts: Timeouts) -> ClientBuilder {
    builder
        .connect_timeout(timeouts.connect)
        .read_timeout(timeouts.stall)
        .pool_idle_timeout(timeouts.idle)
        .http2_keep_alive_interval(timeouts.ping_every)
        .http2_keep_alive_timeout(timeouts.ping_answer)
        .http2_keep_alive_while_idle(true)
        .tcp_user_timeout(timeouts.unacknowledged)
}
