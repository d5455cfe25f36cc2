//! What an executor's run shares with other threads is its ready queue. Each model wakes items from
//! threads of their own while the run polls, sleeps, settles, and gives places to other items. If
//! they are all through, the run is not done, and its task has not been woken, a wake-up is lost.

use crate::run;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::{self, JoinHandle};
use run::{Run, Task};
use sluicegate::model::advance;
use sluicegate::{BatchExecutor, ItemError, Semaphore, Settled, Stop, StopToken, all_fulfilled};

/// A door that another thread opens: the item behind it waits for that, as for any event.
#[derive(Default)]
struct Door {
    open: bool,
    waker: Option<Waker>,
}

type Shared = Arc<Mutex<Door>>;

fn door() -> Shared {
    Arc::new(Mutex::new(Door::default()))
}

fn open(door: &Shared) {
    let waker = {
        let mut door = door.lock().unwrap();
        door.open = true;
        door.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

async fn pass(door: &Shared) -> Result<(), String> {
    poll_fn(|cx| {
        let mut door = door.lock().unwrap();
        if door.open {
            return Poll::Ready(Ok(()));
        }
        door.waker = Some(cx.waker().clone());
        Poll::Pending
    })
    .await
}

fn executor(limit: usize) -> BatchExecutor {
    BatchExecutor::new(limit).unwrap()
}

/// Opens each door from a thread of its own.
fn open_all<const N: usize>(doors: [&Shared; N]) -> [JoinHandle<()>; N] {
    doors.map(|door| {
        let door = Arc::clone(door);
        thread::spawn(move || open(&door))
    })
}

/// Keeps a waker and wakes it from a thread, when the item that it belongs to has settled.
fn wake_late(waker: Waker) -> JoinHandle<()> {
    thread::spawn(move || waker.wake())
}

/// Ready at once, and leaves its waker behind.
async fn leave_waker(left: &Cell<Option<Waker>>) -> Result<(), String> {
    poll_fn(|cx| {
        left.set(Some(cx.waker().clone()));
        Poll::Ready(Ok(()))
    })
    .await
}

fn all_passed(outcomes: impl IntoIterator<Item = Settled<(), String>>) -> usize {
    all_fulfilled(outcomes).unwrap().len()
}

/// Two threads wake two items while the run goes to sleep.
///
/// Seen to fail when `ReadyQueue::take_or_sleep` looks at the list in one critical section and
/// leaves its waker in another.
#[test]
fn no_wake_up_is_lost_while_the_run_goes_to_sleep() {
    loom::model(|| {
        let doors = [door(), door()];
        let run = Run::start(executor(2).all_settled(&doors, pass));
        assert_eq!(all_passed(run.finish(open_all(doors.each_ref()))), 2);
    });
}

/// One item is woken from two threads, and needs both: the second may come while it is being polled
/// for the first.
///
/// Seen to fail when the group's word is read by `ReadyQueue::next` and cleared by the call after that,
/// when the future has been polled.
#[test]
fn a_wake_up_during_the_poll_counts() {
    loom::model(|| {
        let doors = [door(), door()];
        let run = Run::start(executor(1).all_settled([&doors], |[first, second]| {
            let (mut first, mut second) = (Box::pin(pass(first)), Box::pin(pass(second)));
            let mut passed = [false; 2];
            poll_fn(move |cx| {
                passed[0] = passed[0] || first.as_mut().poll(cx).is_ready();
                passed[1] = passed[1] || second.as_mut().poll(cx).is_ready();
                match passed {
                    [true, true] => Poll::Ready(Ok(())),
                    _ => Poll::Pending,
                }
            })
        }));
        assert_eq!(all_passed(run.finish(open_all(doors.each_ref()))), 1);
    });
}

/// An item has settled and left its waker behind, which a thread wakes late, when its slot belongs
/// to another; a second thread wakes this one.
///
/// Seen to fail with the same taken out: while the new item is polled for the late wake-up, its
/// own is not noted, and lost.
#[test]
fn a_late_wake_up_of_a_slot_used_again_does_no_harm() {
    loom::model(|| {
        let (left, second) = (Cell::new(None), door());
        let run = Run::start(executor(1).all_settled(0..2, async |n| {
            if n == 0 { leave_waker(&left).await } else { pass(&second).await }
        }));
        let late = wake_late(left.take().unwrap());
        let [opened] = open_all([&second]);
        assert_eq!(all_passed(run.finish([late, opened])), 2);
    });
}

/// As above, with the slot taken by an item that waits for its key: the late wake-up must not
/// start it while the item ahead of it runs.
///
/// Seen to fail ("two of one key") when a wake-up starts an item that is held.
#[test]
fn a_late_wake_up_does_not_start_an_item_ahead_of_its_key() {
    loom::model(|| {
        let (left, first, busy) = (Cell::new(None), door(), Cell::new(false));
        let keys = executor(2).by_key(|&(key, _): &(char, u8)| key);
        let run = keys.all_settled([('a', 0), ('b', 1), ('a', 2)], async |(key, n)| {
            if key == 'b' {
                return leave_waker(&left).await;
            }
            if busy.replace(true) {
                return Err("two of one key".to_owned());
            }
            if n == 0 {
                pass(&first).await?;
            }
            busy.set(false);
            Ok(())
        });
        let run = Run::start(run);
        let late = wake_late(left.take().unwrap());
        let [opened] = open_all([&first]);
        assert_eq!(all_passed(run.finish([late, opened])), 3);
    });
}

/// The sink waits for one thread and an item for another.
///
/// Seen to fail when the run does not tell the outcome sink that it was woken.
#[test]
fn the_sink_is_woken_beside_the_work() {
    loom::model(|| {
        let doors = [door(), door()];
        let [item, sink] = &doors;
        let run = Run::start(executor(2).for_each(
            0..2,
            async |n| if n == 0 { Ok(()) } else { pass(item).await },
            |index, _| async move {
                if index == 0 {
                    pass(sink).await.unwrap();
                }
            },
        ));
        let summary = run.finish(open_all(doors.each_ref()));
        assert!(summary.is_complete());
        assert_eq!(summary.pulled(), 2);
    });
}

/// The run is dropped while two of its three items are being woken; the third keeps its waker. All
/// futures are dropped, and nothing keeps the run's task alive.
///
/// Seen to fail (the task's waker is still held) when dropping `ReadyQueue` does nothing.
#[test]
fn a_run_dropped_while_it_is_woken_leaves_nothing_behind() {
    loom::model(|| {
        let doors = [door(), door(), door()];
        let alive = Arc::new(());
        let mut run = Run::start(executor(3).all_settled(&doors, |door| {
            let alive = Arc::clone(&alive);
            async move {
                let passed = pass(door).await;
                drop(alive);
                passed
            }
        }));
        let [first, second, _] = &doors;
        let threads = open_all([first, second]);
        assert!(run.poll().is_pending());
        let Run { future, task, waker } = run;
        drop((future, waker));
        assert_eq!(Arc::strong_count(&alive), 1);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(Arc::strong_count(&task), 1);
    });
}

fn stopped_by(token: &StopToken, limit: usize) -> BatchExecutor {
    BatchExecutor::builder().limit(limit).stop(token.clone()).build().unwrap()
}

/// One thread stops the run while it pulls and goes to sleep; when it has done so, no further pull
/// begins, and the run wakes for it.
///
/// Seen to fail (asleep) when the run leaves no waker with the token, or `StopToken::stop` wakes
/// first and tells the level afterwards; and (too many pulled) when `pull` does not look at it.
#[test]
fn a_stop_against_a_pull() {
    loom::model(|| {
        let token = StopToken::new();
        let (pulled, late) = (Cell::new(0), Cell::new(0));
        let done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&done);
        let inputs = std::iter::repeat_with(|| {
            pulled.set(pulled.get() + 1);
            late.set(late.get() + usize::from(seen.load(Ordering::SeqCst)));
        });
        // The first polls of the two that run do not end, and further ones are not needed.
        let run = stopped_by(&token, 3).all_settled(inputs.take(3), async |()| {
            let mut turns = 0;
            poll_fn(|cx| {
                turns += 1;
                if turns == 1 {
                    cx.waker().wake_by_ref();
                }
                Poll::<Result<(), String>>::Pending
            })
            .await
        });
        let stopper = {
            let token = token.clone();
            thread::spawn(move || {
                token.stop(Stop::Abort);
                done.store(true, Ordering::SeqCst);
            })
        };
        let task = Arc::new(Task { woken: AtomicBool::new(true) });
        let waker = Waker::from(Arc::clone(&task));
        let run = Run { future: Box::pin(run), task, waker };
        let all = run.finish([stopper]);
        assert!(all.iter().all(|outcome| matches!(outcome, Err(ItemError::Cancelled { .. }))));
        assert_eq!(all.len(), pulled.get());
        // The one that was being pulled.
        assert!(late.get() <= 1, "{} pulled after the stop", late.get());
    });
}

/// An item is woken by one thread, as an event or a timer would, and cancelled by another. One of
/// the two wins: it has one outcome, and its permit goes back once.
///
/// Seen to fail (asleep: an item that has settled still takes up its slot) when `abort` does not
/// vacate the slot of what it has settled.
#[test]
fn settling_against_cancelling_has_one_winner() {
    loom::model(|| {
        let (token, item) = (StopToken::new(), door());
        let semaphore = Arc::new(Semaphore::new(1));
        let executor =
            BatchExecutor::builder().semaphore(Arc::clone(&semaphore)).stop(token.clone());
        let outcomes = Cell::new(0);
        let run = Run::start(executor.build().unwrap().for_each([&item], pass, |index, _| {
            assert_eq!(index, 0);
            outcomes.set(outcomes.get() + 1);
            std::future::ready(())
        }));
        let [opened] = open_all([&item]);
        let stopper = thread::spawn(move || token.stop(Stop::Abort));
        let summary = run.finish_soon([opened, stopper]);
        assert_eq!((summary.pulled(), outcomes.get()), (1, 1));
        assert_eq!(semaphore.available_permits(), 1);
    });
}

/// Counts how often it is dropped.
struct Counted<'a>(&'a Cell<usize>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// An item is woken by one thread and cancelled by another, and a third makes it late. One of the
/// three wins: it has one outcome, and its future is dropped once.
///
/// Seen to fail (the slot is vacant) when `Limits` does not ask whether the item whose deadline is
/// first still runs.
#[test]
fn settling_against_cancelling_against_a_timeout_has_one_winner() {
    let mut model = loom::model::Builder::new();
    // Three threads beside a whole poll of the run: with any number of preemptions it had not come to
    // its end after a minute of CPU time. Each of the three can cut in on another once.
    model.preemption_bound = Some(3);
    model.check(|| {
        const LIMIT: Duration = Duration::from_secs(1);
        let (token, ready) = (StopToken::new(), Arc::new(AtomicBool::new(false)));
        let executor = BatchExecutor::builder().limit(1).item_timeout(LIMIT).stop(token.clone());
        let (outcomes, dropped) = (Cell::new(0), Cell::new(0));
        let left = Cell::new(None);
        let work = |()| {
            let (counted, ready, left) = (Counted(&dropped), &ready, &left);
            poll_fn(move |cx| {
                let _ = &counted;
                if ready.swap(false, Ordering::SeqCst) {
                    return Poll::Ready(Ok::<_, String>(()));
                }
                left.set(Some(cx.waker().clone()));
                Poll::Pending
            })
        };
        let run = Run::start(executor.build().unwrap().for_each([()], work, |index, _| {
            assert_eq!(index, 0);
            outcomes.set(outcomes.get() + 1);
            std::future::ready(())
        }));
        let waker = left.take().unwrap();
        let now = Arc::clone(&ready);
        let opener = thread::spawn(move || {
            now.swap(true, Ordering::SeqCst);
            waker.wake();
        });
        let stopper = thread::spawn(move || token.stop(Stop::Abort));
        let clock = thread::spawn(|| advance(LIMIT));
        let summary = run.finish_soon([opener, stopper, clock]);
        assert_eq!((summary.pulled(), outcomes.get(), dropped.get()), (1, 1, 1));
    });
}

/// A run waits in line for a permit, somebody else behind it. The permit comes back while the run
/// is dropped: whoever is behind gets it.
///
/// Seen to fail (no permit) when a run's place in line is leaked instead of dropped.
#[test]
fn a_permit_handed_over_to_a_run_that_leaves_goes_on() {
    loom::model(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        let held = Arc::clone(&semaphore).try_acquire_owned().unwrap();
        let executor = BatchExecutor::builder().semaphore(Arc::clone(&semaphore)).build().unwrap();
        let run = Run::start(executor.all_settled([()], async |()| Ok::<_, String>(())));
        let mut behind = Box::pin(Arc::clone(&semaphore).acquire_owned());
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(behind.as_mut().poll(cx).is_pending());
        let released = thread::spawn(move || drop(held));
        drop(run);
        released.join().unwrap();
        assert!(behind.as_mut().poll(cx).is_ready());
    });
}

