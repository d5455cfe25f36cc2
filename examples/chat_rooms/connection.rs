//! The life of one client.
//!
//! ```text
//!              ┌── says something ──▶ accepted ──┐
//!  joined ──▶ talks ◀────────────────────────────┘
//!              ├── leaves ────────────────────────────────────────▶ gone
//!              ├── says what it may not, or nothing for too long ─▶ told ──▶ gone
//!              ├── reads too slowly ──────────────────────────────▶ told ──▶ gone
//!              └── server stops: heard no more ─▶ gets what waits ▶ told ──▶ gone
//! ```
//!
//! It reads and writes side by side, so that a client that has to wait until it may speak goes on
//! hearing the others. A message that was read is accepted whatever ends meanwhile: reading stops
//! between messages.

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

use super::figures::Counters;
use super::outbox::Inbox;
use super::outlet::Outlet;
use super::protocol::{Frame, Message, Room, Say};
use super::rooms::Rooms;

/// The longest message a client may send, as JSON, in bytes.
pub const MESSAGE_BYTES: usize = 4_096;

/// How long a connection waits for what.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How often a client is asked whether it is there.
    pub heartbeat: Duration,
    /// How long a client may send nothing, no answer to that either.
    pub silence: Duration,
    /// How long a client that was told to go, or that gets the last of what waits for it, has.
    pub farewell: Duration,
}

/// What the server gives to each connection.
#[derive(Debug)]
pub struct Desk {
    /// Who is where.
    pub rooms: Arc<Rooms>,
    /// Where messages go.
    pub outlet: Outlet,
    /// Where they are counted.
    pub counters: Arc<Counters>,
    /// How long it waits.
    pub patience: Patience,
}

/// A client that has come in.
#[derive(Debug)]
pub struct Guest {
    /// Where to.
    pub room: Room,
    /// What it calls itself.
    pub name: String,
    /// Turns true when the server stops. Dropped when the guest is heard no more.
    pub stopping: watch::Receiver<bool>,
}

type Sink = SplitSink<WebSocket, Packet>;
type Stream = SplitStream<WebSocket>;

/// Why reading ended.
enum Heard {
    Gone,
    Refused(CloseFrame),
    Stopped,
}

/// Why writing ended.
enum Wrote {
    Failed,
    TooSlow,
    /// The server stops, and all that waited is written.
    Everything,
}

impl Desk {
    /// Serves a client until it is gone.
    pub async fn serve(&self, socket: WebSocket, guest: Guest) {
        let (mut sink, mut stream) = socket.split();
        let close = match self.rooms.join(guest.room.clone()) {
            None => Some(stopping()),
            Some((membership, inbox)) => {
                let close = self.converse(&mut sink, &mut stream, guest, inbox).await;
                drop(membership);
                close
            }
        };
        // One that does not go in time is left alone.
        let _ = timeout(self.patience.farewell, part(sink, stream, close)).await;
    }

    async fn converse(
        &self,
        sink: &mut Sink,
        stream: &mut Stream,
        guest: Guest,
        inbox: Inbox,
    ) -> Option<CloseFrame> {
        let greeting = Frame::joined(&guest.room, &guest.name);
        let (hush, hushed) = oneshot::channel();
        let read = pin!(self.read(stream, guest, hushed));
        let write = pin!(self.write(sink, greeting, inbox));
        let wrote = match select(read, write).await {
            Either::Left((Heard::Gone, _)) => return None,
            Either::Left((Heard::Refused(close), _)) => return Some(close),
            Either::Left((Heard::Stopped, write)) => {
                timeout(self.patience.farewell, write).await.unwrap_or(Wrote::TooSlow)
            }
            Either::Right((Wrote::Failed, read)) => {
                // What it sent before it went away is still to be had.
                read.await;
                return None;
            }
            Either::Right((wrote, read)) => {
                drop(hush);
                read.await;
                wrote
            }
        };
        match wrote {
            Wrote::Failed => None,
            Wrote::Everything => Some(stopping()),
            Wrote::TooSlow => {
                self.counters.too_slow();
                Some(close(close_code::POLICY, "too much is waiting for you: you read too slowly"))
            }
        }
    }

    async fn read(
        &self,
        stream: &mut Stream,
        guest: Guest,
        hushed: oneshot::Receiver<Infallible>,
    ) -> Heard {
        let Guest { room, name, mut stopping } = guest;
        let stopping = pin!(stopping.wait_for(|stopping| *stopping));
        let mut stop = select(stopping, hushed);
        loop {
            let next = tokio::select! {
                biased;
                _ = &mut stop => return Heard::Stopped,
                next = timeout(self.patience.silence, stream.next()) => next,
            };
            let text = match next {
                Err(_) => return refused(close_code::POLICY, "nothing was heard of you"),
                Ok(None | Some(Err(_) | Ok(Packet::Close(_)))) => return Heard::Gone,
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
            if self.outlet.send(&room, message).await.is_err() {
                return Heard::Stopped;
            }
            self.counters.accepted();
        }
    }

    async fn write(&self, sink: &mut Sink, greeting: Frame, mut inbox: Inbox) -> Wrote {
        let overflow = pin!(inbox.overflow());
        let work = pin!(self.write_all(sink, greeting, &mut inbox));
        match select(overflow, work).await {
            Either::Left(((), _)) => Wrote::TooSlow,
            Either::Right((Ok(()), _)) => Wrote::Everything,
            Either::Right((Err(_), _)) => Wrote::Failed,
        }
    }

    async fn write_all(
        &self,
        sink: &mut Sink,
        greeting: Frame,
        inbox: &mut Inbox,
    ) -> Result<(), axum::Error> {
        sink.send(Packet::Text(greeting.text)).await?;
        let mut beats = interval(self.patience.heartbeat);
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
                self.counters.wrote(messages);
                next = inbox.try_next();
            }
            sink.flush().await?;
        }
    }
}

/// Says good-bye, if there is something to say, and waits for the answer.
async fn part(mut sink: Sink, mut stream: Stream, close: Option<CloseFrame>) {
    if let Some(close) = close
        && sink.send(Packet::Close(Some(close))).await.is_err()
    {
        return;
    }
    // Whoever said good-bye first is answered by the stream itself.
    while let Some(Ok(_)) = stream.next().await {}
}

fn stopping() -> CloseFrame {
    close(close_code::AWAY, "the server is stopping")
}

fn refused(code: u16, reason: &'static str) -> Heard {
    Heard::Refused(close(code, reason))
}

fn close(code: u16, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: Utf8Bytes::from_static(reason) }
}
