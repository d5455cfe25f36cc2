//! The short way, of items that need nothing but a place: what was woken takes turns with new
//! inputs, many of them under one guard against panics.

use core::future::Future;
use core::task::{Context, Poll};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{At, FIRST_PLACE, Run, SourceState};
use crate::base::panic::{Panic, quietly};
use crate::executor::attempts::Attempts;
use crate::executor::order::Order;
use crate::executor::outlet::Outlet;
use crate::executor::source::Source;
use crate::executor::stop::Stops;
use crate::executor::summary::{BatchEnd, BatchSummary};
use crate::executor::weight::Weigher;
use crate::settled::Settled;

/// An input that is about to be started and, if it may be tried again, a copy of it. Should the
/// item's code panic, the copy goes where it is found by whoever settles the item.
struct Fresh<'a, I> {
    input: Option<I>,
    copy: Option<I>,
    left_behind: &'a mut Option<(I, u32)>,
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

impl<S, F, Fut, R, W, A, O, T, E> Run<S, F, Fut, R, W, A, O, E>
where
    S: Source,
    F: FnMut(S::Input) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    R: Order<S::Input>,
    W: Weigher<S::Input>,
    A: Attempts<S::Input, E>,
    O: Outlet<S::Input, T, E>,
{
    /// Whether items start as soon as they are pulled, and nobody is told of it.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        R::ALL_SIDE_BY_SIDE
            && self.permits.is_none()
            && self.throttling.is_none()
            && self.watch.is_none()
            && !self.aborted
    }

    /// Takes turns as long as there is nothing else to do; whether there were any to take.
    #[inline]
    pub(super) fn take_turns(&mut self, turns: &mut usize) -> bool {
        let mut any = false;
        loop {
            // Once for many items: what they leave half done is in `at`.
            let Err(payload) =
                catch_unwind(AssertUnwindSafe(|| self.take_turns_unguarded(turns, &mut any)))
            else {
                return any;
            };
            self.recover(Panic::new(payload));
            any = true;
            if *turns == 0 {
                return true;
            }
            *turns -= 1;
        }
    }

    #[inline]
    fn take_turns_unguarded(&mut self, turns: &mut usize, any: &mut bool) {
        loop {
            let mut idle = true;
            self.wakes.take_turn();
            if let Some(line) = self.wakes.next() {
                idle = false;
                match line.checked_sub(FIRST_PLACE) {
                    Some(place) => self.poll_plain(place),
                    None => self.visit(line),
                }
                if self.is_time_up() {
                    *any = true;
                    return;
                }
            }
            let room = self.room_to_pull();
            if room > 0 && self.pull_plain(room, turns) {
                idle = false;
            }
            if idle {
                return;
            }
            *any = true;
            if *turns == 0 || !self.nobody_is_due() || self.outlet.waiting() > 0 {
                return;
            }
            if self.stops.is_news() || self.is_time_up() {
                return;
            }
            *turns -= 1;
        }
    }

    /// Polls the item at this place, if it is still there, and settles it if it is done.
    #[inline]
    fn poll_plain(&mut self, place: usize) {
        let Some(mut slot) = self.places.started(place) else { return };
        self.at = At::Woken(place);
        match slot.poll() {
            Poll::Pending => {}
            Poll::Ready(Err(error)) if A::RETRIES => {
                quietly(|| slot.clear());
                self.finish(place, Err(error));
            }
            Poll::Ready(result) => {
                count(&result, &mut self.summary, &mut self.stops);
                self.outlet.settle(slot.index(), result.into());
                self.at = At::Drop;
                self.places.vacate(place);
                if A::RETRIES {
                    self.attempts.succeeded();
                    if let Some(trial) = self.trials.take(place) {
                        trial.end();
                    }
                }
                self.places.clear(place);
            }
        }
    }

    /// Pulls an input and, as long as they are ready when first polled and nothing else is to be
    /// done, further ones; whether there were any. They all use one place, which stays vacant: in
    /// here a ready item costs a handful of nanoseconds.
    #[inline]
    fn pull_plain(&mut self, room: usize, turns: &mut usize) -> bool {
        let place = self.vacant_place();
        let alone = self.wakes.is_empty();
        // Neither a time limit, nor anything in hand that may be woken meanwhile or tried again: what
        // there is to look at between items then is looked at once for all of them.
        let quiet = alone && self.places.occupied() == 0 && !self.clock.has_limits();
        let Self { source, source_waker, start, outlet, stops, at, summary, clock, wakes, .. } =
            self;
        let (source, start) = (&mut **source, &mut **start);
        let (attempts, trials) = (&*self.attempts, &mut self.trials);
        let mut slot = self.places.slot(place);
        let cx = &mut Context::from_waker(source_waker);
        let mut any = false;
        loop {
            *at = At::Source;
            let (index, input) = match source.poll_pull(room, cx) {
                Poll::Ready(Some(pulled)) => pulled,
                Poll::Ready(None) => {
                    self.source_state = SourceState::Done;
                    return any;
                }
                Poll::Pending => {
                    self.source_state = SourceState::Pending;
                    return any;
                }
            };
            any = true;
            if !quiet && clock.is_batch_due() {
                self.keep_deadline();
                self.admit(index, input);
                return true;
            }
            *at = At::Item(index);
            let left_behind = &mut trials.fresh;
            let mut fresh = Fresh { input: Some(input), copy: None, left_behind };
            if A::RETRIES {
                fresh.copy = fresh.input.as_ref().and_then(|input| attempts.keep(input));
            }
            let Some(input) = fresh.input.take() else { return any };
            match slot.start(|| start(input)) {
                Poll::Ready(Err(error)) if A::RETRIES => {
                    let copy = fresh.copy.take();
                    drop(fresh);
                    quietly(|| slot.clear());
                    trials.open(place, copy);
                    self.places.keep(place, index);
                    self.finish(place, Err(error));
                    return true;
                }
                Poll::Ready(result) => {
                    count(&result, summary, stops);
                    outlet.settle(index, result.into());
                    *at = At::Drop;
                    if A::RETRIES {
                        attempts.succeeded();
                    }
                    slot.clear();
                    drop(fresh.copy.take());
                    drop(fresh);
                }
                Poll::Pending => {
                    let copy = fresh.copy.take();
                    drop(fresh);
                    if A::RETRIES {
                        trials.open(place, copy);
                    }
                    self.places.keep(place, index);
                    self.time(place, index);
                    self.wakes.new_started();
                    return true;
                }
            }
            if !quiet {
                let alarm = if A::RETRIES { trials.first_due() } else { None };
                if wakes.new_started() || !alone || clock.may_be_due(alarm) {
                    return true;
                }
            }
            if *turns == 0 || outlet.waiting() > 0 || stops.is_news() {
                return true;
            }
            *turns -= 1;
        }
    }

    /// The caller's code panicked on the short way.
    #[cold]
    fn recover(&mut self, panic: Panic) {
        match self.at {
            At::Source => self.source_panicked(panic),
            At::Item(index) => {
                let place = self.vacant_place();
                quietly(|| self.places.clear(place));
                self.trials.open_fresh(place);
                let trial = self.trials.take(place);
                self.record(index, Settled::Panicked(panic), trial);
            }
            At::Woken(place) => {
                quietly(|| self.places.clear(place));
                self.settle(place, Settled::Panicked(panic));
            }
            // It has settled already.
            At::Drop => {
                quietly(|| drop(panic));
                let copy = self.trials.fresh.take();
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
