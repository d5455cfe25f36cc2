//! How what is said reaches its room: a frame a window, or a frame a message.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate::batcher::{Batch, Closed};
use sluicegate::{Batcher, ConfigError};

use super::figures::Counters;
use super::protocol::{Frame, Message, Room};
use super::rooms::Rooms;

/// How the messages of a room are put into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One frame for all that is said within a window.
    Batched(Duration),
    /// One frame for each message, at once: what there is to compare with.
    OneFrameAMessage,
}

/// The most messages in a frame.
pub const FRAME_MESSAGES: usize = 64;

/// The way from those who talk to the rooms.
#[derive(Debug)]
pub enum Outlet {
    /// Through a batcher.
    Batched(Batched),
    /// Straight on.
    OneFrameAMessage(Arc<Rooms>),
}

/// A batcher for each room.
#[derive(Debug)]
pub struct Batched {
    window: Duration,
    rooms: Arc<Rooms>,
    counters: Arc<Counters>,
    batchers: Mutex<HashMap<Room, Batcher<Message>>>,
}

impl Outlet {
    /// The way into `rooms`.
    ///
    /// # Errors
    ///
    /// If the window is not what it may be.
    pub fn new(
        framing: Framing,
        rooms: Arc<Rooms>,
        counters: Arc<Counters>,
    ) -> Result<Self, ConfigError> {
        Ok(match framing {
            Framing::OneFrameAMessage => Self::OneFrameAMessage(rooms),
            Framing::Batched(window) => {
                Self::Batched(Batched { window, rooms, counters, batchers: Mutex::default() })
            }
        })
    }

    /// Accepts a message for a room, waiting in line while there is no room for it.
    ///
    /// # Errors
    ///
    /// [`Closed`] after a [`shutdown`](Self::shutdown).
    pub async fn send(&self, room: &Room, message: Message) -> Result<(), Closed> {
        match self {
            Self::Batched(batched) => {
                let batcher = batched.of(room);
                batcher.send(message).await.map_err(|_| Closed)
            }
            Self::OneFrameAMessage(rooms) => {
                rooms.deliver(room, &Frame::batch(&[message]));
                Ok(())
            }
        }
    }

    /// Takes no more, and hands out all that was accepted.
    pub async fn shutdown(&self) {
        if let Self::Batched(batched) = self {
            let batchers = std::mem::take(&mut *batched.batchers.lock().unwrap());
            for batcher in batchers.into_values() {
                let report = batcher.shutdown(None).await;
                batched.counters.lost(report.unsent.len() + report.indeterminate.len());
            }
        }
    }
}

impl Batched {
    fn of(&self, room: &Room) -> Batcher<Message> {
        let mut batchers = self.batchers.lock().unwrap();
        let batcher = batchers.entry(room.clone()).or_insert_with(|| {
            let (rooms, counters, room) = (self.rooms.clone(), self.counters.clone(), room.clone());
            Batcher::builder()
                .max_items(FRAME_MESSAGES)
                .window(self.window)
                .dead_letter(move |messages: Vec<Message>, _| counters.lost(messages.len()))
                .build(move |batch: Batch<Message>| {
                    rooms.deliver(&room, &Frame::batch(batch.as_slice()));
                    async { Ok::<(), Infallible>(()) }
                })
                .unwrap()
        });
        batcher.clone()
    }
}
