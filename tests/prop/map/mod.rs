//! `BoundedArrayMap` against a reference so plain that it is obviously right: a vector of keys in
//! order of use, each with a vector of items.
//!
//! Every operation is done to both, and both must answer the same. User code (`Hash`, `Eq`,
//! `Clone`) is made to panic at its nth call now and then: the map must then be as it was.

mod checkout;
mod limits;
mod sharded;
mod shared;

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluicegate::map::{Entry, MapStats};
use sluicegate::{BoundedArrayMap, FullKey, FullMap, Pushed, RejectReason};

thread_local! {
    /// After how many more calls of user code the next one panics; `None`: never.
    static FUSE: Cell<Option<u8>> = const { Cell::new(None) };
}

struct UserPanic;

fn burn() {
    match FUSE.get() {
        Some(0) => {
            FUSE.set(None);
            // Unlike `panic!`, this prints nothing.
            panic::resume_unwind(Box::new(UserPanic));
        }
        Some(left) => FUSE.set(Some(left - 1)),
        None => {}
    }
}

/// A key or an id: its hashes collide, its user code may panic, and `alive` counts its copies.
#[derive(Debug)]
struct Name {
    number: u8,
    alive: Rc<()>,
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        burn();
        (self.number % 3).hash(state);
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        burn();
        self.number == other.number
    }
}

impl Eq for Name {}

impl Clone for Name {
    fn clone(&self) -> Self {
        burn();
        Self { number: self.number, alive: Rc::clone(&self.alive) }
    }
}

#[derive(Debug)]
struct Token {
    number: u32,
    _alive: Rc<()>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    max_keys: usize,
    max_items: usize,
    full_key: FullKey,
    full_map: FullMap,
    time_to_live: Option<u64>,
}

/// Times are seconds since the start, and go backwards as often as not.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Push {
        now: u64,
        key: u8,
    },
    PushUnique {
        now: u64,
        key: u8,
        id: u8,
    },
    RemoveById {
        id: u8,
    },
    Take {
        key: u8,
    },
    Get {
        key: u8,
    },
    Peek {
        key: u8,
    },
    Expire {
        now: u64,
        limit: usize,
    },
    Clear,
    /// Has the user code of the next operation panic.
    Fuse(u8),
}

/// Items by the numbers of their values and ids.
type Numbers = Vec<(u32, Option<u8>)>;

/// What an operation answered, in numbers.
#[derive(Debug, PartialEq)]
enum Answer {
    Stored,
    Displaced(u32, Option<u8>),
    Evicted(u8, Numbers),
    Rejected(RejectReason, u8, u32, Option<u8>),
    Removed(Option<(u8, u32)>),
    Items(Numbers),
    Values(Option<Vec<u32>>),
    Expired(Vec<(u8, u32, Option<u8>)>),
    Cleared(Vec<(u8, Numbers)>),
}

#[derive(Debug, Clone, PartialEq)]
struct Item {
    value: u32,
    id: Option<u8>,
    arrived: u64,
    /// Its position in the order of arrival.
    turn: u32,
}

struct Model {
    limits: Limits,
    /// Least recently used first.
    keys: Vec<(u8, Vec<Item>)>,
    stats: MapStats,
}

impl Model {
    fn items(&self) -> impl Iterator<Item = &Item> {
        self.keys.iter().flat_map(|(_, items)| items)
    }

    fn position(&self, key: u8) -> Option<usize> {
        self.keys.iter().position(|(known, _)| *known == key)
    }

    fn has_id(&self, id: u8) -> bool {
        self.items().any(|item| item.id == Some(id))
    }

    fn is_due(&self, item: &Item, now: u64) -> bool {
        self.limits.time_to_live.is_some_and(|time_to_live| item.arrived + time_to_live <= now)
    }

    fn next_expiry(&self) -> Option<u64> {
        let oldest = self.items().map(|item| item.arrived).min()?;
        Some(oldest + self.limits.time_to_live?)
    }

