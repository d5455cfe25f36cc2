//! The server: which clients may join, and how it stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State, WebSocketUpgrade};
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use serde::Deserialize;
use sluicegate::Semaphore;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connection::{Context, MESSAGE_BYTES, Session, Timeouts};
use super::listener::{Acceptor, listen};
use super::origin;
use super::outbox::{Bounds, Memory};
use super::publisher::{Framing, Publisher};
use super::rooms::Rooms;
use super::stats::{Counts, Stats};

/// The longest name of a room or a client, in bytes.
pub const NAME_BYTES: usize = 64;

/// Connections beyond those of the clients in rooms: for the page, and to say that it is full.
pub const SPARE_CONNECTIONS: u32 = 64;

/// How a server is run.
#[derive(Debug, Clone)]
pub struct Config {
    /// How messages are put into frames.
    pub framing: Framing,
    /// The most clients at once.
    pub clients: u32,
    /// What may wait for each of them.
    pub outbox: Bounds,
    /// What may wait for all of them together, in bytes.
    pub outboxes_bytes: usize,
    /// Web pages elsewhere that may join, as `Origin` has them.
    pub origins: Vec<String>,
    /// How long it waits for what.
    pub timeouts: Timeouts,
}

impl Config {
    /// 10,000 clients, for each of which 1,024 frames and a mebibyte may wait, and 256 MiB for all.
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            clients: 10_000,
            outbox: Bounds { frames: 1_024, bytes: 1 << 20 },
            outboxes_bytes: 256 << 20,
            origins: Vec::new(),
            timeouts: Timeouts {
                request: Duration::from_secs(10),
                ping_interval: Duration::from_secs(30),
                idle: Duration::from_secs(120),
                close: Duration::from_secs(5),
            },
        }
    }
}

/// A server that runs until it is [stopped](Self::stop).
#[derive(Debug)]
#[must_use = "a server that is dropped goes on until the runtime ends"]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    context: Context,
    clients: u32,
    /// One permit per client.
    client_slots: Arc<Semaphore>,
    /// One permit per connection.
    connections: Arc<Semaphore>,
    origins: Vec<String>,
    on_loopback: bool,
    /// Turns true when the server stops; watched by the acceptor.
    closing: watch::Sender<bool>,
    /// Turns true when the server stops; watched by the sessions that are still read.
    stopping: watch::Sender<bool>,
}

impl Server {
    /// Listens at `address`; port 0 is any that is free.
    ///
    /// # Errors
    ///
    /// If it cannot listen there, or the configuration is not what it may be.
    pub async fn start(address: SocketAddr, config: Config) -> io::Result<Self> {
        let clients = config.clients as usize;
        let memory = Memory::new(config.outboxes_bytes, clients);
        let rooms = Arc::new(Rooms::new(config.outbox, memory));
        let counts = Arc::new(Counts::default());
        let publisher = Publisher::new(config.framing, rooms.clone(), counts.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let timeouts = config.timeouts;
        let shared = Arc::new(Shared {
            context: Context { rooms, publisher, counts: counts.clone(), timeouts },
            clients: config.clients,
            client_slots: Arc::new(Semaphore::new(clients)),
            connections: Arc::new(Semaphore::new(clients + SPARE_CONNECTIONS as usize)),
            origins: config.origins,
            on_loopback: address.ip().is_loopback(),
            closing: watch::Sender::new(false),
            stopping: watch::Sender::new(false),
        });

        let routes = Router::new()
            .route("/", get(async || Html(include_str!("page.html"))))
            .route("/rooms/{room}", any(enter))
            .with_state(shared.clone());
        let (slots, stopping) = (shared.connections.clone(), shared.closing.subscribe());
        let acceptor = Acceptor { listener, slots, timeouts, counts, stopping };
        let accepting = tokio::spawn(acceptor.serve(routes));
        Ok(Self { address, shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its stats now.
    pub fn stats(&self) -> Stats {
        self.shared.context.counts.stats()
    }

    /// How many rooms have a member.
    pub fn rooms(&self) -> usize {
        self.shared.context.rooms.len()
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.shared.clients as usize - self.shared.client_slots.available_permits()
    }

    /// Stops, in this order: no client joins any more; no message is read any more, and what was read is
    /// accepted; all that was accepted goes to its room; every client gets what waits for it and a
    /// close frame. Takes as long as the slowest client, up to twice the close of the timeouts.
    pub async fn stop(self) -> Stats {
        let Shared { context, clients, client_slots, connections, closing, stopping, .. } =
            &*self.shared;
        closing.send_replace(true);
        stopping.send_replace(true);
        stopping.closed().await;
        context.publisher.shutdown().await;
        context.rooms.close();
        let limit = context.timeouts.close;
        // Each client is given as long twice: for what waits, and to answer the close frame.
        let _ = timeout(2 * limit, client_slots.acquire_many(*clients)).await;
        let mut accepting = self.accepting;
        let closed = async {
            let _ = (&mut accepting).await;
            // What was written last has been read, too.
            let _ = connections.acquire_many(*clients + SPARE_CONNECTIONS).await;
        };
        if timeout(limit, closed).await.is_err() {
            // A request is still being served.
            accepting.abort();
        }
        context.counts.stats()
    }
}

#[derive(Debug, Deserialize)]
struct JoinQuery {
    name: String,
}

async fn enter(
    State(shared): State<Arc<Shared>>,
    Path(room): Path<String>,
    Query(JoinQuery { name }): Query<JoinQuery>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let counts = &shared.context.counts;
    if !origin::is_allowed(&headers, &shared.origins, shared.on_loopback) {
        counts.forbidden();
        tracing::debug!(origin = ?headers.get(ORIGIN), "a web page may not join");
        return (StatusCode::FORBIDDEN, "this web page may not join").into_response();
    }
    if !is_name(&room) || !is_name(&name) {
        let what = "a name has 1 to 64 bytes and no control characters";
        return (StatusCode::BAD_REQUEST, what).into_response();
    }
    let Ok(slot) = shared.client_slots.clone().try_acquire_owned() else {
        counts.full();
        tracing::debug!("all slots are taken");
        return (StatusCode::SERVICE_UNAVAILABLE, "all slots are taken").into_response();
    };
    let session = Session { room: room.into(), name, stopping: shared.stopping.subscribe() };
    upgrade
        // Somewhat more than a message may have, so that a longer one can be answered.
        .max_message_size(16 * MESSAGE_BYTES)
        // A frame is held whole, whatever message it would become part of.
        .max_frame_size(16 * MESSAGE_BYTES)
        .read_buffer_size(MESSAGE_BYTES)
        .write_buffer_size(4 * MESSAGE_BYTES)
        .on_upgrade(async move |socket| {
            shared.context.serve(socket, session).await;
            drop(slot);
        })
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}
