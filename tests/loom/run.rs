//! What the models of the executor share.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::JoinHandle;

/// The task that the run is in.
pub(crate) struct Task {
    pub(crate) woken: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        // Not a store, which a model may order before a swap that it comes after.
        self.woken.swap(true, Ordering::SeqCst);
    }
}

/// A run under a model: polled once before there are any threads to keep the models small, then
/// beside them as often as its task is woken, and after them to its end.
pub(crate) struct Run<F> {
    pub(crate) future: Pin<Box<F>>,
    pub(crate) task: Arc<Task>,
    pub(crate) waker: Waker,
}

impl<F: Future> Run<F> {
    pub(crate) fn start(future: F) -> Self {
        let task = Arc::new(Task { woken: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&task));
        let mut run = Self { future: Box::pin(future), task, waker };
        assert!(run.poll().is_pending());
        run
    }

    pub(crate) fn poll(&mut self) -> Poll<F::Output> {
        self.future.as_mut().poll(&mut Context::from_waker(&self.waker))
    }

    fn was_woken(&self) -> bool {
        self.task.woken.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn finish<const N: usize>(mut self, threads: [JoinHandle<()>; N]) -> F::Output {
        let mut output = self.poll();
        while output.is_pending() && self.was_woken() {
            output = self.poll();
        }
        self.settle_down(output, threads)
    }

    /// As `finish`, with a single poll beside the threads, for models in which much happens in each.
    pub(crate) fn finish_soon<const N: usize>(mut self, threads: [JoinHandle<()>; N]) -> F::Output {
        let output = self.poll();
        self.settle_down(output, threads)
    }

    fn settle_down<const N: usize>(
        mut self,
        mut output: Poll<F::Output>,
        threads: [JoinHandle<()>; N],
    ) -> F::Output {
        for thread in threads {
            thread.join().unwrap();
        }
        loop {
            if let Poll::Ready(output) = output {
                return output;
            }
            assert!(self.was_woken(), "asleep, and nobody will wake it");
            output = self.poll();
        }
    }
}
