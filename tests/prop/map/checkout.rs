//! Maps whose keys are checked out while all else goes on, limits being changed included, against
//! a reference so plain that it is obviously right: a vector of keys in order of use, each with
//! what is out and what is in. An observer is there or not, and hears what the callers are handed.
//!
//! Seen to fail with: a fast path that does not promote the key of a push; one that is taken
//! although an observer is there; a `promote` that does nothing to a map with the fast path.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::pushed::each;
use proptest::prelude::*;
use sluicegate::map::{Items, MapStats, Resize, SharedCheckout};
use sluicegate::{BoundedArrayMap, FullKey, FullMap, Pushed, RejectReason, SharedBoundedArrayMap};

#[derive(Debug, Clone)]
struct Token {
    number: u32,
    _alive: Rc<()>,
}

type Map = SharedBoundedArrayMap<u8, Token>;

#[derive(Debug, Clone, Copy)]
struct Limits {
    max_keys: usize,
    max_per_key: usize,
    full_key: FullKey,
    full_map: FullMap,
    /// Makes the map keep more of each item than its value.
    item_meta: bool,
    observed: bool,
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Push { key: u8 },
    Take { key: u8 },
    Promote { key: u8 },
    CheckOut { key: u8 },
    Acknowledge { key: u8 },
    PutBack { key: u8 },
    Resize { max_keys: usize, max_per_key: usize },
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
    Is(bool),
}

#[derive(Default)]
struct Key {
    name: u8,
    held: bool,
    out: Vec<u32>,
    items: Vec<u32>,
}

struct Model {
    limits: Limits,
    /// Least recently used first.
    keys: Vec<Key>,
    stats: MapStats,
}

impl Model {
    fn position(&self, name: u8) -> Option<usize> {
        self.keys.iter().position(|key| key.name == name)
    }

    fn evict(&mut self) -> Row {
        let at = self.keys.iter().position(|key| !key.held).expect("there is one");
        let key = self.keys.remove(at);
        self.stats.evicted += key.items.len() as u64;
        self.stats.evicted_keys += 1;
        (key.name, key.items)
    }

    fn push(&mut self, name: u8, number: u32) -> Vec<Answer> {
        self.stats.pushed += 1;
        let found = self.position(name);
        let room = |len: usize, limit: usize| (len + 1).saturating_sub(limit);
        let (gone, free, refuses, reason) = match found {
            Some(at) => {
                let key = &self.keys[at];
                let gone = room(key.out.len() + key.items.len(), self.limits.max_per_key);
                let refuses = self.limits.full_key == FullKey::RejectNew;
                (gone, key.items.len(), refuses, RejectReason::KeyFull)
            }
            None => {
                let free = self.keys.iter().filter(|key| !key.held).count();
                let refuses = self.limits.full_map == FullMap::RejectNewKey;
                (room(self.keys.len(), self.limits.max_keys), free, refuses, RejectReason::MapFull)
            }
        };
        if gone > free || (gone > 0 && refuses) {
            self.stats.rejected += 1;
            return vec![Answer::Rejected(reason, name, number)];
        }
        if let Some(at) = found {
            let mut key = self.keys.remove(at);
            self.stats.displaced += gone as u64;
            let answers = key.items.drain(..gone).map(Answer::Displaced).collect();
            key.items.push(number);
            self.keys.push(key);
            return answers;
        }
        let evicted = (0..gone).map(|_| self.evict()).collect::<Vec<_>>().into_iter();
        let answers = evicted.map(|(key, items)| Answer::Evicted(key, items)).collect();
        self.keys.push(Key { name, items: vec![number], ..Key::default() });
        answers
    }

