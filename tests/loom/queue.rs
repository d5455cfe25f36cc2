//! Models of the queue: every interleaving of small programs.
//!
//! Wake-ups are counted with `std`'s atomics: they only observe, so that they must not add
//! interleavings of their own. Pending futures are polled again when all threads have been joined;
//! they must have been woken by then, so that a lost wake-up is a failed assertion.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::{FutureExt, StreamExt};
use loom::thread::{self, JoinHandle};
use sluicegate::OverflowQueue;
use sluicegate::model::without_budget;
use sluicegate::queue::{Items, Popped, Pushed, WhenFull};

use crate::explore::{bounded, exhaustive};

type Queue = Arc<OverflowQueue<u64>>;

fn queue(capacity: usize, when_full: WhenFull) -> Queue {
    Arc::new(OverflowQueue::builder().capacity(capacity).when_full(when_full).build().unwrap())
}

/// Room for one item, taken by item 0.
fn full(when_full: WhenFull) -> Queue {
    let queue = queue(1, when_full);
    assert!(queue.try_push(0).is_stored());
    queue
}

fn elsewhere<T: 'static>(queue: &Queue, act: impl FnOnce(Queue) -> T + 'static) -> JoinHandle<T> {
    let queue = queue.clone();
    thread::spawn(move || act(queue))
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A future, and the task that polls it.
struct Task<F> {
    future: F,
    wakes: Arc<Wakes>,
}

impl<F: Future + Unpin> Task<F> {
    fn new(future: F) -> Self {
        Self { future, wakes: Arc::default() }
    }

    fn waiting(future: F) -> Self {
        let mut task = Self::new(future);
        assert!(task.poll().is_pending());
        task
    }

    fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(self.wakes.clone());
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }

    /// The output, now that all other threads have ended: at once, or after a wake-up.
    fn outcome(&mut self, polled: Poll<F::Output>) -> F::Output {
        match polled {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                assert!(self.wakes() > 0, "it sleeps");
                match self.poll() {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => panic!("it was woken without need"),
                }
            }
        }
    }
}

/// The next item of a queue, for a task that outlives the borrow.
fn reader(queue: &Queue) -> impl Future<Output = Option<Popped<u64>>> + Unpin + 'static {
    let mut items: Items<Queue, u64> = queue.clone().items_owned();
    std::future::poll_fn(move |cx| items.poll_next_unpin(cx))
}

/// A push that outlives the borrow.
fn pusher(queue: &Queue, item: u64) -> impl Future<Output = Pushed<u64>> + Unpin + 'static {
    let queue = queue.clone();
    Box::pin(async move { queue.push(item).await })
}

#[track_caller]
fn assert_conservation(queue: &OverflowQueue<u64>) {
    let stats = queue.stats();
    let left = stats.popped + stats.displaced() + stats.rejected() + stats.drained;
    assert_eq!(stats.pushed, left + stats.len as u64, "{stats:?}");
    assert_eq!((stats.waiting_pushers, stats.waiting_readers), (0, 0), "{stats:?}");
}

/// Of two waiting pushes the first may get the room that a pop makes; the other is woken by the close.
///
/// Fails if `next_to_serve` passes over waiting pushes once the queue is closed.
#[test]
fn close_against_push_and_pop() {
    exhaustive(|| {
        let queue = full(WhenFull::Wait);
        let mut first = Task::waiting(pusher(&queue, 1));
        let mut second = Task::waiting(pusher(&queue, 2));

        let close = elsewhere(&queue, |queue| queue.close());
        let popped = queue.try_pop();
        let polled = first.poll();
        close.join().unwrap();

        assert_eq!(popped.unwrap().item, 0);
        let stored = first.outcome(polled).is_stored();
        assert_eq!(second.wakes(), 1);
        assert!(!second.outcome(Poll::Pending).is_stored());
        assert_eq!(queue.len(), usize::from(stored));
        assert_conservation(&queue);
    });
}

