//! Bounds on connections: how many are open at once, how long each lives, and how large its request is.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::domain::Clock;

/// Concurrent connections; the next one replaces the oldest, so that idle clients cannot lock others out.
const CONNECTIONS_MAX: usize = 16;
/// Measured from accept; slower clients are cut off.
const LIFE_MAX: Duration = Duration::from_secs(10);
/// The request, including its headers.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// A listener that limits its connections.
pub(super) struct Bounded<L> {
    listener: L,
    /// What closes each open connection, oldest first. Closed ones are gone.
    open: VecDeque<Weak<CancellationToken>>,
    clock: Arc<dyn Clock>,
}

impl<L> Bounded<L> {
    pub(super) fn new(listener: L, clock: Arc<dyn Clock>) -> Self {
        Self { listener, open: VecDeque::new(), clock }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = self.listener.accept().await;
        self.open.retain(|open| open.strong_count() > 0);
        if self.open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = self.open.pop_front().and_then(|oldest| oldest.upgrade())
        {
            oldest.cancel();
        }
        let replaced = Arc::new(CancellationToken::new());
        self.open.push_back(Arc::downgrade(&replaced));
        let (clock, closed) = (self.clock.clone(), replaced.as_ref().clone());
        let deadline = Box::pin(async move {
            tokio::select! {
                () = clock.sleep(LIFE_MAX) => {}
                () = closed.cancelled() => {}
            }
        });
        (Connection { stream, deadline, bytes_left: REQUEST_BYTES_MAX, _open: replaced }, address)
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
    _open: Arc<CancellationToken>,
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::domain::ManualClock;

    #[tokio::test]
    async fn new_connection_replaces_the_oldest() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let mut bounded = Bounded::new(listener, clock);
        let (mut clients, mut open) = (Vec::new(), Vec::new());
        for _ in 0..=CONNECTIONS_MAX {
            clients.push(TcpStream::connect(address).await.unwrap());
            open.push(bounded.accept().await.0);
        }
        let mut buffer = [0; 1];
        let closed = open[0].read(&mut buffer).await.unwrap_err();
        assert_eq!(closed.kind(), io::ErrorKind::TimedOut, "the oldest makes room");
        tokio::select! {
            biased;
            read = open[1].read(&mut buffer) => panic!("the second one was closed too: {read:?}"),
            () = std::future::ready(()) => {}
        }
    }
}
