//! The semaphore beside a reference of an integer and a queue, and beside tokio's: random
//! operations, and after each one everything that can be seen is the same.

mod subjects;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Instant;

use proptest::prelude::*;
use subjects::{Ours, Reference, Seen, Subject, Tokio};

/// What is done to each subject. Numbers that choose among what there is are taken modulo its
/// count.
#[derive(Debug, Clone)]
enum Step {
    Acquire {
        need: u32,
        budget: bool,
    },
    /// More than are woken in one go.
    Crowd(usize),
    Enqueue(u32),
    Poll {
        which: usize,
        waker: usize,
        budget: bool,
    },
    Cancel(usize),
    Try(u32),
    Release(usize),
    Forget(usize),
    Split {
        which: usize,
        permits: usize,
    },
    Merge {
        which: usize,
        with: usize,
    },
    Add(usize),
    ForgetFree(usize),
    SetLimit(usize),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0..1000usize;
    let budget = prop::bool::weighted(0.8);
    let many = || prop_oneof![8 => 0..8usize, 1 => 30..200usize];
    prop_oneof![
        8 => (0..6u32, budget).prop_map(|(need, budget)| Step::Acquire { need, budget }),
        1 => (30..150usize).prop_map(Step::Crowd),
        3 => (0..6u32).prop_map(Step::Enqueue),
        6 => (any.clone(), 0..2usize, budget)
            .prop_map(|(which, waker, budget)| Step::Poll { which, waker, budget }),
        4 => any.clone().prop_map(Step::Cancel),
        3 => (0..4u32).prop_map(Step::Try),
        6 => any.clone().prop_map(Step::Release),
        2 => any.clone().prop_map(Step::Forget),
        2 => (any.clone(), 0..5usize).prop_map(|(which, permits)| Step::Split { which, permits }),
        2 => (any.clone(), any).prop_map(|(which, with)| Step::Merge { which, with }),
        2 => many().prop_map(Step::Add),
        2 => (0..4usize).prop_map(Step::ForgetFree),
        3 => many().prop_map(Step::SetLimit),
        1 => Just(Step::Close),
    ]
}

/// Counts how often each of a future's two wakers was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Drives one subject, and keeps what all have alike: the waiters, and the wakers that were woken.
struct Drive<S> {
    subject: S,
    waiting: Vec<usize>,
    wakes: Vec<[Arc<Wakes>; 2]>,
}

impl<S: Subject> Drive<S> {
    fn new(permits: usize) -> Self {
        Self { subject: S::new(permits), waiting: Vec::new(), wakes: Vec::new() }
    }

    fn poll(&mut self, id: usize, waker: usize, budget: bool) -> Seen {
        let waker = Waker::from(self.wakes[id][waker].clone());
        let polled = match budget || cfg!(not(feature = "tokio")) {
            true => self.subject.poll(id, &waker),
            false => self.subject.poll_without_budget(id, &waker),
        };
        if polled.is_some() {
            self.waiting.retain(|&other| other != id);
        }
        Seen::Polled(polled)
    }

    fn acquire(&mut self, need: u32, budget: bool) -> Seen {
        let id = self.wakes.len();
        self.wakes.push(Default::default());
        self.waiting.push(id);
        self.subject.acquire(id, need, false);
        self.poll(id, 0, budget)
    }

    fn step(&mut self, step: &Step) -> Seen {
        let held = self.subject.held();
        match *step {
            Step::Acquire { need, budget } => self.acquire(need, budget),
            Step::Crowd(size) => {
                let seen: Vec<_> = (0..size).map(|_| self.acquire(1, true)).collect();
                Seen::All(seen)
            }
            Step::Enqueue(need) => {
                let id = self.wakes.len();
                self.wakes.push(Default::default());
                self.waiting.push(id);
                self.subject.acquire(id, need, true);
                Seen::Nothing
            }
            Step::Poll { which, waker, budget } if !self.waiting.is_empty() => {
                self.poll(self.waiting[which % self.waiting.len()], waker, budget)
            }
            Step::Cancel(which) if !self.waiting.is_empty() => {
                let id = self.waiting.remove(which % self.waiting.len());
                self.subject.cancel(id);
                Seen::Nothing
            }
            Step::Try(need) => Seen::Tried(self.subject.try_acquire(need)),
            Step::Release(which) if held > 0 => {
                self.subject.release(which % held);
                Seen::Nothing
            }
            Step::Forget(which) if held > 0 => {
                self.subject.forget(which % held);
                Seen::Nothing
            }
            Step::Split { which, permits } if held > 0 => {
                Seen::Split(self.subject.split(which % held, permits))
            }
            Step::Merge { which, with } if held > 1 && which % held != with % held => {
                self.subject.merge(which % held, with % held);
                Seen::Nothing
            }
            Step::Add(permits) => {
                self.subject.add(permits);
                Seen::Nothing
            }
            Step::ForgetFree(permits) => Seen::Forgot(self.subject.forget_free(permits)),
            Step::SetLimit(limit) => {
                self.subject.set_limit(limit);
                Seen::Nothing
            }
            Step::Close => {
                self.subject.close();
                Seen::Nothing
            }
            _ => Seen::Nothing,
        }
    }

