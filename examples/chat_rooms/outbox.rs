//! What waits to be written to one client: bounded by frames and by bytes, and by the bytes of all
//! clients together.

use std::sync::Arc;

use sluicegate::{OwnedSemaphorePermit, Semaphore};
use tokio::sync::{Notify, mpsc};

use super::protocol::Frame;

/// How much may wait for one client.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Frames; at least 1.
    pub frames: usize,
    /// Bytes of their text.
    pub bytes: usize,
}

/// What may wait for all clients together, in bytes. Half of it is shared out equally, so that a
/// client that keeps up is never short because of others; the rest is for those that need more.
#[derive(Debug)]
pub struct Memory {
    share: usize,
    pool: Arc<Semaphore>,
}

impl Memory {
    /// So many bytes for so many clients, at least one.
    pub fn new(bytes: usize, clients: usize) -> Self {
        let share = bytes / 2 / clients;
        Self { share, pool: Arc::new(Semaphore::new(bytes - share * clients)) }
    }
}

/// The end that is put into; it never waits. Once it is dropped the other end runs dry.
#[derive(Debug)]
pub struct Outbox {
    waiting: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
    share: Arc<Semaphore>,
    pool: Arc<Semaphore>,
    overflow: Arc<Notify>,
}

/// The end that is written from.
#[derive(Debug)]
pub struct Inbox {
    waiting: mpsc::Receiver<Waiting>,
    overflow: Arc<Notify>,
}

/// A frame with permits for each of its bytes: of the client, and of all clients together.
#[derive(Debug)]
struct Waiting {
    frame: Frame,
    _bytes: [OwnedSemaphorePermit; 2],
}

/// There is no room for the frame: the client reads too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// An outbox with nothing in it.
pub fn outbox(bounds: Bounds, memory: &Memory) -> (Outbox, Inbox) {
    let (sender, receiver) = mpsc::channel(bounds.frames);
    let [bytes, share] = [bounds.bytes, memory.share].map(|bytes| Arc::new(Semaphore::new(bytes)));
    let (pool, overflow) = (memory.pool.clone(), Arc::new(Notify::new()));
    (
        Outbox { waiting: sender, bytes, share, pool, overflow: overflow.clone() },
        Inbox { waiting: receiver, overflow },
    )
}

impl Outbox {
    /// Puts a frame behind those that wait.
    ///
    /// # Errors
    ///
    /// [`Overflow`] if there is no room for it, and then the other end is told, too. From then on
    /// there never is any: what the client still gets has no gap. One that has left takes no room.
    pub fn put(&self, frame: &Frame) -> Result<(), Overflow> {
        let put = self.permits(frame).is_some_and(|bytes| {
            let waiting = Waiting { frame: frame.clone(), _bytes: bytes };
            !matches!(self.waiting.try_send(waiting), Err(mpsc::error::TrySendError::Full(_)))
        });
        if put {
            return Ok(());
        }
        self.bytes.close();
        self.overflow.notify_one();
        Err(Overflow)
    }

    fn permits(&self, frame: &Frame) -> Option<[OwnedSemaphorePermit; 2]> {
        let bytes = u32::try_from(frame.text.len()).unwrap_or(u32::MAX);
        let take = |of: &Arc<Semaphore>| of.clone().try_acquire_many_owned(bytes).ok();
        Some([take(&self.bytes)?, take(&self.share).or_else(|| take(&self.pool))?])
    }
}

impl Inbox {
    /// The next frame; none when the outbox is gone and all it held has been taken.
    pub async fn next(&mut self) -> Option<Frame> {
        self.waiting.recv().await.map(Waiting::into_frame)
    }

    /// The next frame, if one waits.
    pub fn try_next(&mut self) -> Option<Frame> {
        self.waiting.try_recv().ok().map(Waiting::into_frame)
    }

    /// Done once a frame found no room.
    pub fn overflow(&self) -> impl Future<Output = ()> + use<> {
        let overflow = self.overflow.clone();
        async move { overflow.notified().await }
    }
}

impl Waiting {
    /// From here on the frame is counted no more: its writer holds a bounded number of them.
    fn into_frame(self) -> Frame {
        self.frame
    }
}
