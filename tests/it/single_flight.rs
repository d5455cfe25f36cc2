//! `SingleFlight`, by example.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use sluicegate::SingleFlight;
use sluicegate::single_flight::RunPanicked;

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn poll_with<F: Future>(future: Pin<&mut F>, woken: &Arc<Woken>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn value<V>(polled: Poll<Result<V, RunPanicked>>) -> V {
    match polled {
        Poll::Ready(Ok(value)) => value,
        Poll::Ready(Err(panicked)) => panic!("{panicked}"),
        Poll::Pending => panic!("it waits"),
    }
}

/// A run that is done once it has been opened, and how often it was polled.
#[derive(Clone, Default)]
struct Door {
    open: Arc<AtomicUsize>,
    polls: Arc<AtomicUsize>,
    waker: Arc<std::sync::Mutex<Option<Waker>>>,
}

impl Door {
    fn open(&self, value: usize) {
        self.open.store(value, SeqCst);
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }

    fn run(&self) -> impl Future<Output = usize> + Send + use<> {
        let door = self.clone();
        poll_fn(move |cx| {
            door.polls.fetch_add(1, SeqCst);
            *door.waker.lock().unwrap() = Some(cx.waker().clone());
            match door.open.load(SeqCst) {
                0 => Poll::Pending,
                value => Poll::Ready(value),
            }
        })
    }
}

fn flights(max_keys: usize) -> SingleFlight<&'static str, usize> {
    SingleFlight::new(max_keys).unwrap()
}

#[test]
fn it_has_at_least_one_key() {
    let error = SingleFlight::<u8, u8>::new(0).unwrap_err();
    assert!(error.to_string().contains("max_keys"), "{error}");
    assert!(SingleFlight::<u8, u8>::new(u32::MAX as usize).is_err());
}

#[test]
fn a_run_that_is_ready_at_once_needs_no_other_caller() {
    let flights = flights(1);
    for round in 1..=3 {
        assert_eq!(value(poll(pin!(flights.run("a", || ready(round))))), round);
        flights.validate();
    }
    let stats = flights.stats();
    assert_eq!((stats.calls, stats.shared, stats.started, stats.completed), (3, 0, 3, 3));
    assert_eq!((stats.running, stats.queued, stats.callers), (0, 0, 0));
}

#[test]
fn callers_of_a_key_share_its_run() {
    let (flights, door) = (flights(1), Door::default());
    let begun = Cell::new(0);
    let call = || {
        flights.run("a", || {
            begun.set(begun.get() + 1);
            door.run()
        })
    };
    let woken = Arc::new(Woken::default());
    let mut calls: Vec<_> = (0..100).map(|_| Box::pin(call())).collect();
    for call in &mut calls {
        assert!(poll_with(call.as_mut(), &woken).is_pending());
    }
    assert_eq!((begun.get(), door.polls.load(SeqCst)), (1, 1), "the others do not poll it");
    flights.validate();
    door.open(7);
    assert_eq!(woken.0.load(SeqCst), 100, "any may be one that is not polled");
    for call in &mut calls {
        assert_eq!(value(poll_with(call.as_mut(), &woken)), 7);
    }
    assert_eq!((begun.get(), door.polls.load(SeqCst)), (1, 2));
    assert_eq!((flights.stats().shared, flights.stats().callers), (99, 0));
    flights.validate();
    // The value is not kept.
    assert_eq!(value(poll(pin!(call()))), 7);
    assert_eq!(begun.get(), 2);
}

#[test]
fn the_run_goes_on_if_its_first_caller_leaves_or_is_not_polled() {
    let (flights, door) = (flights(1), Door::default());
    let mut first = Box::pin(flights.run("a", || door.run()));
    assert!(poll(first.as_mut()).is_pending());
    let mut kept = Box::pin(flights.run("a", || -> std::future::Ready<usize> { unreachable!() }));
    assert!(poll(kept.as_mut()).is_pending());
    let (mut last, woken) = (pin!(flights.run("a", || ready(0))), Arc::new(Woken::default()));
    assert!(poll_with(last.as_mut(), &woken).is_pending());
    drop(first);
    flights.validate();
    door.open(7);
    assert_eq!(woken.0.load(SeqCst), 1);
    assert_eq!(value(poll_with(last.as_mut(), &woken)), 7);
    assert_eq!(value(poll(kept.as_mut())), 7);
    assert_eq!((flights.stats().completed, flights.stats().cancelled), (1, 0));
}

