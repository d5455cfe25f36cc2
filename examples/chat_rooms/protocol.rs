//! What goes over the wire: JSON in text frames.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use serde::{Deserialize, Serialize};

/// The name of a room.
pub type Room = Arc<str>;

/// What a client says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Say<'a> {
    /// The message.
    #[serde(borrow)]
    pub text: std::borrow::Cow<'a, str>,
}

/// A message in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The name of the client that said it.
    pub from: String,
    /// What it said.
    pub text: String,
}

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ToClient<M> {
    /// The first frame: from now on the client gets what is said in its room, its own messages
    /// included, by which it knows that they were accepted.
    Joined {
        /// Where it is.
        room: String,
        /// What it is called there.
        name: String,
    },
    /// Messages of the room, in the order they were accepted.
    Batch {
        /// At least one.
        messages: M,
    },
}

/// A frame for any number of clients, written down once.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The JSON.
    pub text: Utf8Bytes,
    /// How many messages are in it.
    pub messages: usize,
}

impl Frame {
    /// One frame for all of `messages`.
    pub fn batch(messages: &[Message]) -> Self {
        Self { text: text(&ToClient::Batch { messages }), messages: messages.len() }
    }

    /// The greeting.
    pub fn joined(room: &str, name: &str) -> Self {
        let (room, name) = (room.to_owned(), name.to_owned());
        Self { text: text(&ToClient::<[Message; 0]>::Joined { room, name }), messages: 0 }
    }
}

fn text(what: &impl Serialize) -> Utf8Bytes {
    serde_json::to_string(what).expect("there are only strings in it").into()
}