/// A waiting reader gets the item that was pushed before the close, or is woken by the close.
///
/// Fails if `next_to_serve` passes over waiting readers once the queue is closed.
#[test]
fn close_against_push_to_a_waiting_reader() {
    exhaustive(|| {
        let queue = queue(1, WhenFull::Wait);
        let mut read = Task::waiting(reader(&queue));

        let close = elsewhere(&queue, |queue| queue.close());
        let pushed = queue.try_push(1);
        close.join().unwrap();

        assert_eq!(read.wakes(), 1);
        let item = read.outcome(Poll::Pending).map(|popped| popped.item);
        match pushed {
            Pushed::Stored => assert_eq!(item, Some(1)),
            Pushed::Rejected(_) => assert_eq!(item, None),
            other => panic!("{other:?}"),
        }
        assert_conservation(&queue);
    });
}

/// More readers than are woken in two batches, one of which is cancelled: each of the others is woken
/// once.
///
/// Fails if `serve` wakes no waiter after the first, or `serve_others` none after its first batch.
#[test]
fn close_against_a_cancelled_reader() {
    exhaustive(|| {
        let queue = queue(1, WhenFull::Wait);
        let mut readers: Vec<_> = (0..5).map(|_| Task::waiting(reader(&queue))).collect();
        let leaving = readers.remove(1);

        let leave = thread::spawn(move || drop(leaving));
        queue.close();
        leave.join().unwrap();

        // Before any other poll, which would wake the others.
        assert!(readers.iter().all(|read| read.wakes() == 1));
        for mut read in readers {
            assert_eq!(read.outcome(Poll::Pending), None);
        }
        assert_conservation(&queue);
    });
}

/// A waiting push is cancelled while a pop makes room, which goes to the next waiter.
///
/// Fails if `cancel` does not serve waiters before it releases the lock.
#[test]
fn a_dropped_push_passes_its_room_on() {
    exhaustive(|| {
        let queue = full(WhenFull::Wait);
        let first = Task::waiting(pusher(&queue, 1));
        let mut second = Task::waiting(pusher(&queue, 2));

        let leave = thread::spawn(move || drop(first));
        assert_eq!(queue.try_pop().unwrap().item, 0);
        leave.join().unwrap();

        assert!(second.outcome(Poll::Pending).is_stored());
        assert_eq!(queue.try_pop().unwrap().item, 2);
        assert_conservation(&queue);
    });
}

/// A waiting reader is cancelled while an item is pushed, which goes to the next waiter.
///
/// Fails if `cancel` does not serve waiters before it releases the lock.
#[test]
fn a_dropped_reader_passes_its_item_on() {
    exhaustive(|| {
        let queue = queue(1, WhenFull::Wait);
        let first = Task::waiting(reader(&queue));
        let mut second = Task::waiting(reader(&queue));

        let leave = thread::spawn(move || drop(first));
        assert!(queue.try_push(1).is_stored());
        leave.join().unwrap();

        assert_eq!(second.outcome(Poll::Pending).map(|popped| popped.item), Some(1));
        assert_conservation(&queue);
    });
}

/// Each item is displaced or popped, once, and the reader of the next is told of the gap.
///
/// Fails if the number of an item is read in another critical section than takes the item out.
#[test]
fn displacement_against_pop() {
    exhaustive(|| {
        let queue = full(WhenFull::DropOldest);

        let push = elsewhere(&queue, |queue| {
            (1..=2).map(|item| queue.try_push(item).into_displaced().unwrap().count()).sum()
        });
        let popped = queue.try_pop();
        let displaced: usize = push.join().unwrap();

        let mut seen: Vec<_> = popped.into_iter().collect();
        while let Ok(popped) = queue.try_pop() {
            seen.push(popped);
        }
        assert!(seen.is_sorted_by_key(|popped| popped.item));
        assert_eq!(seen.len() + displaced, 3);
        assert_eq!(seen.iter().map(|popped| popped.dropped_before).sum::<u64>(), displaced as u64);
        assert_conservation(&queue);
    });
}

