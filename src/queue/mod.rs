//! A queue that cannot grow, and says what it lost.
//!
//! [`OverflowQueue`] is the queue, [`Builder`] sets its limits, [`WhenFull`] says what a full one
//! does. The other types say what happened.

mod builder;
mod core;
mod lane;
mod outcome;
mod overflow;
mod policy;
mod pop;
mod push;
#[cfg(feature = "sink")]
mod sink;
mod stats;
mod stream;
mod waiters;

pub use self::builder::Builder;
pub use self::outcome::{
    Closed, Displaced, Drained, Popped, Pushed, RejectReason, Rejected, TryPopError,
};
pub use self::overflow::OverflowQueue;
pub use self::policy::WhenFull;
pub use self::pop::{Pop, PopMany, PopManyInto};
pub use self::push::Push;
#[cfg(feature = "sink")]
pub use self::sink::PushSink;
pub use self::stats::QueueStats;
pub use self::stream::Items;