/// The caller that polls the run is woken for it, and then not polled again.
#[test]
fn a_wake_that_comes_during_a_poll_reaches_every_caller() {
    let flights = flights(1);
    let mut polls = 0;
    let run = poll_fn(move |cx| {
        polls += 1;
        cx.waker().wake_by_ref();
        if polls < 3 { Poll::Pending } else { Poll::Ready(polls) }
    });
    let mut first = pin!(flights.run("a", || run));
    assert!(poll(first.as_mut()).is_pending());
    let (mut second, woken) = (pin!(flights.run("a", || ready(0))), Arc::new(Woken::default()));
    assert!(poll_with(second.as_mut(), &woken).is_pending());
    assert_eq!(woken.0.load(SeqCst), 1, "its own poll woke the run");
    assert_eq!(value(poll_with(second.as_mut(), &woken)), 3);
    assert_eq!(value(poll(first.as_mut())), 3);
}

#[test]
fn a_run_without_callers_is_dropped() {
    struct Noted<'a>(&'a AtomicUsize);
    impl Drop for Noted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    let flights = flights(1);
    let run = || async {
        let _noted = Noted(&DROPPED);
        pending().await
    };
    let (mut first, mut second) =
        (Box::pin(flights.run("a", run)), Box::pin(flights.run("a", run)));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    drop(second);
    assert_eq!(DROPPED.load(SeqCst), 0);
    drop(first);
    assert_eq!(DROPPED.load(SeqCst), 1);
    let stats = flights.stats();
    assert_eq!((stats.started, stats.cancelled, stats.running), (1, 1, 0));
    flights.validate();
}

#[test]
fn a_key_more_than_there_are_places_waits_with_all_its_callers() {
    let flights = flights(1);
    let [a, b, c] = [(); 3].map(|()| Door::default());
    let mut running = Box::pin(flights.run("a", || a.run()));
    assert!(poll(running.as_mut()).is_pending());
    let woken = Arc::new(Woken::default());
    let mut call_b = Box::pin(flights.run("b", || b.run()));
    let mut call_c = Box::pin(flights.run("c", || c.run()));
    let mut again_b = Box::pin(flights.run("b", || b.run()));
    assert!(poll_with(call_b.as_mut(), &woken).is_pending());
    assert!(poll(call_c.as_mut()).is_pending());
    assert!(poll_with(again_b.as_mut(), &woken).is_pending());
    assert_eq!((flights.stats().running, flights.stats().queued), (1, 2));
    assert_eq!([&b, &c].map(|door| door.polls.load(SeqCst)), [0, 0]);
    flights.validate();
    a.open(1);
    assert_eq!(value(poll(running.as_mut())), 1);
    assert_eq!(woken.0.load(SeqCst), 2, "both callers of the key that came first");
    // The first of them is kept and not polled: the other begins.
    assert!(poll(again_b.as_mut()).is_pending());
    assert_eq!(b.polls.load(SeqCst), 1);
    assert!(poll(call_c.as_mut()).is_pending());
    assert_eq!(c.polls.load(SeqCst), 0);
    drop((call_b, again_b));
    assert!(poll(call_c.as_mut()).is_pending());
    assert_eq!(c.polls.load(SeqCst), 1);
    flights.validate();
}

#[test]
fn a_queued_key_whose_callers_leave_gives_up_its_turn() {
    let (flights, door) = (flights(1), Door::default());
    let mut running = Box::pin(flights.run("a", || door.run()));
    let mut leaves = Box::pin(flights.run("b", || ready(2)));
    let mut stays = Box::pin(flights.run("c", || ready(3)));
    assert!(poll(running.as_mut()).is_pending());
    assert!(poll(leaves.as_mut()).is_pending() && poll(stays.as_mut()).is_pending());
    drop(leaves);
    flights.validate();
    drop(running);
    assert_eq!(value(poll(stays.as_mut())), 3);
    assert_eq!((flights.stats().started, flights.stats().cancelled), (2, 1));
}