    fn woken(&self) -> Vec<[usize; 2]> {
        let count = |wakes: &Arc<Wakes>| wakes.0.load(Ordering::Relaxed);
        self.wakes.iter().map(|[one, other]| [count(one), count(other)]).collect()
    }
}

proptest! {
    #[test]
    fn is_the_reference(
        permits in 0..6usize,
        timed in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let begun = Instant::now();
        let mut ours = Drive::<Ours>::new(permits);
        if timed {
            ours.subject = Ours::timed(permits);
        }
        let mut reference = Drive::<Reference>::new(permits);
        for step in &steps {
            let (seen, expected) = (ours.step(step), reference.step(step));
            #[cfg(debug_assertions)]
            ours.subject.semaphore.validate();
            prop_assert_eq!(seen, expected, "{:?}", step);
            prop_assert_eq!(ours.woken(), reference.woken(), "woken after {:?}", step);
            prop_assert_eq!(ours.subject.held(), reference.subject.held());

            let (semaphore, reference) = (&ours.subject.semaphore, &reference.subject);
            prop_assert_eq!(semaphore.available_permits(), reference.available());
            prop_assert_eq!(semaphore.waiters(), reference.queue.len());
            prop_assert_eq!(semaphore.granted_unclaimed(), reference.granted.len());
            prop_assert_eq!(semaphore.is_closed(), reference.closed);
            let stats = semaphore.stats();
            let counted = (stats.waits, stats.cancellations, stats.peak_waiters);
            prop_assert_eq!(counted, reference.counted);
            prop_assert_eq!(stats.wait_times.is_some(), timed);
            if let Some(times) = stats.wait_times {
                prop_assert!(times.longest <= begun.elapsed());
                prop_assert!(times.longest <= times.total);
                prop_assert!(times.total <= times.longest * reference.served);
            }
            // Conservation: the reference derives this from what is free, held, granted and owed.
            prop_assert_eq!(semaphore.limit(), reference.limit());
        }
    }

    #[test]
    fn is_tokios(permits in 0..6usize, steps in prop::collection::vec(step(), 1..80)) {
        let mut ours = Drive::<Ours>::new(permits);
        let mut tokios = Drive::<Tokio>::new(permits);
        // tokio sets aside what is free for a head that needs more. When it is closed then, that
        // comes back only as the head is dropped.
        let mut set_aside = false;
        let ours_alone = |step: &&Step| {
            let without_budget = matches!(
                step,
                Step::Acquire { budget: false, .. } | Step::Poll { budget: false, .. }
            );
            without_budget || matches!(step, Step::SetLimit(_) | Step::Enqueue(_))
        };
        for step in steps.iter().filter(|step| !ours_alone(step)) {
            set_aside |= matches!(step, Step::Close) && ours.subject.semaphore.waiters() > 0;
            let (seen, expected) = (ours.step(step), tokios.step(step));
            #[cfg(debug_assertions)]
            ours.subject.semaphore.validate();
            if !(set_aside && matches!(step, Step::ForgetFree(_))) {
                prop_assert_eq!(seen, expected, "{:?}", step);
            }
            prop_assert_eq!(ours.woken(), tokios.woken(), "woken after {:?}", step);
            prop_assert_eq!(ours.subject.held(), tokios.subject.held());
            if !set_aside {
                let (ours, theirs) = (&ours.subject.semaphore, &tokios.subject.semaphore);
                prop_assert_eq!(ours.available_permits(), theirs.available_permits());
            }
        }
    }
}
