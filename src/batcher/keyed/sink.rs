//! A keyed batcher's handle as a `Sink`.
//!
//! ```text
//!               room in all         start_send, room under the key
//!   not ready ─────────────▶ ready ────────────────────────────────▶ accepted
//!       ▲                      │                                        ▲
//!       │                      └──▶ held, in line for its key ──────────┘ not ready
//!       └───────────────────────────────────────────────────────────────┘
//! ```

use core::fmt;
use core::hash::Hash;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use futures_sink::Sink;

use super::buffers::Hashed;
use super::handle::KeyedBatcher;
use super::send::{self, COMPLETED};
use crate::batcher::capacity::Weight;
use crate::batcher::error::{BatchError, Closed, TrySendError};
use crate::batcher::send::{Wait, heaviest};
use crate::batcher::shared::wake;
use crate::batcher::sink::{Flushing, SinkError};

/// A handle of a [`KeyedBatcher`] to forward a stream of items with their keys to.
///
/// It is a [`BatcherSink`](crate::batcher::BatcherSink) of pairs, with one difference that comes
/// with the key: it is ready when it has room for one item in all, reserved in line, and only then learns under
/// which key. With a [`capacity_per_key`](crate::batcher::Builder::capacity_per_key) that key may be full.
/// The sink then holds the item, one at the most, which stands in the line of its key, and is ready
/// again once it is accepted. A flush waits for that first.
///
/// Made by [`KeyedBatcher::sink`].
///
/// # Cancel safety
///
/// Dropping it gives up its place in line, or the room that it had reserved. An item that it still
/// held goes to the dead letter, as [`BatchError::NeverAccepted`], unless it was taken out with
/// [`take_held`](Self::take_held). A flush that was begun and left alone goes on with the next, which
/// covers what was sent through this sink since.
///
/// ```
/// use futures_util::{StreamExt, stream};
/// use sluicegate::batcher::{Batcher, KeyedBatch};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tables = Batcher::keyed(1_000)
///     .dead_letter(|table: &u32, rows: Vec<u32>, why| {
///         eprintln!("{} rows of {table} lost: {why}", rows.len());
///     })
///     .build(|_: KeyedBatch<u32, u32>| async { Ok::<(), std::io::Error>(()) })?;
///
/// stream::iter(0..1_000).map(|row| Ok((row % 7, row))).forward(tables.sink()).await?;
/// assert_eq!(tables.stats().delivered, 1_000);
/// # Ok(())
/// # }
/// ```
#[must_use = "a sink does nothing unless something is sent into it"]
pub struct KeyedBatcherSink<K: Hash + Eq, T> {
    batcher: KeyedBatcher<K, T>,
    wait: Wait,
    /// The room that is reserved for the next item.
    room: Option<Weight>,
    /// An item whose key was full.
    held: Option<Held<K, T>>,
    flushing: Flushing,
}

/// An item in line for room under its key.
struct Held<K, T> {
    key: Option<Hashed<K>>,
    item: Option<T>,
    weight: u64,
    wait: send::Wait,
}

impl<K, T> Held<K, T> {
    fn into_inner(self) -> Option<(K, T)> {
        Some((self.key?.key, self.item?))
    }
}

impl<K: Hash + Eq, T> KeyedBatcherSink<K, T> {
    pub(crate) fn new(batcher: KeyedBatcher<K, T>) -> Self {
        let wait = Wait::new(heaviest(batcher.shared()));
        Self { batcher, wait, room: None, held: None, flushing: Flushing::default() }
    }

    /// The handle behind it.
    pub fn batcher(&self) -> &KeyedBatcher<K, T> {
        &self.batcher
    }

    /// Takes back the item that waits in the sink for room under its key, if there is one. It gives
    /// up its place in line.
    #[must_use = "the item was not accepted"]
    pub fn take_held(&mut self) -> Option<(K, T)> {
        let mut held = self.held.take()?;
        held.wait.leave(self.batcher.shared());
        held.into_inner()
    }

