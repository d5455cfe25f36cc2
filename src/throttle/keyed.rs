//! A throttle for each key, with a bound on the keys.

use core::fmt;
use core::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::Instant;

use super::chunks::Chunks;
use super::clock::Epoch;
use super::error::{KeyedError, KeysBusy};
use super::heap::Heap;
use super::{Rate, ReserveError, Throttle, TooMany, TryAcquireError, Waiter};
use crate::ConfigError;
use crate::base::list::List;
use crate::base::slab::NONE;
use crate::base::sync::{HashBuilder, Mutex};
use crate::base::table::SlotTable;

#[cfg(feature = "tokio")]
use super::Acquire;

/// A [`Throttle`] for each key, each with the rate of its tier, for a bounded number of keys.
///
/// A key expires when nothing that it started counts any more. A new key that comes when there are
/// `max_keys` evicts one that has expired and is not in use, as a rule the one that expired first. To
/// evict such a key loses nothing, so that no key exceeds its rate by being evicted. If there is none,
/// the new key is refused. (Where more than 16 expired keys are in use, it may also be refused a few
/// times after one of them was released.) So `max_keys` is how many keys may be active within a
/// window; expired keys stay until they are evicted.
///
/// Do not use it where untrusted users choose the keys and may choose many: they could keep others
/// out.
///
/// A key keeps the rate that it came with until it is evicted, also if its tier changes; if the tier
/// is part of the key, as below, the same tenant in another tier is another key, with starts of its
/// own.
///
/// Instants need not be in order. But one before an evicted key expired could count again what was
/// counted for it: for that key, and a few others with a similar hash, it is refused.
///
/// Fairness is that of [`Throttle`] within a key; keys have nothing to do with each other.
///
/// ```
/// use std::time::{Duration, Instant};
/// use sluicegate::{KeyedThrottle, throttle::Rate};
///
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct Tenant {
///     id: u64,
///     pays: bool,
/// }
///
/// let minute = Duration::from_secs(60);
/// let (free, paid) = (Rate::sliding(100, minute)?, Rate::sliding(2_000, minute)?);
/// let tenants = KeyedThrottle::new(10_000, move |tenant: &Tenant| {
///     if tenant.pays { paid } else { free }
/// })?;
///
/// let (tenant, now) = (Tenant { id: 7, pays: false }, Instant::now());
/// assert!((0..100).all(|_| tenants.try_acquire_at(&tenant, 1, now).is_ok()));
/// assert!(tenants.try_acquire_at(&tenant, 1, now).is_err());
/// # Ok::<(), sluicegate::ConfigError>(())
/// ```
///
/// # How it is built
///
/// Tables of keys and heaps of the instants at which they expire, under one lock. It is held to find a
/// key, and never while a waiter waits. A key in use is shared with its users, and what is shared is
/// not evicted. No operation is linear in the keys: each looks at a few of them, in O(log keys), and
/// what grows does so in parts.
pub struct KeyedThrottle<K> {
    keys: Mutex<Keys<K>>,
    /// Of all its throttles, too.
    epoch: Epoch,
    max_keys: usize,
    hasher: HashBuilder,
    rate: Box<RateOf<K>>,
}

type RateOf<K> = dyn Fn(&K) -> Rate + Send + Sync;

/// Locks are taken in this order: that of the keys, then that of a throttle.
struct Keys<K> {
    entries: Chunks<Entry<K>>,
    /// Each has a part of the keys by their hashes, so that it is small: a table moves all that it
    /// holds when it grows.
    tables: Box<[SlotTable]>,
    /// The keys that are not in use, by when they expire. This is exact: every user of a key has
    /// looked it up, and the key that was looked up last is classified before another one is.
    idle: Heap,
    /// Other keys, by an instant before which they do not expire.
    in_use: Heap,
    /// Expired keys that were in use when they were last checked, the longest ago first.
    held: List,
    /// The key that was looked up last, unless it is classified.
    looked_up: u32,
    /// By hash: from then on nothing counts any more that an evicted key has started.
    evicted_until: Box<[u64]>,
}

struct Entry<K> {
    key: K,
    hash: u64,
    throttle: Arc<Throttle>,
    /// It may have been here before, and nothing is known of what it started until then.
    known_from: u64,
}

/// The throttle of a key, or until when there is none to be had.
type Found = Result<Arc<Throttle>, Option<u64>>;

/// How many keys a table has on average when all are there, unless there are many tables.
const KEYS_PER_TABLE: usize = 512;

const MAX_TABLES: usize = 4096;

/// How many instants are kept for the keys that were evicted.
const MAX_EVICTED: usize = 4096;

/// How many keys in use are checked, whether they still are, for one new key: if there are more, the
/// next new key checks the others.
const CHECKS: usize = 16;

impl<K: Eq + Hash + Clone> KeyedThrottle<K> {
    /// At most `max_keys` keys, each with the rate that `rate` gives when it comes new.
    ///
    /// # Errors
    ///
    /// `max_keys` must be from 1 to 2^32 − 1.
    pub fn new(
        max_keys: usize,
        rate: impl Fn(&K) -> Rate + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        if max_keys == 0 || u32::try_from(max_keys).is_err() {
            return Err(ConfigError::new("max_keys", max_keys, "from 1 to 4294967295"));
        }
        let (keys, epoch) = (Mutex::new(Keys::new(max_keys)), Epoch::now());
        Ok(Self { keys, epoch, max_keys, hasher: HashBuilder::default(), rate: Box::new(rate) })
    }

    /// [`Throttle::reserve`] for a key.
    ///
    /// # Errors
    ///
    /// [`KeyedError::Busy`] if there is no room for the key; otherwise those of
    /// [`Throttle::reserve`].
    ///
    /// # Complexity
    ///
    /// That of [`Throttle::reserve`], and O(log keys) to find the key, to add it or to refuse it.
    pub fn reserve(
        &self,
        key: &K,
        n: u32,
        now: Instant,
    ) -> Result<Instant, KeyedError<ReserveError>> {
        self.throttle(key, now)?.reserve(n, now).map_err(KeyedError::Refused)
    }

    /// [`Throttle::try_acquire_at`] for a key.
    ///
    /// # Errors
    ///
    /// [`KeyedError::Busy`] if there is no room for the key; otherwise those of
    /// [`Throttle::try_acquire_at`].
    ///
    /// # Complexity
    ///
    /// That of [`reserve`](Self::reserve).
    pub fn try_acquire_at(
        &self,
        key: &K,
        n: u32,
        now: Instant,
    ) -> Result<(), KeyedError<TryAcquireError>> {
        self.throttle(key, now)?.try_acquire_at(n, now).map_err(KeyedError::Refused)
    }

    /// [`Throttle::enqueue`] for a key.
    ///
    /// # Errors
    ///
    /// [`KeyedError::Busy`] if there is no room for the key; otherwise those of
    /// [`Throttle::enqueue`].
    pub fn enqueue(
        &self,
        key: &K,
        n: u32,
        now: Instant,
    ) -> Result<Waiter<Arc<Throttle>>, KeyedError<TooMany>> {
        self.throttle(key, now)?.enqueue_owned(n).map_err(KeyedError::Refused)
    }

    /// The throttle of a key, which is kept at least for as long as this is held.
    ///
    /// # Errors
    ///
    /// [`KeysBusy`] if the key is new and no other can be evicted at `now`, or if `now` lies before the
    /// instant at which a key expired that was evicted before this one came.
    pub fn throttle(&self, key: &K, now: Instant) -> Result<Arc<Throttle>, KeysBusy> {
        self.throttle_by(key, || now).map(|(throttle, _)| throttle)
    }

    /// The throttle of a key, and what the clock showed. Instants that are past by then are no reason
    /// to refuse it.
    fn throttle_by(
        &self,
        key: &K,
        clock: impl Fn() -> Instant,
    ) -> Result<(Arc<Throttle>, Instant), KeysBusy> {
        loop {
            let until = match self.look_up(key, &clock) {
                (now, Ok(throttle)) => return Ok((throttle, now)),
                (_, Err(until)) => until.map(|until| self.epoch.instant(until)),
            };
            if until.is_none_or(|until| until > clock()) {
                return Err(KeysBusy { max_keys: self.max_keys, until });
            }
        }
    }

    fn look_up(&self, key: &K, clock: impl Fn() -> Instant) -> (Instant, Found) {
        let (hash, now) = (self.hasher.hash_one(key), clock());
        let known = self.keys.lock().find(hash, key, self.epoch.ticks(now));
        if let Some(known) = known {
            return (now, known);
        }
        // User code runs without the lock; another thread may add the key meanwhile.
        let throttle = Arc::new(Throttle::with_epoch((self.rate)(key), self.epoch));
        let entry = Entry { key: key.clone(), hash, throttle, known_from: 0 };
        let mut keys = self.keys.lock();
        // With the lock: an instant from before may be overtaken by those of others.
        let now = clock();
        let (found, unused) = keys.add(entry, self.max_keys, self.epoch.ticks(now));
        drop(keys);
        drop(unused);
        (now, found)
    }
}

impl<K> KeyedThrottle<K> {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.lock().entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there may be.
    pub fn max_keys(&self) -> usize {
        self.max_keys
    }

    /// Panics if the keys, or the wait list of one of them, are not consistent. O(keys).
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn validate(&self) {
        let keys = self.keys.lock();
        keys.validate();
        (0..keys.entries.len()).for_each(|at| keys.entries[at].throttle.validate());
    }
}

#[cfg(feature = "tokio")]
impl<K: Eq + Hash + Clone> KeyedThrottle<K> {
    /// [`Throttle::acquire`] for a key, which is not evicted while there are waiters.
    ///
    /// # Errors
    ///
    /// [`KeysBusy`] at once, if there is no room for the key.
    ///
    /// # Panics, cancel safety
    ///
    /// Those of [`Throttle::acquire`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use sluicegate::{KeyedThrottle, throttle::Rate};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let rate = Rate::sliding(100, Duration::from_secs(60))?;
    /// let tenants = KeyedThrottle::new(10_000, move |_: &&str| rate)?;
    /// tenants.acquire(&"tenant/7")?.await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn acquire(&self, key: &K) -> Result<Acquire<Arc<Throttle>>, KeysBusy> {
        Ok(self.throttle_now(key)?.0.acquire_owned())
    }

    /// [`Throttle::acquire_many`] for a key, which is not evicted while there are waiters.
    ///
    /// # Errors
    ///
    /// At once: [`KeyedError::Busy`] if there is no room for the key, [`TooMany`] if `n` is more
    /// than its burst.
    ///
    /// # Panics, cancel safety
    ///
    /// Those of [`Throttle::acquire`].
    pub fn acquire_many(
        &self,
        key: &K,
        n: u32,
    ) -> Result<Acquire<Arc<Throttle>>, KeyedError<TooMany>> {
        self.throttle_now(key)?.0.acquire_many_owned(n).map_err(KeyedError::Refused)
    }

    /// [`Throttle::try_acquire`] for a key.
    ///
    /// # Errors
    ///
    /// Those of [`try_acquire_at`](Self::try_acquire_at).
    pub fn try_acquire(&self, key: &K) -> Result<(), KeyedError<TryAcquireError>> {
        let (throttle, now) = self.throttle_now(key)?;
        throttle.try_acquire_at(1, now).map_err(KeyedError::Refused)
    }

    /// The throttle of a key, and the instant by tokio's clock.
    fn throttle_now(&self, key: &K) -> Result<(Arc<Throttle>, Instant), KeysBusy> {
        self.throttle_by(key, crate::base::timer::now)
    }
}

