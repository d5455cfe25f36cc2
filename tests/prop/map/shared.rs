//! The shared forms against the plain map, whose own reference is in `prop_map*.rs`: whatever is
//! done to both, they answer the same, tell the observer of it, and hold the same.
//!
//! What the user gave is made to panic now and then: `Hash`, `Eq`, `Clone` and `Drop` of keys and
//! ids, the weigher, predicates, the observer. It either stops an operation before that has done
//! anything, or costs nothing.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::pushed::each;
use proptest::prelude::*;
use sluicegate::map::{Builder, Entry, Event, Items, Resize};
use sluicegate::{BoundedArrayMap, FullKey, FullMap, Pushed, SharedBoundedArrayMap};

thread_local! {
    /// After how many more calls of user code the next one panics; `None`: never.
    static CALLS: Cell<Option<u8>> = const { Cell::new(None) };
    /// The same of destructors.
    static DROPS: Cell<Option<u8>> = const { Cell::new(None) };
}

struct UserPanic;

fn burn(fuse: &Cell<Option<u8>>) {
    match fuse.get() {
        Some(0) => {
            fuse.set(None);
            // Unlike `panic!`, this prints nothing.
            panic::resume_unwind(Box::new(UserPanic));
        }
        Some(left) => fuse.set(Some(left - 1)),
        None => {}
    }
}

/// A key or an id whose hashes collide.
#[derive(Debug)]
struct Name(u8, Arc<()>);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        CALLS.with(burn);
        (self.0 % 3).hash(state);
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        CALLS.with(burn);
        self.0 == other.0
    }
}

impl Eq for Name {}

impl Clone for Name {
    fn clone(&self) -> Self {
        CALLS.with(burn);
        Self(self.0, Arc::clone(&self.1))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        DROPS.with(burn);
    }
}

#[derive(Debug)]
struct Token {
    number: u32,
    weight: u64,
    _alive: Arc<()>,
}

type Plain = BoundedArrayMap<u8, (u32, u64), u8>;
type Shared = SharedBoundedArrayMap<Name, Token, Name>;

#[derive(Debug, Clone, Copy)]
struct Limits {
    max_keys: usize,
    max_per_key: usize,
    max_items: usize,
    max_weight: u64,
    full_key: FullKey,
    full_map: FullMap,
}

const TTL: Duration = Duration::from_secs(20);

impl Limits {
    fn builder<K, V>(self) -> Builder<K, V> {
        BoundedArrayMap::builder()
            .max_keys(self.max_keys)
            .max_items_per_key(self.max_per_key)
            .full_key(self.full_key)
            .full_map(self.full_map)
            .time_to_live(TTL)
    }
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Push { now: u64, key: u8, id: Option<u8>, weight: u64 },
    RemoveById { id: u8 },
    Take { key: u8 },
    Promote { key: u8 },
    RemoveIf { key: u8, remainder: u32 },
    Retain { remainder: u32 },
    CheckOut { key: u8, acknowledged: usize },
    Expire { now: u64, limit: usize },
    Resize { max_keys: usize, max_per_key: usize },
    ResizeItems { max_items: usize },
    ResizeWeight { max_weight: u64 },
    Clear,
}

/// Values with their ids.
type Numbers = Vec<(u32, Option<u8>)>;
type Row = (u8, Numbers);

