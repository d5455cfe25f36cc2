//! Every interleaving of the batcher's threads. What runs here is the core, the handles and the
//! driver that ship; only the clock is another: it stands still.
//!
//! Each model was seen to fail with the guard that it names taken out. They are kept small so that
//! they are exhaustive: what does not race runs before the threads start or after they are joined.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use loom::future::block_on;
use loom::thread;
use sluicegate::Semaphore;
use sluicegate::batcher::{Batch, Batcher, Builder, Driver};

const NEVER: Duration = Duration::from_secs(3600);
const AT_ONCE: Duration = Duration::ZERO;

/// Polls once, whoever is woken by it.
fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    block_on(poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))))
}

/// Runs the driver, as often as it is woken, until it has delivered something.
fn drive_until_delivered(driver: &mut Driver, ledger: &Ledger) {
    block_on(poll_fn(|cx| {
        assert!(Pin::new(&mut *driver).poll(cx).is_pending());
        if ledger.items().is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }));
}

/// The items of each batch that was delivered, and of each that was buried. Its lock is the
/// standard one: no model waits for it, and loom need not look into it.
#[derive(Clone, Default)]
struct Ledger {
    delivered: Arc<Mutex<Vec<Vec<u32>>>>,
    buried: Arc<Mutex<Vec<u32>>>,
}

impl Ledger {
    fn builder(&self) -> Builder<u32> {
        let buried = self.buried.clone();
        Batcher::builder().dead_letter(move |items, _| buried.lock().unwrap().extend(items))
    }

    fn build(&self, builder: Builder<u32>) -> (Batcher<u32>, Driver) {
        let delivered = self.delivered.clone();
        let handler = move |mut batch: Batch<u32>| {
            delivered.lock().unwrap().push(batch.take());
            async { Ok::<(), String>(()) }
        };
        builder.build_with_driver(handler).unwrap()
    }

    fn sizes(&self) -> Vec<usize> {
        self.delivered.lock().unwrap().iter().map(Vec::len).collect()
    }

    /// All that was delivered, each item once.
    fn items(&self) -> BTreeSet<u32> {
        let delivered = self.delivered.lock().unwrap();
        let items: BTreeSet<_> = delivered.iter().flatten().copied().collect();
        assert_eq!(items.len(), delivered.iter().flatten().count(), "an item came twice");
        items
    }
}

/// Guard: the batch is closed in the step that fills it. Taken out (closed after the lock was let
/// go and taken again), a third item gets into a batch of two.
#[test]
fn two_senders_race_to_close_a_batch() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, driver) = ledger.build(ledger.builder().max_items(2).window(NEVER));
        batcher.try_send(1).unwrap();
        let senders = [2, 3].map(|item| {
            let batcher = batcher.clone();
            thread::spawn(move || batcher.try_send(item).unwrap())
        });
        for sender in senders {
            sender.join().unwrap();
        }
        drop(batcher);
        block_on(driver);
        assert_eq!(ledger.items(), BTreeSet::from([1, 2, 3]));
        assert_eq!(ledger.sizes(), [2, 1]);
    });
}

/// Guard: a batch and its window are closed in one step. Taken out (the items taken in one, the
/// window ended in the next), an item that falls in between has no window, and stays for ever.
#[test]
fn the_end_of_the_window_against_the_send_that_fills_the_batch() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, mut driver) = ledger.build(ledger.builder().max_items(2).window(AT_ONCE));
        batcher.try_send(1).unwrap();
        let sender = thread::spawn({
            let batcher = batcher.clone();
            move || batcher.try_send(2).unwrap()
        });
        assert!(poll_once(Pin::new(&mut driver)).is_pending());
        sender.join().unwrap();
        drop(batcher);
        block_on(driver);
        assert_eq!(ledger.items(), BTreeSet::from([1, 2]));
        assert!(ledger.sizes().iter().all(|size| (1..=2).contains(size)));
    });
}

/// Guard: an item is refused in the step that would have accepted it. Taken out, an item gets into
/// a batch that nobody closes any more, or comes when the driver is done.
#[test]
fn a_send_against_a_shutdown() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, mut driver) = ledger.build(ledger.builder().max_items(2).window(NEVER));
        let sender = thread::spawn({
            let batcher = batcher.clone();
            move || batcher.try_send(1).map_err(|error| error.into_inner())
        });
        let mut shutdown = Box::pin(batcher.shutdown(None));
        assert!(poll_once(shutdown.as_mut()).is_pending());
        assert!(poll_once(Pin::new(&mut driver)).is_ready());
        let sent = sender.join().unwrap();
        match sent {
            Ok(()) => assert_eq!(ledger.items(), BTreeSet::from([1])),
            Err(item) => {
                assert_eq!(item, 1);
                assert!(ledger.items().is_empty());
            }
        }
        assert!(block_on(shutdown).all_delivered());
        assert_eq!(batcher.stats().pending, 0);
    });
}

