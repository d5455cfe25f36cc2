//! The semaphore beside its peers.
//!
//! Rivals, of whom the targets speak, are the fair ones. async-lock is shown beside them, because
//! its newcomers pass the line; it is a rival where nobody comes new. Who cannot do a workload is
//! left out of it: priority-semaphore cannot release many permits at once, the floor cannot wait.

mod contenders;
mod direct;
mod tasks;

use contenders::{
    AsyncLock, Asyncband, Contender, Floor, FuturesIntrusive, Maitake, Ours, Priority, Tokio,
};
use direct::{acquire, acquire_in_task, cancel, hand_over, mass_release, try_acquire, two_threads};
use sluicegate_benches::{Options, Table, Workload};
use tasks::{Hold, compete};

/// Adds ours, then rivals, then those shown beside them, all of whom do the same.
macro_rules! contest {
    (
        $workload:expr,
        |$who:ident, $scale:ident| $run:expr,
        rivals: [$($rival:ident),*], beside: [$($beside:ident),*]
    ) => {{
        let workload = $workload.ours(|$scale| {
            type $who = Ours;
            $run
        });
        $(let workload = workload.rival($rival::NAME, |$scale| {
            type $who = $rival;
            $run
        });)*
        $(let workload = workload.beside($beside::NAME, |$scale| {
            type $who = $beside;
            $run
        });)*
        workload
    }};
}

fn main() {
    let options = Options::from_args(31);
    let with_tokio = cfg!(feature = "tokio-feature");
    let mut table = Table::new(format!(
        "Semaphore, sluicegate {}",
        if with_tokio { "with every feature on" } else { "without its tokio feature" }
    ));

    table.add(contest!(
        Workload::new("`try_acquire` + drop, one thread").at_most(1.05, "floor"),
        |S, scale| try_acquire::<S>(scale),
        rivals: [Floor],
        beside: [Tokio, AsyncLock, FuturesIntrusive, Asyncband, Maitake, Priority]
    ));
    table.add(contest!(
        Workload::new("`acquire().await` + drop, one thread")
            .at_most(if with_tokio { 1.35 } else { 1.10 }, "floor"),
        |S, scale| acquire::<S>(scale),
        rivals: [Floor],
        beside: [Tokio, AsyncLock, FuturesIntrusive, Asyncband, Maitake, Priority]
    ));
    table.add(contest!(
        Workload::new("the same in a tokio task"),
        |S, scale| acquire_in_task::<S>(scale),
        rivals: [Floor],
        beside: [Tokio, AsyncLock, FuturesIntrusive, Asyncband, Maitake, Priority]
    ));
    table.add(contest!(
        Workload::new("the same on two OS threads, never empty").at_most(1.25, "floor"),
        |S, scale| two_threads::<S>(scale),
        rivals: [Floor],
        beside: [Tokio, AsyncLock, FuturesIntrusive, Asyncband, Maitake, Priority]
    ));
    table.add(contest!(
        Workload::new("queue one waiter, hand over, complete").at_most(1.0, "best fair peer"),
        |S, scale| hand_over::<S>(scale),
        rivals: [Tokio, FuturesIntrusive, Asyncband, Maitake, Priority],
        beside: [AsyncLock]
    ));
    // futures-intrusive is quick here only because it leaves permits idle: see the rows after it.
    table.add(contest!(
        Workload::new("64 tasks, 10 permits, held across a yield")
            .at_most(1.0, "best of tokio, asyncband, maitake-sync"),
        |S, scale| compete::<S>(64, 10, Hold::Yield, scale),
        rivals: [Tokio, Asyncband, Maitake],
        beside: [AsyncLock, FuturesIntrusive, Priority]
    ));
    table.add(contest!(
        Workload::new("64 tasks, 10 permits, held for 3 us of CPU and a yield")
            .at_most(1.0, "best fair peer"),
        |S, scale| compete::<S>(64, 10, Hold::Work, scale),
        rivals: [Tokio, FuturesIntrusive, Asyncband, Maitake, Priority],
        beside: [AsyncLock]
    ));
    table.add(contest!(
        Workload::new("64 tasks, 2 permits, held for 3 us of CPU and a yield")
            .at_most(1.0, "best fair peer"),
        |S, scale| compete::<S>(64, 2, Hold::Work, scale),
        rivals: [Tokio, FuturesIntrusive, Asyncband, Maitake, Priority],
        beside: [AsyncLock]
    ));
    table.add(contest!(
        Workload::new("8 tasks, 1 permit, held across a yield").at_most(1.0, "best fair peer"),
        |S, scale| compete::<S>(8, 1, Hold::Yield, scale),
        rivals: [Tokio, FuturesIntrusive, Asyncband, Maitake, Priority],
        beside: [AsyncLock]
    ));
    table.add(contest!(
        Workload::new("64 tasks, 10 permits, not held").at_most(0.8, "best fair peer"),
        |S, scale| compete::<S>(64, 10, Hold::Not, scale),
        rivals: [Tokio, FuturesIntrusive, Asyncband, Maitake, Priority],
        beside: [AsyncLock]
    ));
    table.add(contest!(
        Workload::new("10,000 waiters, one release of 10,000, per waiter")
            .at_most(1.15, "best peer"),
        |S, scale| mass_release::<S>(10_000, scale),
        rivals: [Tokio, AsyncLock, FuturesIntrusive, Asyncband, Maitake],
        beside: []
    ));
    table.add(contest!(
        Workload::new("10,000 waiters cancelled in scattered order, each")
            .at_most(1.15, "best peer"),
        |S, scale| cancel::<S>(10_000, scale),
        rivals: [Tokio, AsyncLock, FuturesIntrusive, Asyncband, Maitake, Priority],
        beside: []
    ));
    table.add(
        Workload::new("1,000,000 waiters, one release of 1,000,000, per waiter")
            .at_most(2.0, "ours with 1,000")
            .ours(|scale| mass_release::<Ours>(scale.of(1_000_000) as usize, scale))
            .rival("ours with 1,000", |scale| mass_release::<Ours>(1_000, scale)),
    );

    table.run(&options);
}
