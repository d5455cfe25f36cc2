//! The register by itself, one step at a time: parents whose children are still on their way, and
//! writes that are still on theirs, while events of other authors come.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::reference::Reference;
use super::rules::anything_goes;
use super::run::roomy;
use super::tables::Tables;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate_examples::ingest::event::{Id, parse};
use sluicegate_examples::ingest::register::{Decision, Freed, Register, Write};
use sluicegate_examples::ingest::store::{self, Effect, Op, Writer};
use sluicegate_examples::ingest::tally::Category;
use tempfile::TempDir;

struct Steps {
    register: Register,
    writer: Writer,
    /// Accepted, in order, as the batcher holds them.
    writes: VecDeque<Write>,
    /// With the author who freed them, whose next event waits for them.
    freed: VecDeque<(Id, Freed)>,
    counts: BTreeMap<&'static str, u64>,
}

impl Steps {
    fn carry_out(&mut self, author: &Id, decision: Decision) {
        let Decision { write, waits: _, freed, left, done } = decision;
        self.writes.extend(write);
        self.freed.extend(freed.into_iter().map(|freed| (author.clone(), freed)));
        let left = left.into_iter().map(|(category, numbers)| (category, numbers.len() as u64));
        for (category, lines) in left.chain(done.map(|category| (category, 1))) {
            *self.counts.entry(category.name()).or_default() += lines;
        }
    }

    fn line(&mut self, line: &str) {
        let event = parse(line.as_bytes()).unwrap().unwrap();
        let author = event.author.clone();
        while let Some(place) = self.freed.iter().position(|(freer, _)| *freer == author) {
            self.arrive(place);
        }
        if !self.register.has_user(&author).unwrap() {
            let decision = self.register.user(author.clone());
            self.carry_out(&author, decision);
        }
        let decision = self.register.event(event.change, Instant::now()).unwrap();
        self.carry_out(&author, decision);
    }

    fn arrive(&mut self, place: usize) {
        let (author, freed) = self.freed.remove(place).unwrap();
        let decision = self.register.arrived(freed);
        self.carry_out(&author, decision);
    }

    fn write(&mut self, count: usize) {
        let batch: Vec<_> = self.writes.drain(..count).collect();
        let transaction = self.writer.begin().unwrap();
        let effects: Vec<_> =
            batch.iter().map(|write| store::apply(&transaction, &write.op).unwrap()).collect();
        transaction.commit().unwrap();
        self.register.settled(&batch);
        for (write, effect) in batch.iter().zip(effects) {
            let category = match effect {
                _ if matches!(write.op, Op::User(_)) => continue,
                Effect::Stored => Category::Stored,
                Effect::Deleted => Category::Deleted,
                Effect::NothingToDelete if write.removed_waiting => Category::Deleted,
                Effect::NothingToDelete => Category::DeleteUnknown,
                Effect::Duplicate | Effect::ParentLost => panic!("{write:?}: {effect:?}"),
            };
            *self.counts.entry(category.name()).or_default() += 1;
        }
    }
}

/// Whether a child that is deleted had arrived is up to the steps; nothing else is.
#[test]
fn each_decision_is_that_of_one_line_after_the_other() {
    for seed in 0..200 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("ingest.db");
        let (writer, reader) = store::open(&path).unwrap();
        let mut steps = Steps {
            register: Register::new(reader, roomy().limits).unwrap(),
            writer,
            writes: VecDeque::new(),
            freed: VecDeque::new(),
            counts: BTreeMap::new(),
        };
        let lines = anything_goes(seed, 2 + seed % 4);
        for line in &lines {
            steps.line(line);
            if !steps.freed.is_empty() && random.random_bool(0.2) {
                steps.arrive(random.random_range(0..steps.freed.len()));
            }
            if random.random_bool(0.2) {
                steps.write(random.random_range(0..=steps.writes.len()));
            }
        }
        while !steps.freed.is_empty() {
            steps.arrive(0);
        }
        steps.write(steps.writes.len());

        let reference = Reference::of(lines.iter().map(String::as_str));
        assert!(Tables::read(&path) == reference.tables, "seed {seed}: tables differ");
        let ours = |name| steps.counts.get(name).copied().unwrap_or(0);
        for name in ["duplicate", "deleted", "delete_unknown"] {
            assert_eq!(ours(name), reference.count(name), "seed {seed}: {name}");
        }
        let waiting: usize = steps.register.all_waiting().iter().map(|map| map.total_items()).sum();
        assert_eq!(waiting as u64, reference.count("waiting"), "seed {seed}");
        assert_eq!(
            ours("stored") + ours("cancelled"),
            reference.count("stored") + reference.count("cancelled"),
            "seed {seed}"
        );
    }
}
