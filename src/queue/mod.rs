//! A bounded queue that counts and hands back what does not fit.
//!
//! [`OverflowQueue`] is the queue, [`Builder`] sets its limits, [`WhenFull`] says what a full queue
//! does. The other types are outcomes and futures.

mod builder;
mod core;
mod lane;
mod outcome;
mod pop;
mod push;
#[cfg(feature = "sink")]
mod sink;
mod waiters;

use ::core::fmt;
use ::core::task::{Poll, Waker};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use self::builder::Weigh;
use self::core::{Core, LaneName, Offer, WaitersOf};
use self::pop::PendingPop;
use self::push::PendingPush;
use self::waiters::{Attempt, PollWaker};
use crate::ConfigError;
use crate::base::panic::quietly;
use crate::base::sync::{Mutex, MutexGuard, lock_briefly};
use crate::base::wait_list::WaiterId;
use crate::base::wake::WakeList;

pub use self::builder::{Builder, WhenFull};
pub use self::outcome::{
    Closed, Displaced, Drained, Popped, Pushed, QueueStats, RejectReason, Rejected, TryPopError,
};
pub use self::pop::{Items, Pop, PopManyInto};
pub use self::push::Push;
#[cfg(feature = "sink")]
pub use self::sink::PushSink;

/// A bounded queue between any number of pushers and readers. Its builder chooses what a full queue
/// does; each item that is lost is handed back, counted, and reported to the readers.
///
/// Use it in front of workers whose source must not wait: a full queue displaces its oldest items,
/// one or a share at once, and hands them back to the pusher; the reader of the next item learns how
/// many are missing before it. Or it drops the newest item, rejects it, or lets the pusher wait:
///
/// | [`WhenFull`] | `push` | `try_push` | readers |
/// | --- | --- | --- | --- |
/// | `Wait` | waits | hands the item back | see no gap |
/// | `Reject` | hands the item back | the same | see no gap |
/// | `DropNewest` | hands the item back | the same | learn of the gap |
/// | `DropOldest`, `DropOldestShare` | hands the oldest back | the same | learn of the gap |
///
/// Items that must never be dropped go into a [protected lane](Builder::protected) with bounds of
/// its own. The lane protects from displacement and gives no priority: items leave in the order of
/// their arrival over both lanes.
///
/// It runs on any runtime, or on none; put it into an [`Arc`] to share it. It stays open until
/// [`close`](Self::close): dropping pushers or readers does not close it.
///
/// # Fairness
///
/// Readers are served first come, first served, and so are pushers, each lane by itself: a large item
/// at the front of its wait list is not passed by smaller ones, and `try_push` and `try_pop` never
/// pass a waiter. Items and room are reserved for woken waiters by count, not by name: items leave in
/// the order of arrival whichever reader is polled first. A woken waiter withholds one item, or the
/// room for its own, until it is polled or dropped: so do not wait for this queue in a task that
/// keeps another future or stream of it, polled before, without polling it.
///
/// Under tokio the futures, the stream and the sink take part in cooperative scheduling: a task
/// without budget yields, and moves no item before it is polled again. If it has to wait, it joins
/// the wait list before it yields. If not, it yields without joining, so that a later task may be
/// served first: this is the one exception.
///
/// # When to use something else
///
/// If the source can wait and nothing may ever be dropped, use a bounded channel: it closes itself
/// when its last sender is dropped. To keep only the latest value, use a watch channel. For items
/// under keys, each key with a cap, use a [`BoundedArrayMap`](crate::BoundedArrayMap).
///
/// # Example
///
/// ```
/// use sluicegate::OverflowQueue;
/// use sluicegate::queue::{Pushed, WhenFull};
///
/// # futures_util::FutureExt::now_or_never(async {
/// let queue = OverflowQueue::builder().capacity(2).when_full(WhenFull::DropOldest).build()?;
/// for event in [1, 2, 3] {
///     if let Pushed::Displaced(older) = queue.try_push(event) {
///         assert_eq!(older.collect::<Vec<_>>(), [1]);
///     }
/// }
/// let popped = queue.pop().await.unwrap();
/// assert_eq!((popped.item, popped.dropped_before), (2, 1));
/// # Ok::<(), sluicegate::ConfigError>(())
/// # }).unwrap().unwrap();
/// ```
///
/// # How it is built
///
/// One lock around a state machine: a ring of numbered items and a wait list of pushers per lane, and
/// one wait list of readers. The gap before an item is the difference of its number and the one
/// before. Wait lists reuse their slots, so that neither an item nor a wait allocates in the steady
/// state. A call that makes room or stores an item wakes the next waiter after it has released the
/// lock, and no waiter that is woken already. Items that leave are dropped by their caller, never
/// under the lock.
pub struct OverflowQueue<T> {
    core: Mutex<Core<T>>,
    weigh: Option<Box<Weigh<T>>>,
}

