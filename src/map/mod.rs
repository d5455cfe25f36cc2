//! Arrays of items under keys, with a bound on everything: [`BoundedArrayMap`] for one owner,
//! [`SharedBoundedArrayMap`] for several threads or tasks, [`ShardedBoundedArrayMap`] for more than
//! one lock can serve.

mod bounded;
mod builder;
mod checkout;
mod core;
mod entry;
mod item_buf;
mod items;
mod iter;
mod keys;
mod limits;
mod observer;
mod outcome;
mod resize;
mod retain;
#[cfg(feature = "serde")]
mod serial;
mod sharded;
mod shared;
mod stats;
#[cfg(feature = "tokio")]
mod sweeper;

pub use bounded::BoundedArrayMap;
pub use builder::Builder;
pub use checkout::{Checkout, ShardedCheckout, SharedCheckout};
pub use entry::Entry;
pub use items::{Items, NoIndex};
pub use iter::{Array, ArrayIter, IntoIter, Iter, IterLru};
pub use limits::{FullKey, FullMap, MapLimits};
pub use observer::Event;
pub use outcome::{Expired, Pushed, RejectReason, Several};
pub use resize::{Resize, Shrunk};
#[cfg(feature = "serde")]
pub use serial::Restore;
pub use sharded::ShardedBoundedArrayMap;
pub use shared::SharedBoundedArrayMap;
pub use stats::MapStats;
#[cfg(feature = "tokio")]
pub use sweeper::{Expire, Sweeper};
