//! The offset tracker beside what is written by hand: a set of incomplete offsets under a mutex.

use std::collections::{BTreeSet, VecDeque};
use std::hint::black_box;
use std::sync::{Arc, Mutex};

use sluicegate::{Ack, OffsetTracker};
use sluicegate_benches::{Cost, Options, Scale, Table, Workload, timed, timed_in_slices};

/// Incomplete offsets, sorted, and the next to come.
#[derive(Default)]
struct Offsets {
    incomplete: BTreeSet<u64>,
    last: u64,
}

/// By hand: what is committable is what is below the lowest incomplete offset.
#[derive(Clone, Default)]
struct ByHand(Arc<Mutex<Offsets>>);

struct Handle {
    offsets: ByHand,
    position: u64,
}

trait Tracker: Clone + Send + 'static {
    type Ack: Send;
    fn make() -> Self;
    fn track(&self, position: u64) -> Self::Ack;
    fn complete(ack: Self::Ack);
    fn committed(&self) -> u64;
}

const CAPACITY: usize = 1 << 21;

impl Tracker for OffsetTracker {
    type Ack = Ack<()>;

    fn make() -> Self {
        OffsetTracker::builder().capacity(CAPACITY).window(CAPACITY).build().unwrap()
    }

    fn track(&self, position: u64) -> Ack<()> {
        self.try_track(position, ()).unwrap()
    }

    fn complete(ack: Ack<()>) {
        ack.complete();
    }

    fn committed(&self) -> u64 {
        self.committable().map_or(0, |committed| committed.position)
    }
}

impl Tracker for ByHand {
    type Ack = Handle;

    fn make() -> Self {
        Self::default()
    }

    fn track(&self, position: u64) -> Handle {
        let mut offsets = self.0.lock().unwrap();
        offsets.incomplete.insert(position);
        offsets.last = position;
        Handle { offsets: self.clone(), position }
    }

    fn complete(handle: Handle) {
        handle.offsets.0.lock().unwrap().incomplete.remove(&handle.position);
    }

    fn committed(&self) -> u64 {
        let offsets = self.0.lock().unwrap();
        offsets.incomplete.first().map_or(offsets.last, |first| first - 1)
    }
}

fn in_order<T: Tracker>(scale: Scale) -> Cost {
    let tracker = T::make();
    let mut position = 0;
    let cost = timed_in_slices(scale.of(2_000_000), |times| {
        for _ in 0..times {
            position += 1;
            T::complete(black_box(tracker.track(position)));
        }
    });
    assert_eq!(tracker.committed(), position);
    cost
}

/// So many are in work at any time; the oldest thousand complete at random.
fn deep<T: Tracker>(incomplete: u64, scale: Scale) -> Cost {
    const BLOCK: u64 = 1_000;
    let tracker = T::make();
    let mut acks: VecDeque<T::Ack> = (1..=incomplete).map(|at| tracker.track(at)).collect();
    let (mut position, mut random) = (incomplete, 0x9e37_79b9_7f4a_7c15_u64);
    let cost = timed_in_slices(scale.of(2_000_000).next_multiple_of(BLOCK), |times| {
        for _ in 0..times {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let at = (random % BLOCK) as usize;
            position += 1;
            acks.push_back(tracker.track(position));
            if let Some(ack) = acks.swap_remove_front(at) {
                T::complete(ack);
            }
        }
    });
    acks.into_iter().for_each(T::complete);
    assert_eq!(tracker.committed(), position);
    cost
}

