//! Every interleaving of the offset tracker's threads.
//!
//! Each model was seen to fail with the guard that it names taken out.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::future::block_on;
use loom::thread;
use sluicegate::offsets::TrackError;
use sluicegate::{Ack, OffsetTracker};

use crate::explore::exhaustive;

/// Counts how often it was woken: with `std`'s atomics, as it only observes.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn tracker(capacity: usize) -> OffsetTracker {
    OffsetTracker::new(capacity).unwrap()
}

fn poll<F: Future>(future: Pin<&mut F>, woken: &Arc<Woken>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
}

fn committed(tracker: &OffsetTracker) -> Option<u64> {
    tracker.committable().map(|committed| committed.position)
}

/// Guard: an acknowledgement is noted and the front is moved in one critical section. Taken out (the
/// lock released between the two), the second to come may find the first not noted and stop before it,
/// while the first does not look beyond itself.
#[test]
fn two_acknowledgements_commit_both() {
    exhaustive(|| {
        let tracker = tracker(2);
        let acks = [1, 2].map(|position| tracker.try_track(position, ()).unwrap());
        let threads = acks.map(|ack| thread::spawn(move || ack.complete()));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(committed(&tracker), Some(2));
    });
}

/// Guard: the parts of a split are counted by their `Arc`, and the last settles with the worst verdict.
/// Taken out (the part that completes settles the whole), a released part is committed.
#[test]
fn the_parts_of_a_split_settle_once_with_the_worst() {
    exhaustive(|| {
        let tracker = tracker(1);
        let parts = tracker.try_track(1, ()).unwrap().split(2);
        let [first, second]: [Ack<()>; 2] = parts.try_into().unwrap();
        let threads =
            [thread::spawn(move || first.complete()), thread::spawn(move || second.release())];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((committed(&tracker), tracker.stats().awaiting_redelivery), (None, 1));
        tracker.redeliver().unwrap().ack.complete();
        assert_eq!(committed(&tracker), Some(1));
    });
}

/// Guard: a call that finds no room joins the wait list in the same critical section. Taken out (it
/// looks, lets go of the lock and then joins), the room is freed in between and nobody wakes it.
#[test]
fn an_acknowledgement_serves_a_call_that_waits_for_room() {
    exhaustive(|| {
        let tracker = tracker(1);
        let first = tracker.try_track(1, ()).unwrap();
        let completes = thread::spawn(move || first.complete());
        let second = block_on(tracker.track(2, ())).unwrap();
        completes.join().unwrap();
        assert_eq!(committed(&tracker), Some(1));
        second.complete();
        assert_eq!(committed(&tracker), Some(2));
    });
}

/// Guard: acknowledgements are compared with the epoch's first slot under the lock, and a slot's number
/// is never used again. Taken out (numbers begin at 0 in each epoch), the late one completes the
/// position that was tracked again.
#[test]
fn an_acknowledgement_is_of_its_epoch_or_ignored() {
    exhaustive(|| {
        let tracker = tracker(1);
        let old = tracker.try_track(1, ()).unwrap();
        let completes = thread::spawn(move || old.complete());
        assert_eq!(tracker.new_epoch(), 1);
        let again = (!tracker.is_complete(1)).then(|| tracker.try_track(1, ()).unwrap());
        completes.join().unwrap();
        let stats = tracker.stats();
        assert_eq!(stats.completed + stats.late_acks, 1);
        // Completed before the epoch, or fenced and tracked once more.
        assert_eq!((stats.late_acks == 1, stats.fenced), (again.is_some(), stats.late_acks));
        assert_eq!(committed(&tracker), again.is_none().then_some(1));
    });
}

/// Guard: a waiter that leaves takes its slot with it if it was served already, and the next is served.
/// Taken out (it only leaves the list), its position is incomplete for ever and the next waits on.
#[test]
fn a_waiter_that_leaves_passes_on_its_room() {
    exhaustive(|| {
        let tracker = tracker(1);
        let first = tracker.try_track(1, ()).unwrap();
        let mut leaves = Box::pin(tracker.track(2, ()));
        let woken = Arc::new(Woken::default());
        assert!(poll(leaves.as_mut(), &woken).is_pending());
        let mut stays = pin!(tracker.track(3, ()));
        assert!(poll(stays.as_mut(), &woken).is_pending());
        let completes = thread::spawn(move || first.complete());
        drop(leaves);
        completes.join().unwrap();
        assert!(woken.times() >= 1);
        let Poll::Ready(Ok(ack)) = poll(stays.as_mut(), &woken) else { panic!("it waits on") };
        ack.complete();
        assert_eq!(committed(&tracker), Some(3));
    });
}

/// Guard: a new epoch refuses the calls that wait. Taken out, a position from before it is tracked in it.
#[test]
fn a_call_that_waits_is_refused_by_a_new_epoch() {
    exhaustive(|| {
        let tracker = tracker(1);
        let first = tracker.try_track(1, ()).unwrap();
        let mut second = Box::pin(tracker.track(2, ()));
        assert!(poll(second.as_mut(), &Arc::default()).is_pending());
        let begins = {
            let tracker = tracker.clone();
            thread::spawn(move || tracker.new_epoch())
        };
        let second = block_on(second);
        begins.join().unwrap();
        assert!(matches!(second, Err(TrackError::NewEpoch)));
        assert!(first.is_fenced());
    });
}

/// Guard: a watcher compares and joins the wait list in one critical section. Taken out, the move comes
/// in between and nobody wakes it.
#[test]
fn a_watcher_sees_every_advance() {
    exhaustive(|| {
        let tracker = tracker(2);
        let acks = [1, 2].map(|position| tracker.try_track(position, ()).unwrap());
        let [first, second] = acks.map(|ack| thread::spawn(move || ack.complete()));
        let mut seen = None;
        while seen != Some(2) {
            let committed = block_on(tracker.changed(seen)).unwrap();
            assert!(Some(committed.position) > seen);
            seen = Some(committed.position);
        }
        first.join().unwrap();
        second.join().unwrap();
    });
}

/// Guard: a released position is handed to the waiter in the critical section that releases it, and goes
/// to the next if that waiter leaves. Taken out (it only leaves the list), the position is lost.
#[test]
fn a_released_position_reaches_one_that_waits() {
    exhaustive(|| {
        let tracker = tracker(1);
        let ack = tracker.try_track(1, ()).unwrap();
        let mut leaves = Box::pin(tracker.redelivery());
        let woken = Arc::new(Woken::default());
        assert!(poll(leaves.as_mut(), &woken).is_pending());
        let releases = thread::spawn(move || drop(ack));
        drop(leaves);
        let again = block_on(tracker.redelivery()).unwrap();
        releases.join().unwrap();
        assert_eq!((again.position, again.deliveries), (1, 2));
        again.ack.complete();
        assert_eq!(committed(&tracker), Some(1));
    });
}

/// Guard: closing wakes those that watch and those that wait for a redelivery. Taken out, they wait on.
#[test]
fn closing_ends_every_wait() {
    exhaustive(|| {
        let tracker = tracker(1);
        let ack = tracker.try_track(1, ()).unwrap();
        let closes = {
            let tracker = tracker.clone();
            thread::spawn(move || {
                tracker.close();
                ack.complete();
            })
        };
        assert!(block_on(tracker.redelivery()).is_none());
        assert_eq!(block_on(tracker.changed(Some(1))), None);
        assert!(matches!(block_on(tracker.track(2, ())), Err(TrackError::Closed)));
        closes.join().unwrap();
    });
}