#[derive(Debug, PartialEq)]
enum Answer {
    Displaced(u32, Option<u8>),
    Evicted(Row),
    Rejected(String, u8, u32, Option<u8>),
    Items(Numbers),
    Rows(Vec<Row>),
    Expired(u8, u32, Option<u8>),
    Is(bool),
    Refused(&'static str),
}

/// What one map answers in its own types, in numbers.
macro_rules! answers {
    ($map:expr, $operation:expr, $start:expr, $name:expr, $value:expr, $name_of:expr,
     $number_of:expr) => {{
        let (map, start, name_of, number_of) = ($map, $start, $name_of, $number_of);
        let items = |items: Items<_, _>| -> Numbers {
            items
                .with_ids()
                .map(|(value, id)| (number_of(&value), id.as_ref().map(name_of)))
                .collect()
        };
        let rows = |all: Vec<(_, Items<_, _>)>| -> Answer {
            Answer::Rows(all.into_iter().map(|(key, gone)| (name_of(&key), items(gone))).collect())
        };
        let mut answers = Vec::new();
        match $operation {
            Operation::Push { now, key, id, weight } => {
                let now = start + Duration::from_secs(now);
                let (key, id, value) = ($name(key), id.map($name), $value(weight));
                let entry = Entry::new(key, value).at(now);
                let entry = match id {
                    Some(id) => entry.id(id),
                    None => entry,
                };
                let pushed = armed(|| map.push_entry(entry));
                answers.extend(each(pushed).into_iter().map(|pushed| match pushed {
                    Pushed::Stored | Pushed::Several(_) => unreachable!("taken apart"),
                    Pushed::Displaced { value, id } => {
                        Answer::Displaced(number_of(&value), id.as_ref().map(name_of))
                    }
                    Pushed::Evicted { key, items: gone } => {
                        Answer::Evicted((name_of(&key), items(gone)))
                    }
                    Pushed::Rejected { reason, key, value, id } => {
                        let id = id.as_ref().map(name_of);
                        Answer::Rejected(reason.to_string(), name_of(&key), number_of(&value), id)
                    }
                }));
            }
            Operation::RemoveById { id } => {
                let id = $name(id);
                let gone = armed(|| map.remove_by_id(&id));
                let gone =
                    gone.map(|(key, value)| (name_of(&key), vec![(number_of(&value), None)]));
                answers.push(Answer::Rows(gone.into_iter().collect()));
            }
            Operation::Take { key } => {
                let key = $name(key);
                answers.push(Answer::Items(items(armed(|| map.take(&key)))));
            }
            Operation::Promote { .. } | Operation::Retain { .. } => {
                unreachable!("the two maps have them in different forms")
            }
            Operation::RemoveIf { key, remainder } => {
                let key = $name(key);
                let gone = armed(|| {
                    map.remove_if(&key, |value| {
                        CALLS.with(burn);
                        number_of(value) % 3 == remainder
                    })
                });
                answers.push(Answer::Items(items(gone)));
            }
            Operation::CheckOut { key, acknowledged } => {
                let key = $name(key);
                if let Some(mut guard) = armed(|| map.checkout(&key)) {
                    let gone = (0..acknowledged).map_while(|_| armed(|| guard.acknowledge()));
                    let gone = gone.map(|value| (number_of(&value), None)).collect();
                    answers.push(Answer::Items(gone));
                    armed(|| drop(guard));
                }
            }
            Operation::Expire { now, limit } => {
                let gone = armed(|| map.expire(start + Duration::from_secs(now), limit));
                answers.extend(gone.into_iter().map(|gone| {
                    let id = gone.id.as_ref().map(name_of);
                    Answer::Expired(name_of(&gone.key), number_of(&gone.value), id)
                }));
            }
            Operation::Resize { max_keys, max_per_key } => {
                answers.extend(
                    match armed(|| {
                        map.resize(Resize::new().max_keys(max_keys).max_items_per_key(max_per_key))
                    }) {
                        Ok(shrunk) => vec![rows(shrunk.evicted), rows(shrunk.displaced)],
                        Err(error) => vec![Answer::Refused(error.field())],
                    },
                );
            }
            Operation::ResizeItems { max_items } => {
                answers.extend(match armed(|| map.resize(Resize::new().max_items(max_items))) {
                    Ok(shrunk) => vec![rows(shrunk.evicted), rows(shrunk.displaced)],
                    Err(error) => vec![Answer::Refused(error.field())],
                });
            }
            Operation::ResizeWeight { max_weight } => {
                answers.extend(match armed(|| map.resize(Resize::new().max_weight(max_weight))) {
                    Ok(shrunk) => vec![rows(shrunk.evicted), rows(shrunk.displaced)],
                    Err(error) => vec![Answer::Refused(error.field())],
                });
            }
            Operation::Clear => answers.push(rows(armed(|| map.clear()).collect())),
        }
        answers
    }};
}

thread_local! {
    /// What is to be armed while the map is at work, and at no other time.
    static ARMED: Cell<(Option<u8>, Option<u8>)> = const { Cell::new((None, None)) };
}

fn armed<R>(call: impl FnOnce() -> R) -> R {
    struct Disarm;
    impl Drop for Disarm {
        fn drop(&mut self) {
            ARMED.set((CALLS.take(), DROPS.take()));
        }
    }
    let (calls, drops) = ARMED.take();
    CALLS.set(calls);
    let _disarm = Disarm;
    DROPS.set(drops);
    call()
}

/// The keys of the shared map come in no particular order.
fn sorted(mut rows: Vec<Row>, panicked: bool) -> Vec<Answer> {
    rows.sort();
    vec![Answer::Rows(rows), Answer::Is(panicked)]
}

fn of_plain(map: &mut Plain, operation: Operation, start: Instant, number: u32) -> Vec<Answer> {
    match operation {
        Operation::Promote { key } => vec![Answer::Is(map.get(&key).is_some())],
        Operation::Retain { remainder } => {
            let gone = map.retain(|_, value| value.0 % 3 != remainder).into_iter();
            let numbers = |items: Items<(u32, u64), u8>| -> Numbers {
                items.with_ids().map(|(value, id)| (value.0, id)).collect()
            };
            sorted(gone.map(|(key, items)| (key, numbers(items))).collect(), false)
        }
        _ => answers!(
            map,
            operation,
            start,
            |name: u8| name,
            |weight| (number, weight),
            |name: &u8| *name,
            |value: &(u32, u64)| value.0
        ),
    }
}

struct Counted {
    names: Arc<()>,
    tokens: Arc<()>,
}

/// What the shared map answers. `Is(true)` after a `retain` says that a predicate panicked.
fn of_shared(
    map: &Shared,
    operation: Operation,
    start: Instant,
    number: u32,
    counted: &Counted,
) -> Vec<Answer> {
    match operation {
        Operation::Promote { key } => {
            let key = Name(key, Arc::clone(&counted.names));
            vec![Answer::Is(armed(|| map.promote(&key)))]
        }
        Operation::Retain { remainder } => {
            let mut gone = Vec::new();
            let keep = |_: &Name, token: &Token| {
                CALLS.with(burn);
                token.number % 3 != remainder
            };
            let sink = |key, items| gone.push((key, items));
            let retain = AssertUnwindSafe(|| armed(|| map.retain(keep, sink)));
            let panicked = match panic::catch_unwind(retain) {
                Ok(()) => false,
                Err(panicked) if panicked.is::<UserPanic>() => true,
                Err(panicked) => panic::resume_unwind(panicked),
            };
            let numbers = |items: Items<Token, Name>| -> Numbers {
                items.with_ids().map(|(token, id)| (token.number, id.map(|id| id.0))).collect()
            };
            sorted(gone.into_iter().map(|(key, items)| (key.0, numbers(items))).collect(), panicked)
        }
        _ => answers!(
            map,
            operation,
            start,
            |name: u8| Name(name, Arc::clone(&counted.names)),
            |weight| Token { number, weight, _alive: Arc::clone(&counted.tokens) },
            |name: &Name| name.0,
            |value: &Token| value.number
        ),
    }
}

const KEYS: u8 = 6;
const IDS: u8 = 8;

fn operation() -> impl Strategy<Value = Operation> {
    let key = || 0..KEYS;
    let sizes = (1..6_usize, 1..6_usize);
    prop_oneof![
        24 => (0..60_u64, key(), prop::option::weighted(0.7, 0..IDS), 0..9_u64)
            .prop_map(|(now, key, id, weight)| Operation::Push { now, key, id, weight }),
        2 => (0..IDS).prop_map(|id| Operation::RemoveById { id }),
        1 => key().prop_map(|key| Operation::Take { key }),
        2 => key().prop_map(|key| Operation::Promote { key }),
        3 => (key(), 0..3_u32).prop_map(|(key, remainder)| Operation::RemoveIf { key, remainder }),
        2 => (0..3_u32).prop_map(|remainder| Operation::Retain { remainder }),
        2 => (key(), 0..4_usize)
            .prop_map(|(key, acknowledged)| Operation::CheckOut { key, acknowledged }),
        2 => (0..80_u64, 0..6_usize).prop_map(|(now, limit)| Operation::Expire { now, limit }),
        1 => sizes.prop_map(|(max_keys, max_per_key)| Operation::Resize { max_keys, max_per_key }),
        1 => (1..20_usize).prop_map(|max_items| Operation::ResizeItems { max_items }),
        1 => (0..30_u64).prop_map(|max_weight| Operation::ResizeWeight { max_weight }),
        1 => Just(Operation::Clear),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let full_key = prop_oneof![3 => Just(FullKey::DisplaceOldest), 1 => Just(FullKey::RejectNew)];
    let full_map = prop_oneof![
        3 => Just(FullMap::EvictLeastRecentlyUsed),
        1 => Just(FullMap::RejectNewKey),
    ];
    (1..6_usize, 1..6_usize, 0..12_usize, 1..30_u64, full_key, full_map).prop_map(
        |(max_keys, max_per_key, more, max_weight, full_key, full_map)| {
            let max_items = max_per_key + more;
            Limits { max_keys, max_per_key, max_items, max_weight, full_key, full_map }
        },
    )
}

/// What the observer hears of an answer.
fn heard(answers: &[Answer], operation: Operation) -> usize {
    let items = |rows: &Answer| match rows {
        Answer::Rows(rows) => rows.iter().map(|(_, items)| items.len()).sum(),
        _ => 0,
    };
    match operation {
        Operation::Resize { .. }
        | Operation::ResizeItems { .. }
        | Operation::ResizeWeight { .. } => match answers {
            [Answer::Rows(evicted), displaced] => evicted.len() + items(displaced),
            _ => 0,
        },
        Operation::Push { .. } | Operation::Expire { .. } => answers.len(),
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_shared_map_does_what_the_plain_one_does(
        limits in limits(),
        operations in prop::collection::vec(
            (operation(), prop::option::weighted(0.2, 0..12_u8), prop::option::weighted(0.2, 0..4_u8)),
            0..120,
        ),
    ) {
        let Limits { max_items, max_weight, .. } = limits;
        let plain = limits.builder().indexed().max_items(max_items);
        let mut plain: Plain =
            plain.max_weight(max_weight, |_: &u8, value: &(u32, u64)| value.1).build().unwrap();
        let events = Arc::new(AtomicUsize::new(0));
        let heard_of = Arc::clone(&events);
        let shared = limits.builder().indexed().max_items(max_items);
        let weigh = |_: &Name, token: &Token| {
            CALLS.with(burn);
            token.weight
        };
        let shared: Shared = shared.max_weight(max_weight, weigh).build_shared().unwrap();
        let shared = shared.with_observer(move |_: Event<'_, Name, Token, Name>| {
            heard_of.fetch_add(1, Ordering::Relaxed);
            CALLS.with(burn);
        });

        let start = Instant::now();
        let counted = Counted { names: Arc::default(), tokens: Arc::default() };
        for (number, (operation, calls, drops)) in (0..).zip(operations) {
            // Not both at once: a destructor that panics while another panic passes ends all.
            ARMED.set((calls, drops.filter(|_| calls.is_none())));
            let (before, panics) = (events.load(Ordering::Relaxed), shared.observer_panics());
            let answered = panic::catch_unwind(AssertUnwindSafe(|| {
                of_shared(&shared, operation, start, number, &counted)
            }));
            ARMED.set((None, None));
            let panics = shared.observer_panics() - panics;
            prop_assert!(panics <= 1);
            match answered {
                Ok(answers) if answers.last() == Some(&Answer::Is(true))
                    && matches!(operation, Operation::Retain { .. }) =>
                {
                    // What was handed over has left, and nothing else.
                    let Answer::Rows(gone) = &answers[0] else { unreachable!() };
                    for (key, items) in gone {
                        let numbers: Vec<u32> = items.iter().map(|(number, _)| *number).collect();
                        let left = plain.remove_if(key, |value| numbers.contains(&value.0));
                        prop_assert_eq!(left.map(|value| value.0).collect::<Vec<_>>(), numbers);
                    }
                }
                Ok(answers) => {
                    let expected = of_plain(&mut plain, operation, start, number);
                    prop_assert_eq!(&answers, &expected, "{:?}", operation);
                    let heard_now = events.load(Ordering::Relaxed) - before;
                    prop_assert_eq!(heard_now, heard(&answers, operation));
                }
                // It has stopped the operation before that did anything.
                Err(panicked) if panicked.is::<UserPanic>() => {}
                Err(panicked) => panic::resume_unwind(panicked),
            }

            #[cfg(debug_assertions)]
            shared.validate();
            let stats = shared.stats();
            prop_assert_eq!(stats, plain.stats());
            let left = stats.taken + stats.displaced + stats.evicted + stats.rejected
                + stats.expired + stats.removed;
            prop_assert_eq!(stats.pushed, stats.items as u64 + left, "conservation");
            let keys: Vec<u8> = shared.keys().into_iter().map(|name| name.0).collect();
            prop_assert_eq!(keys, plain.keys().copied().collect::<Vec<_>>(), "order of use");
            prop_assert_eq!(shared.next_expiry(), plain.next_expiry());
            let mut with_id = 0;
            for id in 0..IDS {
                let resident = plain.contains_id(&id);
                with_id += usize::from(resident);
                let name = Name(id, Arc::clone(&counted.names));
                prop_assert_eq!(shared.contains_id(&name), resident);
            }
            // Nothing is kept that has left, nothing has left that is kept: of ids, too.
            prop_assert_eq!(Arc::strong_count(&counted.tokens) - 1, stats.items);
            prop_assert_eq!(Arc::strong_count(&counted.names) - 1, stats.keys + with_id);
        }

        let inner = shared.into_inner();
        prop_assert_eq!(inner.stats(), plain.stats());
        let rows = inner.iter().map(|(key, items)| {
            (key.0, items.iter().map(|token| token.number).collect::<Vec<_>>())
        });
        let expected = plain.iter().map(|(key, items)| {
            (*key, items.iter().map(|value| value.0).collect::<Vec<_>>())
        });
        prop_assert_eq!(rows.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        drop(inner);
        prop_assert_eq!(Arc::strong_count(&counted.tokens), 1);
        prop_assert_eq!(Arc::strong_count(&counted.names), 1);
    }
}
