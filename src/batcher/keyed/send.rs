//! The futures that wait in line for room under a key.
//!
//! ```text
//!             room under the key and in all, nobody in line
//!  outside ─────────────────────────────────────────────────▶ accepted
//!     │                                                          ▲
//!     ├──▶ in line for the key ──▶ room under the key ───────────┤
//!     │                                    │                     │
//!     └────────────────────────────────────┴──▶ in line ─────────┘ granted, polled
//! ```
//!
//! Who waits for room under a full key holds up nobody who sends to another: only those who have it
//! stand in the line of all. Once closed, each is handed back what it brought. Dropped, a future
//! leaves its line and passes on what it was granted.

use core::future::Future;
use core::hash::Hash;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::task::Waker;

use super::buffers::{Hashed, KeyedBuffers, LaneState};
use crate::base::coop;
use crate::base::timer::now;
use crate::base::wait_list::WaiterId;
use crate::batcher::capacity::Weight;
use crate::batcher::core::{Core, Refusal};
use crate::batcher::error::{Closed, SendError, TrySendError};
use crate::batcher::shared::{Shared, wake};

pub(crate) type KeyedCore<K, T> = Core<T, KeyedBuffers<K, T>>;
pub(crate) type KeyedShared<K, T> = Shared<T, KeyedBuffers<K, T>>;

#[derive(Debug, Clone, Copy)]
enum Stage {
    Outside,
    InKeyLine {
        lane: u32,
        waiter: WaiterId,
    },
    /// Capacity under the key is granted or taken, that in all is not.
    HasKey {
        lane: u32,
    },
    InLine {
        lane: Option<u32>,
        waiter: WaiterId,
    },
}

/// What became of an attempt to take room in the lane of a key.
enum InLane {
    /// There is room; `None` if keys are not limited.
    Room(Option<u32>),
    Waits,
    /// To be cloned outside the lock, for a new lane.
    NeedsKey,
    NeedsWaker,
}

/// A way to room for one item of a key.
#[derive(Debug)]
pub(super) struct Wait {
    need: Weight,
    /// Whether room under the key is to be held though the item is not there yet.
    holds: bool,
    stage: Stage,
}

impl Wait {
    pub(super) fn new(need: Weight, holds: bool) -> Self {
        Self { need, holds, stage: Stage::Outside }
    }

    /// Calls `granted` under the lock once there is room, with the lane in which it was taken.
    #[inline]
    pub(super) fn poll<K: Hash + Eq + Clone, T, R>(
        &mut self,
        shared: &KeyedShared<K, T>,
        key: &mut Option<Hashed<K>>,
        cx: &mut Context<'_>,
        granted: impl FnOnce(&mut KeyedCore<K, T>, Hashed<K>) -> R,
    ) -> Poll<Result<R, Closed>> {
        // Before anything is taken: a task without budget holds nothing while it yields.
        let Poll::Ready(unit) = coop::poll_proceed(cx) else {
            return self.poll_slow(shared, key, cx, true, granted);
        };
        if matches!(self.stage, Stage::Outside) && !self.holds {
            let mut core = shared.lock();
            if core.buffers.look_up(key.as_mut().expect(COMPLETED)) {
                match core.take_capacity(self.need) {
                    Ok(()) => {
                        unit.made_progress();
                        let key = key.take().expect(COMPLETED);
                        return Poll::Ready(Ok(granted(&mut core, key)));
                    }
                    Err(Refusal::Closed) => {
                        unit.made_progress();
                        return Poll::Ready(Err(Closed));
                    }
                    Err(Refusal::Full) => {}
                }
            }
        }
        let polled = self.poll_slow(shared, key, cx, false, granted);
        if polled.is_ready() {
            unit.made_progress();
        }
        polled
    }

