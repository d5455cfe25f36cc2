//! The input while no worker has it, the stock, and the workers that wait for either.

use std::collections::VecDeque;
use std::task::Waker;

use crate::executor::limits::BatchDeadline;
use crate::executor::source::Inputs;
use crate::executor::stop::StopToken;

/// What goes in, under its lock.
pub(super) struct Intake<N: Inputs> {
    /// Here unless a worker pulls from it, or it panicked.
    pub(super) inputs: Option<Box<N>>,
    pub(super) taken_away: bool,
    /// A stream said that it will wake us.
    pub(super) dormant: bool,
    pub(super) closed: bool,
    pub(super) pulled: usize,
    /// Pulled, and not settled or, with a stream of outcomes, not taken from it.
    pub(super) in_hand: usize,
    /// Pulled, and free to be taken by any worker.
    pub(super) stock: VecDeque<(usize, N::Input)>,
    /// By worker: who waits for the input, for room, or for what others put into its inbox.
    pub(super) wanting: Vec<Option<Waker>>,
    pub(super) inboxes: Vec<VecDeque<(usize, N::Input)>>,
    /// By worker: it was dropped and looks into its inbox no more.
    pub(super) gone: Vec<bool>,
}

/// What a worker is given when it asks for inputs.
pub(in crate::executor::spawned) enum Response<I> {
    /// They are in its chunk.
    Chunk,
    /// Another sent it.
    One(usize, I),
    /// It will be woken.
    Later,
    /// There is nothing more.
    Nothing,
}

/// What a worker asks for.
pub(in crate::executor::spawned) struct Request<'a> {
    pub(in crate::executor::spawned) worker: usize,
    /// So many inputs, at least one.
    pub(in crate::executor::spawned) count: usize,
    /// So many of those it had have left.
    pub(in crate::executor::spawned) released: usize,
    /// Nothing is pulled after one of them has stopped the batch.
    pub(in crate::executor::spawned) stops: &'a [StopToken],
    /// Nor after this.
    pub(in crate::executor::spawned) deadline: &'a BatchDeadline,
    pub(in crate::executor::spawned) waker: &'a Waker,
    /// What a stream of inputs is polled with.
    pub(in crate::executor::spawned) source_waker: &'a Waker,
}

/// What a worker that asks for inputs is to do.
pub(super) enum Step<N: Inputs> {
    Pull { inputs: Box<N>, from: usize, most: usize },
    Give(Response<N::Input>),
}

impl<N: Inputs> Intake<N> {
    pub(super) fn step(
        &mut self,
        limit: usize,
        stocks: bool,
        request: &Request<'_>,
        chunk: &mut VecDeque<(usize, N::Input)>,
    ) -> Step<N> {
        if let Some((index, input)) = self.inboxes[request.worker].pop_front() {
            return Step::Give(Response::One(index, input));
        }
        let taken = request.count.min(self.stock.len());
        chunk.extend(self.stock.drain(..taken));
        // In time, so that others find some in stock while the input is away.
        let stock = if stocks { 2 * request.count } else { 0 };
        let missing = (request.count - taken) + stock.saturating_sub(self.stock.len());
        let most = missing.min(limit.saturating_sub(self.in_hand));
        let is_worth_it = chunk.is_empty() || most >= request.count;
        if most > 0 && is_worth_it && !self.dormant && !self.closed {
            if let Some(inputs) = self.inputs.take() {
                self.taken_away = true;
                // Until it turns out otherwise: what wakes us meanwhile says so first.
                self.dormant = true;
                return Step::Pull { inputs, from: self.pulled, most };
            }
        }
        if !chunk.is_empty() {
            return Step::Give(Response::Chunk);
        }
        if self.closed && !self.taken_away {
            return Step::Give(Response::Nothing);
        }
        // One of ours, which runs nobody's code when it is cloned or dropped.
        self.wanting[request.worker] = Some(request.waker.clone());
        Step::Give(Response::Later)
    }

    pub(super) fn take_wanting(&mut self) -> Vec<Waker> {
        // Mostly there is none, and then nothing is allocated.
        self.wanting.iter_mut().filter_map(Option::take).collect()
    }
}