    fn push(&mut self, now: u64, key: u8, value: u32, id: Option<u8>) -> Answer {
        self.stats.pushed += 1;
        let found = self.position(key);
        let duplicate = id.is_some_and(|id| self.has_id(id));
        let key_full = found.is_some_and(|at| self.keys[at].1.len() == self.limits.max_items);
        let map_full = found.is_none() && self.keys.len() == self.limits.max_keys;
        let reason = if duplicate {
            Some(RejectReason::Duplicate)
        } else if key_full && self.limits.full_key == FullKey::RejectNew {
            Some(RejectReason::KeyFull)
        } else if map_full && self.limits.full_map == FullMap::RejectNewKey {
            Some(RejectReason::MapFull)
        } else {
            None
        };
        if let Some(reason) = reason {
            self.stats.rejected += 1;
            self.stats.duplicates += u64::from(duplicate);
            return Answer::Rejected(reason, key, value, id);
        }

        let mut answer = Answer::Stored;
        let mut items = found.map_or(Vec::new(), |at| self.keys.remove(at).1);
        if key_full {
            let item = items.remove(0);
            self.stats.displaced += 1;
            answer = Answer::Displaced(item.value, item.id);
        }
        if map_full {
            let (key, items) = self.keys.remove(0);
            self.stats.evicted += items.len() as u64;
            self.stats.evicted_keys += 1;
            answer = Answer::Evicted(key, numbers(&items));
        }
        let newest = self.items().chain(&items).map(|item| item.arrived).max();
        let arrived = newest.map_or(now, |newest| newest.max(now));
        items.push(Item { value, id, arrived, turn: value });
        self.keys.push((key, items));
        self.stats.peak_keys = self.stats.peak_keys.max(self.keys.len());
        self.stats.peak_items = self.stats.peak_items.max(self.items().count());
        answer
    }

    fn remove(&mut self, turn: u32) -> (u8, Item) {
        let at = self
            .keys
            .iter()
            .position(|(_, items)| items.iter().any(|item| item.turn == turn))
            .expect("it is resident");
        let (key, items) = &mut self.keys[at];
        let key = *key;
        let place = items.iter().position(|item| item.turn == turn).expect("it is here");
        let item = items.remove(place);
        if items.is_empty() {
            self.keys.remove(at);
        }
        (key, item)
    }

    fn apply(&mut self, operation: Operation, value: u32) -> Answer {
        match operation {
            Operation::Push { now, key } => self.push(now, key, value, None),
            Operation::PushUnique { now, key, id } => self.push(now, key, value, Some(id)),
            Operation::RemoveById { id } => {
                let turn = self.items().find(|item| item.id == Some(id)).map(|item| item.turn);
                self.stats.removed += u64::from(turn.is_some());
                Answer::Removed(turn.map(|turn| self.remove(turn)).map(|(k, i)| (k, i.value)))
            }
            Operation::Take { key } => {
                let items = self.position(key).map_or(Vec::new(), |at| self.keys.remove(at).1);
                self.stats.taken += items.len() as u64;
                Answer::Items(numbers(&items))
            }
            Operation::Get { key } => {
                if let Some(at) = self.position(key) {
                    let used = self.keys.remove(at);
                    self.keys.push(used);
                }
                self.apply(Operation::Peek { key }, value)
            }
            Operation::Peek { key } => {
                let values = |at: usize| self.keys[at].1.iter().map(|item| item.value).collect();
                Answer::Values(self.position(key).map(values))
            }
            Operation::Expire { now, limit } => {
                let mut due: Vec<_> =
                    self.items().filter(|item| self.is_due(item, now)).map(|i| i.turn).collect();
                due.sort_unstable();
                due.truncate(limit);
                self.stats.expired += due.len() as u64;
                let expired = due.into_iter().map(|turn| self.remove(turn));
                Answer::Expired(expired.map(|(key, item)| (key, item.value, item.id)).collect())
            }
            Operation::Clear => {
                self.stats.taken += self.items().count() as u64;
                let keys = self.keys.drain(..);
                Answer::Cleared(keys.map(|(key, items)| (key, numbers(&items))).collect())
            }
            Operation::Fuse(_) => unreachable!("not an operation on a map"),
        }
    }
}

fn numbers(items: &[Item]) -> Numbers {
    items.iter().map(|item| (item.value, item.id)).collect()
}

/// The map under test, with what it takes to count what it holds.
struct Subject {
    map: BoundedArrayMap<Name, Token, Name>,
    start: Instant,
    keys: Rc<()>,
    ids: Rc<()>,
    tokens: Rc<()>,
}

impl Subject {
    fn new(limits: Limits) -> Self {
        let mut builder = BoundedArrayMap::builder()
            .max_keys(limits.max_keys)
            .max_items_per_key(limits.max_items)
            .full_key(limits.full_key)
            .full_map(limits.full_map);
        if let Some(seconds) = limits.time_to_live {
            builder = builder.time_to_live(Duration::from_secs(seconds));
        }
        Self {
            map: builder.indexed().build().expect("the limits are good"),
            start: Instant::now(),
            keys: Rc::default(),
            ids: Rc::default(),
            tokens: Rc::default(),
        }
    }

    fn key(&self, number: u8) -> Name {
        Name { number, alive: Rc::clone(&self.keys) }
    }

    fn id(&self, number: u8) -> Name {
        Name { number, alive: Rc::clone(&self.ids) }
    }

