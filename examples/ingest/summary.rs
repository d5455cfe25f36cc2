//! What a run came to, for people and for programs.

use std::fmt;
use std::io;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sluicegate::{BatchEnd, BatchSummary, SettledCounts, batcher, map, queue};

use super::pipeline::Pipeline;
use super::tally::Category;

/// The account of a run: every line, and the figures of each primitive.
#[derive(Debug)]
pub struct Summary {
    /// Lines that were read.
    pub read: u64,
    /// How they ended, in the order of [`Category::ALL`].
    pub ended: [u64; Category::ALL.len()],
    /// How long the run took.
    pub elapsed: Duration,
    /// The first malformed lines.
    pub malformed: Vec<String>,
    /// Why the first line that failed did.
    pub failure: Option<String>,
    /// What kept the input from being read to its end.
    pub broken: Option<io::Error>,
    /// Whether a signal kept the input from being read to its end.
    pub interrupted: bool,
    /// What kept the source from going on.
    pub end: BatchEnd,
    /// The figures of the queue in front, if the source did not wait.
    pub queue: Option<queue::QueueStats>,
    /// Events of a live stream that came again, and were left out.
    pub redelivered: Option<u64>,
    /// Whether a resumable run was stopped by something that could not be done.
    pub stopped: bool,
    /// Users that were created.
    pub users_created: u64,
    /// Users that could not be written, and were tried again with their next event.
    pub users_failed: u64,
    /// Creations of users that wait for a permit, now and at most.
    pub gate_waiting: [usize; 2],
    /// The longest that one of them waited.
    pub gate_longest_wait: Duration,
    /// What waits for posts, and what waits for users.
    pub waiting: [map::MapStats; 2],
    /// The figures of the batcher.
    pub batcher: batcher::BatcherStats,
    /// The outcomes of events.
    pub events: SettledCounts,
    /// The outcomes of children that followed their parent.
    pub freed: SettledCounts,
}

impl Summary {
    pub(super) fn new(
        pipeline: &Pipeline,
        outcomes: BatchSummary,
        broken: Option<io::Error>,
        elapsed: Duration,
    ) -> Self {
        let Pipeline { tally, gate, register, batcher, sink, freed, ledger, .. } = pipeline;
        let waiting = register.lock().unwrap().all_waiting().map(|map| map.stats());
        let mut ended = Category::ALL.map(|category| tally.of(category));
        let read = tally.lines_read();
        match ledger {
            None => {
                let items = waiting.iter().map(|map| map.items as u64).sum();
                ended[Category::Waiting as usize] = items;
            }
            // What was decided and not stored is as if it had not been.
            Some(ledger) if ledger.is_stopped() => {
                ended[Category::Failed as usize] += read.saturating_sub(ended.iter().sum());
            }
            Some(_) => {}
        }
        Self {
            read,
            ended,
            elapsed,
            malformed: tally.first_malformed(),
            failure: tally.first_failure(),
            broken,
            interrupted: false,
            redelivered: None,
            stopped: ledger.as_ref().is_some_and(|ledger| ledger.is_stopped()),
            queue: None,
            users_created: sink.users_created(),
            users_failed: sink.users_failed(),
            gate_waiting: [gate.waiting(), gate.peak_waiting()],
            gate_longest_wait: gate.longest_wait(),
            waiting,
            batcher: batcher.stats(),
            events: outcomes.counts(),
            end: outcomes.into_end(),
            freed: *freed.lock().unwrap(),
        }
    }

    /// How many lines ended this way.
    pub fn of(&self, category: Category) -> u64 {
        self.ended[category as usize]
    }

    /// How many lines ended, in whatever way.
    pub fn sum(&self) -> u64 {
        self.ended.iter().sum()
    }

    /// Whether every line that was read ended in exactly one way.
    pub fn adds_up(&self) -> bool {
        self.read == self.sum()
    }

    /// Whether there is something left that a resumable run can go on with, and that is no later part of a
    /// live stream.
    pub fn is_incomplete(&self) -> bool {
        self.stopped
            || self.interrupted
            || self.broken.is_some()
            || self.of(Category::Abandoned) > 0
    }

    /// Why the run is no success, if it is none.
    pub fn complaint(&self) -> Option<String> {
        let Self { read, users_failed, .. } = *self;
        let failed = self.of(Category::Failed);
        let why = || self.failure.as_deref().unwrap_or("for an unknown reason");
        let mut complaints = Vec::new();
        if !self.adds_up() {
            complaints.push(format!("{read} lines were read, and {} ended", self.sum()));
        }
        if failed > 0 {
            complaints.push(format!("{failed} of {read} lines were not written: {}", why()));
        } else if users_failed > 0 {
            complaints.push(format!("{users_failed} users were not written: {}", why()));
        } else if self.stopped {
            complaints.push(format!("stopped: {}", why()));
        }
        if let Some(error) = &self.broken {
            complaints.push(format!("the input broke off (lines read: {read}): {error}"));
        }
        if !matches!(self.end, BatchEnd::Exhausted) {
            complaints.push(format!("stopped: {}", self.end));
        }
        if self.interrupted {
            complaints.push(format!("interrupted (lines read: {read})"));
        }
        match self.of(Category::Abandoned) {
            0 => {}
            abandoned => complaints.push(format!("{abandoned} of {read} lines were abandoned")),
        }
        if read > 0 && self.of(Category::Malformed) == read {
            complaints.push(format!("all {read} lines are malformed"));
        }
        (!complaints.is_empty()).then(|| complaints.join("; "))
    }

