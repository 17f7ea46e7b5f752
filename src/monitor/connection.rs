//! Connections that cannot cost much: few at a time, each for one short request within a short time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::Clock;

/// Connections at a time; the next one waits until one ends.
const CONNECTIONS_MAX: usize = 16;
/// From its acceptance on: whoever is slower is cut off.
const LIFE_MAX: Duration = Duration::from_secs(10);
/// A request, with all its headers.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// A listener whose connections are bounded.
pub(super) struct Bounded<L> {
    listener: L,
    free: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
}

impl<L> Bounded<L> {
    pub(super) fn new(listener: L, clock: Arc<dyn Clock>) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(CONNECTIONS_MAX)), clock }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; without a permit the connection would be one too many, and nothing else.
        let place = self.free.clone().acquire_owned().await.ok();
        let (stream, address) = self.listener.accept().await;
        let clock = self.clock.clone();
        let over = Box::pin(async move { clock.sleep(LIFE_MAX).await });
        (Connection { stream, over, left: REQUEST_BYTES_MAX, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with an end.
pub(super) struct Connection<S> {
    stream: S,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
    left: usize,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.over.as_mut().poll(cx) {
            Poll::Ready(()) => {
                // A finished future must not be asked again, and the connection is over for good.
                self.over = Box::pin(std::future::ready(()));
                Err(io::ErrorKind::TimedOut.into())
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        if self.left == 0 {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.left = self.left.saturating_sub(buffer.filled().len() - before);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
