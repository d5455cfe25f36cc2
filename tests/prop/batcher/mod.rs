//! The batcher beside a reference that keeps one list of items: random operations with the clock
//! in hand, and after each one everything that can be seen is the same.

#![cfg(feature = "tokio")]

mod reference;
mod rig;

use std::time::Duration;

use proptest::prelude::*;
use reference::{Limits, Reference, Verdict};
use rig::Rig;

/// Numbers that choose among what there is are taken modulo its count.
#[derive(Debug, Clone)]
enum Step {
    Send,
    TrySend,
    SendMany(usize),
    Reserve,
    UseSlot {
        which: usize,
        send: bool,
    },
    Flush,
    /// Drops any waiting future: a send, a reservation, a held slot, a flush, a shutdown.
    Cancel(usize),
    Advance(u64),
    /// The handler takes items out of its guard and goes on.
    Take {
        which: usize,
        items: usize,
    },
    /// The handler ends, its guard in another's hands or not.
    End {
        which: usize,
        verdict: Verdict,
        keep_guard: bool,
    },
    /// The handler gives its guard into another's hands, and goes on.
    GiveGuard {
        which: usize,
    },
    ReturnGuard {
        which: usize,
    },
    Shutdown(Option<u64>),
    /// Somebody else takes a permit of the semaphore that is shared, or gives one back.
    Permit {
        take: bool,
    },
    DropMainHandle,
    DropDriver,
}

fn limits() -> impl Strategy<Value = Limits> {
    let batch = (1..5usize, prop::option::of((1..6u64, prop::option::of(0..9u64))));
    let handling = (1..4usize, 1..4u32, 0..6u64, prop_oneof![1 => Just(0), 1 => 2..9u32]);
    let errors = (any::<bool>(), any::<bool>());
    let permits = prop_oneof![3 => Just(None), 1 => (1..3usize).prop_map(Some)];
    let timeout = prop_oneof![1 => Just(None), 1 => (1..9u64).prop_map(Some)];
    let budget = (1..7u32, prop_oneof![1..500u64, 500..3000u64]);
    let budget = prop_oneof![2 => Just(None), 1 => budget.prop_map(Some)];
    (batch, 0..7u64, any::<bool>(), 0..7usize, handling, permits, (timeout, budget, errors))
        .prop_map(
            |(
                (max_items, weights),
                window,
                eager,
                more,
                handling,
                permits,
                (timeout, budget, errors),
            )| {
                let (concurrency, attempts, delay, max_probes) = handling;
                let max_weight = weights.map(|(max, _)| max);
                let capacity_weight = weights.and_then(|(max, more)| more.map(|more| max + more));
                let capacity = max_items + more;
                Limits {
                    max_items,
                    max_weight,
                    window,
                    eager,
                    capacity,
                    capacity_weight,
                    concurrency,
                    permits,
                    max_probes,
                    chooses: errors.0,
                    cuts_rejected: errors.1,
                    attempts,
                    delay,
                    timeout,
                    budget,
                }
            },
        )
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        3 => Just(Verdict::Deliver),
        2 => Just(Verdict::Fail),
        2 => Just(Verdict::Reject),
        1 => Just(Verdict::Panic),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..1000usize;
    prop_oneof![
        40 => Just(Step::Send),
        15 => Just(Step::TrySend),
        8 => (0..12usize).prop_map(Step::SendMany),
        5 => any::<bool>().prop_map(|take| Step::Permit { take }),
        8 => Just(Step::Reserve),
        8 => (which.clone(), any::<bool>()).prop_map(|(which, send)| Step::UseSlot { which, send }),
        8 => Just(Step::Flush),
        8 => which.clone().prop_map(Step::Cancel),
        25 => (1..8u64).prop_map(Step::Advance),
        8 => (which.clone(), 0..4usize).prop_map(|(which, items)| Step::Take { which, items }),
        30 => (which.clone(), verdict(), prop::bool::weighted(0.2))
            .prop_map(|(which, verdict, keep_guard)| Step::End { which, verdict, keep_guard }),
        5 => which.clone().prop_map(|which| Step::GiveGuard { which }),
        12 => which.prop_map(|which| Step::ReturnGuard { which }),
        2 => prop::option::of(0..10u64).prop_map(Step::Shutdown),
        1 => Just(Step::DropMainHandle),
        1 => Just(Step::DropDriver),
    ]
}

struct Pair {
    ours: Rig,
    reference: Reference,
    next_item: u32,
}

fn pick<T: Copy>(from: &[T], which: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[which % from.len()])
}

impl Pair {
    fn new(limits: Limits) -> Self {
        Self { ours: Rig::new(limits), reference: Reference::new(limits), next_item: 0 }
    }

    fn item(&mut self) -> u32 {
        self.next_item += 1;
        self.next_item
    }

    /// The batches in a guard: in the handler, and in another's hands after it.
    fn guards(&self, away: bool) -> Vec<(u64, usize)> {
        let calls = self.reference.calls().into_iter();
        calls
            .filter(|call| self.reference.is_away(call.batch) == away)
            .map(|call| (call.batch, call.items.len()))
            .collect()
    }