/// Guard: a shutdown closes the line of the senders. Taken out, one waits there for ever.
#[test]
fn a_sender_in_line_against_a_shutdown() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, driver) =
            ledger.build(ledger.builder().max_items(1).capacity(1).window(AT_ONCE));
        // The driver is not polled: there is room for nobody else.
        batcher.try_send(0).unwrap();
        let sender = thread::spawn({
            let batcher = batcher.clone();
            move || block_on(batcher.send(1)).map_err(|error| error.into_inner())
        });
        let mut shutdown = Box::pin(batcher.shutdown(None));
        assert!(poll_once(shutdown.as_mut()).is_pending());
        assert_eq!(sender.join().unwrap(), Err(1));
        drop(driver);
        assert_eq!(*ledger.buried.lock().unwrap(), [0]);
    });
}

/// Guard: a flush closes the open batch and wakes the driver. Either taken out, it waits for ever.
#[test]
fn a_send_and_then_a_flush() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, mut driver) = ledger.build(ledger.builder().max_items(2).window(NEVER));
        batcher.try_send(1).unwrap();
        let flushing = thread::spawn({
            let (batcher, ledger) = (batcher.clone(), ledger.clone());
            move || {
                let report = block_on(batcher.flush());
                assert_eq!(ledger.items(), BTreeSet::from([1]), "it was sent before");
                assert_eq!(report.delivered, 1);
            }
        });
        drive_until_delivered(&mut driver, &ledger);
        flushing.join().unwrap();
    });
}

/// Guard: the driver leaves its waker in the step that finds nothing to do. Taken out (left in a
/// step of its own), the first item falls in between, and wakes nobody.
#[test]
fn the_first_item_against_a_driver_going_to_sleep() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, mut driver) = ledger.build(ledger.builder().max_items(2).window(AT_ONCE));
        let sender = thread::spawn({
            let batcher = batcher.clone();
            move || batcher.try_send(1).unwrap()
        });
        drive_until_delivered(&mut driver, &ledger);
        sender.join().unwrap();
        assert_eq!(ledger.items(), BTreeSet::from([1]));
    });
}

/// Guard: dropping the last handle wakes the driver. Taken out, it sleeps for ever.
#[test]
fn the_last_handle_is_dropped_while_the_driver_goes_to_sleep() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, driver) = ledger.build(ledger.builder().max_items(2).window(NEVER));
        batcher.try_send(1).unwrap();
        let other = batcher.clone();
        let droppers = [batcher, other].map(|handle| thread::spawn(move || drop(handle)));
        block_on(driver);
        for dropper in droppers {
            dropper.join().unwrap();
        }
        assert_eq!(ledger.items(), BTreeSet::from([1]));
    });
}

/// Guard: a guard that was missing wakes the driver when it comes back, and is looked for before
/// the driver sleeps. Either taken out, it sleeps for ever.
#[test]
fn a_guard_comes_back_from_another_thread_while_the_driver_goes_to_sleep() {
    loom::model(|| {
        let ledger = Ledger::default();
        let guards = Arc::new(Mutex::new(Vec::new()));
        let threads = guards.clone();
        let handler = move |batch: Batch<u32>| {
            threads.lock().unwrap().push(thread::spawn(move || drop(batch)));
            async { Ok::<(), String>(()) }
        };
        let builder = ledger.builder().max_items(1).window(AT_ONCE);
        let (batcher, driver) = builder.build_with_driver(handler).unwrap();
        batcher.try_send(1).unwrap();
        drop(batcher);
        block_on(driver);
        let guards = std::mem::take(&mut *guards.lock().unwrap());
        for guard in guards {
            guard.join().unwrap();
        }
        assert!(ledger.buried.lock().unwrap().is_empty());
    });
}

/// Guard: a stop decides in one step whether a guard was back. Taken out (who is missing is
/// counted in one step and forgotten in the next), an item that came back in between is lost.
#[test]
fn a_guard_comes_back_against_the_deadline_of_a_shutdown() {
    loom::model(|| {
        let ledger = Ledger::default();
        let left = Arc::new(Mutex::new(None));
        let leave = left.clone();
        let handler = move |batch: Batch<u32>| {
            *leave.lock().unwrap() = Some(batch);
            async { Ok::<(), String>(()) }
        };
        let builder = ledger.builder().max_items(1).window(AT_ONCE);
        let (batcher, mut driver) = builder.build_with_driver(handler).unwrap();
        batcher.try_send(1).unwrap();
        assert!(poll_once(Pin::new(&mut driver)).is_pending());
        let mut shutdown = Box::pin(batcher.shutdown(Some(AT_ONCE)));
        assert!(poll_once(shutdown.as_mut()).is_pending());

        let guard: Batch<u32> = left.lock().unwrap().take().unwrap();
        let returning = thread::spawn(move || drop(guard));
        block_on(driver);
        returning.join().unwrap();

        let ended = block_on(shutdown);
        let buried = ledger.buried.lock().unwrap().len();
        let ends = ended.delivered as usize + ended.indeterminate.len() + buried;
        assert_eq!(ends, 1, "delivered, handed back or buried: once");
        assert_eq!(buried as u64, ended.still_held);
    });
}

