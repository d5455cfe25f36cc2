//! The channels, each behind the thinnest possible layer.

use std::future::Future;
use std::sync::Arc;

use sluicegate::OverflowQueue;

/// Sends and receives `u64`s between tasks; waits while the channel is full or empty.
pub(crate) trait Channel: 'static {
    const NAME: &'static str;
    type Sender: Clone + Send + Sync + 'static;
    type Receiver: Send + 'static;

    fn new(capacity: usize) -> (Self::Sender, Self::Receiver);
    fn send(sender: &Self::Sender, item: u64) -> impl Future<Output = ()> + Send;
    /// Returns false at the end of the channel.
    fn receive(receiver: &mut Self::Receiver) -> impl Future<Output = bool> + Send;
    /// Ends the channel: most end with their last sender.
    fn close(_last: Self::Sender) {}
}

/// Channels with any number of receivers.
pub(crate) trait Multi: Channel {
    fn another(receiver: &Self::Receiver) -> Self::Receiver;
}

macro_rules! channel {
    (
        $channel:ident $name:literal,
        sender: $sender:ty, receiver: $receiver:ty,
        new: $new:expr,
        send: |$tx:ident, $item:ident| $send:expr,
        receive: |$rx:ident| $receive:expr,
        $(close: $close:expr,)?
        $(another: $another:expr,)?
    ) => {
        pub(crate) struct $channel;

        impl Channel for $channel {
            const NAME: &'static str = $name;
            type Sender = $sender;
            type Receiver = $receiver;

            fn new(capacity: usize) -> (Self::Sender, Self::Receiver) {
                let new: fn(usize) -> _ = $new;
                new(capacity)
            }

            #[inline]
            async fn send($tx: &Self::Sender, $item: u64) {
                $send
            }

            #[inline]
            async fn receive($rx: &mut Self::Receiver) -> bool {
                $receive
            }

            $(fn close(last: Self::Sender) {
                let close: fn(Self::Sender) = $close;
                close(last);
            })?
        }

        $(impl Multi for $channel {
            fn another(receiver: &Self::Receiver) -> Self::Receiver {
                let another: fn(&Self::Receiver) -> Self::Receiver = $another;
                another(receiver)
            }
        })?
    };
}

channel! {
    Ours "ours",
    sender: Arc<OverflowQueue<u64>>, receiver: Arc<OverflowQueue<u64>>,
    new: |capacity| {
        let queue = Arc::new(OverflowQueue::new(capacity).unwrap());
        (queue.clone(), queue)
    },
    send: |tx, item| assert!(tx.push(item).await.is_stored()),
    receive: |rx| rx.pop().await.is_ok(),
    close: |queue| queue.close(),
    another: Arc::clone,
}

channel! {
    Tokio "tokio",
    sender: tokio::sync::mpsc::Sender<u64>, receiver: tokio::sync::mpsc::Receiver<u64>,
    new: tokio::sync::mpsc::channel,
    send: |tx, item| tx.send(item).await.unwrap(),
    receive: |rx| rx.recv().await.is_some(),
}

channel! {
    AsyncChannel "async-channel",
    sender: async_channel::Sender<u64>, receiver: async_channel::Receiver<u64>,
    new: async_channel::bounded,
    send: |tx, item| tx.send(item).await.unwrap(),
    receive: |rx| rx.recv().await.is_ok(),
    another: Clone::clone,
}

channel! {
    Flume "flume",
    sender: flume::Sender<u64>, receiver: flume::Receiver<u64>,
    new: flume::bounded,
    send: |tx, item| tx.send_async(item).await.unwrap(),
    receive: |rx| rx.recv_async().await.is_ok(),
    another: Clone::clone,
}

channel! {
    Kanal "kanal",
    sender: kanal::AsyncSender<u64>, receiver: kanal::AsyncReceiver<u64>,
    new: kanal::bounded_async,
    send: |tx, item| tx.send(item).await.unwrap(),
    receive: |rx| rx.recv().await.is_ok(),
    another: Clone::clone,
}

channel! {
    Crossfire "crossfire",
    sender: crossfire::MAsyncTx<crossfire::mpmc::Array<u64>>,
    receiver: crossfire::MAsyncRx<crossfire::mpmc::Array<u64>>,
    new: crossfire::mpmc::bounded_async,
    send: |tx, item| tx.send(item).await.unwrap(),
    receive: |rx| rx.recv().await.is_ok(),
    another: Clone::clone,
}

channel! {
    CrossfireMpsc "crossfire mpsc",
    sender: crossfire::MAsyncTx<crossfire::mpsc::Array<u64>>,
    receiver: crossfire::AsyncRx<crossfire::mpsc::Array<u64>>,
    new: crossfire::mpsc::bounded_async,
    send: |tx, item| tx.send(item).await.unwrap(),
    receive: |rx| rx.recv().await.is_ok(),
}