    fn return_capacity(&mut self) {
        if let Some(room) = self.room.take() {
            self.batcher.shared().return_capacity(room);
        }
    }
}

impl<K: Hash + Eq + Clone, T> KeyedBatcherSink<K, T> {
    /// Ready when it holds nothing.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SinkError<(K, T)>>> {
        let shared = self.batcher.shared();
        let Some(Held { key, item, weight, wait }) = &mut self.held else {
            return Poll::Ready(Ok(()));
        };
        let accepted = ready!(wait.poll(shared, key, cx, |core, key| {
            shared.accept_keyed(core, key, || item.take().expect(COMPLETED), *weight)
        }));
        let held = self.held.take();
        Poll::Ready(match accepted {
            Ok((driver, _key)) => {
                self.flushing.sent();
                wake(driver);
                Ok(())
            }
            Err(Closed) => Err(match held.and_then(Held::into_inner) {
                Some(item) => SinkError::Send(TrySendError::Closed(item)),
                None => SinkError::Closed,
            }),
        })
    }
}

impl<K: Hash + Eq + Clone, T> Sink<(K, T)> for KeyedBatcherSink<K, T> {
    type Error = SinkError<(K, T)>;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        ready!(this.poll_held(cx))?;
        if this.room.is_none() {
            let need = this.wait.need;
            let room = ready!(this.wait.poll(this.batcher.shared(), cx, |_| need));
            this.room = Some(room.map_err(|Closed| SinkError::Closed)?);
        }
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, (key, item): (K, T)) -> Result<(), Self::Error> {
        let this = self.get_mut();
        if this.held.is_some() {
            // Who did not wait until it was ready does not pass the one before.
            return Err(SinkError::Send(TrySendError::Full((key, item))));
        }
        let shared = this.batcher.shared();
        // Who did not wait until it was ready takes the room that there is.
        let sent = if this.room.is_some() {
            // Before the room is given up: weighing and hashing are the user's code, and may panic.
            let weight = shared.weigh(&item);
            let key = this.batcher.hashed(key);
            match shared.send_reserved_keyed(&mut this.room, key, item, weight) {
                Ok(()) => Ok(()),
                Err(TrySendError::Closed((key, item))) => {
                    Err(TrySendError::Closed((key.key, item)))
                }
                Err(TrySendError::TooHeavy((key, item))) => {
                    Err(TrySendError::TooHeavy((key.key, item)))
                }
                Err(TrySendError::Full((key, item))) => {
                    let wait = send::Wait::new(shared.limits().room_for(weight), false);
                    this.held = Some(Held { key: Some(key), item: Some(item), weight, wait });
                    return Ok(());
                }
            }
        } else {
            this.batcher.try_send(key, item)
        };
        sent.map(|()| this.flushing.sent()).map_err(SinkError::Send)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        ready!(this.poll_held(cx))?;
        this.flushing.poll(this.batcher.shared(), cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = &mut *self;
        this.wait.leave(this.batcher.shared());
        this.return_capacity();
        self.poll_flush(cx)
    }
}

// Nothing in it is pinned.
impl<K: Hash + Eq, T> Unpin for KeyedBatcherSink<K, T> {}

impl<K: Hash + Eq, T> Drop for KeyedBatcherSink<K, T> {
    fn drop(&mut self) {
        self.wait.leave(self.batcher.shared());
        self.return_capacity();
        self.flushing.forget(self.batcher.shared());
        if let Some((key, item)) = self.take_held() {
            self.batcher.shared().to_dead_letter(
                &Arc::new(key),
                vec![item],
                BatchError::NeverAccepted,
            );
        }
    }
}

impl<K: Hash + Eq, T> fmt::Debug for KeyedBatcherSink<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBatcherSink")
            .field("batcher", &self.batcher)
            .field("ready", &self.room.is_some())
            .field("holds", &self.held.is_some())
            .finish_non_exhaustive()
    }
}
