//! What other programs may ask the daemon over HTTP: is it alive, is it ready, and its figures.
//!
//! | path | answers |
//! |---|---|
//! | `/healthz` | 200 while every loop makes progress; 503 names the one that does not, and for how long |
//! | `/readyz` | 200 once this process has read the log well and while the state can be read; 503 says what is missing |
//! | `/metrics` | the figures, in OpenMetrics text ([`exposition`]) |
//!
//! An outage of a remote is no reason to restart, so it shows in the figures and never in `/healthz`.
//!
//! It asks nobody who they are. So it listens where only this machine can connect, answers only to names that mean this
//! machine (a page in a browser here could otherwise have a name of its own point at us), and shows counts, never people.

mod connection;
mod exposition;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
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

use crate::config::Schedule;
use crate::domain::Timestamp;
use crate::engine::Engine;
use crate::health::{Health, STUCK_AFTER};

use connection::Bounded;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// A server that is bound and does not answer yet.
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
    poll: Schedule,
    started_at: Timestamp,
    /// On a socket in the file system a name means nothing.
    names_matter: bool,
}

impl Monitor {
    /// Takes the place. A socket file that a dead process left behind is replaced; one that answers is not.
    ///
    /// # Errors
    /// When the place is taken or cannot be used.
    pub async fn bind(place: &Place) -> io::Result<Self> {
        let listener = match place {
            Place::Tcp(address) => Listener::Tcp(TcpListener::bind(address).await?),
            Place::Unix(path) => {
                remove_stale(path).await?;
                Listener::Unix(UnixListener::bind(path)?)
            }
        };
        Ok(Self { listener })
    }

    /// Where it listens, if that is an address: the port may have been left to the system.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    /// Answers until told to stop.
    pub async fn serve(self, engine: Arc<Engine>, poll: Schedule, stop: CancellationToken) {
        let clock = engine.clock().clone();
        let names_matter = matches!(self.listener, Listener::Tcp(_));
        let shared = Shared { started_at: clock.now(), engine, poll, names_matter };
        let app = router(shared);
        info!(event = "monitoring", address = ?self.address(), "answering /metrics, /healthz and /readyz");
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
            error!(event = "monitor_failed", %error, "no longer answering /metrics, /healthz and /readyz; the work goes on");
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

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

/// One request a connection, and only to a name of this machine.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let mut response = if shared.names_matter && !host.is_some_and(means_this_machine) {
        (StatusCode::MISDIRECTED_REQUEST, "ask for localhost, 127.0.0.1 or [::1]\n").into_response()
    } else {
        next.run(request).await
    };
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn means_this_machine(host: &str) -> bool {
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
        let text = format!("the {name} has made no progress for {} s\n", age.as_secs());
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn readiness(State(shared): State<Shared>) -> Response {
    let missing = match Health::counts(shared.engine.store()).await {
        Ok(health) if health.status.is_some() => {
            (!health.has_polled_since(shared.started_at)).then_some("the log has not been read since the start\n")
        }
        _ => Some("the state cannot be read\n"),
    };
    match missing {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing).into_response(),
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match exposition::of(&shared.engine, &shared.poll).await {
        Ok(text) => ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            error!(event = "scrape_failed", %error, "the figures cannot be shown");
            (StatusCode::SERVICE_UNAVAILABLE, "the state cannot be read\n").into_response()
        }
    }
}
