//! The sharded map against a reference so plain that it is obviously right: a vector of keys in
//! order of use, each with what is out and what is in. Which key a full map evicts follows from
//! the shards that keys say they belong to. Policies, a time to live and an observer are drawn
//! together, so that maps whose pushes take the fast path are among them.
//!
//! Seen to fail with: no promotion in the fast path of a push to a resident key; that fast path
//! taken although an observer is there; it taken although the key may not displace; no
//! `refresh_fast_path` when a checkout begins; the order of arrival lost in the order of weights
//! when a checkout ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluicegate::map::{Entry, Items, ShardedCheckout};
use sluicegate::{BoundedArrayMap, FullKey, FullMap, Pushed, RejectReason, ShardedBoundedArrayMap};

#[derive(Debug, Clone)]
struct Token {
    number: u32,
    _alive: Arc<()>,
}

type Map = ShardedBoundedArrayMap<u8, Token>;

const TTL: Duration = Duration::from_secs(60);
const MAX_KEYS: usize = 5;
const MAX_PER_KEY: usize = 3;

#[derive(Debug, Clone)]
enum Operation {
    Push { key: u8 },
    Extend(Vec<u8>),
    Take { key: u8 },
    Promote { key: u8 },
    RemoveIf { key: u8, remainder: u32 },
    Retain { remainder: u32 },
    CheckOut { key: u8 },
    Acknowledge { key: u8 },
    PutBack { key: u8 },
    Expire { limit: usize },
    Clear,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Displaced(u32),
    Evicted(u8, Vec<u32>),
    Rejected(RejectReason, u8, u32),
    Items(Vec<u32>),
    Rows(Vec<(u8, Vec<u32>)>),
    Is(bool),
}

#[derive(Default)]
struct Key {
    name: u8,
    held: bool,
    out: Vec<u32>,
    items: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Options {
    full_key: FullKey,
    full_map: FullMap,
    expires: bool,
    observed: bool,
}

struct Model<'a> {
    map: &'a Map,
    options: Options,
    /// Least recently used first.
    keys: Vec<Key>,
    pushed: u64,
    heard: usize,
}

