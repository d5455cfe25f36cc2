//! The ready queue: which futures of a run were woken. The one part of a run that other threads reach.
//!
//! Each future that a run polls has an *entry*: a number, and a waker that marks it. Entries are in
//! groups. A group has a word with one bit per entry, so that a wake-up is one atomic operation. The
//! first wake-up of an idle group also puts the group on a list, under a lock:
//!
//! ```text
//!             first wake-up                    its word is taken
//!   idle ───────────────────────▶ on the list ──────────────────▶ idle, its entries to be polled
//! ```
//!
//! An entry is idle again *before* its future is polled, so that a wake-up during the poll counts.
//! The run stores its own waker in the same critical section that finds the list empty, so that no
//! wake-up falls between the look and the sleep.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::base::panic::quietly;
use crate::base::sync::{AtomicU64, AtomicUsize, Mutex, Ordering};

/// Entries per group. Two under loom, so that the models see the seam.
const GROUP: usize = if cfg!(loom) { 2 } else { 64 };

/// The groups that were woken since the run last looked, in the order in which they were.
struct ReadyList {
    state: Mutex<State>,
    /// Not zero while a group is on the list. Changed under the lock; read without it as a hint, which
    /// orders nothing.
    any: AtomicUsize,
}

struct State {
    /// Each group at most once: its length is bounded by the number of groups.
    woken: VecDeque<usize>,
    /// The run's own waker, while the run sleeps.
    sleeper: Option<Waker>,
}

impl ReadyList {
    fn wake(&self, group: usize) {
        let sleeper = {
            let mut state = self.state.lock();
            state.woken.push_back(group);
            self.any.store(1, Ordering::Relaxed);
            state.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

struct Group {
    /// One bit per woken entry. The group is on the list exactly while it is not zero.
    woken: AtomicU64,
    number: usize,
    list: Arc<ReadyList>,
}

/// What the waker of an entry points to. It outlives the futures polled with it: a late wake-up by an
/// earlier future costs the entry's present future one poll, and nothing else.
struct Entry {
    bit: u64,
    group: Arc<Group>,
}

impl Wake for Entry {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Releases what the future is to see, to the run that takes the word.
        if self.group.woken.fetch_or(self.bit, Ordering::AcqRel) == 0 {
            self.group.list.wake(self.group.number);
        }
    }
}

/// A run's end of the list.
pub(super) struct ReadyQueue {
    list: Arc<ReadyList>,
    groups: Vec<Arc<Group>>,
    entries: usize,
    /// Groups taken from the list, whose words are still to be taken.
    taken: VecDeque<usize>,
    /// The group whose word was taken last, and its entries that were not handed out yet.
    current: usize,
    bits: u64,
    /// How many new items may start before the list is looked at again: one more than the
    /// entries handed out since then. So neither new nor woken items starve the other, and the lock is taken
    /// once for many of both.
    fresh: usize,
}

impl ReadyQueue {
    pub(super) fn new() -> Self {
        let state = State { woken: VecDeque::new(), sleeper: None };
        Self {
            list: Arc::new(ReadyList { state: Mutex::new(state), any: AtomicUsize::new(0) }),
            groups: Vec::new(),
            entries: 0,
            taken: VecDeque::new(),
            current: 0,
            bits: 0,
            fresh: 1,
        }
    }

    /// Adds an entry; entries are numbered from 0. Returns its waker, too.
    pub(super) fn add_entry(&mut self) -> (usize, Waker) {
        let entry = self.entries;
        self.entries += 1;
        let (number, bit) = (entry / GROUP, entry % GROUP);
        if number == self.groups.len() {
            let list = Arc::clone(&self.list);
            self.groups.push(Arc::new(Group { woken: AtomicU64::new(0), number, list }));
        }
        let group = Arc::clone(&self.groups[number]);
        (entry, Waker::from(Arc::new(Entry { bit: 1 << bit, group })))
    }

    /// The next entry of those taken. Entries of one group come in the order of their numbers.
    #[inline]
    pub(super) fn next(&mut self) -> Option<usize> {
        if self.bits == 0 {
            self.current = self.taken.pop_front()?;
            self.bits = self.groups[self.current].woken.swap(0, Ordering::AcqRel);
        }
        self.fresh += 1;
        let bit = self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        Some(self.current * GROUP + bit)
    }

    /// Whether all entries that were taken have been handed out.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.bits == 0 && self.taken.is_empty()
    }

    /// A new item has started. Whether woken entries are due now.
    #[inline]
    pub(super) fn new_started(&mut self) -> bool {
        self.fresh = self.fresh.saturating_sub(1);
        self.is_due()
    }

    #[inline]
    fn is_due(&self) -> bool {
        self.fresh == 0 && self.list.any.load(Ordering::Relaxed) != 0
    }

    /// Takes the entries woken since, if they are due and all taken before were handed out.
    #[inline]
    pub(super) fn take_if_due(&mut self) {
        if self.is_due() {
            self.take();
        }
    }

    /// Takes what was woken since, if all that was taken before has been handed out.
    pub(super) fn take(&mut self) {
        if self.is_empty() {
            let mut state = self.list.state.lock();
            core::mem::swap(&mut state.woken, &mut self.taken);
            self.list.any.store(0, Ordering::Relaxed);
            self.fresh = 1;
        }
    }

    /// As [`take`](Self::take), but if nothing was woken leaves `waker` to be woken by the next.
    /// Whether anything was.
    pub(super) fn take_or_sleep(&mut self, waker: &Waker) -> bool {
        // Cloned before the lock and dropped after it: both are the user's code.
        let mut sleeper = Some(waker.clone());
        {
            let mut state = self.list.state.lock();
            core::mem::swap(&mut state.woken, &mut self.taken);
            self.list.any.store(0, Ordering::Relaxed);
            self.fresh = 1;
            if self.taken.is_empty() {
                core::mem::swap(&mut state.sleeper, &mut sleeper);
            }
        }
        !self.taken.is_empty()
    }
}

/// Forgets the run's own waker: wakers that outlive the run must not keep its task alive.
impl Drop for ReadyQueue {
    fn drop(&mut self) {
        let sleeper = self.list.state.lock().sleeper.take();
        // Its destructor may panic, and the items that are still to be dropped come after it.
        quietly(|| drop(sleeper));
    }
}
