//! The daemon's HTTP server: liveness, readiness and metrics.
//!
//! | path | answers |
//! |---|---|
//! | `/healthz` | 200 while every loop makes progress; 503 names the loop that is stuck, and for how long |
//! | `/readyz` | 200 once this process has polled the System Log, and while `status --check` would pass; 503 lists why not |
//! | `/metrics` | OpenMetrics text ([`exposition`]) |
//!
//! A restart does not fix an outage of a remote, so an outage shows in the metrics and never in `/healthz`.
//!
//! There is no authentication. So the server listens only on loopback or a Unix socket, rejects any `Host` other than
//! loopback (against DNS rebinding by a page in a local browser), and shows counts, never users.

mod connection;
mod exposition;

use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, StatusCode, uri::Authority};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::domain::{Timestamp, escape};
use crate::engine::Engine;
use crate::health::{Health, STUCK_AFTER};

use connection::Bounded;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// The group whose members can use it as well.
        group: Option<u32>,
    },
}

/// A server that is bound but not serving yet.
#[derive(Debug)]
pub struct Monitor {
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Clone, Debug)]
struct Shared {
    engine: Arc<Engine>,
    started_at: Timestamp,
    /// `Host` is checked on TCP only; on a Unix socket it means nothing.
    checks_host: bool,
}

impl Monitor {
    /// Binds the address. Replaces a socket file that a dead process left behind, but not one that accepts connections.
    ///
    /// # Errors
    /// When the address is in use or cannot be bound.
    pub async fn bind(address: &ListenAddress) -> io::Result<Self> {
        let listener = match address {
            ListenAddress::Tcp(address) => Listener::Tcp(TcpListener::bind(address).await?),
            ListenAddress::Unix { path, group } => {
                remove_stale(path).await?;
                let listener = UnixListener::bind(path)?;
                if let Some(group) = group {
                    admit_group(path, *group)?;
                }
                Listener::Unix(listener)
            }
        };
        Ok(Self { listener })
    }

    /// The TCP address it listens on; the port may have been chosen by the system.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    /// Serves until `stop` is cancelled.
    pub async fn serve(self, engine: Arc<Engine>, stop: CancellationToken) {
        let clock = engine.clock().clone();
        let checks_host = matches!(self.listener, Listener::Tcp(_));
        let shared = Shared { started_at: clock.now(), engine, checks_host };
        let app = router(shared);
        let address = self.address().map_or_else(|| "a Unix socket".to_owned(), |address| address.to_string());
        info!(event = "monitoring", address, "serving /metrics, /healthz and /readyz");
        let stopped = stop.cancelled_owned();
        let served = match self.listener {
            Listener::Tcp(listener) => {
                axum::serve(Bounded::new(listener, clock), app).with_graceful_shutdown(stopped).await
            }
            Listener::Unix(listener) => {
                axum::serve(Bounded::new(listener, clock), app).with_graceful_shutdown(stopped).await
            }
        };
        if let Err(error) = served {
            error!(event = "monitor_failed", %error, "failed to serve /metrics, /healthz and /readyz; shutting down");
        }
    }
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) => match tokio::net::UnixStream::connect(path).await {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
            Err(error) => Err(error),
        },
    }
}

/// Lets a group use the socket, whatever the umask.
fn admit_group(path: &Path, group: u32) -> io::Result<()> {
    // A service that runs with this group need not be allowed to change it.
    if std::fs::symlink_metadata(path)?.gid() != group {
        std::os::unix::fs::lchown(path, None, Some(group)).map_err(|error| {
            let remedy = "run the service with this group: Group= in its unit";
            io::Error::new(error.kind(), format!("cannot give the socket to group {group}: {error}; {remedy}"))
        })?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o660))
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

/// Allows one request per connection, and only for a loopback `Host`.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let mut response = if shared.checks_host && !host.is_some_and(is_loopback_host) {
        (StatusCode::MISDIRECTED_REQUEST, "Host must be localhost, 127.0.0.1 or [::1]\n").into_response()
    } else {
        next.run(request).await
    };
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn is_loopback_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn health(State(shared): State<Shared>) -> Response {
    let (name, age) = shared.engine.heartbeats().slowest(shared.engine.clock().as_ref());
    if age < STUCK_AFTER {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        let text = format!("the {name} has not made progress for {} s\n", age.as_secs());
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn readiness(State(shared): State<Shared>) -> Response {
    let missing = match shared.engine.health().await {
        Ok(health) if health.status.is_some() => not_ready(&health, shared.started_at),
        _ => "failed to read the state\n".to_owned(),
    };
    if missing.is_empty() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing).into_response()
    }
}

/// One line for each reason: the rules of `status --check`, and that this process has not polled. A daemon that enforces
/// nothing does what its operator asked for.
fn not_ready(health: &Health, started_at: Timestamp) -> String {
    let mut lines = String::new();
    if !health.has_polled_since(started_at) {
        lines.push_str("the System Log has not been polled since the start\n");
    }
    for violation in health.violations().iter().filter(|violation| violation.rule != "enforcement") {
        lines.push_str(&format!("{}: {}\n", violation.rule, escape(&violation.detail)));
    }
    lines
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match exposition::render(&shared.engine).await {
        Ok(text) => ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            error!(event = "scrape_failed", %error, "failed to render the metrics; answering 503");
            (StatusCode::SERVICE_UNAVAILABLE, "failed to read the state\n").into_response()
        }
    }
}
