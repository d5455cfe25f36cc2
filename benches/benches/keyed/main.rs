//! Batches by key beside those without, and answers by item beside what gives them: on
//! two workers, where nothing else is said.

mod calls;
mod keys;

use std::sync::LazyLock;

use calls::{BatchAintOne, Caller, OneShots, Ours, Policy, Turns, call};
use keys::{Keyed, ONE_THREAD, RUNTIME, Unkeyed, produce, wakeups};
use sluicegate_benches::{Cost, Options, Table, Workload};
use tokio::runtime::Runtime;

fn main() {
    let options = Options::from_args(11);
    let mut table = Table::new("KeyedBatcher and call");
    table.add(
        Workload::new("10,000 keys, Zipf, 4 producers, at most 500 in 50 ms")
            .at_most(2.0, "the unkeyed batcher")
            .ours(|scale| produce::<Keyed>(1_000_000, scale))
            .rival("unkeyed", |scale| produce::<Unkeyed>(1_000_000, scale))
            .beside("unkeyed, 2,000 on their way", |scale| produce::<Unkeyed>(2_000, scale)),
    );
    // Not nanoseconds an operation, but the number itself, and one: there is no ratio to zero.
    table.add(
        Workload::new("100,000 idle keys: one and the wake-ups a second")
            .at_most(1.0, "one")
            .ours(wakeups)
            .rival("one", |_| Cost::of(1, std::time::Duration::from_nanos(1))),
    );
    for (name, policy) in [("as they come", Policy::AsTheyCome), ("64 in a batch", Policy::Full)] {
        let name = format!("call, 64 callers at once, {name}");
        table.add(
            Workload::new(&name)
                .at_most(0.5, BatchAintOne::NAME)
                .ours(move |scale| call::<Ours>(policy, &RUNTIME, scale))
                .rival(BatchAintOne::NAME, move |scale| {
                    call::<BatchAintOne>(policy, &RUNTIME, scale)
                }),
        );
        let rows: [(&str, &'static LazyLock<Runtime>); 2] =
            [("", &RUNTIME), (", on one thread", &ONE_THREAD)];
        for (on, runtime) in rows {
            table.add(
                Workload::new(format!("{name}, a channel an item{on}"))
                    .at_most(0.7, OneShots::NAME)
                    .ours(move |scale| call::<Ours>(policy, runtime, scale))
                    .rival(OneShots::NAME, move |scale| call::<OneShots>(policy, runtime, scale))
                    .beside(Turns::NAME, move |scale| call::<Turns>(policy, runtime, scale)),
            );
        }
    }
    table.run(&options);
}
