//! How messages reach their room: one frame per window, or one per message.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use sluicegate::ConfigError;
use sluicegate::batcher::{Batcher, Closed, KeyedBatch, KeyedBatcher};

use super::protocol::{Frame, Message, Room};
use super::rooms::Rooms;
use super::stats::Counts;

/// How the messages of a room are put into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One frame for all that is said within a window.
    Batched(Duration),
    /// One frame for each message, at once: what there is to compare with.
    PerMessage,
}

/// The most messages in a frame.
pub const FRAME_MESSAGES: usize = 64;

/// Messages of one room on their way at once; further senders wait for that room.
const MESSAGES_PER_ROOM: usize = 4 * FRAME_MESSAGES;

/// Messages on their way at once in all rooms, and rooms that have a window open.
const MESSAGES: usize = 65_536;
const OPEN_ROOMS: usize = 10_000;

/// Delivers messages to rooms.
#[derive(Debug)]
pub enum Publisher {
    /// Through a batch for each room.
    Batched {
        /// By the name of the room.
        batches: KeyedBatcher<Room, Message>,
        /// Where it is counted what is lost.
        counts: Arc<Counts>,
    },
    /// Straight on.
    PerMessage(Arc<Rooms>),
}

impl Publisher {
    /// The way into `rooms`.
    ///
    /// # Errors
    ///
    /// If the window is not what it may be.
    pub fn new(
        framing: Framing,
        rooms: Arc<Rooms>,
        counts: Arc<Counts>,
    ) -> Result<Self, ConfigError> {
        let Framing::Batched(window) = framing else {
            return Ok(Self::PerMessage(rooms));
        };
        let lost = counts.clone();
        let batches = Batcher::keyed(OPEN_ROOMS)
            .max_items(FRAME_MESSAGES)
            .window(window)
            .capacity(MESSAGES)
            .capacity_per_key(MESSAGES_PER_ROOM)
            .in_order()
            .dead_letter(move |_: &Room, messages: Vec<Message>, _| lost.lost(messages.len()))
            .build(move |batch: KeyedBatch<Room, Message>| {
                rooms.deliver(batch.key(), &Frame::batch(batch.as_slice()));
                ready(Ok::<(), Infallible>(()))
            })?;
        Ok(Self::Batched { batches, counts })
    }

    /// Accepts a message for a room, waiting, first come, first served, while it is full.
    ///
    /// # Errors
    ///
    /// [`Closed`] after a [`shutdown`](Self::shutdown).
    pub async fn send(&self, room: &Room, message: Message) -> Result<(), Closed> {
        match self {
            Self::Batched { batches, .. } => {
                batches.send(room.clone(), message).await.map_err(|_| Closed)
            }
            Self::PerMessage(rooms) => {
                rooms.deliver(room, &Frame::batch(&[message]));
                Ok(())
            }
        }
    }

    /// Takes no more, and hands out all that was accepted.
    pub async fn shutdown(&self) {
        if let Self::Batched { batches, counts } = self {
            let report = batches.shutdown(None).await;
            for (_, messages) in report.unsent.iter().chain(&report.indeterminate) {
                counts.lost(messages.len());
            }
        }
    }
}