impl Model<'_> {
    fn position(&self, name: u8) -> Option<usize> {
        self.keys.iter().position(|key| key.name == name)
    }

    fn free(&self, name: u8) -> Option<usize> {
        self.position(name).filter(|at| !self.keys[*at].held)
    }

    fn items(&self) -> usize {
        self.keys.iter().map(|key| key.out.len() + key.items.len()).sum()
    }

    /// The key that the policy says of the new key's own shard, or of the next one that has any.
    fn victim(&self, name: u8) -> Option<usize> {
        let shards = self.map.shards();
        let own = self.map.shard_of(&name);
        (0..shards).map(|step| (own + step) % shards).find_map(|shard| {
            let keys = self.keys.iter().enumerate();
            let mut keys =
                keys.filter(|(_, key)| !key.held && self.map.shard_of(&key.name) == shard);
            keys.next().map(|(at, _)| at)
        })
    }

    fn push(&mut self, name: u8, number: u32) -> Vec<Answer> {
        self.pushed += 1;
        let mut answers = Vec::new();
        let refuses = self.options.full_key == FullKey::RejectNew;
        let full_key = |key: &Key| {
            key.out.len() + key.items.len() == MAX_PER_KEY && (refuses || key.items.is_empty())
        };
        match self.position(name) {
            Some(at) if full_key(&self.keys[at]) => {
                answers.push(Answer::Rejected(RejectReason::KeyFull, name, number));
            }
            Some(at) => {
                let mut key = self.keys.remove(at);
                if key.out.len() + key.items.len() == MAX_PER_KEY {
                    answers.push(Answer::Displaced(key.items.remove(0)));
                }
                key.items.push(number);
                self.keys.push(key);
            }
            None => {
                let key = Key { name, items: vec![number], ..Key::default() };
                if self.keys.len() < MAX_KEYS {
                    self.keys.push(key);
                } else {
                    let evicts = self.options.full_map != FullMap::RejectNewKey;
                    match self.victim(name).filter(|_| evicts) {
                        Some(at) => {
                            let gone = self.keys.remove(at);
                            answers.push(Answer::Evicted(gone.name, gone.items));
                            self.keys.push(key);
                        }
                        None => {
                            answers.push(Answer::Rejected(RejectReason::MapFull, name, number));
                        }
                    }
                }
            }
        }
        self.hear(answers.len());
        answers
    }

    fn hear(&mut self, events: usize) {
        if self.options.observed {
            self.heard += events;
        }
    }

    fn remove_if(key: &mut Key, leaves: impl Fn(u32) -> bool) -> Vec<u32> {
        let (gone, stay) = key.items.iter().partition(|number| leaves(**number));
        key.items = stay;
        gone
    }

    fn apply(&mut self, operation: &Operation, number: u32) -> Vec<Answer> {
        let answers = match *operation {
            Operation::Push { key } => self.push(key, number),
            Operation::Extend(ref keys) => {
                let numbers = number..;
                numbers.zip(keys).flat_map(|(number, key)| self.push(*key, number)).collect()
            }
            Operation::Take { key } => {
                let taken = self.free(key).map(|at| self.keys.remove(at).items);
                vec![Answer::Items(taken.unwrap_or_default())]
            }
            Operation::Promote { key } => {
                let at = self.position(key);
                let is = at.is_some_and(|at| !self.keys[at].items.is_empty());
                if let Some(at) = self.free(key) {
                    let key = self.keys.remove(at);
                    self.keys.push(key);
                }
                vec![Answer::Is(is)]
            }
            Operation::RemoveIf { key, remainder } => {
                let at = self.free(key);
                let gone = at.map(|at| {
                    Self::remove_if(&mut self.keys[at], |number| number % 3 == remainder)
                });
                vec![Answer::Items(gone.unwrap_or_default())]
            }
            Operation::Retain { remainder } => {
                let free = self.keys.iter_mut().filter(|key| !key.held);
                let gone = free
                    .map(|key| (key.name, Self::remove_if(key, |number| number % 3 != remainder)));
                let mut gone: Vec<_> = gone.filter(|(_, items)| !items.is_empty()).collect();
                gone.sort();
                vec![Answer::Rows(gone)]
            }
            Operation::CheckOut { key } => {
                let out = self.free(key).map(|at| {
                    let key = &mut self.keys[at];
                    key.held = true;
                    key.out = std::mem::take(&mut key.items);
                    key.out.clone()
                });
                vec![Answer::Items(out.unwrap_or_default())]
            }
            Operation::Acknowledge { key } => {
                let at = self.position(key).filter(|at| !self.keys[*at].out.is_empty());
                let gone = at.map(|at| self.keys[at].out.remove(0));
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
            // All is due; which of it comes first depends on the shards.
            Operation::Expire { .. } => unreachable!("looked at by itself"),
            Operation::Clear => {
                let keys = std::mem::take(&mut self.keys);
                let (held, free): (Vec<_>, _) = keys.into_iter().partition(|key| key.held);
                self.keys = held;
                let mut rows: Vec<_> =
                    free.into_iter().map(|key: Key| (key.name, key.items)).collect();
                rows.sort();
                vec![Answer::Rows(rows)]
            }
        };
        self.keys.retain(|key| key.held || !key.items.is_empty());
        answers
    }

    /// As many have expired as the limit and what is not out allow, of each shard the oldest.
    fn expired(&mut self, numbers: &[u32], limit: usize) {
        let due = self.keys.iter().map(|key| key.items.len()).filter(|_| self.options.expires);
        let due: usize = due.sum();
        assert_eq!(numbers.len(), due.min(limit));
        let due = |key: &Key| !key.items.iter().any(|number| numbers.contains(number));
        for shard in 0..self.map.shards() {
            let of_shard = |key: &&mut Key| self.map.shard_of(&key.name) == shard;
            let (mut left, mut gone) = (Vec::new(), Vec::new());
            for key in self.keys.iter_mut().filter(of_shard) {
                if due(key) {
                    left.extend(key.items.iter().copied());
                    continue;
                }
                let (out, stay) = key.items.iter().partition(|number| numbers.contains(number));
                key.items = stay;
                left.extend(key.items.iter().copied());
                gone.extend::<Vec<u32>>(out);
            }
            assert!(gone.iter().max() < left.iter().min() || left.is_empty() || gone.is_empty());
        }
        self.hear(numbers.len());
        self.keys.retain(|key| key.held || !key.items.is_empty());
    }
}

