//! The life of one client.
//!
//! ```text
//!              ┌── sends a message ──▶ accepted ──┐
//!  joined ──▶ open ◀──────────────────────────────┘
//!              ├── leaves ─────────────────────────────────────────▶ gone
//!              ├── sends what is no message, or nothing in time ───▶ close frame ──▶ gone
//!              ├── reads too slowly ───────────────────────────────▶ close frame ──▶ gone
//!              └── server stops: read no more, gets what waits ────▶ close frame ──▶ gone
//! ```
//!
//! It reads and writes side by side, so that a client whose message has to wait goes on receiving. A
//! message that was read is accepted whatever ends meanwhile: reading stops between messages.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as Packet, Utf8Bytes, WebSocket, close_code};
use futures_util::future::{Either, select};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::{self, error::ProtocolError};

use super::outbox::Inbox;
use super::protocol::{Frame, Message, Room, Say};
use super::publisher::Publisher;
use super::rooms::Rooms;
use super::stats::Counts;

/// The longest message a client may send, as JSON, in bytes.
pub const MESSAGE_BYTES: usize = 4_096;

/// The timeouts of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// How long a connection has until it has joined a room, or has read all that it asked for.
    pub request: Duration,
    /// How often a client gets a ping.
    pub ping_interval: Duration,
    /// How long a client may send nothing, not even a pong.
    pub idle: Duration,
    /// How long a client has to read what waits for it and to answer a close frame, each.
    pub close: Duration,
}

/// What the server gives to each connection.
#[derive(Debug)]
pub struct Context {
    /// The members of each room.
    pub rooms: Arc<Rooms>,
    /// Where messages go.
    pub publisher: Publisher,
    /// Where they are counted.
    pub counts: Arc<Counts>,
    /// How long it may take.
    pub timeouts: Timeouts,
}

/// A client that has joined.
#[derive(Debug)]
pub struct Session {
    /// The room.
    pub room: Room,
    /// The name of the client.
    pub name: String,
    /// Turns true when the server stops. Dropped when the session is read no more.
    pub stopping: watch::Receiver<bool>,
}

type Sink = SplitSink<WebSocket, Packet>;
type Stream = SplitStream<WebSocket>;

/// Why reading ended.
enum ReadEnd {
    Gone,
    Refused(CloseFrame),
    Stopped,
}

/// Why writing ended.
enum WriteEnd {
    Failed,
    TooSlow,
    /// The server stops, and all that waited is written.
    Everything,
}

impl Context {
    /// Serves a client until it is gone.
    pub async fn serve(&self, socket: WebSocket, session: Session) {
        let (mut sink, mut stream) = socket.split();
        let (room, name) = (session.room.clone(), session.name.clone());
        tracing::debug!(%room, name, "a client has joined");
        let close = match self.rooms.join(session.room.clone()) {
            None => Some(stopping()),
            Some((membership, inbox)) => {
                let close = self.run(&mut sink, &mut stream, session, inbox).await;
                drop(membership);
                close
            }
        };
        match &close {
            Some(CloseFrame { code: close_code::AWAY, .. }) | None => {
                tracing::debug!(%room, name, "a client leaves");
            }
            Some(CloseFrame { code, reason }) => {
                tracing::info!(%room, name, code, "a client is closed: {reason}");
            }
        }
        // A client that does not answer in time is not waited for.
        let _ = timeout(self.timeouts.close, close_connection(sink, stream, close)).await;
    }

    async fn run(
        &self,
        sink: &mut Sink,
        stream: &mut Stream,
        session: Session,
        inbox: Inbox,
    ) -> Option<CloseFrame> {
        let greeting = Frame::joined(&session.room, &session.name);
        let (stop_reading, reading_stopped) = oneshot::channel();
        let read = pin!(self.read(stream, session, reading_stopped));
        let write = pin!(self.write(sink, greeting, inbox));
        let wrote = match select(read, write).await {
            Either::Left((ReadEnd::Gone, _)) => return None,
            Either::Left((ReadEnd::Refused(close), _)) => {
                if close.code != close_code::POLICY {
                    self.counts.malformed();
                }
                return Some(close);
            }
            Either::Left((ReadEnd::Stopped, write)) => {
                timeout(self.timeouts.close, write).await.unwrap_or(WriteEnd::TooSlow)
            }
            Either::Right((WriteEnd::Failed, read)) => {
                // What it sent before it went away is still to be had.
                read.await;
                return None;
            }
            Either::Right((wrote, read)) => {
                drop(stop_reading);
                read.await;
                wrote
            }
        };
        match wrote {
            WriteEnd::Failed => None,
            WriteEnd::Everything => Some(stopping()),
            WriteEnd::TooSlow => {
                self.counts.too_slow();
                Some(close(close_code::POLICY, "too much is waiting for you: you read too slowly"))
            }
        }
    }