/// Two runs nested in one item ask for its permit, one of which is dropped elsewhere while it holds
/// it: the other is woken and gets on.
///
/// Seen to fail (asleep) when a lease that is given back wakes nobody.
#[test]
fn a_lent_permit_that_comes_back_wakes_who_waits_for_it() {
    loom::model(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        let executor = BatchExecutor::builder().semaphore(semaphore).build().unwrap();
        let (other, gone) = (executor.clone(), Cell::new(None));
        let run = executor.all_settled([()], async |()| {
            let mut first =
                Some(Box::pin(other.all_settled([()], async |()| {
                    std::future::pending::<Result<(), String>>().await
                })));
            let mut second = Box::pin(other.all_settled([()], async |()| Ok::<(), String>(())));
            let all = poll_fn(|cx| {
                if let Some(mut first) = first.take() {
                    assert!(first.as_mut().poll(cx).is_pending());
                    gone.set(Some(first));
                }
                second.as_mut().poll(cx)
            });
            all_fulfilled(all.await).map(drop).map_err(|error| error.to_string())
        });
        let run = Run::start(run);
        let first = gone.take();
        let dropped = thread::spawn(move || drop(first));
        assert_eq!(all_passed(run.finish([dropped])), 1);
    });
}

/// Runs what a worker does on a thread of its own.
fn on_threads(
    threads: &mut Vec<JoinHandle<()>>,
) -> impl FnMut(Pin<Box<dyn Future<Output = ()> + Send>>) {
    |work| threads.push(thread::spawn(|| loom::future::block_on(work)))
}

