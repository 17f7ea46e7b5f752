//! The connections of a stand-in, which can fail as networks do.
//!
//! Network faults happen on the socket. The HTTP server above does not know of them, so a
//! client sees exactly what a broken connection shows.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::lock;

/// How the next response on a connection fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseFault {
    /// It does not fail.
    None,
    /// Nothing is sent, and the connection ends.
    Dropped,
    /// The head and this many bytes of the body are sent, then the connection ends.
    Cut { body_bytes: usize },
    /// The head and this many bytes of the body are sent, then nothing more.
    Stalled { body_bytes: usize },
}

/// The handle by which a request's handler chooses the fault of its response.
#[derive(Clone, Debug)]
pub(super) struct Wire(Arc<Mutex<ResponseFault>>);

impl Wire {
    pub(super) fn set(&self, fault: ResponseFault) {
        *lock(&self.0) = fault;
    }

    fn fault(&self) -> ResponseFault {
        *lock(&self.0)
    }
}

impl Connected<IncomingStream<'_, Loopback>> for Wire {
    fn connect_info(stream: IncomingStream<'_, Loopback>) -> Self {
        stream.io().wire.clone()
    }
}

/// A listener whose connections all end when `stop` is cancelled.
pub(super) struct Loopback {
    listener: TcpListener,
    stop: CancellationToken,
}

impl Loopback {
    /// Listens on the loopback interface only: the stand-ins protect no secret.
    pub(super) async fn bind(port: u16, stop: CancellationToken) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).await?;
        Ok(Self { listener, stop })
    }

    /// Its origin, for links.
    pub(super) fn url(&self) -> io::Result<String> {
        Ok(format!("http://{}", self.listener.local_addr()?))
    }
}

impl Listener for Loopback {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Without it, small answers wait for the client's delayed acknowledgement.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY");
                    }
                    let connection = Connection {
                        stream,
                        wire: Wire(Arc::new(Mutex::new(ResponseFault::None))),
                        stop: Box::pin(self.stop.clone().cancelled_owned()),
                        left: None,
                    };
                    return (connection, peer);
                }
                // The peer is gone, or no descriptor is free: let other tasks run, then retry.
                Err(error) => {
                    tracing::debug!(%error, "accept");
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One accepted connection.
pub(super) struct Connection {
    stream: TcpStream,
    wire: Wire,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The bytes that may still be written, once a cut or stalled response has begun.
    left: Option<usize>,
}

impl Connection {
    fn stopped(&mut self, cx: &mut Context<'_>) -> bool {
        self.stop.as_mut().poll(cx).is_ready()
    }

    /// The number of `bytes` that may still be written of a response whose body ends after `body_bytes`.
    fn allowance(&mut self, bytes: &[u8], body_bytes: usize) -> usize {
        // hyper writes the head in one piece; otherwise the first write counts as the head.
        let head = || bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        *self.left.get_or_insert_with(|| head() + body_bytes)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.stopped(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.stopped(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let fault = self.wire.fault();
        let body_bytes = match fault {
            ResponseFault::None => return Pin::new(&mut self.stream).poll_write(cx, bytes),
            ResponseFault::Dropped => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            ResponseFault::Cut { body_bytes } | ResponseFault::Stalled { body_bytes } => body_bytes,
        };
        let left = self.allowance(bytes, body_bytes);
        if left == 0 {
            return match fault {
                // `stop`, polled above, wakes this task.
                ResponseFault::Stalled { .. } => Poll::Pending,
                _ => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            };
        }
        let end = left.min(bytes.len());
        let written = Pin::new(&mut self.stream).poll_write(cx, &bytes[..end]);
        if let Poll::Ready(Ok(count)) = written {
            self.left = Some(left - count);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
