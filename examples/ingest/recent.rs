//! Which events of a live stream came lately: after a reconnection a few seconds of it come again.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use serde::Deserialize;

use super::identity::fnv1a;
use super::source::Place;

/// How much further back than what is done events are remembered, in microseconds of the stream: more
/// than a cursor is set back.
const KEPT_US: u64 = 10_000_000;

/// The most events that are remembered, whatever their cursors say. One that is forgotten and comes
/// again counts as a line once more.
const MOST: usize = 200_000;

/// An event that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its number, and the cursor of the stream.
    pub end: Place,
    /// What it is known by.
    pub key: Arc<str>,
}

/// What tells an event from others, and where it stands in the stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its cursor, if it has one.
    pub cursor: Option<u64>,
    /// The same for the same event, from whichever server and however often it comes.
    pub key: Arc<str>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    did: Option<Cow<'a, str>>,
    time_us: Option<u64>,
    #[serde(borrow)]
    commit: Option<Commit<'a>>,
}

#[derive(Deserialize)]
struct Commit<'a> {
    #[serde(borrow)]
    rev: Cow<'a, str>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(borrow)]
    collection: Cow<'a, str>,
    #[serde(borrow)]
    rkey: Cow<'a, str>,
}

impl Stamp {
    /// A change is known by its record and the revision of the repository, and anything else, also what
    /// is no event, by what it says.
    pub fn of(event: &[u8]) -> Self {
        let envelope: Option<Envelope<'_>> = serde_json::from_slice(event).ok();
        let time = |event: &[u8]| {
            #[derive(Deserialize)]
            struct Time {
                time_us: u64,
            }
            serde_json::from_slice(event).ok().map(|Time { time_us }| time_us)
        };
        let (cursor, key) = match envelope {
            Some(Envelope { did: Some(did), time_us, commit: Some(commit) }) => {
                let Commit { rev, operation, collection, rkey } = commit;
                (time_us, Some(format!("{did}/{collection}/{rkey} {operation} {rev}")))
            }
            Some(Envelope { time_us, .. }) => (time_us, None),
            // A commit without a revision, or no event.
            None => (time(event), None),
        };
        let key = key.unwrap_or_else(|| format!("{:016x} {}", fnv1a(event), event.len()));
        Self { cursor, key: key.into() }
    }
}

/// The events that came lately, as far as a stream may deliver them again.
#[derive(Debug)]
pub struct Recent {
    state: Mutex<State>,
    /// Whether they are to be stored.
    stored: bool,
}

#[derive(Debug, Default)]
struct State {
    keys: HashSet<Arc<str>>,
    order: VecDeque<Seen>,
    /// Those up to this number are stored.
    stored: u64,
    redelivered: u64,
}

impl Recent {
    /// Of a run that is not resumable.
    pub fn new() -> Self {
        Self { state: Mutex::default(), stored: false }
    }

    /// Of a resumable run: these came in the runs before.
    pub fn restored(seen: Vec<Seen>) -> Self {
        let keys = seen.iter().map(|seen| seen.key.clone()).collect();
        let stored = seen.last().map_or(0, |last| last.end.line);
        let state = State { keys, order: seen.into(), stored, redelivered: 0 };
        Self { state: Mutex::new(state), stored: true }
    }

    /// An event comes. Says whether for the first time.
    pub fn is_new(&self, seen: Seen) -> bool {
        let mut state = self.state.lock().unwrap();
        if !state.keys.insert(seen.key.clone()) {
            state.redelivered += 1;
            return false;
        }
        let latest = seen.end;
        state.order.push_back(seen);
        if self.stored {
            state.forget(None);
        } else {
            state.stored = latest.line;
            state.forget(Some(latest));
        }
        true
    }

    /// Those that are not stored yet, with the number of the last that need not be stored any longer:
    /// everything up to `done` is done.
    pub fn to_store(&self, done: Option<Place>) -> (Vec<Seen>, Option<u64>) {
        let mut state = self.state.lock().unwrap();
        let forgotten = state.forget(done);
        let stored = state.order.partition_point(|seen| seen.end.line <= state.stored);
        (state.order.range(stored..).cloned().collect(), forgotten)
    }

