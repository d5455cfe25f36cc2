//! The fast path, for items that need nothing but a slot: what was woken alternates with new
//! inputs, many of them under one guard against panics.

use core::future::Future;
use core::task::{Context, Poll};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{At, FIRST_SLOT, Run, SourceState};
use crate::base::panic::{Panic, quietly};
use crate::executor::order::Order;
use crate::executor::outcome_sink::OutcomeSink;
use crate::executor::policies::Policy;
use crate::executor::source::Source;
use crate::executor::stop::Stops;
use crate::executor::summary::{BatchEnd, BatchSummary};
use crate::settled::ItemError;

/// An input that is about to be started and, if it may be tried again, a copy of it. Should the
/// item's code panic, the copy goes where `settle` finds it.
struct Fresh<'a, I> {
    input: Option<I>,
    copy: Option<I>,
    left_behind: &'a mut Option<(I, u32)>,
}

impl<I> Fresh<'_, I> {
    #[inline]
    fn into_copy(mut self) -> Option<I> {
        self.copy.take()
    }
}

impl<I> Drop for Fresh<'_, I> {
    #[inline]
    fn drop(&mut self) {
        if let Some(copy) = self.copy.take() {
            *self.left_behind = Some((copy, 1));
        } else if let Some(input) = self.input.take() {
            // It was the copying that panicked.
            *self.left_behind = Some((input, 0));
        }
    }
}

/// Counts an outcome that is a result.
#[inline]
fn count<T, E>(result: &Result<T, E>, summary: &mut BatchSummary, stops: &mut Stops) {
    match result {
        Ok(_) => summary.counts.fulfilled += 1,
        Err(_) => {
            summary.counts.rejected += 1;
            stops.failed();
        }
    }
}

