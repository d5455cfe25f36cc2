//! An item that is to be tried again against the end of its run, and against other
//! waiters for the same permits. Where a model is about time, a thread of its own moves the clock on;
//! in the others a retry is due at once, and waits for a permit that another thread has.

use crate::run;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::{self, JoinHandle};
use run::{Run, Task};
use sluicegate::model::advance;
use sluicegate::{
    AcquireOwned, AllSettled, BatchExecutor, ItemError, OwnedSemaphorePermit, Retry, Semaphore,
    Stop, StopToken,
};

const BUSY: Result<(), &str> = Err("busy");

/// One item, with two attempts that follow at once on each other, on this semaphore. The attempts are
/// counted before they begin.
fn run_twice<F, Fut>(
    token: &StopToken,
    semaphore: &Arc<Semaphore>,
    mut attempt: F,
) -> impl Future<Output = AllSettled<(), &'static str>> + use<F, Fut>
where
    F: FnMut(usize) -> Fut,
    Fut: Future<Output = Result<(), &'static str>>,
{
    let executor = BatchExecutor::builder()
        .limit(1)
        .semaphore(Arc::clone(semaphore))
        .stop(token.clone())
        .build()
        .unwrap()
        .retry(Retry::constant(2, Duration::ZERO).unwrap());
    let mut attempts = 0;
    async move {
        let run = executor.all_settled([()], |()| {
            attempts += 1;
            attempt(attempts)
        });
        run.await
    }
}

fn bounded() -> loom::model::Builder {
    let mut model = loom::model::Builder::new();
    // Three threads, or two of which one sleeps, that take several locks each. A wake-up that comes
    // between a look and going to sleep needs two preemptions; three take 8 s for all the models
    // here together, and four 33 s. With any number of them the time that comes against an abort
    // passes after 23 s and against a drain after 56 s, the permit that comes back against a drain
    // after 115 s and that goes to another after 144 s; the one against an abort had not come to
    // its end after 150 s.
    model.preemption_bound = Some(3);
    model
}

fn stop(token: &StopToken, how: Stop) -> JoinHandle<()> {
    let token = token.clone();
    thread::spawn(move || token.stop(how))
}

/// A run whose item has failed once, gave its permit to the next waiter, and waits for
/// its retry.
fn in_line_again<'a>(
    token: &StopToken,
    semaphore: &'a Arc<Semaphore>,
    attempts: &'a Cell<usize>,
) -> (Run<impl Future<Output = AllSettled<(), &'static str>> + use<'a>>, OwnedSemaphorePermit) {
    let cx = &mut Context::from_waker(Waker::noop());
    let behind: std::rc::Rc<Cell<Option<AcquireOwned>>> = std::rc::Rc::default();
    let left = std::rc::Rc::clone(&behind);
    let run = Run::start(run_twice(token, semaphore, move |attempt| {
        attempts.set(attempt);
        if attempt == 1 {
            let mut next = Arc::clone(semaphore).acquire_owned();
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut next).poll(cx).is_pending());
            left.set(Some(next));
        }
        std::future::ready(if attempt == 1 { BUSY } else { Ok(()) })
    }));
    let mut behind = behind.take().unwrap();
    match Pin::new(&mut behind).poll(cx) {
        Poll::Ready(permit) => (run, permit.unwrap()),
        Poll::Pending => panic!("a resting item keeps its permit"),
    }
}

