//! Bounds on connections: how many are open at once, how long each lives, and how large its request is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::Clock;

/// Concurrent connections; the next one waits until one closes.
const CONNECTIONS_MAX: usize = 16;
/// Measured from accept; slower clients are cut off.
const LIFE_MAX: Duration = Duration::from_secs(10);
/// The request, including its headers.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// A listener that limits its connections.
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
        // The semaphore is never closed, so this always yields a permit.
        let permit = self.free.clone().acquire_owned().await.ok();
        let (stream, address) = self.listener.accept().await;
        let clock = self.clock.clone();
        let deadline = Box::pin(async move { clock.sleep(LIFE_MAX).await });
        (Connection { stream, deadline, bytes_left: REQUEST_BYTES_MAX, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with a deadline and a byte budget.
pub(super) struct Connection<S> {
    stream: S,
    deadline: Pin<Box<dyn Future<Output = ()> + Send>>,
    bytes_left: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    fn check_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => {
                // A completed future must not be polled again; from now on every call fails at once.
                self.deadline = Box::pin(std::future::ready(()));
                Err(io::ErrorKind::TimedOut.into())
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_deadline(cx)?;
        if self.bytes_left == 0 {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.bytes_left = self.bytes_left.saturating_sub(buffer.filled().len() - before);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check_deadline(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_deadline(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_deadline(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
