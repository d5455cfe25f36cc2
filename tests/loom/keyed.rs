//! Every interleaving of a keyed batcher's threads, and of callers with their answers. What runs
//! here is the core, the handles and the driver that ship; only the clock is another: it stands
//! still.
//!
//! Each model was seen to fail with the guard that it names taken out.

use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use loom::future::block_on;
use loom::thread;
use sluicegate::batcher::{
    Batch, Batcher, Builder, Call, Caller, Driver, Keyed, KeyedBatch, KeyedBatcher,
};

const NEVER: Duration = Duration::from_secs(3600);
const AT_ONCE: Duration = Duration::ZERO;

/// Polls once, whoever is woken by it.
fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    block_on(poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))))
}

type HandedOver = Vec<(u8, Vec<u32>)>;

/// The batches that were delivered, with their keys. Its lock is the standard one: no model waits
/// for it.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<HandedOver>>);

impl Ledger {
    fn keyed(max_keys: usize) -> Builder<u32, Keyed<u8>> {
        Batcher::keyed(max_keys).dead_letter(|_, _, _| panic!("nothing fails here"))
    }

    fn build(&self, builder: Builder<u32, Keyed<u8>>) -> (KeyedBatcher<u8, u32>, Driver) {
        let ledger = self.clone();
        let handler = move |mut batch: KeyedBatch<u8, u32>| {
            let key = *batch.key();
            ledger.0.lock().unwrap().push((key, batch.take()));
            async { Ok::<(), String>(()) }
        };
        builder.build_with_driver(handler).unwrap()
    }

    /// All items of a key, each once.
    fn items(&self, key: u8) -> BTreeSet<u32> {
        let batches = self.0.lock().unwrap();
        let of_key = || batches.iter().filter(|(of, _)| *of == key).flat_map(|(_, items)| items);
        let items: BTreeSet<_> = of_key().copied().collect();
        assert_eq!(items.len(), of_key().count(), "an item came twice");
        items
    }
}

/// Guard: a key is evicted in the step that opens the batch of another, and what is closed gets its
/// turn. The first taken out (the bound not looked at), two keys are open; the second (closed, but
/// without a turn), the evicted items are never handed over.
#[test]
fn a_key_is_evicted_against_a_send_to_it() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, driver) = ledger.build(Ledger::keyed(1).max_items(8).window(NEVER));
        batcher.try_send(1, 10).unwrap();
        let evicting = thread::spawn({
            let batcher = batcher.clone();
            move || batcher.try_send(2, 20).unwrap()
        });
        batcher.try_send(1, 11).unwrap();
        evicting.join().unwrap();
        let stats = batcher.stats();
        assert_eq!((stats.keys, stats.peak_keys), (1, 1));
        drop(batcher);
        block_on(driver);
        assert_eq!(ledger.items(1), BTreeSet::from([10, 11]));
        assert_eq!(ledger.items(2), BTreeSet::from([20]));
    });
}

/// Guard: an item that opens the first of the open batches wakes the driver, in the step in which
/// the driver would have left its waker. Taken out (woken by full batches only), the driver sleeps
/// while both windows are over.
#[test]
fn two_keys_ripen_at_once_against_one_driver() {
    loom::model(|| {
        let ledger = Ledger::default();
        let (batcher, mut driver) = ledger.build(Ledger::keyed(2).max_items(8).window(AT_ONCE));
        let senders = [1, 2].map(|key| {
            let batcher = batcher.clone();
            thread::spawn(move || batcher.try_send(key, u32::from(key)).unwrap())
        });
        block_on(poll_fn(|cx| {
            assert!(Pin::new(&mut driver).poll(cx).is_pending());
            let both = ledger.0.lock().unwrap().len() == 2;
            if both { Poll::Ready(()) } else { Poll::Pending }
        }));
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(ledger.items(1), BTreeSet::from([1]));
        assert_eq!(ledger.items(2), BTreeSet::from([2]));
        assert_eq!(batcher.keys(), 0);
    });
}

/// Guard: items that are finished make room under their key for who waits there. Taken out, the
/// sender waits for ever.
#[test]
fn a_sender_to_a_full_key_against_the_end_of_its_batch() {
    loom::model(|| {
        let ledger = Ledger::default();
        let builder = Ledger::keyed(2).max_items(1).capacity(4).capacity_per_key(1);
        let (batcher, mut driver) = ledger.build(builder.window(AT_ONCE));
        batcher.try_send(1, 10).unwrap();
        let sender = thread::spawn({
            let batcher = batcher.clone();
            move || block_on(batcher.send(1, 11)).unwrap()
        });
        assert!(poll_once(Pin::new(&mut driver)).is_pending());
        sender.join().unwrap();
        drop(batcher);
        block_on(driver);
        assert_eq!(ledger.items(1), BTreeSet::from([10, 11]));
    });
}

