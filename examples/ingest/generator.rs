//! Events out of a seed, for when no stream is at hand.
//!
//! The mix is that of a second of the live stream in 2024: half of it likes, a quarter follows, a
//! tenth posts, about 950 authors in 1,000 events. Children refer to posts before as well as after
//! those are written, some to posts and users that never come; events are delivered twice, soon
//! after one another; posts go some time after they came, and a URI that went does not come back.
//!
//! However long the stream is, the memory is the same: who writes post number `n`, and so its URI,
//! follows from the seed and `n` alone, so that an event can refer to any of them.

use std::collections::VecDeque;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::event::Relation;

/// What may be varied about the stream. The default is shaped like the live one.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How many authors are about at any time.
    pub authors: u64,
    /// A new author comes, and an old one stays away, every so many events.
    pub author_every: u64,
    /// One post in so many is deleted again; 0 for none.
    pub delete_one_in: u64,
    /// It goes after so many further posts, which must be far more than 30 events.
    pub delete_after: u64,
    /// Children come before their post by less than so many posts.
    pub early_by: u64,
    /// One post in so many is hot, from when so many further posts have come until the next is.
    pub hot_every: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            authors: 30_000,
            author_every: 20,
            delete_one_in: 15,
            delete_after: 600,
            early_by: 60,
            hot_every: 400,
        }
    }
}

/// A stream of Jetstream lines.
#[derive(Debug)]
pub struct Generator {
    shape: Shape,
    seed: u64,
    random: ChaCha8Rng,
    /// The number of this event, and where the stream ends.
    now: u64,
    end: u64,
    /// The number of the next post.
    posts: u64,
    /// A post that is due to be deleted.
    due: Option<u64>,
    /// The last lines, which may be delivered again.
    recent: VecDeque<(String, Option<(Relation, Record)>)>,
    /// Children past that, which may be deleted.
    deletable: [VecDeque<Record>; 4],
}

/// The author and the record key of something written.
#[derive(Debug, Clone)]
struct Record {
    did: String,
    rkey: String,
}

const RECENT: usize = 30;
const DELETABLE: usize = 256;
/// Busy authors, each half as busy as the one before; the first writes 2 % of all events.
const BUSY: u64 = 10;
/// Records and users numbered from here on never come.
const STRANGERS: u64 = 1 << 40;

impl Generator {
    /// `events` lines that follow from `seed`, shaped like the live stream.
    pub fn new(seed: u64, events: u64) -> Self {
        Self::with_shape(seed, events, Shape::default())
    }

    /// `events` lines that follow from `seed`, in this shape.
    pub fn with_shape(seed: u64, events: u64, shape: Shape) -> Self {
        Self {
            shape,
            seed,
            random: ChaCha8Rng::seed_from_u64(seed),
            now: 0,
            end: events,
            posts: 0,
            due: None,
            recent: VecDeque::with_capacity(RECENT + 1),
            deletable: Default::default(),
        }
    }

