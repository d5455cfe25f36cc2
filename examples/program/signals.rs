//! Signals: the first one ends a run in order, a second one at once.

use std::future::Future;
use std::io;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

/// Signals this close to each other are one: `timeout` and some shells send two.
const TOGETHER: Duration = Duration::from_millis(100);

/// Says when the run is interrupted.
#[derive(Debug, Clone)]
pub struct Interrupt(watch::Receiver<u8>);

impl Interrupt {
    /// Resolves once there was a signal.
    pub fn first(&self) -> impl Future<Output = ()> + Send + 'static {
        self.nth(1)
    }

    /// Whether there was one.
    pub fn is_first(&self) -> bool {
        *self.0.borrow() >= 1
    }

    fn nth(&self, nth: u8) -> impl Future<Output = ()> + Send + 'static {
        let mut signals = self.0.clone();
        async move {
            if signals.wait_for(|signals| *signals >= nth).await.is_err() {
                // Signals are no longer watched: the run is over.
                std::future::pending().await
            }
        }
    }
}

/// Runs `work` to its end; `None` if a second signal came before. Then `work` is dropped, and threads
/// that are still busy are not waited for. `work` begins once signals are watched, so that whatever it
/// makes (a temporary folder) is removed whenever they come.
///
/// # Errors
///
/// If the system does not report signals.
pub fn run<T>(runtime: Runtime, work: impl AsyncFnOnce(Interrupt) -> T) -> io::Result<Option<T>> {
    let result = runtime.block_on(async {
        let signals = signals()?;
        let (sender, receiver) = watch::channel(0);
        let watching = tokio::spawn(count(signals, sender));
        let interrupt = Interrupt(receiver);
        let second = interrupt.nth(2);
        let result = tokio::select! {
            biased;
            () = second => None,
            result = work(interrupt) => Some(result),
        };
        watching.abort();
        Ok(result)
    });
    runtime.shutdown_background();
    result
}

async fn count(mut signals: impl Stream<Item = ()> + Unpin, count: watch::Sender<u8>) {
    let mut last = None::<Instant>;
    while let Some(()) = signals.next().await {
        let now = Instant::now();
        if last.is_none_or(|last| now - last >= TOGETHER) {
            count.send_modify(|signals| *signals = signals.saturating_add(1));
            last = Some(now);
        }
    }
}

/// SIGINT, SIGTERM and SIGHUP, as often as they come.
#[cfg(unix)]
fn signals() -> io::Result<impl Stream<Item = ()> + Send + Unpin> {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut all = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
    Ok(stream::poll_fn(move |cx| {
        let mut polls = all.iter_mut().map(|signal| signal.poll_recv(cx));
        polls.find(std::task::Poll::is_ready).unwrap_or(std::task::Poll::Pending)
    }))
}

/// Ctrl-C, as often as it comes.
#[cfg(windows)]
fn signals() -> io::Result<impl Stream<Item = ()> + Send + Unpin> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(stream::poll_fn(move |cx| interrupt.poll_recv(cx)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future;

    #[tokio::test(start_paused = true)]
    async fn signals_close_to_each_other_are_one() {
        let start = Instant::now();
        let times = [0, 50, 99, 100, 150, 1_000];
        let signals = stream::iter(times).then(|ms| async move {
            tokio::time::sleep_until(start + Duration::from_millis(ms)).await;
        });
        let (sender, receiver) = watch::channel(0);
        future::join(count(Box::pin(signals), sender), future::ready(())).await;
        assert_eq!(*receiver.borrow(), 3);
    }
}
