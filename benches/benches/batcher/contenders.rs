//! Ways from producers to a handler of batches: each a channel of bounded capacity with a task at
//! its end, whose handler does nothing but count what it is given.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_batch::ChunksTimeoutStreamExt;
use sluicegate::{Batch, Batcher};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};

/// How batches are closed, and how many items may be on their way.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_items: usize,
    pub(crate) window: Duration,
    pub(crate) capacity: usize,
}

/// A sender's end and what waits for the other end to have handled everything.
pub(crate) trait Contender: Clone + Send + Sync + 'static {
    const NAME: &'static str;
    /// Waits until everything is handled, and says how many items that were.
    type Rest: Future<Output = u64> + Send + 'static;

    /// To be called on a runtime.
    fn start(limits: Limits) -> (Self, Self::Rest);
    fn send(&self, item: u64) -> impl Future<Output = ()> + Send;
}

#[derive(Clone)]
pub(crate) struct Ours(pub(crate) Batcher<u64>);

impl Contender for Ours {
    const NAME: &'static str = "ours";
    type Rest = futures_util::future::BoxFuture<'static, u64>;

    fn start(limits: Limits) -> (Self, Self::Rest) {
        let batcher = Batcher::builder()
            .max_items(limits.max_items)
            .window(limits.window)
            .capacity(limits.capacity)
            .dead_letter(|_, _| unreachable!("nothing fails here"))
            .build(|batch: Batch<u64>| async move {
                drop(batch);
                Ok::<(), std::convert::Infallible>(())
            })
            .unwrap();
        let rest = batcher.clone();
        (Self(batcher), Box::pin(async move { rest.shutdown(None).await.delivered }))
    }

    #[inline]
    async fn send(&self, item: u64) {
        self.0.send(item).await.unwrap()
    }
}

/// Awaits the task at the end of a channel, whose senders are gone.
pub(crate) struct Joined(JoinHandle<u64>);

impl Future for Joined {
    type Output = u64;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<u64> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(Result::unwrap)
    }
}

/// The loop that people write: a channel, `recv_many`, a timer that starts with the first item, one
/// buffer that is used again.
#[derive(Clone)]
pub(crate) struct ByHand(mpsc::Sender<u64>);

impl Contender for ByHand {
    const NAME: &'static str = "by hand";
    type Rest = Joined;

    fn start(limits: Limits) -> (Self, Joined) {
        let (sender, mut receiver) = mpsc::channel(limits.capacity);
        let task = tokio::spawn(async move {
            let mut handled = 0;
            let mut batch = Vec::with_capacity(limits.max_items);
            let mut window = pin!(sleep_until(Instant::now()));
            loop {
                let room = limits.max_items - batch.len();
                tokio::select! {
                    biased;
                    () = &mut window, if !batch.is_empty() => {
                        handled += handle(&mut batch).await;
                    }
                    received = receiver.recv_many(&mut batch, room) => {
                        if received == 0 {
                            return handled + handle(&mut batch).await;
                        }
                        if batch.len() == limits.max_items {
                            handled += handle(&mut batch).await;
                        } else if batch.len() == received {
                            window.as_mut().reset(Instant::now() + limits.window);
                        }
                    }
                }
            }
        });
        (Self(sender), Joined(task))
    }

    #[inline]
    async fn send(&self, item: u64) {
        self.0.send(item).await.unwrap()
    }
}

async fn handle(batch: &mut Vec<u64>) -> u64 {
    let handled = batch.len() as u64;
    batch.clear();
    handled
}

/// Handles the chunks of a stream until it ends.
fn consume(chunks: impl Stream<Item = Vec<u64>> + Send + 'static) -> Joined {
    Joined(tokio::spawn(async move {
        let mut chunks = pin!(chunks);
        let mut handled = 0;
        while let Some(mut batch) = chunks.next().await {
            handled += handle(&mut batch).await;
        }
        handled
    }))
}

macro_rules! chunked {
    ($contender:ident $name:literal, |$stream:ident, $limits:ident| $chunks:expr) => {
        #[derive(Clone)]
        pub(crate) struct $contender(mpsc::Sender<u64>);

        impl Contender for $contender {
            const NAME: &'static str = $name;
            type Rest = Joined;

            fn start($limits: Limits) -> (Self, Joined) {
                let (sender, receiver) = mpsc::channel($limits.capacity);
                let $stream = ReceiverStream::new(receiver);
                (Self(sender), consume($chunks))
            }

            #[inline]
            async fn send(&self, item: u64) {
                self.0.send(item).await.unwrap()
            }
        }
    };
}

chunked!(ChunksTimeout "chunks_timeout", |stream, limits| {
    StreamExt::chunks_timeout(stream, limits.max_items, limits.window)
});
chunked!(FuturesBatch "futures-batch", |stream, limits| {
    ChunksTimeoutStreamExt::chunks_timeout(stream, limits.max_items, limits.window)
});

/// It knows no window: a batch is what is there.
#[derive(Clone)]
pub(crate) struct BatchChannel(batch_channel::Sender<u64>);

impl Contender for BatchChannel {
    const NAME: &'static str = "batch-channel";
    type Rest = Joined;

    fn start(limits: Limits) -> (Self, Joined) {
        let (sender, receiver) = batch_channel::bounded(limits.capacity);
        let task = tokio::spawn(async move {
            let mut handled = 0;
            let mut batch = Vec::with_capacity(limits.max_items);
            loop {
                receiver.recv_vec(limits.max_items, &mut batch).await;
                if batch.is_empty() {
                    return handled;
                }
                handled += handle(&mut batch).await;
            }
        });
        (Self(sender), Joined(task))
    }

    #[inline]
    async fn send(&self, item: u64) {
        self.0.send(item).await.unwrap()
    }
}