/// Guard: who leaves the line of a key passes on the room that was just granted. Taken out, that
/// room is lost.
#[test]
fn a_sender_to_a_full_key_leaves_against_the_end_of_its_batch() {
    loom::model(|| {
        let ledger = Ledger::default();
        let builder = Ledger::keyed(2).max_items(1).capacity(4).capacity_per_key(1);
        let (batcher, mut driver) = ledger.build(builder.window(AT_ONCE));
        batcher.try_send(1, 10).unwrap();
        let mut waiting = Box::pin({
            let batcher = batcher.clone();
            async move { batcher.send(1, 11).await }
        });
        assert!(poll_once(waiting.as_mut()).is_pending());
        let leaving = thread::spawn(move || drop(waiting));
        assert!(poll_once(Pin::new(&mut driver)).is_pending());
        leaving.join().unwrap();
        batcher.try_send(1, 12).expect("there is room under the key");
        drop(batcher);
        block_on(driver);
        assert_eq!(ledger.items(1), BTreeSet::from([10, 12]));
    });
}

type Sending = Pin<Box<dyn Future<Output = ()>>>;

fn sending(batcher: &KeyedBatcher<u8, u32>, key: u8, item: u32) -> Sending {
    let batcher = batcher.clone();
    let mut sending: Sending = Box::pin(async move { batcher.send(key, item).await.unwrap() });
    assert!(poll_once(sending.as_mut()).is_pending());
    sending
}

/// Guards: a lane in whose line are more than are woken out of one critical section (one, in a
/// model) is served in the next, and a sender's waker is replaced in the step that finds it still in
/// the line of its key. Either taken out, the second waits for ever: nobody wakes it, or only the
/// task that polled it before.
#[test]
fn the_second_in_the_line_of_a_key_is_polled_anew_while_room_for_both_becomes_free() {
    loom::model(|| {
        let ledger = Ledger::default();
        let builder = Ledger::keyed(2).max_items(2).capacity(8).capacity_per_key(2);
        let (batcher, mut driver) = ledger.build(builder.window(NEVER));
        batcher.try_send(1, 10).unwrap();
        batcher.try_send(1, 11).unwrap();
        let [first, second] = [12, 13].map(|item| sending(&batcher, 1, item));
        let driving = thread::spawn(move || {
            assert!(poll_once(Pin::new(&mut driver)).is_pending());
            driver
        });
        block_on(second);
        let driver = driving.join().unwrap();
        block_on(first);
        drop(batcher);
        block_on(driver);
        assert_eq!(ledger.items(1), BTreeSet::from([10, 11, 12, 13]));
        let sizes: Vec<_> = ledger.0.lock().unwrap().iter().map(|(_, items)| items.len()).collect();
        assert_eq!(sizes, [2, 2]);
    });
}

/// Guard: a sender that leaves the line of all gives back the room under its key, which serves the
/// next of that key. Taken out, that one waits for ever.
#[test]
fn a_sender_leaves_the_line_of_all_while_the_next_of_its_key_waits() {
    loom::model(|| {
        let ledger = Ledger::default();
        let builder = Ledger::keyed(2).max_items(1).capacity(1).capacity_per_key(1);
        let (batcher, mut driver) = ledger.build(builder.window(AT_ONCE));
        batcher.try_send(2, 20).unwrap();
        // The first has room under the key, and waits for room in all; the second waits for the key.
        let [first, second] = [10, 11].map(|item| sending(&batcher, 1, item));
        let leaving = thread::spawn(move || drop(first));
        assert!(poll_once(Pin::new(&mut driver)).is_pending());
        block_on(second);
        leaving.join().unwrap();
        drop(batcher);
        block_on(driver);
        assert_eq!(ledger.items(1), BTreeSet::from([11]));
        assert_eq!(ledger.items(2), BTreeSet::from([20]));
    });
}

/// Guard: what many have in hand when the batcher is closed goes back to where it came from. Taken
/// out, an item is neither delivered nor left.
#[test]
fn many_are_sent_against_a_shutdown() {
    loom::model(|| {
        let ledger = Ledger::default();
        let builder = Ledger::keyed(2).max_items(1).capacity(2).capacity_per_key(1);
        let (batcher, mut driver) = ledger.build(builder.window(AT_ONCE));
        let sender = thread::spawn({
            let batcher = batcher.clone();
            move || {
                let mut items = VecDeque::from([(1, 10), (1, 11)]);
                let sent = block_on(batcher.send_many(&mut items));
                assert_eq!(sent.is_ok(), items.is_empty());
                items
            }
        });
        assert!(poll_once(Pin::new(&mut driver)).is_pending());
        let mut stopped = Box::pin(batcher.shutdown(None));
        assert!(poll_once(stopped.as_mut()).is_pending());
        block_on(driver);
        let delivered = ledger.items(1).into_iter();
        let left = sender.join().unwrap().into_iter().map(|(_, item)| item);
        let all: Vec<_> = delivered.chain(left).collect();
        assert_eq!(all, [10, 11], "each once, and in order");
        assert!(matches!(poll_once(stopped.as_mut()), Poll::Ready(ended) if ended.all_delivered()));
    });
}