fn numbers(items: Items<Token>) -> Vec<u32> {
    items.map(|token| token.number).collect()
}

fn answer(pushed: Pushed<u8, Token>) -> Option<Answer> {
    match pushed {
        Pushed::Stored => None,
        Pushed::Several(_) => unreachable!("a shard has no totals"),
        Pushed::Displaced { value, .. } => Some(Answer::Displaced(value.number)),
        Pushed::Evicted { key, items } => Some(Answer::Evicted(key, numbers(items))),
        Pushed::Rejected { reason, key, value, .. } => {
            Some(Answer::Rejected(reason, key, value.number))
        }
    }
}

fn rows(rows: impl IntoIterator<Item = (u8, Items<Token>)>) -> Answer {
    let rows = rows.into_iter().map(|(key, items)| (key, numbers(items)));
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    Answer::Rows(rows)
}

type Checkouts<'a> = HashMap<u8, ShardedCheckout<'a, u8, Token>>;

fn apply<'a>(
    map: &'a Map,
    start: Instant,
    out: &mut Checkouts<'a>,
    operation: &Operation,
    token: impl Fn(u32) -> Token,
) -> Vec<Answer> {
    match *operation {
        Operation::Push { key } => {
            // Without a time to live the time is not used, so that both ways in are.
            let pushed = match map.limits().time_to_live {
                Some(_) => map.push_entry(Entry::new(key, token(0)).at(start)),
                None => map.push(key, token(0)),
            };
            answer(pushed).into_iter().collect()
        }
        Operation::Extend(ref keys) => {
            let mut answers = Vec::new();
            let items = (0..).zip(keys).map(|(more, key)| (*key, token(more)));
            let stored = map.extend(items, |pushed| answers.extend(answer(pushed)));
            let rejected = answers.iter().filter(|a| matches!(a, Answer::Rejected(..))).count();
            assert_eq!(stored + rejected, keys.len());
            answers
        }
        Operation::Take { key } => vec![Answer::Items(numbers(map.take(&key)))],
        Operation::Promote { key } => {
            let promoted = map.promote(&key);
            assert_eq!(map.contains(&key), promoted);
            vec![Answer::Is(promoted)]
        }
        Operation::RemoveIf { key, remainder } => {
            let gone = map.remove_if(&key, |token| token.number % 3 == remainder);
            vec![Answer::Items(numbers(gone))]
        }
        Operation::Retain { remainder } => {
            let mut gone = Vec::new();
            let keep = |_: &u8, token: &Token| token.number % 3 == remainder;
            map.retain(keep, |key, items| gone.push((key, items)));
            vec![rows(gone)]
        }
        Operation::CheckOut { key } => {
            let checkout = map.checkout(&key);
            let numbers = checkout.iter().flat_map(|checkout| checkout.iter());
            let numbers = numbers.map(|token| token.number).collect();
            out.extend(checkout.map(|checkout| (key, checkout)));
            vec![Answer::Items(numbers)]
        }
        Operation::Acknowledge { key } => {
            let token = out.get_mut(&key).and_then(ShardedCheckout::acknowledge);
            vec![Answer::Items(token.map(|token| token.number).into_iter().collect())]
        }
        Operation::PutBack { key } => {
            drop(out.remove(&key));
            Vec::new()
        }
        Operation::Expire { .. } => unreachable!("looked at by itself"),
        Operation::Clear => vec![rows(map.clear().into_iter().flatten())],
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = || 0..12_u8;
    prop_oneof![
        24 => key().prop_map(|key| Operation::Push { key }),
        1 => prop::collection::vec(key(), 0..6).prop_map(Operation::Extend),
        2 => key().prop_map(|key| Operation::Take { key }),
        2 => key().prop_map(|key| Operation::Promote { key }),
        3 => (key(), 0..3_u32).prop_map(|(key, remainder)| Operation::RemoveIf { key, remainder }),
        1 => (0..3_u32).prop_map(|remainder| Operation::Retain { remainder }),
        8 => key().prop_map(|key| Operation::CheckOut { key }),
        3 => key().prop_map(|key| Operation::Acknowledge { key }),
        6 => key().prop_map(|key| Operation::PutBack { key }),
        1 => (0..5_usize).prop_map(|limit| Operation::Expire { limit }),
        1 => Just(Operation::Clear),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    let full_key = prop_oneof![3 => Just(FullKey::DisplaceOldest), 1 => Just(FullKey::RejectNew)];
    let full_map = prop_oneof![
        4 => Just(FullMap::EvictLeastRecentlyUsed),
        1 => Just(FullMap::RejectNewKey),
    ];
    (full_key, full_map, any::<bool>(), any::<bool>()).prop_map(
        |(full_key, full_map, expires, observed)| Options { full_key, full_map, expires, observed },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// The caps are exact, nothing is evicted or refused while the map is not full, nothing is
    /// lost.
    #[test]
    fn shards_share_one_limit(
        shards in 1..5_usize,
        options in options(),
        operations in prop::collection::vec(operation(), 0..150),
    ) {
        let builder = BoundedArrayMap::builder().max_keys(MAX_KEYS).max_items_per_key(MAX_PER_KEY);
        let mut builder = builder.full_key(options.full_key).full_map(options.full_map);
        if options.expires {
            builder = builder.time_to_live(TTL);
        }
        let events = Arc::new(AtomicUsize::new(0));
        let heard = Arc::clone(&events);
        let mut map: Map = builder.build_sharded(shards).unwrap();
        if options.observed {
            map = map.with_observer(move |_| {
                heard.fetch_add(1, Ordering::Relaxed);
            });
        }
        let (start, alive) = (Instant::now(), Arc::new(()));
        let mut model = Model { map: &map, options, keys: Vec::new(), pushed: 0, heard: 0 };
        let mut out = HashMap::new();
        for (turn, operation) in (0..).zip(operations) {
            let number = 10 * turn;
            if let Operation::Expire { limit } = operation {
                let gone = map.expire(start + 2 * TTL, limit);
                let gone: Vec<u32> = gone.into_iter().map(|gone| gone.value.number).collect();
                model.expired(&gone, limit);
            } else {
                let token = |more| Token { number: number + more, _alive: Arc::clone(&alive) };
                let answers = apply(&map, start, &mut out, &operation, token);
                prop_assert_eq!(answers, model.apply(&operation, number), "{:?}", operation);
            }

            #[cfg(debug_assertions)]
            map.validate();
            let stats = map.stats();
            prop_assert_eq!((map.len(), stats.keys), (model.keys.len(), model.keys.len()));
            prop_assert_eq!((map.total_items(), stats.items), (model.items(), model.items()));
            let left = stats.taken + stats.displaced + stats.evicted + stats.rejected
                + stats.expired + stats.removed;
            prop_assert_eq!(stats.pushed, stats.items as u64 + left, "conservation");
            prop_assert_eq!(stats.pushed, model.pushed);
            prop_assert_eq!(events.load(Ordering::Relaxed), model.heard);
            prop_assert_eq!(Arc::strong_count(&alive) - 1, stats.items);
        }
        drop(out);
        let left: usize = map.clear().into_iter().flatten().map(|(_, items)| items.len()).sum();
        prop_assert_eq!(left, model.items());
        prop_assert!(map.is_empty());
        prop_assert_eq!(Arc::strong_count(&alive), 1);
    }
}