    fn event(&mut self) -> String {
        if let Some(number) = self.due.take() {
            let Record { did, rkey } = self.post(number);
            return self.commit(&did, "delete", "app.bsky.feed.post", &rkey, "");
        }
        match self.random.random_range(0..1000) {
            0..496 => self.create_child(Relation::Like),
            496..746 => self.create_child(Relation::Follow),
            746..836 => self.create_post(),
            836..901 => self.create_child(Relation::Repost),
            901..921 => self.create_child(Relation::Block),
            921..951 => self.delete_child(Relation::Follow),
            951..957 => self.delete_child(Relation::Like),
            957..959 => self.delete_child(Relation::Repost),
            959..961 => self.delete_child(Relation::Block),
            961..971 => self.again(),
            971..981 => {
                let did = self.author();
                self.envelope(&did, "identity", &format!(r#""identity":{{"did":"{did}"}}"#))
            }
            981..991 => {
                let (did, rkey) = (self.author(), tid(self.now));
                self.commit(&did, "create", "app.bsky.graph.listitem", &rkey, r#","record":{}"#)
            }
            _ => {
                let did = self.author();
                self.commit(&did, "update", "app.bsky.actor.profile", "self", r#","record":{}"#)
            }
        }
    }

    fn create_post(&mut self) -> String {
        let Record { did, rkey } = self.post(self.posts);
        let reply = match self.random.random_range(0..2) {
            0 => {
                let (parent, root) = (self.subject_post(), self.subject_post());
                format!(r#","reply":{{"parent":{{"uri":"{parent}"}},"root":{{"uri":"{root}"}}}}"#)
            }
            _ => String::new(),
        };
        let record = format!(r#","record":{{"$type":"app.bsky.feed.post","langs":["en"]{reply}}}"#);
        let line = self.commit(&did, "create", "app.bsky.feed.post", &rkey, &record);
        self.remember(line.clone(), None);
        self.posts += 1;
        self.due = self.posts.checked_sub(self.shape.delete_after).filter(|number| {
            self.shape.delete_one_in > 0
                && mix(self.seed ^ 1, *number).is_multiple_of(self.shape.delete_one_in)
        });
        line
    }

    fn create_child(&mut self, relation: Relation) -> String {
        let record = Record { did: self.author(), rkey: tid(self.now) };
        let subject = match relation {
            Relation::Like | Relation::Repost => {
                format!(r#"{{"cid":"bafyrei","uri":"{}"}}"#, self.subject_post())
            }
            Relation::Follow | Relation::Block => format!(r#""{}""#, self.subject_user()),
        };
        let name = name(relation);
        let body = format!(r#","record":{{"$type":"{name}","subject":{subject}}}"#);
        let line = self.commit(&record.did, "create", name, &record.rkey, &body);
        self.remember(line.clone(), Some((relation, record)));
        line
    }

    /// Half of what is deleted came long ago, before this stream began.
    fn delete_child(&mut self, relation: Relation) -> String {
        let candidates = &mut self.deletable[relation as usize];
        let record = if candidates.is_empty() || self.random.random_bool(0.5) {
            Record { did: self.author(), rkey: tid(STRANGERS + self.now) }
        } else {
            let chosen = self.random.random_range(0..candidates.len());
            candidates.swap_remove_back(chosen).expect("chosen among them")
        };
        self.commit(&record.did, "delete", name(relation), &record.rkey, "")
    }

    fn again(&mut self) -> String {
        if self.recent.is_empty() {
            return self.create_post();
        }
        let chosen = self.random.random_range(0..self.recent.len());
        self.recent[chosen].0.clone()
    }

    /// What is too old to be delivered again may be deleted.
    fn remember(&mut self, line: String, child: Option<(Relation, Record)>) {
        self.recent.push_back((line, child));
        if self.recent.len() <= RECENT {
            return;
        }
        if let Some((_, Some((relation, record)))) = self.recent.pop_front() {
            let candidates = &mut self.deletable[relation as usize];
            candidates.push_back(record);
            if candidates.len() > DELETABLE {
                candidates.pop_front();
            }
        }
    }

    /// Post number `number`, whether it was written yet or will be.
    fn post(&self, number: u64) -> Record {
        // One event in eleven is a post.
        let roll = mix(self.seed ^ 2, number);
        Record { did: self.did(self.author_at(number * 11, roll)), rkey: tid(number) }
    }

    fn subject_post(&mut self) -> String {
        let stranger = STRANGERS + self.now;
        let number = match self.random.random_range(0..100) {
            0..10 => stranger,
            // All of a sudden, everybody likes a post from before the stream.
            10..15 => STRANGERS + self.now / 5_000 * 5_000,
            15..25 => self.posts + self.random.random_range(0..self.shape.early_by),
            25..45 => match (self.posts / self.shape.hot_every).checked_sub(1) {
                Some(period) => period * self.shape.hot_every,
                None => stranger,
            },
            _ => {
                let ago = 30.0 * (1.0 / self.random.random_range(0.000_1..1.0f64) - 1.0);
                self.posts.checked_sub(1 + ago as u64).unwrap_or(stranger)
            }
        };
        let Record { did, rkey } = self.post(number);
        format!("at://{did}/app.bsky.feed.post/{rkey}")
    }

    fn subject_user(&mut self) -> String {
        match self.random.random_range(0..100) {
            0..5 => self.did(STRANGERS + self.now),
            _ => self.author(),
        }
    }

    fn author(&mut self) -> String {
        let roll = self.random.random();
        self.did(self.author_at(self.now, roll))
    }

    /// The author that `roll` selects at that time: one of the busy few, or any active one.
    fn author_at(&self, time: u64, roll: u64) -> u64 {
        let (busy, choice) = (roll.is_multiple_of(25), roll / 25);
        if busy {
            return u64::from(choice.trailing_zeros()).min(BUSY - 1);
        }
        BUSY + time / self.shape.author_every + choice % self.shape.authors
    }

    fn did(&self, number: u64) -> String {
        let (high, low) = (mix(self.seed, number), mix(!self.seed, number));
        let letter = |bits: u64| b"abcdefghijklmnopqrstuvwxyz234567"[(bits % 32) as usize] as char;
        let name: String = (0..12)
            .flat_map(|place| [letter(high >> (5 * place)), letter(low >> (5 * place))])
            .collect();
        format!("did:plc:{name}")
    }

    fn commit(&self, did: &str, operation: &str, name: &str, rkey: &str, rest: &str) -> String {
        let commit = format!(
            r#""commit":{{"operation":"{operation}","collection":"{name}","rkey":"{rkey}"{rest}}}"#
        );
        self.envelope(did, "commit", &commit)
    }

    fn envelope(&self, did: &str, kind: &str, rest: &str) -> String {
        let time_us = 1_707_318_854_000_000 + self.now * 1_000;
        format!(r#"{{"did":"{did}","time_us":{time_us},"kind":"{kind}",{rest}}}"#)
    }
}

impl Iterator for Generator {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.now == self.end {
            return None;
        }
        let line = self.event();
        self.now += 1;
        Some(line)
    }
}

fn name(relation: Relation) -> &'static str {
    match relation {
        Relation::Like => "app.bsky.feed.like",
        Relation::Repost => "app.bsky.feed.repost",
        Relation::Follow => "app.bsky.graph.follow",
        Relation::Block => "app.bsky.graph.block",
    }
}

/// A record key in the manner of atproto's timestamps: 13 digits of base 32 that sort by number.
fn tid(number: u64) -> String {
    (0..13)
        .rev()
        .map(|place| {
            let digit = (number.wrapping_add(3 << 60)).checked_shr(5 * place).unwrap_or(0) % 32;
            b"234567abcdefghijklmnopqrstuvwxyz"[digit as usize] as char
        })
        .collect()
}

/// SplitMix64's finalizer: a number that `seed` and `number` alone decide.
fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::ingest::event::{Change, Parent, parse};

    #[test]
    fn the_same_seed_gives_the_same_stream() {
        let stream = |seed| Generator::new(seed, 2_000).collect::<Vec<_>>();
        assert_eq!(stream(7), stream(7));
        assert_ne!(stream(7), stream(8));
        // A longer stream begins like a shorter one.
        assert_eq!(Generator::new(7, 5_000).take(2_000).collect::<Vec<_>>(), stream(7));
    }

    #[test]
    fn it_looks_like_the_live_stream() {
        let (mut ignored, mut posts, mut deletes) = (0, 0, 0);
        let (mut children, mut authors) = (HashMap::<_, u32>::new(), HashMap::<_, u32>::new());
        for line in Generator::new(1, 1_000_000).skip(100_000).take(1_000) {
            let Some(event) = parse(line.as_bytes()).unwrap() else {
                ignored += 1;
                continue;
            };
            *authors.entry(event.author).or_default() += 1;
            match event.change {
                Change::Post(_) => posts += 1,
                Change::Child(child) => *children.entry(child.relation).or_default() += 1,
                Change::DeletePost(_) | Change::DeleteChild(..) => deletes += 1,
            }
        }
        assert!((450..550).contains(&children[&Relation::Like]), "{children:?}");
        assert!((200..300).contains(&children[&Relation::Follow]), "{children:?}");
        assert!((60..120).contains(&posts), "{posts}");
        assert!((20..70).contains(&deletes), "{deletes}");
        assert!((15..50).contains(&ignored), "{ignored}");
        assert!((880..960).contains(&authors.len()), "{}", authors.len());
        assert!((10..40).contains(authors.values().max().unwrap()));
    }

    /// A second run over the same database must find every row that the first one left: no key
    /// whose parent comes may lose a child to a cap, also where the parent is overtaken by some
    /// thousand events, and nothing comes back after it went.
    #[test]
    fn the_default_run_can_be_repeated() {
        const OVERTAKEN_BY: usize = 4_000;
        let (mut created, mut gone) = (HashMap::new(), HashSet::new());
        let mut children = HashMap::<_, Vec<_>>::new();
        let mut again = 0;
        for (now, line) in Generator::new(42, 200_000).enumerate() {
            let Some(event) = parse(line.as_bytes()).unwrap() else { continue };
            created.entry((Parent::User, event.author)).or_insert(now);
            let (uri, fresh) = match event.change {
                Change::Post(post) => {
                    let key = (Parent::Post, post.uri.clone());
                    let fresh = !created.contains_key(&key);
                    created.entry(key).or_insert(now);
                    (post.uri, fresh)
                }
                Change::Child(child) => {
                    let key = (child.relation.parent(), child.subject);
                    children.entry(key).or_default().push(now);
                    let key = (Parent::Post, child.uri.clone());
                    (child.uri, created.insert(key, now).is_none())
                }
                Change::DeletePost(uri) | Change::DeleteChild(_, uri) => {
                    gone.insert(uri);
                    continue;
                }
            };
            assert!(!gone.contains(&uri), "{uri} comes back");
            again += u32::from(!fresh);
        }

        let (mut early, mut users_waited_for) = (0, vec![0i32; 200_001]);
        for (key, times) in &children {
            let come = created.get(key).copied();
            if let Some(come) = come {
                let waiting = times.iter().filter(|time| **time < come + OVERTAKEN_BY).count();
                assert!(waiting <= 100, "{waiting} of {key:?} may wait at once");
                early += times.iter().filter(|time| **time < come).count();
                let post = key.0 == Parent::Post;
                assert!(!post || come < times[0] + 5_000, "{key:?} may be evicted");
            }
            if key.0 == Parent::User && come.is_none_or(|come| times[0] < come) {
                users_waited_for[times[0]] += 1;
                users_waited_for[come.unwrap_or(200_000)] -= 1;
            }
        }
        let most = users_waited_for.iter().scan(0, |sum, step| {
            *sum += step;
            Some(*sum)
        });
        assert!(most.max() < Some(5_000), "users may be evicted");
        assert!(early > 5_000 && again > 1_000, "{early} {again}");
    }
}
