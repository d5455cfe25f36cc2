//! Which users and posts exist, and which children wait for which parent. Every decision about a line
//! is taken here, in one step.
//!
//! ```text
//!          it is there, waits or is freed
//!  child ─────────────────────────────────▶ duplicate
//!    │            parent there
//!    ├────────────────────────────────────▶ accepted ──▶ stored / failed
//!    │ parent missing                          ▲
//!    ▼            parent comes                 │ arrived
//!  waiting ─────────────────────▶ freed ───────┘
//!    │                              │
//!    ├─▶ displaced, evicted,        └─▶ cancelled
//!    │   expired, cancelled
//!    └─▶ (end of the run) waiting
//! ```
//!
//! The caller holds one lock around a call and around handing what it returns to the batcher, so
//! that the batcher accepts in the order of the decisions. That is what makes it right to answer
//! "is it there?" from the last thing accepted under a name, and from the database only where
//! nothing accepted is still on its way there.
//!
//! Time alone takes without asking: sweepers work on the maps of waiting children, and a
//! child that they have taken is one that a decision does not find.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::map::{Entry, Items};
use sluicegate::{BoundedArrayMap, ConfigError, Pushed, SharedBoundedArrayMap};

use super::event::{Change, Child, Id, Parent, Post, Relation};
use super::store::{Name, Op, Reader};
use super::tally::Category;

/// Children under the parents that they wait for, indexed by their URIs.
pub type Waiting = SharedBoundedArrayMap<Id, Held, Id>;

/// A child that waits, or that waited until its parent came.
#[derive(Debug, Clone)]
pub struct Held {
    /// The child.
    pub child: Child,
    /// Its own for good, and greater than that of any child that waited before it.
    pub number: u64,
}

/// How many users and posts are remembered to be in the database.
const KNOWN: usize = 20_000;

/// Limits of what waits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most posts that are waited for at once.
    pub posts: usize,
    /// The most users that are waited for at once.
    pub users: usize,
    /// The most operations that wait for one of them.
    pub items: usize,
    /// How long they wait at most.
    pub time_to_live: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Register {
    reader: Reader,
    for_post: Arc<Waiting>,
    for_user: Arc<Waiting>,
    /// The last thing accepted under each name and not yet written: no more than the batcher holds.
    accepted: HashMap<Name, Accepted>,
    /// Users and posts lately found in the database: a set that forgets the least recently used.
    known: BoundedArrayMap<Name, ()>,
    /// The numbers of children whose parent has come, by URI, until they are accepted in their turn:
    /// no more than wait for the parents of the events in hand.
    freed: HashMap<Id, u64>,
    sequence: u64,
    /// How many have waited so far.
    held: u64,
    time_to_live: Duration,
}

#[derive(Debug)]
struct Accepted {
    sequence: u64,
    state: State,
    /// When it was last deleted since it was last written, 0 if it was not: then it is back, but
    /// children of before are not.
    deleted: u64,
}

/// What the last thing accepted makes of a row.
#[derive(Debug)]
enum State {
    /// A user or a post that is there.
    Parent,
    /// A child that is there, with its subject.
    Child(Id),
    Gone,
}

/// What was decided about a line.
#[derive(Debug, Default)]
#[must_use = "the caller counts the lines that leave"]
pub struct Decision {
    /// This is to be written.
    pub write: Option<Write>,
    /// The line itself waits.
    pub waits: Option<Held>,
    /// These may follow now: their parent is about to be written.
    pub freed: Vec<Freed>,
    /// The children of these numbers wait no longer and are not written; and why.
    pub left: Vec<(Category, Vec<u64>)>,
    /// The line itself leaves at once, and why.
    pub done: Option<Category>,
}

/// A change on its way to the database.
#[derive(Debug)]
pub struct Write {
    /// The change.
    pub op: Op,
    /// A delete that removed something that waited has found something, whatever is stored.
    pub removed_waiting: bool,
    /// The number of a child that waited until now.
    pub waited: Option<u64>,
    sequence: u64,
}

/// A child whose parent has come, until its turn does.
#[derive(Debug)]
pub struct Freed(Held);

impl Register {
    /// Nothing waits yet; what exists is in the database.
    ///
    /// # Errors
    ///
    /// If a limit is not what it may be.
    pub fn new(reader: Reader, limits: Limits) -> Result<Self, ConfigError> {
        let waiting = |keys| {
            BoundedArrayMap::builder()
                .max_keys(keys)
                .max_items_per_key(limits.items)
                .time_to_live(limits.time_to_live)
                .indexed()
                .build_shared()
                .map(Arc::new)
        };
        Ok(Self {
            reader,
            for_post: waiting(limits.posts)?,
            for_user: waiting(limits.users)?,
            accepted: HashMap::new(),
            known: BoundedArrayMap::new(KNOWN, 1)?,
            freed: HashMap::new(),
            sequence: 0,
            held: 0,
            time_to_live: limits.time_to_live,
        })
    }