/// The permit that a retry waits for comes back while the run is stopped: the retry begins, or the
/// item is cancelled with its last error, and its permit is back either way.
///
/// Seen to fail in a drain (asleep) when the run's permits are not told that they were woken, and
/// in both when an item that is to be tried again keeps its permit; in an abort (asleep) when what
/// rests is not cut short.
fn a_retry_comes_due_against(how: Stop) {
    bounded().check(move || {
        let (token, semaphore) = (StopToken::new(), Arc::new(Semaphore::new(1)));
        let attempts = Cell::new(0);
        let (run, permit) = in_line_again(&token, &semaphore, &attempts);
        let released = thread::spawn(move || drop(permit));
        let all = run.finish([released, stop(&token, how)]);
        assert_eq!(all.len(), 1);
        match (&all[0], attempts.get()) {
            (Ok(()), 2) => {}
            (Err(ItemError::Cancelled { started: true, last_error: Some("busy"), .. }), 1) => {
                assert_eq!(how, Stop::Abort);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(semaphore.available_permits(), 1);
    });
}

#[test]
fn a_retry_that_comes_due_against_an_abort() {
    a_retry_comes_due_against(Stop::Abort);
}

#[test]
fn a_retry_that_comes_due_against_a_drain() {
    a_retry_comes_due_against(Stop::Drain);
}

/// The time comes for a retry while the run is stopped: a drain lets it begin, and an abort leaves
/// it out with its last error, unless it came too late.
///
/// Seen to fail (not pending) when a run takes itself for done while an item rests; in a drain
/// (asleep) when the timer is not set for what rests, and (an outcome of an abort) when a drain cuts
/// short what rests; in an abort (asleep) when what rests is not.
fn a_retry_whose_time_comes_against(how: Stop) {
    const WAIT: Duration = Duration::from_millis(10);
    bounded().check(move || {
        let (token, attempts) = (StopToken::new(), Cell::new(0));
        // With a backlog the input is known to have ended while the item rests.
        let builder = BatchExecutor::builder().limit(1).backlog(1).stop(token.clone());
        let executor = builder.build().unwrap().retry(Retry::constant(2, WAIT).unwrap());
        let run = Run::start(executor.all_settled([()], |()| {
            attempts.set(attempts.get() + 1);
            std::future::ready(if attempts.get() == 1 { BUSY } else { Ok(()) })
        }));
        let clock = thread::spawn(|| advance(WAIT));
        let all = run.finish([clock, stop(&token, how)]);
        assert_eq!(all.len(), 1);
        match (&all[0], attempts.get()) {
            (Ok(()), 2) => {}
            (Err(ItemError::Cancelled { started: true, last_error: Some("busy"), .. }), 1) => {
                assert_eq!(how, Stop::Abort);
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_retry_whose_time_comes_against_an_abort() {
    a_retry_whose_time_comes_against(Stop::Abort);
}

#[test]
fn a_retry_whose_time_comes_against_a_drain() {
    a_retry_whose_time_comes_against(Stop::Drain);
}

/// A run is aborted while its retry waits for a permit that does not come back: it ends, and
/// leaves the wait list.
///
/// Seen to fail (asleep) when those that are to be tried again stay in the wait list after an abort.
#[test]
fn an_abort_does_not_wait_for_the_permit_of_a_retry() {
    loom::model(|| {
        let (token, semaphore) = (StopToken::new(), Arc::new(Semaphore::new(1)));
        let attempts = Cell::new(0);
        let (run, permit) = in_line_again(&token, &semaphore, &attempts);
        let all = run.finish([stop(&token, Stop::Abort)]);
        assert!(matches!(
            all[0],
            Err(ItemError::Cancelled { started: true, last_error: Some("busy"), .. })
        ));
        assert_eq!((attempts.get(), semaphore.waiters()), (1, 0));
        drop(permit);
        assert_eq!(semaphore.available_permits(), 1);
    });
}

/// The run is aborted while an attempt fails. If the attempt ended when `stop` had returned, there
/// is no other. (One that begins at that very moment is a race that nobody can see: to look
/// whether the batch is stopped and to begin are two steps.)
///
/// Seen to fail when `start_due` does not look whether the batch is stopped.
#[test]
fn no_retry_begins_after_an_abort() {
    loom::model(|| {
        let (token, semaphore) = (StopToken::new(), Arc::new(Semaphore::new(1)));
        let stopped = Arc::new(AtomicBool::new(false));
        let (attempts, seen, late) = (Cell::new(0), Cell::new(false), Cell::new(false));
        let run = run_twice(&token, &semaphore, |attempt| {
            attempts.set(attempt);
            late.set(late.get() || seen.get());
            let (stopped, seen) = (&stopped, &seen);
            let mut polls = 0;
            poll_fn(move |cx| {
                polls += 1;
                match (attempt, polls) {
                    // Fails when it was woken: in a turn that goes on to what is due.
                    (1, 1) => {
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    (1, _) => {
                        seen.set(stopped.load(Ordering::SeqCst));
                        Poll::Ready(BUSY)
                    }
                    _ => Poll::Ready(Ok(())),
                }
            })
        });
        let task = Arc::new(Task { woken: AtomicBool::new(true) });
        let waker = Waker::from(Arc::clone(&task));
        let run = Run { future: Box::pin(run), task, waker };
        let stopper = {
            let (token, stopped) = (token.clone(), Arc::clone(&stopped));
            thread::spawn(move || {
                token.stop(Stop::Abort);
                stopped.store(true, Ordering::SeqCst);
            })
        };
        let all = run.finish([stopper]);
        assert!(!late.get(), "an attempt began after an abort");
        match (all.first(), attempts.get()) {
            (None, 0) | (Some(Ok(())), 2) => {}
            (Some(Err(ItemError::Cancelled { started: false, .. })), 0) => {}
            // `None` if the abort came while it was pending.
            (Some(Err(ItemError::Cancelled { started: true, .. })), 1) => {}
            // Polled once more by the abort, it failed.
            (Some(Err(ItemError::Rejected("busy"))), 1) => {}
            other => panic!("{other:?}"),
        }
        drop(all);
        assert_eq!(semaphore.available_permits(), 1);
    });
}

/// The permit of an item that is to be tried again goes to another thread that waits, and
/// comes back for the retry.
///
/// Seen to fail (a deadlock) when an item that is to be tried again keeps its permit, and (asleep)
/// when the run's permits are not told that they were woken.
#[test]
fn the_permit_of_an_item_that_waits_goes_to_another() {
    bounded().check(|| {
        let (token, semaphore) = (StopToken::new(), Arc::new(Semaphore::new(1)));
        let left = Cell::new(None);
        let run = Run::start(run_twice(&token, &semaphore, |attempt| {
            let (mut polls, left) = (0, &left);
            poll_fn(move |cx| {
                polls += 1;
                match (attempt, polls) {
                    (1, 1) => {
                        left.set(Some(cx.waker().clone()));
                        Poll::Pending
                    }
                    (1, _) => Poll::Ready(BUSY),
                    _ => Poll::Ready(Ok(())),
                }
            })
        }));
        let mut behind = Arc::clone(&semaphore).acquire_owned();
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut behind).poll(cx).is_pending());
        left.take().unwrap().wake();
        let other = thread::spawn(move || drop(loom::future::block_on(behind).unwrap()));
        let all = run.finish([other]);
        assert!(all[0].is_ok());
        assert_eq!(semaphore.available_permits(), 1);
    });
}

/// A run is dropped while its retry waits for a permit which comes back, and while it is
/// stopped: the permit is free in the end.
///
/// Seen to fail when a run's waiter is leaked instead of dropped.
#[test]
fn a_run_dropped_while_its_retry_is_in_line_keeps_no_permit() {
    loom::model(|| {
        let (token, semaphore) = (StopToken::new(), Arc::new(Semaphore::new(1)));
        let attempts = Cell::new(0);
        let (run, permit) = in_line_again(&token, &semaphore, &attempts);
        let released = thread::spawn(move || drop(permit));
        let stopper = stop(&token, Stop::Abort);
        drop(run);
        released.join().unwrap();
        stopper.join().unwrap();
        assert_eq!(attempts.get(), 1);
        assert_eq!(semaphore.available_permits(), 1);
    });
}