    /// Lines a second.
    pub fn rate(&self) -> f64 {
        self.read as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// All of it as one flat object.
    pub fn to_json(&self) -> Value {
        let mut all = Map::new();
        let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
        put("read", self.read.into());
        for category in Category::ALL {
            put(category.name(), self.of(category).into());
        }
        put("sum", self.sum().into());
        put("seconds", json!(self.elapsed.as_secs_f64()));
        put("events_per_second", json!(self.rate()));
        if let Some(kib) = peak_memory_kib() {
            put("peak_memory_kib", kib.into());
        }
        put("interrupted", self.interrupted.into());
        put("error", json!(self.complaint()));
        put("failure", json!(self.failure));

        if let Some(redelivered) = self.redelivered {
            put("redelivered", redelivered.into());
        }
        if let Some(queue) = &self.queue {
            put("queue_pushed", queue.pushed.into());
            put("queue_popped", queue.popped.into());
            put("queue_displaced", queue.displaced().into());
            put("queue_rejected", queue.rejected().into());
            put("queue_drained", queue.drained.into());
            put("queue_len", queue.len.into());
            put("queue_peak_len", queue.peak_len.into());
        }
        put("users_created", self.users_created.into());
        put("users_failed", self.users_failed.into());
        put("gate_waiting", self.gate_waiting[0].into());
        put("gate_peak_waiting", self.gate_waiting[1].into());
        put("gate_longest_wait_ms", json!(self.gate_longest_wait.as_secs_f64() * 1e3));
        for (name, map) in ["posts", "users"].into_iter().zip(&self.waiting) {
            put(&format!("for_{name}_keys"), map.keys.into());
            put(&format!("for_{name}_items"), map.items.into());
            put(&format!("for_{name}_peak_keys"), map.peak_keys.into());
            put(&format!("for_{name}_peak_items"), map.peak_items.into());
            put(&format!("for_{name}_evicted_keys"), map.evicted_keys.into());
        }
        let batcher::BatcherStats {
            batches, pending, peak_pending, largest_batch, retries, ..
        } = self.batcher;
        put("batches", batches.total().into());
        put("batches_by_count", batches.count.into());
        put("batches_by_window", batches.window.into());
        put("batches_by_flush", batches.flush.into());
        put("batches_by_shutdown", batches.shutdown.into());
        put("batch_retries", retries.into());
        put("batch_largest", largest_batch.into());
        put("batcher_pending", pending.into());
        put("batcher_peak_pending", peak_pending.into());
        for (name, counts) in [("events", self.events), ("freed", self.freed)] {
            put(&format!("{name}_fulfilled"), counts.fulfilled.into());
            put(&format!("{name}_rejected"), counts.rejected.into());
            put(&format!("{name}_panicked"), counts.panicked.into());
        }
        Value::Object(all)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "read           {:>10}", self.read)?;
        for category in Category::ALL {
            writeln!(f, "{:<14} {:>10}", category.name(), self.of(category))?;
        }
        let verdict = if self.adds_up() { "=" } else { "but" };
        writeln!(f, "sum            {:>10}   {verdict} {} read", self.sum(), self.read)?;
        if let Some(why) = &self.failure {
            writeln!(f, "first failure: {why}")?;
        }
        if !matches!(self.end, BatchEnd::Exhausted) {
            writeln!(f, "stopped: {}", self.end)?;
        }

        let (seconds, rate) = (self.elapsed.as_secs_f64(), self.rate());
        write!(f, "\n{seconds:.2} s, {rate:.0} events/s")?;
        if let Some(kib) = peak_memory_kib() {
            write!(f, ", peak memory {} MiB", kib / 1024)?;
        }
        writeln!(f)?;

        if let Some(redelivered) = self.redelivered {
            writeln!(f, "stream      {redelivered} events came again, and were left out")?;
        }
        if let Some(queue) = &self.queue {
            let queue::QueueStats { pushed, popped, len, peak_len, .. } = queue;
            writeln!(
                f,
                "queue       {pushed} pushed, {popped} popped, {} displaced, {} rejected, {len} left \
                 (peak {peak_len})",
                queue.displaced(),
                queue.rejected(),
            )?;
        }
        let [waiting, peak] = self.gate_waiting;
        write!(f, "semaphore   {} users created, ", self.users_created)?;
        if self.users_failed > 0 {
            write!(f, "{} could not be written, ", self.users_failed)?;
        }
        let longest = self.gate_longest_wait.as_millis();
        writeln!(f, "{waiting} waiting (peak {peak}), {longest} ms the longest wait")?;
        for (name, map) in ["posts", "users"].into_iter().zip(&self.waiting) {
            let map::MapStats { keys, items, peak_keys, peak_items, evicted_keys, .. } = map;
            writeln!(
                f,
                "array map   for {name}: {keys} keys (peak {peak_keys}), \
                 {items} items (peak {peak_items}), {evicted_keys} keys evicted"
            )?;
        }
        let batcher::BatcherStats { batches, pending, peak_pending, retries, .. } = &self.batcher;
        writeln!(
            f,
            "batcher     {} batches (by count {}, window {}, flush {}, shutdown {}), \
             {:.0} rows each, {retries} retries, {pending} pending (peak {peak_pending})",
            batches.total(),
            batches.count,
            batches.window,
            batches.flush,
            batches.shutdown,
            self.batcher.mean_batch(),
        )?;
        writeln!(f, "executor    events: {}", self.events)?;
        write!(f, "executor    children that waited: {}", self.freed)
    }
}

/// The most memory this process ever had resident, where the system tells.
fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