    fn apply(&mut self, operation: Operation, number: u32) -> Vec<Answer> {
        let answers = match operation {
            Operation::Push { key } => self.push(key, number),
            Operation::Take { key } => {
                let at = self.position(key).filter(|at| !self.keys[*at].held);
                let taken = at.map_or(Vec::new(), |at| self.keys.remove(at).items);
                self.stats.taken += taken.len() as u64;
                vec![Answer::Items(taken)]
            }
            Operation::Promote { key } => {
                let at = self.position(key);
                let is = at.is_some_and(|at| !self.keys[at].items.is_empty());
                if let Some(at) = at.filter(|at| !self.keys[*at].held) {
                    let key = self.keys.remove(at);
                    self.keys.push(key);
                }
                vec![Answer::Is(is)]
            }
            Operation::CheckOut { key } => {
                let at = self.position(key).filter(|at| !self.keys[*at].held);
                let out = at.map_or(Vec::new(), |at| {
                    let key = &mut self.keys[at];
                    key.held = true;
                    key.out = std::mem::take(&mut key.items);
                    key.out.clone()
                });
                vec![Answer::Items(out)]
            }
            Operation::Acknowledge { key } => {
                let at = self.position(key).filter(|at| !self.keys[*at].out.is_empty());
                let gone = at.map(|at| self.keys[at].out.remove(0));
                self.stats.taken += u64::from(gone.is_some());
                vec![Answer::Items(gone.into_iter().collect())]
            }
            Operation::PutBack { key } => {
                if let Some(at) = self.position(key).filter(|at| self.keys[*at].held) {
                    let mut key = self.keys.remove(at);
                    key.held = false;
                    key.out.append(&mut key.items);
                    std::mem::swap(&mut key.out, &mut key.items);
                    self.keys.push(key);
                }
                Vec::new()
            }
            Operation::Resize { max_keys, max_per_key } => {
                self.limits = Limits { max_keys, max_per_key, ..self.limits };
                let free = self.keys.iter().filter(|key| !key.held).count();
                let excess = self.keys.len().saturating_sub(max_keys).min(free);
                let evicted = (0..excess).map(|_| self.evict()).collect();
                let mut displaced = Vec::new();
                for key in &mut self.keys {
                    let excess = (key.out.len() + key.items.len()).saturating_sub(max_per_key);
                    let gone: Vec<_> = key.items.drain(..excess.min(key.items.len())).collect();
                    self.stats.displaced += gone.len() as u64;
                    displaced.extend((!gone.is_empty()).then_some((key.name, gone)));
                }
                // Of those that are checked out the order is not seen.
                displaced.sort();
                vec![Answer::Rows(evicted), Answer::Rows(displaced)]
            }
            Operation::Clear => {
                let (held, free) = std::mem::take(&mut self.keys).into_iter().partition(|k| k.held);
                self.keys = held;
                let free: Vec<Key> = free;
                let rows: Vec<Row> = free.into_iter().map(|key| (key.name, key.items)).collect();
                self.stats.taken += rows.iter().map(|(_, items)| items.len() as u64).sum::<u64>();
                vec![Answer::Rows(rows)]
            }
        };
        self.keys.retain(|key| key.held || !key.items.is_empty());
        self.stats.keys = self.keys.len();
        self.stats.items = self.keys.iter().map(|key| key.out.len() + key.items.len()).sum();
        self.stats.peak_keys = self.stats.peak_keys.max(self.stats.keys);
        self.stats.peak_items = self.stats.peak_items.max(self.stats.items);
        answers
    }
}

fn new(limits: Limits, events: &Arc<AtomicUsize>) -> Map {
    let builder = BoundedArrayMap::builder()
        .max_keys(limits.max_keys)
        .max_items_per_key(limits.max_per_key)
        .full_key(limits.full_key)
        .full_map(limits.full_map);
    let builder = if limits.item_meta { builder.time_to_live(Duration::MAX) } else { builder };
    let (map, events) = (builder.build_shared().unwrap(), Arc::clone(events));
    if !limits.observed {
        return map;
    }
    map.with_observer(move |_| {
        events.fetch_add(1, Ordering::Relaxed);
    })
}

