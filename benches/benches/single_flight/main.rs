//! Calls that share a run, beside a crate for that and what is written by hand: a map of shared futures.

use std::collections::HashMap;
use std::future::{Future, ready};
use std::hint::black_box;
use std::sync::Mutex;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, join, join_all};
use sluicegate::SingleFlight;
use sluicegate_benches::{Cost, Options, Scale, Table, Workload, timed};
use tokio::runtime::{Builder, Runtime};

/// Calls for a key that share the run of a future.
trait Flights: Default + Sync {
    fn run(
        &self,
        key: u64,
        run: impl Future<Output = u64> + Send + 'static,
    ) -> impl Future<Output = u64> + Send;
}

struct Ours(SingleFlight<u64, u64>);

impl Default for Ours {
    fn default() -> Self {
        Self(SingleFlight::new(1_000).unwrap())
    }
}

impl Flights for Ours {
    async fn run(&self, key: u64, run: impl Future<Output = u64> + Send + 'static) -> u64 {
        self.0.run(key, || run).await.unwrap()
    }
}

/// The value of a shared future stays in the map until the first caller takes it out.
#[derive(Default)]
struct ByHand(Mutex<HashMap<u64, Shared<BoxFuture<'static, u64>>>>);

impl Flights for ByHand {
    async fn run(&self, key: u64, run: impl Future<Output = u64> + Send + 'static) -> u64 {
        let shared = {
            let mut runs = self.0.lock().unwrap();
            runs.entry(key).or_insert_with(|| run.boxed().shared()).clone()
        };
        let value = shared.await;
        self.0.lock().unwrap().remove(&key);
        value
    }
}

/// Its keys are strings: always the same, so that none is made.
#[derive(Default)]
struct Group(async_singleflight::Group<u64, ()>);

impl Flights for Group {
    async fn run(&self, _: u64, run: impl Future<Output = u64> + Send + 'static) -> u64 {
        self.0.work("key", run.map(Ok)).await.0.unwrap()
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn alone<F: Flights>(scale: Scale) -> Cost {
    let (flights, calls) = (F::default(), scale.of(500_000));
    let runtime = runtime();
    timed(calls, || {
        runtime.block_on(async {
            for key in 0..calls {
                black_box(flights.run(key, ready(key)).await);
            }
        });
    })
}

/// So many calls for one key at a time, whose run ends once all of them wait for it.
fn together<F: Flights>(callers: u64, scale: Scale) -> Cost {
    let (flights, rounds) = (F::default(), scale.of(200_000 / callers));
    let runtime = runtime();
    timed(callers * rounds, || {
        runtime.block_on(async {
            for key in 0..rounds {
                let (open, opened) = tokio::sync::oneshot::channel();
                let mut opened = Some(opened);
                let calls = (0..callers).map(|_| {
                    let opened = opened.take();
                    flights.run(
                        key,
                        async move { opened.expect("only the first runs").await.unwrap() },
                    )
                });
                let (values, ()) = join(join_all(calls), async { open.send(7).unwrap() }).await;
                assert!(values.iter().all(|value| *value == 7));
            }
        });
    })
}

fn main() {
    let options = Options::from_args(15);
    let mut table = Table::new("Calls that share a run");
    table.add(
        Workload::new("one caller, a run that is ready")
            .ours(alone::<Ours>)
            .rival("a map of shared futures", alone::<ByHand>)
            .rival("async_singleflight", alone::<Group>),
    );
    for callers in [2, 100] {
        table.add(
            Workload::new(format!("{callers} callers of one key, per call"))
                .ours(move |scale| together::<Ours>(callers, scale))
                .rival("a map of shared futures", move |scale| together::<ByHand>(callers, scale))
                .rival("async_singleflight", move |scale| together::<Group>(callers, scale)),
        );
    }
    table.run(&options);
}
