//! Connections, a bounded number at once: further ones wait in the kernel's backlog.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use sluicegate::{OwnedSemaphorePermit, Semaphore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::Timeouts;
use super::stats::Counts;

/// What the system holds for a client beyond its outbox, in bytes: little, so that one that reads
/// slowly still gets the reason why it is closed in time.
const SEND_BUFFER: u32 = 64 * 1_024;

/// Connections that the system holds until they are accepted.
const BACKLOG: u32 = 1_024;

/// How long a connection that was served is read from, at most: see [`Connection`].
const LINGER: Duration = Duration::from_secs(1);

/// How long it waits when the system has no file for a connection: nothing tells when it has.
const NO_FILES: Duration = Duration::from_secs(1);

/// Listens at `address`.
///
/// # Errors
///
/// If it cannot.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Elsewhere that would let two servers listen at one address.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // Connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections and serves them.
#[derive(Debug)]
pub struct Acceptor {
    /// Where they come from.
    pub listener: TcpListener,
    /// One permit per connection.
    pub slots: Arc<Semaphore>,
    /// How long they may take.
    pub timeouts: Timeouts,
    /// Where those that take too long are counted.
    pub counts: Arc<Counts>,
    /// Turns true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

impl Acceptor {
    /// Serves connections until the server stops, and those that it has by then to their end. One that
    /// has become a WebSocket is no longer its own.
    pub async fn serve(self, routes: Router) {
        let mut tasks = JoinSet::new();
        let mut stopping = self.stopping.clone();
        let mut stop = pin!(stopping.wait_for(|stopping| *stopping));
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => break,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                connection = self.accept() => {
                    tasks.spawn(self.serve_one(connection, routes.clone()));
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn accept(&self) -> Connection {
        let slot = self.slots.clone().acquire_owned().await.expect("it is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // What is sent is complete; waiting for more would only add to the latency.
                    let _ = stream.set_nodelay(true);
                    return Connection {
                        parts: Some((stream, slot)),
                        linger: self.timeouts.close.min(LINGER),
                    };
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::error!("no connection can be accepted: {error}");
                    sleep(NO_FILES).await;
                }
            }
        }
    }

    /// Serves a connection until it ends, is a WebSocket, or has taken too long: for its first request,
    /// for reading an answer, or for all of the requests that it makes.
    fn serve_one(
        &self,
        connection: Connection,
        routes: Router,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (counts, mut stopping) = (self.counts.clone(), self.stopping.clone());
        let limit = self.timeouts.request;
        async move {
            let service = TowerToHyperService::new(routes);
            let served = http1::Builder::new().serve_connection(TokioIo::new(connection), service);
            let mut served = pin!(served.with_upgrades());
            let end = async {
                tokio::select! {
                    end = served.as_mut() => return end,
                    _ = stopping.wait_for(|stopping| *stopping) => {}
                }
                served.as_mut().graceful_shutdown();
                served.await
            };
            match timeout(limit, end).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("a request broke off: {error}"),
                Err(_) => {
                    counts.timed_out();
                    tracing::debug!("a connection took longer than {limit:?}");
                }
            }
        }
    }
}

/// Whether it was the connection that broke, before it was accepted.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A connection with its slot.
///
/// Where a connection is closed while something that was sent to it has not been read, the system
/// resets it, and what was written last, the close frame with its reason, is lost. So one that is
/// dropped is closed in one direction, and read until the other end closes it or time is up.
#[derive(Debug)]
pub struct Connection {
    /// Taken on drop.
    parts: Option<(TcpStream, OwnedSemaphorePermit)>,
    linger: Duration,
}

impl Connection {
    fn stream(&mut self) -> Pin<&mut TcpStream> {
        let (stream, _) = self.parts.as_mut().expect("it is taken on drop alone");
        Pin::new(stream)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let (Some((mut stream, slot)), Ok(runtime)) = (self.parts.take(), Handle::try_current())
        else {
            return;
        };
        let limit = self.linger;
        runtime.spawn(async move {
            let rest = async {
                stream.shutdown().await?;
                let mut unread = [0; 1_024];
                while stream.read(&mut unread).await? > 0 {}
                Ok::<_, io::Error>(())
            };
            let _ = timeout(limit, rest).await;
            drop((stream, slot));
        });
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