#[test]
fn a_panic_of_a_run_or_of_its_function_is_an_outcome() {
    let flights = flights(1);
    let begins = || -> std::future::Ready<usize> { panic!("no paper") };
    let Poll::Ready(Err(error)) = poll(pin!(flights.run("a", begins))) else { panic!("a value") };
    assert_eq!(error.to_string(), "the shared run panicked: no paper");
    assert_eq!(error.panic().message(), Some("no paper"));
    assert!(error.into_panic().is_some());

    let mut polled = false;
    let run = poll_fn(move |cx| {
        if core::mem::replace(&mut polled, true) {
            panic!("out of paper")
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    let (mut first, mut second) =
        (pin!(flights.run("a", || run)), pin!(flights.run("a", || ready(0))));
    assert!(poll(first.as_mut()).is_pending());
    for call in [second.as_mut() as Pin<&mut dyn Future<Output = _>>, first.as_mut()] {
        let Poll::Ready(Err::<usize, _>(error)) = poll(call) else { panic!("a value") };
        assert_eq!(error.to_string(), "the shared run panicked: out of paper");
    }
    assert_eq!((flights.stats().panicked, flights.stats().running), (2, 0));
    flights.validate();
}

/// The first to take its value clones it; the last takes the value itself.
#[test]
fn a_value_that_panics_as_it_is_cloned_is_lost_to_one_caller() {
    #[derive(Debug)]
    struct NoClone;
    impl Clone for NoClone {
        fn clone(&self) -> Self {
            panic!("no clone")
        }
    }
    let flights = SingleFlight::<u8, NoClone>::new(1).unwrap();
    let mut polled = false;
    let run = poll_fn(move |cx| {
        cx.waker().wake_by_ref();
        if core::mem::replace(&mut polled, true) { Poll::Ready(NoClone) } else { Poll::Pending }
    });
    let mut first = Box::pin(flights.run(1, || run));
    let mut second = Box::pin(flights.run(1, || ready(NoClone)));
    assert!(poll(first.as_mut()).is_pending());
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(second.as_mut())));
    assert!(caught.is_err(), "the first still has a share");
    flights.validate();
    assert!(matches!(poll(first.as_mut()), Poll::Ready(Ok(NoClone))));
    assert_eq!(flights.stats().callers, 0);
}

#[test]
fn what_a_run_holds_is_back_before_its_callers_hear_of_it() {
    struct Back(Arc<AtomicUsize>);
    impl Drop for Back {
        fn drop(&mut self) {
            self.0.store(1, SeqCst);
        }
    }
    /// Notes what it sees as it wakes.
    struct Looks(Arc<AtomicUsize>, AtomicUsize);
    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            self.1.store(10 + self.0.load(SeqCst), SeqCst);
        }
    }
    let (flights, back) = (flights(1), Arc::new(AtomicUsize::new(0)));
    let (held, mut polled) = (Back(Arc::clone(&back)), false);
    let run = poll_fn(move |cx| {
        cx.waker().wake_by_ref();
        let done = core::mem::replace(&mut polled, true);
        if done { Poll::Ready(held.0.load(SeqCst)) } else { Poll::Pending }
    });
    let mut first = Box::pin(flights.run("a", || run));
    assert!(poll(first.as_mut()).is_pending());
    let looks = Arc::new(Looks(Arc::clone(&back), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&looks));
    let mut next = Box::pin(flights.run("b", || ready(0)));
    assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(value(poll(first.as_mut())), 0);
    assert_eq!((looks.1.load(SeqCst), value(poll(next.as_mut()))), (11, 0));
}

#[test]
#[should_panic = "a single-flight call was polled after it had completed"]
fn a_completed_call_is_not_polled_again() {
    let flights = flights(1);
    let mut call = pin!(flights.run("a", || ready(1)));
    assert_eq!(value(poll(call.as_mut())), 1);
    drop(poll(call.as_mut()));
}

#[test]
fn calls_of_several_threads_each_have_one_run() {
    let (flights, begun) = (Arc::new(flights(2)), Arc::new(AtomicUsize::new(0)));
    let answered: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (flights, begun) = (&flights, Arc::clone(&begun));
                scope.spawn(move || {
                    let keys = ["a", "b", "c"];
                    let call = |round: usize| {
                        let begun = Arc::clone(&begun);
                        flights.run(keys[(round + thread) % 3], move || async move {
                            begun.fetch_add(1, SeqCst);
                            let mut polls = 0;
                            poll_fn(|cx| {
                                polls += 1;
                                cx.waker().wake_by_ref();
                                if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
                            })
                            .await;
                            1
                        })
                    };
                    (0..2_000).map(|round| block_on(call(round)).unwrap()).sum::<usize>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(answered, 8_000);
    let stats = flights.stats();
    assert_eq!((stats.calls, stats.calls - stats.shared), (8_000, stats.started));
    assert_eq!(begun.load(SeqCst) as u64, stats.completed);
    assert_eq!((stats.running, stats.queued, stats.callers), (0, 0, 0));
    flights.validate();
}

/// Parks the thread between two polls.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let (mut future, waker) = (pin!(future), Waker::from(Arc::new(Unpark(std::thread::current()))));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(feature = "tokio")]
#[test]
fn a_loop_of_calls_that_are_ready_lets_others_go_on() {
    let flights = flights(1);
    crate::coop::assert_yields(async move {
        loop {
            flights.run("a", || ready(1)).await.unwrap();
        }
    });
}

#[cfg(feature = "tokio")]
#[test]
fn without_budget_nothing_begins() {
    let flights = flights(1);
    let mut call = pin!(flights.run("a", || ready(1)));
    assert!(crate::coop::without_budget(|| poll(call.as_mut())).is_pending());
    assert_eq!(flights.stats().calls, 0);
    assert_eq!(value(poll(call.as_mut())), 1);
}
