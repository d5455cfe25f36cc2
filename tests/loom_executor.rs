//! What an executor's run shares with other threads is its wake list. Each model wakes items from
//! threads of their own while the run polls, sleeps, settles, and gives places to other items. If
//! they are all through, the run is not done, and its task has not been woken, a wake-up is lost.
#![cfg(loom)]

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::{self, JoinHandle};
use sluicegate::{BatchExecutor, Settled};

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

/// The task that the run is in.
struct Task {
    woken: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        // Not a store, which a model may order before a swap that it comes after.
        self.woken.swap(true, Ordering::SeqCst);
    }
}

/// A run under a model: polled once before there are any threads to keep the models small, then
/// beside them as often as its task is woken, and after them to its end.
struct Run<F> {
    future: Pin<Box<F>>,
    task: Arc<Task>,
    waker: Waker,
}

impl<F: Future> Run<F> {
    fn start(future: F) -> Self {
        let task = Arc::new(Task { woken: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&task));
        let mut run = Self { future: Box::pin(future), task, waker };
        assert!(run.poll().is_pending());
        run
    }

    fn poll(&mut self) -> Poll<F::Output> {
        self.future.as_mut().poll(&mut Context::from_waker(&self.waker))
    }

    fn was_woken(&self) -> bool {
        self.task.woken.swap(false, Ordering::SeqCst)
    }

    fn finish<const N: usize>(mut self, threads: [JoinHandle<()>; N]) -> F::Output {
        let mut output = self.poll();
        while output.is_pending() && self.was_woken() {
            output = self.poll();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        loop {
            if let Poll::Ready(output) = output {
                return output;
            }
            assert!(self.was_woken(), "asleep, and nobody will wake it");
            output = self.poll();
        }
    }
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

fn all_passed(outcomes: Vec<Settled<(), String>>) -> usize {
    Settled::all_fulfilled(outcomes).unwrap().len()
}

/// Two threads wake two items while the run goes to sleep.
///
/// Seen to fail when `WakeList::take_or_sleep` looks at the list in one critical section and
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
/// Seen to fail when `listed` is cleared after a line's future has been polled, instead of in
/// `State::take`; and when it is not cleared at all.
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

/// An item has settled and left its waker behind, which a thread wakes late, when its place belongs
/// to another; a second thread wakes this one.
///
/// Seen to fail with the same taken out: while the new item is polled for the late wake-up, its
/// own is not listed, and lost.
#[test]
fn a_late_wake_up_of_a_place_used_again_does_no_harm() {
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

/// As above, with the place taken by an item that waits for its key: the late wake-up must not
/// start it while the item ahead of it runs.
///
/// Seen to fail ("two of one key") when `Places::poll` starts a held item as it does a due one.
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
/// Seen to fail when the run does not tell the sink's outlet that it was woken.
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
/// Seen to fail (the task's waker is still held) when `WakeList::retire` does nothing.
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