    /// Those up to this number are stored now.
    pub fn stored(&self, number: u64) {
        self.state.lock().unwrap().stored = number;
    }

    /// How many events came again.
    pub fn redelivered(&self) -> u64 {
        self.state.lock().unwrap().redelivered
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Forgets what is stored and comes no more once everything up to `done` is done, and what is too
    /// much. Returns the last of it.
    fn forget(&mut self, done: Option<Place>) -> Option<u64> {
        let over = |end: Place, done: Place| {
            end.line <= done.line && end.offset.saturating_add(KEPT_US) < done.offset
        };
        let mut last = None;
        while let Some(Seen { end, .. }) = self.order.front() {
            let over = end.line <= self.stored && done.is_some_and(|done| over(*end, done));
            if !over && self.order.len() <= MOST {
                break;
            }
            last = Some(end.line);
            if let Some(Seen { key, .. }) = self.order.pop_front() {
                self.keys.remove(&key);
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(line: u64, cursor: u64) -> Seen {
        Seen { end: Place { line, offset: cursor }, key: format!("event {line}").into() }
    }

    fn commit(time: u64, rev: &str) -> String {
        format!(
            r#"{{"did":"did:plc:a","time_us":{time},"kind":"commit","commit":{{"rev":"{rev}","operation":"create","collection":"app.bsky.feed.post","rkey":"1","record":{{}}}}}}"#
        )
    }

    #[test]
    fn a_change_is_the_same_whenever_it_was_sent() {
        let (one, again) =
            (Stamp::of(commit(7, "a").as_bytes()), Stamp::of(commit(9, "a").as_bytes()));
        assert_eq!((one.cursor, again.cursor), (Some(7), Some(9)));
        assert_eq!(one.key, again.key);
        assert_ne!(one.key, Stamp::of(commit(7, "b").as_bytes()).key);
    }

    #[test]
    fn anything_has_a_key() {
        let texts: [&[u8]; 4] = [b"nonsense", b"", b"\xff", b"{\"time_us\":5}"];
        let stamps = texts.map(Stamp::of);
        assert_eq!(stamps.each_ref().map(|stamp| stamp.cursor), [None, None, None, Some(5)]);
        let keys: HashSet<_> = stamps.iter().map(|stamp| &stamp.key).collect();
        assert_eq!(keys.len(), 4);
        let without_rev = commit(3, "a").replace(r#""rev":"a","#, "");
        assert_eq!(Stamp::of(without_rev.as_bytes()).cursor, Some(3));
    }

    #[test]
    fn what_is_long_done_is_forgotten() {
        let recent = Recent::new();
        assert!(recent.is_new(seen(1, 0)) && !recent.is_new(seen(1, 0)));
        assert!(recent.is_new(seen(2, KEPT_US)) && !recent.is_new(seen(1, 0)));
        assert!(recent.is_new(seen(3, KEPT_US + 1)) && recent.is_new(seen(1, 0)));
        assert_eq!(recent.redelivered(), 2);
    }

    #[test]
    fn what_is_to_be_stored_is_kept_until_it_is() {
        let recent = Recent::restored(vec![seen(1, 5)]);
        assert!(!recent.is_new(seen(1, 5)) && recent.is_new(seen(2, 6)));
        let late = Place { line: 9, offset: 2 * KEPT_US };
        assert_eq!(recent.to_store(Some(late)), (vec![seen(2, 6)], Some(1)));
        assert_eq!(recent.to_store(Some(late)), (vec![seen(2, 6)], None));
        recent.stored(2);
        assert_eq!(recent.to_store(Some(late)), (vec![], Some(2)));
    }

    #[test]
    fn what_is_not_done_is_kept() {
        let recent = Recent::restored(vec![seen(1, 5), seen(2, 6)]);
        let done = Place { line: 1, offset: 2 * KEPT_US };
        assert_eq!(recent.to_store(Some(done)), (vec![], Some(1)));
        assert!(!recent.is_new(seen(2, 6)));
    }
}