    /// If the task's budget is `spent`, room that is free is left alone, but a wait begins at once,
    /// so that nobody passes: what was granted to a waiter is its own, and used up.
    #[cold]
    fn poll_slow<K: Hash + Eq + Clone, T, R>(
        &mut self,
        shared: &KeyedShared<K, T>,
        key: &mut Option<Hashed<K>>,
        cx: &mut Context<'_>,
        spent: bool,
        granted: impl FnOnce(&mut KeyedCore<K, T>, Hashed<K>) -> R,
    ) -> Poll<Result<R, Closed>> {
        // Both are cloned before the lock and dropped after it: they are user code.
        let mut fresh: Option<Waker> = None;
        let mut spare: Option<K> = None;
        loop {
            let mut core = shared.lock();
            if spent && self.yields(&core, key) {
                return Poll::Pending;
            }
            if !core.is_accepting() {
                self.stage = Stage::Outside;
                return Poll::Ready(Err(Closed));
            }
            let waker = match self.stage {
                Stage::InKeyLine { lane, waiter } => core.buffers.waker(lane, waiter),
                Stage::InLine { waiter, .. } => core.waiting(waiter),
                Stage::Outside | Stage::HasKey { .. } => None,
            };
            if let Some(waker) = waker {
                if still_waits(waker, &mut fresh, cx) {
                    return Poll::Pending;
                }
                drop(core);
                fresh = Some(cx.waker().clone());
                continue;
            }
            let known = key.as_ref().expect(COMPLETED);
            let lane = match self.stage {
                Stage::Outside => match self.enter_lane(&mut core, known, &mut fresh, &mut spare) {
                    InLane::Room(lane) => lane,
                    InLane::Waits => return Poll::Pending,
                    InLane::NeedsKey => {
                        drop(core);
                        spare = Some(known.key.clone());
                        continue;
                    }
                    InLane::NeedsWaker => {
                        drop(core);
                        fresh = Some(cx.waker().clone());
                        continue;
                    }
                },
                Stage::HasKey { lane } | Stage::InKeyLine { lane, .. } => {
                    self.stage = Stage::HasKey { lane };
                    Some(lane)
                }
                Stage::InLine { lane, .. } => {
                    settle(&core, key, lane);
                    return Poll::Ready(Ok(self.grant(&mut core, key, granted)));
                }
            };
            settle(&core, key, lane);
            if core.take_capacity(self.need).is_ok() {
                return Poll::Ready(Ok(self.grant(&mut core, key, granted)));
            }
            if let Some(waker) = fresh.take() {
                self.stage = Stage::InLine { lane, waiter: core.join(self.need, waker) };
                return Poll::Pending;
            }
            drop(core);
            fresh = Some(cx.waker().clone());
        }
    }

    /// Whether a task without budget leaves free room alone: it has not begun to wait, and need not.
    fn yields<K: Hash + Eq, T>(&self, core: &KeyedCore<K, T>, key: &mut Option<Hashed<K>>) -> bool {
        if !matches!(self.stage, Stage::Outside) {
            return false;
        }
        let has_key = core.buffers.look_up(key.as_mut().expect(COMPLETED));
        core.is_immediate(self.need) && (has_key || !core.is_accepting())
    }

    /// Takes room in the lane of the key, or joins its wait list, if keys are limited.
    fn enter_lane<K: Hash + Eq, T>(
        &mut self,
        core: &mut KeyedCore<K, T>,
        key: &Hashed<K>,
        waker: &mut Option<Waker>,
        spare: &mut Option<K>,
    ) -> InLane {
        if !core.buffers.limits_keys() {
            return InLane::Room(None);
        }
        let Some(lane) = core.buffers.lane_of(key, spare) else { return InLane::NeedsKey };
        if core.buffers.lane_has_room(lane) {
            core.buffers.reserve(lane);
            self.stage = Stage::HasKey { lane };
            return InLane::Room(Some(lane));
        }
        let Some(waker) = waker.take() else { return InLane::NeedsWaker };
        let waiter = core.buffers.join(lane, waker);
        self.stage = Stage::InKeyLine { lane, waiter };
        InLane::Waits
    }

    fn grant<K: Hash + Eq, T, R>(
        &mut self,
        core: &mut KeyedCore<K, T>,
        key: &mut Option<Hashed<K>>,
        granted: impl FnOnce(&mut KeyedCore<K, T>, Hashed<K>) -> R,
    ) -> R {
        self.stage = Stage::Outside;
        granted(core, key.take().expect(COMPLETED))
    }