    /// Whether this user is stored, or about to be.
    ///
    /// # Errors
    ///
    /// If the database cannot be read.
    pub fn has_user(&mut self, did: &Id) -> rusqlite::Result<bool> {
        self.has(Parent::User, did)
    }

    /// A user appears.
    pub fn user(&mut self, did: Id) -> Decision {
        let freed = self.free(Parent::User, &did);
        Decision { write: Some(self.accept(Op::User(did))), freed, ..Decision::default() }
    }

    /// An event takes effect.
    ///
    /// # Errors
    ///
    /// If the database cannot be read; nothing has changed then.
    pub fn event(&mut self, change: Change, now: Instant) -> rusqlite::Result<Decision> {
        Ok(match change {
            Change::Post(post) => self.post(post)?,
            Change::Child(child) => self.child(child, now)?,
            Change::DeletePost(uri) => self.delete_post(uri),
            Change::DeleteChild(relation, uri) => self.delete_child(relation, uri),
        })
    }

    fn post(&mut self, post: Post) -> rusqlite::Result<Decision> {
        if self.has(Parent::Post, &post.uri)? {
            return Ok(Decision::done(Category::Duplicate));
        }
        let freed = self.free(Parent::Post, &post.uri);
        Ok(Decision { write: Some(self.accept(Op::Post(post))), freed, ..Decision::default() })
    }

    fn child(&mut self, child: Child, now: Instant) -> rusqlite::Result<Decision> {
        let parent = child.relation.parent();
        if self.waiting(parent).contains_id(&child.uri)
            || self.freed.contains_key(&child.uri)
            || self.has_child(child.relation, &child.uri)?
        {
            return Ok(Decision::done(Category::Duplicate));
        }
        if self.has(parent, &child.subject)? {
            let write = Some(self.accept(Op::Child(child)));
            return Ok(Decision { write, ..Decision::default() });
        }
        self.held += 1;
        let held = Held { child, number: self.held };
        let waits = Some(held.clone());
        let left = self.hold(held, now);
        Ok(Decision { waits, left, ..Decision::default() })
    }

    /// Lets a child wait that arrived at this time. Returns what left for it, or itself.
    fn hold(&self, held: Held, arrived: Instant) -> Vec<(Category, Vec<u64>)> {
        let Held { child, number } = &held;
        let (relation, number) = (child.relation, *number);
        let (subject, uri) = (child.subject.clone(), child.uri.clone());
        let entry = Entry::new(subject, held).id(uri).at(arrived);
        let numbers = |items: Items<Held, Id>| items.map(|held| held.number).collect();
        match self.waiting(relation.parent()).push_entry(entry) {
            Pushed::Stored => Vec::new(),
            Pushed::Displaced { value, .. } => vec![(Category::Displaced, vec![value.number])],
            Pushed::Evicted { items, .. } => vec![(Category::Evicted, numbers(items))],
            Pushed::Rejected { .. } => vec![(Category::Duplicate, vec![number])],
            Pushed::Several(several) => {
                let displaced = several.displaced.iter().map(|(held, _)| held.number).collect();
                let evicted = several.evicted.into_iter();
                [(Category::Displaced, displaced)]
                    .into_iter()
                    .chain(evicted.map(|(_, items)| (Category::Evicted, numbers(items))))
                    .collect()
            }
        }
    }

    /// A child that waited when an earlier run ended, and had waited for so long, goes on with it.
    ///
    /// # Errors
    ///
    /// If the database cannot be read; nothing has changed then.
    pub fn restore(
        &mut self,
        held: Held,
        age: Duration,
        now: Instant,
    ) -> rusqlite::Result<Decision> {
        self.held = self.held.max(held.number);
        // Where the clock does not reach back that far, it may wait a little longer.
        let arrived = now.checked_sub(age).unwrap_or(now);
        if self.has(held.child.relation.parent(), &held.child.subject)? {
            return Ok(Decision { freed: vec![self.freed(held)], ..Decision::default() });
        }
        let left = if age >= self.time_to_live {
            vec![(Category::Expired, vec![held.number])]
        } else {
            self.hold(held, arrived)
        };
        Ok(Decision { left, ..Decision::default() })
    }

    /// Children that have waited for too long leave, `most` of them.
    pub fn expire(&mut self, now: Instant, most: usize) -> Decision {
        let expired = self.all_waiting().map(|waiting| waiting.expire(now, most));
        let numbers: Vec<_> = expired.into_iter().flatten().map(|gone| gone.value.number).collect();
        let left = (!numbers.is_empty()).then_some((Category::Expired, numbers));
        Decision { left: Vec::from_iter(left), ..Decision::default() }
    }