    async fn step(&mut self, step: &Step) {
        let handle = self.ours.has_main_handle();
        match *step {
            Step::Send if handle => {
                let (task, item) = (self.ours.next_task(), self.item());
                self.ours.send(item);
                self.reference.send(task, item);
            }
            Step::TrySend if handle => {
                let item = self.item();
                assert_eq!(self.ours.try_send(item), self.reference.try_send(item), "accepted");
            }
            Step::SendMany(items) if handle => {
                let task = self.ours.next_task();
                let items: Vec<_> = (0..items).map(|_| self.item()).collect();
                self.ours.send_many(&items);
                self.reference.send_many(task, items);
            }
            Step::Permit { take: true } => {
                assert_eq!(self.ours.take_permit(), self.reference.take_permit(), "a permit");
            }
            Step::Permit { take: false } => {
                assert_eq!(self.ours.give_permit(), self.reference.give_permit(), "a permit");
            }
            Step::Reserve if handle => {
                let task = self.ours.next_task();
                self.ours.reserve();
                self.reference.reserve(task);
            }
            Step::Flush if handle => {
                let task = self.ours.next_task();
                self.ours.flush();
                self.reference.flush(task);
            }
            Step::Shutdown(deadline) if handle => {
                let task = self.ours.next_task();
                self.ours.shutdown(deadline);
                self.reference.shutdown(task, deadline);
            }
            Step::UseSlot { which, send } => {
                if let Some(task) = pick(&self.reference.slots(), which) {
                    let item = send.then(|| self.item());
                    self.ours.use_slot(task, item);
                    self.reference.use_slot(task, item);
                }
            }
            Step::Cancel(which) => {
                if let Some(task) = pick(&self.reference.tasks(), which) {
                    self.ours.cancel(task);
                    self.reference.cancel(task);
                }
            }
            Step::Take { which, items } => {
                let guards = [self.guards(false), self.guards(true)].concat();
                if let Some((batch, held)) = pick(&guards, which) {
                    self.ours.take(batch, items.min(held));
                    self.reference.take(batch, items.min(held));
                }
            }
            Step::End { which, verdict, keep_guard } => {
                if let Some((batch, _)) = pick(&self.guards(false), which) {
                    self.ours.end(batch, verdict, keep_guard);
                    self.reference.end(batch, verdict, keep_guard);
                }
            }
            Step::GiveGuard { which } => {
                if let Some((batch, _)) = pick(&self.guards(false), which) {
                    self.ours.give_guard(batch);
                    self.reference.give_guard(batch);
                }
            }
            Step::ReturnGuard { which } => {
                if let Some((batch, _)) = pick(&self.guards(true), which) {
                    self.ours.return_guard(batch);
                    self.reference.return_guard(batch);
                }
            }
            Step::DropMainHandle if handle => {
                self.ours.drop_main_handle();
                self.reference.drop_main_handle();
            }
            Step::DropDriver => {
                self.ours.drop_driver();
                self.reference.drop_driver();
            }
            Step::Advance(ms) => {
                for _ in 0..ms {
                    self.millisecond().await;
                }
            }
            _ => {}
        }
        self.settle();
    }

    async fn millisecond(&mut self) {
        let idle = self.reference.pending() == 0 && !self.reference.has_deadline();
        let polls = self.ours.driver_polls();
        tokio::time::advance(Duration::from_millis(1)).await;
        self.reference.advance();
        self.settle();
        if idle {
            assert_eq!(self.ours.driver_polls(), polls, "an empty batcher was woken");
        }
    }

    /// Lets both do what they can, and compares all that can be seen.
    fn settle(&mut self) {
        self.ours.run();
        self.reference.run();
        assert_eq!(self.ours.calls(), self.reference.calls());
        assert_eq!(self.ours.buried(), self.reference.buried);
        let mut expected = self.reference.answers.clone();
        expected.sort_by_key(|(task, _)| *task);
        self.ours.answers.sort_by_key(|(task, _)| *task);
        assert_eq!(self.ours.answers, expected);
        assert_eq!(self.ours.driver_is_done(), self.reference.is_stopped());
        assert_eq!(self.ours.tokens(), self.reference.tokens(), "what is left of the budget");
        if let Some(figures) = self.ours.figures() {
            assert_eq!(figures, self.reference.figures());
        }
    }

    /// Every handler succeeds and every guard comes back, until all is over.
    async fn drain(mut self) {
        self.step(&Step::Shutdown(None)).await;
        while self.reference.give_permit() {
            self.ours.give_permit();
            self.settle();
        }
        for _ in 0..1000 {
            self.step(&Step::End { which: 0, verdict: Verdict::Deliver, keep_guard: false }).await;
            self.step(&Step::ReturnGuard { which: 0 }).await;
            for slot in self.reference.slots() {
                self.ours.cancel(slot);
                self.reference.cancel(slot);
            }
            self.settle();
            if self.reference.is_stopped() && self.guards(true).is_empty() {
                break;
            }
            self.millisecond().await;
        }
        assert!(self.reference.is_stopped() && self.ours.driver_is_done(), "it drains");
        assert_eq!(self.reference.pending(), 0);
        self.step(&Step::DropMainHandle).await;
        for task in self.reference.tasks() {
            self.ours.cancel(task);
            self.reference.cancel(task);
        }
        self.settle();
    }
}

proptest! {
    #[test]
    fn it_does_what_the_reference_does(
        limits in limits(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new(limits);
            pair.settle();
            for step in &steps {
                pair.step(step).await;
            }
            pair.drain().await;
        });
    }
}
