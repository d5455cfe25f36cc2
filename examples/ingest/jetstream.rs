//! A live stream: a Jetstream server, over WebSocket. When the connection is lost it is made again,
//! with a cursor a few seconds back, and what comes again is left out.
//!
//! Since the cursor is a time, and real streams go backwards a little, it names no event. So events are
//! numbered as they come, and the cursor goes along.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, Stream, StreamExt, stream};
use sluicegate::Retry;
use sluicegate::retry::RetryState;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::event::parse;
use super::recent::{Recent, Seen, Stamp};
use super::source::{Line, Place};

/// How far a cursor is set back when a connection is made again, in microseconds of the stream.
const BACK_US: u64 = 5_000_000;

/// Which stream, and how it is held.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the server is: `ws://host:port/subscribe`.
    pub url: String,
    /// The collections that are wanted; all of them if there are none.
    pub collections: Vec<String>,
    /// Where to begin, in microseconds since 1970; without it, with what comes next.
    pub cursor: Option<u64>,
    /// How often it is tried to connect without an event that comes, and how long to wait in between.
    pub retry: Retry,
    /// A server that is silent for that long is asked for a sign of life; after as long again, and if a
    /// connection takes as long to be made, it is taken for dead.
    pub quiet: Duration,
}

/// The events of a stream that have not come before, from `start` on, numbered from its line. It has no
/// end, but ends with an error if the connection cannot be made again.
pub fn lines(
    config: Config,
    start: Place,
    recent: Arc<Recent>,
) -> impl Stream<Item = io::Result<Line>> + Send {
    let connection =
        Connection { config, recent, end: start, socket: None, failures: RetryState::new() };
    stream::unfold(Some(connection), async |connection| {
        let mut connection = connection?;
        let line = connection.line().await;
        let going_on = line.is_ok().then_some(connection);
        Some((line, going_on))
    })
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Connection {
    config: Config,
    recent: Arc<Recent>,
    /// Where the last event ended.
    end: Place,
    socket: Option<Socket>,
    /// Since an event came.
    failures: RetryState,
}

/// Why there is no connection.
#[derive(Debug)]
enum Lost {
    /// It broke, or could not be made.
    Broken(tungstenite::Error),
    /// The server closed it, and why.
    Closed(String),
    /// The server said nothing.
    Quiet,
}

impl Connection {
    /// The next event that has not come before.
    async fn line(&mut self) -> io::Result<Line> {
        loop {
            let frame = match self.frame().await {
                Ok(frame) => frame,
                Err(lost) => {
                    self.socket = None;
                    self.wait(lost).await?;
                    continue;
                }
            };
            let event = frame.trim_ascii();
            if event.is_empty() {
                continue;
            }
            let Stamp { cursor, key } = Stamp::of(event);
            let end = Place { line: self.end.line + 1, offset: cursor.unwrap_or(self.end.offset) };
            if self.recent.is_new(Seen { end, key }) {
                self.end = end;
                self.failures = RetryState::new();
                return Ok(Line { end, event: parse(event) });
            }
        }
    }

    /// What comes next in a frame that holds text, or should.
    async fn frame(&mut self) -> Result<tungstenite::Bytes, Lost> {
        let quiet = self.config.quiet;
        let mut asked = false;
        loop {
            let socket = self.socket().await?;
            match timeout(quiet, socket.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => return Ok(text.into()),
                Ok(Some(Ok(Message::Binary(bytes)))) => return Ok(bytes),
                Ok(Some(Ok(Message::Close(why)))) => {
                    let why =
                        why.map_or_else(|| "no reason given".to_owned(), |why| why.to_string());
                    return Err(Lost::Closed(why));
                }
                Ok(Some(Ok(_))) => asked = false,
                Ok(Some(Err(error))) => return Err(Lost::Broken(error)),
                Ok(None) => return Err(Lost::Closed("without a word".to_owned())),
                Err(_) if asked => return Err(Lost::Quiet),
                Err(_) => {
                    let ping = socket.send(Message::Ping(tungstenite::Bytes::new()));
                    timeout(quiet, ping).await.map_err(|_| Lost::Quiet)?.map_err(Lost::Broken)?;
                    asked = true;
                }
            }
        }
    }

    /// The connection, which is made if there is none.
    async fn socket(&mut self) -> Result<&mut Socket, Lost> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let connecting = connect_async(self.address());
                let connected = timeout(self.config.quiet, connecting).await;
                connected.map_err(|_| Lost::Quiet)?.map_err(Lost::Broken)?.0
            }
        };
        Ok(self.socket.insert(socket))
    }

    fn address(&self) -> String {
        let Config { url, collections, cursor, .. } = &self.config;
        let cursor = match self.end.offset {
            0 => *cursor,
            offset => Some(offset.saturating_sub(BACK_US)),
        };
        let mut address = url.clone();
        let mut separator = if address.contains('?') { '&' } else { '?' };
        let wanted = collections.iter().map(|name| ("wantedCollections", Cow::from(name)));
        let cursor = cursor.map(|cursor| ("cursor", Cow::from(cursor.to_string())));
        for (name, value) in wanted.chain(cursor) {
            let _ = write!(address, "{separator}{name}={value}");
            separator = '&';
        }
        address
    }

    /// Waits until it may be tried again to connect.
    async fn wait(&mut self, lost: Lost) -> io::Result<()> {
        let over = |why: &dyn fmt::Display| Err(io::Error::other(format!("{lost}; {why}")));
        if lost.is_final() {
            return over(&"it would be the same again");
        }
        match self.config.retry.next_wait(&mut self.failures) {
            Ok(wait) => {
                sleep(wait).await;
                Ok(())
            }
            Err(why) => over(&why),
        }
    }
}

impl Lost {
    /// Whether the server, or the address, says that there is no use in another attempt.
    fn is_final(&self) -> bool {
        use tungstenite::Error::{Http, HttpFormat, Url};
        match self {
            Self::Broken(Http(response)) => {
                let status = response.status();
                status.is_client_error() && ![408, 429].contains(&status.as_u16())
            }
            Self::Broken(Url(_) | HttpFormat(_)) => true,
            Self::Broken(_) | Self::Closed(_) | Self::Quiet => false,
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::Closed(why) => write!(f, "the server closed the connection: {why}"),
            Self::Quiet => f.write_str("the server does not answer"),
        }
    }
}
