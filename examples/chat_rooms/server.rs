//! The server: who may come in, and how it stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use serde::Deserialize;
use sluicegate::Semaphore;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connection::{Desk, Guest, MESSAGE_BYTES, Patience};
use super::figures::{Counters, Figures};
use super::listener::Bounded;
use super::outbox::Bounds;
use super::outlet::{Framing, Outlet};
use super::rooms::Rooms;

/// The longest name of a room or a client, in bytes.
pub const NAME_BYTES: usize = 64;

/// Connections beyond those of the clients in rooms: for the page, and to say that it is full.
const SPARE_CONNECTIONS: usize = 64;

/// How a server is run.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// How messages are put into frames.
    pub framing: Framing,
    /// The most clients at once.
    pub clients: u32,
    /// What may wait for each of them.
    pub outbox: Bounds,
    /// How long it waits for what.
    pub patience: Patience,
}

impl Config {
    /// 10,000 clients, for each of which 1,024 frames and a mebibyte may wait.
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            clients: 10_000,
            outbox: Bounds { frames: 1_024, bytes: 1 << 20 },
            patience: Patience {
                heartbeat: Duration::from_secs(30),
                silence: Duration::from_secs(120),
                farewell: Duration::from_secs(5),
            },
        }
    }
}

/// A server that runs until it is [stopped](Self::stop).
#[derive(Debug)]
#[must_use = "a server that is dropped goes on until the runtime ends"]
pub struct Server {
    address: SocketAddr,
    hall: Arc<Hall>,
    stop_accepting: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Hall {
    desk: Desk,
    clients: u32,
    places: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
}

impl Server {
    /// Listens at `address`; port 0 is any that is free.
    ///
    /// # Errors
    ///
    /// If it cannot listen there, or the configuration is not what it may be.
    pub async fn start(address: SocketAddr, config: Config) -> io::Result<Self> {
        let rooms = Arc::new(Rooms::new(config.outbox));
        let counters = Arc::new(Counters::default());
        let outlet = Outlet::new(config.framing, rooms.clone(), counters.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let hall = Arc::new(Hall {
            desk: Desk { rooms, outlet, counters, patience: config.patience },
            clients: config.clients,
            places: Arc::new(Semaphore::new(config.clients as usize)),
            stopping: watch::Sender::new(false),
        });

        let connections = Semaphore::new(config.clients as usize + SPARE_CONNECTIONS);
        let routes = Router::new()
            .route("/", get(async || Html(include_str!("page.html"))))
            .route("/rooms/{room}", any(enter))
            .with_state(hall.clone());
        let (stop_accepting, stopped) = oneshot::channel();
        let serve = axum::serve(Bounded::new(listener, Arc::new(connections)), routes)
            .with_graceful_shutdown(async { drop(stopped.await) });
        let accepting = tokio::spawn(async { serve.await.expect("it never fails") });
        Ok(Self { address, hall, stop_accepting, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its figures now.
    pub fn figures(&self) -> Figures {
        self.hall.desk.counters.figures()
    }

    /// How many rooms somebody is in.
    pub fn rooms(&self) -> usize {
        self.hall.desk.rooms.len()
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.hall.clients as usize - self.hall.places.available_permits()
    }

    /// Stops, in this order: nobody new comes in; nobody is heard any more, and what was heard is
    /// accepted; all that was accepted goes to its room; every client gets what waits for it and a
    /// close frame. Takes as long as the slowest client, up to twice the farewell of the patience.
    pub async fn stop(self) -> Figures {
        let Hall { desk, clients, places, stopping } = &*self.hall;
        let _ = self.stop_accepting.send(());
        stopping.send_replace(true);
        stopping.closed().await;
        desk.outlet.shutdown().await;
        desk.rooms.close();
        // Each client is given as long twice: for what waits, and to answer the close frame.
        let _ = timeout(2 * desk.patience.farewell, places.acquire_many(*clients)).await;
        let mut accepting = self.accepting;
        if timeout(desk.patience.farewell, &mut accepting).await.is_err() {
            // Somebody is still at its request.
            accepting.abort();
        }
        desk.counters.figures()
    }
}

#[derive(Debug, Deserialize)]
struct Who {
    name: String,
}

async fn enter(
    State(hall): State<Arc<Hall>>,
    Path(room): Path<String>,
    Query(Who { name }): Query<Who>,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !is_name(&room) || !is_name(&name) {
        let what = "a name has 1 to 64 bytes and no control characters";
        return (StatusCode::BAD_REQUEST, what).into_response();
    }
    let Ok(place) = hall.places.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "all places are taken").into_response();
    };
    let guest = Guest { room: room.into(), name, stopping: hall.stopping.subscribe() };
    upgrade
        // Somewhat more than a message may have, so that a longer one can be answered.
        .max_message_size(16 * MESSAGE_BYTES)
        // A frame is held whole, whatever message it would become part of.
        .max_frame_size(16 * MESSAGE_BYTES)
        .read_buffer_size(MESSAGE_BYTES)
        .write_buffer_size(4 * MESSAGE_BYTES)
        .on_upgrade(async move |socket| {
            hall.desk.serve(socket, guest).await;
            drop(place);
        })
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}
