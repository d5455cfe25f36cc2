//! Servers and clients for a test.

use std::future::Future;
use std::net::Ipv4Addr;
use std::time::Duration;

use sluicegate_examples::chat_rooms::client::{Client, Event, Receiver};
use sluicegate_examples::chat_rooms::connection::Timeouts;
use sluicegate_examples::chat_rooms::outbox::Bounds;
use sluicegate_examples::chat_rooms::protocol::Message;
use sluicegate_examples::chat_rooms::publisher::Framing;
use sluicegate_examples::chat_rooms::server::{Config, Server};

pub(crate) const WINDOW: Duration = Duration::from_millis(5);
pub(crate) const FRAMINGS: [Framing; 2] = [Framing::Batched(WINDOW), Framing::PerMessage];

/// A runtime for `test`, and a limit: whatever waits for ever fails.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let limit = Duration::from_secs(60);
    runtime.block_on(async { tokio::time::timeout(limit, test).await }).expect("it hangs")
}

/// Room for whatever a test sends, and little timeouts.
pub(crate) fn config(framing: Framing) -> Config {
    Config {
        clients: 50,
        outbox: Bounds { frames: 100_000, bytes: 100_000_000 },
        timeouts: Timeouts {
            request: Duration::from_secs(60),
            ping_interval: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            close: Duration::from_secs(20),
        },
        ..Config::new(framing)
    }
}

pub(crate) async fn start(config: Config) -> Server {
    Server::start((Ipv4Addr::LOCALHOST, 0).into(), config).await.unwrap()
}

pub(crate) async fn join(server: &Server, room: &str, name: &str) -> Client {
    Client::join(server.address(), room, name).await.unwrap()
}

/// Waits until what the server tells about itself is as it should be.
pub(crate) async fn until(so: impl Fn() -> bool) {
    while !so() {
        tokio::task::yield_now().await;
    }
}

/// A message with its number.
pub(crate) fn message(from: &str, number: usize) -> Message {
    Message { from: from.to_owned(), text: number.to_string() }
}

/// The messages of a sender, in order.
pub(crate) fn of(from: &str, received: &[Message]) -> Vec<Message> {
    received.iter().filter(|message| message.from == from).cloned().collect()
}

/// The first so many messages of a sender.
pub(crate) fn first(from: &str, count: usize) -> Vec<Message> {
    (0..count).map(|number| message(from, number)).collect()
}

/// So many messages, and in how many frames they came.
pub(crate) async fn receive(receiver: &mut Receiver, count: usize) -> (Vec<Message>, usize) {
    let (mut received, mut frames) = (Vec::new(), 0);
    while received.len() < count {
        match receiver.next().await.unwrap() {
            Event::Batch(messages) => {
                assert!(!messages.is_empty());
                received.extend(messages);
                frames += 1;
            }
            other => panic!("{other:?} after {} messages", received.len()),
        }
    }
    (received, frames)
}

/// All messages up to the close frame, and what that says.
pub(crate) async fn receive_all(receiver: &mut Receiver) -> (Vec<Message>, u16, String) {
    let mut received = Vec::new();
    loop {
        match receiver.next().await.unwrap() {
            Event::Batch(messages) => received.extend(messages),
            Event::Closed(code, reason) => {
                assert_eq!(receiver.next().await.unwrap(), Event::Over);
                return (received, code, reason);
            }
            Event::Over => panic!("no close frame after {} messages", received.len()),
        }
    }
}