    /// To be called when the future is dropped.
    #[inline]
    pub(super) fn leave<K: Hash + Eq, T>(&mut self, shared: &KeyedShared<K, T>) {
        let (lane, waiter) = match mem::replace(&mut self.stage, Stage::Outside) {
            Stage::Outside => return,
            Stage::InKeyLine { lane, waiter } => {
                // Once closed, nobody waits, and room is of no use to anybody.
                let _gone = shared.locked(|core, wakes| {
                    let accepts = core.is_accepting();
                    accepts.then(|| core.buffers.leave(lane, waiter, wakes)).flatten()
                });
                return;
            }
            Stage::HasKey { lane } => (Some(lane), None),
            Stage::InLine { lane, waiter } => (lane, Some(waiter)),
        };
        let _gone = shared.locked(|core, wakes| {
            if let Some(waiter) = waiter {
                core.leave(waiter, self.need, wakes);
            }
            core.return_key_capacity(lane, wakes)
        });
    }
}

/// Says where the lane of the key is: the one with room reserved, if there is one.
fn settle<K: Hash + Eq, T>(
    core: &KeyedCore<K, T>,
    key: &mut Option<Hashed<K>>,
    reserved: Option<u32>,
) {
    let key = key.as_mut().expect(COMPLETED);
    match reserved {
        Some(lane) => key.lane = LaneState::Reserved(lane),
        None => {
            let _has_room = core.buffers.look_up(key);
        }
    }
}

/// Whether the future waits on, with a waker that is its task's.
fn still_waits(waker: &mut Waker, fresh: &mut Option<Waker>, cx: &Context<'_>) -> bool {
    if waker.will_wake(cx.waker()) {
        return true;
    }
    match fresh {
        Some(fresh) => {
            mem::swap(waker, fresh);
            true
        }
        None => false,
    }
}

const RESERVED: &str = "an item and the room for it are there until it is accepted";

pub(super) const COMPLETED: &str = "a future that sends was polled after it had completed";

#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct KeyedSending<'a, K: Hash + Eq, T> {
    shared: &'a KeyedShared<K, T>,
    key: Option<Hashed<K>>,
    pub(in crate::batcher) item: Option<T>,
    weight: u64,
    wait: Wait,
}

impl<'a, K: Hash + Eq, T> KeyedSending<'a, K, T> {
    #[inline]
    pub(crate) fn new(shared: &'a KeyedShared<K, T>, key: Hashed<K>, item: T) -> Self {
        let weight = shared.weigh(&item);
        let wait = Wait::new(shared.limits().room_for(weight), false);
        Self { shared, key: Some(key), item: Some(item), weight, wait }
    }

    fn hand_back(&mut self) -> (K, T) {
        (self.key.take().expect(COMPLETED).key, self.item.take().expect(COMPLETED))
    }
}

// Key and item are moved out, never pinned.
impl<K: Hash + Eq, T> Unpin for KeyedSending<'_, K, T> {}

impl<K: Hash + Eq + Clone, T> Future for KeyedSending<'_, K, T> {
    type Output = Result<(), SendError<(K, T)>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.weight > this.shared.limits().max_weight {
            ready!(coop::poll_spend(cx));
            return Poll::Ready(Err(SendError::TooHeavy(this.hand_back())));
        }
        let Self { shared, key, item, weight, wait } = this;
        let accepted = wait.poll(shared, key, cx, |core, key| {
            shared.accept_keyed(core, key, || item.take().expect(COMPLETED), *weight)
        });
        Poll::Ready(match ready!(accepted) {
            Ok((driver, _key)) => {
                wake(driver);
                Ok(())
            }
            Err(Closed) => Err(SendError::Closed(this.hand_back())),
        })
    }
}

impl<K: Hash + Eq, T> Drop for KeyedSending<'_, K, T> {
    #[inline]
    fn drop(&mut self) {
        self.wait.leave(self.shared);
    }
}

