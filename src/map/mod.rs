//! Arrays of items under keys, with a bound on everything: [`BoundedArrayMap`] for one owner,
//! [`SharedBoundedArrayMap`] for many.

mod arrivals;
mod bounded;
mod builder;
mod contents;
mod handle;
mod index;
mod items;
mod iter;
mod outcome;
mod recency;
mod shared;
mod slab;
mod stats;

pub use bounded::BoundedArrayMap;
pub use builder::{Builder, FullKey, FullMap};
pub use index::NoIndex;
pub use items::Items;
pub use iter::{Array, ArrayIter, IntoIter, Iter, IterLru};
pub use outcome::{Expired, Pushed, RejectReason};
pub use shared::SharedBoundedArrayMap;
pub use stats::Stats;