impl<K> Keys<K> {
    fn new(max_keys: usize) -> Self {
        let tables = (max_keys / KEYS_PER_TABLE).clamp(1, MAX_TABLES).next_power_of_two();
        let evicted = max_keys.clamp(1, MAX_EVICTED).next_power_of_two();
        Self {
            entries: Chunks::new(),
            tables: (0..tables).map(|_| SlotTable::new()).collect(),
            idle: Heap::new(),
            in_use: Heap::new(),
            held: List::new(),
            looked_up: NONE,
            evicted_until: vec![0; evicted].into(),
        }
    }

    /// Bits that a table does not use itself.
    fn table(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.tables.len() - 1)
    }

    /// The throttle of a key that is there.
    fn find(&mut self, hash: u64, key: &K, now: u64) -> Option<Found>
    where
        K: Eq,
    {
        let (entries, table) = (&self.entries, &self.tables[self.table(hash)]);
        let is_key = |at: u32| {
            let entry = &entries[at as usize];
            entry.hash == hash && entry.key == *key
        };
        let at = table.find(hash, is_key)?;
        if self.looked_up != at {
            self.classify_looked_up();
            self.looked_up = at;
        }
        let Entry { known_from, throttle, .. } = &self.entries[at as usize];
        Some(if now < *known_from { Err(Some(*known_from)) } else { Ok(throttle.clone()) })
    }

    /// Adds a key if it is not there, and returns its throttle, or until when there is no room for
    /// it; and with that an entry to be dropped without the lock.
    fn add(&mut self, entry: Entry<K>, max_keys: usize, now: u64) -> (Found, Option<Entry<K>>)
    where
        K: Eq,
    {
        if let Some(found) = self.find(entry.hash, &entry.key, now) {
            return (found, Some(entry));
        }
        self.classify_looked_up();
        let known_from = self.evicted_until[self.evicted_at(entry.hash)];
        if now < known_from {
            return (Err(Some(known_from)), Some(entry));
        }
        let entry = Entry { known_from, ..entry };
        let (throttle, hash) = (entry.throttle.clone(), entry.hash);
        let (at, evicted) = if self.entries.len() < max_keys {
            self.entries.push(entry);
            (self.entries.len() as u32 - 1, None)
        } else {
            match self.first_expired(now) {
                Ok((at, expired)) => (at, Some(self.replace(at, expired, entry))),
                Err(until) => return (Err(until), Some(entry)),
            }
        };
        let (entries, table) = (&self.entries, self.table(hash));
        self.tables[table].insert(hash, at, |at| entries[at as usize].hash);
        self.in_use.set(at, 0);
        self.looked_up = at;
        (Ok(throttle), evicted)
    }

    fn evicted_at(&self, hash: u64) -> usize {
        hash as usize & (self.evicted_until.len() - 1)
    }

    /// Evicts a key that expired at `expired`.
    fn replace(&mut self, at: u32, expired: u64, entry: Entry<K>) -> Entry<K> {
        self.idle.remove(at);
        let evicted = core::mem::replace(&mut self.entries[at as usize], entry);
        let table = self.table(evicted.hash);
        self.tables[table].remove(evicted.hash, at);
        let until = self.evicted_at(evicted.hash);
        self.evicted_until[until] = self.evicted_until[until].max(expired);
        evicted
    }

    /// The unused key that expired first, and when. Otherwise no key can be evicted before the
    /// instant returned; `None` if that depends on the users.
    fn first_expired(&mut self, now: u64) -> Result<(u32, u64), Option<u64>> {
        // Keys checked in this call are at the end of the list, from this one on.
        let mut checked = None;
        for _ in 0..CHECKS {
            if self.idle.first().is_some_and(|(expires, _)| expires <= now) {
                break;
            }
            let in_use = self.in_use.first().filter(|(bound, _)| *bound <= now).map(|(_, at)| at);
            let held = || self.held.front().filter(|at| checked != Some(*at));
            let Some(at) = in_use.or_else(held) else { break };
            if !self.classify(at) && self.hold_if_expired(at, now) {
                checked.get_or_insert(at);
            }
        }
        match self.idle.first() {
            Some((expires, at)) if expires <= now => Ok((at, expires)),
            _ if !self.held.is_empty() => Err(None),
            idle => {
                let first = idle.into_iter().chain(self.in_use.first()).map(|(first, _)| first);
                Err(first.min().filter(|first| *first > now))
            }
        }
    }

    /// Notes of a key in use whether it has expired, and returns that.
    fn hold_if_expired(&mut self, at: u32, now: u64) -> bool {
        let expires = self.entries[at as usize].throttle.expires_at();
        self.release(at);
        if expires > now {
            self.in_use.set(at, expires);
        } else {
            self.in_use.remove(at);
            self.held.push_back(at);
        }
        expires <= now
    }

    fn release(&mut self, at: u32) {
        if self.held.contains(at) {
            self.held.remove(at);
        }
    }

    /// Classifies the key that was looked up last.
    fn classify_looked_up(&mut self) {
        let at = core::mem::replace(&mut self.looked_up, NONE);
        if at != NONE {
            self.classify(at);
        }
    }

    /// Notes whether a key is in use, and if not, when it expires; returns whether it is unused.
    fn classify(&mut self, at: u32) -> bool {
        // First whether it is in use: a user may be about to start something. No user is added
        // meanwhile.
        let unused = Arc::get_mut(&mut self.entries[at as usize].throttle).is_some();
        if unused {
            self.in_use.remove(at);
            self.release(at);
            self.idle.set(at, self.entries[at as usize].throttle.expires_at());
        } else if let Some(expires) = self.idle.remove(at) {
            self.in_use.set(at, expires);
        }
        unused
    }

    /// Panics unless each key is in its table, and in one of the orders.
    #[cfg(debug_assertions)]
    fn validate(&self) {
        self.idle.validate();
        self.in_use.validate();
        self.held.validate();
        for (number, table) in self.tables.iter().enumerate() {
            let entries = (0..self.entries.len()).map(|at| (at as u32, self.entries[at].hash));
            table.validate(entries.filter(|(_, hash)| self.table(*hash) == number));
        }
        for at in 0..self.entries.len() as u32 {
            let orders = [self.idle.contains(at), self.in_use.contains(at), self.held.contains(at)];
            assert_eq!(orders.iter().filter(|is| **is).count(), 1, "orders of key {at}");
        }
    }
}

