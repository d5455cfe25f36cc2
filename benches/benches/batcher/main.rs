//! The batcher beside its peers, from producers to an empty handler, on two workers.
//!
//! batch-channel has no window, and hands over what is there. The others do as ours does.

mod contenders;
mod runs;

use contenders::{BatchChannel, ByHand, ChunksTimeout, Contender, FuturesBatch, Ours};
use runs::{age, produce, wakeups};
use sluicegate_benches::{Cost, Options, Table, Workload};

/// Ours, one rival of whom the target speaks, and the others beside it.
macro_rules! contest {
    (
        $workload:expr, |$who:ident, $scale:ident| $run:expr,
        rivals: [$($rival:ident),*], beside: [$($beside:ident),*]
    ) => {{
        let workload = $workload.ours(move |$scale| {
            type $who = Ours;
            $run
        });
        $(let workload = workload.rival($rival::NAME, move |$scale| {
            type $who = $rival;
            $run
        });)*
        $(let workload = workload.beside($beside::NAME, move |$scale| {
            type $who = $beside;
            $run
        });)*
        workload
    }};
}

fn main() {
    let options = Options::from_args(11);
    let mut table = Table::new("Batcher: at most 500 in 50 ms, 2,000 on their way");
    for (producers, by_hand, batch_channel) in [(1, 0.35, 1.2), (4, 0.5, 0.8), (64, 0.6, 1.0)] {
        let name = match producers {
            1 => "1 producer".to_owned(),
            more => format!("{more} producers"),
        };
        table.add(contest!(
            Workload::new(&name).at_most(by_hand, ByHand::NAME),
            |C, scale| produce::<C>(producers, 500, scale),
            rivals: [ByHand],
            beside: [ChunksTimeout, FuturesBatch]
        ));
        table.add(contest!(
            Workload::new(format!("{name}, without a window"))
                .at_most(batch_channel, BatchChannel::NAME),
            |C, scale| produce::<C>(producers, 500, scale),
            rivals: [BatchChannel],
            beside: []
        ));
    }
    for producers in [1, 4] {
        table.add(contest!(
            Workload::new(format!("`max_items` 1, {producers} producer(s)"))
                .at_most(1.0, ByHand::NAME),
            |C, scale| produce::<C>(producers, 1, scale),
            rivals: [ByHand],
            beside: [ChunksTimeout, FuturesBatch, BatchChannel]
        ));
    }
    // Not nanoseconds an operation, but the age itself and the number itself.
    table.add(
        Workload::new("age of the oldest item at hand-over, 100 items a second, p99")
            .at_most(1.0, "window + 2 ms")
            .ours(age)
            .rival("window + 2 ms", |_| Cost::of(1, runs::WINDOW + runs::GRANULARITY)),
    );
    for (name, trickle) in [("1 producer", false), ("100 items a second", true)] {
        table.add(
            Workload::new(format!("wake-ups of the driver per batch, {name}"))
                .at_most(1.0, "three")
                .ours(move |scale| wakeups(trickle, scale))
                .rival("three", |_| Cost::of(1, std::time::Duration::from_nanos(3))),
        );
    }
    table.run(&options);
}