    /// Nothing that waits for this post is freed but not yet accepted: only the author frees
    /// it, and the author's events take effect one after the other.
    fn delete_post(&mut self, uri: Id) -> Decision {
        let cancelled = self.for_post.take(&uri).map(|held| held.number);
        let cancelled: Vec<_> = cancelled.collect();
        let _ = self.known.take(&Name::Parent(Parent::Post, uri.clone()));
        let mut write = self.accept(Op::DeletePost(uri));
        write.removed_waiting = !cancelled.is_empty();
        let left = write.removed_waiting.then_some((Category::Cancelled, cancelled));
        Decision { write: Some(write), left: Vec::from_iter(left), ..Decision::default() }
    }

    fn delete_child(&mut self, relation: Relation, uri: Id) -> Decision {
        let waiting = self.waiting(relation.parent()).remove_by_id(&uri);
        let waited = waiting.map(|(_, held)| held.number).or_else(|| self.freed.remove(&uri));
        if let Some(number) = waited {
            let left = vec![(Category::Cancelled, vec![number])];
            return Decision { left, done: Some(Category::Deleted), ..Decision::default() };
        }
        let write = Some(self.accept(Op::DeleteChild(relation, uri)));
        Decision { write, ..Decision::default() }
    }

    /// A freed child takes its turn, unless it was cancelled, and counted as such, meanwhile.
    pub fn arrived(&mut self, freed: Freed) -> Decision {
        let Freed(Held { child, number }) = freed;
        if self.freed.get(&child.uri) != Some(&number) {
            return Decision::default();
        }
        self.freed.remove(&child.uri);
        let write = Write { waited: Some(number), ..self.accept(Op::Child(child)) };
        Decision { write: Some(write), ..Decision::default() }
    }

    /// These were written, or could not be: they are in the database, or nowhere.
    pub fn settled<'a>(&mut self, writes: impl IntoIterator<Item = &'a Write>) {
        for write in writes {
            let name = write.op.name();
            if self.accepted.get(&name).is_some_and(|last| last.sequence == write.sequence) {
                self.accepted.remove(&name);
            }
        }
    }

    /// What looks into the database.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// What waits for posts, and what waits for users.
    pub fn all_waiting(&self) -> [&Arc<Waiting>; 2] {
        [&self.for_post, &self.for_user]
    }

    fn waiting(&self, parent: Parent) -> &Waiting {
        match parent {
            Parent::Post => &self.for_post,
            Parent::User => &self.for_user,
        }
    }

    fn has(&mut self, parent: Parent, id: &Id) -> rusqlite::Result<bool> {
        let name = Name::Parent(parent, id.clone());
        if let Some(accepted) = self.accepted.get(&name) {
            return Ok(!matches!(accepted.state, State::Gone));
        }
        if self.known.get(&name).is_some() {
            return Ok(true);
        }
        let found = self.reader.has(parent, id)?;
        if found {
            // What it forgets for this one is looked up again.
            let _ = self.known.push(name, ());
        }
        Ok(found)
    }

    /// Whether a child of this URI is there. It goes with its subject, and does not come back with
    /// it.
    fn has_child(&self, relation: Relation, uri: &Id) -> rusqlite::Result<bool> {
        let (subject, accepted) = match self.accepted.get(&Name::Child(uri.clone())) {
            Some(Accepted { state: State::Child(subject), sequence, .. }) => {
                (subject.clone(), *sequence)
            }
            Some(_) => return Ok(false),
            None => match self.reader.subject_of(relation, uri)? {
                Some(subject) => (subject, 0),
                None => return Ok(false),
            },
        };
        let parent = self.accepted.get(&Name::Parent(relation.parent(), subject));
        Ok(parent.is_none_or(|parent| parent.deleted <= accepted))
    }

    fn free(&mut self, parent: Parent, id: &Id) -> Vec<Freed> {
        let children = self.waiting(parent).take(id);
        children.into_iter().map(|held| self.freed(held)).collect()
    }

    fn freed(&mut self, held: Held) -> Freed {
        self.freed.insert(held.child.uri.clone(), held.number);
        Freed(held)
    }

    fn accept(&mut self, op: Op) -> Write {
        self.sequence += 1;
        let sequence = self.sequence;
        let state = match &op {
            Op::User(_) | Op::Post(_) => State::Parent,
            Op::Child(child) => State::Child(child.subject.clone()),
            Op::DeletePost(_) | Op::DeleteChild(..) => State::Gone,
        };
        let last = self.accepted.entry(op.name()).or_insert(Accepted {
            sequence,
            state: State::Gone,
            deleted: 0,
        });
        if matches!(state, State::Gone) {
            last.deleted = sequence;
        }
        (last.sequence, last.state) = (sequence, state);
        Write { op, sequence, removed_waiting: false, waited: None }
    }
}

impl Decision {
    fn done(category: Category) -> Self {
        Self { done: Some(category), ..Self::default() }
    }
}