type Sending = Pin<Box<dyn Future<Output = Result<(), u32>>>>;

/// A batcher that is full with two items, and two more that wait in line.
fn two_in_line(ledger: &Ledger) -> (Batcher<u32>, Driver, [Sending; 2]) {
    let (batcher, driver) = ledger.build(ledger.builder().max_items(2).capacity(2).window(NEVER));
    batcher.try_send(1).unwrap();
    batcher.try_send(2).unwrap();
    let line = [3, 4].map(|item| {
        let batcher = batcher.clone();
        let mut sending: Sending =
            Box::pin(async move { batcher.send(item).await.map_err(|error| error.into_inner()) });
        assert!(poll_once(sending.as_mut()).is_pending());
        sending
    });
    (batcher, driver, line)
}

/// Guards: more senders than are woken out of one critical section (one, in a model) are woken out
/// of the next, and a sender's waker is replaced in the step that finds it still in line. Either
/// taken out, the second waits for ever: nobody wakes it, or only the task that polled it before.
#[test]
fn the_second_in_line_is_polled_anew_while_room_for_both_becomes_free() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, mut driver, [first, second]) = two_in_line(&ledger);
        let driving = thread::spawn(move || {
            assert!(poll_once(Pin::new(&mut driver)).is_pending());
            driver
        });
        assert_eq!(block_on(second), Ok(()));
        let driver = driving.join().unwrap();
        assert_eq!(block_on(first), Ok(()));
        drop(batcher);
        block_on(driver);
        assert_eq!(ledger.items(), BTreeSet::from([1, 2, 3, 4]));
        assert_eq!(ledger.sizes(), [2, 2]);
    });
}

/// Guard: who is not sent away in the first critical section of a shutdown is in the next. Taken
/// out, the second waits for ever.
#[test]
fn the_second_in_line_is_polled_anew_against_a_shutdown() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, driver, [first, second]) = two_in_line(&ledger);
        let closing = thread::spawn(move || {
            let mut shutdown = Box::pin(batcher.shutdown(None));
            assert!(poll_once(shutdown.as_mut()).is_pending());
        });
        assert_eq!(block_on(second), Err(4));
        closing.join().unwrap();
        assert_eq!(block_on(first), Err(3));
        drop(driver);
        assert_eq!(*ledger.buried.lock().unwrap(), [1, 2]);
    });
}

/// Guard: a slot that is dropped serves the line in the step that gives its room back. Taken out,
/// who has joined it since waits for ever.
#[test]
fn a_slot_is_dropped_while_a_sender_joins_the_line() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, driver) =
            ledger.build(ledger.builder().max_items(1).capacity(1).window(NEVER));
        let reserving = thread::spawn({
            let batcher = batcher.clone();
            move || {
                let mut reserving = Box::pin(batcher.reserve());
                if let Poll::Ready(slot) = poll_once(reserving.as_mut()) {
                    drop(slot.unwrap());
                }
            }
        });
        block_on(batcher.send(1)).unwrap();
        reserving.join().unwrap();
        drop(driver);
        assert_eq!(*ledger.buried.lock().unwrap(), [1]);
    });
}

/// Guard: the driver that sleeps for want of a permit stands in line for it with its own waker.
/// Taken out (with another), it sleeps for ever.
#[test]
fn a_permit_of_a_shared_semaphore_comes_free_while_the_driver_goes_to_sleep() {
    loom::model(|| {
        let ledger = Ledger::default();
        let semaphore = Arc::new(Semaphore::new(1));
        let permit = semaphore.clone().try_acquire_owned().unwrap();
        let builder = ledger.builder().max_items(1).window(AT_ONCE);
        let (batcher, mut driver) = ledger.build(builder.semaphore(semaphore));
        batcher.try_send(1).unwrap();
        let giving = thread::spawn(move || drop(permit));
        drive_until_delivered(&mut driver, &ledger);
        giving.join().unwrap();
        assert_eq!(ledger.items(), BTreeSet::from([1]));
    });
}

/// Guard: who gives up a place in line passes on the room that was just granted to it. Taken out,
/// that room is lost.
#[test]
fn a_waiting_send_is_cancelled_against_the_room_that_becomes_free() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, mut driver) =
            ledger.build(ledger.builder().max_items(1).capacity(1).window(AT_ONCE));
        batcher.try_send(1).unwrap();
        let mut waiting = Box::pin({
            let batcher = batcher.clone();
            async move { batcher.send(2).await }
        });
        assert!(poll_once(waiting.as_mut()).is_pending());
        let cancelling = thread::spawn(move || drop(waiting));
        assert!(poll_once(Pin::new(&mut driver)).is_pending());
        cancelling.join().unwrap();
        batcher.try_send(3).expect("the room is free");
        drop(batcher);
        block_on(driver);
        assert_eq!(ledger.items(), BTreeSet::from([1, 3]));
    });
}