type Locked<'a, T> = MutexGuard<'a, Core<T>>;

impl<T> OverflowQueue<T> {
    /// A queue of at most `capacity` ordinary items, whose pushers wait when it is full. A
    /// [`builder`](Self::builder) has all other options.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] unless `capacity` is from 1 to 4,294,967,295.
    pub fn new(capacity: usize) -> Result<Self, ConfigError> {
        Self::builder().capacity(capacity).build()
    }

    /// A builder with the default limits.
    pub fn builder() -> Builder<T> {
        Builder::new()
    }

    #[inline]
    fn weigh(&self, item: &T) -> u64 {
        self.weigh.as_ref().map_or(0, |weigh| weigh(item))
    }

    /// Pushes an ordinary item; a full queue does what [`WhenFull`] says. Only with `Wait` it waits.
    ///
    /// The outcome owns what was displaced, dropped or rejected. If the queue is closed, a waiting
    /// push completes and hands the item back.
    ///
    /// # Panics
    ///
    /// If `weigh` does: nothing is pushed then, and the future still has the item. Also when polled
    /// again after it completed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future pushes nothing and leaves the wait list; the item is dropped with it, or
    /// handed back by [`Push::into_item`].
    ///
    /// # Complexity
    ///
    /// O(1), and O(items displaced).
    ///
    /// ```
    /// use sluicegate::OverflowQueue;
    ///
    /// # futures_util::FutureExt::now_or_never(async {
    /// let queue = OverflowQueue::new(10)?;
    /// assert!(queue.push("event").await.is_stored());
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// # }).unwrap().unwrap();
    /// ```
    #[inline]
    pub fn push(&self, item: T) -> Push<'_, T> {
        Push { pending: PendingPush::new(self, Some(item), LaneName::Ordinary) }
    }

    /// Pushes an item that is never displaced; waits while the protected lane is full.
    ///
    /// It is rejected at once if there is no protected lane.
    ///
    /// # Panics, cancel safety, complexity
    ///
    /// Those of [`push`](Self::push).
    #[inline]
    pub fn push_protected(&self, item: T) -> Push<'_, T> {
        Push { pending: PendingPush::new(self, Some(item), LaneName::Protected) }
    }

    /// Pushes an ordinary item at once, or hands it back.
    ///
    /// It is rejected as [`Full`](RejectReason::Full) where [`push`](Self::push) would wait, so that
    /// it never passes a waiter.
    ///
    /// # Panics
    ///
    /// If `weigh` does: nothing is pushed then, and the item is dropped.
    ///
    /// # Complexity
    ///
    /// O(1), and O(items displaced).
    #[inline]
    pub fn try_push(&self, item: T) -> Pushed<T> {
        let weight = self.weigh(&item);
        let mut core = self.lock();
        match core.push_fast(item) {
            Ok(()) => Pushed::Stored,
            Err(item) => {
                self.try_push_slow_path(core, Offer { item, weight, lane: LaneName::Ordinary })
            }
        }
    }

    /// Pushes an item that is never displaced, at once, or hands it back.
    ///
    /// # Panics, complexity
    ///
    /// Those of [`try_push`](Self::try_push).
    #[inline]
    pub fn try_push_protected(&self, item: T) -> Pushed<T> {
        let weight = self.weigh(&item);
        self.try_push_slow_path(self.lock(), Offer { item, weight, lane: LaneName::Protected })
    }

    fn try_push_slow_path(&self, core: Locked<'_, T>, offer: Offer<T>) -> Pushed<T> {
        self.finish(core, |core| match core.push(offer) {
            Ok(pushed) => pushed,
            Err(offer) => core.reject(offer.item, RejectReason::Full),
        })
    }

    /// Takes the oldest item of both lanes; waits while there is none.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the queue is closed and empty, or becomes so while this waits.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no item and leaves the wait list.
    ///
    /// # Complexity
    ///
    /// O(1).
    #[inline]
    pub fn pop(&self) -> Pop<'_, T> {
        Pop { pending: PendingPop::new(self) }
    }

    /// Takes the oldest item of both lanes, if there is one that is not reserved for a waiter.
    ///
    /// # Errors
    ///
    /// [`TryPopError::Empty`] if there is none, [`TryPopError::Closed`] if the queue is closed and
    /// empty.
    ///
    /// # Complexity
    ///
    /// O(1).
    #[inline]
    pub fn try_pop(&self) -> Result<Popped<T>, TryPopError> {
        let mut core = self.lock();
        match core.pop_fast() {
            Some(popped) => Ok(popped),
            None => self.try_pop_slow_path(core),
        }
    }

    fn try_pop_slow_path(&self, core: Locked<'_, T>) -> Result<Popped<T>, TryPopError> {
        self.finish(core, |core| {
            if core.available(None, &mut None) > 0 {
                if let Some(popped) = core.pop_front() {
                    return Ok(popped);
                }
            }
            if core.is_closed() {
                return Err(TryPopError::Closed(Closed { dropped_before: core.read_gap() }));
            }
            Err(TryPopError::Empty)
        })
    }

    /// Takes up to `max` of the oldest items of both lanes at once, at least one; waits
    /// while there is none. With `max` 0 it takes none and does not wait.
    ///
    /// # Errors, cancel safety
    ///
    /// Those of [`pop`](Self::pop).
    ///
    /// # Complexity
    ///
    /// O(items taken); one allocation, which [`pop_many_into`](Self::pop_many_into) spares.
    ///
    /// ```
    /// use sluicegate::OverflowQueue;
    ///
    /// # futures_util::FutureExt::now_or_never(async {
    /// let queue = OverflowQueue::new(10)?;
    /// for n in 0..7 {
    ///     assert!(queue.push(n).await.is_stored());
    /// }
    /// let batch = queue.pop_many(5).await.unwrap();
    /// assert!(batch.into_iter().map(|popped| popped.item).eq(0..5));
    /// # Ok::<(), sluicegate::ConfigError>(())
    /// # }).unwrap().unwrap();
    /// ```
    pub async fn pop_many(&self, max: usize) -> Result<Vec<Popped<T>>, Closed> {
        let mut items = Vec::new();
        self.pop_many_into(&mut items, max).await?;
        Ok(items)
    }

    /// [`pop_many`](Self::pop_many) to the end of the caller's vector; returns the number of items
    /// added.
    ///
    /// # Errors, cancel safety
    ///
    /// Those of [`pop`](Self::pop).
    ///
    /// # Complexity
    ///
    /// O(items taken).
    #[inline]
    pub fn pop_many_into<'a>(
        &'a self,
        into: &'a mut Vec<Popped<T>>,
        max: usize,
    ) -> PopManyInto<'a, T> {
        PopManyInto { pending: PendingPop::new(self), into, max }
    }

    /// The items as a stream.
    pub fn items(&self) -> Items<&Self, T> {
        Items::new(self)
    }

    /// The items as a stream that can outlive the borrow.
    pub fn items_owned(self: Arc<Self>) -> Items<Arc<Self>, T> {
        Items::new(self)
    }

    /// The queue as a sink of ordinary items. `lost` is called with each outcome that is
    /// [`Displaced`](Pushed::Displaced) or [`DroppedNewest`](Pushed::DroppedNewest).
    #[cfg(feature = "sink")]
    pub fn sink<F: FnMut(Pushed<T>)>(&self, lost: F) -> PushSink<&Self, T, F> {
        PushSink { pending: PendingPush::new(self, None, LaneName::Ordinary), lost }
    }

    /// [`sink`](Self::sink) in a form that can outlive the borrow.
    #[cfg(feature = "sink")]
    pub fn sink_owned<F: FnMut(Pushed<T>)>(self: Arc<Self>, lost: F) -> PushSink<Arc<Self>, T, F> {
        PushSink { pending: PendingPush::new(self, None, LaneName::Ordinary), lost }
    }

    /// Closes the queue: all later pushes are rejected, and each waiter is woken once. Resident items
    /// can still be taken, by the first caller: none is reserved for a waiter any more.
    pub fn close(&self) {
        self.locked(Core::close);
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    /// Takes all items out, those reserved for waiting readers too, which wait on. Waiting pushers get
    /// the room.
    ///
    /// # Complexity
    ///
    /// O(items).
    pub fn drain(&self) -> Drained<T> {
        self.locked(Core::drain)
    }

    /// How many items there are in both lanes.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is no item in either lane.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weight of the items in both lanes; 0 if they are not weighed.
    pub fn weight(&self) -> u64 {
        self.lock().weight()
    }

    /// Panics unless its structures hold together: for tests. O(n).
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn validate(&self) {
        self.lock().validate();
    }

    /// Counts of all items pushed so far, by outcome. O(1).
    pub fn stats(&self) -> QueueStats {
        self.lock().stats()
    }

    #[inline]
    fn lock(&self) -> Locked<'_, T> {
        lock_briefly(&self.core)
    }

    fn cancel(&self, waiters: WaitersOf, id: WaiterId) {
        let waker = self.locked(|core| core.cancel(waiters, id));
        quietly(|| drop(waker));
    }

    /// Makes an attempt under the lock, and another one if that needs a clone of the waker: cloning
    /// is user code, which may panic.
    fn poll_slow_path<A>(
        &self,
        waker: &Waker,
        mut attempt: impl FnMut(&mut Core<T>, &mut PollWaker<'_>) -> Attempt<A>,
    ) -> Poll<A> {
        let mut wakers = PollWaker { waker, clone: None, unused: None };
        loop {
            let polled = match self.locked(|core| attempt(core, &mut wakers)) {
                Attempt::Done(answer) => Poll::Ready(answer),
                Attempt::Waiting => Poll::Pending,
                Attempt::NeedsClone => {
                    wakers.clone = Some(waker.clone());
                    continue;
                }
            };
            quietly(|| drop(wakers));
            return polled;
        }
    }

    fn locked<R>(&self, act: impl FnOnce(&mut Core<T>) -> R) -> R {
        self.finish(self.lock(), act)
    }

    /// Does something under the lock, and then wakes the waiters that it concerns.
    ///
    /// Panics of wakers end here: the caller may hold an item.
    #[inline]
    fn finish<R>(&self, mut core: Locked<'_, T>, act: impl FnOnce(&mut Core<T>) -> R) -> R {
        let answer = act(&mut core);
        if core.can_serve() {
            self.serve(core);
        } else {
            core.refresh_fast_path();
        }
        answer
    }

    #[cold]
    fn serve(&self, mut core: Locked<'_, T>) {
        let first = core.serve_next();
        let more = core.can_serve();
        core.refresh_fast_path();
        drop(core);
        if let Some(waker) = first {
            quietly(|| waker.wake());
        }
        if more {
            self.serve_others();
        }
    }

    #[cold]
    fn serve_others(&self) {
        let mut wakers = WakeList::new();
        let mut more = true;
        while more {
            let mut core = self.lock();
            while !wakers.is_full() {
                match core.serve_next() {
                    Some(waker) => wakers.push(waker),
                    None => break,
                }
            }
            more = core.can_serve();
            core.refresh_fast_path();
            drop(core);
            wakers.wake_all();
        }
        quietly(|| wakers.finish());
    }
}

// A panic in user code leaves it consistent.
impl<T> UnwindSafe for OverflowQueue<T> {}
impl<T> RefUnwindSafe for OverflowQueue<T> {}

impl<T> fmt::Debug for OverflowQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        f.debug_struct("OverflowQueue")
            .field("len", &stats.len)
            .field("weight", &stats.weight)
            .field("waiting_pushers", &stats.waiting_pushers)
            .field("waiting_readers", &stats.waiting_readers)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
