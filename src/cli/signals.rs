//! Handling of SIGTERM, SIGINT and SIGHUP.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Error, screen};

/// Cancels the token at the first signal, after calling `first`; calls `second` at the second.
///
/// # Errors
/// If the signal handlers cannot be installed.
pub(crate) fn listen(
    first: impl FnOnce() + Send + 'static,
    second: impl FnOnce() + Send + 'static,
) -> Result<CancellationToken, Error> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(setup)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(setup)?;
    let token = stop.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        first();
        token.cancel();
        next().await;
        second();
    });
    Ok(stop)
}

/// Logs and ignores SIGHUP. By default it would end the daemon, when its terminal closes or when someone expects it to
/// reload its configuration; systemd counts that end as a success.
///
/// # Errors
/// If the signal handler cannot be installed.
pub(crate) fn ignore_hangup() -> Result<(), Error> {
    let mut hangup = signal(SignalKind::hangup()).map_err(setup)?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            warn!(event = "hangup_ignored", "ignored SIGHUP; restart to re-read the configuration");
        }
    });
    Ok(())
}

fn setup(error: std::io::Error) -> Error {
    Error::Setup(format!("cannot listen for signals: {error}"))
}

/// For one-shot commands: the first Ctrl-C stops the command gracefully, further ones are ignored.
///
/// # Errors
/// As [`listen`].
pub(crate) fn stop_on_signal() -> Result<CancellationToken, Error> {
    listen(|| screen::remark("stopping: finishing work in progress; the next run does the rest"), || ())
}