impl<S, F, Fut, P, O, T, E> Run<S, F, Fut, P, O, E>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    P: Policy<S::Input, E>,
    O: OutcomeSink<S::Input, T, E>,
{
    /// Whether items start as soon as they are pulled, and nobody is told of it.
    #[inline]
    pub(super) fn takes_fast_path(&self) -> bool {
        P::Order::ALL_UNORDERED
            && self.permits.is_none()
            && self.throttling.is_none()
            && self.reporter.is_none()
            && !self.aborted
    }

    /// As `is_time_up`, of a run without a throttle.
    #[inline]
    fn is_time_up_fast(&self) -> bool {
        let retry = if P::RETRIES { self.retries.first_due() } else { None };
        self.limits.may_be_due(retry)
    }

    /// Takes steps as long as nothing else is to be done; whether it took any.
    #[inline]
    pub(super) fn fast_path(&mut self, steps: &mut usize) -> bool {
        let mut any = false;
        loop {
            // Once for many items: what they leave half done is in `at`.
            let Err(payload) =
                catch_unwind(AssertUnwindSafe(|| self.fast_path_unguarded(steps, &mut any)))
            else {
                return any;
            };
            self.recover(Panic::new(payload));
            any = true;
            if *steps == 0 {
                return true;
            }
            *steps -= 1;
        }
    }

    #[inline]
    fn fast_path_unguarded(&mut self, steps: &mut usize, any: &mut bool) {
        loop {
            let mut idle = true;
            self.ready.take_if_due();
            if let Some(entry) = self.ready.next() {
                idle = false;
                match entry.checked_sub(FIRST_SLOT) {
                    Some(slot) => self.poll_fast(slot),
                    None => self.visit(entry),
                }
                if self.is_time_up_fast() {
                    *any = true;
                    return;
                }
            }
            let room = self.room_to_pull();
            if room > 0 && self.pull_fast(room, steps) {
                idle = false;
            }
            if idle {
                return;
            }
            *any = true;
            if *steps == 0 || !self.none_due() || self.sink.waiting() > 0 {
                return;
            }
            if self.stops.is_news() || self.is_time_up_fast() {
                return;
            }
            *steps -= 1;
        }
    }

    /// Polls the item in this slot, if it is still there, and settles it if it is done.
    #[inline]
    fn poll_fast(&mut self, slot: usize) {
        let Some((index, mut future)) = self.slots.started(slot) else { return };
        self.at = At::Woken(slot);
        match future.poll() {
            Poll::Pending => {}
            Poll::Ready(Err(error)) if P::RETRIES => {
                quietly(|| future.clear());
                self.attempt_ended(slot, Err(error));
            }
            Poll::Ready(result) => {
                count(&result, &mut self.summary, &mut self.stops);
                self.sink.settle(index, result.map_err(ItemError::Rejected));
                self.at = At::Drop;
                self.slots.vacate(slot);
                if P::RETRIES {
                    self.policy.succeeded();
                    if let Some(retry_item) = self.retries.take(slot) {
                        retry_item.discard();
                    }
                }
                self.slots.clear(slot);
            }
        }
    }

    /// Pulls an input and, as long as they are ready when first polled and nothing else is to be
    /// done, further ones; whether there were any. They all use one slot, which stays vacant: in
    /// here a ready item costs a handful of nanoseconds. In two functions it costs 6 to 9 % more.
    #[inline]
    fn pull_fast(&mut self, room: usize, steps: &mut usize) -> bool {
        let slot = self.vacant_slot();
        let alone = self.ready.is_empty();
        // Neither a time limit, nor anything in hand that may be woken meanwhile or tried again: what
        // there is to look at between items then is looked at once for all of them.
        let quiet = alone && self.slots.occupied() == 0 && !self.limits.has_limits();
        let Self { source, source_waker, start, sink, stops, at, summary, limits, ready, .. } =
            self;
        let (source, start) = (&mut **source, &mut **start);
        let (attempts, retries) = (&*self.policy, &mut self.retries);
        let mut future = self.slots.future(slot);
        let cx = &mut Context::from_waker(source_waker);
        let mut any = false;
        loop {
            *at = At::Source;
            let pulled = source.poll_pull(room, cx);
            let Poll::Ready(Some((index, input))) = pulled else {
                let ended = pulled.is_ready();
                self.source_state = if ended { SourceState::Done } else { SourceState::Pending };
                return any;
            };
            any = true;
            if !quiet && limits.is_batch_due() {
                self.check_deadline();
                self.admit(index, input);
                return true;
            }
            *at = At::Item(index);
            let left_behind = &mut retries.fresh;
            let mut fresh = Fresh { input: Some(input), copy: None, left_behind };
            if P::RETRIES {
                fresh.copy = fresh.input.as_ref().and_then(|input| attempts.keep(input));
            }
            let Some(input) = fresh.input.take() else { return any };
            match future.start(|| start(input)) {
                Poll::Ready(Err(error)) if P::RETRIES => {
                    let copy = fresh.into_copy();
                    quietly(|| future.clear());
                    self.keep_fast(slot, index, copy);
                    self.attempt_ended(slot, Err(error));
                    return true;
                }
                Poll::Ready(result) => {
                    count(&result, summary, stops);
                    sink.settle(index, result.map_err(ItemError::Rejected));
                    *at = At::Drop;
                    if P::RETRIES {
                        attempts.succeeded();
                    }
                    future.clear();
                    drop(fresh.into_copy());
                }
                Poll::Pending => {
                    let copy = fresh.into_copy();
                    self.keep_fast(slot, index, copy);
                    self.time(slot, index);
                    self.ready.new_started();
                    return true;
                }
            }
            let alarm = if P::RETRIES && !quiet { retries.first_due() } else { None };
            let others = !quiet && (ready.new_started() || !alone || limits.may_be_due(alarm));
            if others || *steps == 0 || sink.waiting() > 0 || stops.is_news() {
                return true;
            }
            *steps -= 1;
        }
    }

    /// An item that has been started in the next vacant slot is not done: the slot is its own.
    #[inline]
    fn keep_fast(&mut self, slot: usize, index: usize, copy: Option<S::Input>) {
        if P::RETRIES {
            self.retries.insert(slot, copy);
        }
        self.slots.keep(slot, index);
    }

    /// The caller's code panicked on the fast path.
    #[cold]
    fn recover(&mut self, panic: Panic) {
        match self.at {
            At::Source => self.source_panicked(panic),
            At::Item(index) => {
                let slot = self.vacant_slot();
                quietly(|| self.slots.clear(slot));
                self.retries.insert_fresh(slot);
                let retry_item = self.retries.take(slot);
                self.record(index, Err(ItemError::Panicked(panic)), retry_item);
            }
            At::Woken(slot) => {
                quietly(|| self.slots.clear(slot));
                self.settle(slot, Err(ItemError::Panicked(panic)));
            }
            // It has settled already.
            At::Drop => {
                quietly(|| drop(panic));
                let copy = self.retries.fresh.take();
                quietly(|| drop(copy));
            }
        }
    }

    pub(super) fn source_panicked(&mut self, panic: Panic) {
        self.source_state = SourceState::Done;
        if matches!(self.summary.end, BatchEnd::Exhausted) {
            self.summary.end = BatchEnd::SourcePanicked(panic);
        } else {
            quietly(|| drop(panic));
        }
    }
}
