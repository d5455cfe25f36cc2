//! Who was woken: the one part of an executor's run that other threads reach.
//!
//! Each future that a run polls has a *line* of its own, a number, and a waker that puts this
//! number on the list. A line that is on the list already is not put there again:
//!
//! ```text
//!            wake                     take
//!   quiet ─────────▶ on the list ─────────────▶ quiet, and about to be polled
//! ```
//!
//! A line is quiet again *before* its future is polled, so that a wake-up during the poll counts;
//! and the run's own waker is left behind in the same critical section that finds the list empty,
//! so that no wake-up falls between looking and going to sleep.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::settled::quietly;
use crate::sync::Mutex;

/// The lines that were woken since the run last looked, in the order in which they were.
pub(super) struct WakeList {
    state: Mutex<State>,
}

struct State {
    /// Each line at most once: its length is bounded by the number of lines.
    woken: VecDeque<usize>,
    /// By line, whether it is in `woken`.
    listed: Vec<bool>,
    /// The run's own waker, while the run sleeps.
    sleeper: Option<Waker>,
}

impl WakeList {
    pub(super) fn new() -> Arc<Self> {
        let state = State { woken: VecDeque::new(), listed: Vec::new(), sleeper: None };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Opens the next line, numbered from 0, and gives its waker.
    pub(super) fn open_line(self: &Arc<Self>) -> (usize, Waker) {
        let line = {
            let mut state = self.state.lock();
            state.listed.push(false);
            state.listed.len() - 1
        };
        (line, Waker::from(Arc::new(Line { line, list: Arc::clone(self) })))
    }

    /// Moves all lines that were woken to `woken`, which must be empty.
    pub(super) fn take(&self, woken: &mut VecDeque<usize>) {
        self.state.lock().take(woken);
    }

    /// As [`take`](Self::take), but if there are none leaves `waker` to be woken by the next.
    /// Whether there were any.
    pub(super) fn take_or_sleep(&self, woken: &mut VecDeque<usize>, waker: &Waker) -> bool {
        // Cloned before the lock and dropped after it: both are the user's code.
        let mut sleeper = Some(waker.clone());
        {
            let mut state = self.state.lock();
            state.take(woken);
            if woken.is_empty() {
                core::mem::swap(&mut state.sleeper, &mut sleeper);
            }
        }
        !woken.is_empty()
    }

    /// Forgets the run's own waker: wakers that outlive the run must not keep its task alive.
    pub(super) fn retire(&self) {
        let sleeper = self.state.lock().sleeper.take();
        // Its destructor may panic, and the items that are still to be dropped come after it.
        quietly(|| drop(sleeper));
    }

    fn wake(&self, line: usize) {
        let sleeper = {
            let mut state = self.state.lock();
            if core::mem::replace(&mut state.listed[line], true) {
                return;
            }
            state.woken.push_back(line);
            state.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

impl State {
    fn take(&mut self, woken: &mut VecDeque<usize>) {
        core::mem::swap(&mut self.woken, woken);
        for &line in &*woken {
            self.listed[line] = false;
        }
    }
}

/// What the waker of a line points to. It outlives the futures polled with it: a late wake-up by
/// one that is gone costs whoever has its line now one poll, and nothing else.
struct Line {
    line: usize,
    list: Arc<WakeList>,
}

impl Wake for Line {
    fn wake(self: Arc<Self>) {
        self.list.wake(self.line);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.list.wake(self.line);
    }
}
