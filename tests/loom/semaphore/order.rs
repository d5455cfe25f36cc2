//! Models of the memory order: what was written before a permit was returned is seen by the next
//! holder. What is written here is written relaxed, so that nothing but the permit orders it.

use super::support;

use std::sync::Arc;
use std::task::Poll;

use loom::sync::atomic::{AtomicBool, Ordering};
use sluicegate::Semaphore;
use support::*;

/// 17. By the fast path, and by the wait list.
///
/// Fails with a relaxed addition in `release`, with a relaxed compare-exchange in `take_from` or in
/// `join`, and if `served` is stored or loaded relaxed.
#[test]
fn release_is_seen_by_acquire() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([1]);
        let note = Note::default();
        let mut waiter = Waiter::new(&semaphore, 1);

        let writer = note.write_and(move || drop(permit));
        // Twice, so that it can be served as a waiter without having been joined.
        let mut polled = waiter.poll();
        if polled.is_pending() {
            polled = waiter.poll();
        }
        if let Poll::Ready(acquired) = polled {
            note.assert_seen();
            drop(acquired);
        }
        writer.join().unwrap();

        drop(waiter);
        assert_at_rest(&semaphore, 1);
    });
}

/// 17. By an acquire that another thread got ahead of, between its look at the permits and its step.
///
/// Fails with a relaxed exchange in `take_contended`.
#[test]
fn release_is_seen_by_a_contended_acquire() {
    exhaustive(|| {
        let semaphore = Arc::new(Semaphore::new(2));
        let (note, taken) = (Note::default(), Note::default());

        let (noted, took) = (note.clone(), taken.clone());
        let writer = elsewhere(&semaphore, move |semaphore| {
            if let Ok(permit) = semaphore.try_acquire() {
                took.0.store(true, Ordering::Relaxed);
                noted.0.store(true, Ordering::Relaxed);
                drop(permit);
            }
        });
        let was_taken = taken.0.load(Ordering::Relaxed);
        if let Ok(permits) = semaphore.try_acquire_many(2) {
            if was_taken {
                note.assert_seen();
            }
            drop(permits);
        }
        writer.join().unwrap();

        assert_at_rest(&semaphore, 2);
    });
}

/// 17. By a waiter that is granted two permits by the thread that returned the last, and looked for
///     the close before that.
///
/// Three threads that all go through the lock are too many to be exhaustive; three preemptions
/// are what it takes.
///
/// Fails if `grant` reads the word relaxed.
#[test]
fn both_releases_are_seen_by_one_granted() {
    bounded(3, || {
        let (semaphore, [one, two]) = held([1, 1]);
        let note = Note::default();
        let mut waiter = Waiter::new(&semaphore, 2);

        let writer = note.write_and(move || drop(one));
        let release = drop_elsewhere(two);
        let mut polled = waiter.poll();
        if polled.is_pending() {
            polled = waiter.poll();
        }
        if let Poll::Ready(acquired) = polled {
            note.assert_seen();
            drop(acquired);
        }
        writer.join().unwrap();
        release.join().unwrap();

        drop(waiter);
        assert_at_rest(&semaphore, 2);
    });
}

/// 17. By an acquire that takes what a grant has left.
///
/// Fails if `grant` changes the word relaxed.
#[test]
fn release_is_seen_by_an_acquire_of_the_rest() {
    exhaustive(|| {
        let (semaphore, [permit]) = held([2]);
        let note = Note::default();
        let waiter = Waiter::waiting(&semaphore, 1);

        let writer = note.write_and(move || drop(permit));
        if let Ok(permit) = semaphore.try_acquire() {
            note.assert_seen();
            drop(permit);
        }
        writer.join().unwrap();

        drop(waiter.granted());
        assert_at_rest(&semaphore, 2);
    });
}

/// 17. By the fast path, after permits that were added.
///
/// Fails with a relaxed addition in `give`.
#[test]
fn added_permits_are_seen_by_acquire() {
    let adds: [fn(&Semaphore); 2] =
        [|semaphore| semaphore.add_permits(1), |semaphore| semaphore.set_limit(1)];
    for add in adds {
        exhaustive(move || {
            let (semaphore, []) = held([]);
            let note = Note::default();

            let adding = semaphore.clone();
            let writer = note.write_and(move || add(&adding));
            if let Ok(permit) = semaphore.try_acquire() {
                note.assert_seen();
                drop(permit);
            }
            writer.join().unwrap();

            assert_at_rest(&semaphore, 1);
        });
    }
}

/// 17. By a thread that sees all permits back, or takes them out of circulation.
///
/// Fails if `available_permits` reads the word relaxed, and with a relaxed exchange in
/// `forget_permits`.
#[test]
fn release_is_seen_by_a_count() {
    type Count = (fn(&Semaphore) -> bool, usize);
    let counts: [Count; 2] = [
        (|semaphore| semaphore.available_permits() == 1, 0),
        (|semaphore| semaphore.forget_permits(1) == 1, 1),
    ];
    for (count, forgets) in counts {
        exhaustive(move || {
            let (semaphore, [permit]) = held([1]);
            let note = Note::default();

            let writer = note.write_and(move || drop(permit));
            let back = count(&semaphore);
            if back {
                note.assert_seen();
            }
            writer.join().unwrap();

            assert_at_rest(&semaphore, if back { 1 - forgets } else { 1 });
        });
    }
}

/// 17. What was written before the close is seen by a thread that finds it closed.
///
/// Fails with a relaxed `fetch_or` in `close`, and if `is_closed` reads the word relaxed.
#[test]
fn close_is_seen() {
    exhaustive(|| {
        let (semaphore, []) = held([]);
        let note = Note::default();

        let closing = semaphore.clone();
        let writer = note.write_and(move || closing.close());
        if semaphore.is_closed() {
            note.assert_seen();
        }
        writer.join().unwrap();

        assert!(semaphore.is_closed());
    });
}

#[derive(Clone, Default)]
struct Note(Arc<AtomicBool>);

impl Note {
    /// In a thread of its own.
    fn write_and(&self, act: impl FnOnce() + 'static) -> loom::thread::JoinHandle<()> {
        let note = self.clone();
        loom::thread::spawn(move || {
            note.0.store(true, Ordering::Relaxed);
            act();
        })
    }

    #[track_caller]
    fn assert_seen(&self) {
        assert!(self.0.load(Ordering::Relaxed), "what was written before is not seen");
    }
}
