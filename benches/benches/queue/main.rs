//! The queue beside its peers.
//!
//! With waiting pushers the peers are the channels with any number of receivers, and tokio's where one
//! receiver is enough; crossfire's form for a single receiver is shown beside them. With displacement
//! there is one peer: async-channel can push the oldest item out and hand it back. It neither counts it
//! nor reports it to the reader.

mod contenders;

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Instant;

use contenders::{
    AsyncChannel, Channel, Crossfire, CrossfireMpsc, Flume, Kanal, Multi, Ours, Tokio,
};
use sluicegate::OverflowQueue;
use sluicegate::queue::WhenFull;
use sluicegate_benches::{Cost, Options, Scale, Table, Workload, timed_in_slices};
use tokio::runtime::{Builder, Runtime};

const CAPACITY: usize = 1_024;
const ITEMS: u64 = 1_000_000;
const MANY: usize = 500;

/// Shared by all workloads.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).build().unwrap());

/// Each sender sends its part; each receiver receives until the end.
fn transfer<C: Channel>(
    senders: u64,
    scale: Scale,
    receivers: impl FnOnce(C::Receiver) -> Vec<C::Receiver>,
) -> Cost {
    let each = scale.of(ITEMS) / senders;
    let (sender, receiver) = C::new(CAPACITY);
    let receivers = receivers(receiver);
    let start = Instant::now();
    RUNTIME.block_on(async {
        let sending: Vec<_> = (0..senders)
            .map(|_| {
                let sender = sender.clone();
                tokio::spawn(async move {
                    for item in 0..each {
                        C::send(&sender, item).await;
                    }
                })
            })
            .collect();
        let receiving: Vec<_> = receivers
            .into_iter()
            .map(|mut receiver| {
                tokio::spawn(async move {
                    let mut count = 0;
                    while C::receive(&mut receiver).await {
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for task in sending {
            task.await.unwrap();
        }
        C::close(sender);
        let mut count = 0;
        for task in receiving {
            count += task.await.unwrap();
        }
        assert_eq!(count, each * senders);
        Cost::of(count, start.elapsed())
    })
}

fn one_to_one<C: Channel>(scale: Scale) -> Cost {
    transfer::<C>(1, scale, |receiver| vec![receiver])
}

fn many_to_many<C: Multi>(scale: Scale) -> Cost {
    transfer::<C>(4, scale, |receiver| {
        let mut receivers: Vec<_> = (1..4).map(|_| C::another(&receiver)).collect();
        receivers.push(receiver);
        receivers
    })
}

fn pop_many(scale: Scale) -> Cost {
    let items = scale.of(ITEMS);
    let (sender, queue) = Ours::new(CAPACITY);
    let start = Instant::now();
    RUNTIME.block_on(async {
        let sending = tokio::spawn(async move {
            for item in 0..items {
                Ours::send(&sender, item).await;
            }
            sender.close();
        });
        let receiving = tokio::spawn(async move {
            let mut into = Vec::with_capacity(MANY);
            let mut count = 0;
            while let Ok(more) = queue.pop_many_into(&mut into, MANY).await {
                count += more as u64;
                into.clear();
            }
            count
        });
        sending.await.unwrap();
        assert_eq!(receiving.await.unwrap(), items);
    });
    Cost::of(items, start.elapsed())
}

fn recv_many(scale: Scale) -> Cost {
    let items = scale.of(ITEMS);
    let (sender, mut receiver) = Tokio::new(CAPACITY);
    let start = Instant::now();
    RUNTIME.block_on(async {
        let sending = tokio::spawn(async move {
            for item in 0..items {
                Tokio::send(&sender, item).await;
            }
        });
        let receiving = tokio::spawn(async move {
            let mut into = Vec::with_capacity(MANY);
            let mut count = 0;
            loop {
                match receiver.recv_many(&mut into, MANY).await {
                    0 => return count,
                    more => count += more as u64,
                }
                into.clear();
            }
        });
        sending.await.unwrap();
        assert_eq!(receiving.await.unwrap(), items);
    });
    Cost::of(items, start.elapsed())
}

const FULL: usize = 10_000;

/// Pushes to a full queue without readers.
fn drop_oldest(when_full: WhenFull, scale: Scale) -> Cost {
    let queue = OverflowQueue::builder().capacity(FULL).when_full(when_full).build().unwrap();
    (0..FULL as u64).for_each(|item| assert!(queue.try_push(item).is_stored()));
    timed_in_slices(scale.of(ITEMS), |times| {
        for item in 0..times {
            let _ = black_box(black_box(&queue).try_push(item));
        }
    })
}

fn force_send(scale: Scale) -> Cost {
    let (sender, _receiver) = async_channel::bounded(FULL);
    (0..FULL as u64).for_each(|item| sender.try_send(item).unwrap());
    timed_in_slices(scale.of(ITEMS), |times| {
        for item in 0..times {
            let _ = black_box(black_box(&sender).force_send(item));
        }
    })
}

fn main() {
    let options = Options::from_args(31);
    let mut table = Table::new("OverflowQueue; ns an item");
    table.add(
        Workload::new("one producer, one consumer, wait, capacity 1,024")
            .at_most(1.0, "the best")
            .ours(one_to_one::<Ours>)
            .rival(Tokio::NAME, one_to_one::<Tokio>)
            .rival(AsyncChannel::NAME, one_to_one::<AsyncChannel>)
            .rival(Flume::NAME, one_to_one::<Flume>)
            .rival(Kanal::NAME, one_to_one::<Kanal>)
            .rival(Crossfire::NAME, one_to_one::<Crossfire>)
            .beside(CrossfireMpsc::NAME, one_to_one::<CrossfireMpsc>),
    );
    table.add(
        Workload::new("four producers, four consumers")
            .at_most(1.0, "the best")
            .ours(many_to_many::<Ours>)
            .rival(AsyncChannel::NAME, many_to_many::<AsyncChannel>)
            .rival(Flume::NAME, many_to_many::<Flume>)
            .rival(Kanal::NAME, many_to_many::<Kanal>)
            .rival(Crossfire::NAME, many_to_many::<Crossfire>),
    );
    table.add(
        Workload::new("`pop_many(500)`, one producer")
            .at_most(0.5, "tokio's `recv_many`")
            .ours(pop_many)
            .rival("tokio", recv_many),
    );
    table.add(
        Workload::new("full, drop oldest by one, no consumer")
            .at_most(0.8, "async-channel's `force_send`")
            .ours(|scale| drop_oldest(WhenFull::DropOldest, scale))
            .rival("async-channel", force_send),
    );
    table.add(
        Workload::new("full, drop oldest 20 %, no consumer")
            .at_most(0.5, "ours by one")
            .ours(|scale| drop_oldest(WhenFull::DropOldestShare { percent: 20 }, scale))
            .rival("ours by one", |scale| drop_oldest(WhenFull::DropOldest, scale)),
    );
    table.run(&options);
}
