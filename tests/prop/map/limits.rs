//! Maps with every mix of limits and policies, and all that removes many items at once, against a
//! reference so plain that it is obviously right: a vector of keys in order of use, each with a
//! vector of items. Maps of the two caps alone, whose pushes take a way of their own, are among
//! them. An observer is there or not, and hears what the caller is handed.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pushed::each;
use proptest::prelude::*;
use sluicegate::map::{Event, Items, MapStats, Resize};
use sluicegate::{BoundedArrayMap, FullKey, FullMap, Pushed, RejectReason};

#[derive(Debug, Clone)]
struct Token {
    number: u32,
    weight: u64,
    _alive: Rc<()>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    max_keys: usize,
    max_per_key: usize,
    full_key: FullKey,
    full_map: FullMap,
    max_items: Option<usize>,
    max_weight: Option<u64>,
    observed: bool,
}

#[derive(Debug, Clone)]
enum Operation {
    Push { key: u8, weight: u64 },
    Extend(Vec<(u8, u64)>),
    Take { key: u8 },
    Get { key: u8 },
    RemoveIf { key: u8, remainder: u32 },
    Retain { remainder: u32 },
    CheckOut { key: u8, acknowledged: usize },
    Resize { max_keys: usize, max_per_key: usize },
    ResizeItems { max_items: usize },
    ResizeWeight { max_weight: u64 },
    Clear,
}

type Row = (u8, Vec<u32>);

#[derive(Debug, PartialEq)]
enum Answer {
    Displaced(u32),
    Evicted(u8, Vec<u32>),
    Rejected(RejectReason, u8, u32),
    Items(Vec<u32>),
    Rows(Vec<Row>),
    Shrunk(Vec<Row>, Vec<Row>),
}

struct Key {
    name: u8,
    items: Vec<(u32, u64)>,
}

impl Key {
    fn weight(&self) -> u64 {
        self.items.iter().map(|(_, weight)| weight).sum()
    }

    fn row(&self) -> Row {
        (self.name, self.items.iter().map(|(number, _)| *number).collect())
    }
}

struct Model {
    limits: Limits,
    /// Least recently used first.
    keys: Vec<Key>,
    stats: MapStats,
}

impl Model {
    fn items(&self) -> usize {
        self.keys.iter().map(|key| key.items.len()).sum()
    }

    fn weight(&self) -> u64 {
        self.keys.iter().map(Key::weight).sum()
    }

    fn position(&self, name: u8) -> Option<usize> {
        self.keys.iter().position(|key| key.name == name)
    }

    fn victim(&self, spared: Option<u8>) -> usize {
        let mut keys = self.keys.iter();
        keys.position(|key| Some(key.name) != spared).expect("another key is there")
    }

    fn evict(&mut self, at: usize) -> Row {
        let key = self.keys.remove(at);
        self.stats.evicted += key.items.len() as u64;
        self.stats.evicted_keys += 1;
        key.row()
    }

    fn rejection(&self, name: u8, weight: u64) -> Option<RejectReason> {
        let Limits { max_keys, max_per_key, full_key, full_map, max_items, max_weight, .. } =
            self.limits;
        let (max_items, max_weight) =
            (max_items.unwrap_or(usize::MAX), max_weight.unwrap_or(u64::MAX / 2));
        let found = self.position(name);
        let (mut items, mut total) = (self.items(), self.weight());
        if weight > max_weight {
            return Some(RejectReason::TooHeavy);
        }
        if let Some(at) = found {
            let mut left = self.keys[at].items.clone();
            let own = |left: &[(u32, u64)]| left.iter().map(|(_, weight)| weight).sum::<u64>();
            while left.len() >= max_per_key || own(&left) + weight > max_weight {
                if full_key == FullKey::RejectNew {
                    return Some(RejectReason::KeyFull);
                }
                items -= 1;
                total -= left.remove(0).1;
            }
        }
        let over = (found.is_none() && self.keys.len() >= max_keys)
            || items + 1 > max_items
            || total + weight > max_weight;
        (over && full_map == FullMap::RejectNewKey).then_some(RejectReason::MapFull)
    }

