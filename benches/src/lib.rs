//! Measures contenders side by side, in one process, in turn.
//!
//! An absolute figure belongs to a machine and its mood; a ratio of two runs that follow each other
//! closely belongs to the code. So a [`Table`] goes round by round: in every round each contender of
//! each [`Workload`] runs once, the one after the other, starting with another one and in the
//! other direction than the round before. A figure is the median over the rounds; a ratio is the
//! median of the ratios *within* a round.
//!
//! ```
//! use std::hint::black_box;
//!
//! use sluicegate_benches::{Scale, Table, Workload, timed_in_slices};
//!
//! let mut table = Table::new("sums");
//! table.add(
//!     Workload::new("of 1 to 1,000")
//!         .at_most(1.0, "the loop")
//!         .ours(|scale| {
//!             timed_in_slices(scale.of(100_000), |times| {
//!                 for _ in 0..times {
//!                     let n = black_box(1_000_u64);
//!                     black_box(n * (n + 1) / 2);
//!                 }
//!             })
//!         })
//!         .rival("the loop", |scale| {
//!             timed_in_slices(scale.of(100_000), |times| {
//!                 for _ in 0..times {
//!                     black_box((1..=black_box(1_000_u64)).sum::<u64>());
//!                 }
//!             })
//!         }),
//! );
//! println!("{}", table.measure(3, Scale::Quick));
//! ```

mod options;
mod quartiles;
mod report;

use std::time::{Duration, Instant};

pub use options::Options;
use quartiles::Quartiles;
pub use report::Report;

/// How much work a run does: enough to measure, or enough to see that it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// As much as each workload asks for.
    Full,
    /// A hundredth of it.
    Quick,
}

impl Scale {
    /// `full` operations, or a hundredth of them, but at least one.
    #[must_use]
    pub fn of(self, full: u64) -> u64 {
        match self {
            Self::Full => full,
            Self::Quick => (full / 100).max(1),
        }
    }
}

/// What a run took.
#[derive(Debug, Clone, Copy)]
#[must_use = "the cost is all that a run is for"]
pub struct Cost {
    nanos_per_op: f64,
}

impl Cost {
    /// The cost of one of `ops` operations that took `elapsed` together.
    pub fn of(ops: u64, elapsed: Duration) -> Self {
        Self { nanos_per_op: elapsed.as_nanos() as f64 / ops as f64 }
    }

    /// The median of several.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn median(costs: impl IntoIterator<Item = Self>) -> Self {
        let nanos = costs.into_iter().map(|cost| cost.nanos_per_op).collect();
        Self { nanos_per_op: Quartiles::of(nanos).median }
    }
}

/// Times `work`, which does `ops` operations. What is set up before and dropped after is not in it.
pub fn timed<T>(ops: u64, work: impl FnOnce() -> T) -> Cost {
    let start = Instant::now();
    let result = work();
    let elapsed = start.elapsed();
    drop(result);
    Cost::of(ops, elapsed)
}

/// Into how many slices a run on one thread is cut.
pub const SLICES: u64 = 20;

/// Times `work`, which does as many operations as it is told, slice by slice, `ops` in all; the
/// cost is that of the median slice.
///
/// For work of one thread, all of it alike: a slice is shorter than what the system gives a
/// neighbour at a time, so that being interrupted costs one slice and not the figure.
pub fn timed_in_slices<T>(ops: u64, mut work: impl FnMut(u64) -> T) -> Cost {
    let each = ops.div_ceil(SLICES);
    Cost::median((0..SLICES).map(|_| timed(each, || work(each))))
}

type Run = Box<dyn FnMut(Scale) -> Cost>;

struct Contender {
    name: String,
    /// Whether the target is measured against it.
    rival: bool,
    run: Run,
}

struct Target {
    times: f64,
    whom: String,
}

/// Something to be done, and those who do it: ours, the rivals that its target speaks of, and
/// others that are shown beside them.
#[must_use = "a workload is measured in a table"]
pub struct Workload {
    name: String,
    target: Option<Target>,
    /// Ours is the first.
    contenders: Vec<Contender>,
}

/// The name under which ours is shown.
pub(crate) const OURS: &str = "ours";

impl Workload {
    /// A workload that nobody does yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), target: None, contenders: Vec::new() }
    }

    /// Ours may take `times` as long as the quickest rival. `whom` says in words who the rivals are.
    pub fn at_most(mut self, times: f64, whom: impl Into<String>) -> Self {
        self.target = Some(Target { times, whom: whom.into() });
        self
    }

    /// Ours: to be given first, and once.
    ///
    /// # Panics
    ///
    /// If somebody was given before.
    pub fn ours(self, run: impl FnMut(Scale) -> Cost + 'static) -> Self {
        assert!(self.contenders.is_empty(), "ours comes first, and once");
        self.contender(OURS, true, run)
    }

    /// One that the target is measured against.
    pub fn rival(self, name: impl Into<String>, run: impl FnMut(Scale) -> Cost + 'static) -> Self {
        self.contender(name, true, run)
    }

    /// One that is shown but not like for like, so that the target does not speak of it.
    pub fn beside(self, name: impl Into<String>, run: impl FnMut(Scale) -> Cost + 'static) -> Self {
        self.contender(name, false, run)
    }

    fn contender(
        mut self,
        name: impl Into<String>,
        rival: bool,
        run: impl FnMut(Scale) -> Cost + 'static,
    ) -> Self {
        self.contenders.push(Contender { name: name.into(), rival, run: Box::new(run) });
        self
    }
}

/// Workloads to be measured together and shown in one table.
pub struct Table {
    title: String,
    workloads: Vec<Workload>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), workloads: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    ///
    /// If nobody was given to do the workload.
    pub fn add(&mut self, workload: Workload) {
        assert!(!workload.contenders.is_empty(), "{}: nobody does it", workload.name);
        self.workloads.push(workload);
    }

    /// Does what the command line asks for: measures the workloads chosen, and prints the table.
    pub fn run(mut self, options: &Options) {
        self.workloads.retain(|workload| options.chooses(&workload.name));
        if self.workloads.is_empty() {
            eprintln!("error: no workload has a name that contains {:?}", options.filters);
            std::process::exit(2);
        }
        eprintln!("measuring {} workloads in {} round(s)", self.workloads.len(), options.rounds);
        println!("{}", self.measure(options.rounds, options.scale));
    }

    /// Measures everything `rounds` times.
    ///
    /// All workloads have their turn in each round, so that a neighbour who disturbs the machine
    /// for a while spoils a few rounds of each, which a median bears, and not all rounds of one.
    ///
    /// # Panics
    ///
    /// If `rounds` is zero.
    pub fn measure(mut self, rounds: usize, scale: Scale) -> Report {
        assert!(rounds > 0, "there is no median of no rounds");
        let mut report = Report::new(self.title, rounds, scale, &self.workloads);
        if scale == Scale::Full {
            // Caches, allocators and branch predictors find their feet.
            for workload in &mut self.workloads {
                for contender in &mut workload.contenders {
                    let _ = (contender.run)(scale);
                }
            }
        }
        for round in 0..rounds {
            for (row, workload) in self.workloads.iter_mut().enumerate() {
                let count = workload.contenders.len();
                for turn in 0..count {
                    let turn = (turn + round / 2) % count;
                    let turn = if round % 2 == 0 { turn } else { count - 1 - turn };
                    let cost = (workload.contenders[turn].run)(scale);
                    report.note(row, turn, cost.nanos_per_op);
                }
            }
        }
        report
    }
}