fn bounded() -> loom::model::Builder {
    let mut model = loom::model::Builder::new();
    // Two workers and whoever joins take several locks an item: with any number of preemptions none
    // of the models had come to its end after 100 seconds. What they look for needs two.
    model.preemption_bound = Some(2);
    model
}

/// Two workers share an input, and the last one out wakes the task that joins.
///
/// Seen to fail (a deadlock) when `BatchShared::leave` looks for a joiner before it says that nobody
/// works any more, in critical sections of their own.
#[test]
fn the_last_worker_against_the_joiner() {
    bounded().check(|| {
        let mut threads = Vec::new();
        let batch =
            executor(2).spawn_on(2, 0..3, async |n| Ok::<_, String>(n), on_threads(&mut threads));
        let joined = loom::future::block_on(batch.join());
        assert_eq!(all_fulfilled(joined.outcomes).unwrap(), [0, 1, 2]);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// One worker has the input, some of which is the other's, while that one is told of a stop: what
/// was pulled has its outcome, and the rest is back.
///
/// Seen to fail (one outcome short) when `Intake::step` tells a worker that there is nothing more
/// without looking whether the input is `taken_away`. With two inputs and as many preemptions it
/// is not.
#[test]
fn a_pull_of_one_worker_for_another_against_a_stop() {
    bounded().check(|| {
        let mut threads = Vec::new();
        let keyed = executor(3).by_key(|n: &u64| *n);
        let work = async |n| Ok::<_, String>(n);
        let batch = keyed.spawn_on(2, 0..3_u64, work, on_threads(&mut threads));
        batch.stop(Stop::Drain);
        let joined = loom::future::block_on(batch.join());
        let (all, rest) = (joined.outcomes, joined.rest.unwrap());
        assert_eq!(all.len() as u64, rest.start);
        assert_eq!(all.summary().counts().fulfilled, all.len());
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// A worker delivers outcomes while their consumer takes one and goes: everything that was pulled
/// is dropped once.
///
/// Seen to fail (a deadlock) when `BatchShared::poll_next` leaves its waker without looking again; and
/// (something lives) when outcomes that nobody wants stay where they are.
#[test]
fn delivering_against_a_consumer_that_goes() {
    bounded().check(|| {
        let (mut threads, alive) = (Vec::new(), Arc::new(()));
        let inputs = [Arc::clone(&alive), Arc::clone(&alive)];
        let batch = executor(2).spawn_on(
            1,
            inputs,
            async |alive| Ok::<_, String>(alive),
            on_threads(&mut threads),
        );
        let mut outcomes = batch.into_stream();
        let first = loom::future::block_on(poll_fn(|cx| {
            futures_util::Stream::poll_next(Pin::new(&mut outcomes), cx)
        }));
        assert!(first.is_some());
        drop((first, outcomes));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(Arc::strong_count(&alive), 1);
    });
}