    fn push(&mut self, name: u8, number: u32, weight: u64, answers: &mut Vec<Answer>) -> bool {
        let weight = if self.limits.max_weight.is_some() { weight } else { 0 };
        self.stats.pushed += 1;
        if let Some(reason) = self.rejection(name, weight) {
            self.stats.rejected += 1;
            answers.push(Answer::Rejected(reason, name, number));
            return false;
        }
        let max_weight = self.limits.max_weight.unwrap_or(u64::MAX / 2);
        if let Some(at) = self.position(name) {
            let mut key = self.keys.remove(at);
            while key.items.len() >= self.limits.max_per_key || key.weight() + weight > max_weight {
                self.stats.displaced += 1;
                answers.push(Answer::Displaced(key.items.remove(0).0));
            }
            self.keys.push(key);
        }
        let found = self.position(name);
        while (found.is_none() && self.keys.len() >= self.limits.max_keys)
            || self.limits.max_items.is_some_and(|most| self.items() + 1 > most)
            || self.weight() + weight > max_weight
        {
            let (name, items) = self.evict(self.victim(Some(name)));
            answers.push(Answer::Evicted(name, items));
        }
        if found.is_none() {
            self.keys.push(Key { name, items: Vec::new() });
        }
        self.keys.last_mut().expect("it is the newest").items.push((number, weight));
        self.stats.peak_keys = self.stats.peak_keys.max(self.keys.len());
        self.stats.peak_items = self.stats.peak_items.max(self.items());
        true
    }

    fn remove_if(&mut self, at: usize, leaves: impl Fn(u32) -> bool) -> Vec<u32> {
        let key = &mut self.keys[at];
        let (gone, stay) = key.items.drain(..).partition(|(number, _)| leaves(*number));
        key.items = stay;
        let gone: Vec<(u32, u64)> = gone;
        self.stats.removed += gone.len() as u64;
        gone.into_iter().map(|(number, _)| number).collect()
    }

    fn apply(&mut self, operation: &Operation, number: u32) -> Vec<Answer> {
        let mut answers = Vec::new();
        match *operation {
            Operation::Push { key, weight } => {
                self.push(key, number, weight, &mut answers);
            }
            Operation::Extend(ref items) => {
                for (number, (key, weight)) in (number..).zip(items) {
                    self.push(*key, number, *weight, &mut answers);
                }
            }
            Operation::Take { key } => {
                let taken =
                    self.position(key).map_or(Vec::new(), |at| self.keys.remove(at).row().1);
                self.stats.taken += taken.len() as u64;
                answers.push(Answer::Items(taken));
            }
            Operation::Get { key } => {
                let got = self.position(key).map(|at| self.keys.remove(at));
                answers.push(Answer::Items(got.as_ref().map_or(Vec::new(), |key| key.row().1)));
                self.keys.extend(got);
            }
            Operation::RemoveIf { key, remainder } => {
                let gone = self
                    .position(key)
                    .map_or(Vec::new(), |at| self.remove_if(at, |number| number % 3 == remainder));
                answers.push(Answer::Items(gone));
            }
            Operation::Retain { remainder } => {
                let gone = (0..self.keys.len()).map(|at| {
                    (self.keys[at].name, self.remove_if(at, |number| number % 3 != remainder))
                });
                let gone: Vec<Row> = gone.collect();
                let gone = gone.into_iter().filter(|(_, items)| !items.is_empty()).collect();
                answers.push(Answer::Rows(gone));
            }
            Operation::CheckOut { key, acknowledged } => {
                let Some(at) = self.position(key) else { return answers };
                let mut key = self.keys.remove(at);
                let acknowledged = acknowledged.min(key.items.len());
                let gone = key.items.drain(..acknowledged).map(|(number, _)| number).collect();
                self.stats.taken += acknowledged as u64;
                self.keys.push(key);
                answers.push(Answer::Items(gone));
            }
            Operation::Resize { max_keys, max_per_key } => {
                if self.limits.max_items.is_some_and(|most| most < max_per_key) {
                    return answers;
                }
                self.limits = Limits { max_keys, max_per_key, ..self.limits };
                let mut evicted = Vec::new();
                while self.keys.len() > max_keys {
                    evicted.push(self.evict(self.victim(None)));
                }
                let mut displaced = Vec::new();
                for key in &mut self.keys {
                    let excess = key.items.len().saturating_sub(max_per_key);
                    if excess > 0 {
                        self.stats.displaced += excess as u64;
                        let gone = key.items.drain(..excess).map(|(number, _)| number);
                        displaced.push((key.name, gone.collect()));
                    }
                }
                answers.push(Answer::Shrunk(evicted, displaced));
            }
            Operation::ResizeItems { max_items } => {
                if max_items < self.limits.max_per_key {
                    return answers;
                }
                self.limits.max_items = Some(max_items);
                let mut evicted = Vec::new();
                while self.items() > max_items {
                    evicted.push(self.evict(self.victim(None)));
                }
                answers.push(Answer::Shrunk(evicted, Vec::new()));
            }
            Operation::ResizeWeight { max_weight } => {
                if self.limits.max_weight.is_none() {
                    return answers;
                }
                self.limits.max_weight = Some(max_weight);
                let mut evicted = Vec::new();
                while self.weight() > max_weight {
                    evicted.push(self.evict(self.victim(None)));
                }
                answers.push(Answer::Shrunk(evicted, Vec::new()));
            }
            Operation::Clear => {
                self.stats.taken += self.items() as u64;
                answers.push(Answer::Rows(self.keys.drain(..).map(|key| key.row()).collect()));
            }
        }
        self.keys.retain(|key| !key.items.is_empty());
        answers
    }
}