    fn time(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn apply(&mut self, operation: Operation, value: u32) -> Answer {
        let token = Token { number: value, _alive: Rc::clone(&self.tokens) };
        match operation {
            Operation::Push { now, key } => {
                let (now, key) = (self.time(now), self.key(key));
                answer(self.map.push_entry(Entry::new(key, token).at(now)))
            }
            Operation::PushUnique { now, key, id } => {
                let (now, key, id) = (self.time(now), self.key(key), self.id(id));
                answer(self.map.push_entry(Entry::new(key, token).id(id).at(now)))
            }
            Operation::RemoveById { id } => {
                let id = self.id(id);
                let removed = self.map.remove_by_id(&id);
                Answer::Removed(removed.map(|(key, token)| (key.number, token.number)))
            }
            Operation::Take { key } => {
                let key = self.key(key);
                Answer::Items(collect(self.map.take(&key)))
            }
            Operation::Get { key } => {
                let key = self.key(key);
                let array = self.map.get(&key);
                Answer::Values(array.map(|array| array.iter().map(|t| t.number).collect()))
            }
            Operation::Peek { key } => {
                let key = self.key(key);
                let array = self.map.peek(&key);
                Answer::Values(array.map(|array| {
                    // Backwards here and forwards in `Get`, so that both ways are compared.
                    let mut values: Vec<_> = array.iter().rev().map(|t| t.number).collect();
                    values.reverse();
                    values
                }))
            }
            Operation::Expire { now, limit } => {
                let now = self.time(now);
                let expired = self.map.expire(now, limit);
                let number = |id: Name| id.number;
                Answer::Expired(
                    expired
                        .into_iter()
                        .map(|item| (item.key.number, item.value.number, item.id.map(number)))
                        .collect(),
                )
            }
            Operation::Clear => {
                let cleared = self.map.clear();
                Answer::Cleared(cleared.map(|(key, items)| (key.number, collect(items))).collect())
            }
            Operation::Fuse(_) => unreachable!("not an operation on a map"),
        }
    }

    /// Whatever can be seen of the map is as the model says.
    fn check(&self, model: &Model) {
        let (map, stats) = (&self.map, self.map.stats());
        #[cfg(debug_assertions)]
        map.validate();
        let left = stats.taken
            + stats.displaced
            + stats.evicted
            + stats.rejected
            + stats.expired
            + stats.removed;
        assert_eq!(stats.pushed, stats.items as u64 + left, "conservation");
        let mut expected = model.stats;
        expected.items = model.items().count();
        expected.keys = model.keys.len();
        assert_eq!(stats, expected);

        let lru: Vec<(u8, Vec<u32>)> = map
            .iter_lru()
            .map(|(key, array)| (key.number, array.into_iter().map(|t| t.number).collect()))
            .collect();
        let expected: Vec<(u8, Vec<u32>)> = model
            .keys
            .iter()
            .map(|(key, items)| (*key, items.iter().map(|item| item.value).collect()))
            .collect();
        assert_eq!(lru, expected, "order of use and order under each key");
        let mut keys: Vec<u8> = map.keys().map(|key| key.number).collect();
        keys.reverse();
        assert_eq!(keys, model.keys.iter().map(|(key, _)| *key).collect::<Vec<_>>());

        assert_eq!(map.len(), model.keys.len());
        assert_eq!(map.total_items(), model.items().count());
        assert_eq!(map.is_empty(), model.keys.is_empty());
        assert_eq!(map.next_expiry(), model.next_expiry().map(|at| self.time(at)));
        for number in 0..KEYS {
            assert_eq!(map.contains(&self.key(number)), model.position(number).is_some());
        }
        for number in 0..IDS {
            assert_eq!(map.contains_id(&self.id(number)), model.has_id(number), "index");
        }

        // Nothing is kept that has left, nothing has left that is kept.
        assert_eq!(Rc::strong_count(&self.tokens) - 1, model.items().count());
        assert_eq!(Rc::strong_count(&self.keys) - 1, model.keys.len());
        let with_id = model.items().filter(|item| item.id.is_some()).count();
        assert_eq!(Rc::strong_count(&self.ids) - 1, with_id);
    }
}

fn collect(items: sluicegate::map::Items<Token, Name>) -> Numbers {
    let len = items.len();
    let items: Vec<_> =
        items.with_ids().map(|(token, id)| (token.number, id.map(|id| id.number))).collect();
    assert_eq!(items.len(), len);
    items
}

fn answer(pushed: Pushed<Name, Token, Name>) -> Answer {
    assert_eq!(pushed.is_stored(), !matches!(pushed, Pushed::Rejected { .. }));
    let number = |id: Name| id.number;
    match pushed {
        Pushed::Stored => Answer::Stored,
        Pushed::Several(_) => unreachable!("the map has no totals"),
        Pushed::Displaced { value, id } => Answer::Displaced(value.number, id.map(number)),
        Pushed::Evicted { key, items } => Answer::Evicted(key.number, collect(items)),
        Pushed::Rejected { reason, key, value, id } => {
            Answer::Rejected(reason, key.number, value.number, id.map(number))
        }
    }
}

const KEYS: u8 = 7;
const IDS: u8 = 9;

fn limits() -> impl Strategy<Value = Limits> {
    let full_key = prop_oneof![Just(FullKey::DisplaceOldest), Just(FullKey::RejectNew)];
    let full_map = prop_oneof![Just(FullMap::EvictLeastRecentlyUsed), Just(FullMap::RejectNewKey)];
    let time_to_live = prop::option::weighted(0.8, 1..30_u64);
    (1..6_usize, 1..5_usize, full_key, full_map, time_to_live).prop_map(
        |(max_keys, max_items, full_key, full_map, time_to_live)| Limits {
            max_keys,
            max_items,
            full_key,
            full_map,
            time_to_live,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    let (time, key, id) = (|| 0..60_u64, || 0..KEYS, || 0..IDS);
    prop_oneof![
        8 => (time(), key()).prop_map(|(now, key)| Operation::Push { now, key }),
        8 => (time(), key(), id())
            .prop_map(|(now, key, id)| Operation::PushUnique { now, key, id }),
        3 => id().prop_map(|id| Operation::RemoveById { id }),
        2 => key().prop_map(|key| Operation::Take { key }),
        3 => key().prop_map(|key| Operation::Get { key }),
        1 => key().prop_map(|key| Operation::Peek { key }),
        3 => (time(), 0..6_usize).prop_map(|(now, limit)| Operation::Expire { now, limit }),
        1 => Just(Operation::Clear),
        4 => (0..12_u8).prop_map(Operation::Fuse),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_reference_does(
        limits in limits(),
        operations in prop::collection::vec(operation(), 0..120),
    ) {
        let mut model = Model { limits, keys: Vec::new(), stats: MapStats::default() };
        let mut subject = Subject::new(limits);
        let mut fuse = None;
        for (value, operation) in (0..).zip(operations) {
            if let Operation::Fuse(calls) = operation {
                fuse = Some(calls);
                continue;
            }
            FUSE.set(fuse.take());
            let answered =
                panic::catch_unwind(AssertUnwindSafe(|| subject.apply(operation, value)));
            FUSE.set(None);
            match answered {
                Ok(answered) => prop_assert_eq!(answered, model.apply(operation, value)),
                // It has stopped the operation before that did anything.
                Err(panicked) if panicked.is::<UserPanic>() => {}
                Err(panicked) => panic::resume_unwind(panicked),
            }
            subject.check(&model);
        }

        let Subject { map, keys, ids, tokens, .. } = subject;
        drop(map);
        prop_assert_eq!(Rc::strong_count(&tokens), 1);
        prop_assert_eq!(Rc::strong_count(&keys), 1);
        prop_assert_eq!(Rc::strong_count(&ids), 1);
    }

    /// Slice by slice a sweep hands over what one without a limit would, in the same order, and
    /// then nothing more.
    #[test]
    fn expiry_in_slices_converges(
        pushes in prop::collection::vec((0..60_u64, 0..KEYS), 0..60),
        now in 0..80_u64,
        limit in 1..10_usize,
    ) {
        let limits = Limits {
            max_keys: 5,
            max_items: 4,
            full_key: FullKey::DisplaceOldest,
            full_map: FullMap::EvictLeastRecentlyUsed,
            time_to_live: Some(10),
        };
        let (mut sliced, mut whole) = (Subject::new(limits), Subject::new(limits));
        for (value, (at, key)) in (0..).zip(pushes) {
            for subject in [&mut sliced, &mut whole] {
                subject.apply(Operation::Push { now: at, key }, value);
            }
        }
        let order = |subject: &Subject| -> Vec<u8> {
            subject.map.iter_lru().map(|(key, _)| key.number).collect()
        };
        let before = order(&sliced);

        let now = sliced.start + Duration::from_secs(now);
        let mut expired = Vec::new();
        loop {
            let slice = sliced.map.expire(now, limit);
            prop_assert!(slice.len() <= limit);
            if slice.is_empty() {
                break;
            }
            expired.extend(slice.into_iter().map(|item| item.value.number));
        }
        prop_assert!(sliced.map.next_expiry().is_none_or(|next| next > now));
        prop_assert!(sliced.map.expire(now, usize::MAX).is_empty());

        let shift = whole.start - sliced.start;
        let at_once = whole.map.expire(now + shift, usize::MAX);
        let at_once: Vec<_> = at_once.into_iter().map(|item| item.value.number).collect();
        prop_assert_eq!(expired, at_once);
        let after = order(&sliced);
        let still_there: Vec<u8> = before.into_iter().filter(|key| after.contains(key)).collect();
        prop_assert_eq!(after, still_there);
    }
}
