//! Whoever asks for dead letters gets each input back that was not done, on every way out, by
//! example.
#![cfg(feature = "tokio")]

use crate::outcome::Outcome;
use std::future::{Future, pending, ready};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use sluicegate::executor::{ByKey, DeadLetter, Page, Policies};
use sluicegate::{
    BatchExecutor, BatchExecutorBuilder, Retry, Semaphore, SettledKind, Stop, StopToken,
};
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);

/// The index, the input, how it ended and after how many attempts.
type Letter = (usize, u32, SettledKind, u32);

#[derive(Clone, Default)]
struct Letters(Arc<Mutex<Vec<Letter>>>);

impl Letters {
    fn write(&self, letter: DeadLetter<'_, u32, &'static str>) {
        let DeadLetter { index, input, kind, attempts, .. } = letter;
        self.0.lock().unwrap().push((index, input, kind, attempts));
    }

    fn take(&self) -> Vec<Letter> {
        let mut letters = std::mem::take(&mut *self.0.lock().unwrap());
        letters.sort_unstable_by_key(|letter| letter.0);
        letters
    }
}

/// An executor that tries each item twice and writes letters.
macro_rules! writing {
    ($executor:expr, $letters:expr) => {{
        let letters = Letters::clone(&$letters);
        let retry = Retry::constant(2, Duration::from_secs(60)).unwrap();
        $executor
            .retry(retry)
            .dead_letter(move |letter: DeadLetter<'_, u32, &'static str>| letters.write(letter))
    }};
}

fn builder(limit: usize) -> BatchExecutorBuilder {
    BatchExecutor::builder().limit(limit)
}

/// 10 is done, 11 waits for its retry, others never end.
async fn work(n: u32) -> Result<u32, &'static str> {
    match n {
        10 => Ok(n),
        11 => Err("no"),
        _ => pending().await,
    }
}

/// What there is of 10, 11, 12, 13 and 14 when 13 waits for the key of 12.
const CANCELLED: [Letter; 4] = [
    (1, 11, SettledKind::Cancelled, 1),
    (2, 12, SettledKind::Cancelled, 1),
    (3, 13, SettledKind::Cancelled, 0),
    (4, 14, SettledKind::Cancelled, 1),
];

type Keyed = BatchExecutor<Policies<ByKey<fn(&u32) -> u32>>>;

/// 12 and 13 have the same key.
fn keyed(builder: BatchExecutorBuilder) -> Keyed {
    builder.build().unwrap().by_key((|n| if *n == 13 { 12 } else { *n }) as fn(&u32) -> u32)
}

/// A wake-up that is lost leaves nothing but this timer: paused time jumps to it.
async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(3600), future).await.expect("asleep, and nobody will wake it")
}

async fn stop_soon(token: StopToken) {
    sleep(MS).await;
    // The first Ctrl-C, and the second.
    token.stop(Stop::Drain);
    sleep(MS).await;
    token.stop(Stop::Abort);
}