fn numbers(items: Items<Token>) -> Vec<u32> {
    items.map(|token| token.number).collect()
}

fn rows(rows: impl IntoIterator<Item = (u8, Items<Token>)>) -> Vec<Row> {
    rows.into_iter().map(|(key, items)| (key, numbers(items))).collect()
}

fn answer(pushed: Pushed<u8, Token>) -> Option<Answer> {
    match pushed {
        Pushed::Stored => None,
        Pushed::Several(_) => unreachable!("taken apart"),
        Pushed::Displaced { value, .. } => Some(Answer::Displaced(value.number)),
        Pushed::Evicted { key, items } => Some(Answer::Evicted(key, numbers(items))),
        Pushed::Rejected { reason, key, value, .. } => {
            Some(Answer::Rejected(reason, key, value.number))
        }
    }
}

fn hear(events: &Arc<AtomicUsize>) -> impl Fn(Event<'_, u8, Token>) + Send + Sync + 'static {
    let events = Arc::clone(events);
    move |_| {
        events.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the observer hears of an answer.
fn heard(answers: &[Answer]) -> usize {
    match answers {
        [Answer::Shrunk(evicted, displaced)] => {
            evicted.len() + displaced.iter().map(|(_, items)| items.len()).sum::<usize>()
        }
        [Answer::Rows(_) | Answer::Items(_)] => 0,
        _ => answers.len(),
    }
}

struct Subject(BoundedArrayMap<u8, Token>);

impl Subject {
    fn new(limits: Limits, events: &Arc<AtomicUsize>) -> Self {
        let builder = BoundedArrayMap::builder()
            .max_keys(limits.max_keys)
            .max_items_per_key(limits.max_per_key)
            .full_key(limits.full_key)
            .full_map(limits.full_map);
        let weigh = |_: &u8, token: &Token| token.weight;
        let builder = match limits.max_items {
            Some(items) => builder.max_items(items),
            None => builder,
        };
        let builder = match limits.max_weight {
            Some(weight) => builder.max_weight(weight, weigh),
            None => builder,
        };
        let map = builder.build().unwrap();
        Self(if limits.observed { map.with_observer(hear(events)) } else { map })
    }

    fn apply(&mut self, operation: &Operation, number: u32, alive: &Rc<()>) -> Vec<Answer> {
        let token = |number, weight| Token { number, weight, _alive: Rc::clone(alive) };
        let mut answers = Vec::new();
        match *operation {
            Operation::Push { key, weight } => {
                let pushed = self.0.push(key, token(number, weight));
                answers.extend(each(pushed).into_iter().filter_map(answer));
            }
            Operation::Extend(ref items) => {
                let tokens = (number..).zip(items);
                let tokens = tokens.map(|(number, (key, weight))| (*key, token(number, *weight)));
                let stored = self.0.extend(tokens, |pushed| {
                    answers.extend(each(pushed).into_iter().filter_map(answer))
                });
                let rejected = answers.iter().filter(|a| matches!(a, Answer::Rejected(..))).count();
                assert_eq!(stored + rejected, items.len());
            }
            Operation::Take { key } => {
                answers.push(Answer::Items(numbers(self.0.take(&key))));
            }
            Operation::Get { key } => {
                let got = self.0.get(&key);
                let got = got.map_or(Vec::new(), |array| array.iter().map(|t| t.number).collect());
                answers.push(Answer::Items(got));
            }
            Operation::RemoveIf { key, remainder } => {
                let gone = self.0.remove_if(&key, |t| t.number % 3 == remainder);
                answers.push(Answer::Items(numbers(gone)));
            }
            Operation::Retain { remainder } => {
                let gone = self.0.retain(|_, t| t.number % 3 == remainder);
                answers.push(Answer::Rows(rows(gone)));
            }
            Operation::CheckOut { key, acknowledged } => {
                if let Some(mut guard) = self.0.checkout(&key) {
                    let all: Vec<u32> = guard.iter().map(|token| token.number).collect();
                    let gone = (0..acknowledged).map_while(|_| guard.acknowledge());
                    let gone: Vec<u32> = gone.map(|token| token.number).collect();
                    assert_eq!(guard.first().map(|t| t.number), all.get(gone.len()).copied());
                    answers.push(Answer::Items(gone));
                }
            }
            Operation::Resize { max_keys, max_per_key } => {
                if let Ok(shrunk) =
                    self.0.resize(Resize::new().max_keys(max_keys).max_items_per_key(max_per_key))
                {
                    answers.push(Answer::Shrunk(rows(shrunk.evicted), rows(shrunk.displaced)));
                }
            }
            Operation::ResizeItems { max_items } => {
                if let Ok(shrunk) = self.0.resize(Resize::new().max_items(max_items)) {
                    assert_eq!(self.0.limits().max_items, Some(max_items));
                    answers.push(Answer::Shrunk(rows(shrunk.evicted), rows(shrunk.displaced)));
                }
            }
            Operation::ResizeWeight { max_weight } => {
                if let Ok(shrunk) = self.0.resize(Resize::new().max_weight(max_weight)) {
                    assert_eq!(self.0.limits().max_weight, Some(max_weight));
                    answers.push(Answer::Shrunk(rows(shrunk.evicted), rows(shrunk.displaced)));
                }
            }
            Operation::Clear => answers.push(Answer::Rows(rows(self.0.clear()))),
        }
        answers
    }

    fn check(&self, model: &Model, alive: &Rc<()>) {
        #[cfg(debug_assertions)]
        self.0.validate();
        let stats = self.0.stats();
        let mut expected = model.stats;
        (expected.items, expected.keys) = (model.items(), model.keys.len());
        expected.weight = model.weight();
        assert_eq!(stats, expected);
        let left = stats.taken + stats.displaced + stats.evicted + stats.rejected + stats.removed;
        assert_eq!(stats.pushed, stats.items as u64 + left, "conservation");

        let rows: Vec<Row> = self
            .0
            .iter_lru()
            .map(|(key, array)| (*key, array.iter().map(|token| token.number).collect()))
            .collect();
        assert_eq!(rows, model.keys.iter().map(Key::row).collect::<Vec<_>>());
        let Limits { max_keys, max_per_key, max_items, max_weight, .. } = model.limits;
        assert!(rows.len() <= max_keys && rows.iter().all(|(_, items)| items.len() <= max_per_key));
        assert!(max_items.is_none_or(|most| stats.items <= most));
        assert!(max_weight.is_none_or(|most| stats.weight <= most));
        assert_eq!(Rc::strong_count(alive) - 1, model.items(), "dropped once, and not before");
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    let full_key = prop_oneof![3 => Just(FullKey::DisplaceOldest), 1 => Just(FullKey::RejectNew)];
    let full_map = prop_oneof![
        3 => Just(FullMap::EvictLeastRecentlyUsed),
        1 => Just(FullMap::RejectNewKey),
    ];
    let totals = (prop::option::of(0..8_usize), prop::option::of(1..20_u64));
    (1..6_usize, 1..12_usize, full_key, full_map, totals, any::<bool>()).prop_map(
        |(max_keys, max_per_key, full_key, full_map, (more_items, max_weight), observed)| Limits {
            max_keys,
            max_per_key,
            full_key,
            full_map,
            max_items: more_items.map(|more| max_per_key + more),
            max_weight,
            observed,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = || 0..8_u8;
    let push = || (key(), 0..9_u64);
    prop_oneof![
        24 => push().prop_map(|(key, weight)| Operation::Push { key, weight }),
        2 => prop::collection::vec(push(), 0..6).prop_map(Operation::Extend),
        2 => key().prop_map(|key| Operation::Take { key }),
        2 => key().prop_map(|key| Operation::Get { key }),
        2 => (key(), 0..3_u32).prop_map(|(key, remainder)| Operation::RemoveIf { key, remainder }),
        1 => (0..3_u32).prop_map(|remainder| Operation::Retain { remainder }),
        2 => (key(), 0..6_usize)
            .prop_map(|(key, acknowledged)| Operation::CheckOut { key, acknowledged }),
        1 => (1..6_usize, 1..12_usize)
            .prop_map(|(max_keys, max_per_key)| Operation::Resize { max_keys, max_per_key }),
        1 => (1..20_usize).prop_map(|max_items| Operation::ResizeItems { max_items }),
        1 => (1..20_u64).prop_map(|max_weight| Operation::ResizeWeight { max_weight }),
        1 => Just(Operation::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_reference_does(
        limits in limits(),
        operations in prop::collection::vec(operation(), 0..150),
    ) {
        let mut model = Model { limits, keys: Vec::new(), stats: MapStats::default() };
        let (alive, events) = (Rc::new(()), Arc::new(AtomicUsize::new(0)));
        let (mut subject, mut expected) = (Subject::new(limits, &events), 0);
        for (turn, operation) in (0..).zip(operations) {
            let number = 10 * turn;
            let answers = subject.apply(&operation, number, &alive);
            expected += if limits.observed { heard(&answers) } else { 0 };
            prop_assert_eq!(answers, model.apply(&operation, number));
            prop_assert_eq!(events.load(Ordering::Relaxed), expected);
            subject.check(&model, &alive);
        }
        drop(subject);
        prop_assert_eq!(Rc::strong_count(&alive), 1);
    }
}
