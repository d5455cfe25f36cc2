//! Arrays of items under keys, with a bound on everything: [`BoundedArrayMap`] for one owner,
//! [`SharedBoundedArrayMap`] for many, [`ShardedBoundedArrayMap`] for
//! more than one lock can serve.

mod admit;
mod bounded;
mod builder;
mod checkout;
mod contents;
mod heaviest;
mod index;
mod items;
mod iter;
mod keys;
mod leave;
mod line;
mod observer;
mod outcome;
mod push;
mod removal;
#[cfg(feature = "serde")]
mod serial;
mod sharded;
mod shared;
mod sift;
mod stats;
#[cfg(feature = "tokio")]
mod sweeper;
mod tickets;

pub use bounded::BoundedArrayMap;
pub use builder::{Builder, FullKey, FullMap, PerKey, Total};
pub use checkout::{Checkout, ShardedCheckout, SharedCheckout};
pub use index::NoIndex;
pub use items::Items;
pub use iter::{Array, ArrayIter, IntoIter, Iter, IterLru};
pub use observer::Event;
pub use outcome::{Expired, Pushed, RejectReason};
pub use removal::Shrunk;
#[cfg(feature = "serde")]
pub use serial::Restore;
pub use sharded::ShardedBoundedArrayMap;
pub use shared::SharedBoundedArrayMap;
pub use stats::MapStats;
#[cfg(feature = "tokio")]
pub use sweeper::{Expire, Sweeper};
