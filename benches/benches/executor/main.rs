//! The executor beside its peers.
//!
//! Rivals are those of whom the target of a row speaks; the others are shown beside them. Who gives
//! outcomes hands all of them over in a list; `for_each` of futures-concurrency and roughage's
//! pipeline have none, and count.

mod in_task;
mod spawned;
mod timed;
mod work;

use sluicegate_benches::{Options, Table, Workload};

fn main() {
    let options = Options::from_args(15);
    let mut table = Table::new("BatchExecutor, 200,000 items unless it says otherwise");
    for (work, limit, name, at_most) in [
        (work::Kind::Ready, 64, "ready futures, limit 64, in the task", Some(0.35)),
        (work::Kind::Yield, 64, "one yield each, limit 64, in the task", Some(0.9)),
        (work::Kind::Yield, 10_000, "one yield each, limit 10,000, in the task", Some(0.9)),
        (work::Kind::Wake, 64, "waking themselves once each, limit 64, in the task", None),
        (work::Kind::Wake, 10_000, "waking themselves once each, limit 10,000, in the task", None),
    ] {
        let workload = Workload::new(name);
        let workload = match at_most {
            Some(times) => workload.at_most(times, "futures-buffered"),
            None => workload,
        };
        let workload = workload
            .ours(move |scale| in_task::ours(work, limit, scale))
            .rival("futures-buffered", move |scale| in_task::futures_buffered(work, limit, scale))
            .beside("buffered", move |scale| in_task::buffered(work, limit, scale))
            .beside("buffer_unordered", move |scale| in_task::buffer_unordered(work, limit, scale));
        let workload = match limit {
            // Both look at every slot for each item: seconds a round.
            10_000 => workload,
            _ => workload
                .beside("futures-concurrency", move |scale| {
                    in_task::futures_concurrency(work, limit, scale)
                })
                .beside("roughage", move |scale| in_task::roughage(work, limit, scale)),
        };
        table.add(workload);
    }
    for (work, name, at_most) in [
        (work::Kind::Ready, "ready futures, limit 64, spawned on two workers", 0.05),
        (work::Kind::Yield, "one yield each, limit 64, spawned on two workers", 0.2),
        (work::Kind::Wake, "waking themselves once each, limit 64, spawned on two workers", 0.2),
    ] {
        table.add(
            Workload::new(name)
                .at_most(at_most, "spawn all")
                .ours(move |scale| spawned::ours(work, 64, scale))
                .rival("spawn all", move |scale| spawned::spawn_all(work, scale))
                .beside("JoinSet + semaphore", move |scale| spawned::join_set(work, 64, scale))
                .beside("spawn + buffered", move |scale| spawned::buffered(work, 64, scale)),
        );
    }
    table.add(
        Workload::new("20,000 of 5 us of CPU each, limit 64, spawned on two workers")
            .at_most(1.04, "two plain loops")
            .ours(|scale| spawned::ours(work::Kind::Cpu, 64, scale))
            .rival("two plain loops", spawned::plain_loops)
            .beside("spawn all", |scale| spawned::spawn_all(work::Kind::Cpu, scale))
            .beside("JoinSet + semaphore", |scale| spawned::join_set(work::Kind::Cpu, 64, scale))
            .beside("spawn + buffered", |scale| spawned::buffered(work::Kind::Cpu, 64, scale)),
    );
    timed::add_rows(&mut table);
    table.run(&options);
}
