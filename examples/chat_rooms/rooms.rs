//! The members of each room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use super::outbox::{Bounds, Inbox, Memory, Outbox, Overflow, outbox};
use super::protocol::{Frame, Room};

/// The members of each room. A room exists as long as it has a member.
#[derive(Debug)]
pub struct Rooms {
    bounds: Bounds,
    memory: Memory,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    /// A new slice for each change, so that a frame is handed out without the lock.
    rooms: HashMap<Room, Arc<[Arc<Outbox>]>>,
    closed: bool,
}

/// A place in a room, given up when it is dropped.
#[derive(Debug)]
#[must_use = "the place is given up when this is dropped"]
pub struct Membership {
    rooms: Arc<Rooms>,
    room: Room,
    /// Only the room itself keeps it, so that it is gone with its place there.
    member: Weak<Outbox>,
}

impl Rooms {
    /// No rooms yet; each member's outbox will have these bounds, and all of them this memory.
    pub fn new(bounds: Bounds, memory: Memory) -> Self {
        Self { bounds, memory, inside: Mutex::default() }
    }

    /// Enters a room; none once [`close`](Self::close) was called.
    pub fn join(self: &Arc<Self>, room: Room) -> Option<(Membership, Inbox)> {
        let (outbox, inbox) = outbox(self.bounds, &self.memory);
        let outbox = Arc::new(outbox);
        let member = Arc::downgrade(&outbox);
        let mut inside = self.inside.lock().unwrap();
        if inside.closed {
            return None;
        }
        let members = inside.rooms.entry(room.clone()).or_default();
        *members = members.iter().chain([&outbox]).cloned().collect();
        drop(inside);
        Some((Membership { rooms: self.clone(), room, member }, inbox))
    }

    /// Puts a frame into the outbox of every member of a room.
    pub fn deliver(&self, room: &str, frame: &Frame) {
        let members = self.inside.lock().unwrap().rooms.get(room).cloned();
        for member in members.iter().flat_map(|members| members.iter()) {
            // The other end of the outbox learns of the overflow, and closes the client.
            let (Ok(()) | Err(Overflow)) = member.put(frame);
        }
    }

    /// Accepts no further members; each member gets what waits for it, and no more.
    pub fn close(&self) {
        let mut inside = self.inside.lock().unwrap();
        inside.closed = true;
        let rooms = std::mem::take(&mut inside.rooms);
        drop(inside);
        drop(rooms);
    }

    /// How many rooms have a member.
    pub fn len(&self) -> usize {
        self.inside.lock().unwrap().rooms.len()
    }

    /// Whether no room has a member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn remove(&self, room: &str, member: &Weak<Outbox>) {
        let mut inside = self.inside.lock().unwrap();
        let Some(members) = inside.rooms.get_mut(room) else { return };
        *members =
            members.iter().filter(|other| Arc::as_ptr(other) != member.as_ptr()).cloned().collect();
        if members.is_empty() {
            inside.rooms.remove(room);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.rooms.remove(&self.room, &self.member);
    }
}