/// What an observer hears of an answer.
fn heard(answers: &[Answer]) -> usize {
    match answers {
        [Answer::Rows(evicted), Answer::Rows(displaced)] => {
            evicted.len() + displaced.iter().map(|(_, items)| items.len()).sum::<usize>()
        }
        [Answer::Rows(_) | Answer::Items(_) | Answer::Is(_)] => 0,
        _ => answers.len(),
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

type Checkouts<'a> = HashMap<u8, SharedCheckout<'a, u8, Token>>;

fn apply<'a>(
    map: &'a Map,
    out: &mut Checkouts<'a>,
    operation: Operation,
    token: Token,
) -> Vec<Answer> {
    match operation {
        Operation::Push { key } => {
            each(map.push(key, token)).into_iter().filter_map(answer).collect()
        }
        Operation::Take { key } => vec![Answer::Items(numbers(map.take(&key)))],
        Operation::Promote { key } => vec![Answer::Is(map.promote(&key))],
        Operation::CheckOut { key } => {
            let checkout = map.checkout(&key);
            let numbers = checkout.iter().flat_map(|checkout| checkout.iter());
            let numbers = numbers.map(|token| token.number).collect();
            out.extend(checkout.map(|checkout| (key, checkout)));
            vec![Answer::Items(numbers)]
        }
        Operation::Acknowledge { key } => {
            let token = out.get_mut(&key).and_then(SharedCheckout::acknowledge);
            vec![Answer::Items(token.map(|token| token.number).into_iter().collect())]
        }
        Operation::PutBack { key } => {
            drop(out.remove(&key));
            Vec::new()
        }
        Operation::Resize { max_keys, max_per_key } => {
            let shrunk = map
                .resize(Resize::new().max_keys(max_keys).max_items_per_key(max_per_key))
                .unwrap();
            let mut displaced = rows(shrunk.displaced);
            displaced.sort();
            vec![Answer::Rows(rows(shrunk.evicted)), Answer::Rows(displaced)]
        }
        Operation::Clear => vec![Answer::Rows(rows(map.clear()))],
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    let full_key = prop_oneof![3 => Just(FullKey::DisplaceOldest), 1 => Just(FullKey::RejectNew)];
    let full_map = prop_oneof![
        4 => Just(FullMap::EvictLeastRecentlyUsed),
        1 => Just(FullMap::RejectNewKey),
    ];
    (1..5_usize, 1..6_usize, full_key, full_map, any::<bool>(), any::<bool>()).prop_map(
        |(max_keys, max_per_key, full_key, full_map, item_meta, observed)| Limits {
            max_keys,
            max_per_key,
            full_key,
            full_map,
            item_meta,
            observed,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = || 0..6_u8;
    prop_oneof![
        23 => key().prop_map(|key| Operation::Push { key }),
        1 => key().prop_map(|key| Operation::Take { key }),
        2 => key().prop_map(|key| Operation::Promote { key }),
        5 => key().prop_map(|key| Operation::CheckOut { key }),
        3 => key().prop_map(|key| Operation::Acknowledge { key }),
        6 => key().prop_map(|key| Operation::PutBack { key }),
        3 => (1..5_usize, 1..6_usize)
            .prop_map(|(max_keys, max_per_key)| Operation::Resize { max_keys, max_per_key }),
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
        let (map, mut expected) = (new(limits, &events), 0);
        let mut out = HashMap::new();
        for (number, operation) in (0..).zip(operations) {
            let token = Token { number, _alive: Rc::clone(&alive) };
            let answers = apply(&map, &mut out, operation, token);
            expected += if limits.observed { heard(&answers) } else { 0 };
            prop_assert_eq!(answers, model.apply(operation, number), "{:?}", operation);
            prop_assert_eq!(events.load(Ordering::Relaxed), expected);
            let free = model.keys.iter().rev().filter(|key| !key.held).map(|key| key.name);
            prop_assert_eq!(map.keys(), free.collect::<Vec<_>>(), "order of use");

            #[cfg(debug_assertions)]
            map.validate();
            let stats = map.stats();
            prop_assert_eq!(stats, model.stats);
            let left = stats.taken + stats.displaced + stats.evicted + stats.rejected;
            prop_assert_eq!(stats.pushed, stats.items as u64 + left);
            prop_assert_eq!(Rc::strong_count(&alive) - 1, stats.items);
        }
        drop(out);
        drop(map);
        prop_assert_eq!(Rc::strong_count(&alive), 1);
    }
}
