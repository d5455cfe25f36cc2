//! A throttle for each key, with a bound on the keys.

use core::fmt;
use core::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashTable;

use super::error::{KeyedError, KeysBusy};
use super::{Place, Rate, ReserveError, Throttle, TooMany, TryAcquireError};
use crate::ConfigError;
use crate::sync::{HashBuilder, Mutex};

#[cfg(feature = "tokio")]
use super::Acquire;

/// A [`Throttle`] for each key, each with the rate of its tier, for a bounded number of keys.
///
/// A key that comes new when there are `max_keys` takes the place of the least recently used one
/// *that is at rest*: nobody waits for it, and nothing that it started counts any more. To forget
/// such a key loses nothing, so that no key exceeds its rate by being forgotten. If none is at rest,
/// the new key is refused. So `max_keys` is how many keys may be active within a window; and it is
/// also how many there may be that nobody has asked for in a long while.
///
/// Do not use it where strangers choose the keys and may choose many: they could keep others out.
///
/// A key keeps the rate that it came with until it is forgotten, also if its tier changes; if the
/// tier is part of the key, as below, the same tenant in another tier is another key, with starts of
/// its own.
///
/// Instants need not be in order. But one that lies before a forgotten key's rest could count anew
/// what is forgotten: such a one is refused for every key that came since.
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
/// A table of keys in the order of their use under one lock, which is held to find a key and not
/// while anybody waits. A key in use is shared with who uses it, and what is shared is not
/// forgotten. After a vain search for a key at rest none is made again before there can be one.
pub struct KeyedThrottle<K> {
    keys: Mutex<Keys<K>>,
    max_keys: usize,
    hasher: HashBuilder,
    rate: Box<RateOf<K>>,
}

type RateOf<K> = dyn Fn(&K) -> Rate + Send + Sync;

/// Locks are taken in this order: that of the keys, then that of a throttle.
struct Keys<K> {
    entries: Vec<Entry<K>>,
    table: HashTable<u32>,
    newest: u32,
    oldest: u32,
    /// No key is at rest before; known after a vain search.
    none_before: Option<Instant>,
    /// From then on nothing counts any more that a forgotten key has started.
    forgotten_rest: Option<Instant>,
}

struct Entry<K> {
    key: K,
    hash: u64,
    throttle: Arc<Throttle>,
    /// It may have been here before, and nothing is known of what it started until then.
    since: Option<Instant>,
    newer: u32,
    older: u32,
}

/// The throttle of a key, or until when there is none to be had.
type Found = Result<Arc<Throttle>, Option<Instant>>;

/// No entry.
const NONE: u32 = u32::MAX;

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
        let keys = Mutex::new(Keys::new());
        Ok(Self { keys, max_keys, hasher: HashBuilder::default(), rate: Box::new(rate) })
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
    /// That of [`Throttle::reserve`]. A key that comes new when there are `max_keys` is O(1) if the
    /// least recently used one is at rest; if it is not, O(keys), and then O(1) until one can be.
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
    ) -> Result<Place<Arc<Throttle>>, KeyedError<TooMany>> {
        self.throttle(key, now)?.enqueue_owned(n).map_err(KeyedError::Refused)
    }

    /// The throttle of a key, which is kept at least for as long as this is held.
    ///
    /// # Errors
    ///
    /// [`KeysBusy`] if the key is new and no other is at rest at `now`, or if `now` lies before the
    /// rest of a key that was forgotten before this one came.
    pub fn throttle(&self, key: &K, now: Instant) -> Result<Arc<Throttle>, KeysBusy> {
        let hash = self.hasher.hash_one(key);
        let busy = |until| KeysBusy { max_keys: self.max_keys, until };
        let known = self.keys.lock().promoted(hash, key, now);
        if let Some(known) = known {
            return known.map_err(busy);
        }
        // The caller's code runs without the lock; somebody else may add the key meanwhile.
        let throttle = Arc::new(Throttle::with_rate((self.rate)(key)));
        let key = key.clone();
        let entry = Entry { key, hash, throttle, since: None, newer: NONE, older: NONE };
        let (found, unused) = self.keys.lock().add(entry, self.max_keys, now);
        drop(unused);
        found.map_err(busy)
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
}

