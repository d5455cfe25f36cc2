//! A client of the chat, as the load and the tests use it.

use std::net::SocketAddr;

use axum::body::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::{Message as Packet, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::protocol::{Message, Say, ToClient};

/// What goes wrong with a connection.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A client that is in a room.
#[derive(Debug)]
pub struct Client {
    /// Sends messages.
    pub sender: Sender,
    /// Receives frames.
    pub receiver: Receiver,
}

/// The half that sends.
#[derive(Debug)]
pub struct Sender {
    sink: SplitSink<WebSocketStream<TcpStream>, Packet>,
}

/// The half that receives.
#[derive(Debug)]
pub struct Receiver {
    stream: SplitStream<WebSocketStream<TcpStream>>,
}

/// What a client receives.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame with these messages.
    Batch(Vec<Message>),
    /// The server closed the connection: with this code, for this reason.
    Closed(u16, String),
    /// The connection is over.
    Over,
}

impl Client {
    /// Enters a room and waits until it is in. The names go into the address as they are.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, or does not let it in.
    pub async fn join(server: SocketAddr, room: &str, name: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Self::join_over(stream, room, name).await
    }

    /// The same over a connection there is.
    ///
    /// # Errors
    ///
    /// If the server does not let it in.
    pub async fn join_over(stream: TcpStream, room: &str, name: &str) -> Result<Self, Error> {
        let address = format!("ws://{}/rooms/{room}?name={name}", stream.peer_addr()?);
        let config = WebSocketConfig::default().read_buffer_size(16 * 1_024);
        let (socket, _) = client_async_with_config(address, stream, Some(config)).await?;
        let (sink, mut stream) = socket.split();
        match stream.next().await {
            Some(Ok(Packet::Text(text))) => match serde_json::from_str(&text)? {
                ToClient::<Vec<Message>>::Joined { .. } => {
                    Ok(Self { sender: Sender { sink }, receiver: Receiver { stream } })
                }
                other => Err(format!("not a greeting: {other:?}").into()),
            },
            other => Err(format!("not a greeting: {other:?}").into()),
        }
    }
}

impl Sender {
    /// Says something.
    ///
    /// # Errors
    ///
    /// If the connection is over.
    pub async fn say(&mut self, text: &str) -> Result<(), Error> {
        let say = serde_json::to_string(&Say { text: text.into() })?;
        self.send(Packet::text(say)).await
    }

    /// Sends whatever it is.
    ///
    /// # Errors
    ///
    /// If the connection is over.
    pub async fn send(&mut self, packet: Packet) -> Result<(), Error> {
        Ok(self.sink.send(packet).await?)
    }

    /// Sends a close frame.
    ///
    /// # Errors
    ///
    /// If the connection is over.
    pub async fn close(&mut self) -> Result<(), Error> {
        self.send(Packet::Close(None)).await
    }
}

impl Receiver {
    /// What comes next.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or what comes is not what the server says.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            return Ok(match self.stream.next().await.transpose()? {
                None => Event::Over,
                Some(Packet::Close(None)) => Event::Closed(1005, String::new()),
                Some(Packet::Close(Some(CloseFrame { code, reason }))) => {
                    Event::Closed(code.into(), reason.to_string())
                }
                Some(Packet::Text(text)) => match serde_json::from_str(&text)? {
                    ToClient::Batch { messages } => Event::Batch(messages),
                    other => return Err(format!("no batch: {other:?}").into()),
                },
                Some(_) => continue,
            });
        }
    }
}

/// A packet that is no text.
pub fn binary(bytes: &'static [u8]) -> Packet {
    Packet::Binary(Bytes::from_static(bytes))
}