/// What a caller is answered with, counted as it is dropped.
struct Answer(Arc<AtomicUsize>);

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn answering(
    dropped: &Arc<AtomicUsize>,
    max_items: usize,
    capacity: usize,
) -> (Caller<u32, Answer>, Driver) {
    let dropped = dropped.clone();
    let handler = move |mut batch: Batch<Call<u32, Answer>>| {
        batch.reply_with(|_| Answer(dropped.clone()));
        drop(batch);
        async { Ok::<(), String>(()) }
    };
    let builder = Batcher::builder().max_items(max_items).capacity(capacity).window(AT_ONCE);
    builder.build_caller_with_driver(handler).unwrap()
}

/// Guard: a caller that is dropped marks its reply slot as abandoned, and the last to use the slot frees
/// it. Taken out (the state stays as it is), the answer stays in the slot and is not dropped.
#[test]
fn an_answer_against_a_caller_that_leaves() {
    loom::model(|| {
        let dropped = Arc::default();
        let (batcher, mut driver) = answering(&dropped, 8, 8);
        let mut call = Box::pin({
            let batcher = batcher.clone();
            async move { batcher.call(1).await.is_ok() }
        });
        assert!(poll_once(call.as_mut()).is_pending());
        let leaving = thread::spawn(move || drop(call));
        assert!(poll_once(Pin::new(&mut driver)).is_pending());
        leaving.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1, "the answer is dropped once");
        // The slot is used again.
        let mut next = Box::pin(batcher.call(2));
        assert!(poll_once(next.as_mut()).is_pending());
        assert!(poll_once(Pin::new(&mut driver)).is_pending());
        assert!(matches!(poll_once(next.as_mut()), Poll::Ready(Ok(_))));
        assert_eq!(batcher.stats().delivered, 2);
    });
}

/// Guard: an answer wakes its caller. Taken out, the caller sleeps for ever.
#[test]
fn an_answer_against_a_caller_going_to_sleep() {
    loom::model(|| {
        let dropped = Arc::default();
        let (batcher, mut driver) = answering(&dropped, 8, 8);
        let calling = thread::spawn({
            let batcher = batcher.clone();
            move || assert!(block_on(batcher.call(1)).is_ok())
        });
        block_on(poll_fn(|cx| {
            assert!(Pin::new(&mut driver).poll(cx).is_pending());
            if batcher.stats().delivered == 1 { Poll::Ready(()) } else { Poll::Pending }
        }));
        calling.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

/// Guard: a caller that is polled by another task puts that task's waker into its slot in the critical
/// section that finds no answer there. Taken out (the first waker stays), the task that has the caller
/// now sleeps for ever.
#[test]
fn an_answer_against_a_caller_that_moves_to_another_task() {
    loom::model(|| {
        let dropped = Arc::default();
        let (batcher, mut driver) = answering(&dropped, 8, 8);
        let mut call = Box::pin({
            let batcher = batcher.clone();
            async move { batcher.call(1).await.is_ok() }
        });
        assert!(poll_once(call.as_mut()).is_pending());
        let driving = thread::spawn(move || {
            assert!(poll_once(Pin::new(&mut driver)).is_pending());
            driver
        });
        assert!(block_on(call));
        drop(driving.join().unwrap());
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

/// Guard: a call that waited for room in another task than the one that sends it leaves this task's
/// waker in its slot, or takes the answer that is there by then. Taken out (it waits for the waker with
/// which it began), the task that has the caller now sleeps for ever.
#[test]
fn an_answer_against_a_caller_that_moves_while_it_waits_for_room() {
    loom::model(|| {
        let dropped = Arc::default();
        let (batcher, mut driver) = answering(&dropped, 1, 1);
        let mut first = Box::pin(batcher.call(1));
        assert!(poll_once(first.as_mut()).is_pending());
        let mut second = Box::pin({
            let batcher = batcher.clone();
            async move { batcher.call(2).await.is_ok() }
        });
        assert!(poll_once(second.as_mut()).is_pending());
        let calling = thread::spawn(move || assert!(block_on(second)));
        block_on(poll_fn(|cx| {
            assert!(Pin::new(&mut driver).poll(cx).is_pending());
            if batcher.stats().delivered == 2 { Poll::Ready(()) } else { Poll::Pending }
        }));
        calling.join().unwrap();
        assert!(matches!(poll_once(first.as_mut()), Poll::Ready(Ok(_))));
        drop(first);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    });
}