impl<K> fmt::Debug for KeyedThrottle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedThrottle")
            .field("keys", &self.len())
            .field("max_keys", &self.max_keys)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::time::Duration;

    use super::*;

    const KEYS: usize = 100_000;
    const HOUR: Duration = Duration::from_secs(3_600);

    /// What one call may do at the most, in nodes of the heaps: a few times the height of one with
    /// 100,000 entries, which is 9.
    const FEW: usize = 60;

    struct Full {
        keys: KeyedThrottle<u64>,
        now: Instant,
        most: usize,
    }

    impl Full {
        /// Keys whose windows are an hour, each in use a little later than the one before. Keys from
        /// `KEYS` on have short windows.
        fn new() -> Self {
            let rates = [HOUR, Duration::from_micros(1)].map(|w| Rate::sliding(2, w).unwrap());
            let rate = move |key: &u64| rates[usize::from(*key >= KEYS as u64)];
            let keys = KeyedThrottle::new(KEYS, rate).unwrap();
            Self { keys, now: Instant::now(), most: 0 }
        }

        /// One call a microsecond, of which the costliest is kept.
        fn call<T>(&mut self, call: impl FnOnce(&KeyedThrottle<u64>, Instant) -> T) -> T {
            let steps = |keys: &KeyedThrottle<u64>| {
                let keys = keys.keys.lock();
                [&keys.idle, &keys.in_use].map(|heap| heap.steps).iter().sum::<usize>()
            };
            self.now += Duration::from_micros(1);
            let before = steps(&self.keys);
            let result = call(&self.keys, self.now);
            self.most = self.most.max(steps(&self.keys) - before);
            result
        }

        fn start(&mut self, key: u64) -> Result<(), KeyedError<TryAcquireError>> {
            self.call(|keys, now| keys.try_acquire_at(&key, 1, now))
        }
    }

    #[test]
    fn no_call_is_linear_in_the_keys() {
        let mut full = Full::new();
        for key in 0..KEYS as u64 - 1 {
            full.start(key).unwrap();
        }
        // New ones with short windows, of which one is evicted each time.
        for key in 0..20_000 {
            full.start(KEYS as u64 + key).unwrap();
        }
        assert_eq!(full.keys.len(), KEYS);
        // Known ones, in another order.
        for key in 0..20_000 {
            full.start(key * 7_919 % (KEYS as u64 - 1)).unwrap();
        }
        // None has expired: refused.
        full.start(KEYS as u64 - 1).unwrap();
        for key in 0..20_000 {
            let KeyedError::Busy(busy) = full.start(1_000_000 + key).unwrap_err() else { panic!() };
            assert!(busy.until.is_some_and(|until| until > full.now));
        }
        // All expired at once, and replaced.
        full.now += 2 * HOUR;
        for key in 0..20_000 {
            full.start(2_000_000 + key).unwrap();
        }
        assert!(full.most <= FEW, "{} steps", full.most);
    }

    #[test]
    fn no_call_is_linear_in_the_keys_that_are_in_use() {
        let mut full = Full::new();
        let handles: Vec<_> = (0..KEYS as u64)
            .map(|key| full.call(|keys, now| keys.throttle(&key, now).unwrap()))
            .collect();
        for key in 0..1_000 {
            let KeyedError::Busy(busy) = full.start(1_000_000 + key).unwrap_err() else { panic!() };
            assert_eq!(busy.until, None, "it depends on the users");
        }
        assert!(full.most <= CHECKS * FEW, "{} steps", full.most);
        drop(handles);
        full.most = 0;
        for key in 0..20_000 {
            full.start(2_000_000 + key).unwrap();
        }
        assert!(full.most <= CHECKS * FEW, "{} steps", full.most);
        assert_eq!(full.keys.len(), KEYS);
    }

    #[test]
    fn a_table_is_small() {
        let mut full = Full::new();
        for key in 0..3 * KEYS as u64 {
            full.start(KEYS as u64 + key).unwrap();
        }
        let keys = full.keys.keys.lock();
        assert_eq!(keys.tables.iter().map(SlotTable::len).sum::<usize>(), KEYS);
        assert!(keys.tables.iter().all(|table| table.capacity() <= 4 * KEYS_PER_TABLE));
    }
}