/// Seen to fail (no letters) on everything here when what is cancelled is dropped.
#[tokio::test(start_paused = true)]
async fn a_drain_that_becomes_an_abort_returns_what_was_in_hand() {
    let (letters, token) = (Letters::default(), StopToken::new());
    let executor = writing!(keyed(builder(4).stop(token.clone())), letters);
    tokio::spawn(stop_soon(token));
    let mut inputs = 10..20;
    let all = in_time(executor.all_settled(inputs.by_ref(), work)).await;
    assert_eq!(all.summary().to_string(), "1 fulfilled, 4 cancelled; stopped");
    assert_eq!((letters.take(), inputs), (CANCELLED.to_vec(), 15..20));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_returns_what_was_in_hand() {
    let letters = Letters::default();
    let executor = writing!(keyed(builder(4).timeout(3600 * MS)), letters);
    let summary = executor.for_each_stream(stream::iter(10..15), work, |_, _| ready(()));
    assert_eq!(
        in_time(summary).await.to_string(),
        "1 fulfilled, 1 rejected, 2 timed out, 1 cancelled; timed out"
    );
    let kinds = [SettledKind::Rejected, SettledKind::TimedOut];
    let expected = CANCELLED.map(|(index, input, kind, attempts)| match index {
        // Its retry would have begun too late.
        1 => (index, input, kinds[0], attempts),
        3 => (index, input, kind, attempts),
        _ => (index, input, kinds[1], attempts),
    });
    assert_eq!(letters.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_returns_what_was_in_hand() {
    let letters = Letters::default();
    let executor = writing!(keyed(builder(4)), letters);
    let mut slots = Vec::new();
    let run = executor.settle_into(&mut slots, 10..15, work);
    assert!(timeout(MS, run).await.is_err());
    assert!(slots.len() == 1 && slots[0].as_ref().unwrap().is_ok());
    assert_eq!(letters.take(), CANCELLED);

    let run = executor.for_each(10..15, work, |_, _| ready(()));
    assert!(timeout(MS, run).await.is_err());
    assert_eq!(letters.take(), CANCELLED);
    // One that was never polled has pulled nothing.
    drop(executor.all_settled(10..15, work));
    assert_eq!(letters.take(), []);
}

/// The sink's panic drops the run.
#[tokio::test(start_paused = true)]
async fn a_sink_that_panics_returns_what_was_in_hand() {
    let letters = Letters::default();
    let executor = writing!(keyed(builder(4)), letters);
    let run = executor.for_each(10..15, work, async |_, _| {
        sleep(MS).await;
        resume_unwind(Box::new("in the sink"));
    });
    let panic = AssertUnwindSafe(in_time(run)).catch_unwind().await.unwrap_err();
    assert_eq!(*panic.downcast::<&str>().unwrap(), "in the sink");
    assert_eq!(letters.take(), CANCELLED);
}

/// Seen to fail (no letter of 13, which was to be joined) when what is set aside for whoever joins is
/// dropped with the handle.
#[tokio::test(start_paused = true)]
async fn spawned_what_never_started_is_returned_to_whoever_joins_or_in_letters() {
    for (workers, joins) in [(1, true), (3, true), (1, false), (3, false)] {
        let (letters, token) = (Letters::default(), StopToken::new());
        let executor = writing!(keyed(builder(4).stop(token.clone())), letters);
        let mut tasks = Vec::new();
        let batch = executor.spawn_on(workers, 10..15, work, |work| tasks.push(tokio::spawn(work)));
        in_time(stop_soon(token)).await;
        let mut expected = CANCELLED.to_vec();
        if joins {
            let joined = in_time(batch.join()).await;
            assert_eq!(joined.not_started, [(3, 13)]);
            expected.remove(2);
        } else {
            for task in tasks {
                task.await.unwrap();
            }
            let mut outcomes = batch.into_stream();
            assert_eq!(in_time(outcomes.by_ref().count()).await, 5);
            drop(outcomes);
        }
        assert_eq!(letters.take(), expected, "{workers} workers");
    }
}

/// A receiver of letters that waits for the last sender, before somebody joins.
///
/// Seen to hang when the batch keeps its dead letters although nothing is left to be written.
#[tokio::test(start_paused = true)]
async fn the_dead_letters_of_a_spawned_batch_are_dropped_when_its_workers_are_done() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let batch = {
        let executor = BatchExecutor::new(2).unwrap().retry(Retry::none());
        let executor = executor.dead_letter(move |letter: DeadLetter<'_, u32, u32>| {
            sender.send(letter.input).unwrap();
        });
        executor.spawn_on(2, 0..4, async |n| Err::<(), _>(n), |work| drop(tokio::spawn(work)))
    };
    let received = async {
        let mut received = 0;
        while receiver.recv().await.is_some() {
            received += 1;
        }
        received
    };
    assert_eq!(in_time(received).await, 4);
    assert_eq!(batch.join().await.outcomes.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn pages_return_what_was_fetched() {
    let fetch = |_: Option<()>| ready(Ok::<_, ()>(Page { items: 10..18, next: None }));
    let (letters, token) = (Letters::default(), StopToken::new());
    let executor = writing!(keyed(builder(4).stop(token.clone())), letters);
    let stop = tokio::spawn(stop_soon(token));
    let paged = in_time(executor.pages(fetch, work)).await;
    let mut expected = CANCELLED.to_vec();
    expected.remove(2);
    assert_eq!(letters.take(), expected);
    assert_eq!(paged.summary.not_started, [(3, 13)]);
    assert_eq!(paged.summary.not_pulled, [15, 16, 17]);
    stop.await.unwrap();

    let executor = writing!(keyed(builder(4)), letters);
    assert!(timeout(MS, executor.pages(fetch, work)).await.is_err());
    let unstarted = [5, 6, 7].map(|n| (n, n as u32 + 10, SettledKind::Cancelled, 0));
    assert_eq!(letters.take(), [&CANCELLED[..], &unstarted].concat());
}

#[tokio::test(start_paused = true)]
async fn phases_return_what_they_did_not_do() {
    for drops in [false, true] {
        let (letters, token) = (Letters::default(), StopToken::new());
        let executor = writing!(keyed(builder(4).stop(token.clone())), letters);
        tokio::spawn(stop_soon(token));
        let phase = executor.phases("users", 10..18).phase("create", work);
        if drops {
            assert!(timeout(MS / 2, phase).await.is_err());
        } else {
            assert_eq!(in_time(phase).await.report().succeeded(), 1);
        }
        let unstarted = [5, 6, 7].map(|n| (n, n as u32 + 10, SettledKind::Cancelled, 0));
        assert_eq!(letters.take(), [&CANCELLED[..], &unstarted].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_semaphore_returns_what_waited_for_it() {
    let letters = Letters::default();
    let semaphore = Arc::new(Semaphore::new(1));
    let executor =
        BatchExecutor::builder().limit(2).semaphore(Arc::clone(&semaphore)).build().unwrap();
    let executor = writing!(executor, letters);
    let close = async {
        sleep(MS).await;
        semaphore.close();
    };
    let run = executor.all_settled([12, 10], async |n| {
        sleep(2 * MS).await;
        Ok::<_, &str>(n)
    });
    let (all, ()) = in_time(futures_util::future::join(run, close)).await;
    assert!(all[0].is_ok() && all[1].is_cancelled());
    assert_eq!(letters.take(), [(1, 10, SettledKind::Cancelled, 0)]);
}

/// Panics when it is cloned for the first time, if it is odd.
struct Touchy(u32, Arc<AtomicUsize>);

impl Clone for Touchy {
    fn clone(&self) -> Self {
        if self.0 % 2 == 1 && self.1.fetch_add(1, SeqCst) == 0 {
            resume_unwind(Box::new("in clone"));
        }
        Self(self.0, Arc::clone(&self.1))
    }
}

/// What panics before its first attempt was not done either.
///
/// Seen to fail (no letters) on both ways that items start.
#[tokio::test(start_paused = true)]
async fn what_panics_before_its_first_attempt_is_returned() {
    let letters = Letters::default();
    for plain in [true, false] {
        let written = letters.clone();
        let executor = BatchExecutor::builder().limit(4);
        let executor =
            if plain { executor } else { executor.semaphore(Arc::new(Semaphore::new(4))) };
        let executor = executor.build().unwrap().retry(Retry::none());
        let executor = executor.dead_letter(move |letter: DeadLetter<'_, Touchy, &str>| {
            let DeadLetter { index, input, kind, attempts, .. } = letter;
            written.0.lock().unwrap().push((index, input.0, kind, attempts));
        });
        let inputs = [0, 1, 2].map(|n| Touchy(n, Arc::default()));
        let all = executor.all_settled(inputs, async |_| Ok::<_, &str>(()));
        assert_eq!(in_time(all).await.summary().to_string(), "2 fulfilled, 1 panicked; exhausted");
        assert_eq!(letters.take(), [(1, 1, SettledKind::Panicked, 0)], "{plain}");
    }
    let executor = BatchExecutor::new(2).unwrap().by_key(|n: &u32| match n {
        11 => resume_unwind(Box::new("in the key")),
        n => *n,
    });
    let all = writing!(executor, letters).all_settled(10..12, work);
    assert_eq!(in_time(all).await.summary().to_string(), "1 fulfilled, 1 panicked; exhausted");
    assert_eq!(letters.take(), [(1, 11, SettledKind::Panicked, 0)]);
}