/// What [`deep`] costs without a tracker: the queue of as many handles of the size of an `Ack`.
fn handles_alone(incomplete: u64, scale: Scale) -> Cost {
    const BLOCK: u64 = 1_000;
    const SIZE: usize = size_of::<Ack<()>>() / 8;
    let mut handles: VecDeque<[u64; SIZE]> = (1..=incomplete).map(|at| [at; SIZE]).collect();
    let (mut position, mut random) = (incomplete, 0x9e37_79b9_7f4a_7c15_u64);
    timed_in_slices(scale.of(2_000_000).next_multiple_of(BLOCK), |times| {
        for _ in 0..times {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            position += 1;
            handles.push_back([position; SIZE]);
            black_box(handles.swap_remove_front((random % BLOCK) as usize));
        }
    })
}

/// Each of `incomplete` is completed at random and replaced by the next position.
fn out_of_order<T: Tracker>(incomplete: usize, scale: Scale) -> Cost {
    let tracker = T::make();
    let mut position = 0;
    let mut next = || {
        position += 1;
        tracker.track(position)
    };
    let mut acks: Vec<T::Ack> = (0..incomplete).map(|_| next()).collect();
    // In rounds, so that the oldest is never more than two of them behind.
    let mut order: Vec<u32> = (0..incomplete as u32).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..order.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        order.swap(at, (random % (at as u64 + 1)) as usize);
    }
    let mut turns = order.iter().cycle();
    let ops = scale.of(2_000_000).max(incomplete as u64 * 2);
    let cost = timed_in_slices(ops, |times| {
        for _ in 0..times {
            let at = *turns.next().unwrap() as usize;
            let ack = std::mem::replace(&mut acks[at], next());
            T::complete(ack);
        }
    });
    acks.into_iter().for_each(T::complete);
    assert_eq!(tracker.committed(), position);
    cost
}

/// Four tasks on two threads complete what was tracked before, each every fourth position.
fn four_tasks<T: Tracker>(scale: Scale) -> Cost {
    let tracker = T::make();
    let ops = scale.of(400_000);
    let mut shares: [Vec<T::Ack>; 4] = [const { Vec::new() }; 4];
    for position in 1..=ops {
        shares[(position % 4) as usize].push(tracker.track(position));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let cost = timed(ops, || {
        runtime.block_on(async {
            let tasks = shares.map(|share| {
                tokio::spawn(async move {
                    for (at, ack) in share.into_iter().enumerate() {
                        T::complete(ack);
                        if at % 64 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            });
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
    assert_eq!(tracker.committed(), ops);
    cost
}

const BY_HAND: &str = "Mutex<BTreeSet>";

fn main() {
    let options = Options::from_args(15);
    let mut table = Table::new("Offset tracker");
    table.add(
        Workload::new("track and complete in order, one thread")
            .ours(in_order::<OffsetTracker>)
            .rival(BY_HAND, in_order::<ByHand>),
    );
    table.add(
        Workload::new("track and complete, out of order within 10,000")
            .ours(|scale| out_of_order::<OffsetTracker>(10_000, scale))
            .rival(BY_HAND, |scale| out_of_order::<ByHand>(10_000, scale)),
    );
    table.add(
        Workload::new("four tasks complete on two threads")
            .at_most(0.5, BY_HAND)
            .ours(four_tasks::<OffsetTracker>)
            .rival(BY_HAND, four_tasks::<ByHand>),
    );
    table.add(
        Workload::new("1,000,000 incomplete, the oldest complete out of order within 1,000")
            .at_most(1.5, "ours with 1,000")
            .ours(|scale| deep::<OffsetTracker>(1_000_000, scale))
            .rival("ours with 1,000", |scale| deep::<OffsetTracker>(1_000, scale))
            .beside(BY_HAND, |scale| deep::<ByHand>(1_000_000, scale))
            .beside("1,000,000 handles alone", |scale| handles_alone(1_000_000, scale)),
    );
    table.add(
        Workload::new("1,000,000 incomplete, any of them completes next: a cache miss each")
            .ours(|scale| out_of_order::<OffsetTracker>(1_000_000, scale))
            .rival(BY_HAND, |scale| out_of_order::<ByHand>(1_000_000, scale)),
    );
    table.run(&options);
}