#[cfg(feature = "tokio")]
impl<K: Eq + Hash + Clone> KeyedThrottle<K> {
    /// [`Throttle::acquire`] for a key, which is not forgotten while somebody waits.
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
        Ok(self.throttle(key, tokio::time::Instant::now().into_std())?.acquire_owned())
    }

    /// [`Throttle::acquire_many`] for a key, which is not forgotten while somebody waits.
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
        let throttle = self.throttle(key, tokio::time::Instant::now().into_std())?;
        throttle.acquire_many_owned(n).map_err(KeyedError::Refused)
    }

    /// [`Throttle::try_acquire`] for a key.
    ///
    /// # Errors
    ///
    /// Those of [`try_acquire_at`](Self::try_acquire_at).
    pub fn try_acquire(&self, key: &K) -> Result<(), KeyedError<TryAcquireError>> {
        self.try_acquire_at(key, 1, tokio::time::Instant::now().into_std())
    }
}

impl<K> Keys<K> {
    fn new() -> Self {
        Self {
            entries: Vec::new(),
            table: HashTable::new(),
            newest: NONE,
            oldest: NONE,
            none_before: None,
            forgotten_rest: None,
        }
    }

    /// The throttle of a key that is there, which is the most recently used now.
    fn promoted(&mut self, hash: u64, key: &K, now: Instant) -> Option<Found>
    where
        K: Eq,
    {
        let entries = &self.entries;
        let at = *self.table.find(hash, |at| entries[*at as usize].key == *key)?;
        if self.newest != at {
            self.unlink(at);
            self.link(at);
        }
        let Entry { since, throttle, .. } = &self.entries[at as usize];
        Some(if since.is_some_and(|since| now < since) {
            Err(*since)
        } else {
            Ok(throttle.clone())
        })
    }

    /// Adds a key if it is not there, and returns its throttle, or until when there is no room for
    /// it; and with that an entry to be dropped without the lock.
    fn add(&mut self, entry: Entry<K>, max_keys: usize, now: Instant) -> (Found, Option<Entry<K>>)
    where
        K: Eq,
    {
        if let Some(found) = self.promoted(entry.hash, &entry.key, now) {
            return (found, Some(entry));
        }
        if self.forgotten_rest.is_some_and(|rest| now < rest) {
            return (Err(self.forgotten_rest), Some(entry));
        }
        let entry = Entry { since: self.forgotten_rest, ..entry };
        let (throttle, hash) = (entry.throttle.clone(), entry.hash);
        let (at, forgotten) = if self.entries.len() < max_keys {
            self.entries.push(entry);
            (self.entries.len() as u32 - 1, None)
        } else {
            let (at, rest) = match self.least_recent_at_rest(now) {
                Ok(found) => found,
                Err(until) => return (Err(until), Some(entry)),
            };
            self.forgotten_rest = self.forgotten_rest.max(Some(rest));
            self.unlink(at);
            let forgotten = core::mem::replace(&mut self.entries[at as usize], entry);
            if let Ok(known) = self.table.find_entry(forgotten.hash, |known| *known == at) {
                known.remove();
            }
            (at, Some(forgotten))
        };
        let entries = &self.entries;
        self.table.insert_unique(hash, at, |at| entries[*at as usize].hash);
        self.link(at);
        // The new key is at rest until its throttle is used.
        self.none_before = None;
        (Ok(throttle), forgotten)
    }

    /// And since when it has been.
    fn least_recent_at_rest(&mut self, now: Instant) -> Result<(u32, Instant), Option<Instant>> {
        if self.none_before.is_some_and(|until| now < until) {
            return Err(self.none_before);
        }
        let (mut at, mut first) = (self.oldest, None);
        while at != NONE {
            let entry = &mut self.entries[at as usize];
            // First: who shares it may be about to use it. Nobody comes to share it meanwhile.
            let unused = Arc::get_mut(&mut entry.throttle).is_some();
            let rests = entry.throttle.rests_at();
            if unused && rests <= now {
                return Ok((at, rests));
            }
            first = first.into_iter().chain([rests]).min();
            at = entry.newer;
        }
        self.none_before = first.filter(|first| *first > now);
        Err(self.none_before)
    }

    fn link(&mut self, at: u32) {
        let older = self.newest;
        match self.entries.get_mut(older as usize) {
            Some(older) => older.newer = at,
            None => self.oldest = at,
        }
        let entry = &mut self.entries[at as usize];
        entry.older = older;
        entry.newer = NONE;
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let Entry { older, newer, .. } = self.entries[at as usize];
        match self.entries.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.entries.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
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