/// An item that is reserved for a reader is drained: the reader stays first and gets the next one.
///
/// Fails if a drain does not revoke grants: the reader leaves the wait list and joins it at the end.
#[test]
fn drain_against_a_granted_reader() {
    exhaustive(|| {
        let queue = queue(1, WhenFull::DropOldest);
        let mut first = Task::waiting(reader(&queue));
        let second = Task::waiting(reader(&queue));
        assert!(queue.try_push(1).is_stored());

        let drain = elsewhere(&queue, |queue| queue.drain().items.len());
        let polled = first.poll();
        let drained = drain.join().unwrap();

        assert_eq!(polled.is_pending(), drained == 1);
        if polled.is_pending() {
            assert!(queue.try_push(2).is_stored());
        }
        let item = first.outcome(polled).map(|popped| popped.item);
        assert_eq!(item, Some(1 + drained as u64));
        assert_eq!(second.wakes(), 0);
        drop(second);
        assert_conservation(&queue);
    });
}

/// The waker of the last poll is woken.
///
/// Fails if `wait` keeps the earlier waker.
#[test]
fn poll_with_another_waker_against_push() {
    exhaustive(|| {
        let queue = queue(1, WhenFull::Wait);
        let mut read = Task::waiting(reader(&queue));

        let push = elsewhere(&queue, |queue| queue.try_push(1).is_stored());
        read.wakes = Arc::default();
        let polled = read.poll();
        assert!(push.join().unwrap());

        assert_eq!(read.outcome(polled).map(|popped| popped.item), Some(1));
        assert_conservation(&queue);
    });
}

/// Two pushers and two readers of a queue of one, each in a thread of its own that sleeps until it is
/// woken: none sleeps for ever, and what comes out is what went in.
///
/// Four threads, each of which may have to wait and be woken, have too many interleavings to explore;
/// all of those with at most two preemptions are.
///
/// Fails if the fast path is on while a waiter waits.
#[test]
fn two_pushers_and_two_readers_lose_no_wake_up() {
    bounded(2, || {
        let queue = queue(1, WhenFull::Wait);
        let push = |item| move |queue: Queue| loom::future::block_on(queue.push(item)).is_stored();
        let pop = |queue: Queue| loom::future::block_on(queue.pop()).unwrap().item;

        let pushes = [elsewhere(&queue, push(1)), elsewhere(&queue, push(2))];
        let read = elsewhere(&queue, pop);
        let items = pop(queue.clone()) + read.join().unwrap();

        assert!(pushes.into_iter().all(|push| push.join().unwrap()));
        assert_eq!(items, 3);
        assert!(queue.pop().now_or_never().is_none());
        assert_conservation(&queue);
    });
}

/// A reader without budget is polled while an item is pushed: it takes none, and has joined the wait
/// list or finds the item unreserved when it has budget again.
///
/// Fails if it takes the item, if it loses its id, if it joins and the fast path stays on, or if it
/// looks for items in another critical section than it joins in and that one serves no waiters.
#[test]
fn reader_without_budget_against_push() {
    exhaustive(|| {
        let queue = queue(1, WhenFull::Wait);
        let mut read = Task::new(reader(&queue));

        let push = elsewhere(&queue, |queue| queue.try_push(1).is_stored());
        assert!(without_budget(|| read.poll()).is_pending());
        assert!(push.join().unwrap());

        let stats = queue.stats();
        assert_eq!((stats.len, stats.popped), (1, 0));
        assert_eq!(read.wakes(), 1 + stats.waiting_readers);
        assert_eq!(read.outcome(Poll::Pending).map(|popped| popped.item), Some(1));
        assert_conservation(&queue);
    });
}

/// A push without budget is polled while a pop makes room: nothing is pushed, and it has joined the
/// wait list or finds the room unreserved when it has budget again.
///
/// Fails if it joins and the fast path stays on, or if it looks for room in another critical section
/// than it joins in and that one serves no waiters.
#[test]
fn push_without_budget_against_pop() {
    exhaustive(|| {
        let queue = full(WhenFull::Wait);
        let mut push = Task::new(pusher(&queue, 1));

        let pop = elsewhere(&queue, |queue| queue.try_pop().unwrap().item);
        assert!(without_budget(|| push.poll()).is_pending());
        assert_eq!(pop.join().unwrap(), 0);

        let stats = queue.stats();
        assert_eq!((stats.len, stats.pushed), (0, 1));
        assert_eq!(push.wakes(), 1 + stats.waiting_pushers);
        assert!(push.outcome(Poll::Pending).is_stored());
        assert_conservation(&queue);
    });
}