    async fn read(
        &self,
        stream: &mut Stream,
        session: Session,
        reading_stopped: oneshot::Receiver<Infallible>,
    ) -> ReadEnd {
        let Session { room, name, mut stopping } = session;
        let stopping = pin!(stopping.wait_for(|stopping| *stopping));
        let mut stop = select(stopping, reading_stopped);
        loop {
            let next = tokio::select! {
                biased;
                _ = &mut stop => return ReadEnd::Stopped,
                next = timeout(self.timeouts.idle, stream.next()) => next,
            };
            let text = match next {
                Err(_) => return refused(close_code::POLICY, "nothing was received from you"),
                Ok(None | Some(Ok(Packet::Close(_)))) => return ReadEnd::Gone,
                Ok(Some(Err(error))) => {
                    return violation(error)
                        .map_or(ReadEnd::Gone, |(code, why)| refused(code, why));
                }
                Ok(Some(Ok(Packet::Ping(_) | Packet::Pong(_)))) => continue,
                Ok(Some(Ok(Packet::Binary(_)))) => {
                    return refused(close_code::UNSUPPORTED, "messages are JSON in text frames");
                }
                Ok(Some(Ok(Packet::Text(text)))) => text,
            };
            if text.len() > MESSAGE_BYTES {
                return refused(close_code::SIZE, "a message has at most 4096 bytes");
            }
            let Ok(Say { text }) = serde_json::from_str(&text) else {
                return refused(close_code::INVALID, r#"a message is {"text": "..."}"#);
            };
            let message = Message { from: name.clone(), text: text.into_owned() };
            if self.publisher.send(&room, message).await.is_err() {
                return ReadEnd::Stopped;
            }
            self.counts.accepted();
        }
    }

    async fn write(&self, sink: &mut Sink, greeting: Frame, mut inbox: Inbox) -> WriteEnd {
        let overflow = pin!(inbox.overflow());
        let work = pin!(self.write_all(sink, greeting, &mut inbox));
        match select(overflow, work).await {
            Either::Left(((), _)) => WriteEnd::TooSlow,
            Either::Right((Ok(()), _)) => WriteEnd::Everything,
            Either::Right((Err(_), _)) => WriteEnd::Failed,
        }
    }

    async fn write_all(
        &self,
        sink: &mut Sink,
        greeting: Frame,
        inbox: &mut Inbox,
    ) -> Result<(), axum::Error> {
        sink.send(Packet::Text(greeting.text)).await?;
        let mut beats = interval(self.timeouts.ping_interval);
        loop {
            let mut next = tokio::select! {
                biased;
                frame = inbox.next() => match frame {
                    None => return Ok(()),
                    frame => frame,
                },
                _ = beats.tick() => {
                    sink.send(Packet::Ping(Default::default())).await?;
                    continue;
                }
            };
            // All that waits in one system call, for either kind of framing.
            while let Some(Frame { text, messages }) = next {
                sink.feed(Packet::Text(text)).await?;
                self.counts.wrote(messages);
                next = inbox.try_next();
            }
            sink.flush().await?;
        }
    }
}

/// Sends a close frame, if there is one, and waits for the answer.
async fn close_connection(mut sink: Sink, mut stream: Stream, close: Option<CloseFrame>) {
    if let Some(close) = close {
        // The answer to a ping may be pending. After the close frame it would break the protocol.
        let closed = async {
            sink.flush().await?;
            sink.send(Packet::Close(Some(close))).await
        };
        if closed.await.is_err() {
            return;
        }
    }
    // A client that closed first is answered by the stream itself.
    while let Some(Ok(_)) = stream.next().await {}
}

/// The close code for what a client sent that is no WebSocket message, and the reason; none if its
/// connection broke.
fn violation(error: axum::Error) -> Option<(u16, &'static str)> {
    match *error.into_inner().downcast().ok()? {
        tungstenite::Error::Capacity(_) => {
            Some((close_code::SIZE, "a message has at most 4096 bytes"))
        }
        tungstenite::Error::Utf8(_) => Some((close_code::INVALID, "a text frame is UTF-8")),
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        tungstenite::Error::Protocol(_) => {
            Some((close_code::PROTOCOL, "this is not the WebSocket protocol"))
        }
        _ => None,
    }
}

fn stopping() -> CloseFrame {
    close(close_code::AWAY, "the server is stopping")
}

fn refused(code: u16, reason: &'static str) -> ReadEnd {
    ReadEnd::Refused(close(code, reason))
}

fn close(code: u16, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: Utf8Bytes::from_static(reason) }
}