#[must_use = "futures do nothing unless they are awaited"]
pub(crate) struct KeyedReserving<'a, K: Hash + Eq, T> {
    shared: &'a KeyedShared<K, T>,
    key: Option<Hashed<K>>,
    wait: Wait,
}

impl<'a, K: Hash + Eq, T> KeyedReserving<'a, K, T> {
    pub(crate) fn new(shared: &'a KeyedShared<K, T>, key: Hashed<K>, need: Weight) -> Self {
        let holds = shared.limits().capacity_per_key != usize::MAX;
        Self { shared, key: Some(key), wait: Wait::new(need, holds) }
    }
}

impl<K: Hash + Eq, T> Unpin for KeyedReserving<'_, K, T> {}

impl<K: Hash + Eq + Clone, T> Future for KeyedReserving<'_, K, T> {
    /// The key, with the lane in which room is held, and the weight that was taken.
    type Output = Result<(Hashed<K>, Weight), Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { shared, key, wait } = &mut *self;
        let need = wait.need;
        wait.poll(shared, key, cx, |_, key| (key, need))
    }
}

impl<K: Hash + Eq, T> Drop for KeyedReserving<'_, K, T> {
    fn drop(&mut self) {
        self.wait.leave(self.shared);
    }
}

impl<K: Hash + Eq, T> KeyedShared<K, T> {
    /// Accepts an item for which room was taken, with the lock held. After it the driver is to be
    /// woken, and a key that is not needed dropped.
    #[inline]
    pub(crate) fn accept_keyed(
        &self,
        core: &mut KeyedCore<K, T>,
        key: Hashed<K>,
        item: impl FnOnce() -> T,
        weight: u64,
    ) -> (Option<Waker>, Option<Hashed<K>>) {
        core.accept(key, item, weight, now)
    }

    #[inline]
    pub(crate) fn try_send_keyed(
        &self,
        mut key: Hashed<K>,
        item: T,
    ) -> Result<(), TrySendError<(K, T)>> {
        let weight = self.weigh(&item);
        if weight > self.limits().max_weight {
            return Err(TrySendError::TooHeavy((key.key, item)));
        }
        let mut core = self.lock();
        if !core.buffers.look_up(&mut key) && core.is_accepting() {
            return Err(TrySendError::Full((key.key, item)));
        }
        match core.take_capacity(self.limits().room_for(weight)) {
            Ok(()) => {
                let (driver, _key) = self.accept_keyed(&mut core, key, || item, weight);
                drop(core);
                wake(driver);
                Ok(())
            }
            Err(Refusal::Full) => Err(TrySendError::Full((key.key, item))),
            Err(Refusal::Closed) => Err(TrySendError::Closed((key.key, item))),
        }
    }

    /// Accepts an item for which room in all was reserved, and gives back what it does not take up.
    /// The room is taken once the key was looked up, which may panic.
    pub(crate) fn send_reserved_keyed(
        &self,
        room: &mut Option<Weight>,
        key: Hashed<K>,
        item: T,
        weight: u64,
    ) -> Result<(), TrySendError<(Hashed<K>, T)>> {
        if weight > self.limits().max_weight {
            if let Some(room) = room.take() {
                self.return_capacity(room);
            }
            return Err(TrySendError::TooHeavy((key, item)));
        }
        let need = self.limits().room_for(weight);
        // Out here, so that they are dropped after the lock should the key's `Eq` panic.
        let mut sent = Some((key, item));
        let (driver, _key) = self.locked(|core, wakes| {
            let has_room = sent.as_mut().is_some_and(|(key, _)| core.buffers.look_up(key));
            let (key, item) = sent.take().expect(RESERVED);
            let room = room.take().expect(RESERVED);
            if !core.is_accepting() {
                return Err(TrySendError::Closed((key, item)));
            }
            if !has_room {
                core.return_capacity(1, room, wakes);
                return Err(TrySendError::Full((key, item)));
            }
            if room > need {
                core.return_capacity(0, room - need, wakes);
            }
            Ok(self.accept_keyed(core, key, || item, weight))
        })?;
        wake(driver);
        Ok(())
    }
}
